"""What the administrator believes of what servers report."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import KEYS, admin_world, name_of, node
from admin.test_admin_rebuilding import segment

from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model.errors import JournalGap, Unavailable
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AlertKind, AttemptState, RunState
from caso_mesh.model.storage import Medium

pytestmark = pytest.mark.jumping


async def test_a_success_closes_its_run_once_however_often_it_is_pushed(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        attempt = await w.delegated(run)
        records = w.records(name_of(attempt), *w.success(attempt))
        first = await w.push(name_of(attempt), records)
        index = w.keeper.position.index
        assert await w.push(name_of(attempt), records) == first
        assert await w.push(name_of(attempt), records[1:]) == first
        assert w.state.run(run).state is RunState.SUCCEEDED
        assert len(await w.tables.sets()) == 1
        assert w.keeper.position.index == index


async def test_facts_that_come_out_of_order_close_nothing(tmp_path: Path) -> None:
    """The command once went ahead of the check of the chain: a gap closed attempts by facts nobody held."""
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        attempt = await w.delegated(run)
        records = w.records(name_of(attempt), *w.success(attempt))
        with pytest.raises(JournalGap):
            await w.push(name_of(attempt), records[1:])
        assert w.state.run(run).closed_at_ns is None
        await w.push(name_of(attempt), records)
        assert w.state.run(run).state is RunState.SUCCEEDED


async def test_a_crash_between_the_command_and_the_tables_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        attempt = await w.delegated(run)
        records = w.records(name_of(attempt), *w.success(attempt))
        accept, w.tables.accept = w.tables.accept, _dies  # type: ignore[method-assign]
        with pytest.raises(ConnectionError):
            await w.push(name_of(attempt), records)
        w.tables.accept = accept  # type: ignore[method-assign]
        assert w.state.run(run).state is RunState.SUCCEEDED
        assert (await w.ask("run.follow", q.RunFollow(run))).result is None
        await w.another_office()
        await w.push(name_of(attempt), records)
        result = (await w.ask("run.follow", q.RunFollow(run))).result
        assert (result.state, result.files, len(await w.tables.sets())) == ("succeeded", 3, 1)


async def _dies(*args: object) -> None:
    raise ConnectionError


async def test_another_server_cannot_close_an_attempt_nor_write_its_log(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        line = facts.LogLine(w.clock.now_ns(), "error", "all is lost")
        await w.report(
            "gamma",
            facts.AttemptStarted(attempt.id, "node-gamma", "dev-gamma"),
            facts.JobLog(attempt.id, (line,)),
            w.end(attempt, AttemptState.FAILED, failure=Failure("device-full", {"device": "d"})),
        )
        assert w.state.run(run).closed_at_ns is None
        assert (await w.ask("job.log", q.JobLogRequest(run))).attempts == ()
        assert (await w.ask("job.list", q.JobListRequest())).jobs[0].state == "delegated"
        refusal = w.facts.audits("journal.push")[-1]
        assert (refusal.outcome, refusal.fields["count"]) == ("refused", 3)
        await w.report("beta", *w.success(attempt))
        assert (await w.ask("run.follow", q.RunFollow(run))).result.state == "succeeded"


async def test_the_other_end_may_say_that_it_failed_but_never_that_it_succeeded(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(source="gamma", to="device:dbeta")
        attempt = await w.delegated(run)
        await w.report("gamma", *w.success(attempt))
        assert w.state.run(run).closed_at_ns is None
        gone = Failure("source-path-missing", {"server": "gamma", "path": "/srv"})
        await w.report("gamma", w.end(attempt, AttemptState.FAILED, failure=gone))
        result = (await w.ask("run.follow", q.RunFollow(run))).result
        assert (result.state, result.error["code"]) == ("failed", "source-path-missing")


@pytest.mark.parametrize(
    "lie",
    [
        {"source": "node-gamma"},
        {"server": "node-gamma"},
        {"device": "dev-gamma"},
        {"attempt": "x@1#1"},
        {"job": "other"},
    ],
)
async def test_a_set_that_is_not_the_servers_own_is_not_listed_and_makes_no_success(
    tmp_path: Path, lie: dict[str, str]
) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        await w.report("beta", *w.success(attempt, w.made_set(attempt, **lie)))
        assert await w.tables.sets() == []
        assert w.state.run(run).state is RunState.FAILED


async def test_a_set_cannot_be_replaced_by_another_of_the_same_id(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        first = await w.delegated(await w.backup(to="device:dbeta"))
        true = w.made_set(first)
        await w.report("beta", *w.success(first, true))
        second = await w.delegated(await w.backup(to="device:dgamma"))
        await w.report("gamma", *w.success(second, w.made_set(second, id=true.id)))
        assert await w.tables.set(true.id) == true
        assert w.state.run(second.run).state is RunState.FAILED


async def test_the_catalog_of_a_set_comes_from_who_made_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        await w.report("beta", facts.SetPublished(backup))
        await w.report("gamma", facts.CatalogDetail(backup.id, b"d" * 32, 100))
        assert await w.tables.pending_details() == []


async def test_a_set_id_that_is_a_path_is_refused(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt, id="../../outside")
        await w.report("beta", *w.success(attempt, backup), facts.CatalogDetail(backup.id, b"d" * 32, 1))
        assert await w.tables.sets() == []
        assert await w.tables.pending_details() == []
        assert w.state.run(attempt.run).state is RunState.FAILED


@pytest.mark.parametrize("found_first", [True, False])
async def test_what_a_server_has_of_a_catalog_counts_whether_or_not_its_set_was_found_before(
    tmp_path: Path, found_first: bool
) -> None:
    """An inventory found a set before its server had told of it: the catalog that the server had was passed over, and two
    voters held different tables of the same journals."""
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        w.reporters["alpha"] = w.facts._reporter
        told = facts.SetPublished(backup), facts.CatalogDetail(backup.id, b"d" * 32, 100)
        if not found_first:
            await w.report("beta", *told)
        await w.report("alpha", facts.SetFound(backup, node("gamma")))
        if found_first:
            await w.report("beta", *told)
        (row,) = await w.tables._rows("SELECT set_id, digest, size FROM catalog_detail")
        assert row == (backup.id, b"d" * 32, 100)


@pytest.mark.parametrize("deleted_first", [True, False])
async def test_a_set_that_is_deleted_while_it_is_found_is_gone_in_whichever_order_that_is_told(
    tmp_path: Path, deleted_first: bool
) -> None:
    """Found by the mesh simulator: an inventory had listed it, then it was deleted; some voters still had it."""
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        w.reporters["alpha"] = w.facts._reporter
        told = [
            ("alpha", facts.SetFound(backup, node("beta"), unless_gone=True)),
            ("beta", facts.SetDeleted(backup.id, "dev-beta", "me")),
        ]
        for server, fact in reversed(told) if deleted_first else told:
            await w.report(server, fact)
        assert await w.tables.sets() == []
        await w.report("alpha", facts.SetFound(backup, node("beta")))
        assert await w.tables.sets() == [backup]  # the disk was put back


async def test_media_and_alerts_of_others_stay_as_they_are(tmp_path: Path) -> None:
    """A new server of an old name begins its labels at 1 again: it once replaced the media of its predecessor."""
    async with admin_world(tmp_path) as w:
        now = w.clock.now_ns()
        mine = Medium("BETA-000001", "dev-beta", "keep-4-weeks", node("beta"), now, now, None, bytes=7)
        await w.report("beta", facts.MediumChanged(mine), facts.AlertRaised("a1", AlertKind.ERROR, "c", "text"))
        same_label = Medium("BETA-000001", "dev-gamma", "keep-4-weeks", node("gamma"), now, now, None)
        forged = Medium("BETA-000001", "dev-beta", "keep-4-weeks", node("beta"), now, now, None)
        await w.report("gamma", facts.MediumChanged(same_label), facts.MediumChanged(forged), facts.AlertCleared("a1"))
        assert mine in await w.tables.media()
        assert [row.cleared_at_ns for row in await w.tables.alerts() if row.id == "a1"] == [None]


async def test_only_a_voter_tells_of_sets_that_it_had_looked_for(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        await w.report("gamma", facts.SetFound(backup, node("gamma")), facts.SetDeleted(backup.id, "dev-beta", "me"))
        assert await w.tables.sets() == []
        assert w.facts.audits("journal.push")[-1].fields["count"] == 2
        w.reporters["alpha"] = w.facts._reporter
        await w.report("alpha", facts.SetFound(backup, node("beta")))
        assert await w.tables.sets() == [backup]


async def test_facts_that_their_server_has_pruned_and_no_voter_holds_are_lost_and_said_to_be(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        told = w.records("beta", *(facts.ServerStarted(str(number)) for number in range(10)))
        await w.push("beta", told[:2])
        with pytest.raises(JournalGap):
            await w.push("beta", told[6:])
        head = t.JournalHead(told[5].incarnation, 6, told[5].hash)
        reply = await w.node_call(node("beta"), "journal.push", t.JournalPush((), (head,)))
        assert [each.seq for each in reply.cursors] == [6]
        assert (await w.push("beta", told[6:])).cursors[0].seq == 10
        (audit,) = w.facts.audits("journal.skip")
        assert (audit.outcome, audit.fields["missing"]) == ("lost", 4)


async def test_what_cannot_be_understood_is_kept_and_stops_nothing_behind_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        line = facts.LogLine((1 << 64) - 1, "info", "from the far future")
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        await w.report("beta", facts.JobLog(attempt.id, (line,)), *w.success(attempt))
        assert w.state.run(run).state is RunState.SUCCEEDED
        assert w.facts.audits("journal.push")[-1].outcome == "refused"


async def test_a_wrong_clock_over_there_does_not_date_the_end_of_a_run(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        records = w.reporters.setdefault("beta", _reporter("beta")).records((1 << 62), *w.success(attempt))
        await w.push("beta", records)
        assert w.state.run(run).closed_at_ns <= w.clock.now_ns()


def _reporter(name: str):
    from admin.admin_world import Reporter

    return Reporter(node(name))


async def test_a_late_success_is_kept_listed_and_marked(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        first = await w.delegated(run)
        await w.report(name_of(first), facts.AttemptStarted(first.id, first.server, first.device))
        w.silent.add(first.server)
        w.links.down(first.server)
        second = await w.delegated(run, 2, seconds=3000)
        assert second.server != first.server
        await w.report(name_of(second), *w.success(second))
        await w.report(name_of(first), *w.success(first)[1:])
        sets = (await w.ask("set.list", q.SetListRequest())).sets
        assert sorted(each.redundant for each in sets) == [False, True]
        assert w.state.run(run).state is RunState.SUCCEEDED
        await w.another_office()
        await w.until(lambda: w.office.means.live.redundant)
        assert sum(each.redundant for each in (await w.ask("set.list", q.SetListRequest())).sets) == 1


async def test_two_servers_that_cannot_reach_each_other_are_a_reason_to_wait_not_a_failure(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(source="alpha", to="device:dbeta")
        attempt = await w.delegated(run)
        cut = Failure("no-data-path", {"source": "alpha", "server": "beta"})
        await w.report("beta", w.end(attempt, AttemptState.FAILED, failure=cut))

        def waits() -> bool:
            return any(each.reason.value == "no-data-path" for each in w.office.means.live.waiting.values())

        await w.until(waits)
        assert w.state.run(run).closed_at_ns is None
        assert KEYS.id == w.state.run(run).parts[0].source
        await w.delegated(run, 2, seconds=700)


async def test_servers_that_could_not_reach_each_other_are_tried_again_when_one_of_them_is_linked_anew(
    tmp_path: Path,
) -> None:
    """A network that was repaired kept its runs waiting for ten minutes more."""
    async with admin_world(tmp_path) as w:
        run = await w.backup(source="alpha", to="device:dbeta")
        attempt = await w.delegated(run)
        cut = Failure("no-data-path", {"source": "alpha", "server": "beta"})
        await w.report("beta", w.end(attempt, AttemptState.FAILED, failure=cut))
        await w.until(lambda: any(each.reason.value == "no-data-path" for each in w.office.means.live.waiting.values()))
        w.links.up(node("gamma"), "gamma")
        await asyncio.sleep(60.0)
        assert f"{run}#2" not in w.state.attempts, "another server"
        w.links.down(node("beta"))
        w.links.up(node("beta"), "beta")
        await w.delegated(run, 2, seconds=60)


@pytest.mark.parametrize(("source_is_there", "end"), [(False, None), (True, RunState.FAILED)])
async def test_a_media_server_that_gives_up_a_source_fails_the_run_only_if_that_is_there(
    tmp_path: Path, source_is_there: bool, end: RunState | None
) -> None:
    """By the settings as they are it waits a quarter of an hour for the other end, and a server that is silent is given up
    five minutes later: a source that lost power failed its run, which was to wait for it. Found by a day in the simulator."""
    async with admin_world(tmp_path) as w:
        run = await w.backup(source="beta", to="device:dgamma")
        attempt = await w.delegated(run)
        if not source_is_there:
            w.links.down(node("beta"))
        lost = Failure("link-lost", {"peer": "beta"})
        await w.report("gamma", w.end(attempt, AttemptState.FAILED, failure=lost))
        found = w.state.run(run)
        assert (found.state if found.closed_at_ns is not None else None) == end


async def test_a_catalog_that_does_not_fit_waits_with_an_alert_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little room in the state folder the intake tried again without a pause, a thousand times a second, and
    ``--wait`` waited for a catalog that could not come."""
    async with admin_world(tmp_path) as w:
        usage = shutil.disk_usage(tmp_path)
        asked = 0

        def little(path: object) -> Any:
            nonlocal asked
            asked += 1
            return usage._replace(total=64 << 20, free=7 << 20)

        monkeypatch.setattr(shutil, "disk_usage", little)
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        backup = w.made_set(attempt)
        whole = segment(backup)
        w.links.get(node("beta")).answers["catalog.read"] = lambda request: n.CatalogPiece(
            whole[request.offset : request.offset + request.length], len(whole)
        )
        digest = hashlib.sha256(whole).digest()
        await w.report("beta", *w.success(attempt, backup), facts.CatalogDetail(backup.id, digest, len(whole)))
        await asyncio.sleep(20)
        assert 1 < asked < 6
        assert len(w.facts.alerts("state-full")) == 1
        told = await w.ask("run.follow", q.RunFollow(run))
        assert told.result is not None, "it waits for what cannot come"
        assert told.result.state == "succeeded"
        assert any("does not fit" in warning for warning in told.result.warnings)
        monkeypatch.undo()
        await asyncio.sleep(60)
        assert await w.tables.pending_details() == []
        assert [fact for fact in w.facts.all if isinstance(fact, facts.AlertCleared)]


