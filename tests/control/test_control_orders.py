"""Orders: what each server is told, and what it is not."""

from __future__ import annotations

import msgspec
import pytest
from control_world import NOW, Script, backup

from caso_mesh.control.orders import as_change, difference, orders_for, same_slice, shared_digest, with_change
from caso_mesh.control.placing import problem_for
from caso_mesh.model import jobs
from caso_mesh.model.commands import (
    CancelRun,
    CloseAttempt,
    Delegate,
    HoldRun,
    RemoveServer,
    SetLiveness,
    SetServerAddresses,
    SetSetting,
)
from caso_mesh.model.errors import NotFound
from caso_mesh.model.features import READS_COPY, level_of
from caso_mesh.model.jobs import Attempt, RestoreSpec, VerifySpec
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.model.states import AttemptState, Liveness, WaitReason
from caso_mesh.planning.placement import place

AT = Authority(1, 2, 30)


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma", "delta")
    script.device("disk-b", "beta")
    script.device("disk-c", "gamma")
    return script


def cut(script: Script, name: str, at: Authority = AT) -> Orders:
    return orders_for(
        script.state,
        f"node-{name}",
        at,
        "node-alpha",
        avoid=lambda source: (f"avoid-{source}",),
        ticket=lambda attempt, run: f"ticket-{attempt.id}".encode(),
    )


@pytest.mark.parametrize("spec_of", [lambda each: each, jobs.TestRunSpec], ids=["backup", "test-run"])
def test_each_server_is_told_its_own_end_and_the_paths_of_that_source_alone(mesh, spec_of):
    run = mesh.start("j", spec_of(backup("beta", "gamma")))
    local = mesh.delegate(run, source="beta", server="beta", device="disk-b")
    remote = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    ends = {order.attempt: order.end for order in cut(mesh, "beta").attempts}
    assert ends == {local: "both", remote: "device"}
    (order,) = cut(mesh, "gamma").attempts
    assert (order.attempt, order.end, order.media, order.source) == (remote, "source", "node-beta", "node-gamma")
    assert order.spec == spec_of(backup("gamma"))
    assert (order.ticket, order.secret, order.avoid) == (b"ticket-" + remote.encode(), b"s", ("avoid-node-gamma",))
    assert order.job_name == "j"
    assert cut(mesh, "delta").attempts == ()


def test_a_server_gets_its_devices_and_those_of_its_attempts(mesh):
    run = mesh.start("j", backup("delta"))
    mesh.delegate(run, source="delta", server="beta", device="disk-b")
    assert [device.name for device in cut(mesh, "delta").devices] == ["disk-b"]
    assert [device.name for device in cut(mesh, "beta").devices] == ["disk-b"]
    assert cut(mesh, "alpha").devices == ()


def test_a_restore_has_its_target_as_the_other_end_and_a_verify_has_none(mesh):
    restore = mesh.start("r", RestoreSpec("set", "node-gamma"))
    mesh.delegate(restore, source="gamma", server="beta", device="disk-b")
    verify = mesh.start("v", VerifySpec("set", "node-delta"))
    mesh.delegate(verify, source="delta", server="beta", device="disk-b")
    assert {order.run: order.end for order in cut(mesh, "beta").attempts} == {restore: "device", verify: "both"}
    assert [order.end for order in cut(mesh, "gamma").attempts] == ["source"]
    assert cut(mesh, "delta").attempts == ()


def test_a_canceled_attempt_stays_in_the_orders_until_it_is_closed(mesh):
    run = mesh.start("j", backup("beta"))
    id = mesh.delegate(run, source="beta", server="beta", device="disk-b")
    mesh.do(CancelRun(run, NOW))
    assert [order.cancel for order in cut(mesh, "beta").attempts] == [True]
    mesh.do(CloseAttempt(id, AttemptState.CANCELED, NOW))
    assert cut(mesh, "beta").attempts == ()


def test_orders_carry_who_is_to_be_trusted_and_what_holds_for_the_server(mesh):
    orders = cut(mesh, "beta")
    assert orders.roster == mesh.state.roster()
    assert (orders.admin, orders.server.name, orders.authority) == ("node-alpha", "beta", AT)
    assert orders.settings == mesh.state.settings_of("node-beta")
    assert [node.name for node in orders.nodes] == ["alpha", "beta", "delta", "gamma"]
    assert [row.name for row in orders.media_sets] == ["keep-4-weeks", "keep-infinitely"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(orders), type=Orders) == orders
    with pytest.raises(NotFound):
        cut(mesh, "nobody")


