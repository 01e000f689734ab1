"""Local jobs and copied jobs, as the administrator sees them: what it believes, shows, keeps, and leaves room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import World, admin_world, node
from admin.test_admin_placing import waits
from msgspec.structs import replace

from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.calls import BY_NAME
from caso_mesh.model.copies import Came, Outcome
from caso_mesh.model.documents import SelectionDoc
from caso_mesh.model.errors import NotFound
from caso_mesh.model.ids import attempt_id, local_id, run_now_id
from caso_mesh.model.jobs import Attempt, BackupSpec, Part, Run, SourceRoots, Target, TargetKind
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.states import AttemptState, Priority, Role, RunState, WaitReason

pytestmark = pytest.mark.jumping


def ran(w: World, server: str, number: int = 1) -> tuple[Run, Attempt]:
    """A run of a server's own that has succeeded."""
    job, now_ns = local_id("j" * 26, node(server)), w.clock.now_ns()
    spec = BackupSpec((SourceRoots(node(server), (b"srv",)),), Target(TargetKind.ANY))
    run = Run(
        run_now_id(job, number), job, "mine", spec, Priority.MEDIUM, now_ns, now_ns, "ann",
        (Part(node(server), RunState.SUCCEEDED, attempts=1, set=f"set{number}"),), RunState.SUCCEEDED, closed_at_ns=now_ns,
    )  # fmt: skip
    attempt = Attempt(
        attempt_id(run.id, 1), run.id, job, node(server), node(server), f"dev-{server}", 1, now_ns,
        AttemptState.SUCCEEDED, ended_at_ns=now_ns,
    )  # fmt: skip
    return run, attempt


async def told(w: World, server: str, number: int = 1, listed: str = "") -> Run:
    run, attempt = ran(w, server, number)
    backup = w.made_set(attempt, source=node(server), id=f"set{number}")
    started = facts.AttemptStarted(attempt.id, node(server), attempt.device)
    log = facts.JobLog(attempt.id, (facts.LogLine(w.clock.now_ns(), "info", "began"),))
    ended = w.end(attempt, AttemptState.SUCCEEDED, set=backup.id)
    await w.report(server, started, log, facts.SetPublished(backup), ended, facts.LocalRun(run, (attempt,), listed))
    return run


