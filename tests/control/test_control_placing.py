"""The tables of placement, cut out of the control state."""

from __future__ import annotations

import pytest
from control_world import NOW, Script, backup

from caso_mesh.control.placing import Cut, Seen
from caso_mesh.model.commands import HoldRun, SetSetting


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma", "delta")
    script.device("disk-c", "gamma")
    return script


def test_rows_of_parts_that_did_not_change_are_the_same_objects_and_others_are_cut_anew(mesh):
    first, second = mesh.start("j1", backup("alpha")), mesh.start("j2", backup("alpha"))
    cut, seen = Cut(), Seen(connected={"node-alpha"}, device_of_set={}.get)
    before = {part.run: part for part in cut.problem(mesh.state, seen).parts}
    mesh.do(HoldRun(second, True))
    after = {part.run: part for part in cut.problem(mesh.state, seen).parts}
    assert after[first] is before[first]
    assert after[second].on_hold


def test_the_limits_of_servers_follow_settings_of_every_scope(mesh):
    cut, seen = Cut(), Seen(connected={"node-alpha"}, device_of_set={}.get)

    def limits() -> dict[str, tuple[int, int]]:
        rows = cut.problem(mesh.state, seen).servers
        return {row.name: (row.concurrency, row.source_concurrency) for row in rows}

    assert limits()["alpha"] == (4, 2)
    mesh.do(SetSetting("server-concurrency", 7.0))
    assert limits()["alpha"] == (7, 2)
    mesh.do(SetSetting("source-concurrency", 5.0, server="node-alpha"))
    assert (limits()["alpha"], limits()["beta"]) == ((7, 5), (7, 2))


def test_what_running_jobs_will_store_yet_is_reserved_on_their_device(mesh):
    run = mesh.start("j", backup("alpha"))
    id = mesh.delegate(run, source="alpha", server="gamma", device="disk-c")
    seen = Seen(connected={"node-alpha"}, device_of_set={}.get, to_come_bytes={id: 77}, ends_at_ns={id: NOW})
    problem = Cut().problem(mesh.state, seen)
    assert {row.name: row.reserved_bytes for row in problem.devices}["disk-c"] == 77
    (busy,) = problem.busy
    assert (busy.server, busy.device, busy.ends_at_ns) == ("node-gamma", "device-disk-c", NOW)
