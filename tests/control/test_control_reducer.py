"""What each command does to the control state, and what it refuses."""

from __future__ import annotations

import msgspec
import pytest
from control_world import FOUND, NOW, SECOND, Script, backup, device, job, operator, server

from caso_mesh.control.membership import ISSUED_LIFE_NS
from caso_mesh.control.reducer import _HANDLERS, validate
from caso_mesh.control.state import REQUESTS_KEPT, ControlState
from caso_mesh.control.tables import Outcome, Request
from caso_mesh.model import commands, jobs
from caso_mesh.model.commands import (
    AddDevice,
    AdmitServer,
    AnswerAlert,
    CancelRun,
    CloseAttempt,
    CloseRun,
    CreateJob,
    CreatePool,
    CreateToken,
    Delegate,
    DeleteJob,
    DeletePool,
    HoldRun,
    OpenRun,
    Prune,
    RemoveDevice,
    RemoveServer,
    RetireMedium,
    RunNow,
    SetDevice,
    SetDevicePaths,
    SetJob,
    SetLiveness,
    SetPool,
    SetServerAddresses,
    SetServerState,
    SetSetting,
    SetVoter,
)
from caso_mesh.model.errors import (
    AlreadyExists,
    Conflict,
    InUse,
    InvalidName,
    InvalidSchedule,
    InvalidValue,
    JoinLinkExpired,
    JoinLinkInvalid,
    JoinLinkUsed,
    NotFound,
    NotOnRoster,
    StateDamaged,
    StateTooNew,
    UnknownSetting,
    UnknownZone,
    UsageError,
    WrongState,
)
from caso_mesh.model.ids import run_id
from caso_mesh.model.jobs import (
    BackupSpec,
    CronSchedule,
    Failure,
    RestoreSpec,
    SourceRoots,
    Target,
    TargetKind,
    VerifySpec,
)
from caso_mesh.model.mesh import Anchor, Pool
from caso_mesh.model.states import AttemptState, DeviceState, JobState, Liveness, Priority, Role, RunState, ServerState
from caso_mesh.model.storage import DeviceKind, DevicePath

POOL = Target(TargetKind.POOL, "p")
DIGEST = b"d" * 32


@pytest.fixture
def mesh() -> Script:
    """alpha, beta and gamma; a disk on each of the last two, in the pool p."""
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk-b", "beta")
    script.device("disk-c", "gamma")
    script.pool("p", "beta", "gamma")
    return script


def refused(script: Script, error: type[Exception], command) -> None:
    """A command fails with just this error, here and when it is only validated, and changes nothing but the record
    of its request."""
    before = script.state.snapshot()
    with pytest.raises(error) as by_validate:
        validate(script.state, command, who="ann", at_ns=script.at_ns + SECOND)
    assert script.state.snapshot() == before
    with pytest.raises(error) as by_apply:
        script.do(command)
    assert type(by_apply.value) is type(by_validate.value) is error
    assert tables(script.state) == tables(before)


def tables(state: ControlState | bytes) -> dict:
    image = msgspec.msgpack.decode(state if isinstance(state, bytes) else state.snapshot())
    return {name: value for name, value in image.items() if name not in {"requests", "authority"}}


def test_every_command_has_a_handler():
    assert set(_HANDLERS) == set(commands.Command.__args__)


# --- the mesh and its members ------------------------------------------------------------------------------------------


def test_before_the_mesh_is_founded_nothing_else_is_done():
    script = Script(founded=False)
    with pytest.raises(WrongState):
        script.do(CreatePool(Pool("p", ())))
    assert script.do(FOUND) == {"mesh": "mesh-1"}
    assert script.do(FOUND) == {"mesh": "mesh-1"}
    refused(script, Conflict, msgspec.structs.replace(FOUND, mesh=msgspec.structs.replace(FOUND.mesh, id="other")))


def test_a_join_token_admits_one_key_once_and_answers_the_same_key_again(mesh):
    mesh.do(CreateToken(DIGEST, NOW + 1000 * SECOND))
    delta = AdmitServer(server("delta"), operator("op-delta", Role.VIEWER), DIGEST)
    assert mesh.do(delta) == mesh.do(delta) == {"server": "node-delta"}
    assert mesh.state.tokens[DIGEST].used_by == "node-delta"
    assert mesh.state.tokens[DIGEST].created_by == "ann"
    refused(mesh, JoinLinkUsed, AdmitServer(server("eps"), None, DIGEST))
    refused(mesh, JoinLinkInvalid, AdmitServer(server("eps"), None, b"e" * 32))
    mesh.at_ns = NOW + 2000 * SECOND
    assert mesh.do(delta) == {"server": "node-delta"}, "the answer to the same key does not expire"