async def test_runs_of_a_servers_own_are_shown_with_their_attempts_and_logs_and_marked(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await told(w, "beta")
        (view,) = (await w.ask("job.list", q.JobListRequest(state="ended"))).jobs
        assert (view.run, view.state, view.local, view.server) == (run.id, "succeeded", True, "beta")
        assert (await w.ask("job.list", q.JobListRequest())).jobs == ()
        assert (await w.ask("job.list", q.JobListRequest(state="all", server="gamma"))).jobs == ()
        detail = await w.ask("job.show", q.JobName(run.job))
        assert [each.attempts[0].set for each in detail.runs] == ["set1"]
        assert (await w.ask("job.show", q.JobName("mine"))).job == run.job, "by the name that is listed, too"
        assert (await w.ask("job.log", q.JobLogRequest(f"{run.id}#1"))).attempts[0].lines[0].text == "began"
        assert w.facts.audits("journal.push") == []


async def test_a_server_tells_of_its_own_runs_only_whatever_ids_it_makes_up(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run, attempt = ran(w, "gamma")
        own, mine = ran(w, "beta")
        lies: list[Any] = [
            facts.LocalRun(run, (attempt,)),
            facts.LocalRun(own, (replace(mine, server=node("gamma")),)),
            facts.LocalRun(replace(own, id="j@1", job="j"), ()),
            facts.AttemptStarted(attempt.id, node("beta"), "dev-beta"),
            facts.JobLog(attempt.id, (facts.LogLine(1, "error", "all is lost"),)),
            facts.SetPublished(w.made_set(attempt, source=node("beta"), server=node("beta"))),
            facts.RunWaits(run.id, node("beta"), WaitReason.ON_HOLD, 1),
        ]
        await w.report("beta", *lies)
        assert w.facts.audits("journal.push")[-1].fields["count"] == len(lies)
        assert (await w.ask("job.list", q.JobListRequest(state="all"))).jobs == ()
        assert await w.tables.sets() == []


async def test_an_operator_of_one_server_sees_what_that_one_runs_by_itself(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        runs = {name: await told(w, name) for name in ("beta", "gamma")}
        person = Peer("p2", "bob", "operator", server_roles=((node("beta"), Role.VIEWER),))
        shown = (await w.ask("job.list", q.JobListRequest(state="all"), person=person)).jobs
        assert [each.run for each in shown] == [runs["beta"].id]
        for name, run in runs.items():
            concerned = await w.office.concerned(BY_NAME["job.show"], q.JobName(run.id))
            assert concerned == {node(name)}


async def test_runs_of_servers_own_are_kept_as_long_as_others_and_so_many_of_each(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("settings.set", q.SettingSet("runs-kept", "10"))
        for number in range(1, 13):
            await told(w, "beta", number)
            w.clock.wall_offset_s += 60
        await w.office.runs.pruning.prune()
        listed = (await w.ask("job.list", q.JobListRequest(state="all"))).jobs
        assert [each.run.rpartition("@")[2] for each in listed] == [str(number) for number in range(12, 2, -1)]
        # the pass before forgot these runs; this one forgets what was told of their attempts
        await w.office.runs.pruning.prune()
        assert len(await w.tables.runs_told()) == 10
        w.clock.wall_offset_s += 181 * 86400
        await w.office.runs.pruning.prune()
        assert (await w.ask("job.list", q.JobListRequest(state="all"))).jobs == ()


async def test_why_tells_of_what_a_server_ran_by_itself_by_run_server_and_list(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        listed = await w.ask("selection.create", q.SelectionCreate("home", SelectionDoc(paths=("beta:/srv",))))
        run = await told(w, "beta", 1, listed.id)
        await told(w, "gamma", 2)
        for name in (run.id, "server:beta", "beta", "home", "list:home"):
            story = await w.ask("why", q.Why(name))
            assert [each.run for each in story.runs] == [run.id], name
            assert any("set1" in line.text or line.set == "set1" for line in story.lines), story.lines
        with pytest.raises(NotFound):
            await w.ask("why", q.Why(f"{run.job}@7"))


async def test_why_finds_what_a_server_ran_by_itself_by_the_name_of_its_job(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        runs = {(await told(w, "beta", number)).id for number in (1, 2)}
        for name in ("mine", "job:mine"):
            story = await w.ask("why", q.Why(name))
            assert (story.kind, story.about, {each.run for each in story.runs}) == ("job", "mine", runs)
        for name in ("list:mine", "yours"):
            with pytest.raises(NotFound):
                await w.ask("why", q.Why(name))


async def test_what_a_copied_job_backed_up_counts_for_the_oldest_good_backup_of_its_list(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        listed = SelectionDoc(paths=("beta:/srv",), oldest_good="26h")
        row = await w.ask("selection.create", q.SelectionCreate("home", listed))
        w.clock.wall_offset_s += 86400
        await told(w, "beta", 1, row.id)
        w.clock.wall_offset_s += 20 * 3600
        await w.office.alerts.ageing._look()
        assert w.facts.alerts("backup-overdue") == []
        w.clock.wall_offset_s += 7 * 3600
        await w.office.alerts.ageing._look()
        (alert,) = w.facts.alerts("backup-overdue")
        assert "ended at" in alert.text


async def test_what_a_server_runs_by_itself_holds_slots_of_its_devices(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        device = next(each for each in w.state.device_list() if each.name == "dbeta")
        w.own_work[node("beta")] = (n.DeviceLoad(device.id, device.concurrency),)
        await w.heartbeat(node("beta"))
        run = await w.backup(to="device:dbeta")
        view = await waits(w, run, "no-idle-device")
        assert view.reason_fields["devices"] == ["dbeta"]
        w.own_work.clear()
        assert (await w.delegated(run)).server == node("beta")


async def test_only_the_server_it_was_for_tells_what_came_of_a_copy_and_it_counts_once(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("error-rule.create", q.ErrorRuleCreate(_rule()))
        copied = (await w.ask("copy.to", q.CopyTo("server:beta", error_rules=True))).copies[0]
        orders = w.office.servers.ordering.orders_of(node("beta"))
        assert [each.id for each in orders.copies] == [copied.id]
        made = facts.CopyTaken(copied.id, (Outcome("error-rule", "again", Came.MADE),))
        await w.report("gamma", made)
        assert w.office.servers.ordering.orders_of(node("beta")).copies != ()
        await w.report("beta", made, facts.CopyTaken(copied.id, ()))
        (view,) = (await w.ask("copy.list", q.CopyListRequest())).copies
        assert (view.state, [each.came for each in view.outcomes]) == ("taken", ["made"])
        assert w.office.servers.ordering.orders_of(node("beta")).copies == ()


def _rule() -> ErrorRule:
    return ErrorRule("again", ("device-full",), 1, 60.0)


async def test_a_call_to_copy_that_is_repeated_copies_once(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("error-rule.create", q.ErrorRuleCreate(_rule()))
        first = await w.ask("copy.to", q.CopyTo("pool:p", error_rules=True), id="same")
        again = await w.ask("copy.to", q.CopyTo("pool:p", error_rules=True), id="same")
        assert [each.id for each in first.copies] == [each.id for each in again.copies]
        assert len((await w.ask("copy.list", q.CopyListRequest())).copies) == len(first.copies) > 1
        with pytest.raises(NotFound):
            await w.ask("copy.to", q.CopyTo("server:nobody", error_rules=True))


async def test_settings_of_the_mesh_are_copied_to_all_servers_of_a_pool_and_are_theirs_from_then_on(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("settings.set", q.SettingSet("server-concurrency", "3"))
        members = len(w.state.servers_of_pool("p"))
        copied = await w.ask("copy.to", q.CopyTo("pool:p", settings=True))
        assert (copied.copies, copied.settings) == ((), members)
        await w.ask("settings.set", q.SettingSet("server-concurrency", "9"))
        for server in w.state.servers_of_pool("p"):
            assert w.state.settings_with_origin(server.id)["server-concurrency"] == (3.0, "server")
