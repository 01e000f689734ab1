"""Tables of placement: short ways to write them, and any of them at all."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.states import DeviceState, JobKind, Priority, ServerState
from caso_mesh.planning.placement import OVERDUE_NS, Busy, DeviceRow, PoolRow, Problem, ReadyPart, ServerRow

SECOND = 1_000_000_000
NOW = 1_750_000_000 * SECOND
ANY = Target(TargetKind.ANY)
GB = 10**9


def server(name: str, *, state: ServerState = ServerState.ENABLED, connected: bool = True, **fields) -> ServerRow:
    return ServerRow(name, name, state, connected, **fields)


def device(name: str, *servers: str, state: DeviceState = DeviceState.ONLINE, **fields) -> DeviceRow:
    return DeviceRow(name, name, state, servers, **{"concurrency": 1, **fields})


def part(run: str, source: str = "src", **fields) -> ReadyPart:
    base = ReadyPart(run, f"job-{run}", run, source, JobKind.BACKUP, Priority.MEDIUM, NOW, target=ANY)
    return msgspec.structs.replace(base, **fields)


def reading(run: str, kind: JobKind, device: str | None, source: str = "src", **fields) -> ReadyPart:
    return part(run, source, kind=kind, target=None, device=device, **fields)


def to(kind: str, name: str | None = None) -> Target:
    return Target(TargetKind(kind), name)


SERVERS = "abcd"
_SUBSETS = st.lists(st.sampled_from(SERVERS), unique=True)
_TARGETS = [ANY, to("pool", "p"), to("server", "a"), to("device", "d0"), to("device", "d9")]


@st.composite
def servers(draw: st.DrawFn, name: str) -> ServerRow:
    return server(
        name,
        state=draw(st.sampled_from([ServerState.ENABLED, *ServerState])),
        connected=draw(st.sampled_from([True, True, False])),
        running=draw(st.integers(0, 2)),
        concurrency=draw(st.integers(1, 3)),
        reading=draw(st.integers(0, 2)),
        source_concurrency=draw(st.integers(1, 3)),
        held=draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def devices(draw: st.DrawFn, name: str) -> DeviceRow:
    return device(
        name,
        *draw(_SUBSETS),
        state=draw(st.sampled_from([DeviceState.ONLINE, *DeviceState])),
        running=draw(st.integers(0, 2)),
        concurrency=draw(st.integers(1, 4)),
        free_bytes=draw(st.none() | st.integers(0, 10)),
        low_space_bytes=draw(st.integers(0, 5)),
        reserved_bytes=draw(st.sampled_from([0, 0, 1, 5])),
        left_bytes=tuple((name, draw(st.integers(-1, 5))) for name in draw(st.sampled_from([(), (), ("a", "b")]))),
    )


@st.composite
def parts(draw: st.DrawFn, number: int) -> ReadyPart:
    drawn = draw(any_part(number))
    return drawn if drawn.kind is JobKind.BACKUP else msgspec.structs.replace(drawn, second=None)


@st.composite
def any_part(draw: st.DrawFn, number: int) -> ReadyPart:
    return part(
        f"r{number}",
        draw(st.sampled_from([*SERVERS, "gone"])),
        job=draw(st.sampled_from(["j1", "j2", f"j-{number}"])),
        kind=draw(st.sampled_from([JobKind.BACKUP, *JobKind])),
        target=draw(st.sampled_from(_TARGETS)),
        device=draw(st.sampled_from([None, "d0", "d1"])),
        priority=draw(st.sampled_from(list(Priority))),
        due_at_ns=NOW - draw(st.sampled_from([-SECOND, 0, SECOND, OVERDUE_NS - SECOND, OVERDUE_NS + SECOND])),
        predicted_s=draw(st.none() | st.floats(0, 100)),
        elsewhere_s=draw(st.none() | st.floats(0, 1000)),
        predicted_bytes=draw(st.sampled_from([0, 0, 1, 4])),
        elsewhere_bytes=draw(st.sampled_from([0, 0, 1, 4])),
        on_hold=draw(st.sampled_from([False, False, False, True])),
        recovered_on=tuple(draw(st.just([]) | _SUBSETS)),
        not_before_ns=draw(st.sampled_from([0, 0, 0, NOW + 1])),
        second=draw(st.sampled_from([None, None, *_TARGETS])),
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    pairs = st.tuples(st.sampled_from(SERVERS), st.sampled_from(SERVERS))
    names = [f"d{number}" for number in range(draw(st.integers(0, 4)))]
    running = draw(st.lists(st.tuples(st.sampled_from(SERVERS), st.sampled_from(["d0", "d1"])), max_size=3))
    return Problem(
        tuple(draw(servers(name)) for name in SERVERS),
        tuple(draw(devices(name)) for name in names),
        tuple(draw(parts(number)) for number in range(draw(st.integers(0, 12)))),
        (PoolRow("p", tuple(draw(_SUBSETS))),),
        busy=tuple(
            Busy(f"other-{number}", "a", f"run-{number}", *pair, draw(st.none() | st.integers(NOW, NOW + 100 * SECOND)))
            for number, pair in enumerate(running)
        ),
        holdings=tuple((source, "d0") for source in draw(_SUBSETS)),
        no_data_path=tuple(draw(st.lists(pairs, max_size=4))),
        speeds=tuple((name, "d0", draw(st.floats(0.1, 4))) for name in draw(_SUBSETS)),
    )