def test_an_expired_join_token_admits_nobody_by_the_commands_own_clock(mesh):
    mesh.do(CreateToken(DIGEST, mesh.at_ns + 5 * SECOND))
    mesh.at_ns += 10 * SECOND
    refused(mesh, JoinLinkExpired, AdmitServer(server("delta"), None, DIGEST))


def test_names_of_servers_and_operators_are_taken_once(mesh):
    refused(
        mesh,
        AlreadyExists,
        AdmitServer(msgspec.structs.replace(server("beta"), id="node-x", public_key=b"x"), None, None),
    )
    refused(mesh, AlreadyExists, AdmitServer(msgspec.structs.replace(server("beta"), name="new"), None, None))
    refused(mesh, AlreadyExists, AdmitServer(server("delta"), operator("ann"), None))
    refused(mesh, InvalidName, AdmitServer(server("Not A Name"), None, None))


def test_a_token_is_not_spent_by_a_failed_admission(mesh):
    mesh.do(CreateToken(DIGEST, NOW + 1000 * SECOND))
    refused(mesh, AlreadyExists, AdmitServer(server("delta"), operator("ann"), DIGEST))
    assert mesh.state.tokens[DIGEST].used_by is None


def test_a_removed_server_is_gone_from_everywhere_and_its_id_is_refused_for_good(mesh):
    mesh.do(SetVoter("node-beta", True, b"issuing"))
    mesh.device("shared", "beta", "gamma")
    assert len(mesh.state.anchors) == 2
    mesh.do(RemoveServer("node-beta", admin="node-alpha"))
    state = mesh.state
    assert [row.name for row in state.server_list()] == ["alpha", "gamma"]
    assert [row.name for row in state.operator_list()] == ["ann", "op-gamma"]
    assert state.pools["p"].servers == ("node-gamma",)
    assert [path.server for path in state.device_named("shared").paths] == ["node-gamma"]
    assert [(anchor.certificate, anchor.voter) for anchor in state.anchors] == [(b"root", None), (b"issuing", None)]
    assert state.anchors[1].until_ns is not None
    roster = state.roster()
    assert {"node-beta", "person-op-beta"} <= set(roster.removed)
    assert not {"node-beta", "person-op-beta"} & {row.id for row in roster.rows}
    refused(mesh, NotOnRoster, AdmitServer(server("beta"), None, None))
    assert mesh.do(RemoveServer("node-beta")) == {"server": "node-beta"}
    mesh.do(AdmitServer(msgspec.structs.replace(server("beta"), id="node-beta2", public_key=b"2"), None, None))
    assert state.name_of("node-beta") == "beta"


def test_the_administrators_own_server_and_one_at_work_are_not_removed(mesh):
    refused(mesh, InUse, RemoveServer("node-alpha", admin="node-alpha"))
    run = mesh.start("j", backup("gamma", to=POOL))
    attempt = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    refused(mesh, InUse, RemoveServer("node-beta"))
    refused(mesh, InUse, RemoveServer("node-gamma"))
    mesh.do(CloseAttempt(attempt, AttemptState.SUCCEEDED, mesh.at_ns))
    mesh.do(RemoveServer("node-beta"))


def test_parts_that_wait_for_a_removed_server_fail(mesh):
    run = mesh.start("j", backup("beta", "gamma"))
    mesh.do(RemoveServer("node-beta"))
    states = {part.source: part.state for part in mesh.state.run(run).parts}
    assert states == {"node-beta": RunState.FAILED, "node-gamma": RunState.READY}
    again = mesh.do(RunNow("job-j", mesh.at_ns))["run"]
    assert mesh.state.run(again).parts[0].failure.fields["name"] == "beta"


def test_states_of_a_server_that_a_person_sets(mesh):
    mesh.do(SetServerState("node-beta", ServerState.PAUSED))
    assert mesh.state.server_named("beta").state is ServerState.PAUSED
    refused(mesh, InvalidValue, SetServerState("node-beta", ServerState.STALLED))
    refused(mesh, NotFound, SetServerState("node-nobody", ServerState.PAUSED))


