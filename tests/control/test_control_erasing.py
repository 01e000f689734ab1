"""Erasing a device in the control state: alone there, begun once, and a new vault when it has ended well."""

from __future__ import annotations

import pytest
from control_world import Script, backup
from msgspec.structs import replace

from caso_mesh.control.placing import attempt_of, problem_for
from caso_mesh.model.commands import BeginErase, CancelRun, CloseAttempt, CreateJob, Delegate, RetireMedium, SetDevice
from caso_mesh.model.device_jobs import EraseSpec, InventorySpec
from caso_mesh.model.errors import Conflict, InUse, UsageError, WrongState
from caso_mesh.model.jobs import Target, TargetKind, VerifySpec
from caso_mesh.model.states import AttemptState, DeviceState, WaitReason
from caso_mesh.planning.placement import Plan, place

SPEC = EraseSpec("device-disk", "vault-new")
TO_DISK = Target(TargetKind.DEVICE, "disk")
LINKED = {"node-alpha", "node-beta", "node-gamma"}


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk", "beta", "gamma")
    return script


def planned(mesh: Script, **seen) -> Plan:
    return place(
        problem_for(mesh.state, connected=LINKED, device_of_set=lambda set_id: "device-disk", **seen), mesh.at_ns
    )


def delegated(mesh: Script, run: str) -> str:
    """The attempt that the plan makes of a run."""
    (one,) = [each for each in planned(mesh).assignments if each.run == run]
    attempt = attempt_of(mesh.state.run(run), one, mesh.at_ns)
    mesh.do(Delegate(attempt))
    return attempt.id


def begun(mesh: Script) -> tuple[str, str]:
    run = mesh.start("erase", SPEC)
    attempt = delegated(mesh, run)
    mesh.do(BeginErase(attempt))
    return run, attempt


def why(mesh: Script, run: str) -> tuple[WaitReason, dict]:
    (waits,) = [waits for (id, _), waits in planned(mesh).waiting.items() if id == run]
    return waits.reason, waits.fields


def test_an_erase_that_ends_well_leaves_a_new_vault_without_media(mesh):
    mesh.do(RetireMedium("device-disk", "BETA-000001"))
    run, attempt = begun(mesh)
    assert mesh.state.device("device-disk").erasing == "vault-new"
    mesh.do(BeginErase(attempt))
    mesh.do(CloseAttempt(attempt, AttemptState.SUCCEEDED, mesh.at_ns))
    device = mesh.state.device("device-disk")
    assert (device.vault, device.erasing, device.retired) == ("vault-new", "", ())
    assert device.formatted_at_ns == mesh.state.attempt(attempt).ended_at_ns
    assert mesh.state.run(run).closed_at_ns is not None


def test_one_that_fails_before_it_began_leaves_everything_as_it_was(mesh):
    run = mesh.start("erase", SPEC)
    attempt = delegated(mesh, run)
    before = mesh.state.device("device-disk")
    mesh.do(CloseAttempt(attempt, AttemptState.FAILED, mesh.at_ns))
    assert mesh.state.device("device-disk") == before
    other = mesh.start("b", backup("beta", to=TO_DISK))
    assert delegated(mesh, other)


def test_one_that_was_cut_off_keeps_everybody_off_until_one_has_ended_well(mesh):
    _, attempt = begun(mesh)
    mesh.do(CloseAttempt(attempt, AttemptState.FAILED, mesh.at_ns))
    assert mesh.state.device("device-disk").erasing == "vault-new"
    run = mesh.start("b", backup("beta", to=TO_DISK))
    assert why(mesh, run) == (WaitReason.ERASE_UNFINISHED, {"devices": ["disk"]})
    stock = mesh.start("i", InventorySpec(("device-disk",)))
    assert why(mesh, stock)[0] is WaitReason.ERASE_UNFINISHED
    # the servers say that they cannot use it: for what goes on with the erase that is no reason
    again = mesh.start("again", SPEC)
    broken = {("device-disk", f"node-{name}"): "erase-unfinished" for name in ("beta", "gamma")}
    assert [each.run for each in planned(mesh, broken=broken).assignments] == [again]
    second = delegated(mesh, again)
    mesh.do(BeginErase(second))
    mesh.do(CloseAttempt(second, AttemptState.SUCCEEDED, mesh.at_ns))
    assert mesh.state.device("device-disk").vault == "vault-new"
    assert delegated(mesh, run)


