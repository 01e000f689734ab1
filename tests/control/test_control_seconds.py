"""One read, two devices, in the control state: a run of its own takes what another one reads to the second device."""

from __future__ import annotations

import pytest
from control_world import Script, backup
from msgspec.structs import replace

from caso_mesh.control.orders import orders_for
from caso_mesh.control.placing import problem_for
from caso_mesh.model.commands import CancelRun, CloseAttempt
from caso_mesh.model.errors import Conflict, NotFound
from caso_mesh.model.ids import run_of_attempt
from caso_mesh.model.jobs import BackupSpec, DuplicateSpec, Failure, Run, Target, TargetKind
from caso_mesh.model.orders import Authority
from caso_mesh.model.rules import Again
from caso_mesh.model.states import AttemptState, JobState, RunState, WaitReason
from caso_mesh.planning.placement import Plan, place

FULL = Failure("device-full", {"device": "disk-c", "detail": ""})
TO_B, TO_C = Target(TargetKind.DEVICE, "disk-b"), Target(TargetKind.DEVICE, "disk-c")
LINKED = {"node-alpha", "node-beta", "node-gamma"}


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk-b", "beta")
    script.device("disk-c", "gamma")
    return script


def to_two(*sources: str, **more) -> BackupSpec:
    return replace(backup(*sources, to=TO_B), second=TO_C, **more)


def begun(mesh: Script, source: str = "beta") -> tuple[str, str, Run]:
    """The first attempt, the second one and its run."""
    run = mesh.start("j", to_two(source))
    first = mesh.delegate(run, source=source, server="beta", device="disk-b", second=("gamma", "disk-c"))
    second = mesh.state.attempt(first).second
    return first, second, mesh.state.run(run_of_attempt(second))


def close(mesh: Script, attempt: str, state: AttemptState, **more) -> None:
    mesh.do(CloseAttempt(attempt, state, mesh.at_ns, **more))


def planned(mesh: Script) -> Plan:
    devices = {"set-1": "device-disk-b"}
    return place(problem_for(mesh.state, connected=LINKED, device_of_set=devices.get), mesh.at_ns)


def test_the_plan_takes_both_devices_and_the_run_beside_begins_with_the_first_attempt(mesh):
    run = mesh.start("j", to_two("beta"))
    (placed,) = planned(mesh).assignments
    assert (placed.server, placed.device) == ("node-beta", "device-disk-b")
    assert (placed.second_server, placed.second_device) == ("node-gamma", "device-disk-c")
    with pytest.raises(Conflict, match="goes to two devices"):
        mesh.delegate(run, source="beta", server="beta", device="disk-b")
    with pytest.raises(Conflict, match="does not fit"):
        mesh.delegate(run, source="beta", server="beta", device="disk-b", second=("beta", "disk-b"))
    with pytest.raises(Conflict, match="does not fit"):
        mesh.delegate(run, source="beta", server="beta", device="disk-b", second=("beta", "disk-c"))
    first = mesh.delegate(run, source="beta", server="beta", device="disk-b", second=("gamma", "disk-c"))
    (other,) = [each for each in mesh.state.open_runs() if each.id != run]
    assert other.id == f"{run}+1"
    assert (other.job, other.state, other.terms.second_of) == (mesh.state.run(run).job, RunState.DELEGATED, run)
    assert other.spec == DuplicateSpec(("node-beta",), TO_C)
    assert mesh.state.attempt(first).second == f"{run}+1#1"
    with pytest.raises(Conflict, match="goes to one device"):
        single = mesh.start("k", backup("beta"))
        mesh.delegate(single, source="beta", server="beta", device="disk-b", second=("gamma", "disk-c"))


def test_both_succeed_each_run_has_its_set_and_a_rule_of_the_policy_counts_it_once(mesh):
    first, second, other = begun(mesh)
    close(mesh, first, AttemptState.SUCCEEDED, set="set-1")
    assert mesh.state.run(run_of_attempt(first)).state is RunState.SUCCEEDED
    assert mesh.state.run(other.id).state is RunState.DELEGATED
    close(mesh, second, AttemptState.SUCCEEDED, set="set-2")
    ended = mesh.state.run(other.id)
    assert (ended.state, ended.parts[0].set) == (RunState.SUCCEEDED, "set-2")


@pytest.mark.parametrize("earlier", ["first", "second"])
def test_the_first_run_is_good_when_the_second_fails_which_is_a_failed_run(mesh, earlier):
    first, second, other = begun(mesh)
    ends = [
        lambda: close(mesh, first, AttemptState.SUCCEEDED, set="set-1"),
        lambda: close(mesh, second, AttemptState.FAILED, failure=FULL),
    ]
    for end in ends if earlier == "first" else reversed(ends):
        end()
    assert mesh.state.run(run_of_attempt(first)).state is RunState.SUCCEEDED
    failed = mesh.state.run(other.id)
    assert (failed.state, failed.parts[0].failure) == (RunState.FAILED, FULL)
    assert mesh.state.open_runs() == []


