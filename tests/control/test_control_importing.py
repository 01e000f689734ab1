"""Devices of other meshes in the control state: read-only, never a target, and known by names of their own."""

from __future__ import annotations

import pytest
from control_world import NOW, Script, backup, device, job
from msgspec.structs import replace

from caso_mesh.control.importing import source_named
from caso_mesh.control.orders import orders_for
from caso_mesh.control.placing import problem_for
from caso_mesh.control.reducer import validate
from caso_mesh.model.commands import (
    AddDevice,
    CreateJob,
    Delegate,
    PutDevicePool,
    RemoveDevice,
    RemoveServer,
    SetDevice,
    SetDevicePaths,
)
from caso_mesh.model.errors import (
    AlreadyExists,
    Ambiguous,
    DeviceImported,
    InUse,
    InvalidValue,
    NotFound,
)
from caso_mesh.model.features import FEATURE_LEVEL, level_of
from caso_mesh.model.ids import attempt_id
from caso_mesh.model.imported import Imported, distinct
from caso_mesh.model.importing import ImportDevice, NoteImported
from caso_mesh.model.jobs import Attempt, DuplicateSpec, RestoreSpec, Target, TargetKind
from caso_mesh.model.orders import Authority
from caso_mesh.model.policies import DevicePool, DevicePoolMember
from caso_mesh.model.states import DeviceState
from caso_mesh.model.storage import DevicePath

OLD = Imported("mesh-2", "meadow", {"n1": "beta", "n2": "gamma"}, {"n1": b"key"}, {"node-beta": b"sealed"})


def imported(name: str, *servers: str, of: Imported = OLD):
    return device(name, *servers, imported=of)


@pytest.fixture
def script() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.do(ImportDevice(imported("old", "beta")))
    return script


def refused(script: Script, command, error):
    with pytest.raises(error) as found:
        validate(script.state, command, at_ns=NOW)
    return found.value


def test_an_imported_device_survives_a_snapshot_and_is_told_to_its_servers_with_their_own_copy_alone(script):
    script.do(
        SetDevicePaths("device-old", script.state.device("device-old").kind, (DevicePath("node-beta", "/mnt/x"),))
    )
    after = type(script.state)()
    after.restore(script.state.snapshot())
    assert after.device("device-old") == script.state.device("device-old")
    assert after.snapshot() == script.state.snapshot()

    def devices(node: str):
        orders = orders_for(script.state, node, Authority(1, 1, 1), "node-alpha", lambda _: (), lambda *_: b"")
        return {each.name: each.imported for each in orders.devices}

    assert devices("node-gamma") == {}
    assert devices("node-beta")["old"].copies == {"node-beta": b"sealed"}


def test_nothing_of_a_later_level_is_proposed_before_all_voters_understand_it():
    spec = RestoreSpec("s", "node-beta", foreign=True)
    paths = SetDevicePaths("d", device("d", "beta").kind, (), {"node-beta": b"x"})
    later = (
        ImportDevice(imported("old", "beta")),
        NoteImported("device-old"),
        paths,
        CreateJob(job("r", spec), run_now=True, at_ns=NOW),
        CreateJob(
            job("d", DuplicateSpec(("n1",), Target(TargetKind.ANY), ("s",), foreign=True)), run_now=True, at_ns=NOW
        ),
    )
    assert {level_of(command) for command in later} == {4} and FEATURE_LEVEL >= 4
    assert level_of(replace(paths, copies={})) == 2
    assert level_of(CreateJob(job("r", replace(spec, foreign=False)), run_now=True, at_ns=NOW)) == 1


def test_a_device_of_this_mesh_a_name_a_vault_or_a_place_that_is_taken_is_not_imported(script):
    own = imported("mine", "beta", of=replace(OLD, mesh="mesh-1"))
    refused(script, ImportDevice(own), InvalidValue)
    refused(script, ImportDevice(replace(imported("old", "gamma"), id="x", vault="y")), AlreadyExists)
    refused(script, ImportDevice(replace(imported("again", "gamma"), vault="vault-old")), AlreadyExists)
    taken = (DevicePath("node-beta", "/mnt/old"),)
    refused(script, AddDevice(replace(device("new", "beta"), paths=taken)), AlreadyExists)


