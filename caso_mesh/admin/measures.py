"""The figures of the mesh, as of now: what metrics, the status screen and reports are made of.

What is in memory is counted on the loop, in a few ms for a thousand servers and ten thousand runs. What is in the tables
is summed by a reading thread, and again only when sets have come or gone.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from caso_mesh.admin import totals
from caso_mesh.admin.ages import Age, ages
from caso_mesh.admin.device_states import shown_device_state
from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.hiding import shown
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.admin.totals import AttemptTotal
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model.clock import Clock
from caso_mesh.model.states import ATTEMPT_ACTIVE, AlertKind, AttemptState, RunState, ServerState, WaitReason
from caso_mesh.model.storage import BackupSet

#: Pairs of a selection list and a server of which figures are given: three lists on each of 3,000 servers, and some.
MOST_SOURCES = 10_000
#: Devices of which figures are given.
MOST_DEVICES = 10_000
_SECOND = 1_000_000_000


class LastBackup(Struct, frozen=True):
    """The newest good backup of one server for one selection list. ``age_s`` and ``seconds``, how long it took, are ``None``
    if there never was one, ``oldest_allowed_s`` if it may have any age; ``overdue``: it is older than allowed."""

    selection: str
    source: str
    age_s: float | None
    seconds: float | None
    oldest_allowed_s: float | None
    overdue: bool


class DeviceReading(Struct, frozen=True):
    """``free_bytes`` is ``None`` while nobody can use it."""

    name: str
    state: str
    sets: int
    stored_bytes: int
    free_bytes: int | None
    running: int


class MediaSetReading(Struct, frozen=True):
    """The sets of one media set: how many, the size of the files in them, and what they added to devices."""

    name: str
    sets: int
    source_bytes: int
    stored_bytes: int


class MeshReadings(Struct, frozen=True):
    """Numbers by their label. ``left_out``: how many pairs and devices are beyond what is shown."""

    servers: dict[str, int]
    connected: int
    runs: dict[str, int]
    waiting: dict[str, int]
    queued: int
    active: dict[str, int]
    alerts: dict[str, int]
    last: tuple[LastBackup, ...]
    devices: tuple[DeviceReading, ...]
    media_sets: tuple[MediaSetReading, ...]
    attempts: tuple[AttemptTotal, ...]
    jobs: int
    left_out: int


class _Newest(Struct, frozen=True):
    ended_at_ns: int
    seconds: float


class _SetSums(Struct, frozen=True):
    """All sets, summed. ``mark`` tells when they have to be summed again."""

    mark: tuple[int, ...]
    newest: dict[tuple[str, str], _Newest]
    media_sets: tuple[MediaSetReading, ...]
    devices: dict[str, tuple[int, int]]


class Measures:
    """Readings of the administrator in office."""

    def __init__(
        self, *, keeper: ControlKeeper, tables: Tables, live: Live, links: Links, own: str, clock: Clock
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._own = own
        self._clock = clock
        self._sums: _SetSums | None = None

    async def take(self) -> MeshReadings:
        """All figures. Raises what the tables raise."""
        last = self._sums
        sums = self._sums = await self._tables.ask(lambda c: _sum_sets(c, last))
        counted, open_alerts = await self._tables.ask(lambda c: (totals.read(c), _open_alerts(c)))
        state = self._keeper.state
        servers = Counter(server.state.value for server in state.servers.values())
        runs = Counter(run.state.value for run in state.open_runs())
        waiting = Counter(each.reason.value for each in self._live.waiting.values())
        active = Counter(attempt.state.value for attempt in state.active_attempts())
        unanswered = [row for row in open_alerts if row.id not in state.answers]
        alerts = Counter(row.alert for row in shown(state, unanswered))
        newest, beyond = await self._ages(state, sums)
        devices = self._devices(state, sums)
        return MeshReadings(
            servers=_all_of(servers, (each for each in ServerState if each is not ServerState.DISCOVERED)),
            connected=sum(id_ == self._own or self._links.linked(id_) for id_ in state.servers),
            runs=_all_of(runs, _OPEN),
            waiting=_all_of(waiting, WaitReason),
            queued=len(self._live.waiting) + active[AttemptState.QUEUED.value],
            active=_all_of(active, ATTEMPT_ACTIVE),
            alerts=_all_of(alerts, AlertKind),
            last=tuple(newest),
            devices=tuple(devices[:MOST_DEVICES]),
            media_sets=sums.media_sets,
            attempts=counted,
            jobs=len(state.jobs),
            left_out=beyond + len(devices[MOST_DEVICES:]),
        )

    async def _ages(self, state: ControlState, sums: _SetSums) -> tuple[list[LastBackup], int]:
        """As ``Ageing`` judges them, and how many are left out."""
        now_ns = self._clock.now_ns()
        flaws = await flaws_of(state, self._tables, self._live)
        every = await ages(state, self._tables, flaws, now_ns)
        lengths = {(source, each.ended_at_ns): each.seconds for (_, source), each in sums.newest.items()}
        return [_last(state, lengths, age, now_ns) for age in every[:MOST_SOURCES]], len(every[MOST_SOURCES:])

    def _devices(self, state: ControlState, sums: _SetSums) -> list[DeviceReading]:
        running = Counter(attempt.device for attempt in state.active_attempts())
        found = []
        for device in state.device_list():
            told = [self._live.report_of(device.id, place.server) for place in device.paths]
            reports = [report for report in told if report is not None]
            good = [report.free_bytes for report in reports if report.problem is None]
            sets, stored = sums.devices.get(device.id, (0, 0))
            shown = shown_device_state(device, reports)
            found.append(DeviceReading(device.name, shown, sets, stored, max(good, default=None), running[device.id]))
        return found


_OPEN = (RunState.READY, RunState.ON_HOLD, RunState.QUEUED, RunState.DELEGATED, RunState.RUNNING, RunState.VERIFYING)


def _all_of(counted: Counter[str], known: Iterable[object]) -> dict[str, int]:
    """Also those that are none now: a series that comes and goes makes gaps."""
    return {**dict.fromkeys(sorted(map(str, known)), 0), **counted}


def _last(state: ControlState, lengths: Mapping[tuple[str, int], float], age: Age, now_ns: int) -> LastBackup:
    newest, server = age.newest, state.servers.get(age.source)
    places = (age.source, *server.succeeds) if server is not None else (age.source,)
    known = [] if newest is None else [(place, newest.ended_at_ns) for place in places]
    return LastBackup(
        selection=age.selection.name,
        source=state.name_of(age.source),
        age_s=None if newest is None else max(0.0, (now_ns - newest.ended_at_ns) / _SECOND),
        seconds=next((lengths[key] for key in known if key in lengths), None),
        oldest_allowed_s=age.allowed.seconds,
        overdue=age.overdue(now_ns),
    )


def _open_alerts(c: sqlite3.Connection) -> list[AlertRow]:
    columns = "id, raised_at_ns, server, alert, category, object, text, cleared_at_ns"
    return [AlertRow(*row) for row in c.execute(f"SELECT {columns} FROM alert WHERE cleared_at_ns IS NULL")]


def _sum_sets(c: sqlite3.Connection, last: _SetSums | None) -> _SetSums:
    """``last`` itself if no set came or went since."""
    (count, newest_row) = c.execute("SELECT count(*), coalesce(max(rowid), 0) FROM backup_set").fetchone()
    (gone,) = c.execute("SELECT count(*) FROM set_gone").fetchone()
    mark = (count, newest_row, gone)
    if last is not None and last.mark == mark:
        return last
    newest: dict[tuple[str, str], _Newest] = {}
    media_sets: dict[str, tuple[int, int, int]] = {}
    devices: dict[str, tuple[int, int]] = {}
    decode = msgspec.msgpack.Decoder(_Summed).decode
    for (data,) in c.execute("SELECT data FROM backup_set"):
        backup = decode(data)
        key = (backup.job, backup.source)
        known = newest.get(key)
        if known is None or known.ended_at_ns < backup.ended_at_ns:
            seconds = max(0.0, (backup.ended_at_ns - backup.started_at_ns) / _SECOND)
            newest[key] = _Newest(backup.ended_at_ns, seconds)
        sets, size, stored = media_sets.get(backup.media_set, (0, 0, 0))
        media_sets[backup.media_set] = (sets + 1, size + backup.bytes, stored + backup.bytes_stored)
        sets, stored = devices.get(backup.device, (0, 0))
        devices[backup.device] = (sets + 1, stored + backup.bytes_stored)
    summed = tuple(MediaSetReading(name, *media_sets[name]) for name in sorted(media_sets))
    return _SetSums(mark, newest, summed, devices)


class _Summed(Struct):
    """Of a ``BackupSet`` what is summed: the rest need not be made."""

    job: str
    source: str
    device: str
    media_set: str
    started_at_ns: int
    ended_at_ns: int
    bytes: int
    bytes_stored: int


#: What is summed is there under the same names.
assert set(_Summed.__struct_fields__) <= set(BackupSet.__struct_fields__)
