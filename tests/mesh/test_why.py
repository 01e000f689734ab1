"""``why`` through a whole mesh: what was kept of a wait outlives the office that kept it."""

from __future__ import annotations

import asyncio

import pytest
from waiting import wait_for_async

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v


@pytest.mark.jumping
async def test_a_run_that_waited_under_two_administrators_is_one_story_to_its_set(memory_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    (tree / "file").write_text("content")
    mesh = await memory_mesh(4, voters=True)
    await mesh.add_device("delta")

    async def vote() -> bool:
        return len((await mesh.call("delta", "status", q.Nothing(), v.StatusView)).voters) == 3

    await wait_for_async(vote, 60.0, what="three servers vote", every_s=0.1)
    await mesh.call("alpha", "queue.hold", q.QueueHold(True, server="delta"), v.ServerList)
    run = (await mesh.backup("delta", tree, "device:disk-delta")).run
    await asyncio.sleep(60.0)
    before = await mesh.call("delta", "why", q.Why(run), o.Story)
    await mesh.stop("alpha")

    async def again() -> bool:
        return (await mesh.call("delta", "status", q.Nothing(), v.StatusView)).admin in {"beta", "gamma"}

    await wait_for_async(again, 60.0, what="another one is in office")
    await asyncio.sleep(60.0)
    await mesh.call("delta", "queue.hold", q.QueueHold(False, server="delta"), v.ServerList)
    assert (await mesh.result(run, at="delta")).state == "succeeded"
    story = await mesh.call("delta", "why", q.Why("server:delta"), o.Story)
    assert (story.kind, [each.run for each in story.runs]) == ("server", [run])
    waits = [line for line in story.lines if line.what == "waited"]
    assert [line.reason for line in waits] == ["queue-on-hold"]
    assert waits[0].at == next(line.at for line in before.lines if line.what == "waited")
    assert waits[0].seconds > 115
    own = [line.what for line in story.lines if line.run is not None]
    assert own == ["asked", "waited", "delegated", "started", "ended", "set"]
    assert story.lines[-1].set == story.runs[0].sets[0].set