def test_liveness_and_addresses_are_kept_as_told(mesh):
    mesh.do(SetLiveness("node-beta", Liveness.STALLED, NOW))
    row = mesh.state.server_named("beta")
    assert (row.state, row.silent_since_ns, row.ever_linked) == (ServerState.STALLED, NOW, True)
    mesh.do(SetLiveness("node-beta", Liveness.ALIVE, NOW))
    mesh.do(SetServerAddresses("node-beta", ("10.0.0.1:7",), "0.2"))
    row = mesh.state.server_named("beta")
    assert (row.state, row.silent_since_ns, row.addresses) == (ServerState.ENABLED, None, ("10.0.0.1:7",))


def test_a_voters_certificate_is_an_anchor_as_long_as_it_votes_and_what_it_issued_lives(mesh):
    mesh.do(SetVoter("node-beta", True, b"one"))
    mesh.do(SetVoter("node-beta", True, b"two"))
    one = Anchor(b"one", None, mesh.at_ns + ISSUED_LIFE_NS)
    mesh.do(SetVoter("node-beta", True))
    assert mesh.state.anchors[1:] == (one, Anchor(b"two", "node-beta"))
    assert [row.name for row in mesh.state.voters()] == ["alpha", "beta"]
    mesh.do(SetVoter("node-beta", False, never_admin=True))
    assert mesh.state.anchors[1:] == (one, Anchor(b"two", None, mesh.at_ns + ISSUED_LIFE_NS))
    assert mesh.state.server("node-beta").never_admin
    mesh.do(Prune(0))
    assert len(mesh.state.anchors) == 3
    mesh.at_ns += ISSUED_LIFE_NS
    mesh.do(Prune(0))
    assert [anchor.certificate for anchor in mesh.state.anchors] == [b"root"]


# --- pools, devices, settings ------------------------------------------------------------------------------------------


def test_pools(mesh):
    refused(mesh, AlreadyExists, CreatePool(Pool("p", ())))
    refused(mesh, NotFound, CreatePool(Pool("q", ("node-nobody",))))
    refused(mesh, NotFound, SetPool(Pool("q", ())))
    mesh.do(SetPool(Pool("p", ("node-gamma", "node-gamma", "node-alpha"))))
    assert mesh.state.pools["p"].servers == ("node-gamma", "node-alpha")
    assert [row.name for row in mesh.state.servers_of_pool("p")] == ["alpha", "gamma"]
    run = mesh.start("j", backup("beta", to=POOL))
    refused(mesh, InUse, DeletePool("p"))
    mesh.do(CancelRun(run, mesh.at_ns))
    mesh.do(SetSetting("stalled-after-s", 7.0, pool="p"))
    mesh.do(DeletePool("p"))
    mesh.pool("p", "gamma")
    assert mesh.state.settings_of("node-gamma")["stalled-after-s"] == 300.0, "settings went with the pool"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (device("disk-b", "gamma"), AlreadyExists),
        (msgspec.structs.replace(device("new", "beta"), vault="vault-disk-b"), AlreadyExists),
        (
            msgspec.structs.replace(device("new", "beta"), paths=(DevicePath("node-beta", "/mnt/disk-b"),)),
            AlreadyExists,
        ),
        (msgspec.structs.replace(device("new", "beta"), paths=()), UsageError),
        (msgspec.structs.replace(device("new", "beta", "gamma"), kind=DeviceKind.DISK), UsageError),
        (msgspec.structs.replace(device("new", "beta", "beta"), kind=DeviceKind.SHARED), UsageError),
        (device("new", "nobody"), NotFound),
        (device("New!", "beta"), InvalidName),
        (device("new", "beta", concurrency=0), InvalidValue),
        (device("new", "beta", low_space_bytes=-1), InvalidValue),
    ],
)
def test_devices_that_are_refused(mesh, row, error):
    refused(mesh, error, AddDevice(row))


def test_a_device_is_changed_and_removed_when_nothing_runs_on_it(mesh):
    mesh.do(SetDevice("device-disk-b", state=DeviceState.PAUSED, concurrency=5))
    changed = mesh.state.device_named("disk-b")
    assert (changed.state, changed.concurrency, changed.low_space_bytes) == (DeviceState.PAUSED, 5, 0)
    refused(mesh, InvalidValue, SetDevice("device-disk-b", concurrency=0))
    refused(mesh, NotFound, SetDevice("device-x"))
    run = mesh.start("j", backup("beta"))
    attempt = mesh.delegate(run, source="beta", server="beta", device="disk-b")
    refused(mesh, InUse, RemoveDevice("device-disk-b"))
    mesh.do(CloseAttempt(attempt, AttemptState.FAILED, mesh.at_ns))
    mesh.do(RemoveDevice("device-disk-b"))
    refused(mesh, NotFound, RemoveDevice("device-disk-b"))


