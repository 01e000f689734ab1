"""The tables of placement, cut out of the control state."""

from __future__ import annotations

import pytest
from bench import whatif
from control_world import NOW, Script, backup
from msgspec import structs

from caso_mesh.control.forecast import forecast
from caso_mesh.control.foretold import Away
from caso_mesh.control.placing import Cut, Seen
from caso_mesh.control.tables import Put
from caso_mesh.model.commands import HoldRun, SetDevice, SetSetting
from caso_mesh.model.errors import DeviceNotSeen, InvalidValue
from caso_mesh.model.states import RunState


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


def test_who_cuts_again_and_again_comes_to_the_tables_that_are_cut_from_nothing(monkeypatch):
    """At each step of a night on a site in which runs wait, begin, fail to find a place, and end."""
    looked = 0

    class Compared(Cut):
        def problem(self, state, seen):
            nonlocal looked
            looked += 1
            found = super().problem(state, seen)
            assert found == Cut().problem(state, seen)
            return found

    monkeypatch.setattr("caso_mesh.control.forecast.Cut", Compared)
    state, known = whatif.site(40, 300)
    away = Away(frozenset({"s0010"}))
    found = forecast(
        state, known, away, now_ns=whatif.NOON, from_ns=whatif.NOON, until_ns=whatif.NOON + 20 * whatif.HOUR
    )
    assert looked == found.rounds > 200
    assert {part.state for part in found.parts} >= {RunState.SUCCEEDED, RunState.MISSED}


def test_rows_of_devices_follow_what_is_seen_of_them_and_others_stay_the_same_objects():
    state, _ = whatif.site(40, 3)
    first, second, *_ = state.device_list()
    place = first.paths[0]
    quota = structs.replace(first, paths=(structs.replace(place, quota_bytes=1000),))
    base = Seen(connected=set(state.servers), device_of_set={}.get, free_bytes={first.id: 10, second.id: 10})
    cut, before = Cut(), None
    for seen, device in (
        (base, first),
        (structs.replace(base, free_bytes={first.id: 9, second.id: 10}), first),
        (structs.replace(base, broken={(first.id, place.server): "no-key"}), first),
        (base, first),
        (structs.replace(base, stored_bytes={(place.server, first.id): 300}), quota),
        (structs.replace(base, stored_bytes={(place.server, first.id): 400}), quota),
        (structs.replace(base, stored_bytes={(place.server, first.id): 400}), structs.replace(quota, concurrency=7)),
        (base, None),
    ):
        state.write([Put("devices", first.id, device)])
        after = cut.problem(state, seen).devices
        assert after == Cut().problem(state, seen).devices
        assert first.id in {device.id for device in state.devices_of(place.server)} or device is None
        if before is not None:
            assert before != after
            old = {row.id: row for row in before}
            assert all(row is old[row.id] for row in after if row.id != first.id)
        before = after


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


def test_the_queue_of_a_server_of_a_pool_or_of_all_is_on_hold_and_the_narrower_word_counts(mesh):
    cut, seen = Cut(), Seen(connected={"node-alpha"}, device_of_set={}.get)

    def held() -> set[str]:
        return {row.name for row in cut.problem(mesh.state, seen).servers if row.held}

    assert held() == set()
    mesh.do(SetSetting("queue-on-hold", 1.0, server="node-beta"))
    assert held() == {"beta"}
    mesh.do(SetSetting("queue-on-hold", 1.0))
    mesh.do(SetSetting("queue-on-hold", 0.0, server="node-beta"))
    assert held() == {"alpha", "gamma", "delta"}


def test_of_a_quota_is_left_what_neither_sets_take_nor_running_jobs_will(mesh):
    mesh.do(SetDevice("device-disk-c", quotas=(("node-gamma", 1000),)))
    run = mesh.start("j", backup("alpha"))
    id = mesh.delegate(run, source="alpha", server="gamma", device="disk-c")
    stored = {("node-gamma", "device-disk-c"): 600, ("node-beta", "device-disk-c"): 9999}
    seen = Seen(connected={"node-alpha"}, device_of_set={}.get, stored_bytes=stored, to_come_bytes={id: 77})
    rows = {row.name: row.left_bytes for row in Cut().problem(mesh.state, seen).devices}
    assert rows["disk-c"] == (("node-gamma", 323),)
    mesh.do(SetDevice("device-disk-c", quotas=(("node-gamma", None),)))
    rows = {row.name: row.left_bytes for row in Cut().problem(mesh.state, seen).devices}
    assert rows["disk-c"] == ()


def test_a_quota_is_for_a_server_that_has_the_device_and_not_negative(mesh):
    with pytest.raises(DeviceNotSeen):
        mesh.do(SetDevice("device-disk-c", quotas=(("node-beta", 1000),)))
    with pytest.raises(InvalidValue):
        mesh.do(SetDevice("device-disk-c", quotas=(("node-gamma", -1),)))


def test_what_running_jobs_will_store_yet_is_reserved_on_their_device(mesh):
    run = mesh.start("j", backup("alpha"))
    id = mesh.delegate(run, source="alpha", server="gamma", device="disk-c")
    seen = Seen(connected={"node-alpha"}, device_of_set={}.get, to_come_bytes={id: 77}, ends_at_ns={id: NOW})
    problem = Cut().problem(mesh.state, seen)
    assert {row.name: row.reserved_bytes for row in problem.devices}["disk-c"] == 77
    (busy,) = problem.busy
    assert (busy.server, busy.device, busy.ends_at_ns) == ("node-gamma", "device-disk-c", NOW)
