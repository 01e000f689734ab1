"""Placement, by the rows of the domain: who gets what, and why the others wait."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning.problems import GB, NOW, SECOND, device, part, problems, reading, server, to

from caso_mesh.model.dialects import Dialects
from caso_mesh.model.states import (
    IN_PLACE,
    REASON_ENDS,
    REASON_TEXT,
    DeviceState,
    JobKind,
    Priority,
    ServerState,
    WaitReason,
)
from caso_mesh.model.units import format_instant
from caso_mesh.planning.placement import Busy, DeviceRow, PoolRow, Problem, ReadyPart, ServerRow, place

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
        assert "{" not in REASON_ENDS[waiting.reason].format(**waiting.fields)
        msgspec.json.encode(waiting)
        reasons[run] = waiting.reason
    given_out = {row.run: (row.server, row.device) for row in plan.assignments}
    assert len(plan.assignments) + len(plan.waiting) == len(parts)
    return given_out, reasons


def ends(run: str, where: str, seconds: float, **fields) -> Busy:
    return Busy(f"job-{run}", "other", run, where, f"disk-{where}", NOW + round(seconds * SECOND), **fields)


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
        (to("any"), {"disk-a", "disk-b"}),
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


#: A part that waits, what makes it wait, and the reason.
WAITS = [
    (part("r", on_hold=True), {}, WaitReason.ON_HOLD),
    (part("r", stranded=True), {}, WaitReason.NO_SERVER_LEFT),
    (part("r", due_at_ns=NOW + SECOND), {}, WaitReason.NOT_YET_DUE),
    (part("r", not_before_ns=NOW + SECOND), {}, WaitReason.RETRY_LATER),
    (part("r"), {"in_grace": True}, WaitReason.ADMIN_IN_GRACE),
    (part("r", recovered_on=("b",)), {"telling": ("b",)}, WaitReason.NEWS_ON_ITS_WAY),
    (part("r", unended="r#1"), {}, WaitReason.END_UNCONFIRMED),
    (
        # nobody can be asked: that is told first
        part("r", unended="r#1"),
        {"servers": (server("src", connected=False, silent_since_ns=NOW), *TWO.servers[1:])},
        WaitReason.SOURCE_UNREACHABLE,
    ),
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
        WaitReason.SERVER_PAUSED,
    ),
    (
        # fallen asleep: its link is not known to be lost yet
        part("r"),
        {"servers": (server("src", state=ServerState.STALLED, silent_since_ns=NOW), *TWO.servers[1:])},
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
    *(
        (
            reading("r", kind, "d"),
            {"devices": (device("d", "a", state=DeviceState.OFFLINE),)},
            WaitReason.WAITING_FOR_MEDIA,
        )
        for kind in (JobKind.RESTORE, JobKind.VERIFY, JobKind.DRILL, JobKind.SYNTHETIC)
    ),
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
    (part("r", window="sat 20:00-21:00"), {}, WaitReason.OUTSIDE_WINDOW),
    (part("r", first="home.nightly.full"), {}, WaitReason.WAITING_FOR_FIRST),
    (part("r", behind="job@20250615T150000Z"), {}, WaitReason.BLOCKED_BY_RUN),
    (part("r", target=B), {"devices": (device("disk-b", "b", taken="erase@1"),)}, WaitReason.BLOCKED_BY_RUN),
    (part("r", target=B), {"devices": (device("disk-b", "b", emptied=True),)}, WaitReason.ERASE_UNFINISHED),
    (
        reading("r", JobKind.INVENTORY, "disk-b", "disk-b"),
        {"devices": (device("disk-b", "b", emptied=True, lost=True, state=DeviceState.OFFLINE),)},
        WaitReason.ERASE_UNFINISHED,
    ),
    (
        part("r"),
        {"servers": (SRC, server("a", held=True), server("b", held=True))},
        WaitReason.QUEUE_ON_HOLD,
    ),
    (
        part("r"),
        {"servers": (server("src", source_concurrency=1, reading=1), *TWO.servers[1:])},
        WaitReason.LIMIT_AT_SOURCE,
    ),
    (
        part("r"),
        {"servers": (SRC, server("a", running=1, concurrency=1)), "devices": (device("d", "a", concurrency=2),)},
        WaitReason.NO_IDLE_SERVER,
    ),
    (
        part("r", predicted_s=1000.0),
        {
            "speeds": (("a", "disk-a", 0.25),),
            "devices": (device("disk-a", "a"), device("disk-b", "b", running=1)),
            "busy": (Busy("job-other", "other", "other", "b", "disk-b", NOW + 100 * SECOND),),
        },
        WaitReason.BETTER_PLACE_SOON,
    ),
    (
        part("r"),
        {"devices": (device("d", "a", state=DeviceState.OFFLINE, no_key=True),)},
        WaitReason.NO_KEY_FOR_DEVICE,
    ),
    (part("r", target=B), {"devices": (device("d", "b", imported=True),)}, WaitReason.DEVICE_IMPORTED),
    (reading("r", JobKind.SYNTHETIC, "d"), {"devices": (device("d", "b", imported=True),)}, WaitReason.DEVICE_IMPORTED),
    (
        reading("r", JobKind.SYNTHETIC, "disk-b", level=2),
        {"servers": (SRC, server("b", level=1))},
        WaitReason.SERVER_TOO_OLD,
    ),
    (part("r", no_logon="dumps"), {}, WaitReason.NO_LOGON),
    (part("r", target=B), {"servers": (SRC, server("b", local=True))}, WaitReason.DATA_ON_SERVER),
    (reading("r", JobKind.RESTORE, "disk-b"), {"servers": (SRC, server("b", local=True))}, WaitReason.DATA_ON_SERVER),
]
#: Of a server's own work, which is not handed out to anybody (``tests/mesh/test_local_work.py``).
OWN = {WaitReason.MEMBERSHIP_UNCONFIRMED, WaitReason.REMOVED_FROM_MESH, WaitReason.IDENTITY_IN_USE}
#: What ``test_planning_shut`` reaches.
ELSEWHERE = {WaitReason.BANDWIDTH_WINDOW}


@pytest.mark.parametrize(("one", "change", "reason"), WAITS)
def test_a_part_waits_with_the_first_reason_that_would_have_to_change(one, change, reason):
    given_out, reasons = placed(TWO, one, **change)
    assert given_out == {}
    assert reasons == {"r": reason}


def test_every_reason_of_the_enumeration_is_reached_and_says_what_would_end_it():
    assert (
        {reason for _, _, reason in WAITS} | OWN | ELSEWHERE
        == REASON_ENDS.keys()
        == REASON_TEXT.keys()
        == set(WaitReason)
    )


@pytest.mark.parametrize(
    ("one", "change", "expected"),
    [
        (part("r"), {"devices": (device("disk-b", "b", running=1),)}, 100),
        (
            part("r"),
            {"devices": (device("disk-b", "b", concurrency=2),), "servers": (SRC, server("b", concurrency=0))},
            100,
        ),
        (
            part("r", job="job-other"),
            {"busy": (Busy("job-other", "src", "other", "b", "disk-b", NOW + 9 * SECOND),)},
            9,
        ),
        (
            part("r"),
            {
                "servers": (server("src", source_concurrency=0), server("a")),
                "busy": (Busy("job-other", "src", "other", "b", "disk-b", NOW + 9 * SECOND),),
            },
            9,
        ),
        (part("r"), {"devices": (device("disk-b", "b", running=1),), "busy": (ends("late", "b", -5.0),)}, 0),
    ],
    ids=["device", "server", "run", "source", "overdue"],
)
def test_a_part_that_waits_for_others_says_when_the_first_of_them_is_expected_to_end(one, change, expected):
    busy = (ends("other", "b", 300.0), ends("another", "b", 100.0))
    problem = msgspec.structs.replace(TWO, **{"busy": busy, **change})
    assert fields_of(problem, one)["expected"] == format_instant(NOW + expected * SECOND)


def test_a_device_of_another_mesh_is_read_and_never_written_whatever_else_is_busy():
    came = device("came", "b", imported=True)
    given_out, _ = placed(TWO, reading("r", JobKind.RESTORE, "came"), devices=(came,))
    assert given_out == {"r": ("b", "came")}
    full = device("disk-b", "b", running=1, concurrency=1)
    given_out, reasons = placed(TWO, part("r"), devices=(came, full))
    assert (given_out, reasons) == ({}, {"r": WaitReason.NO_IDLE_DEVICE})
    given_out, _ = placed(TWO, part("r"), devices=(came, device("disk-b", "b")))
    assert given_out == {"r": ("b", "disk-b")}


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


def test_an_imported_device_is_looked_at_and_never_erased():
    disks = (device("disk", "b", imported=True),)
    assert placed(TWO, reading("r", JobKind.INVENTORY, "disk", "disk"), devices=disks)[0] == {"r": ("b", "disk")}
    refused = {"r": WaitReason.DEVICE_IMPORTED}
    assert placed(TWO, reading("r", JobKind.ERASE, "disk", "disk"), devices=disks)[1] == refused


def test_a_device_that_nobody_can_use_is_looked_at_and_erased_all_the_same_but_not_one_that_was_put_offline():
    lost = device("disk", "b", state=DeviceState.OFFLINE, lost=True, free_bytes=0, low_space_bytes=9)
    for kind in (JobKind.INVENTORY, JobKind.CATALOG, JobKind.ERASE):
        work = reading("r", kind, "disk", "disk")
        assert placed(TWO, work, devices=(lost,))[0] == {"r": ("b", "disk")}
        by_hand = msgspec.structs.replace(lost, lost=False)
        assert placed(TWO, work, devices=(by_hand,))[1] == {"r": WaitReason.DEVICE_OFFLINE}
        assert placed(TWO, work, devices=())[1] == {"r": WaitReason.NO_DEVICE_IN_TARGET}


def test_a_verify_needs_no_source_and_takes_no_slot_of_it():
    away = (server("src", connected=False), *TWO.servers[1:])
    given_out, _ = placed(TWO, reading("v", JobKind.VERIFY, "disk-a"), servers=away)
    assert given_out == {"v": ("a", "disk-a")}


def test_a_synthetic_full_goes_to_a_server_of_the_device_that_holds_the_set_and_waits_for_it():
    away = (server("src", connected=False), *TWO.servers[1:])
    made = reading("s", JobKind.SYNTHETIC, "disk-b")
    given_out, _ = placed(TWO, made, servers=away)
    assert given_out == {"s": ("b", "disk-b")}, "the source is not needed"
    _, reasons = placed(TWO, made, servers=(SRC, server("a"), server("b", connected=False)))
    assert reasons == {"s": WaitReason.WAITING_FOR_SERVER}
    # unlike a verify it writes a set
    read_only = (device("disk-a", "a"), device("disk-b", "b", state=DeviceState.READ_ONLY))
    _, reasons = placed(TWO, made, devices=read_only)
    assert reasons == {"s": WaitReason.DEVICE_PAUSED}
    full = (device("disk-a", "a"), device("disk-b", "b", free_bytes=0, low_space_bytes=9))
    _, reasons = placed(TWO, made, devices=full)
    assert reasons == {"s": WaitReason.DEVICE_LOW_ON_SPACE}


def test_what_a_program_is_too_old_for_is_not_given_to_it_and_that_is_said():
    older = (SRC, server("a"), server("b", level=1))
    made = reading("s", JobKind.SYNTHETIC, "disk-b", level=2)
    _, reasons = placed(TWO, made, servers=older)
    assert reasons == {"s": WaitReason.SERVER_TOO_OLD}
    assert fields_of(msgspec.structs.replace(TWO, servers=older), made) == {"servers": ["b"]}
    both = (device("disk-a", "a"), device("disk-b", "a", "b"))
    given_out, _ = placed(TWO, made, servers=older, devices=both)
    assert given_out == {"s": ("a", "disk-b")}
    # the source has to do its part as well
    of_source = part("r", level=2)
    _, reasons = placed(TWO, of_source, servers=(server("src", level=1), server("a"), server("b")))
    assert reasons == {"r": WaitReason.SERVER_TOO_OLD}
    given_out, _ = placed(TWO, msgspec.structs.replace(of_source, level=1), servers=older)
    assert given_out


def test_two_servers_whose_workers_do_not_speak_with_each_other_are_not_paired_and_the_older_one_is_named():
    before, later = Dialects(2, 1), Dialects(4, 3)
    new = msgspec.structs.replace(TWO, servers=(SRC, *(server(name, bulk=later) for name in "ab")))
    old_source = msgspec.structs.replace(
        new, servers=(server("src", bulk=before, source_concurrency=9), *new.servers[1:])
    )
    one = part("r")
    _, reasons = placed(old_source, one)
    assert reasons == {"r": WaitReason.SERVER_TOO_OLD}
    assert fields_of(old_source, one) == {"servers": ["src"]}
    # another server that both can speak with is taken; and what is on one server alone needs no dialogue
    between = (*old_source.servers[:2], server("b", bulk=Dialects(3, 2)))
    given_out, _ = placed(old_source, one, servers=between)
    assert given_out == {"r": ("b", "disk-b")}
    own = (*old_source.devices, device("disk-src", "src"))
    given_out, _ = placed(old_source, one, devices=own)
    assert given_out == {"r": ("src", "disk-src")}
    # a copy is read by one of the two servers, and written by the other
    copy = part("c", kind=JobKind.DUPLICATE, device="disk-a", target=to("device", "disk-b"))
    apart = (SRC, server("a", bulk=later), server("b", bulk=before))
    _, reasons = placed(TWO, copy, servers=apart)
    assert reasons == {"c": WaitReason.SERVER_TOO_OLD}
    assert fields_of(msgspec.structs.replace(TWO, servers=apart), copy) == {"servers": ["b"]}


def test_two_devices_of_one_read_are_both_taken_before_it_starts():
    both = part("r", target=to("device", "disk-a"), second=to("server", "b"))

    def where(problem: Problem, *parts: ReadyPart, **fields) -> dict[str, tuple[str, ...]]:
        plan = place(msgspec.structs.replace(problem, parts=parts, **fields), NOW)
        return {
            each.run: (each.server, each.device, each.second_server, each.second_device) for each in plan.assignments
        }

    assert where(TWO, both) == {"r": ("a", "disk-a", "b", "disk-b")}
    # what it has taken on the second device is not there for others
    assert where(TWO, both, part("s", due_at_ns=NOW - 1, target=to("device", "disk-b"), priority=Priority.LOW)) == {
        "r": ("a", "disk-a", "b", "disk-b")
    }
    # neither takes the other's
    anywhere = part("r", second=to("any"))
    assert sorted(where(TWO, anywhere)["r"][1::2]) == ["disk-a", "disk-b"]
    # of one server it is one job
    one = {"servers": (SRC, server("a", concurrency=1)), "devices": (device("disk-a", "a"), device("disk-b", "a"))}
    assert where(TWO, anywhere, **one) == {"r": ("a", "disk-a", "a", "disk-b")}
    # where its sets are already
    three = {"devices": (device("disk-a", "a"), device("disk-b", "b"), device("disk-c", "b"))}
    held = {"holdings": (("src", "disk-c"),)}
    assert where(TWO, both, **three, **held) == {"r": ("a", "disk-a", "b", "disk-c")}


@pytest.mark.parametrize(
    ("change", "reason", "names"),
    [
        ({"devices": (device("disk-a", "a"), device("disk-b", "b", running=1))}, WaitReason.NO_IDLE_DEVICE, ["disk-b"]),
        ({"servers": (SRC, server("a"), server("b", running=4))}, WaitReason.NO_IDLE_SERVER, ["b"]),
        ({"servers": (SRC, server("a"), server("b", connected=False))}, WaitReason.NO_SERVER_REACHABLE, ["b"]),
        (
            {"devices": (device("disk-a", "a"), device("disk-b", "b", free_bytes=1, low_space_bytes=2))},
            WaitReason.DEVICE_LOW_ON_SPACE,
            ["disk-b"],
        ),
        (
            {"devices": (device("disk-a", "a"), device("disk-b", "b", state=DeviceState.OFFLINE))},
            WaitReason.DEVICE_OFFLINE,
            ["disk-b"],
        ),
        ({"no_data_path": (("src", "b"),)}, WaitReason.NO_DATA_PATH, ["b"]),
        ({"devices": (device("disk-a", "a"),)}, WaitReason.NO_DEVICE_IN_TARGET, "device:disk-b"),
        ({"servers": (SRC, server("a"), server("b", level=1))}, WaitReason.SERVER_TOO_OLD, ["b"]),
    ],
)
def test_what_waits_for_its_second_device_says_what_that_waits_for(change, reason, names):
    one = part("r", target=to("device", "disk-a"), second=to("device", "disk-b"), level=2)
    given_out, reasons = placed(TWO, one, **change)
    assert (given_out, reasons) == ({}, {"r": reason})
    assert names in fields_of(msgspec.structs.replace(TWO, **change), one).values()


def test_the_only_device_of_both_targets_is_not_taken_twice():
    one = part("r", target=to("device", "disk-a"), second=to("server", "a"))
    _, reasons = placed(TWO, one)
    assert reasons == {"r": WaitReason.NO_DEVICE_IN_TARGET}


def test_one_offline_device_does_not_keep_others_from_work():
    disks = (device("disk-a", "a", state=DeviceState.OFFLINE), device("disk-b", "b"))
    given_out, _ = placed(TWO, part("r"), devices=disks)
    assert given_out == {"r": ("b", "disk-b")}


def test_a_held_queue_gets_nothing_and_the_others_do():
    held = (SRC, server("a", held=True), server("b"))
    given_out, _ = placed(TWO, part("r"), servers=held)
    assert given_out == {"r": ("b", "disk-b")}
    given_out, reasons = placed(TWO, part("r", target=to("server", "a")), servers=held)
    assert (given_out, reasons) == ({}, {"r": WaitReason.QUEUE_ON_HOLD})


# --- when the last one ends ---


SLOW_A = {"speeds": (("a", "disk-a", 0.25),)}
B_BUSY = (device("disk-a", "a"), device("disk-b", "b", running=1))


def test_a_slow_server_gets_what_it_can_end_in_time_and_the_fast_one_the_longest():
    given_out, _ = placed(TWO, part("long", predicted_s=1000.0), part("short", predicted_s=100.0), **SLOW_A)
    assert given_out == {"long": ("b", "disk-b"), "short": ("a", "disk-a")}


def test_a_long_part_waits_for_the_fast_server_when_the_slow_one_would_end_it_later():
    soon = {"devices": B_BUSY, "busy": (ends("other", "b", 100.0),), **SLOW_A}
    long = part("long", predicted_s=1000.0)
    given_out, reasons = placed(TWO, long, **soon)
    assert (given_out, reasons) == ({}, {"long": WaitReason.BETTER_PLACE_SOON})
    given_out, _ = placed(TWO, long, **{**soon, "busy": (ends("other", "b", 5000.0),)})
    assert given_out == {"long": ("a", "disk-a")}


def test_a_part_that_waited_for_an_hour_takes_the_slow_server_too():
    soon = {"devices": B_BUSY, "busy": (ends("other", "b", 100.0),), **SLOW_A}
    old = part("long", predicted_s=1000.0, due_at_ns=NOW - 3601 * SECOND)
    given_out, _ = placed(TWO, old, **soon)
    assert given_out == {"long": ("a", "disk-a")}


def test_what_would_have_to_be_stored_anew_elsewhere_waits_for_the_device_that_holds_its_chunks():
    soon = {"devices": B_BUSY, "holdings": (("src", "disk-b"),)}
    dear, cheap = part("r", predicted_s=60.0, elsewhere_s=7200.0), part("r", predicted_s=60.0, elsewhere_s=90.0)
    given_out, reasons = placed(TWO, dear, busy=(ends("other", "b", 600.0),), **soon)
    assert (given_out, reasons) == ({}, {"r": WaitReason.BETTER_PLACE_SOON})
    given_out, _ = placed(TWO, cheap, busy=(ends("other", "b", 600.0),), **soon)
    assert given_out == {"r": ("a", "disk-a")}
    given_out, _ = placed(TWO, dear, busy=(ends("other", "b", 10_000.0),), **soon)
    assert given_out == {"r": ("a", "disk-a")}


def test_slots_are_kept_for_those_that_can_run_nowhere_else_and_would_be_the_last_to_end():
    only_b = [part(f"b{number}", predicted_s=500.0, target=to("device", "disk-b")) for number in range(4)]
    given_out, _ = placed(
        TWO, part("any", predicted_s=900.0), *only_b, servers=(SRC, server("a", running=1), server("b"))
    )
    assert given_out == {"any": ("a", "disk-a"), "b0": ("b", "disk-b")}


def test_who_yielded_gets_what_is_left_before_a_lower_priority():
    only_b = [part(f"b{number}", "other", predicted_s=500.0, target=to("device", "disk-b")) for number in range(4)]
    limited = (SRC, server("other", source_concurrency=0), server("b"))
    low = part("low", priority=Priority.LOW)
    given_out, _ = placed(TWO, part("any", predicted_s=900.0), *only_b, low, servers=limited)
    assert given_out == {"any": ("b", "disk-b")}


def test_the_slots_of_a_shared_device_are_divided_fairly_among_the_servers_that_write_to_it():
    shared = (device("nas", "a", "b", concurrency=4),)
    mine = [part(f"a{number}", predicted_s=900.0, target=to("server", "a")) for number in range(5)]
    theirs = [part(f"b{number}", predicted_s=100.0, target=to("server", "b")) for number in range(2)]
    given_out, _ = placed(TWO, *mine, *theirs, devices=shared)
    assert sorted(given_out) == ["a0", "a1", "b0", "b1"]
    given_out, _ = placed(TWO, *mine, devices=shared)
    assert sorted(given_out) == ["a0", "a1", "a2", "a3"]


def test_a_shared_device_is_served_by_the_servers_without_devices_of_their_own():
    both = (device("disk-a", "a"), device("nas", "a", "b"))
    one_slot = (SRC, server("a", concurrency=1), server("b", concurrency=1))
    given_out, _ = placed(TWO, part("nas", target=to("device", "nas")), part("r"), devices=both, servers=one_slot)
    assert given_out == {"nas": ("b", "nas"), "r": ("a", "disk-a")}


# --- space ---


def test_predicted_bytes_are_reserved_so_that_running_jobs_do_not_fill_a_device_together():
    disk = (device("d", "a", concurrency=9, free_bytes=10 * GB, low_space_bytes=GB, reserved_bytes=2 * GB),)
    big = [part(f"r{number}", elsewhere_bytes=4 * GB) for number in range(2)]
    small = part("small", elsewhere_bytes=2 * GB)
    given_out, reasons = placed(TWO, *big, small, devices=disk)
    assert set(given_out) == {"r0", "small"}
    assert reasons == {"r1": WaitReason.DEVICE_LOW_ON_SPACE}


def test_where_its_chunks_are_a_job_reserves_what_is_new_and_elsewhere_all_of_it():
    disks = tuple(
        device(f"disk-{name}", name, concurrency=9, free_bytes=10 * GB, low_space_bytes=GB, reserved_bytes=GB)
        for name in "ab"
    )
    big = part("r", predicted_bytes=GB, elsewhere_bytes=9 * GB, target=to("device", "disk-b"))
    given_out, _ = placed(TWO, big, devices=disks, holdings=(("src", "disk-b"),))
    assert given_out == {"r": ("b", "disk-b")}
    _, reasons = placed(TWO, big, devices=disks, holdings=(("src", "disk-a"),))
    assert reasons == {"r": WaitReason.DEVICE_LOW_ON_SPACE}


def test_what_a_job_alone_would_store_is_a_guess_that_keeps_no_job_waiting():
    disk = (device("d", "a", free_bytes=10 * GB, low_space_bytes=GB),)
    given_out, _ = placed(TWO, part("r", elsewhere_bytes=50 * GB), devices=disk)
    assert given_out == {"r": ("a", "d")}


def test_a_device_whose_space_is_all_reserved_takes_no_job_at_all():
    disk = (device("d", "a", concurrency=9, free_bytes=10 * GB, low_space_bytes=GB, reserved_bytes=10 * GB),)
    given_out, reasons = placed(TWO, part("r"), devices=disk)
    assert (given_out, reasons) == ({}, {"r": WaitReason.DEVICE_LOW_ON_SPACE})


def test_a_server_that_used_up_its_quota_of_a_shared_device_gets_nothing_more_on_it():
    nas = (device("nas", "a", "b", concurrency=9, left_bytes=(("a", GB),)),)
    given_out, _ = placed(TWO, part("r", elsewhere_bytes=2 * GB), devices=nas)
    assert given_out == {"r": ("b", "nas")}
    mine = part("r", target=to("server", "a"), elsewhere_bytes=2 * GB)
    given_out, reasons = placed(TWO, mine, devices=nas)
    assert (given_out, reasons) == ({}, {"r": WaitReason.DEVICE_LOW_ON_SPACE})
    assert fields_of(msgspec.structs.replace(TWO, devices=nas), mine) == {"devices": ["nas (quota of a)"]}


def test_two_runs_of_one_job_do_not_read_one_source_at_once():
    twins = [part("r1", job="job"), part("r2", job="job")]
    given_out, reasons = placed(TWO, *twins)
    assert set(given_out) == {"r1"}
    assert reasons == {"r2": WaitReason.BLOCKED_BY_RUN}


def size_of(problem: Problem, row: ReadyPart, disk: DeviceRow) -> int:
    return row.predicted_bytes if (row.source, disk.id) in problem.holdings else row.elsewhere_bytes


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
        # what goes to two devices of one server is one job there
        at = [{other.server, other.second_server} for other in plan.assignments]
        assert sum(one.server in each for each in at) + row.running <= row.concurrency
        on = [(other.device, other.second_device) for other in plan.assignments]
        assert sum(one.device in each for each in on) + disk.running <= disk.concurrency
        if asked.second is not None:
            other_disk = devices[one.second_device]
            assert other_disk is not disk
            assert one.second_server in other_disk.servers
            assert servers[one.second_server].connected
            assert sum(one.second_device in each for each in on) + other_disk.running <= other_disk.concurrency
            assert (one.source, one.second_server) not in problem.no_data_path
        else:
            assert (one.second_server, one.second_device) == ("", "")
        assert disk.state in {DeviceState.ONLINE, DeviceState.READ_ONLY}
        if asked.kind in {JobKind.BACKUP, JobKind.TEST_RUN}:
            assert disk.state is DeviceState.ONLINE
            there = [
                parts[other.run, other.source]
                for other, each in zip(plan.assignments, on, strict=True)
                if disk.id in each
            ]
            sizes = [size_of(problem, row, disk) for row in there if row.kind in {JobKind.BACKUP, JobKind.DUPLICATE}]
            if disk.free_bytes is not None and (disk.reserved_bytes or sum(size > 0 for size in sizes) > 1):
                last = next((size for size in reversed(sizes) if size), 0)
                assert not last or disk.free_bytes - disk.reserved_bytes - sum(sizes) >= disk.low_space_bytes
            assert not row.held
        elif asked.kind is JobKind.DUPLICATE:
            assert one.from_device == asked.device
            assert one.device != asked.device
        else:
            assert one.device == asked.device
        if asked.kind not in IN_PLACE:
            source = servers[one.reader or one.source]
            reads = [
                other
                for other in plan.assignments
                if (other.reader or other.source) == source.id and parts[other.run, other.source].kind not in IN_PLACE
            ]
            assert source.reading + len(reads) <= source.source_concurrency
            assert (source.id, one.server) not in problem.no_data_path
    shuffled = {}
    for table in ("servers", "devices", "parts", "holdings", "no_data_path"):
        rows = list(getattr(problem, table))
        random.shuffle(rows)
        shuffled[table] = tuple(rows)
    again = place(msgspec.structs.replace(problem, **shuffled), NOW)
    assert again.assignments == plan.assignments
    assert dict(again.waiting) == dict(plan.waiting)
