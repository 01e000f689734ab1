"""The history of attempts and job logs as they grow, at the administrator."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from admin.admin_world import admin_world, node

from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model.errors import InvalidValue, NotFound
from caso_mesh.model.history import HistoryRequest, LogFollow
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AttemptState, Role

pytestmark = pytest.mark.jumping


async def three_attempts(w):
    """One that failed, one that made a set, one that runs."""
    failed = await w.delegated(await w.backup(to="device:dbeta"))
    await w.report("beta", w.end(failed, AttemptState.FAILED, failure=Failure("device-full", {"device": "dbeta"})))
    await asyncio.sleep(5.0)
    good = await w.delegated(await w.backup(to="device:dbeta"))
    await w.report("beta", *w.success(good))
    await asyncio.sleep(5.0)
    runs = await w.delegated(await w.backup(to="device:dgamma"))
    await w.report("gamma", facts.AttemptStarted(runs.id, runs.server, runs.device))
    return failed, good, runs


async def ids(w, **which) -> list[str]:
    return [each.attempt for each in (await w.ask("history", HistoryRequest(**which))).entries]


async def test_there_is_one_entry_for_each_attempt_found_by_all_that_it_is_about(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        failed, good, runs = await three_attempts(w)
        everything = await w.ask("history", HistoryRequest())
        assert [each.attempt for each in everything.entries] == [runs.id, good.id, failed.id]
        now, then, first = everything.entries
        assert (now.state, now.ended, first.state, first.server) == ("running", None, "failed", "beta")
        assert (first.error["code"], first.error_category) == ("device-full", "device")
        assert then.set is not None and then.seconds is not None and then.rate is not None
        assert await ids(w, state="active") == [runs.id]
        assert await ids(w, state="ended") == [good.id, failed.id]
        assert await ids(w, state="failed") == [failed.id]
        assert await ids(w, server="gamma") == [runs.id]
        assert await ids(w, server="alpha") == [runs.id, good.id, failed.id]  # it is the source of all
        assert await ids(w, job=first.name) == await ids(w, job=first.job) == [failed.id]
        assert await ids(w, kind="restore") == []
        assert await ids(w, kind="backup", type="full", limit=1) == [runs.id]
        assert await ids(w, until_ns=good.delegated_at_ns) == [failed.id]
        assert await ids(w, since_ns=good.delegated_at_ns, limit=10) == [runs.id, good.id]
        page = await w.ask("history", HistoryRequest(limit=2))
        assert page.more
        assert await ids(w, limit=2, after=page.entries[-1].attempt) == [failed.id]
        limited = Peer(id="x", name="x", kind="operator", server_roles=((node("gamma"), Role.VIEWER),))
        found = await w.ask("history", HistoryRequest(), person=limited)
        assert [each.attempt for each in found.entries] == [runs.id]


async def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        for wrong in (HistoryRequest(state="x"), HistoryRequest(type="x"), HistoryRequest(kind="x")):
            with pytest.raises(InvalidValue):
                await w.ask("history", wrong)
        for absent in (HistoryRequest(server="x"), HistoryRequest(selection="x"), HistoryRequest(after="x")):
            with pytest.raises(NotFound):
                await w.ask("history", absent)


def lines(attempt, *texts: str) -> facts.JobLog:
    return facts.JobLog(attempt.id, tuple(facts.LogLine(number, "info", text) for number, text in enumerate(texts)))


async def test_each_line_of_a_log_comes_once_as_soon_as_it_is_told_until_the_run_has_ended(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        await w.report(
            "beta", facts.AttemptStarted(attempt.id, attempt.server, attempt.device), lines(attempt, "a", "b")
        )
        first = await w.ask("log.follow", LogFollow(run))
        assert [(each.server, each.line.text) for each in first.lines] == [("beta", "a"), ("beta", "b")]
        none = await w.ask("log.follow", LogFollow(run, seen=first.seen))
        assert (none.lines, none.ended, none.seen) == ((), False, first.seen)
        began = w.clock.monotonic_s()
        waiting = asyncio.ensure_future(w.ask("log.follow", LogFollow(run, seen=first.seen, wait_s=10.0)))
        await asyncio.sleep(3.0)
        # the end of the source tells, too: what came from there does not move the place in the other one
        await w.facts.append(lines(attempt, "from the source"))
        second = await waiting
        assert [(each.server, each.line.text) for each in second.lines] == [("alpha", "from the source")]
        assert w.clock.monotonic_s() - began < 4.5
        await w.report("beta", lines(attempt, "c"), *w.success(attempt))
        third = await w.ask("log.follow", LogFollow(run, seen=second.seen, wait_s=10.0))
        assert ([each.line.text for each in third.lines], third.ended) == (["c"], False)
        last = await w.ask("log.follow", LogFollow(run, seen=third.seen, wait_s=10.0))
        assert (last.lines, last.ended) == ((), True)
        whole = await w.ask("log.follow", LogFollow(run, attempt=1))
        assert len(whole.lines) == 4
        with pytest.raises(NotFound):
            await w.ask("log.follow", LogFollow(run, attempt=7))
