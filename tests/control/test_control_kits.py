"""Recovery kits in the control state, and what becomes of a state that is rebuilt from a copy."""

from __future__ import annotations

import msgspec
import pytest
from control_world import NOW, SECOND, Script, backup, job, operator

from caso_mesh.control.recovery import SERIAL_GAP, essence, recover
from caso_mesh.control.reducer import check_state
from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import AddKit, ConfirmKit, CreateJob, CreateToken, NoteKitDevice, RemoveDevice, RunNow
from caso_mesh.model.errors import AlreadyExists, InvalidValue, NotFound
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.model.mesh import Claim
from caso_mesh.model.states import AttemptState, Liveness, RunState

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk", "beta")
    script.device("second", "gamma")
    return script


def ids(script: Script) -> dict[str, str]:
    return {device.name: device.id for device in script.state.device_list()}


def test_a_kit_is_added_once_and_confirmed_once(mesh):
    assert mesh.do(AddKit("kit1", KEY, NOW)) == mesh.do(AddKit("kit1", KEY, NOW + 1)) == {"kit": "kit1"}
    assert mesh.state.kits["kit1"].created_by == "ann"
    assert mesh.state.kits["kit1"].confirmed_at_ns is None
    with pytest.raises(AlreadyExists):
        mesh.do(AddKit("kit1", OTHER, NOW))
    with pytest.raises(InvalidValue):
        mesh.do(AddKit("kit2", b"short", NOW))
    with pytest.raises(NotFound):
        mesh.do(ConfirmKit("kit2", NOW))
    mesh.do(ConfirmKit("kit1", NOW + 5))
    mesh.do(ConfirmKit("kit1", NOW + 9))
    assert mesh.state.kits["kit1"].confirmed_at_ns == NOW + 5


def test_devices_become_complete_and_incomplete_and_are_forgotten_when_they_go(mesh):
    mesh.do(AddKit("kit1", KEY, NOW))
    mesh.do(AddKit("kit2", OTHER, NOW))
    disk, second = ids(mesh)["disk"], ids(mesh)["second"]
    mesh.do(NoteKitDevice(disk, ("kit1", "kit2", "never-made")))
    mesh.do(NoteKitDevice(second, ("kit1",)))
    assert [kit.complete for kit in mesh.state.kit_list()] == [tuple(sorted((disk, second))), (disk,)]
    mesh.do(NoteKitDevice(disk, ("kit2",), complete=False))
    assert mesh.state.kits["kit2"].complete == ()
    mesh.do(RemoveDevice(second))
    mesh.do(NoteKitDevice(second, ("kit2",)))
    mesh.do(NoteKitDevice(disk, ("kit1",)))
    assert [kit.complete for kit in mesh.state.kit_list()] == [(disk,), ()]


def test_kits_survive_a_snapshot_and_an_older_snapshot_has_none(mesh):
    mesh.do(AddKit("kit1", KEY, NOW))
    again = ControlState()
    again.restore(mesh.state.snapshot())
    assert again.kits == mesh.state.kits
    image = msgspec.msgpack.decode(mesh.state.snapshot())
    del image["kits"]
    again.restore(msgspec.msgpack.encode(image))
    assert again.kits == {}


def test_the_essence_changes_with_what_shall_be_and_not_with_what_runs(mesh):
    mesh.do(CreateJob(job("nightly", backup("beta")), False, NOW))
    before = essence(mesh.state)
    run = mesh.do(RunNow("nightly" if "nightly" in mesh.state.jobs else mesh.state.job_list()[0].id, NOW))["run"]
    mesh.delegate(run, source="beta", server="beta", device="disk")
    assert essence(mesh.state) == before
    mesh.pool("new", "beta")
    assert essence(mesh.state) != before


def rebuilt(mesh: Script, at_ns: int) -> ControlState:
    state = ControlState()
    state.restore(mesh.state.snapshot())
    admin = mesh.state.voters()[0]
    new = msgspec.structs.replace(operator("op-new"), home=admin.id)
    claim = Claim(admin.id, 2, b"signed")
    recover(state, admin=admin.id, operator=new, addresses=("10.0.0.9:7300",), now_ns=at_ns, claim=claim)
    check_state(state)
    return state


def test_a_rebuilt_mesh_has_one_voter_its_servers_and_no_open_work(mesh):
    mesh.do(CreateToken(b"d" * 32, NOW + 1000 * SECOND))
    cron = job("nightly", backup("beta", "gamma"), schedule=CronSchedule("0 2 * * *", "UTC"))
    mesh.do(CreateJob(cron, False, NOW))
    active = mesh.start("active", backup("beta", "gamma"))
    attempt = mesh.delegate(active, source="beta", server="beta", device="disk")
    at_ns = mesh.at_ns + 3600 * SECOND
    state = rebuilt(mesh, at_ns)
    admin = mesh.state.voters()[0]
    assert [each.id for each in state.voters()] == [admin.id]
    assert {row.id for row in state.roster().rows if row.kind == "node"} == set(mesh.state.servers)
    assert state.servers[admin.id].addresses == ("10.0.0.9:7300",)
    assert state.servers[admin.id].liveness is Liveness.ALIVE
    assert not state.tokens
    assert not state.open_runs()
    assert not state.active_attempts()
    assert state.run(active).state is RunState.CANCELED
    assert state.attempts[attempt].state is AttemptState.INTERRUPTED
    for row in state.job_list():
        assert row.serial >= SERIAL_GAP
    assert state.job_named("nightly").last_due_at_ns == at_ns
    assert mesh.state.open_runs(), "the state it was made from is another one"


def test_the_operator_of_the_lost_machine_is_replaced_and_refused(mesh):
    admin = mesh.state.voters()[0]
    old = [each for each in mesh.state.operator_list() if each.home == admin.id]
    state = rebuilt(mesh, NOW + 3600 * SECOND)
    assert old
    for each in old:
        assert each.id in state.removed
        assert each.id not in {row.id for row in state.roster().rows}
    assert [each.id for each in state.operator_list() if each.home == admin.id] == [operator("op-new").id]
