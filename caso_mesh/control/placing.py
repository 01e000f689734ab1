"""The tables of placement, cut out of the control state and of what only the administrator in office knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any, TypeVar

from msgspec import Struct, structs

from caso_mesh.control.erasing import erasures
from caso_mesh.control.indexing import Trail, keep, keep_in_order
from caso_mesh.control.logons import logons_of, missing_logon
from caso_mesh.control.state import ControlState
from caso_mesh.control.where_read import device_of
from caso_mesh.model.dialects import OWN, Dialects
from caso_mesh.model.errors import NoKey
from caso_mesh.model.features import FEATURE_LEVEL, level_of_work
from caso_mesh.model.ids import attempt_id, second_run_id
from caso_mesh.model.jobs import (
    Attempt,
    BackupSpec,
    Job,
    Part,
    Run,
    TestRunSpec,
    Waiting,
    kind_of,
    placed_by,
    set_read,
)
from caso_mesh.model.mesh import Server
from caso_mesh.model.settings import number, text
from caso_mesh.model.states import (
    ATTEMPT_ACTIVE,
    IN_PLACE,
    PASSING,
    AttemptState,
    DataLocation,
    DeviceState,
    JobState,
    RunState,
    ServerState,
)
from caso_mesh.model.storage import Device
from caso_mesh.planning import lifecycle
from caso_mesh.planning.history import Prediction
from caso_mesh.planning.predicting import UNKNOWN
from caso_mesh.planning.problem import (
    Assignment,
    Busy,
    DevicePoolRow,
    DeviceRow,
    Plan,
    PoolRow,
    Problem,
    ReadyPart,
    ServerRow,
)
from caso_mesh.planning.window import shut_until_ns

_Key = TypeVar("_Key")
#: How long after its due time a run that others wait for may be opened.
OPENED_WITHIN_NS = 120 * 1_000_000_000
#: So many assignments of a plan are committed, together; then it is planned anew, by what has changed meanwhile.
AT_ONCE = 64


class Seen(Struct, frozen=True, kw_only=True):
    """What only the administrator in office knows.

    ``connected``: node ids of linked servers (the administrator's own too). ``device_of_set``: the device (id) that
    holds a set, ``medium_of_set`` the label of its medium, ``copies_of_set`` its copies as (set, device), those first that are to be read first. ``missing_sets`` are those that inventories did
    not find. ``predicted(run, source)``: what a part will come to; the same object as long as nothing is learnt.
    ``free_bytes`` by device id. ``silent_since_ns`` by node id, for links lost so lately that no transition is committed
    yet. ``holdings``: (source, device) that has sets of it. ``no_data_path``: (source, server) that cannot reach each
    other. ``telling``: servers that are back and have not told yet what they did. ``unended``: by (run, source) an
    attempt of which the server whose files it wrote has not confirmed that it has ended. ``speeds``: (server, device, how fast). ``ends_at_ns``: when active attempts are predicted to end, by id.
    ``to_come_bytes``: what active attempts are predicted to store yet, by id. ``stored_bytes``: (server, device) -> what
    its sets take there. ``broken``: (device, server) where the server says that it cannot use the device now, and by what error. ``own_work``:
    (server, device, jobs) that servers run by themselves. ``levels``:
    the feature level of the programs of linked servers, by node id; ``dialects``: how their workers speak. ``learnt``: what ``predicted`` stands on; while it is
    the same object, so are all predictions of backups. ``now_ns``: by the calendar that schedules go by.
    """

    connected: Collection[str]
    device_of_set: Callable[[str], str | None]
    medium_of_set: Callable[[str], str] = lambda set_id: ""
    copies_of_set: Callable[[str], tuple[tuple[str, str], ...]] = lambda set_id: ()
    missing_sets: Collection[str] = frozenset()
    predicted: Callable[[Run, str], Prediction] = lambda run, source: UNKNOWN
    free_bytes: Mapping[str, int] = {}
    silent_since_ns: Mapping[str, int] = {}
    holdings: tuple[tuple[str, str], ...] = ()
    no_data_path: tuple[tuple[str, str], ...] = ()
    telling: tuple[str, ...] = ()
    unended: Mapping[tuple[str, str], str] = {}
    speeds: tuple[tuple[str, str, float], ...] = ()
    ends_at_ns: Mapping[str, int] = {}
    to_come_bytes: Mapping[str, int] = {}
    stored_bytes: Mapping[tuple[str, str], int] = {}
    broken: Mapping[tuple[str, str], str] = {}
    own_work: tuple[tuple[str, str, int], ...] = ()
    levels: Mapping[str, int] = {}
    dialects: Mapping[str, Dialects] = {}
    learnt: object = None
    in_grace: bool = False
    now_ns: int = 0


#: What a row is made of, the row, and whether it depends on nothing but the run, the job and what was learnt.
_Known = tuple[tuple[object, ...], ReadyPart, bool]


class Cut:
    """Cuts the tables out of a control state, again and again: rows of parts and servers that did not change are the same
    objects. Of runs only those are looked at that were written since the last time, and those that depend on others."""

    def __init__(self) -> None:
        self._limits: dict[str, tuple[Server, ServerState, int, int, bool, str]] = {}
        self._rows: dict[str, tuple[object, tuple[object, ...], ServerRow]] = {}
        self._settings: object = None
        self._seen_of_servers: tuple[object, ...] = ()
        self._loads_of_servers: set[tuple[str, int, int]] = set()
        self._servers: tuple[ServerRow, ...] = ()
        self._devices: dict[str, tuple[Device, tuple[object, ...], DeviceRow]] = {}
        self._learnt: object = None
        self._trail: Trail | None = None
        self._read = 0
        self._runs: dict[str, dict[str, _Known]] = {}
        self._parts_of: dict[str, tuple[ReadyPart, ...]] = {}
        self._run_ids: list[str] = []
        self._bound: set[str] = set()
        self._parts: tuple[ReadyPart, ...] | None = None

    def problem(self, state: ControlState, seen: Seen) -> Problem:
        """Everything that ``planning.placement.place`` depends on."""
        active = state.active_attempts()
        loads = _Loads(state, active, seen)
        return Problem(
            servers=self._server_rows(state, seen, loads),
            devices=self._device_rows(state, seen, loads),
            parts=self._ready(state, seen),
            pools=tuple(PoolRow(pool.name, pool.servers) for pool in state.pool_list()),
            device_pools=tuple(
                DevicePoolRow(name, tuple((member.device, member.priority) for member in pool.members))
                for name, pool in sorted(state.device_pools.items())
            ),
            busy=tuple(
                Busy(each.job, each.source, each.run, each.server, each.device, seen.ends_at_ns.get(each.id))
                for each in active
            ),
            holdings=seen.holdings,
            no_data_path=seen.no_data_path,
            telling=seen.telling,
            shut=self._shut(state, seen.now_ns),
            speeds=seen.speeds,
            in_grace=seen.in_grace,
        )

    # --- servers ---

    def _server_rows(self, state: ControlState, seen: Seen, loads: _Loads) -> tuple[ServerRow, ...]:
        layers = (
            dict(state.mesh_settings),
            {name: dict(of) for name, of in state.pool_settings.items()},
            [*state.pools.values()],
        )
        if layers != self._settings:
            self._settings = layers
            self._limits.clear()
        of_servers = (
            layers,
            [*state.servers.values()],
            frozenset(seen.connected),
            dict(seen.silent_since_ns),
            dict(seen.levels),
            dict(seen.dialects),
        )
        busy = {(id, loads.running.get(id, 0), loads.reading.get(id, 0)) for id in {*loads.running, *loads.reading}}
        if of_servers != self._seen_of_servers:
            rows = [self._server_row(state, server, seen, loads) for server in state.server_list()]
        elif busy != self._loads_of_servers:
            changed = {each[0] for each in busy ^ self._loads_of_servers}
            rows = [
                self._server_row(state, state.servers[row.id], seen, loads) if row.id in changed else row
                for row in self._servers
            ]
        else:
            return self._servers
        self._seen_of_servers, self._loads_of_servers = of_servers, busy
        self._servers = tuple(rows)
        return self._servers

    def _server_row(self, state: ControlState, server: Server, seen: Seen, loads: _Loads) -> ServerRow:
        """What a server has as its limits is worked out again only when a setting has changed."""
        limits = self._limits.get(server.id)
        if limits is None or limits[0] is not server:
            settings = state.settings_of(server.id)
            limits = self._limits[server.id] = (
                server,
                server.state,
                int(number(settings, "server-concurrency")),
                int(number(settings, "source-concurrency")),
                number(settings, "queue-on-hold") >= 1.0,
                text(settings, "bandwidth-limit"),
            )
        lately = seen.silent_since_ns.get(server.id)
        now = (
            server.id in seen.connected,
            loads.running.get(server.id, 0),
            loads.reading.get(server.id, 0),
            lately if server.silent_since_ns is None else server.silent_since_ns,
            seen.levels.get(server.id, FEATURE_LEVEL),
            seen.dialects.get(server.id, OWN),
        )
        known = self._rows.get(server.id)
        if known is None or known[0] is not limits or known[1] != now:
            row = ServerRow(
                server.id,
                server.name,
                limits[1],
                connected=now[0],
                running=now[1],
                concurrency=limits[2],
                reading=now[2],
                source_concurrency=limits[3],
                silent_since_ns=now[3],
                held=limits[4],
                level=now[4],
                bulk=now[5],
                local=server.data_location is DataLocation.SERVER,
            )
            known = self._rows[server.id] = (limits, now, row)
        return known[2]

    # --- devices ---

    def _device_rows(self, state: ControlState, seen: Seen, loads: _Loads) -> tuple[DeviceRow, ...]:
        taken, broken = erasures(state), {device for device, _ in seen.broken}
        found: dict[str, tuple[Device, tuple[object, ...], DeviceRow]] = {}
        for device in state.device_list():
            id = device.id
            more = id in broken or any(
                path.quota_bytes is not None for path in device.paths
            )  # hangs on more than these
            loaded = (loads.writing.get(id), loads.copied_from.get(id), loads.reserved.get(id))
            now = (taken.get(id), loaded, seen.free_bytes.get(id), more)
            known = self._devices.get(id)
            if known is None or known[0] is not device or known[1] != now or more:
                known = device, now, _device_row(device, taken.get(id), seen, loads)
            found[id] = known
        self._devices = found
        return tuple(row for _, _, row in found.values())

    def _shut(self, state: ControlState, now_ns: int) -> dict[str, int]:
        """Until when servers send nothing to others."""
        found = ((id, shut_until_ns(each[5], now_ns)) for id, each in self._limits.items() if id in state.servers)
        return {id: until_ns for id, until_ns in found if until_ns is not None}

    # --- parts ---

    def _ready(self, state: ControlState, seen: Seen) -> tuple[ReadyPart, ...]:
        as_learnt = seen.learnt is not None and seen.learnt is self._learnt
        if as_learnt and self._trail is state.trail:
            look = {*state.trail.runs[self._read :], *self._bound}
        else:
            look = {*self._runs, *(run.id for run in state.open_runs())}
        self._learnt, self._trail, self._read = seen.learnt, state.trail, len(state.trail.runs)
        for id in look:
            self._look_at(state, seen, id, as_learnt=as_learnt)
        if self._parts is None:
            self._parts = tuple(chain.from_iterable(map(self._parts_of.__getitem__, self._run_ids)))
        return self._parts

    def _look_at(self, state: ControlState, seen: Seen, id: str, *, as_learnt: bool) -> None:
        run, before = state.runs.get(id), self._runs.get(id, {})
        now: dict[str, _Known] = {}
        if run is not None and run.closed_at_ns is None:
            job = state.jobs[run.job]
            for part in run.parts:
                if part.state is RunState.READY:
                    known = before.get(part.source)
                    if known is None or not (as_learnt and known[2] and known[0][0] is run and known[0][1] is job):
                        known = _cut(state, seen, run, part, job, known)
                    now[part.source] = known
        rows = tuple(known[1] for known in now.values())
        if rows != self._parts_of.get(id, ()):
            self._parts = None
        keep_in_order(self._run_ids, id, id in self._runs, bool(now))
        keep(self._runs, id, now or None)
        keep(self._parts_of, id, rows or None)
        if all(known[2] for known in now.values()):
            self._bound.discard(id)
        else:
            self._bound.add(id)


def _cut(
    state: ControlState,
    seen: Seen,
    run: Run,
    part: Part,
    job: Job,
    known: _Known | None,
) -> _Known:
    device = device_of(state, seen, run.spec, part.source)
    behind, first = _behind(state, run, seen.now_ns), _first(state, run)
    predicted, logon = seen.predicted(run, part.source), missing_logon(state, run.spec, part.source)
    unended = seen.unended.get((run.id, part.source), "")
    made_of = (run, job, device, predicted, behind, first, logon, unended)
    if known is not None and _the_same(known[0], made_of):
        return known
    alone = (run.agreed is None or (run.agreed.after is None and run.agreed.first is None)) and (
        isinstance(run.spec, BackupSpec) and next(logons_of(run.spec), None) is None
    )
    return made_of, _ready_part(state, seen, run, part, job, device, predicted, (behind, first, logon, unended)), alone


def _the_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether a part is made of the same objects; written out, since it is asked of every part at every change."""
    return (
        one[0] is other[0]
        and one[1] is other[1]
        and one[2] == other[2]
        and one[3] is other[3]
        and one[4] == other[4]
        and one[5] == other[5]
        and one[6:] == other[6:]
    )


class _Loads:
    """Active attempts by media server, by the server whose files they touch or that reads a set, and by device; and what they will store."""

    def __init__(self, state: ControlState, active: Iterable[Attempt], seen: Seen) -> None:
        self.running: dict[str, int] = {}
        self.reading: dict[str, int] = {}
        self.writing: dict[str, int] = {}
        self.copied_from: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.reserved_by: dict[tuple[str, str], int] = {}
        for attempt in active:
            first = state.attempts.get(attempt.beside) if attempt.beside else None
            if first is None or first.state not in ATTEMPT_ACTIVE or first.server != attempt.server:
                # what one server writes to two devices is one job to it
                _add(self.running, attempt.server, 1)
            _add(self.writing, attempt.device, 1)
            if attempt.from_device:
                _add(self.copied_from, attempt.from_device, 1)
            if not attempt.beside and kind_of(state.run(attempt.run).spec) not in IN_PLACE:
                _add(self.reading, attempt.other, 1)
            to_come = seen.to_come_bytes.get(attempt.id, 0)
            if to_come:
                _add(self.reserved, attempt.device, to_come)
                _add(self.reserved_by, (attempt.server, attempt.device), to_come)
        for server, device, jobs in seen.own_work:
            _add(self.running, server, jobs)
            _add(self.reading, server, jobs)
            _add(self.writing, device, jobs)


def _add(sums: dict[_Key, int], key: _Key, number: int) -> None:
    sums[key] = sums.get(key, 0) + number


def _device_row(device: Device, eraser: Run | None, seen: Seen, loads: _Loads) -> DeviceRow:
    enabled = tuple(path.server for path in device.paths if path.enabled)
    servers = tuple(server for server in enabled if (device.id, server) not in seen.broken)
    usable = bool(servers) or not enabled
    return DeviceRow(
        device.id,
        device.name,
        device.state if usable else DeviceState.OFFLINE,
        servers or enabled,
        # who erases it is alone there
        running=loads.writing.get(device.id, 0) + (0 if eraser is None else loads.copied_from.get(device.id, 0)),
        concurrency=device.concurrency if eraser is None else 1,
        free_bytes=seen.free_bytes.get(device.id),
        low_space_bytes=device.low_space_bytes,
        reserved_bytes=loads.reserved.get(device.id, 0),
        left_bytes=tuple(
            (path.server, path.quota_bytes - seen.stored_bytes.get(place, 0) - loads.reserved_by.get(place, 0))
            for path in device.paths
            if path.quota_bytes is not None and (place := (path.server, device.id))
        ),
        no_key=not usable and all(seen.broken[device.id, server] == NoKey.code for server in enabled),
        lost=not usable and device.state in {DeviceState.ONLINE, DeviceState.READ_ONLY},
        imported=device.imported is not None,
        taken="" if eraser is None else eraser.id,
        emptied=bool(device.erasing),
    )


def _behind(state: ControlState, run: Run, now_ns: int) -> str | None:
    """The run that must end before ``run`` starts; one that is not there yet is waited for until it is due."""
    if run.agreed is None or run.agreed.after is None:
        return None
    after = run.agreed.after
    other = state.runs.get(after)
    if other is None:
        return after if now_ns < run.agreed.after_due_at_ns + OPENED_WITHIN_NS else None
    return after if other.closed_at_ns is None else None


def _first(state: ControlState, run: Run) -> str | None:
    """The name of the job that must complete once before ``run`` starts."""
    if run.agreed is None or run.agreed.first is None:
        return None
    job = state.jobs.get(run.agreed.first)
    return job.name if job is not None and job.completed_at_ns is None else None


def _ready_part(
    state: ControlState,
    seen: Seen,
    run: Run,
    part: Part,
    job: Job,
    device: str | None,
    predicted: Prediction,
    waits: tuple[str | None, str | None, str | None, str],
) -> ReadyPart:
    placed = placed_by(run.spec)
    tried = [attempt for attempt in state.attempts_of(run.id) if attempt.source == part.source]
    return ReadyPart(
        run=run.id,
        job=run.job,
        job_name=run.name,
        source=part.source,
        kind=kind_of(run.spec),
        priority=run.priority,
        due_at_ns=run.due_at_ns,
        target=placed.target if placed is not None else None,
        device=device,
        not_before_ns=part.not_before_ns,
        predicted_s=predicted.seconds,
        elsewhere_s=predicted.elsewhere_s,
        predicted_bytes=predicted.bytes,
        elsewhere_bytes=predicted.elsewhere_bytes,
        on_hold=(run.held and not run.stranded) or job.state is JobState.ON_HOLD,
        stranded=run.stranded,
        recovered_on=tuple(attempt.server for attempt in tried if attempt.state is AttemptState.RECOVERED),
        within=placed.within if placed is not None else None,
        window="" if part.any_time else run.terms.window,
        behind=waits[0],
        first=waits[1],
        level=level_of_work(run.spec),
        no_logon=waits[2],
        unended=waits[3],
        medium=seen.medium_of_set(read) if (read := set_read(run.spec, part.source)) is not None else "",
        second=run.spec.second if isinstance(run.spec, BackupSpec) else None,
    )


def attempt_of(run: Run, one: Assignment, at_ns: int, secret: bytes = b"") -> Attempt:
    """The next attempt of a run, at the part that was assigned."""
    number = lifecycle.next_number(run)
    return Attempt(
        id=attempt_id(run.id, number),
        run=run.id,
        job=run.job,
        source=one.source,
        server=one.server,
        device=one.device,
        number=number,
        delegated_at_ns=at_ns,
        secret=secret,
        reader=one.reader,
        from_device=one.from_device,
    )


def beside(first: Attempt, server: str, device: str, secret: bytes = b"") -> tuple[Attempt, Attempt]:
    """An attempt, with the one that takes what it reads to a second device."""
    run = second_run_id(first.id)
    second = structs.replace(
        first,
        id=attempt_id(run, 1),
        run=run,
        server=server,
        device=device,
        number=1,
        secret=secret,
        beside=first.id,
    )
    return structs.replace(first, second=second.id), second


def in_vain(state: ControlState, plan: Plan) -> list[tuple[str, Waiting]]:
    """Test runs (ids) that would wait for what does not pass by itself: that is what they were to find out."""
    trials = ((run, part) for run in state.open_apart() if isinstance(run.spec, TestRunSpec) for part in run.parts)
    found = [(run.id, plan.waiting.get((run.id, part.source))) for run, part in trials]
    return [(run, waits) for run, waits in found if waits is not None and waits.reason not in PASSING]


def problem_for(state: ControlState, **seen: Any) -> Problem:
    """The tables of one plan alone; ``seen`` are the fields of ``Seen``."""
    return Cut().problem(state, Seen(**seen))