def test_what_was_told_late_still_counts(mesh):
    """Its server was removed from the mesh's sight, and had done it."""
    _, attempt = begun(mesh)
    mesh.do(CloseAttempt(attempt, AttemptState.RECOVERED, mesh.at_ns))
    mesh.do(CloseAttempt(attempt, AttemptState.SUCCEEDED, mesh.at_ns))
    assert mesh.state.device("device-disk").vault == "vault-new"


def test_while_a_run_waits_to_erase_a_device_nothing_new_begins_there_and_it_waits_for_what_runs(mesh):
    first = mesh.start("b", backup("beta", to=TO_DISK))
    running = delegated(mesh, first)
    erase = mesh.start("erase", SPEC)
    assert why(mesh, erase)[0] is WaitReason.NO_IDLE_DEVICE
    other = mesh.start("c", backup("gamma", to=TO_DISK))
    assert why(mesh, other) == (WaitReason.BLOCKED_BY_RUN, {"run": erase})
    read = mesh.start("v", VerifySpec("set-1"))
    assert why(mesh, read)[0] is WaitReason.BLOCKED_BY_RUN
    mesh.do(CloseAttempt(running, AttemptState.FAILED, mesh.at_ns))
    assert [each.run for each in planned(mesh).assignments] == [erase]
    mesh.do(CancelRun(erase, mesh.at_ns))
    assert {each.run for each in planned(mesh).assignments} == {other, read}


def test_a_full_device_can_be_erased(mesh):
    mesh.do(SetDevice("device-disk", low_space_bytes=1000))
    run = mesh.start("erase", SPEC)
    assert [each.run for each in planned(mesh, free_bytes={"device-disk": 0}).assignments] == [run]


def test_nobody_is_handed_a_device_that_is_erased_and_no_erase_one_that_is_used(mesh):
    write = mesh.start("b", backup("beta", to=TO_DISK))
    running = mesh.delegate(write, source="beta", server="beta", device="disk")
    erase = mesh.start("erase", SPEC)
    attempt = attempt_of(mesh.state.run(erase), replace_assignment(erase), mesh.at_ns)
    with pytest.raises(Conflict, match="in use by"):
        mesh.do(Delegate(attempt))
    mesh.do(CloseAttempt(running, AttemptState.FAILED, mesh.at_ns))
    mesh.do(Delegate(attempt))
    other = mesh.start("c", backup("gamma", to=TO_DISK))
    with pytest.raises(Conflict, match="in use by"):
        mesh.delegate(other, source="gamma", server="gamma", device="disk")
    mesh.do(BeginErase(attempt.id))
    mesh.do(CloseAttempt(attempt.id, AttemptState.FAILED, mesh.at_ns))
    with pytest.raises(Conflict, match="is being erased"):
        mesh.delegate(other, source="gamma", server="gamma", device="disk")


def replace_assignment(run: str):
    from caso_mesh.planning.problem import Assignment

    return Assignment(run, "device-disk", "node-beta", "device-disk")


def test_it_does_not_begin_once_it_was_canceled_or_on_a_device_that_is_not_online(mesh):
    run = mesh.start("erase", SPEC)
    attempt = delegated(mesh, run)
    mesh.do(SetDevice("device-disk", state=DeviceState.READ_ONLY))
    with pytest.raises(WrongState):
        mesh.do(BeginErase(attempt))
    mesh.do(SetDevice("device-disk", state=DeviceState.ONLINE))
    mesh.do(CancelRun(run, mesh.at_ns))
    with pytest.raises(WrongState):
        mesh.do(BeginErase(attempt))
    write = mesh.start("b", backup("beta", to=Target(TargetKind.ANY)))
    mesh.do(CloseAttempt(attempt, AttemptState.CANCELED, mesh.at_ns))
    other = mesh.delegate(write, source="beta", server="beta", device="disk")
    with pytest.raises(WrongState):
        mesh.do(BeginErase(other))
    with pytest.raises((InUse, WrongState)):
        mesh.do(BeginErase(attempt))


def test_an_erase_is_no_work_for_a_schedule(mesh):
    from control_world import job

    with pytest.raises(UsageError, match="now or not at all"):
        mesh.do(CreateJob(job("erase", SPEC), run_now=False, at_ns=mesh.at_ns))
    assert replace(SPEC, last_good=True).devices == ("device-disk",)
