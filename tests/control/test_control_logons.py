"""Logon information in the control state: who may use it, who has a copy, what names it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from control_world import NOW, Script, backup, job, operator, server

from caso_mesh.control.documents import JobDoc, job_doc, job_of, selection_doc, selection_of
from caso_mesh.control.orders import orders_for
from caso_mesh.control.placing import problem_for
from caso_mesh.control.state import ControlState
from caso_mesh.model import jobs
from caso_mesh.model.commands import (
    Associate,
    Batch,
    CreateJob,
    CreateToken,
    DeleteLogon,
    DeletePool,
    GrantLogon,
    PutList,
    PutLogon,
    PutPolicy,
    RemoveServer,
    ReplaceServer,
    SetPool,
)
from caso_mesh.model.documents import EntryDoc, SelectionDoc
from caso_mesh.model.errors import (
    AlreadyExists,
    Conflict,
    InUse,
    InvalidName,
    InvalidPolicy,
    InvalidValue,
    LogonNotPermitted,
    NotFound,
    UsageError,
)
from caso_mesh.model.features import level_of, level_of_work
from caso_mesh.model.host_commands import dump_path
from caso_mesh.model.jobs import (
    CronSchedule,
    DuplicateSpec,
    RestoreSpec,
    SourceRoots,
    Target,
    TargetKind,
)
from caso_mesh.model.logons import Logon, LogonOrder
from caso_mesh.model.mesh import Pool
from caso_mesh.model.orders import Authority
from caso_mesh.model.policies import ListEntry, Policy, SelectionList, Template, TemplateType
from caso_mesh.model.states import WaitReason
from caso_mesh.planning.placement import place

ANY = Target(TargetKind.ANY)


def logon(name: str = "db", servers: tuple[str, ...] = (), pools: tuple[str, ...] = (), **more: Any) -> Logon:
    """With a copy for each of ``copies`` (names of servers)."""
    copies = {f"node-{each}": f"sealed to {each}".encode() for each in more.pop("copies", ())}
    fields = {"user": "backup", "version": "v1", "revision": 0, "changed_by": "", "changed_at_ns": 0, **more}
    return Logon(name, servers=tuple(f"node-{each}" for each in servers), pools=pools, copies=copies, **fields)


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma", "delta")
    script.pool("dbs", "beta", "gamma")
    script.device("disk-b", "beta")
    return script


def orders(mesh: Script, name: str) -> tuple[LogonOrder, ...]:
    at = Authority(1, 2, 30)
    return orders_for(
        mesh.state, f"node-{name}", at, "node-alpha", avoid=lambda _: (), ticket=lambda attempt, run: b""
    ).logons


def has(mesh: Script, name: str = "db") -> set[str]:
    return {mesh.state.name_of(node) for node in mesh.state.logon_named(name).copies}


# --- who may use it, and who has it ---


def test_logon_information_is_wrapped_to_the_servers_that_use_it_and_only_those_are_told_of_it(mesh):
    mesh.do(PutLogon(logon(servers=("delta",), pools=("dbs",), copies=("beta", "delta")), 0))
    assert orders(mesh, "beta") == (LogonOrder("db", "backup", "v1", b"sealed to beta"),)
    assert orders(mesh, "gamma") == (LogonOrder("db", "backup", "v1", b""),)
    assert orders(mesh, "alpha") == ()
    row = mesh.state.logon_named("db")
    assert (row.revision, row.changed_by, row.changed_at_ns) == (1, "ann", mesh.at_ns)


def test_a_copy_is_kept_for_who_may_use_it_and_of_the_secret_that_holds_only(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",), copies=("beta", "delta")), 0))
    assert has(mesh) == {"beta"}
    version = mesh.state.orders_version("node-gamma")
    mesh.do(GrantLogon("db", "v1", {"node-gamma": b"g", "node-delta": b"d", "node-nobody": b"n"}))
    assert has(mesh) == {"beta", "gamma"}
    assert mesh.state.orders_version("node-gamma") != version
    mesh.do(GrantLogon("db", "an older one", {"node-beta": b"old"}))
    mesh.do(GrantLogon("absent", "v1", {"node-beta": b"x"}))
    assert mesh.state.logon_named("db").copies == {"node-beta": b"sealed to beta", "node-gamma": b"g"}


def test_another_secret_makes_all_copies_of_the_old_one_useless_and_another_user_none(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",), copies=("beta", "gamma")), 0))
    mesh.do(PutLogon(logon(pools=("dbs",), user="other"), 1))
    assert has(mesh) == {"beta", "gamma"} and mesh.state.logon_named("db").user == "other"
    mesh.do(PutLogon(logon(pools=("dbs",), version="v2", copies=("gamma",)), 2))
    assert has(mesh) == {"gamma"}
    assert orders(mesh, "beta") == (LogonOrder("db", "backup", "v2", b""),)


def test_a_person_does_not_take_the_secret_from_the_last_server_that_has_it(mesh):
    mesh.do(PutLogon(logon(servers=("beta",), copies=("beta",)), 0))
    with pytest.raises(Conflict, match="which beta has"):
        mesh.do(PutLogon(logon(servers=("gamma",)), 1))
    assert has(mesh) == {"beta"}
    mesh.do(PutLogon(logon(servers=("gamma",), version="v2", copies=("gamma",)), 1))
    assert has(mesh) == {"gamma"}


def test_a_server_that_joins_the_pool_may_use_it_and_one_that_leaves_loses_its_copy(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",), copies=("beta", "gamma")), 0))
    mesh.do(SetPool(Pool("dbs", ("node-gamma", "node-delta"))))
    assert has(mesh) == {"gamma"}
    assert [each.name for each in orders(mesh, "delta")] == ["db"] and orders(mesh, "beta") == ()
    mesh.do(Batch((SetPool(Pool("dbs", ("node-delta",))),), "seed"))
    assert has(mesh) == set()
    mesh.do(DeletePool("dbs"))
    assert mesh.state.logon_named("db").pools == () and orders(mesh, "delta") == ()


def test_a_removed_server_loses_its_copy_and_a_machine_in_its_place_may_use_it_and_has_none_yet(mesh):
    mesh.do(PutLogon(logon(servers=("delta",), pools=("dbs",), copies=("beta", "gamma", "delta")), 0))
    mesh.do(RemoveServer("node-delta"))
    assert has(mesh) == {"beta", "gamma"} and mesh.state.logon_named("db").servers == ()
    mesh.do(PutLogon(logon(servers=("beta",)), 1))
    token = bytes(32)
    mesh.do(CreateToken(token, NOW * 2))
    new = msgspec.structs.replace(server("beta"), id="node-new", public_key=b"new")
    mesh.do(ReplaceServer(new, operator("op-new"), token, "node-beta", "node-alpha"))
    row = mesh.state.logon_named("db")
    assert row.servers == ("node-new",) and row.copies == {}
    assert [each.name for each in orders(mesh, "new")] == ["db"]


def test_logons_lie_in_snapshots_and_an_older_state_has_none(mesh):
    mesh.do(PutLogon(logon(servers=("delta",), copies=("delta",)), 0))
    other = ControlState()
    other.restore(mesh.state.snapshot())
    assert other.logons == mesh.state.logons


def test_logons_and_work_that_names_one_wait_until_every_voter_understands_them():
    restore = RestoreSpec("set", "node-beta", (dump_path("pg"),), into_command="take")
    for spec, level in (
        (backup("beta"), 1),
        (with_dump("db"), 2),
        (jobs.TestRunSpec(with_dump("db")), 2),
        (msgspec.structs.replace(backup("beta"), pre="stop", logon="db"), 2),
        (restore, 1),
        (msgspec.structs.replace(restore, logon="db"), 2),
        (DuplicateSpec(("node-beta",), ANY), 1),
    ):
        assert level_of_work(spec) == level_of(CreateJob(job("j", spec), run_now=True, at_ns=NOW)) == level
    for command in (PutLogon(logon(), 0), GrantLogon("db", "v1", {}), DeleteLogon("db")):
        assert level_of(Batch((command,), "seed")) == 2


@pytest.mark.parametrize(
    ("row", "revision", "error"),
    [
        (logon(), 0, UsageError),
        (logon("Not a name", ("beta",)), 0, InvalidName),
        (logon(servers=("nobody",)), 0, NotFound),
        (logon(pools=("nowhere",)), 0, NotFound),
        (logon(servers=("beta",), user=""), 0, InvalidValue),
        (logon(servers=("beta",), user="a\nb"), 0, InvalidValue),
        (logon(servers=("beta",), user="x" * 257), 0, InvalidValue),
        (logon("there", ("beta",)), 0, AlreadyExists),
        (logon("absent", ("beta",)), 1, NotFound),
        (logon("there", ("beta",)), 7, Conflict),
    ],
)
def test_a_logon_that_makes_no_sense_is_refused_and_changes_nothing(mesh, row, revision, error):
    mesh.do(PutLogon(logon("there", ("beta",)), 0))
    before = dict(mesh.state.logons)
    with pytest.raises(error):
        mesh.do(PutLogon(row, revision))
    assert mesh.state.logons == before


# --- what names it ---


def dumps(*pairs: tuple[str, str | None], name: str = "L") -> SelectionList:
    entries = tuple(ListEntry(f"node-{server}", dump_path("pg"), logon=given) for server, given in pairs)
    return SelectionList(f"id-{name}", name.lower(), entries, "ann", NOW)


def test_a_list_gives_each_of_its_dumps_the_logon_of_its_entry_and_a_template_its_commands_another(mesh):
    mesh.do(PutLogon(logon("db-b", ("beta",)), 0))
    mesh.do(PutLogon(logon("db-g", ("gamma",)), 0))
    mesh.do(PutLogon(logon("stop", pools=("dbs",)), 0))
    mesh.do(PutList(dumps(("beta", "db-b"), ("gamma", "db-g")), "seed"))
    template = Template("full", TemplateType.FULL, ANY, pre="stop-app", logon="stop")
    mesh.do(PutPolicy(Policy("p", "p", (template,), (), "ann", NOW), "seed"))
    mesh.do(Associate("p", "id-L", "seed"))
    (made,) = mesh.state.job_list()
    assert [source.logons for source in made.spec.sources] == [(("pg", "db-b"),), (("pg", "db-g"),)]
    assert (made.spec.pre, made.spec.logon) == ("stop-app", "stop")
    for name in ("db-b", "db-g", "stop"):
        with pytest.raises(InUse):
            mesh.do(DeleteLogon(name))


def test_a_document_of_a_list_says_the_logon_of_an_entry_and_comes_back_the_same(mesh):
    mesh.do(PutLogon(logon("db-b", ("beta",)), 0))
    doc = SelectionDoc(paths=("beta:/srv",), entries=(EntryDoc("beta:@pg", logon="db-b"),))
    row = selection_of(mesh.state, dumps(), doc)
    assert selection_doc(mesh.state, row) == doc
    mesh.do(PutList(row, "seed"))


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (dumps(("beta", "absent")), NotFound),
        (dumps(("delta", "db")), LogonNotPermitted),
        (SelectionList("l", "l", (ListEntry("node-beta", b"srv", logon="db"),), "ann", NOW), UsageError),
    ],
)
def test_a_list_cannot_name_a_logon_that_is_not_there_or_not_for_its_server_or_for_files(mesh, row, error):
    mesh.do(PutLogon(logon(pools=("dbs",)), 0))
    with pytest.raises(error):
        mesh.do(PutList(row, "seed"))
    assert mesh.state.lists == {}


def test_a_list_can_be_edited_although_a_server_of_it_has_lost_the_right_meanwhile(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",)), 0))
    row = dumps(("beta", "db"))
    mesh.do(PutList(row, "seed"))
    mesh.do(SetPool(Pool("dbs", ("node-gamma",))))
    mesh.do(PutList(msgspec.structs.replace(row, name="other"), "seed"))
    with pytest.raises(LogonNotPermitted):
        mesh.do(PutList(dumps(("beta", "db"), ("delta", "db")), "seed"))


def test_a_template_has_a_logon_for_its_commands_only(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",)), 0))
    for template, error in (
        (Template("full", TemplateType.FULL, ANY, logon="db"), InvalidPolicy),
        (Template("full", TemplateType.FULL, ANY, post="x", logon="absent"), NotFound),
    ):
        with pytest.raises(error):
            mesh.do(PutPolicy(Policy("p", "p", (template,), (), "ann", NOW), "seed"))


def with_dump(given: str) -> Any:
    source = SourceRoots("node-beta", (dump_path("pg"),), logons=(("pg", given),))
    return msgspec.structs.replace(backup("beta"), sources=(source,))


def test_a_logon_that_a_recurring_job_or_an_open_run_names_cannot_be_deleted(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",)), 0))
    mesh.do(CreateJob(job("r", with_dump("db"), schedule=CronSchedule("0 2 * * *", "UTC")), run_now=False, at_ns=NOW))
    run = mesh.start("now", RestoreSpec("set", "node-gamma", (dump_path("pg"),), into_command="take", logon="db"))
    with pytest.raises(InUse) as refused:
        mesh.do(DeleteLogon("db"))
    assert refused.value.fields["by"] == ["r", run]
    with pytest.raises(LogonNotPermitted):
        mesh.start("no", RestoreSpec("set", "node-delta", (dump_path("pg"),), into_command="take", logon="db"))


def test_a_logon_that_nothing_names_is_deleted_with_its_copies(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",), copies=("beta",)), 0))
    mesh.do(DeleteLogon("db"))
    assert mesh.state.logons == {} and orders(mesh, "beta") == ()
    with pytest.raises(NotFound):
        mesh.do(DeleteLogon("db"))


def test_the_document_of_a_job_gives_all_of_its_commands_one_logon(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",)), 0))
    doc = JobDoc(("beta:@pg", "beta:/srv"), "any", "daily 02:00", pre="stop", logon="db")
    spec, schedule, _ = job_of(mesh.state, doc)
    assert (spec.logon, spec.sources[0].logons) == ("db", (("pg", "db"),))
    assert job_doc(mesh.state, job("j", spec, schedule=schedule)).logon == "db"
    with pytest.raises(UsageError):
        job_of(mesh.state, JobDoc(("beta:/srv",), "any", "daily 02:00", logon="db"))


def test_a_run_waits_with_the_reason_no_logon_until_its_source_has_a_copy(mesh):
    mesh.do(PutLogon(logon(pools=("dbs",), copies=("gamma",)), 0))
    run = mesh.start("now", with_dump("db"))

    def plan() -> Any:
        seen = {"connected": {"node-beta", "node-alpha"}, "device_of_set": lambda _: None, "now_ns": mesh.at_ns}
        return place(problem_for(mesh.state, **seen), mesh.at_ns)

    waiting = plan().waiting[run, "node-beta"]
    assert waiting.reason is WaitReason.NO_LOGON and waiting.fields == {"source": "beta", "logon": "db"}
    mesh.do(GrantLogon("db", "v1", {"node-beta": b"sealed"}))
    assert [each.run for each in plan().assignments] == [run]
