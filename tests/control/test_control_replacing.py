"""A new machine in the place of a lost server: everything that named the old one names the new one, and nothing is lost."""

from __future__ import annotations

import msgspec
import pytest
from control.control_world import NOW, SECOND, Script, backup, job, operator, server

from caso_mesh.control.orders import orders_for
from caso_mesh.model.commands import (
    AdmitOperator,
    CancelRun,
    CreateJob,
    CreateToken,
    InviteOperator,
    PutList,
    ReplaceServer,
    SetServerState,
    SetSetting,
)
from caso_mesh.model.errors import InUse, InvalidValue, JoinLinkUsed, NotFound, NotOnRoster
from caso_mesh.model.jobs import RestoreSpec, VerifySpec
from caso_mesh.model.mesh import OperatorGrant
from caso_mesh.model.policies import ListEntry, SelectionList
from caso_mesh.model.states import AttemptState, Role, RunState

TOKEN = b"t" * 32


def replacing(
    s: Script, old: str, *, id: str = "node-new", name: str | None = None, token: bytes = TOKEN
) -> ReplaceServer:
    s.do(CreateToken(token, NOW + 10_000 * SECOND))
    new = msgspec.structs.replace(server(name or old), id=id, public_key=id.encode(), wrapped_id_key=b"new")
    local = msgspec.structs.replace(operator(f"op-{old}", Role.VIEWER), id=f"person-{id}", public_key=id.encode())
    return ReplaceServer(new, local, token, f"node-{old}", "node-alpha")


def world() -> Script:
    s = Script()
    s.admit("beta", "gamma")
    s.pool("west", "beta", "gamma")
    s.device("own", "beta")
    s.device("shared", "beta", "gamma")
    return s


def test_pools_devices_jobs_settings_and_scopes_go_over_and_the_old_identity_is_out() -> None:
    s = world()
    s.do(CreateJob(job("nightly", backup("beta", "gamma")), run_now=False, at_ns=NOW))
    s.do(SetSetting("stalled-after-s", 99.0, server="node-beta"))
    s.do(SetServerState("node-beta", "paused"))
    entries = (ListEntry("node-beta", b"srv"), ListEntry("node-gamma", b"srv"))
    s.do(PutList(SelectionList("list1", "homes", entries, "ann", NOW), "seed"))
    s.do(InviteOperator(b"d" * 32, NOW + 1000 * SECOND, OperatorGrant("anna", Role.RESTORE, ("node-beta",))))
    s.do(AdmitOperator(b"d" * 32, "person-anna", b"anna"))
    s.do(replacing(s, "beta"))
    state = s.state
    new = state.server_named("beta")
    assert (new.id, new.succeeds, new.origin, new.settings, new.set_state) == (
        "node-new", ("node-beta",), "node-beta", {"stalled-after-s": 99.0}, "paused",
    )  # fmt: skip
    assert set(state.pool_named("west").servers) == {"node-new", "node-gamma"}
    assert {path.server for name in ("own", "shared") for path in state.device_named(name).paths} == {
        "node-new", "node-gamma",
    }  # fmt: skip
    assert {each.server for each in state.job_named("nightly").spec.sources} == {"node-new", "node-gamma"}
    assert {entry.server for entry in state.lists["list1"].entries} == {"node-new", "node-gamma"}
    roster = state.roster()
    assert {row.id for row in roster.rows if row.kind == "node"} == {"node-alpha", "node-new", "node-gamma"}
    assert {"node-beta", "person-op-beta"} <= set(roster.removed)
    assert {row.id for row in roster.former} == {"node-beta"}
    anna = next(row for row in roster.rows if row.name == "anna")
    # what the old machine left behind is under its id
    assert anna.server_roles == (("node-new", Role.RESTORE), ("node-beta", Role.RESTORE))
    assert state.operator_named("op-beta").home == "node-new"
    assert state.name_of("node-beta") == "beta"


def test_runs_go_on_with_the_new_machine_and_what_ran_on_the_old_one_is_given_up() -> None:
    s = world()
    waiting = s.start("waiting", backup("beta"))
    running = s.start("running", backup("beta"))
    written = s.start("written", backup("gamma"))
    canceled = s.start("canceled", backup("gamma"))
    checked = s.start("checked", VerifySpec("set1", source="node-beta"))
    restored = s.start("restored", RestoreSpec("set1", "node-beta"))
    one = s.delegate(running, source="beta", server="gamma", device="shared")
    two = s.delegate(written, source="gamma", server="beta", device="own")
    three = s.delegate(canceled, source="gamma", server="beta", device="own")
    s.do(CancelRun(canceled, s.at_ns))
    s.do(replacing(s, "beta"))
    state = s.state
    assert [part.source for part in state.run(waiting).parts] == ["node-new"]
    assert [part.source for part in state.run(restored).parts] == ["node-new"]
    assert [part.source for part in state.run(checked).parts] == ["node-beta"]  # whose set it is
    for each, attempt in ((running, one), (written, two)):
        assert state.attempt(attempt).state is AttemptState.RECOVERED
        assert (state.run(each).state, state.run(each).parts[0].recovered) == (RunState.READY, 0)
    assert state.run(canceled).state is RunState.CANCELED
    assert state.attempt(three).state not in {AttemptState.QUEUED, AttemptState.RUNNING}
    again = s.delegate(waiting, source="new", server="gamma", device="shared")
    order = orders_for(state, "node-gamma", state.authority, "node-alpha", lambda _: (), lambda *_: b"").attempts[0]
    assert (order.attempt, order.source, order.kept_as) == (again, "node-new", "node-beta")


def test_the_same_key_gets_the_same_answer_and_the_third_machine_has_the_sets_of_the_first() -> None:
    s = world()
    command = replacing(s, "beta")
    assert s.do(command) == s.do(command) == {"server": "node-new"}
    with pytest.raises(JoinLinkUsed):
        s.do(msgspec.structs.replace(command, server=msgspec.structs.replace(command.server, id="node-other")))
    s.do(_third(s))
    third = s.state.server_named("beta")
    assert (third.succeeds, third.origin) == (("node-beta", "node-new"), "node-beta")
    assert [s.state.origin_of(each) for each in ("node-new", "node-third", "node-gamma")] == [
        "node-beta", "node-beta", "node-gamma",
    ]  # fmt: skip
    with pytest.raises(NotOnRoster):
        s.do(command)


def _third(s: Script) -> ReplaceServer:
    made = replacing(s, "beta", id="node-third", token=b"u" * 32)
    return msgspec.structs.replace(made, old="node-new")


def test_who_is_in_office_who_is_not_there_and_who_has_another_name_is_not_replaced() -> None:
    s = world()
    with pytest.raises(InUse):
        s.do(replacing(s, "alpha"))
    with pytest.raises(InvalidValue):
        s.do(replacing(s, "beta", name="delta"))
    with pytest.raises(NotFound):
        s.do(msgspec.structs.replace(replacing(s, "beta"), old="node-nobody"))