def test_a_device_is_moved_shared_and_kept_from_a_server_but_not_taken_from_under_an_attempt(mesh):
    mesh.admit("gamma", "delta")
    mesh.device("carried", "gamma")
    mesh.device("other", "delta")
    device = mesh.state.device_named("carried")
    run = mesh.start("j", backup("alpha"))
    id = mesh.delegate(run, source="alpha", server="gamma", device="carried")

    def put(kind, *places):
        mesh.do(
            SetDevicePaths(device.id, kind, tuple(DevicePath(f"node-{name}", path, on) for name, path, on in places))
        )

    for places in ([("delta", "/mnt/usb", True)], [("gamma", "/mnt/usb", True)]):
        with pytest.raises(InUse, match=id):
            put(DeviceKind.DISK, *places)
    put(DeviceKind.SHARED, ("gamma", "/mnt/carried", False), ("delta", "/mnt/nas", True))  # what runs there goes on
    assert [place.enabled for place in mesh.state.device(device.id).paths] == [False, True]
    mesh.do(CloseAttempt(id, AttemptState.SUCCEEDED, mesh.at_ns, set="set"))
    put(DeviceKind.SHARED, ("delta", "/mnt/nas", True))
    for places, error in (
        ([], UsageError),
        ([("gamma", "/a", True), ("delta", "/b", True)], UsageError),
        ([("nobody", "/a", True)], NotFound),
        ([("delta", "/mnt/other", True)], AlreadyExists),
    ):
        with pytest.raises(error):
            put(DeviceKind.DISK, *places)
    mesh.do(RetireMedium(device.id, "GAMMA-000001"))
    mesh.do(RetireMedium(device.id, "GAMMA-000001"))
    assert mesh.state.device(device.id).retired == ("GAMMA-000001",)


def test_the_narrower_setting_wins_and_says_where_it_comes_from(mesh):
    name = "stalled-after-s"

    def now() -> tuple[float, str]:
        found = mesh.state.settings_with_origin("node-beta")[name]
        assert mesh.state.settings_of("node-beta")[name] == found[0]
        return found

    assert now() == (300.0, "default")
    mesh.do(SetSetting(name, 200.0))
    assert now() == (200.0, "mesh")
    mesh.do(SetSetting(name, 100.0, pool="p"))
    assert now() == (100.0, "pool:p")
    mesh.do(SetSetting(name, 50.0, server="node-beta"))
    assert now() == (50.0, "server")
    assert mesh.state.settings_of("node-gamma")[name] == 100.0
    assert mesh.state.settings_of("node-alpha")[name] == 200.0
    mesh.do(SetSetting(name, None, server="node-beta"))
    mesh.do(SetSetting(name, None, pool="p"))
    mesh.do(SetSetting(name, None))
    assert now() == (300.0, "default")


def test_communication_settings_are_set_as_defaults_for_new_servers_for_one_server_or_for_all_of_a_pool(mesh):
    names = (
        "stalled-after-s",
        "no-communication-after-s",
        "status-interval-s",
        "joblog-forwarding",
        "history-forwarding",
    )
    values = {"joblog-forwarding": "at-end", "history-forwarding": "never"}
    for name in names:
        mesh.do(SetSetting(name, values.get(name, 77.0)))
    mesh.admit("later")
    found = mesh.state.settings_with_origin("node-later")
    assert {name: found[name] for name in names} == {name: (values.get(name, 77.0), "mesh") for name in names}
    mesh.do(SetSetting("joblog-forwarding", "never", pool="p"))
    mesh.do(SetSetting("joblog-forwarding", "mon-fri 20:00-06:00", server="node-gamma"))
    forwarding = {
        server.name: mesh.state.settings_with_origin(server.id)["joblog-forwarding"]
        for server in mesh.state.server_list()
    }
    assert forwarding["beta"] == ("never", "pool:p") and forwarding["later"] == ("at-end", "mesh")
    assert forwarding["gamma"] == ("mon-fri 20:00-06:00", "server")
    refused(mesh, InvalidValue, SetSetting("joblog-forwarding", "now and then"))


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (SetSetting("nonsense", 1.0), UnknownSetting),
        (SetSetting("nonsense", None), UnknownSetting),
        (SetSetting("stalled-after-s", -1.0), InvalidValue),
        (SetSetting("stalled-after-s", 9.0, server="node-beta", pool="p"), UsageError),
        (SetSetting("stalled-after-s", 9.0, server="node-x"), NotFound),
        (SetSetting("stalled-after-s", 9.0, pool="x"), NotFound),
    ],
)
def test_settings_that_are_refused(mesh, command, error):
    refused(mesh, error, command)


