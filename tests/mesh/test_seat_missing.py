"""A voter whose state folder is from before it voted says so, and votes again when it was removed and added."""

from __future__ import annotations

import asyncio

import pytest
from waiting import wait_for_async

from caso_mesh.consensus.store import MIGRATIONS
from caso_mesh.database import Database
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.server.folder import StateFolder


@pytest.mark.jumping
async def test_a_state_folder_from_before_the_vote_is_told_of_and_the_server_votes_again_when_it_was_removed_and_added(
    memory_mesh,
):
    """It was listed as a voter and sat on nothing, and nobody was told: the mesh went on with two votes of three."""
    mesh = await memory_mesh(3, voters=True)

    async def three_vote() -> bool:
        seats = [node.seat.voter is not None for node in mesh.nodes.values()]
        return all(seats) and len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == 3

    async def told() -> bool:
        alerts = (await mesh.call("alpha", "alert.list", q.AlertListRequest(), v.AlertList)).alerts
        return any(row.category == "voter-lost" and row.object == "gamma" for row in alerts)

    await wait_for_async(three_vote, 60.0, what="three servers vote")
    assert not await told()
    await mesh.stop("gamma")
    for path in mesh.state("gamma").glob("consensus.db*"):
        path.unlink()
    await mesh.run("gamma")
    await wait_for_async(told, 120.0, what="gamma tells that it has no seat")
    await mesh.call("alpha", "voter.remove", q.ServerName("gamma"), v.ServerView)
    await asyncio.sleep(10.0)  # it gives up what it had
    await mesh.call("alpha", "voter.add", q.ServerName("gamma"), v.ServerView)
    await wait_for_async(three_vote, 120.0, what="three servers vote again")


@pytest.mark.jumping
async def test_a_server_that_was_killed_before_its_log_was_begun_elects_nobody_and_is_given_its_seat_again(memory_mesh):
    """Found by the mesh simulator: a server was killed between making the file of its log and writing that it waits to be sent
    everything. It started as the only voter of a log of its own, in office, and refused whatever people asked it."""
    mesh = await memory_mesh(3)
    await mesh.stop("beta")
    path = StateFolder(mesh.state("beta")).consensus
    async with Database.open(path, MIGRATIONS, durable=True, same_thread=True):
        pass
    node = await mesh.run("beta")
    await mesh.wait_connected("beta")
    assert not node.in_office
    assert not path.exists()
    for name in ("beta", "gamma"):
        await mesh.call("alpha", "voter.add", q.ServerName(name), v.ServerView)

    async def three_vote() -> bool:
        return len((await mesh.call("beta", "status", q.Nothing(), v.StatusView)).voters) == 3

    await wait_for_async(three_vote, 120.0, what="three servers vote")
    assert node.seat.voter is not None