def test_it_is_no_target_and_in_no_device_pool_and_is_set_to_nothing_that_it_is_not(script):
    target = Target(TargetKind.DEVICE, "old")
    error = refused(script, CreateJob(job("b", backup("beta", to=target)), run_now=True, at_ns=NOW), DeviceImported)
    assert error.fields["mesh"] == "meadow" and "duplicate" in error.hint
    refused(script, PutDevicePool(DevicePool("p", (DevicePoolMember("device-old"),)), new=True), DeviceImported)
    refused(script, SetDevice("device-old", DeviceState.IMPORTED), InvalidValue)
    script.do(SetDevice("device-old", DeviceState.OFFLINE))
    script.do(SetDevice("device-old", DeviceState.ONLINE))
    (row,) = problem_for(script.state, connected=set(), device_of_set={}.get).devices
    assert row.imported


def test_what_opens_it_stays_with_servers_that_see_it_and_comes_with_new_places(script):
    old = script.state.device("device-old")
    both = (DevicePath("node-beta", "/mnt/old"), DevicePath("node-gamma", "/mnt/old"))
    script.do(
        SetDevicePaths(old.id, device("x", "a", "b").kind, both, {"node-gamma": b"for gamma", "node-alpha": b"no"})
    )
    assert script.state.device(old.id).imported.copies == {"node-beta": b"sealed", "node-gamma": b"for gamma"}
    script.do(RemoveServer("node-beta"))
    assert script.state.device(old.id).imported.copies == {"node-gamma": b"for gamma"}


def test_its_servers_are_named_after_its_mesh_and_a_third_mesh_of_that_name_gets_a_number(script):
    state = script.state
    assert (state.name_of("n1"), source_named(state, "beta@meadow")) == ("beta@meadow", "n1")
    assert source_named(state, "beta") == "node-beta"
    with pytest.raises(NotFound):
        source_named(state, "delta@meadow")
    third = Imported("mesh-3", "meadow", {"n9": "beta"}, {}, {})
    script.do(ImportDevice(imported("third", "gamma", of=third)))
    script.do(ImportDevice(imported("fourth", "gamma", of=replace(third, mesh_name="anything", names={"n8": "zeta"}))))
    assert {state.name_of(each) for each in ("n9", "n8")} == {"beta@meadow-2", "zeta@meadow-2"}
    assert source_named(state, "beta@meadow-2") == "n9"
    # two disks of one mesh, each with another machine of that name
    script.do(ImportDevice(imported("fifth", "gamma", of=replace(third, names={"n7": "beta"}))))
    with pytest.raises(Ambiguous):
        source_named(state, "beta@meadow-2")


def test_machines_of_one_name_are_told_apart_by_their_ids():
    assert distinct({"aaaaaa": "beta", "bbbbbb": "beta", "cc": "gamma"}) == {
        "aaaaaa": "beta-aaaa", "bbbbbb": "beta-bbbb", "cc": "gamma",
    }  # fmt: skip


def test_that_its_sets_are_listed_is_noted_once_and_a_removed_device_is_nothing(script):
    script.do(NoteImported("device-old"))
    assert script.state.device("device-old").imported.listed
    before = script.state.device_list()
    script.do(NoteImported("device-old"))
    script.do(NoteImported("device-none"))
    assert script.state.device_list() == before
    script.do(RemoveDevice("device-old"))
    assert script.state.name_of("n1") == "n1"


def test_a_device_that_a_copy_is_read_from_does_not_leave_the_mesh(script):
    script.do(AddDevice(device("own", "gamma")))
    spec = DuplicateSpec(("n1",), Target(TargetKind.DEVICE, "own"), ("s",), foreign=True)
    result = script.do(CreateJob(job("copy", spec), run_now=True, at_ns=NOW))
    run = script.state.run(result["run"])
    attempt = Attempt(
        attempt_id(run.id, 1), run.id, run.job, "n1", "node-gamma", "device-own", 1, NOW, secret=b"s",
        reader="node-beta", from_device="device-old",
    )  # fmt: skip
    script.do(Delegate(attempt, None), who="admin")
    assert refused(script, RemoveDevice("device-old"), InUse).fields["by"]