# --- jobs and runs -----------------------------------------------------------------------------------------------------


def test_a_job_with_run_now_opens_its_first_run_in_the_same_step(mesh):
    result = mesh.do(CreateJob(job("j", backup("beta", "gamma"), serial=77), run_now=True, at_ns=NOW))
    assert result == {"job": "job-j", "run": "job-j@1"}
    run = mesh.state.run("job-j@1")
    assert [part.source for part in run.parts] == ["node-beta", "node-gamma"]
    assert mesh.do(RunNow("job-j", NOW))["run"] == "job-j@2"
    assert mesh.do(CreateJob(job("k", backup("beta")), run_now=False, at_ns=NOW)) == {"job": "job-k", "run": None}


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (backup("nobody"), NotFound),
        (backup(), UsageError),
        (backup("beta", "beta"), UsageError),
        (BackupSpec((SourceRoots("node-beta", ()),), Target(TargetKind.ANY)), UsageError),
        (backup("beta", to=Target(TargetKind.POOL, "x")), NotFound),
        (backup("beta", to=Target(TargetKind.DEVICE, "x")), NotFound),
        (backup("beta", to=Target(TargetKind.SERVER, "x")), NotFound),
        (msgspec.structs.replace(backup("beta"), media_set="x"), NotFound),
        (RestoreSpec("set", "node-nobody"), NotFound),
    ],
)
def test_a_job_that_names_what_is_not_there_is_refused(mesh, spec, error):
    refused(mesh, error, CreateJob(job("j", spec), run_now=True, at_ns=NOW))


def test_job_names_and_schedules_are_checked(mesh):
    mesh.start("j", backup("beta"))
    refused(
        mesh,
        AlreadyExists,
        CreateJob(msgspec.structs.replace(job("j", backup("beta")), id="other"), run_now=False, at_ns=NOW),
    )
    refused(mesh, InvalidName, CreateJob(job("J!", backup("beta")), run_now=False, at_ns=NOW))
    for schedule, error in (
        (CronSchedule("x", "UTC"), InvalidSchedule),
        (CronSchedule("0 2 * * *", "Mars"), UnknownZone),
    ):
        with pytest.raises(error):
            validate(mesh.state, CreateJob(job("s", backup("beta"), schedule=schedule), run_now=False, at_ns=NOW))


def test_a_job_released_by_a_clock_that_was_set_back_has_no_due_time_from_before_it_was_made(mesh):
    mesh.do(CreateJob(job("j", backup("beta"), schedule=CronSchedule("0 2 * * *", "UTC")), run_now=False, at_ns=NOW))
    mesh.do(SetJob("job-j", JobState.ON_HOLD))
    mesh.at_ns = NOW - 86_400 * SECOND
    mesh.do(SetJob("job-j", JobState.ACTIVE))
    assert mesh.state.job("job-j").last_due_at_ns == NOW


def test_a_due_time_opens_one_run_and_an_earlier_one_none(mesh):
    mesh.do(CreateJob(job("j", backup("beta"), schedule=CronSchedule("0 2 * * *", "UTC")), run_now=False, at_ns=NOW))
    id = run_id("job-j", NOW)
    assert mesh.do(OpenRun("job-j", NOW, NOW)) == mesh.do(OpenRun("job-j", NOW, NOW + 5)) == {"run": id}
    assert mesh.do(OpenRun("job-j", NOW - 60 * SECOND, NOW)) == {"run": run_id("job-j", NOW - 60 * SECOND)}
    assert [run.id for run in mesh.state.runs_of("job-j")] == [id]
    assert mesh.state.job("job-j").last_due_at_ns == NOW
    refused(mesh, NotFound, OpenRun("job-x", NOW, NOW))