def test_by_an_error_rule_the_missing_set_is_made_as_a_copy_of_the_first_once_that_is_there(mesh):
    first, second, other = begun(mesh)
    close(mesh, second, AttemptState.FAILED, failure=FULL, again=Again("room", mesh.at_ns))
    waits = planned(mesh).waiting[other.id, "node-beta"]
    assert (waits.reason, waits.fields) == (WaitReason.BLOCKED_BY_RUN, {"run": run_of_attempt(first)})
    close(mesh, first, AttemptState.SUCCEEDED, set="set-1")
    (placed,) = planned(mesh).assignments
    assert placed.run == other.id
    assert (placed.server, placed.device) == ("node-gamma", "device-disk-c")
    assert (placed.reader, placed.from_device) == ("node-beta", "device-disk-b")
    copying = mesh.delegate(other.id, source="beta", server="gamma", device="disk-c")
    (order,) = [each for each in cut(mesh, "gamma").attempts if each.attempt == copying]
    assert isinstance(order.spec, DuplicateSpec)
    assert (order.spec.sets, order.beside) == (("set-1",), "")
    close(mesh, copying, AttemptState.SUCCEEDED, set="set-2")
    assert mesh.state.run(other.id).state is RunState.SUCCEEDED


def test_what_only_came_to_grief_is_copied_without_any_rule(mesh):
    first, second, other = begun(mesh)
    close(mesh, second, AttemptState.INTERRUPTED)
    close(mesh, first, AttemptState.SUCCEEDED, set="set-1")
    (placed,) = planned(mesh).assignments
    assert (placed.run, placed.device) == (other.id, "device-disk-c")


def test_a_rule_that_would_hold_the_job_does_not_hold_the_backup_for_its_second_set(mesh):
    first, second, other = begun(mesh)
    close(mesh, first, AttemptState.SUCCEEDED, set="set-1")
    close(mesh, second, AttemptState.FAILED, failure=FULL, again=Again("room", held=True))
    assert mesh.state.run(other.id).state is RunState.FAILED
    assert mesh.state.job(other.job).state is JobState.ACTIVE


@pytest.mark.parametrize("state", [AttemptState.FAILED, AttemptState.INTERRUPTED, AttemptState.RECOVERED])
def test_without_the_first_set_there_is_no_second_one_and_the_next_try_takes_both_again(mesh, state):
    first, second, other = begun(mesh)
    close(mesh, first, state)
    assert mesh.state.attempt(second).cancel
    close(mesh, second, AttemptState.CANCELED)
    assert mesh.state.run(other.id).state is RunState.CANCELED
    run = run_of_attempt(first)
    if state is AttemptState.FAILED:
        assert mesh.state.open_runs() == []
        return
    again = mesh.delegate(run, source="beta", server="beta", device="disk-b", second=("gamma", "disk-c"))
    assert mesh.state.attempt(again).second == f"{run}+2#1"


def test_who_cancels_a_backup_cancels_what_goes_to_its_second_device(mesh):
    first, second, _ = begun(mesh)
    mesh.do(CancelRun(run_of_attempt(first), mesh.at_ns))
    close(mesh, first, AttemptState.CANCELED)
    assert mesh.state.attempt(second).cancel
    close(mesh, second, AttemptState.CANCELED)
    assert mesh.state.open_runs() == []


def cut(mesh: Script, name: str):
    return orders_for(
        mesh.state,
        f"node-{name}",
        Authority(1, 2, 3),
        "node-alpha",
        avoid=lambda source: (),
        ticket=lambda attempt, run: f"ticket-{attempt.id}".encode(),
    )


@pytest.mark.parametrize("source", ["beta", "gamma", "alpha"])
def test_the_end_that_reads_is_told_where_else_to_take_it_and_the_second_device_what_it_is(mesh, source):
    first, second, _ = begun(mesh, source)
    mine = {order.attempt: order for order in cut(mesh, source).attempts}
    reads = mine[first]
    assert reads.end == ("both" if source == "beta" else "source")
    assert reads.second is not None
    assert (reads.second.attempt, reads.second.media) == (second, "node-gamma")
    assert (reads.second.device, reads.second.secret) == ("device-disk-c", b"t")
    assert reads.second.ticket == f"ticket-{second}".encode()
    assert set(mine) == ({first, second} if source == "gamma" else {first})
    stores = next(order for order in cut(mesh, "gamma").attempts if order.attempt == second)
    assert (stores.end, stores.beside, stores.second) == ("device", first, None)
    assert (stores.ticket, stores.secret) == (reads.second.ticket, b"t")
    assert stores.spec == mesh.state.run(run_of_attempt(first)).spec
    if source != "beta":
        (writes,) = cut(mesh, "beta").attempts
        assert (writes.attempt, writes.end, writes.second) == (first, "device", None)


def test_both_devices_are_busy_while_it_runs_and_the_source_once(mesh):
    begun(mesh, "gamma")
    problem = problem_for(mesh.state, connected=LINKED, device_of_set=lambda set_id: None)
    assert {row.name: row.running for row in problem.devices} == {"disk-b": 1, "disk-c": 1}
    assert {row.name: row.running for row in problem.servers} == {"alpha": 0, "beta": 1, "gamma": 1}
    assert {row.name: row.reading for row in problem.servers} == {"alpha": 0, "beta": 0, "gamma": 1}


def test_a_second_device_that_is_the_first_or_is_not_there_is_refused(mesh):
    with pytest.raises(Conflict, match="is the first device already"):
        mesh.start("j", replace(to_two("beta"), second=TO_B))
    with pytest.raises(NotFound):
        mesh.start("j", replace(to_two("beta"), second=Target(TargetKind.DEVICE, "nowhere")))
