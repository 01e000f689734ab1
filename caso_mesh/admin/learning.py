"""What the administrator's tables teach: which devices hold sets of whom, what servers have stored, how long backups take,
and from that when what runs will end."""

from __future__ import annotations

from collections.abc import Mapping

from caso_mesh.admin.live import Live
from caso_mesh.admin.tables import Tables
from caso_mesh.control.placing import UNKNOWN
from caso_mesh.control.state import ControlState
from caso_mesh.model.clock import Clock
from caso_mesh.model.jobs import BackupSpec, Run
from caso_mesh.planning.history import History, Prediction, Sample

_SECOND = 1_000_000_000
#: So many of the newest sets are history enough, and it is read again no more often than this.
_NEWEST, _EACH_S = 5000, 60.0
#: Below this percentage of a running job its end is not reckoned from how far it has come.
_TELLING_PERCENT = 5.0


class Learning:
    """``holdings``: (source, device) that has sets of it. ``stored_bytes``: (server, device) -> what its sets take there.
    ``speeds``: (server, device, how fast), where it is known to differ from 1."""

    def __init__(self, tables: Tables, live: Live, clock: Clock) -> None:
        self._tables = tables
        self._live = live
        self._clock = clock
        self._came = 1
        self._places_of = self._history_of = 0  # how much had come when they were learnt
        self._read_s = float("-inf")
        self._history = History()
        self.holdings: tuple[tuple[str, str], ...] = ()
        self._held: frozenset[tuple[str, str]] = frozenset()
        self.stored_bytes: Mapping[tuple[str, str], int] = {}
        self.speeds: tuple[tuple[str, str, float], ...] = ()

    def facts_came(self) -> None:
        """There may be new sets."""
        self._came += 1

    async def learn(self, state: ControlState) -> None:
        """Takes in what is new. What a lost server did counts for the machine that took its place."""
        came = self._came
        if self._places_of != came:
            await self._learn_places(state)
            self._places_of = came
        if self._history_of != came and self._clock.monotonic_s() - self._read_s >= _EACH_S:
            await self._learn_history(state)
            self._history_of, self._read_s = came, self._clock.monotonic_s()

    async def _learn_places(self, state: ControlState) -> None:
        rows, now = await self._tables.stored(), _Successors(state)
        self.holdings = tuple(sorted({(now.of(source), device) for source, _, device, _ in rows}))
        self._held = frozenset(self.holdings)
        stored: dict[tuple[str, str], int] = {}
        for _, server, device, size in rows:
            stored[server, device] = stored.get((server, device), 0) + size
        self.stored_bytes = stored

    async def _learn_history(self, state: ControlState) -> None:
        now = _Successors(state)
        self._history = History(
            Sample(
                each.job,
                now.of(each.source),
                each.type,
                each.server,
                each.device,
                max(0, each.ended_at_ns - each.started_at_ns) / _SECOND,
                each.bytes_stored,
            )
            for each in await self._tables.sets(limit=_NEWEST)
            if each.copy_of is None and each.made_of is None  # the times of those are others'
        )
        speeds = sorted(self._history.speeds.items())
        self.speeds = tuple((*place, speed) for place, speed in speeds if speed != 1.0)

    def predicted(self, run: Run, source: str) -> Prediction:
        """What a part will come to; the same object until more is learnt."""
        if isinstance(run.spec, BackupSpec):
            return self._history.predict(run.job, source, run.spec.type)
        return UNKNOWN

    def running(self, state: ControlState) -> tuple[dict[str, int], dict[str, int]]:
        """Of active attempts when they are predicted to end, and how many bytes they are predicted to store yet; by id."""
        now_ns = self._clock.now_ns()
        ends_at_ns: dict[str, int] = {}
        to_come_bytes: dict[str, int] = {}
        for attempt in state.active_attempts():
            predicted = self.predicted(state.run(attempt.run), attempt.source)
            progress = self._live.progress.get(attempt.id)
            stored = 0 if progress is None else progress.counts.bytes_stored
            there = (attempt.source, attempt.device) in self._held
            to_come_bytes[attempt.id] = max(0, (predicted.bytes if there else predicted.elsewhere_bytes) - stored)
            percent = None if progress is None else progress.percent
            if progress is not None and percent is not None and percent >= _TELLING_PERCENT:
                left_s = progress.elapsed_s * (100.0 - percent) / percent
                ends_at_ns[attempt.id] = max(now_ns, progress.at_ns + round(left_s * _SECOND))
            elif predicted.seconds is not None:
                speed = self._history.speeds.get((attempt.server, attempt.device), 1.0)
                ends_at_ns[attempt.id] = attempt.delegated_at_ns + round(predicted.seconds / speed * _SECOND)
        return ends_at_ns, to_come_bytes


class _Successors:
    """Who is in the place of a server now."""

    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._found: dict[str, str] = {}

    def of(self, server: str) -> str:
        if server not in self._found:
            successor = self._state.successor_of(server)
            self._found[server] = server if successor is None else successor.id
        return self._found[server]
