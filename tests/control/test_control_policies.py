"""Selection lists, policies and associations in the control state: what they make, what follows them, what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from control_world import NOW, SECOND, SEED, Script, backup, operator, put_list, put_policy, server
from msgspec.structs import replace

from caso_mesh.control.documents import policy_doc, policy_of, selection_doc, selection_of
from caso_mesh.control.placing import problem_for
from caso_mesh.control.reducer import rehearse, validate
from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import (
    Associate,
    Batch,
    CancelRun,
    CloseAttempt,
    CloseRun,
    Command,
    CreateJob,
    CreateToken,
    DeleteCalendar,
    DeleteDevicePool,
    DeleteJob,
    DeleteList,
    DeleteMediaSet,
    DeletePolicy,
    DeletePool,
    Dissociate,
    OpenRun,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutMediaSet,
    PutPolicy,
    RemoveDevice,
    ReplaceServer,
    RunNow,
    SetJob,
    SetPool,
)
from caso_mesh.model.documents import EntryDoc, PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import (
    CasoError,
    Conflict,
    EmptyTarget,
    InUse,
    InvalidPolicy,
    InvalidSchedule,
    MadeByPolicy,
    NotFound,
)
from caso_mesh.model.ids import fired_run_id
from caso_mesh.model.jobs import (
    BackupSpec,
    DuplicateSpec,
    Job,
    SourceRoots,
    SyntheticSpec,
    Target,
    TargetKind,
    VerifySetsSpec,
)
from caso_mesh.model.mesh import Pool
from caso_mesh.model.policies import DayCalendar, DevicePool, DevicePoolMember, Policy, SelectionList
from caso_mesh.model.states import AttemptState, JobState, Priority, RunState, WaitReason
from caso_mesh.model.storage import MediaSet
from caso_mesh.planning.placement import place

DAY = 86400.0


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk-b", "beta")
    script.device("disk-c", "gamma")
    script.pool("vaults", "beta", "gamma")
    return script


FULL = TemplateDoc("full", to="pool:vaults", schedule="fri 22:00")
INC = TemplateDoc("incremental", to="pool:vaults", schedule="daily 22:00")
CHECK = TemplateDoc("verify")


def made(
    mesh: Script, rules: tuple[str, ...] = (), *, listed: dict[str, Any] | None = None, **templates: TemplateDoc
) -> None:
    """The list ``home`` and the policy ``nightly``, associated."""
    row = put_list(mesh, **(listed or {}))
    policy = put_policy(mesh, rules, **(templates or {"full": FULL, "inc": INC}))
    mesh.do(Associate(policy.id, row.id, SEED))


def job(mesh: Script, template: str) -> Job:
    return mesh.state.job_named(f"home.nightly.{template}")


def open_run(mesh: Script, template: str, due_ns: int = NOW + 3600 * SECOND, **more: Any) -> str:
    return str(mesh.do(OpenRun(job(mesh, template).id, due_ns, mesh.at_ns, **more), who="admin")["run"])


def end(mesh: Script, run: str, state: AttemptState = AttemptState.SUCCEEDED) -> None:
    """Each part of a run is tried once and ends so."""
    for part in mesh.state.run(run).parts:
        source = part.source.removeprefix("node-")
        attempt = mesh.delegate(run, source=source, server="beta", device="disk-b")
        mesh.do(
            CloseAttempt(attempt, state, mesh.at_ns, set=f"set-{source}" if state is AttemptState.SUCCEEDED else None)
        )


# --- association -----------------------------------------------------------------------------------------------------


def test_an_association_makes_one_job_per_template_at_once(mesh):
    made(mesh, listed={"exclude": ("*.tmp",), "priority": "low", "within": "server:beta"})
    assert [each.name for each in mesh.state.job_list()] == ["home.nightly.full", "home.nightly.inc"]
    full = job(mesh, "full")
    assert isinstance(full.spec, BackupSpec)
    assert full.spec.sources == (SourceRoots("node-beta", (b"srv",)), SourceRoots("node-gamma", (b"home",)))
    assert (str(full.spec.target), str(full.spec.within), full.spec.excludes) == (
        "pool:vaults",
        "server:beta",
        ("*.tmp",),
    )
    assert (full.spec.verify, full.priority, full.schedule.cron) == (True, Priority.LOW, "0 22 * * 5")
    before = mesh.state.snapshot()
    mesh.do(Associate("policy-nightly", "list-home", "02jh0000000000000000000000"))
    again = ControlState()
    again.restore(before)
    assert again.jobs == mesh.state.jobs, "once more it has no effect"


def test_jobs_follow_when_a_policy_or_a_list_is_edited_and_keep_id_and_history(mesh):
    made(mesh)
    run = open_run(mesh, "inc")
    before = {each.name: each.id for each in mesh.state.job_list()}
    put_list(mesh, paths=("beta:/srv", "beta:/etc"))
    put_policy(mesh, full=FULL, inc=replace(INC, schedule="daily 23:00", priority="high"), check=CHECK)
    after = {each.name: each.id for each in mesh.state.job_list()}
    assert {name: id for name, id in after.items() if name in before} == before
    assert after.keys() - before.keys() == {"home.nightly.check"}
    inc = job(mesh, "inc")
    assert inc.spec.sources == (SourceRoots("node-beta", (b"etc", b"srv")),)
    assert (inc.schedule.cron, inc.priority, [each.id for each in mesh.state.runs_of(inc.id)]) == (
        "0 23 * * *", Priority.HIGH, [run],
    )  # fmt: skip
    assert inc.last_due_at_ns >= mesh.at_ns - 2 * SECOND, (
        "due times that passed under another schedule are not made up for"
    )
    assert len(mesh.state.run(run).spec.sources) == 2, "an open run keeps what it began with"
    assert job(mesh, "check").spec == VerifySetsSpec(("node-beta",))


def test_renaming_keeps_the_jobs_and_copying_takes_none_along(mesh):
    made(mesh)
    id = job(mesh, "inc").id
    mesh.do(PutList(replace(mesh.state.list_named("home"), name="office"), SEED))
    mesh.do(PutPolicy(replace(mesh.state.policy_named("nightly"), name="every-night"), SEED))
    assert mesh.state.job_named("office.every-night.inc").id == id
    mesh.do(PutList(replace(mesh.state.list_named("office"), id="list-2", name="copy"), SEED))
    assert len(mesh.state.jobs) == 2


def test_deleting_the_association_removes_the_jobs_and_never_the_history(mesh):
    made(mesh)
    run = open_run(mesh, "inc")
    with pytest.raises(InUse) as refused:
        mesh.do(Dissociate("policy-nightly", "list-home"))
    assert run in refused.value.message, "an open run is not cut off"
    mesh.do(CancelRun(run, mesh.at_ns))
    mesh.do(Dissociate("policy-nightly", "list-home"))
    assert mesh.state.jobs == {}
    assert run in mesh.state.runs
    with pytest.raises(NotFound):
        mesh.do(Dissociate("policy-nightly", "list-home"))


def test_a_template_with_an_open_run_is_not_removed(mesh):
    made(mesh)
    run = open_run(mesh, "inc")
    with pytest.raises(InUse, match=run.rpartition("@")[2]):
        put_policy(mesh, full=FULL)
    assert mesh.state.policy_named("nightly").template("inc") is not None, "nothing was changed"


def test_made_jobs_cannot_be_edited_by_hand_and_say_where(mesh):
    made(mesh)
    for command in (DeleteJob(job(mesh, "inc").id), SetJob(job(mesh, "inc").id, priority=Priority.HIGH)):
        with pytest.raises(MadeByPolicy) as refused:
            mesh.do(command)
        assert "nightly" in refused.value.message
        assert "home" in refused.value.hint
    mesh.do(SetJob(job(mesh, "inc").id, JobState.ON_HOLD))
    put_policy(mesh, full=FULL, inc=replace(INC, schedule="daily 21:00"))
    assert job(mesh, "inc").state is JobState.ON_HOLD, "holding is no edit, and survives one"


def test_entries_have_patterns_of_their_own_that_hold_below_them_alone(mesh):
    made(
        mesh,
        listed={
            "paths": (),
            "entries": (
                EntryDoc("beta:/srv", exclude=("*.tmp", "cache/", "/srv/x")),
                EntryDoc("beta:/home", include=("*.odt",)),
                EntryDoc("beta:@db"),
            ),
            "include": (),
        },
    )
    (source,) = job(mesh, "full").spec.sources
    assert source.roots == (b"@dumps/db", b"home", b"srv")
    assert source.excludes == ("/srv/*.tmp", "/srv/*/cache/", "/srv/cache/", "/srv/x")
    assert source.only == ((b"home", ("/home/*.odt",)),)
    row = mesh.state.list_named("home")
    assert selection_of(mesh.state, row, selection_doc(mesh.state, row)) == row, "what is shown is what may be written"


def test_two_that_edit_at_once_do_not_undo_each_other(mesh):
    made(mesh)
    seen = mesh.state.policy_named("nightly")
    put_policy(mesh, full=FULL)
    with pytest.raises(Conflict, match="meanwhile"):
        mesh.do(PutPolicy(replace(seen, conflict_s=0.0), SEED, before=seen))


def test_names_that_are_too_long_or_taken_get_the_end_of_their_id(mesh):
    mesh.start("home.nightly.inc", backup("beta"))
    made(mesh)
    names = sorted(each.name for each in mesh.state.jobs_made_of())
    assert names[0] == "home.nightly.full"
    assert names[1].startswith("home.nightly.inc-")
    long = put_list(mesh, name="l" + "x" * 62)
    mesh.do(Associate("policy-nightly", long.id, SEED))
    assert all(len(each.name) <= 63 for each in mesh.state.job_list())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "by"),
    [
        (DeleteList("list-home"), "policy nightly"),
        (DeletePolicy("policy-nightly"), "selection list home"),
        (DeletePool("vaults"), "template full of the policy nightly"),
        (DeleteCalendar("holidays"), "template inc of the policy nightly"),
        (DeleteMediaSet("archive"), "template inc of the policy nightly"),
        (DeleteDevicePool("disks"), "template daily of the policy other"),
        (RemoveDevice("device-disk-c"), "device pool disks"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_deleting_what_is_in_use_is_refused_and_says_by_whom(mesh, command, by):
    mesh.do(PutCalendar(DayCalendar("holidays", ("2025-12-24",)), new=True))
    mesh.do(PutMediaSet(MediaSet("archive", 6 * DAY, 28 * DAY, 28 * DAY), new=True))
    mesh.do(PutDevicePool(DevicePool("disks", (DevicePoolMember("device-disk-c"),)), new=True))
    put_policy(mesh, name="other", daily=replace(INC, to="devices:disks"))
    made(mesh, full=FULL, inc=replace(INC, calendars=("holidays",), media_set="archive"))
    with pytest.raises(InUse) as refused:
        mesh.do(command)
    assert by in refused.value.message


def test_a_target_that_no_device_belongs_to_is_refused(mesh):
    mesh.pool("empty")
    row = put_list(mesh)
    policy = put_policy(mesh, full=replace(FULL, to="pool:empty"))
    with pytest.raises(EmptyTarget) as refused:
        mesh.do(Associate(policy.id, row.id, SEED))
    assert "pool:empty" in refused.value.message
    assert "full" in refused.value.message
    put_policy(mesh, full=replace(FULL, to="server:gamma"))
    put_list(mesh, within="server:beta")
    with pytest.raises(EmptyTarget, match="server:gamma within server:beta"):
        mesh.do(Associate(policy.id, row.id, SEED))
    assert mesh.state.associations == {}


def test_a_schedule_that_starts_outside_the_window_of_the_list_is_refused_when_either_is_saved(mesh):
    made(mesh, listed={"window": "20:00-06:00"})
    with pytest.raises(InvalidSchedule, match="12:00 is outside"):
        put_policy(mesh, full=replace(FULL, schedule="fri 12:00"), inc=INC)
    row = mesh.state.list_named("home")
    with pytest.raises(InvalidSchedule, match="outside"):
        validate(mesh.state, PutList(replace(row, window="02:00-06:00"), SEED), at_ns=mesh.at_ns)
    other = put_policy(mesh, name="noon", full=replace(FULL, schedule="fri 12:00"))
    with pytest.raises(InvalidSchedule, match="outside"):
        validate(mesh.state, Associate(other.id, row.id, SEED), at_ns=mesh.at_ns)


@pytest.mark.parametrize(
    ("doc", "code"),
    [
        (TemplateDoc("duplicate", to="any"), "invalid-policy"),
        (TemplateDoc("synthetic", to="any"), "invalid-policy"),
        (TemplateDoc("weekly", to="any"), "invalid-value"),
        (TemplateDoc("full"), "invalid-policy"),
        (TemplateDoc("verify", to="any"), "invalid-policy"),
        (TemplateDoc("full", to="pool:nowhere"), "not-found"),
        (TemplateDoc("full", to="devices:nowhere"), "not-found"),
        (TemplateDoc("full", to="the moon"), "invalid-value"),
        (TemplateDoc("full", to="any", media_set="nowhere"), "not-found"),
        (TemplateDoc("full", to="any", schedule="daily 22:00", calendars=("nowhere",)), "not-found"),
        (TemplateDoc("full", to="any", schedule="daily 22:00", zone="Europe/Atlantis"), "unknown-zone"),
        (TemplateDoc("full", to="any", schedule="0 0 30 2 *"), "invalid-schedule"),
        (TemplateDoc("full", to="any", schedule="0 22 * *"), "invalid-schedule"),
        (TemplateDoc("full", to="any", start_window="2h"), "invalid-policy"),
        (TemplateDoc("full", to="any", schedule="daily 22:00", cancel_after="30d"), "invalid-value"),
        (TemplateDoc("full", to="any", priority="urgent"), "invalid-value"),
        (TemplateDoc("full", to="any", post_always=True), "invalid-policy"),
    ],
)
def test_templates_that_cannot_be_carried_out_are_refused(mesh, doc, code):
    with pytest.raises(CasoError) as refused:
        put_policy(mesh, bad=doc)
    assert refused.value.code == code
    assert mesh.state.policies == {}


def test_a_second_device_is_of_backups_alone_and_in_use_as_any_target(mesh):
    mesh.do(PutDevicePool(DevicePool("attic", (DevicePoolMember("device-disk-c"),)), new=True))
    for type_ in ("verify", "synthetic", "duplicate"):
        to = "any" if type_ == "duplicate" else None
        with pytest.raises(InvalidPolicy, match="it has no second device"):
            put_policy(mesh, full=FULL, other=TemplateDoc(type_, to=to, second_to="any"))
    with pytest.raises(Conflict, match="is the first device already"):
        put_policy(mesh, full=TemplateDoc("full", to="device:disk-c", second_to="devices:attic"))
    full = replace(FULL, second_to="devices:attic")
    made(mesh, full=full)
    assert job(mesh, "full").spec.second == Target(TargetKind.DEVICES, "attic")
    assert policy_doc(mesh.state.policy_named("nightly")).templates["full"] == full
    with pytest.raises(InUse, match="template full"):
        mesh.do(DeleteDevicePool("attic"))


def test_what_goes_to_a_second_device_starts_nothing_by_the_rules_of_its_policy(mesh):
    listed = {"paths": ("beta:/srv",)}
    full = replace(FULL, to="device:disk-b", second_to="device:disk-c")
    made(mesh, ("when full completes start check",), listed=listed, full=full, check=CHECK)
    run = open_run(mesh, "full")
    first = mesh.delegate(run, source="beta", server="beta", device="disk-b", second=("gamma", "disk-c"))
    mesh.do(CloseAttempt(first, AttemptState.SUCCEEDED, mesh.at_ns, set="set-1"))
    second = mesh.state.attempt(first).second
    mesh.do(CloseAttempt(second, AttemptState.SUCCEEDED, mesh.at_ns, set="set-2"))
    (check,) = mesh.state.runs_of(job(mesh, "check").id)
    assert check.spec.sets == ("set-1",)


def test_a_synthetic_needs_a_backup_that_others_build_on_and_has_no_target(mesh):
    with pytest.raises(InvalidPolicy, match="weekly makes full sets where they lie, it has no target"):
        put_policy(mesh, inc=INC, weekly=TemplateDoc("synthetic", to="any"))
    for alone in ({}, {"copy": TemplateDoc("copy", to="any")}, {"check": CHECK}):
        with pytest.raises(InvalidPolicy, match="no template makes the sets that weekly is to make full ones of"):
            put_policy(mesh, weekly=TemplateDoc("synthetic"), **alone)
    with pytest.raises(InvalidPolicy, match="it has no pre"):
        put_policy(mesh, inc=INC, weekly=TemplateDoc("synthetic", pre="stop"))
    assert mesh.state.policies == {}


def test_a_run_of_an_incremental_starts_a_synthetic_of_the_very_sets_that_it_made(mesh):
    weekly = TemplateDoc("synthetic", media_set="keep-infinitely", verify=False)
    made(mesh, ("when inc succeeds start weekly",), inc=INC, weekly=weekly)
    assert job(mesh, "weekly").spec == SyntheticSpec(("node-beta", "node-gamma"), media_set="keep-infinitely")
    assert policy_doc(mesh.state.policy_named("nightly")).templates["weekly"] == weekly
    run = open_run(mesh, "inc")
    end(mesh, run)
    making = mesh.state.run(fired_run_id(job(mesh, "weekly").id, "inc", run))
    assert making.spec.sets == ("set-beta", "set-gamma")
    held = {"set-beta": "device-disk-b", "set-gamma": "device-disk-c"}
    problem = problem_for(mesh.state, connected={"node-beta"}, device_of_set=held.get)
    plan = place(problem, mesh.at_ns)
    # only the server that reaches the device of a set makes the full one of it: the other one is waited for
    (placed,) = [each for each in plan.assignments if each.run == making.id]
    assert (placed.source, placed.server, placed.device) == ("node-beta", "node-beta", "device-disk-b")
    waits_for = plan.waiting[making.id, "node-gamma"]
    assert (waits_for.reason, waits_for.fields) == (WaitReason.WAITING_FOR_SERVER, {"server": ["gamma"]})


@pytest.mark.parametrize("known", [{"node-beta": "set-old", "node-gamma": "set-old"}, {}])
@pytest.mark.parametrize("type_", ["synthetic", "verify", "duplicate"])
def test_what_follows_an_incremental_is_about_the_sets_that_this_one_makes(mesh, known, type_):
    weekly = TemplateDoc(type_, to="any" if type_ == "duplicate" else None, schedule="daily 22:00")
    made(mesh, ("on conflict inc then weekly",), inc=INC, weekly=weekly)
    due = NOW + 3600 * SECOND
    first = open_run(mesh, "inc", due)
    follows = open_run(mesh, "weekly", due, after=first, after_due_at_ns=due, sets=known)
    assert mesh.state.run(follows).state is RunState.READY
    beta = mesh.delegate(first, source="beta", server="beta", device="disk-b")
    mesh.do(CloseAttempt(beta, AttemptState.SUCCEEDED, mesh.at_ns, set="set-new"))
    assert mesh.state.run(follows).spec.sets == tuple(known.get(each, "") for each in ("node-beta", "node-gamma"))
    gamma = mesh.delegate(first, source="gamma", server="beta", device="disk-b")
    mesh.do(CloseAttempt(gamma, AttemptState.FAILED, mesh.at_ns))
    run = mesh.state.run(follows)
    assert run.spec.sets == ("set-new", known.get("node-gamma", ""))
    # without any set of it there is nothing to do for a server
    states = [part.state for part in run.parts]
    assert states == [RunState.READY, RunState.READY if known else RunState.FAILED]


def test_what_follows_a_run_that_is_over_knows_its_sets_from_the_start(mesh):
    made(mesh, inc=INC, weekly=TemplateDoc("synthetic", schedule="daily 22:30"))
    first = open_run(mesh, "inc")
    end(mesh, first)
    late = NOW + 5400 * SECOND
    follows = open_run(mesh, "weekly", late, after=first, after_due_at_ns=late, sets={"node-beta": "set-beta"})
    run = mesh.state.run(follows)
    assert run.spec.sets == ("set-beta", "")
    assert [part.state for part in run.parts] == [RunState.READY, RunState.FAILED]


def test_a_synthetic_of_which_there_is_no_set_fails_from_the_start(mesh):
    made(mesh, inc=INC, weekly=TemplateDoc("synthetic"))
    run = open_run(mesh, "weekly")
    assert mesh.state.run(run).state is RunState.FAILED
    assert {part.failure.code for part in mesh.state.run(run).parts} == {"not-found"}


def test_the_media_set_of_a_synthetic_is_in_use(mesh):
    mesh.do(PutMediaSet(MediaSet("years", 6 * DAY, 0.0, None), new=True))
    spec = SyntheticSpec(("node-beta",), ("set-1",), media_set="years")
    mesh.do(CreateJob(Job("job-1", "make", spec, "ann", NOW), run_now=True, at_ns=NOW))
    with pytest.raises(InUse, match="job-1@1"):
        mesh.do(DeleteMediaSet("years"))
    with pytest.raises(NotFound):
        mesh.do(
            CreateJob(Job("job-2", "other", replace(spec, media_set="nowhere"), "ann", NOW), run_now=True, at_ns=NOW)
        )


def test_a_duplicate_needs_a_backup_whose_sets_it_copies_and_takes_nothing_that_only_a_backup_does(mesh):
    with pytest.raises(InvalidPolicy, match="no template makes the sets that offsite is to copy"):
        put_policy(mesh, offsite=TemplateDoc("duplicate", to="any"))
    with pytest.raises(InvalidPolicy, match="it has no snapshot"):
        put_policy(mesh, full=FULL, offsite=TemplateDoc("duplicate", to="any", snapshot="auto"))
    assert mesh.state.policies == {}


def test_a_run_of_a_backup_starts_a_duplicate_of_the_very_sets_that_it_made(mesh):
    offsite = TemplateDoc("duplicate", to="any", media_set="keep-infinitely")
    made(mesh, ("when full succeeds start offsite",), full=FULL, offsite=offsite)
    run = open_run(mesh, "full")
    end(mesh, run)
    copying = mesh.state.run(fired_run_id(job(mesh, "offsite").id, "full", run))
    assert copying.spec == DuplicateSpec(
        ("node-beta", "node-gamma"),
        Target(TargetKind.ANY),
        ("set-beta", "set-gamma"),
        media_set="keep-infinitely",
        verify=True,
    )
    assert job(mesh, "offsite").spec.sets == ()
    problem = problem_for(
        mesh.state, connected={"node-beta", "node-gamma"}, device_of_set=lambda set_id: "device-disk-b"
    )
    plan = place(problem, mesh.at_ns)
    found = {each.source: each for each in plan.assignments if each.run == copying.id}
    assert sorted(found) == ["node-beta", "node-gamma"]
    for each in found.values():
        assert (each.server, each.reader) == ("node-gamma", "node-beta")
        assert problem.devices != ()
        assert each.device != each.from_device


@pytest.mark.parametrize(
    ("doc", "code"),
    [
        ({"paths": ()}, "usage"),
        ({"paths": ("beta:/srv", "beta:/srv/")}, "usage"),
        ({"paths": ("nowhere:/srv",)}, "not-found"),
        ({"paths": ("beta:srv",)}, "invalid-value"),
        ({"paths": ("beta:/a/../b",)}, "invalid-value"),
        ({"exclude": ("/",)}, "invalid-value"),
        ({"window": "whenever"}, "invalid-value"),
        ({"within": "any"}, "invalid-value"),
        ({"within": "pool:nowhere"}, "not-found"),
        ({"oldest_good": "1s"}, "invalid-value"),
        ({"priority": "urgent"}, "invalid-value"),
    ],
)
def test_lists_that_cannot_be_are_refused(mesh, doc, code):
    with pytest.raises(CasoError) as refused:
        put_list(mesh, **doc)
    assert refused.value.code == code
    assert mesh.state.lists == {}


def test_the_protection_of_a_media_set_never_becomes_shorter_and_factory_sets_stay(mesh):
    mesh.do(PutMediaSet(MediaSet("archive", 6 * DAY, 28 * DAY, 28 * DAY), new=True))
    mesh.do(PutMediaSet(MediaSet("archive", 6 * DAY, 29 * DAY, 7 * DAY), new=False))
    for shorter in (28 * DAY, 0.0):
        with pytest.raises(Conflict, match="shorter"):
            mesh.do(PutMediaSet(MediaSet("archive", 6 * DAY, shorter, None), new=False))
    mesh.do(PutMediaSet(MediaSet("archive", 6 * DAY, None, None), new=False))
    with pytest.raises(Conflict):
        mesh.do(PutMediaSet(MediaSet("archive", 6 * DAY, 1000 * DAY, None), new=False))
    with pytest.raises(Conflict, match="every mesh"):
        mesh.do(PutMediaSet(MediaSet("keep-4-weeks", 1.0, None, None), new=False))
    with pytest.raises(Conflict, match="every mesh"):
        mesh.do(DeleteMediaSet("keep-infinitely"))


# --- rules at work ---------------------------------------------------------------------------------------------------


def test_a_superseded_run_is_in_the_history_as_such_and_starts_nothing(mesh):
    made(mesh, ("when inc completes start check",), full=FULL, inc=INC, check=CHECK)
    run = open_run(mesh, "inc", superseded_by="the-full-run")
    row = mesh.state.run(run)
    assert (row.state, row.closed_at_ns is not None) == (RunState.SUPERSEDED, True)
    assert {part.failure.fields["by"] for part in row.parts} == {"the-full-run"}
    assert mesh.state.runs_of(job(mesh, "check").id) == []
    assert mesh.state.open_runs() == []


def test_when_a_starts_start_b_with_its_first_attempt_and_once(mesh):
    made(mesh, ("when full starts start copy",), full=FULL, copy=TemplateDoc("copy", to="any"))
    run = open_run(mesh, "full")
    assert mesh.state.runs_of(job(mesh, "copy").id) == []
    mesh.delegate(run, source="beta", server="beta", device="disk-b")
    (started,) = mesh.state.runs_of(job(mesh, "copy").id)
    assert started.id == fired_run_id(job(mesh, "copy").id, "full", run)
    assert started.terms.fired_by == run
    mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    assert len(mesh.state.runs_of(job(mesh, "copy").id)) == 1


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        ("when full succeeds start copy", {AttemptState.SUCCEEDED, AttemptState.SUCCEEDED_WITH_EXCEPTIONS}),
        ("when full fails start copy", {AttemptState.FAILED}),
        (
            "when full completes start copy",
            {AttemptState.SUCCEEDED, AttemptState.SUCCEEDED_WITH_EXCEPTIONS, AttemptState.FAILED},
        ),
    ],
)
@pytest.mark.parametrize("ended", [AttemptState.SUCCEEDED, AttemptState.SUCCEEDED_WITH_EXCEPTIONS, AttemptState.FAILED])
def test_when_a_ends_start_b_once(mesh, rule, ends, ended):
    made(mesh, (rule,), listed={"paths": ("beta:/srv",)}, full=FULL, copy=TemplateDoc("copy", to="any"))
    run = open_run(mesh, "full")
    attempt = mesh.delegate(run, source="beta", server="beta", device="disk-b")
    mesh.do(CloseAttempt(attempt, ended, mesh.at_ns, set="set-1"))
    mesh.do(CloseAttempt(attempt, ended, mesh.at_ns, set="set-1"))
    assert len(mesh.state.runs_of(job(mesh, "copy").id)) == (1 if ended in ends else 0)


def test_a_run_that_a_person_canceled_starts_nothing_and_one_that_was_missed_counts_as_failed(mesh):
    made(mesh, ("when full fails start copy",), full=FULL, copy=TemplateDoc("copy", to="any"))
    mesh.do(CancelRun(open_run(mesh, "full"), mesh.at_ns))
    assert mesh.state.runs_of(job(mesh, "copy").id) == []
    missed = open_run(mesh, "full", NOW + 7200 * SECOND)
    mesh.do(CloseRun(missed, RunState.MISSED, mesh.at_ns))
    (started,) = mesh.state.runs_of(job(mesh, "copy").id)
    assert started.terms.fired_by == missed


def test_what_is_started_starts_others_and_a_verify_is_about_the_sets_of_the_run_before_it(mesh):
    made(
        mesh,
        ("when full succeeds start check", "when check succeeds start copy"),
        full=FULL, check=CHECK, copy=TemplateDoc("copy", to="any"),
    )  # fmt: skip
    end(mesh, open_run(mesh, "full"))
    (check,) = mesh.state.open_runs()
    assert check.spec == VerifySetsSpec(("node-beta", "node-gamma"), ("set-beta", "set-gamma"))
    end(mesh, check.id)
    (copy,) = mesh.state.open_runs()
    assert copy.job == job(mesh, "copy").id


def test_a_verify_without_a_set_of_a_server_fails_for_that_server_alone(mesh):
    made(mesh, check=replace(CHECK, schedule="daily 06:00"))
    run = mesh.state.run(open_run(mesh, "check", sets={"node-beta": "set-1"}))
    assert {part.source: part.state for part in run.parts} == {
        "node-beta": RunState.READY,
        "node-gamma": RunState.FAILED,
    }


def test_what_is_on_hold_is_not_started_by_a_rule(mesh):
    made(mesh, ("when full completes start copy",), full=FULL, copy=TemplateDoc("copy", to="any"))
    mesh.do(SetJob(job(mesh, "copy").id, JobState.ON_HOLD))
    end(mesh, open_run(mesh, "full"))
    assert mesh.state.open_runs() == []


def waits(mesh: Script, at_ns: int | None = None) -> dict[str, WaitReason]:
    """Why the parts of open runs wait, by template."""
    servers = [server.id for server in mesh.state.server_list()]
    now = mesh.at_ns if at_ns is None else at_ns
    problem = problem_for(mesh.state, connected=servers, device_of_set=lambda _: "device-disk-b", now_ns=now)
    plan = place(problem, now)
    found = {}
    for (run, _), waiting in plan.waiting.items():
        origin = mesh.state.jobs[mesh.state.run(run).job].origin
        found[origin.template] = waiting.reason
    return found


def test_a_must_complete_once_before_any_other_template(mesh):
    made(mesh, ("full must complete first",), full=FULL, inc=INC)
    due = NOW + 3600 * SECOND
    first, other = open_run(mesh, "full", due), open_run(mesh, "inc", due)
    assert waits(mesh, due + SECOND)["inc"] is WaitReason.WAITING_FOR_FIRST
    assert "full" not in waits(mesh, due + SECOND)
    end(mesh, first)
    assert job(mesh, "full").completed_at_ns is not None
    assert WaitReason.WAITING_FOR_FIRST not in waits(mesh, due + SECOND).values()
    mesh.do(CancelRun(other, mesh.at_ns))
    by_hand = mesh.do(RunNow(job(mesh, "inc").id, mesh.at_ns))["run"]
    assert mesh.state.run(by_hand).terms.first is None, "a person need not wait"


def test_a_failed_first_one_does_not_count(mesh):
    made(mesh, ("full must complete first",), full=FULL, inc=INC)
    end(mesh, open_run(mesh, "full"), AttemptState.FAILED)
    assert job(mesh, "full").completed_at_ns is None


def test_on_conflict_a_then_b_waits_for_the_end_of_a_and_not_for_one_that_never_came(mesh):
    made(mesh, ("on conflict full then inc",))
    due = NOW + 3600 * SECOND
    full = f"{job(mesh, 'full').id}@some-time"
    early = open_run(mesh, "inc", due, after=full, after_due_at_ns=due + 60 * SECOND)
    assert waits(mesh, due + SECOND)["inc"] is WaitReason.BLOCKED_BY_RUN
    assert waits(mesh, due + 3600 * SECOND) == {}, "the other one never came"
    mesh.do(CancelRun(early, mesh.at_ns))
    first = open_run(mesh, "full", due)
    later = open_run(mesh, "inc", due + SECOND, after=first, after_due_at_ns=due)
    assert waits(mesh, due + 7200 * SECOND)["inc"] is WaitReason.BLOCKED_BY_RUN
    end(mesh, first)
    assert mesh.state.run(later).terms.after == first
    assert waits(mesh, due + 7200 * SECOND) == {}


def test_a_try_outside_of_the_window_of_the_list_waits_for_it(mesh):
    made(mesh, listed={"window": "zone UTC; 20:00-06:00"})
    due = 1_750_024_800 * SECOND  # 2025-06-15T22:00Z
    open_run(mesh, "inc", due)
    assert waits(mesh, due + SECOND) == {}
    assert waits(mesh, due + 9 * 3600 * SECOND)["inc"] is WaitReason.OUTSIDE_WINDOW


def test_calendars_are_part_of_the_schedules_that_name_them_and_follow(mesh):
    mesh.do(PutCalendar(DayCalendar("holidays", ("2025-12-24",)), new=True))
    made(mesh, inc=replace(INC, calendars=("holidays",), exclude_days=("2025-05-01",)))
    assert job(mesh, "inc").schedule.excludes == ("2025-05-01", "2025-12-24")
    mesh.do(PutCalendar(DayCalendar("holidays", ("2026-01-01",)), new=False))
    assert job(mesh, "inc").schedule.excludes == ("2025-05-01", "2026-01-01")


def test_devices_of_a_pool_are_taken_by_their_priority(mesh):
    def pool(*members: tuple[str, int]) -> None:
        there = "disks" in mesh.state.device_pools
        row = DevicePool("disks", tuple(DevicePoolMember(f"device-{name}", priority) for name, priority in members))
        mesh.do(PutDevicePool(row, new=not there))

    def chosen() -> list[str]:
        servers = [server.id for server in mesh.state.server_list()]
        problem = problem_for(mesh.state, connected=servers, device_of_set=lambda _: None, now_ns=mesh.at_ns)
        return [each.device for each in place(problem, mesh.at_ns + 7200 * SECOND).assignments]

    pool(("disk-b", 50), ("disk-c", 10))
    made(mesh, listed={"paths": ("beta:/srv",)}, inc=replace(INC, to="devices:disks"))
    open_run(mesh, "inc")
    assert chosen() == ["device-disk-c"], "though the other one is on the source's own server"
    pool(("disk-b", 10), ("disk-c", 50))
    assert chosen() == ["device-disk-b"]
    pool(("disk-c", 50))
    assert chosen() == ["device-disk-c"]


# --- several at once -------------------------------------------------------------------------------------------------


def batch(mesh: Script) -> list[Command]:
    row = selection_of(mesh.state, SelectionList("list-home", "home", (), "ann", NOW), SelectionDoc(("beta:/srv",)))
    empty = Policy("policy-nightly", "nightly", (), (), "ann", NOW)
    return [
        PutMediaSet(MediaSet("archive", None, DAY, None), new=True),
        PutList(row, SEED),
        PutPolicy(policy_of(empty, PolicyDoc({"inc": replace(INC, media_set="archive")})), SEED),
        Associate("policy-nightly", "list-home", SEED),
    ]


def test_a_batch_is_done_whole_or_not_at_all(mesh):
    before = mesh.state.snapshot()
    bad = [*batch(mesh), Associate("policy-nowhere", "list-home", SEED)]
    with pytest.raises(NotFound):
        mesh.do(Batch(tuple(bad), SEED))
    other = ControlState()
    other.restore(before)
    assert (other.lists, other.policies, other.jobs, other.media_sets) == (
        mesh.state.lists, mesh.state.policies, mesh.state.jobs, mesh.state.media_sets,
    )  # fmt: skip
    mesh.do(Batch(tuple(batch(mesh)), SEED))
    assert [each.name for each in mesh.state.job_list()] == ["home.nightly.inc"]


def test_a_rehearsal_finds_the_mistakes_of_every_command_and_changes_nothing(mesh):
    good = batch(mesh)
    bad = [DeleteList("nowhere"), good[0], good[0], *good[1:], DeletePool("nowhere")]
    before = mesh.state.snapshot()
    _, faults, problems = rehearse(mesh.state, bad, seed=SEED, at_ns=mesh.at_ns)
    assert [[fault.error.code for fault in each] for each in faults] == [
        ["not-found"], [], ["already-exists"], [], [], [], ["not-found"],
    ]  # fmt: skip
    assert problems == []
    assert mesh.state.snapshot() == before


def test_a_policy_is_written_as_it_is_read(mesh):
    made(
        mesh,
        ("on conflict full supersedes inc", "when full fails start check", "full must complete first"),
        full=replace(FULL, zone="Europe/Berlin", cancel_after="8h", start_window="90m", exclude_days=("2025-12-24",)),
        inc=replace(INC, catch_up=True, verify=False, priority="low", snapshot="auto"),
        check=CHECK,
    )
    policy = mesh.state.policy_named("nightly")
    assert policy_of(policy, policy_doc(policy)) == policy


def test_a_snapshot_of_an_earlier_version_opens_without_policies(mesh):
    """Before there were policies the tables of them were not in the snapshot."""
    image = msgspec.msgpack.decode(mesh.state.snapshot())
    for table in ("device_pools", "calendars", "lists", "policies", "associations"):
        del image[table]
    state = ControlState()
    state.restore(msgspec.msgpack.encode(image))
    assert (state.servers, state.lists, state.policies) == (mesh.state.servers, {}, {})


def test_the_zone_of_a_policy_holds_for_templates_that_come_later(mesh):
    """It was forgotten while a policy had no template: a night of Berlin was one of UTC."""
    policy = policy_of(Policy("policy-nightly", "nightly", (), (), "ann", NOW), PolicyDoc(zone="Europe/Berlin"))
    shown = policy_doc(policy)
    assert shown.zone == "Europe/Berlin"
    later = policy_of(policy, replace(shown, templates={"inc": INC, "utc": replace(INC, zone="UTC")}))
    assert [template.schedule.zone for template in later.templates] == ["Europe/Berlin", "UTC"]
    assert policy_of(later, policy_doc(later)) == later


def test_a_target_that_became_empty_hinders_nothing_else(mesh):
    """Whoever takes the last device out of a pool must not find that no policy at all can be edited any more."""
    made(mesh)
    other = put_policy(mesh, name="other", inc=replace(INC, to="device:disk-c"))
    mesh.do(SetPool(Pool("vaults", ())))
    mesh.do(Associate(other.id, put_list(mesh, name="files").id, SEED))
    mesh.do(PutCalendar(DayCalendar("holidays", ("2025-12-24",)), new=True))
    mesh.do(CreateToken(b"t" * 32, NOW + 10_000 * SECOND))
    new = replace(server("beta"), id="node-beta-2", public_key=b"new")
    local = replace(operator("op-beta"), id="person-new", public_key=b"new")
    mesh.do(ReplaceServer(new, local, b"t" * 32, "node-beta", "node-alpha"))
    assert [source.server for source in job(mesh, "full").spec.sources] == ["node-beta-2", "node-gamma"]
    with pytest.raises(EmptyTarget):
        put_policy(mesh, full=FULL)
    mesh.do(Dissociate("policy-nightly", "list-home"))