def test_a_pruned_run_is_not_opened_again(mesh):
    mesh.do(CreateJob(job("j", backup("beta"), schedule=CronSchedule("0 2 * * *", "UTC")), run_now=False, at_ns=NOW))
    run = mesh.do(OpenRun("job-j", NOW, NOW))["run"]
    mesh.do(CloseRun(run, RunState.MISSED, NOW + 5))
    mesh.do(Prune(NOW + 10))
    mesh.do(OpenRun("job-j", NOW, NOW))
    assert mesh.state.runs == {}


def test_a_job_is_held_changed_and_deleted(mesh):
    run = mesh.start("j", backup("beta"))
    mesh.do(SetJob("job-j", priority=Priority.HIGHEST, state=JobState.ON_HOLD))
    assert mesh.state.run(run).priority is Priority.HIGHEST
    refused(mesh, WrongState, RunNow("job-j", NOW))
    refused(mesh, InUse, DeleteJob("job-j"))
    mesh.do(CancelRun(run, NOW))
    mesh.do(DeleteJob("job-j"))
    assert run in mesh.state.runs, "history stays"
    refused(mesh, NotFound, SetJob("job-j"))


def test_a_part_is_delegated_once_under_the_next_number(mesh):
    run = mesh.start("j", backup("gamma", to=POOL))
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    assert id == "job-j@1#1"
    attempt = mesh.state.attempt(id)
    assert mesh.do(Delegate(attempt)) == {"attempt": id}
    second = msgspec.structs.replace(attempt, id="job-j@1#2", number=2)
    refused(mesh, WrongState, Delegate(second))
    mesh.do(CloseAttempt(id, AttemptState.INTERRUPTED, NOW))
    refused(mesh, Conflict, Delegate(msgspec.structs.replace(attempt, id="job-j@1#3", number=3)))
    refused(mesh, NotFound, Delegate(msgspec.structs.replace(second, server="node-x")))
    refused(mesh, NotFound, Delegate(msgspec.structs.replace(second, device="x")))
    refused(mesh, NotFound, Delegate(msgspec.structs.replace(second, source="node-alpha")))
    refused(mesh, NotFound, Delegate(msgspec.structs.replace(second, run="job-x@1")))
    refused(mesh, Conflict, Delegate(msgspec.structs.replace(second, device="device-disk-c")))
    mesh.do(HoldRun(run, True))
    refused(mesh, WrongState, Delegate(second))
    mesh.do(HoldRun(run, False))
    mesh.do(Delegate(second))
    assert mesh.state.run(run).state is RunState.DELEGATED


def test_closing_an_attempt_closes_its_part_and_run_once(mesh):
    run = mesh.start("j", backup("gamma"))
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    close = CloseAttempt(id, AttemptState.SUCCEEDED, NOW, set="s")
    assert mesh.do(close) == {"attempt": "succeeded", "run": "succeeded", "changed": True}
    assert mesh.do(close) == {"attempt": "succeeded", "run": "succeeded", "changed": False}
    assert mesh.state.active_attempts() == []
    assert mesh.state.open_runs() == []
    refused(mesh, NotFound, CloseAttempt("job-j@1#9", AttemptState.FAILED, NOW))
    refused(mesh, InvalidValue, CloseAttempt(id, AttemptState.RUNNING, NOW))
    refused(mesh, InvalidValue, CloseAttempt(id, AttemptState.REDUNDANT, NOW))


def test_a_late_success_cancels_the_attempt_that_took_its_place(mesh):
    run = mesh.start("j", backup("gamma"))
    first = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    mesh.do(CloseAttempt(first, AttemptState.RECOVERED, NOW))
    second = mesh.delegate(run, source="gamma", server="gamma", device="disk-c")
    assert mesh.do(CloseAttempt(first, AttemptState.SUCCEEDED, NOW, set="s"))["run"] == "succeeded"
    assert mesh.state.attempt(second).cancel
    assert mesh.do(CloseAttempt(second, AttemptState.SUCCEEDED, NOW, set="t"))["attempt"] == "redundant"
    assert mesh.state.run(run).parts[0].set == "s"


def test_the_number_of_interruptions_follows_the_setting_of_the_media_server(mesh):
    mesh.do(SetSetting("interrupted-retries", 0.0, server="node-beta"))
    run = mesh.start("j", backup("gamma"))
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    assert mesh.do(CloseAttempt(id, AttemptState.INTERRUPTED, NOW))["run"] == "failed"


