"""The mesh at a glance, at the administrator."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from admin.admin_world import admin_world, node

from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.jobs import Counts, Failure, Progress
from caso_mesh.model.overview import OverviewRequest
from caso_mesh.model.states import AlertKind, AttemptState, Role

pytestmark = pytest.mark.jumping


async def test_it_counts_what_runs_waits_is_wrong_and_was_done(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        failed = await w.delegated(await w.backup(to="device:dbeta"))
        await w.report("beta", w.end(failed, AttemptState.FAILED, failure=Failure("device-full", {"device": "dbeta"})))
        runs = await w.delegated(await w.backup(to="device:dbeta"))
        await w.report("beta", facts.AttemptStarted(runs.id, runs.server, runs.device))
        counts = Counts(files=3, bytes=50, bytes_read=50)
        told = Progress(runs.id, AttemptState.RUNNING, counts, w.clock.now_ns(), 5.0, total_bytes=100)
        await w.node_call(node("beta"), "attempt.progress", n.ProgressReport((told,)))
        await w.facts.append(facts.AlertRaised("standing", AlertKind.ERROR, "device-full", "full", "dbeta"))
        await w.ask("job.hold", q.JobName(await w.backup(to="device:dgamma")))
        await asyncio.sleep(5.0)
        seen = await w.ask("overview", OverviewRequest(watch=True))
        assert sum(seen.servers.values()) == len(w.state.servers)
        assert (seen.running_total, [each.attempt for each in seen.running]) == (1, [runs.id])
        assert (seen.running[0].percent, seen.rate) == (50.0, 10.0)
        assert w.links.get(node("beta")).told("attempt.watch") == [{"attempts": [runs.id]}]
        assert "failed" in seen.ended and failed.job in {w.state.runs[failed.run].job}
        assert seen.ended_badly == (w.state.runs[failed.run].name,)
        assert "standing" in {each.id for each in seen.alerts} and seen.alerts_total == len(seen.alerts)
        assert seen.waiting_total == sum(seen.reasons.values()) == len(seen.waiting)


async def test_whoever_sees_one_server_only_is_shown_that_one(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        runs = await w.delegated(await w.backup(to="device:dbeta"))
        limited = Peer(id="x", name="x", kind="operator", server_roles=((node("gamma"), Role.VIEWER),))
        seen = await w.ask("overview", OverviewRequest(), person=limited)
        assert (sum(seen.servers.values()), seen.running_total, seen.waiting_total) == (1, 0, 0)
        beta = Peer(id="y", name="y", kind="operator", server_roles=((node("beta"), Role.VIEWER),))
        seen = await w.ask("overview", OverviewRequest(), person=beta)
        assert [each.attempt for each in seen.running] == [runs.id]


async def test_a_server_that_has_just_gone_is_named(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        del w.links.links[node("gamma")]
        seen = await w.ask("overview", OverviewRequest())
        assert [(each.name, each.state) for each in seen.away] == [("gamma", "not-connected")]
        assert seen.connected == len(w.state.servers) - 1


async def test_many_who_look_cost_no_more_than_one(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        found = [await w.ask("overview", OverviewRequest()) for _ in range(20)]
        assert all(each is found[0] for each in found)
        await asyncio.sleep(1.0)
        assert await w.ask("overview", OverviewRequest()) is not found[0]
