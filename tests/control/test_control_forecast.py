"""Nights to come: what a forecast says of a site, and what changes when somebody or something is away."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from control_world import NOW, SECOND, SEED, Script, backup, job, put_list, put_policy
from msgspec.structs import replace

from caso_mesh.control.forecast import forecast
from caso_mesh.control.foretold import Away, Forecast, Known, PartForecast
from caso_mesh.control.growth import daily_bytes
from caso_mesh.control.placing import Seen
from caso_mesh.model.commands import Associate, CreateErrorRule, CreateJob, HoldRun, SetDevice, SetLiveness, SetSetting
from caso_mesh.model.documents import TemplateDoc
from caso_mesh.model.jobs import CronSchedule, DuplicateSpec, Target, TargetKind, VerifySpec
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.states import BackupType, JobKind, Liveness, Priority, RunState, WaitReason
from caso_mesh.planning.history import History, Sample, SetSample
from caso_mesh.planning.predicting import StoredSet

#: It is Sunday, 2025-06-15, 15:06 in UTC.
HOUR, MINUTE = 3600 * SECOND, 60 * SECOND
MIDNIGHT = NOW - NOW % (24 * HOUR) + 24 * HOUR
MORNING = MIDNIGHT + 8 * HOUR
TEN = MIDNIGHT - 2 * HOUR
GB = 1_000_000_000
BETA, GAMMA = "node-beta", "node-gamma"
DISK_B, DISK_C = "device-disk-b", "device-disk-c"


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.do(SetLiveness("node-alpha", Liveness.ALIVE, None))
    script.admit("beta", "gamma", "delta")
    script.device("disk-b", "beta")
    script.device("disk-c", "gamma")
    script.pool("vaults", "beta", "gamma")
    return script


def nightly(
    mesh: Script, name: str, source: str, *, to: str = "pool:vaults", cron: str = "0 22 * * *", **more: Any
) -> str:
    """A job of its own; its id."""
    kind, _, target = to.partition(":")
    spec = backup(source, to=Target(TargetKind(kind), target or None))
    schedule = CronSchedule(
        cron, "UTC", **{key: more.pop(key) for key in ("start_window_s", "catch_up", "cancel_after_s") if key in more}
    )
    row = job(name, spec, schedule=schedule, **more)
    mesh.do(CreateJob(row, run_now=False, at_ns=mesh.at_ns))
    return row.id


def took(
    job: str,
    source: str,
    minutes: float,
    *,
    server: str = BETA,
    device: str = DISK_B,
    stored: int = 0,
    type: BackupType = BackupType.FULL,
) -> list[Sample]:
    """Several nights in which it was all the same; before them it stored ten times as much."""
    same = Sample(job, f"node-{source}", type, server, device, minutes * 60.0, stored)
    return [same, same, same, replace(same, bytes_stored=10 * stored)]


def known(
    mesh: Script, *samples: Sample, of_sets: tuple[SetSample, ...] = (), newest: Any = None, **seen: Any
) -> Known:
    everybody = {server.id for server in mesh.state.server_list()}
    holdings = tuple(sorted({(each.source, each.device) for each in samples}))
    told = Seen(**{"connected": everybody, "device_of_set": {}.get, "holdings": holdings, **seen})
    return Known(seen=told, history=History(samples, of_sets), newest=newest or {})


def look(
    mesh: Script,
    known: Known,
    *servers: str,
    devices: tuple[str, ...] = (),
    until: int = MORNING,
    since: int | None = None,
) -> Forecast:
    away = Away(frozenset(f"node-{name}" for name in servers), frozenset(devices))
    before = mesh.state.snapshot()
    found = forecast(mesh.state, known, away, now_ns=mesh.at_ns, from_ns=since or mesh.at_ns, until_ns=until)
    assert mesh.state.snapshot() == before, "nothing has changed"
    return found


def by_name(found: Forecast) -> dict[str, PartForecast]:
    assert len({part.name for part in found.parts}) == len(found.parts)
    return {part.name: part for part in found.parts}


def minutes(part: PartForecast, begin: int = TEN) -> tuple[float, float]:
    """When it begins and ends, in minutes after ten in the evening."""
    assert part.begins_at_ns is not None
    assert part.ends_at_ns is not None
    return (part.begins_at_ns - begin) / MINUTE, (part.ends_at_ns - begin) / MINUTE


def test_runs_wait_for_a_device_that_is_busy_the_longest_first_and_each_takes_what_history_says(mesh):
    mesh.do(SetDevice(DISK_B, concurrency=1))
    for name, source in (("short", "alpha"), ("long", "delta"), ("urgent", "gamma")):
        nightly(mesh, name, source, to="device:disk-b", priority=Priority.HIGH if name == "urgent" else Priority.MEDIUM)
    samples = [*took("job-short", "alpha", 10), *took("job-long", "delta", 60), *took("job-urgent", "gamma", 5)]
    parts = by_name(look(mesh, known(mesh, *samples)))
    assert {name: minutes(part) for name, part in parts.items()} == {
        "urgent": (0, 5),
        "long": (5, 65),
        "short": (65, 75),
    }
    assert {part.state for part in parts.values()} == {RunState.SUCCEEDED}
    assert parts["short"].waits.reason is WaitReason.NO_IDLE_DEVICE
    assert parts["urgent"].waits is None
    assert {part.device for part in parts.values()} == {DISK_B}


def test_without_a_server_its_files_are_missed_and_what_it_would_have_written_goes_elsewhere(mesh):
    nightly(mesh, "here", "alpha")
    nightly(mesh, "files", "beta", start_window_s=1800.0)
    nightly(mesh, "only-there", "alpha", to="server:beta", start_window_s=1800.0)
    samples = [*took("job-here", "alpha", 30), *took("job-files", "beta", 30), *took("job-only-there", "alpha", 5)]
    usual = by_name(look(mesh, known(mesh, *samples)))
    assert {part.state for part in usual.values()} == {RunState.SUCCEEDED}
    assert usual["here"].server == BETA, "there are its sets"
    found = look(mesh, known(mesh, *samples), "beta")
    parts = by_name(found)
    assert (parts["here"].state, parts["here"].server) == (RunState.SUCCEEDED, GAMMA)
    assert parts["files"].state is parts["only-there"].state is RunState.MISSED
    assert parts["files"].waits.reason is WaitReason.SOURCE_UNREACHABLE
    assert parts["files"].waits.fields["source"] == "beta"
    assert parts["only-there"].waits.reason is WaitReason.SERVER_STALLED
    assert found.away == {BETA}
    assert found.ends_at_ns() == parts["here"].ends_at_ns


def test_what_has_to_be_stored_anew_on_a_device_without_its_sets_takes_as_long_as_a_full(mesh):
    nightly(mesh, "home", "alpha")
    full = took("job-home", "alpha", 240, stored=GB)
    spec = replace(mesh.state.job("job-home").spec, type=BackupType.INCREMENTAL)
    mesh.do(
        CreateJob(
            replace(mesh.state.job("job-home"), id="job-inc", name="inc", spec=spec), run_now=False, at_ns=mesh.at_ns
        )
    )
    quick = took("job-inc", "alpha", 6, stored=GB // 10, type=BackupType.INCREMENTAL)
    seen = known(mesh, *quick, *full, free_bytes={DISK_B: 100 * GB, DISK_C: 100 * GB})
    parts = by_name(look(mesh, seen))
    assert (minutes(parts["inc"]), parts["inc"].stored_bytes) == ((0, 6), GB // 10)
    elsewhere = by_name(look(mesh, seen, "beta"))["inc"]
    assert (elsewhere.device, minutes(elsewhere), elsewhere.stored_bytes) == (DISK_C, (0, 240), 10 * GB)


def test_an_attempt_on_a_server_that_goes_is_recovered_elsewhere_and_one_that_loses_its_files_waits(mesh):
    elsewhere = mesh.start("elsewhere", backup("alpha"))
    mesh.delegate(elsewhere, source="alpha", server="beta", device="disk-b")
    files = mesh.start("files", backup("beta"))
    mesh.delegate(files, source="beta", server="gamma", device="disk-c")
    now = mesh.at_ns
    samples = [*took("job-elsewhere", "alpha", 10), *took("job-files", "beta", 10)]
    usual = by_name(
        look(mesh, known(mesh, *samples, ends_at_ns={f"{elsewhere}#1": now + MINUTE, f"{files}#1": now + 2 * MINUTE}))
    )
    assert usual["elsewhere"].ends_at_ns == now + MINUTE
    assert usual["files"].ends_at_ns == now + 2 * MINUTE
    parts = by_name(look(mesh, known(mesh, *samples), "beta"))
    assert parts["elsewhere"].server == GAMMA
    assert parts["elsewhere"].ends_at_ns == now + 10 * MINUTE
    assert (parts["files"].state, parts["files"].waits.reason) == (RunState.READY, WaitReason.SOURCE_UNREACHABLE)


def test_without_a_device_what_runs_on_it_fails_unless_a_rule_tries_again_and_others_take_what_is_left(mesh):
    nightly(mesh, "home", "alpha")
    run = mesh.start("now", backup("alpha"))
    mesh.delegate(run, source="alpha", server="beta", device="disk-b")
    samples = [*took("job-home", "alpha", 30), *took("job-now", "alpha", 10)]
    parts = by_name(look(mesh, known(mesh, *samples), devices=(DISK_B,)))
    assert (parts["now"].state, parts["home"].state, parts["home"].device) == (
        RunState.FAILED,
        RunState.SUCCEEDED,
        DISK_C,
    )
    mesh.do(CreateErrorRule(ErrorRule("again", ("device-vanished",), 1, 300.0)))
    again = by_name(look(mesh, known(mesh, *samples), devices=(DISK_B,)))["now"]
    assert (again.state, again.device, minutes(again, mesh.at_ns)[1]) == (RunState.SUCCEEDED, DISK_C, 15)
    both = by_name(look(mesh, known(mesh, *samples), devices=(DISK_B, DISK_C)))
    assert (both["home"].state, both["home"].waits.reason) == (RunState.MISSED, WaitReason.DEVICE_OFFLINE)


FULL = TemplateDoc("full", to="device:disk-b", schedule="sun 22:00")
INC = TemplateDoc("incremental", to="device:disk-b", schedule="daily 22:00")
COPY = TemplateDoc("duplicate", to="device:disk-c")
CHECK = TemplateDoc("verify", schedule="daily 23:30")


def policy(mesh: Script, *rules: str, **templates: TemplateDoc) -> None:
    row = put_list(mesh, paths=("beta:/srv",))
    made = put_policy(mesh, rules, **templates)
    mesh.do(Associate(made.id, row.id, SEED))


def made(mesh: Script, template: str) -> str:
    return str(mesh.state.job_named(f"home.nightly.{template}").id)


def test_the_rules_of_a_policy_hold_a_full_gives_the_incremental_a_rest_and_starts_its_copy(mesh):
    policy(mesh, "when full succeeds start copy", full=FULL, inc=INC, copy=COPY, check=CHECK)
    samples = [*took(made(mesh, "full"), "beta", 60, stored=GB), *took(made(mesh, "inc"), "beta", 5)]
    of_sets = (
        SetSample(JobKind.DUPLICATE, made(mesh, "copy"), BETA, DISK_B, 1200.0, 10 * GB, GB // 2, DISK_C),
        SetSample(JobKind.DUPLICATE, made(mesh, "copy"), BETA, DISK_B, 1200.0, 10 * GB, 9 * GB, DISK_C),
        SetSample(JobKind.VERIFY, made(mesh, "check"), BETA, DISK_B, 300.0, 10 * GB),
    )
    seen = known(
        mesh,
        *samples,
        of_sets=of_sets,
        holdings=((BETA, DISK_B), (BETA, DISK_C)),
        free_bytes={DISK_B: 100 * GB, DISK_C: 100 * GB},
    )
    found = look(mesh, seen)
    parts = {name.removeprefix("home.nightly."): part for name, part in by_name(found).items()}
    assert parts["inc"].state is RunState.SUPERSEDED
    assert {name: minutes(parts[name]) for name in ("full", "copy", "check")} == {
        "full": (0, 60),
        "copy": (60, 80),
        "check": (90, 95),
    }
    assert (parts["copy"].device, parts["copy"].stored_bytes, parts["check"].device) == (DISK_C, GB // 2, DISK_B)
    assert {each.device: each.free_after for each in found.devices} == {DISK_B: 99 * GB, DISK_C: 100 * GB - GB // 2}
    # without the device of the copies the full is none the worse
    parts = {
        name.removeprefix("home.nightly."): part for name, part in by_name(look(mesh, seen, devices=(DISK_C,))).items()
    }
    assert (parts["full"].state, parts["copy"].state) == (RunState.SUCCEEDED, RunState.MISSED)
    assert parts["copy"].waits.reason is WaitReason.DEVICE_OFFLINE


def test_over_many_days_each_due_time_is_lived_through_and_the_full_comes_once_a_week(mesh):
    policy(mesh, full=FULL, inc=INC)
    samples = [
        *took(made(mesh, "full"), "beta", 60, stored=GB),
        *took(made(mesh, "inc"), "beta", 5, stored=GB // 10, type=BackupType.INCREMENTAL),
    ]
    found = look(mesh, known(mesh, *samples, free_bytes={DISK_B: 100 * GB}), until=MORNING + 13 * 24 * HOUR)
    states = [(part.name.rpartition(".")[2], part.state) for part in found.parts]
    assert states.count(("full", RunState.SUCCEEDED)) == states.count(("inc", RunState.SUPERSEDED)) == 2
    assert states.count(("inc", RunState.SUCCEEDED)) == 12
    (disk_b,) = (each for each in found.devices if each.device == DISK_B)
    assert disk_b.free_after == 100 * GB - 2 * GB - 12 * GB // 10


def test_a_run_that_follows_another_waits_for_it_and_has_its_window_from_then_on(mesh):
    short = replace(INC, start_window="10m")
    policy(mesh, "on conflict full then inc", full=FULL, inc=short)
    samples = [*took(made(mesh, "full"), "beta", 60), *took(made(mesh, "inc"), "beta", 5, type=BackupType.INCREMENTAL)]
    parts = {
        name.removeprefix("home.nightly."): part for name, part in by_name(look(mesh, known(mesh, *samples))).items()
    }
    assert minutes(parts["inc"]) == (60, 65)
    assert parts["inc"].waits.reason is WaitReason.BLOCKED_BY_RUN


def test_hours_in_which_a_server_sends_nothing_are_waited_for(mesh):
    mesh.do(SetSetting("bandwidth-limit", "zone UTC; 20:00-23:30 closed; 50MB", server="node-delta"))
    nightly(mesh, "far", "delta", to="device:disk-b", start_window_s=4 * 3600.0)
    nightly(mesh, "near", "beta", to="device:disk-b")
    samples = [*took("job-far", "delta", 10), *took("job-near", "beta", 10)]
    parts = by_name(look(mesh, known(mesh, *samples)))
    assert minutes(parts["near"]) == (0, 10)
    assert minutes(parts["far"]) == (90, 100)
    assert parts["far"].waits.reason is WaitReason.BANDWIDTH_WINDOW


def test_the_window_of_a_list_is_kept_and_what_takes_too_long_is_ended(mesh):
    row = put_list(mesh, paths=("beta:/srv",), window="23:00-05:00")
    rule = put_policy(
        mesh,
        full=TemplateDoc("full", to="device:disk-b", schedule="daily 23:10", start_window="8h", cancel_after="30m"),
    )
    mesh.do(Associate(rule.id, row.id, SEED))
    mesh.do(SetSetting("queue-on-hold", 0.0))
    (part,) = look(mesh, known(mesh, *took(made(mesh, "full"), "beta", 60))).parts
    assert (part.state, minutes(part)) == (RunState.TIMED_OUT, (70, 100))


def test_what_is_caught_up_with_starts_late_and_is_missed_when_its_next_due_time_comes(mesh):
    mesh.do(SetDevice(DISK_B, concurrency=1))
    nightly(mesh, "first", "alpha", to="device:disk-b", priority=Priority.HIGH)
    nightly(mesh, "late", "delta", to="device:disk-b", start_window_s=600.0, catch_up=True)
    nightly(mesh, "lost", "gamma", to="device:disk-b", start_window_s=600.0)
    samples = [*took("job-first", "alpha", 90), *took("job-late", "delta", 5), *took("job-lost", "gamma", 5)]
    parts = by_name(look(mesh, known(mesh, *samples)))
    assert (parts["late"].state, minutes(parts["late"])) == (RunState.SUCCEEDED, (90, 95))
    assert (parts["lost"].state, parts["lost"].waits.reason) == (RunState.MISSED, WaitReason.NO_IDLE_DEVICE)
    found = look(mesh, known(mesh, *samples), "delta", until=MORNING + 24 * HOUR)
    assert [part.state for part in found.parts if part.name == "late"] == [RunState.MISSED, RunState.READY]


def test_a_device_that_fills_up_takes_nothing_more_from_then_on_and_quotas_count(mesh):
    mesh.do(SetDevice(DISK_B, low_space_bytes=2 * GB))
    for number, source in enumerate(("alpha", "delta", "gamma")):
        nightly(mesh, f"n{number}", source, to="device:disk-b", cron=f"{10 * number} 22 * * *")
    samples = [
        sample
        for number, source in enumerate(("alpha", "delta", "gamma"))
        for sample in took(f"job-n{number}", source, 5, stored=3 * GB)
    ]
    found = look(mesh, known(mesh, *samples, free_bytes={DISK_B: 7 * GB}))
    parts = by_name(found)
    assert [parts[f"n{number}"].state for number in range(3)] == [
        RunState.SUCCEEDED,
        RunState.SUCCEEDED,
        RunState.MISSED,
    ]
    assert parts["n2"].waits.reason is WaitReason.DEVICE_LOW_ON_SPACE
    (disk_b,) = (each for each in found.devices if each.device == DISK_B)
    assert (disk_b.free_before, disk_b.free_after, disk_b.stored_bytes) == (7 * GB, GB, 6 * GB)
    assert disk_b.full_at_ns == TEN + 15 * MINUTE
    mesh.do(SetDevice(DISK_B, low_space_bytes=0, quotas=((BETA, 4 * GB),)))
    parts = by_name(look(mesh, known(mesh, *samples, free_bytes={DISK_B: 700 * GB})))
    assert [parts[f"n{number}"].state for number in range(3)] == [RunState.SUCCEEDED, RunState.MISSED, RunState.MISSED]


def test_what_would_not_fit_fails_when_the_device_is_full(mesh):
    nightly(mesh, "big", "alpha", to="device:disk-b")
    (part,) = look(mesh, known(mesh, *took("job-big", "alpha", 5, stored=3 * GB), free_bytes={DISK_B: GB})).parts
    assert part.state is RunState.FAILED


def test_of_what_nobody_knows_a_typical_time_is_taken_and_said_to_be_guessed(mesh):
    nightly(mesh, "new", "alpha", to="device:disk-b")
    nightly(mesh, "old", "delta", to="device:disk-b")
    parts = by_name(look(mesh, known(mesh, *took("job-old", "delta", 42))))
    assert (parts["new"].guessed, minutes(parts["new"])) == (True, (0, 42))
    assert (parts["old"].guessed, minutes(parts["old"])) == (False, (0, 42))
    (nothing,) = look(mesh, known(mesh), since=None).parts[:1]
    assert minutes(nothing) == (0, 10)


def test_a_run_on_hold_and_what_waits_for_it_are_told_with_their_reasons(mesh):
    run = mesh.start("held", backup("alpha"))
    mesh.do(HoldRun(run, True))
    (part,) = look(mesh, known(mesh)).parts
    assert (part.state, part.waits.reason) == (RunState.READY, WaitReason.ON_HOLD)


def test_only_runs_of_the_time_that_was_asked_about_are_told_and_later_ones_are_in_the_way_all_the_same(mesh):
    mesh.do(SetDevice(DISK_B, concurrency=1))
    nightly(mesh, "early", "alpha", to="device:disk-b", cron="0 20 * * *")
    nightly(mesh, "late", "delta", to="device:disk-b")
    samples = [*took("job-early", "alpha", 150), *took("job-late", "delta", 5)]
    found = by_name(look(mesh, known(mesh, *samples), since=TEN - HOUR))
    assert set(found) == {"early", "late"}, "that one still runs then"
    found = look(mesh, known(mesh, *samples), since=TEN + 20 * MINUTE, until=TEN + 21 * MINUTE)
    assert {part.name: minutes(part) for part in found.parts} == {"early": (-120, 30), "late": (30, 35)}
    found = look(mesh, known(mesh, *samples), since=TEN + 33 * MINUTE)
    assert {part.name for part in found.parts} == {"late"}


def test_a_verification_of_a_set_by_hand_takes_as_long_as_its_bytes_take_on_that_device(mesh):
    of_sets = tuple(
        SetSample(JobKind.VERIFY, f"job-{number}", "node-alpha", DISK_B, 100.0, 10 * GB) for number in range(3)
    )
    mesh.start("check", VerifySpec("set-1", "node-alpha"))
    newest = {("job-x", "node-alpha"): StoredSet("set-1", DISK_B, 60 * GB)}
    (part,) = look(mesh, known(mesh, of_sets=of_sets, newest=newest)).parts
    assert (part.server, part.device, minutes(part, mesh.at_ns)) == (BETA, DISK_B, (0, 10))


def test_a_copy_waits_for_the_device_that_its_set_lies_on(mesh):
    spec = DuplicateSpec(("node-alpha",), Target(TargetKind.DEVICE, "disk-c"), ("set-1",))
    mesh.start("copy", spec)
    newest = {("job-x", "node-alpha"): StoredSet("set-1", DISK_B, 60 * GB)}
    (part,) = look(mesh, known(mesh, newest=newest), "beta").parts
    assert (part.state, part.waits.reason) == (RunState.READY, WaitReason.WAITING_FOR_SERVER)


def test_devices_grow_by_what_is_due_in_four_weeks_without_what_is_superseded(mesh):
    policy(mesh, "when full succeeds start copy", full=FULL, inc=INC, copy=COPY)
    nightly(mesh, "own", "alpha", to="device:disk-c", cron="0 1 * * 3")
    samples = [
        *took(made(mesh, "full"), "beta", 60, stored=28 * GB),
        *took(made(mesh, "inc"), "beta", 5, stored=GB, type=BackupType.INCREMENTAL),
        *took("job-own", "alpha", 5, stored=7 * GB, device=DISK_C),
    ]
    placed = {(made(mesh, "full"), BETA): DISK_B, (made(mesh, "inc"), BETA): DISK_B, ("job-own", "node-alpha"): DISK_C}
    grows = daily_bytes(mesh.state, known(mesh, *samples), placed, mesh.at_ns)
    # four fulls, 24 incrementals; a copy stores what is new in its set, as far as is known
    assert grows == {DISK_B: (4 * 28 * GB + 24 * GB) / 28, DISK_C: (4 * 28 * GB + 4 * 7 * GB) / 28}


def test_a_full_day_of_summer_time_is_lived_through_once():
    mesh = Script()
    mesh.do(SetLiveness("node-alpha", Liveness.ALIVE, None))
    mesh.device("disk-a", "alpha")
    mesh.at_ns = int(datetime.datetime(2025, 10, 25, 18, tzinfo=datetime.UTC).timestamp()) * SECOND
    spec = backup("alpha", to=Target(TargetKind.ANY))
    row = replace(job("night", spec, schedule=CronSchedule("30 2 * * *", "Europe/Berlin")), created_at_ns=mesh.at_ns)
    mesh.do(CreateJob(row, run_now=False, at_ns=mesh.at_ns))
    found = look(mesh, known(mesh), until=mesh.at_ns + 40 * HOUR)
    assert [
        datetime.datetime.fromtimestamp(part.due_at_ns // SECOND, datetime.UTC).isoformat() for part in found.parts
    ] == [
        "2025-10-26T00:30:00+00:00",
        "2025-10-27T01:30:00+00:00",
    ]
