"""Placement, by the rows of the domain: who gets what, and why the others wait."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.states import REASON_TEXT, DeviceState, JobKind, Priority, ServerState, WaitReason
from caso_mesh.planning.placement import Busy, DeviceRow, PoolRow, Problem, ReadyPart, ServerRow, place

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


def to(kind: str, name: str) -> Target:
    return Target(TargetKind(kind), name)


SRC = server("src", source_concurrency=100)
TWO = Problem(
    servers=(SRC, server("a"), server("b")),
    devices=(device("disk-a", "a"), device("disk-b", "b")),
    parts=(),
    pools=(PoolRow("p", ("a", "b")),),
)


def placed(
    problem: Problem, *parts: ReadyPart, now_ns: int = NOW, **fields
) -> tuple[dict[str, tuple[str, str]], dict[str, WaitReason]]:
    """By run: (server, device), and the reason of what waits. Checks that every reason fills its text."""
    problem = msgspec.structs.replace(problem, parts=parts, **fields)
    plan = place(problem, now_ns)
    reasons = {}
    for (run, _), waiting in plan.waiting.items():
        text = REASON_TEXT[waiting.reason].format(**waiting.fields)
        assert "{" not in text
        msgspec.json.encode(waiting)
        reasons[run] = waiting.reason
    given_out = {row.run: (row.server, row.device) for row in plan.assignments}
    assert len(plan.assignments) + len(plan.waiting) == len(parts)
    return given_out, reasons


def fields_of(problem: Problem, one: ReadyPart) -> dict:
    (waiting,) = place(msgspec.structs.replace(problem, parts=(one,)), NOW).waiting.values()
    return waiting.fields


def test_two_jobs_to_a_pool_of_two_idle_one_slot_servers_run_on_both_and_the_third_waits():
    pool = to("pool", "p")
    given_out, reasons = placed(TWO, *(part(run, target=pool) for run in ("r1", "r2", "r3")))
    assert given_out == {"r1": ("a", "disk-a"), "r2": ("b", "disk-b")}
    assert reasons == {"r3": WaitReason.NO_IDLE_DEVICE}


def test_the_third_waits_for_a_device_also_when_its_source_is_at_its_limit():
    few = (server("src", source_concurrency=2), *TWO.servers[1:])
    _, reasons = placed(TWO, *(part(run) for run in ("r1", "r2", "r3")), servers=few)
    assert reasons == {"r3": WaitReason.NO_IDLE_DEVICE}


def test_priority_beats_due_time():
    early = part("early", due_at_ns=NOW - 600 * SECOND, priority=Priority.LOW)
    late = part("late", due_at_ns=NOW, priority=Priority.HIGHEST)
    given_out, reasons = placed(TWO, early, late, devices=(device("disk-a", "a"),))
    assert set(given_out) == {"late"}
    assert set(reasons) == {"early"}


def test_inside_a_priority_the_longest_goes_first_and_the_unknown_counts_as_longest():
    parts = [part("short", predicted_s=10.0), part("long", predicted_s=1000.0), part("unknown", predicted_s=None)]
    plan = place(msgspec.structs.replace(TWO, parts=tuple(parts), devices=(device("d", "a", concurrency=9),)), NOW)
    assert [row.run for row in plan.assignments] == ["unknown", "long", "short"]


def test_what_waits_for_more_than_an_hour_goes_before_younger_and_longer_parts():
    old = part("old", predicted_s=1.0, due_at_ns=NOW - 2 * 3600 * SECOND)
    long = part("long", predicted_s=1e6)
    given_out, _ = placed(TWO, long, old, devices=(device("disk-a", "a"),))
    assert set(given_out) == {"old"}


def test_the_sources_own_server_is_preferred_when_it_reaches_a_device_of_the_target():
    given_out, _ = placed(TWO, part("r", source="b"), servers=(SRC, server("a"), server("b", running=2)))
    assert given_out == {"r": ("b", "disk-b")}


def test_next_a_device_that_holds_sets_of_the_source_is_preferred():
    given_out, _ = placed(
        TWO, part("r"), holdings=(("src", "disk-b"),), servers=(SRC, server("a"), server("b", running=2))
    )
    assert given_out == {"r": ("b", "disk-b")}


def test_next_the_least_loaded_server_then_most_free_bytes_then_the_name():
    given_out, _ = placed(TWO, part("r"), servers=(SRC, server("a", running=1), server("b")))
    assert given_out == {"r": ("b", "disk-b")}
    given_out, _ = placed(
        TWO, part("r"), devices=(device("disk-a", "a", free_bytes=GB), device("disk-b", "b", free_bytes=2 * GB))
    )
    assert given_out == {"r": ("b", "disk-b")}
    given_out, _ = placed(TWO, part("r"))
    assert given_out == {"r": ("a", "disk-a")}


def test_jobs_spread_over_servers_by_load_within_one_plan():
    shared = (device("d", "a", "b", concurrency=10),)
    given_out, _ = placed(TWO, *(part(f"r{number}") for number in range(4)), devices=shared)
    assert sorted(server for server, _ in given_out.values()) == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (ANY, {"disk-a", "disk-b"}),
        (to("device", "disk-b"), {"disk-b"}),
        (to("server", "a"), {"disk-a"}),
        (to("pool", "p"), {"disk-a", "disk-b"}),
    ],
)
def test_a_target_allows_just_its_devices(target, expected):
    given_out, _ = placed(TWO, *(part(run, target=target) for run in ("r1", "r2")))
    assert {device for _, device in given_out.values()} == expected


def test_a_pool_job_is_run_by_a_member_though_others_reach_the_shared_device():
    shared = (device("d", "a", "b", "src", concurrency=5),)
    given_out, _ = placed(TWO, part("r", target=to("pool", "q")), devices=shared, pools=(PoolRow("q", ("b",)),))
    assert given_out == {"r": ("b", "d")}


def test_server_concurrency_limits_over_all_devices_of_a_server():
    one = (server("a", concurrency=1), SRC)
    disks = (device("d1", "a"), device("d2", "a"))
    given_out, reasons = placed(TWO, part("r1"), part("r2"), servers=one, devices=disks)
    assert len(given_out) == 1
    assert list(reasons.values()) == [WaitReason.NO_IDLE_SERVER]


def test_source_concurrency_limits_reading_from_one_server():
    few = (server("src", source_concurrency=1), *TWO.servers[1:])
    given_out, reasons = placed(TWO, part("r1"), part("r2"), servers=few)
    assert set(given_out) == {"r1"}
    assert reasons == {"r2": WaitReason.LIMIT_AT_SOURCE}


def test_a_paused_server_gets_nothing_but_is_still_backed_up():
    paused = (server("src", state=ServerState.PAUSED), server("a"), server("b", state=ServerState.PAUSED))
    given_out, reasons = placed(TWO, part("r1"), part("r2", target=to("server", "b")), servers=paused)
    assert given_out == {"r1": ("a", "disk-a")}
    assert reasons == {"r2": WaitReason.SERVER_PAUSED}


STALLED, SILENT = ServerState.STALLED, ServerState.NO_COMMUNICATION
B = to("server", "b")


@pytest.mark.parametrize(
    ("one", "change", "reason"),
    [
        (part("r", on_hold=True), {}, WaitReason.ON_HOLD),
        (part("r", stranded=True), {}, WaitReason.NO_SERVER_LEFT),
        (part("r", due_at_ns=NOW + SECOND), {}, WaitReason.NOT_YET_DUE),
        (part("r", not_before_ns=NOW + SECOND), {}, WaitReason.RETRY_LATER),
        (part("r"), {"in_grace": True}, WaitReason.ADMIN_IN_GRACE),
        (part("r"), {"busy": (Busy("job-r", "src", "earlier"),)}, WaitReason.BLOCKED_BY_RUN),
        (part("r", source="nobody"), {}, WaitReason.SOURCE_UNREACHABLE),
        (
            part("r"),
            {"servers": (server("src", connected=False, silent_since_ns=NOW), *TWO.servers[1:])},
            WaitReason.SOURCE_UNREACHABLE,
        ),
        (
            part("r"),
            {"servers": (server("src", state=ServerState.DISABLED), *TWO.servers[1:])},
            WaitReason.SOURCE_UNREACHABLE,
        ),
        (part("r", target=to("pool", "empty")), {"pools": (PoolRow("empty", ()),)}, WaitReason.NO_SERVER_IN_POOL),
        (part("r", target=to("pool", "gone")), {}, WaitReason.NO_SERVER_IN_POOL),
        (part("r", target=to("device", "gone")), {}, WaitReason.NO_DEVICE_IN_TARGET),
        (part("r"), {"devices": ()}, WaitReason.NO_DEVICE_IN_TARGET),
        (part("r", target=to("server", "src")), {}, WaitReason.NO_DEVICE_IN_TARGET),
        (part("r", target=to("device", "lone")), {"devices": (device("lone"),)}, WaitReason.DEVICE_NOT_REACHABLE),
        (part("r", target=B), {"servers": (SRC, server("b", connected=False))}, WaitReason.NO_SERVER_REACHABLE),
        (
            part("r", target=B),
            {"servers": (SRC, server("b", state=STALLED, connected=False))},
            WaitReason.SERVER_STALLED,
        ),
        (
            part("r", target=B),
            {"servers": (SRC, server("b", state=SILENT, connected=False))},
            WaitReason.SERVER_STALLED,
        ),
        (
            part("r", target=B, recovered_on=("b",)),
            {"servers": (SRC, server("b", state=SILENT, connected=False))},
            WaitReason.NO_SERVER_LEFT,
        ),
        (part("r"), {"devices": (device("d", "a", state=DeviceState.OFFLINE),)}, WaitReason.DEVICE_OFFLINE),
        (part("r"), {"devices": (device("d", "a", state=DeviceState.PAUSED),)}, WaitReason.DEVICE_PAUSED),
        (part("r"), {"devices": (device("d", "a", state=DeviceState.READ_ONLY),)}, WaitReason.DEVICE_PAUSED),
        (part("r"), {"devices": (device("d", "a", free_bytes=1, low_space_bytes=2),)}, WaitReason.DEVICE_LOW_ON_SPACE),
        (part("r"), {"devices": (device("d", "a", running=1),)}, WaitReason.NO_IDLE_DEVICE),
        (part("r"), {"no_data_path": (("src", "a"), ("src", "b"))}, WaitReason.NO_DATA_PATH),
        (reading("r", JobKind.VERIFY, None), {}, WaitReason.NO_DEVICE_IN_TARGET),
        (reading("r", JobKind.RESTORE, "disk-a", "gone"), {}, WaitReason.SOURCE_UNREACHABLE),
        (
            reading("r", JobKind.VERIFY, "disk-b"),
            {"servers": (SRC, server("b", connected=False))},
            WaitReason.WAITING_FOR_SERVER,
        ),
        (
            reading("r", JobKind.VERIFY, "disk-b"),
            {"servers": (SRC, server("b", state=ServerState.DISABLED, connected=False))},
            WaitReason.SERVER_PAUSED,
        ),
    ],
)
def test_a_part_waits_with_the_first_reason_that_would_have_to_change(one, change, reason):
    given_out, reasons = placed(TWO, one, **change)
    assert given_out == {}
    assert reasons == {"r": reason}


def test_reasons_name_servers_and_devices_by_their_names_not_ids():
    down = ServerRow("id-1", "beta", ServerState.ENABLED, False)
    disk = DeviceRow("id-2", "vault1", DeviceState.ONLINE, ("id-1",))
    problem = msgspec.structs.replace(TWO, servers=(SRC, down), devices=(disk,))
    assert fields_of(problem, part("r")) == {"servers": ["beta"]}
    lost = msgspec.structs.replace(down, silent_since_ns=NOW)
    problem = msgspec.structs.replace(problem, servers=(SRC, lost))
    assert fields_of(problem, part("r", source="id-1")) == {"source": "beta", "since": "2025-06-15T15:06:40Z"}


def test_a_recovered_part_goes_to_another_server_and_back_to_the_lost_one_only_if_nobody_else_can():
    lost = part("r", recovered_on=("a",), target=to("pool", "p"))
    given_out, _ = placed(TWO, lost, servers=(SRC, server("a"), server("b", running=3)))
    assert given_out == {"r": ("b", "disk-b")}
    given_out, _ = placed(TWO, lost, devices=(device("disk-a", "a"), device("disk-b", "b", running=1)))
    assert given_out == {"r": ("a", "disk-a")}


def test_a_server_without_a_data_path_to_the_source_is_passed_over():
    given_out, _ = placed(TWO, part("r"), no_data_path=(("src", "a"),))
    assert given_out == {"r": ("b", "disk-b")}
    _, reasons = placed(
        TWO, part("r"), no_data_path=(("src", "a"),), devices=(device("disk-a", "a"), device("disk-b", "b", running=1))
    )
    assert reasons == {"r": WaitReason.NO_IDLE_DEVICE}


def test_restore_and_verify_go_to_a_server_that_reaches_the_device_of_the_set():
    disks = (
        device("disk-a", "a"),
        device("full", "b", state=DeviceState.READ_ONLY, free_bytes=0, low_space_bytes=9, concurrency=2),
    )
    given_out, _ = placed(
        TWO, reading("r", JobKind.RESTORE, "full"), reading("v", JobKind.VERIFY, "full", ""), devices=disks
    )
    assert given_out == {"r": ("b", "full"), "v": ("b", "full")}


def test_a_verify_needs_no_source_and_takes_no_slot_of_it():
    away = (server("src", connected=False), *TWO.servers[1:])
    given_out, _ = placed(TWO, reading("v", JobKind.VERIFY, "disk-a"), servers=away)
    assert given_out == {"v": ("a", "disk-a")}


def test_one_offline_device_does_not_keep_others_from_work():
    disks = (device("disk-a", "a", state=DeviceState.OFFLINE), device("disk-b", "b"))
    given_out, _ = placed(TWO, part("r"), devices=disks)
    assert given_out == {"r": ("b", "disk-b")}


def test_two_runs_of_one_job_do_not_read_one_source_at_once():
    twins = [part("r1", job="job"), part("r2", job="job")]
    given_out, reasons = placed(TWO, *twins)
    assert set(given_out) == {"r1"}
    assert reasons == {"r2": WaitReason.BLOCKED_BY_RUN}


SERVERS = "abcd"


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    states = st.sampled_from(list(ServerState))
    servers = [
        server(
            name,
            state=draw(states),
            connected=draw(st.booleans()),
            running=draw(st.integers(0, 2)),
            concurrency=draw(st.integers(1, 3)),
            reading=draw(st.integers(0, 2)),
            source_concurrency=draw(st.integers(1, 3)),
        )
        for name in SERVERS
    ]
    subsets = st.lists(st.sampled_from(SERVERS), unique=True)
    devices = [
        device(
            f"d{number}",
            *draw(subsets),
            state=draw(st.sampled_from(list(DeviceState))),
            running=draw(st.integers(0, 2)),
            concurrency=draw(st.integers(1, 4)),
            free_bytes=draw(st.none() | st.integers(0, 10)),
            low_space_bytes=draw(st.integers(0, 5)),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    targets = [ANY, to("pool", "p"), to("server", "a"), to("device", "d0"), to("device", "d9")]
    parts = [
        part(
            f"r{number}",
            draw(st.sampled_from([*SERVERS, "gone"])),
            job=draw(st.sampled_from(["j1", "j2", f"j-{number}"])),
            kind=draw(st.sampled_from(list(JobKind))),
            target=draw(st.sampled_from(targets)),
            device=draw(st.sampled_from([None, "d0", "d1"])),
            priority=draw(st.sampled_from(list(Priority))),
            predicted_s=draw(st.none() | st.floats(0, 100)),
            recovered_on=tuple(draw(subsets)),
            not_before_ns=draw(st.sampled_from([0, 0, NOW + 1])),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    pairs = st.tuples(st.sampled_from(SERVERS), st.sampled_from(SERVERS))
    return Problem(
        tuple(servers),
        tuple(devices),
        tuple(parts),
        (PoolRow("p", tuple(draw(subsets))),),
        holdings=tuple((source, "d0") for source in draw(subsets)),
        no_data_path=tuple(draw(st.lists(pairs, max_size=4))),
    )


@given(problems(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_a_plan_never_overfills_leaves_no_part_without_an_answer_and_does_not_depend_on_the_tables_order(
    problem, random
):
    plan = place(problem, NOW)
    servers = {row.id: row for row in problem.servers}
    devices = {row.id: row for row in problem.devices}
    parts = {(row.run, row.source): row for row in problem.parts}
    assert len(plan.assignments) + len(plan.waiting) == len(parts)
    for waiting in plan.waiting.values():
        REASON_TEXT[waiting.reason].format(**waiting.fields)
    for one in plan.assignments:
        row, disk, asked = servers[one.server], devices[one.device], parts[one.run, one.source]
        assert row.state is ServerState.ENABLED
        assert row.connected
        assert row.id in disk.servers
        assert sum(other.server == one.server for other in plan.assignments) + row.running <= row.concurrency
        assert sum(other.device == one.device for other in plan.assignments) + disk.running <= disk.concurrency
        assert disk.state in {DeviceState.ONLINE, DeviceState.READ_ONLY}
        if asked.kind in {JobKind.BACKUP, JobKind.TEST_RUN}:
            assert disk.state is DeviceState.ONLINE
            assert disk.free_bytes is None or disk.free_bytes >= disk.low_space_bytes
        else:
            assert one.device == asked.device
        if asked.kind is not JobKind.VERIFY:
            source = servers[one.source]
            reads = [
                other
                for other in plan.assignments
                if other.source == source.id and parts[other.run, source.id].kind is not JobKind.VERIFY
            ]
            assert source.reading + len(reads) <= source.source_concurrency
            assert (one.source, one.server) not in problem.no_data_path
    shuffled = {}
    for table in ("servers", "devices", "parts", "holdings", "no_data_path"):
        rows = list(getattr(problem, table))
        random.shuffle(rows)
        shuffled[table] = tuple(rows)
    again = place(msgspec.structs.replace(problem, **shuffled), NOW)
    assert again.assignments == plan.assignments
    assert dict(again.waiting) == dict(plan.waiting)
