"""Following a run: answered when there is something to tell."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from admin.admin_world import admin_world, name_of

from caso_mesh.model import requests as q

pytestmark = pytest.mark.jumping


async def test_a_follower_who_waits_is_answered_when_the_run_ends_and_not_before(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        loop = asyncio.get_running_loop()
        began = loop.time()
        following = asyncio.create_task(w.ask("run.follow", q.RunFollow(run, 8.0)))
        await asyncio.sleep(3.0)
        assert not following.done()
        await w.report(name_of(attempt), *w.success(attempt))
        found = await following
        assert found.state == "succeeded"
        assert 3.0 <= loop.time() - began < 4.0


async def test_a_follower_who_waits_is_answered_after_that_time_at_the_latest(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        await w.delegated(run)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await w.ask("run.follow", q.RunFollow(run, 2.0))).result is None
        assert loop.time() - began == pytest.approx(2.0, abs=0.1)
        assert (await w.ask("run.follow", q.RunFollow(run, 1e9))).result is None
        assert loop.time() - began < 13.0


async def test_a_follower_who_waits_for_the_end_only_is_not_told_of_the_way(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        following = asyncio.create_task(w.ask("run.follow", q.RunFollow(run, 9.0, until_end=True)))
        other = asyncio.create_task(w.ask("run.follow", q.RunFollow(run, 9.0)))
        attempt = await w.delegated(run)
        assert (await other).result is None
        assert not following.done()
        await w.report(name_of(attempt), *w.success(attempt))
        assert (await following).result.state == "succeeded"


async def test_a_follower_who_waits_for_the_end_hears_in_time_that_it_has_not_come(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await w.ask("run.follow", q.RunFollow(run, 2.0, until_end=True))
        assert (found.result, found.run) == (None, run)
        assert loop.time() - began == pytest.approx(2.0, abs=0.1)