def test_a_stranded_run_is_released_by_a_server_of_its_target_that_returns_and_by_no_other(mesh):
    run = mesh.start("j", backup("alpha", to=POOL))
    for _ in range(3):
        id = mesh.delegate(run, source="alpha", server="beta", device="disk-b")
        mesh.do(CloseAttempt(id, AttemptState.RECOVERED, NOW))
    assert mesh.state.run(run).stranded
    mesh.do(SetLiveness("node-alpha", Liveness.ALIVE, None))
    mesh.do(SetLiveness("node-beta", Liveness.ALIVE, None))
    assert mesh.state.run(run).stranded, "alpha is not in the pool, beta was not away"
    mesh.do(SetLiveness("node-beta", Liveness.STALLED, NOW))
    mesh.do(SetLiveness("node-beta", Liveness.ALIVE, None))
    assert mesh.state.run(run).state is RunState.READY


def test_a_run_that_a_person_holds_is_not_released_by_a_server(mesh):
    run = mesh.start("j", backup("alpha", to=POOL))
    mesh.do(HoldRun(run, True))
    mesh.do(SetLiveness("node-beta", Liveness.STALLED, NOW))
    mesh.do(SetLiveness("node-beta", Liveness.ALIVE, None))
    assert mesh.state.run(run).held


def test_canceling_ends_what_waits_and_asks_what_runs(mesh):
    run = mesh.start("j", backup("beta", "gamma"))
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    assert mesh.do(CancelRun(run, NOW)) == {"run": "delegated"}
    assert mesh.state.attempt(id).cancel
    assert mesh.do(CancelRun(run, NOW)) == {"run": "delegated"}
    assert mesh.do(CloseAttempt(id, AttemptState.CANCELED, NOW))["run"] == "canceled"
    assert mesh.do(CancelRun(run, NOW)) == {"run": "canceled"}
    assert mesh.state.run(run).parts[0].failure.fields == {"who": "ann"}
    refused(mesh, WrongState, HoldRun(run, True))


def test_a_run_that_succeeded_cannot_be_canceled(mesh):
    run = mesh.start("j", backup("beta"))
    id = mesh.delegate(run, source="beta", server="beta", device="disk-b")
    mesh.do(CloseAttempt(id, AttemptState.SUCCEEDED, NOW))
    refused(mesh, WrongState, CancelRun(run, NOW))


def test_a_timed_out_run_asks_its_attempts_to_end_and_a_missed_one_does_not(mesh):
    run = mesh.start("j", backup("beta", "gamma"))
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    assert mesh.do(CloseRun(run, RunState.MISSED, NOW)) == {"run": "delegated"}
    assert not mesh.state.attempt(id).cancel
    mesh.do(CloseRun(run, RunState.TIMED_OUT, NOW))
    assert mesh.state.attempt(id).cancel
    mesh.do(CloseAttempt(id, AttemptState.TIMED_OUT, NOW))
    assert mesh.do(CloseRun(run, RunState.MISSED, NOW)) == {"run": "timed-out"}
    refused(mesh, InvalidValue, CloseRun(run, RunState.SUCCEEDED, NOW))


def test_what_waits_of_a_failed_run_fails_and_its_attempts_go_on(mesh):
    run = mesh.start("t", jobs.TestRunSpec(backup("beta", "gamma")))
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    why = Failure("not-ready", {"reason": "paused: disk-a"})
    for _ in range(2):
        assert mesh.do(CloseRun(run, RunState.FAILED, NOW, why)) == {"run": "delegated"}
    assert not mesh.state.attempt(id).cancel
    assert mesh.do(CloseAttempt(id, AttemptState.SUCCEEDED, NOW))["run"] == "failed"
    assert [(part.state, part.failure) for part in mesh.state.run(run).parts] == [
        (RunState.FAILED, why), (RunState.SUCCEEDED, None)
    ]  # fmt: skip


def test_a_verify_needs_no_server_of_its_set_any_more(mesh):
    run = mesh.start("v", VerifySpec("set", "node-gone"))
    id = mesh.delegate(run, source="gone", server="beta", device="disk-b")
    assert mesh.do(CloseAttempt(id, AttemptState.SUCCEEDED, NOW))["run"] == "succeeded"


# --- requests, alerts, forgetting --------------------------------------------------------------------------------------


