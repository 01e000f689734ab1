"""A server that votes no more, and is asked at once to vote again, gives its seat up first, and takes a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.admin.ordering import Ordering
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import StateRolledBack
from caso_mesh.wire.memory import Conditions


@pytest.mark.jumping
@pytest.mark.parametrize("lost", [False, True], ids=["seated", "lost"])
async def test_a_server_is_added_right_after_it_was_removed_whenever_it_hears_of_that(
    memory_mesh: Callable[..., Any], lost: bool
) -> None:
    """Its keys were read while they went with the old seat, or went after the new one had been accepted: it failed with "issuing.key is
    missing", or that it could not answer now."""
    mesh: MemoryMesh = await memory_mesh(4, voters=True)

    async def three_vote() -> bool:
        voting = (await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters
        return len(voting) == 3 and all(mesh.nodes[name].seat.voter is not None for name in voting)

    await wait_for_async(three_vote, 60.0, what="three servers vote")
    for number in range(10):
        voting = (await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters
        name = next(each for each in voting if each != "alpha")
        seat = mesh.nodes[name].seat
        if lost:
            await seat._lose(StateRolledBack(path="consensus.db", peer="alpha", detail="term 9, entry 9"))
        slow = Conditions(delay_s=0.0007 * number, jitter_s=0.004)
        mesh.network.set_conditions(mesh.endpoint("alpha"), mesh.endpoint(name), slow)
        server = q.ServerName(name)
        await mesh.call("alpha", "voter.remove", server, v.ServerView)
        await mesh.call("alpha", "voter.add", server, v.ServerView)
        await wait_for_async(three_vote, 120.0, what=f"three servers vote again, {name} among them", every_s=0.1)
        assert seat.voter is not None
        mesh.network.set_conditions(mesh.endpoint("alpha"), mesh.endpoint(name), Conditions())


@pytest.mark.jumping
async def test_a_server_votes_once_all_voters_have_heard_of_each_other(
    memory_mesh: Callable[..., Awaitable[MemoryMesh]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders that were late did not hold a vote up: with the administrator lost then, who was left let nobody in, and nobody
    was elected."""
    change = Ordering._change

    async def late(*args: Any) -> bool:
        await asyncio.sleep(10.0)
        return await change(*args)

    monkeypatch.setattr(Ordering, "_change", late)
    mesh = await memory_mesh(3, voters=True)
    alpha = mesh.nodes["alpha"].seat

    async def three_vote() -> bool:
        return len(alpha.voter.consensus.leadership().voters) == 3

    await wait_for_async(three_vote, 300.0, what="three servers vote", every_s=0.05)
    everybody = {node.server.keys.id for node in mesh.nodes.values()}
    for name in ("beta", "gamma"):
        roster = mesh.nodes[name].server.orders.roster
        assert {row.id for row in roster.rows} >= everybody
        assert {anchor.voter for anchor in roster.anchors} >= everybody