def test_orders_that_say_the_same_are_not_sent_again_but_those_of_another_term_are(mesh):
    before = cut(mesh, "beta")
    run = mesh.start("j", backup("gamma"))
    mesh.do(HoldRun(run, True))
    assert same_slice(before, cut(mesh, "beta", Authority(1, 2, 99)))
    assert not same_slice(before, cut(mesh, "beta", Authority(1, 3, 30)))
    assert not same_slice(before, cut(mesh, "beta", Authority(2, 2, 30)))
    mesh.do(SetServerAddresses("node-gamma", ("10.0.0.3:1",), "1"))
    assert not same_slice(before, cut(mesh, "beta"))


# --- the tables of placement -------------------------------------------------------------------------------------------


def plan(script: Script, connected: str = "alpha beta gamma delta", **options):
    problem = problem_for(
        script.state,
        connected={f"node-{name}" for name in connected.split()},
        device_of_set={"set": "device-disk-c"}.get,
        **options,
    )
    return place(problem, script.at_ns)


def test_what_placement_assigns_can_be_delegated_and_then_counts_as_busy(mesh):
    runs = [mesh.start(f"j{number}", backup("delta")) for number in range(3)]
    first = plan(mesh)
    assert [one.source for one in first.assignments] == ["node-delta"] * 2
    for one in first.assignments:
        mesh.delegate(
            one.run, source="delta", server=one.server.removeprefix("node-"), device=one.device.removeprefix("device-")
        )
    again = plan(mesh)
    assert again.assignments == ()
    (waiting,) = again.waiting.values()
    assert (waiting.reason, waiting.fields) == (WaitReason.LIMIT_AT_SOURCE, {"source": "delta", "limit": 2})
    assert len(runs) == 3


def test_a_restore_goes_to_the_device_of_its_set(mesh):
    run = mesh.start("r", RestoreSpec("set", "node-delta"))
    (one,) = plan(mesh).assignments
    assert (one.run, one.source, one.server, one.device) == (run, "node-delta", "node-gamma", "device-disk-c")


def test_held_stranded_and_recovered_runs_say_so(mesh):
    held, lost = mesh.start("h", backup("alpha")), mesh.start("l", backup("beta"))
    mesh.do(HoldRun(held, True))
    id = mesh.delegate(lost, source="beta", server="gamma", device="disk-c")
    mesh.do(CloseAttempt(id, AttemptState.RECOVERED, NOW))
    found = {run: waiting.reason for (run, _), waiting in plan(mesh, "beta").waiting.items()}
    assert found == {held: WaitReason.ON_HOLD}
    mesh.do(SetLiveness("node-beta", Liveness.STALLED, NOW))
    found = {run: waiting for (run, _), waiting in plan(mesh, "alpha").waiting.items()}
    assert (found[lost].reason, found[lost].fields["source"]) == (WaitReason.SOURCE_UNREACHABLE, "beta")


def test_a_change_of_orders_comes_to_the_whole_ones_and_names_only_what_is_another(mesh):
    held = cut(mesh, "beta")
    mesh.admit("epsilon")
    mesh.do(SetServerAddresses("node-gamma", ("gamma:9",), "2"))
    mesh.do(RemoveServer("node-delta", admin="node-alpha"))
    mesh.device("disk-b2", "beta")
    run = mesh.start("j", backup("beta"))
    mesh.delegate(run, source="beta", server="beta", device="disk-b")
    now = cut(mesh, "beta", Authority(1, 2, 60))
    found = difference(held, now)
    assert {row.name for row in found.rows if row.kind == "node"} == {"epsilon"}
    assert [each.name for each in found.nodes] == ["epsilon", "gamma"]
    assert "node-delta" in found.rows_gone and found.nodes_gone == ("node-delta",)
    change = as_change(shared_digest(held), now, found)
    assert with_change(held, change) == now
    assert shared_digest(with_change(held, change)) == shared_digest(now) != shared_digest(held)
    assert shared_digest(cut(mesh, "gamma")) == shared_digest(now), "all servers are told this alike"