async def test_a_catalog_that_cannot_be_had_is_asked_for_less_and_less_and_at_once_when_its_server_returns(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        whole, asked = segment(backup), list[float]()

        def busy(request: n.CatalogRead) -> n.CatalogPiece:
            asked.append(w.clock.monotonic_s())
            raise Unavailable(what="the catalog")

        answers = w.links.get(node("beta")).answers
        answers["catalog.read"] = busy
        digest = hashlib.sha256(whole).digest()
        await w.report("beta", *w.success(attempt, backup), facts.CatalogDetail(backup.id, digest, len(whole)))
        await asyncio.sleep(600)
        gaps = [after - before for before, after in itertools.pairwise(asked)]
        assert 10 < len(asked) < 25, "every two seconds it were 300"
        assert gaps[0] < 5 and all(gap > 25 for gap in gaps[6:]) and max(gaps) < 65
        count = len(asked)
        w.links.down(node("beta"))
        await asyncio.sleep(300)
        assert len(asked) == count, "nobody is asked who is away"
        w.links.up(node("beta"), "beta").answers["catalog.read"] = lambda request: n.CatalogPiece(
            whole[request.offset : request.offset + request.length], len(whole)
        )
        await asyncio.sleep(1)
        assert await w.tables.pending_details() == []


async def test_that_catalogs_wait_for_room_is_over_when_none_waits_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alert stood for ever when the set was deleted meanwhile."""
    async with admin_world(tmp_path) as w:
        full = shutil.disk_usage(tmp_path)._replace(total=64 << 20, free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup), facts.CatalogDetail(backup.id, b"d" * 32, 100))
        await asyncio.sleep(10)
        (alert,) = w.facts.alerts("state-full")
        assert not any(isinstance(fact, facts.AlertCleared) for fact in w.facts.all)
        await w.report("beta", facts.SetDeleted(backup.id, backup.device, "ann"))
        await asyncio.sleep(90)
        (over,) = [fact for fact in w.facts.all if isinstance(fact, facts.AlertCleared)]
        assert over.id == alert.id


async def test_a_catalog_that_was_lost_is_noticed_and_fetched_again(tmp_path: Path) -> None:
    """``find`` answered with an empty list until somebody thought of a rebuild."""
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        whole = segment(backup)
        w.links.get(node("beta")).answers["catalog.read"] = lambda request: n.CatalogPiece(
            whole[request.offset : request.offset + request.length], len(whole)
        )
        digest = hashlib.sha256(whole).digest()
        await w.report("beta", *w.success(attempt, backup), facts.CatalogDetail(backup.id, digest, len(whole)))
        await asyncio.sleep(5)
        assert [each.id for each in await w.catalog.sets(detail=True)] == [backup.id]
        await w.stop()
        await w.catalog.remove_set(backup.id)
        assert await w.catalog.sets(detail=True) == []
        await w.another_office()
        await asyncio.sleep(5)
        assert [each.id for each in await w.catalog.sets(detail=True)] == [backup.id]