def test_a_request_id_gets_the_same_outcome_without_a_second_effect_also_after_a_snapshot(mesh):
    first = mesh.do(RunNow(mesh.do(CreateJob(job("j", backup("beta")), False, NOW))["job"], NOW), request_id="once")
    with pytest.raises(NotFound):
        mesh.do(RunNow("job-x", NOW), request_id="never")
    assert mesh.do(RunNow("job-j", NOW), request_id="once") == first
    restored = ControlState()
    restored.restore(mesh.state.snapshot())
    mesh.state = restored
    assert mesh.do(RunNow("job-j", NOW), request_id="once") == first
    mesh.do(CreateJob(job("x", backup("beta")), False, NOW))
    with pytest.raises(NotFound):
        mesh.do(RunNow("job-x", NOW), request_id="never")
    assert len(mesh.state.runs) == 1


def test_only_so_many_request_ids_are_remembered(mesh):
    for number in range(REQUESTS_KEPT + 5):
        mesh.state.remember(Request(f"bulk-{number}", NOW, Outcome()))
    assert len(mesh.state.requests) == REQUESTS_KEPT
    assert "bulk-0" not in mesh.state.requests
    assert f"bulk-{REQUESTS_KEPT + 4}" in mesh.state.requests


def test_the_first_answer_to_an_alert_wins(mesh):
    assert mesh.do(AnswerAlert("a", "yes", NOW), who="ann") == {"response": "yes", "who": "ann", "first": True}
    assert mesh.do(AnswerAlert("a", "no", NOW), who="bob") == {"response": "yes", "who": "ann", "first": False}


def test_pruning_forgets_what_is_old_and_keeps_what_is_open(mesh):
    mesh.do(CreateToken(DIGEST, NOW + 5 * SECOND))
    mesh.do(AnswerAlert("a", "yes", NOW))
    old, still_open = mesh.start("j", backup("beta")), mesh.start("k", backup("beta"))
    id = mesh.delegate(old, source="beta", server="beta", device="disk-b")
    mesh.do(CloseAttempt(id, AttemptState.SUCCEEDED, NOW + SECOND))
    mesh.do(Prune(NOW + SECOND))
    assert old in mesh.state.runs, "it was closed at that instant, not before"
    mesh.do(Prune(NOW + 10_000 * SECOND))
    assert set(mesh.state.runs) == {still_open}
    assert mesh.state.attempts == {}
    assert mesh.state.tokens == {}
    assert mesh.state.answers == {}
    assert len(mesh.state.requests) == 1
    assert set(mesh.state.jobs) == {"job-j", "job-k"}


def test_a_closed_run_whose_canceled_attempt_still_runs_is_not_pruned(mesh):
    run = mesh.start("j", backup("gamma"))
    first = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    mesh.do(CloseAttempt(first, AttemptState.RECOVERED, NOW))
    mesh.delegate(run, source="gamma", server="gamma", device="disk-c")
    mesh.do(CloseAttempt(first, AttemptState.SUCCEEDED, NOW))
    mesh.do(Prune(NOW + 10_000 * SECOND))
    assert run in mesh.state.runs


# --- questions and snapshots -------------------------------------------------------------------------------------------


def test_things_are_found_by_name_or_the_beginning_of_an_id(mesh):
    run = mesh.start("nightly", backup("beta"))
    state = mesh.state
    assert state.job_named("nightly").id == state.job_named("job-nigh").id == "job-nightly"
    assert state.run_named("job-nightly@").id == run
    for ask, name in (
        (state.server_named, "x"),
        (state.pool_named, "x"),
        (state.device_named, "x"),
        (state.job_named, "x"),
        (state.run, "x"),
    ):
        with pytest.raises(NotFound):
            ask(name)


def test_the_roster_lists_nodes_then_operators_with_their_roles(mesh):
    roster = mesh.state.roster()
    assert [(row.kind, row.name, row.role) for row in roster.rows] == [
        ("node", "alpha", None),
        ("node", "beta", None),
        ("node", "gamma", None),
        ("operator", "ann", Role.ADMIN),
        ("operator", "op-beta", Role.VIEWER),
        ("operator", "op-gamma", Role.VIEWER),
    ]
    assert roster.mesh.id == "mesh-1"


def test_a_snapshot_that_cannot_be_read_changes_nothing(mesh):
    before = mesh.state.snapshot()
    newer = msgspec.msgpack.encode({**msgspec.msgpack.decode(before), "version": 2})
    with pytest.raises(StateTooNew):
        mesh.state.restore(newer)
    for damaged in (b"", b"\xc1", before[:-5], msgspec.msgpack.encode({"version": 1})):
        with pytest.raises(StateDamaged):
            mesh.state.restore(damaged)
    assert mesh.state.snapshot() == before