@pytest.mark.parametrize(
    ("do", "whose"),
    [
        (SetLiveness("node-beta", Liveness.STALLED, NOW), {"beta"}),
        (SetServerAddresses("node-beta", ("elsewhere:1",), "2"), {"beta", "gamma", "delta"}),
        (SetSetting("stalled-after-s", 7.0), {"beta", "gamma", "delta"}),
        (SetSetting("stalled-after-s", 7.0, server="node-beta"), {"beta"}),
    ],
)
def test_whose_orders_a_command_changes_is_known_without_working_them_out(mesh, do, whose):
    names = ("beta", "gamma", "delta")
    before = {name: (mesh.state.orders_version(f"node-{name}"), cut(mesh, name)) for name in names}
    mesh.do(do)
    changed = {name for name in names if not same_slice(before[name][1], cut(mesh, name))}
    assert changed == {name for name in names if before[name][0] != mesh.state.orders_version(f"node-{name}")} == whose


def test_the_orders_of_both_ends_of_an_attempt_are_known_to_change_and_nobody_elses(mesh):
    names = ("beta", "gamma", "delta")

    def step() -> set[str]:
        nonlocal before
        now = {name: (mesh.state.orders_version(f"node-{name}"), cut(mesh, name)) for name in names}
        found = {name for name in names if not same_slice(before[name][1], now[name][1])}
        known = {name for name in names if before[name][0] != now[name][0]}
        assert found <= known
        before = now
        return known

    before = {name: (mesh.state.orders_version(f"node-{name}"), cut(mesh, name)) for name in names}
    run = mesh.start("j", backup("gamma"))
    assert step() == set()
    attempt = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    assert step() == {"beta", "gamma"}
    mesh.do(CancelRun(run, NOW))
    assert step() == {"beta", "gamma"}
    mesh.do(CloseAttempt(attempt, AttemptState.CANCELED, NOW))
    assert step() == {"beta", "gamma"}


COPIES = {"copies_of_set": {"set": (("copy", "device-disk-b"),)}.get}


def test_a_restore_whose_set_nobody_reaches_reads_a_copy_that_somebody_does_and_its_order_names_that(mesh):
    """It waited for the server of the one device, with the same content on another."""
    run = mesh.start("r", RestoreSpec("set", "node-delta"))
    (one,) = plan(mesh, **COPIES).assignments
    assert one.device == "device-disk-c", "the set itself, while somebody reaches it"
    (one,) = plan(mesh, "alpha beta delta", **COPIES).assignments
    assert (one.run, one.source, one.server, one.device) == (run, "node-delta", "node-beta", "device-disk-b")
    id = mesh.delegate(run, source="delta", server="beta", device="disk-b", set="copy")
    (order,) = cut(mesh, "beta").attempts
    assert (order.attempt, order.spec) == (id, RestoreSpec("copy", "node-delta"))
    assert cut(mesh, "delta").attempts[0].spec == order.spec
    assert mesh.state.run(run).spec == RestoreSpec("set", "node-delta")


@pytest.mark.parametrize(
    ("connected", "spec", "broken"),
    [
        ("alpha delta", RestoreSpec("set", "node-delta"), {}),  # nobody reaches the copy
        ("alpha beta delta", RestoreSpec("set", "node-delta", device="device-disk-c"), {}),  # a person named the device
        ("alpha beta delta", RestoreSpec("set", "node-delta"), {("device-disk-b", "node-beta"): "device-vanished"}),
        ("alpha beta delta", VerifySpec("set", "node-delta"), {}),  # it is about that set
    ],
)
def test_where_no_copy_will_do_it_waits_for_the_set_itself(mesh, connected, spec, broken):
    run = mesh.start("r", spec)
    found = plan(mesh, connected, broken=broken, **COPIES)
    assert found.assignments == ()
    assert found.waiting[run, "node-delta"].reason is WaitReason.WAITING_FOR_SERVER


def test_an_attempt_that_reads_a_copy_waits_until_all_voters_know_of_such(mesh):
    attempt = Attempt("r@1#1", "r@1", "r", "node-delta", "node-beta", "device-disk-b", 1, NOW)
    assert level_of(Delegate(attempt)) == 1
    assert level_of(Delegate(msgspec.structs.replace(attempt, set="copy"))) == READS_COPY
