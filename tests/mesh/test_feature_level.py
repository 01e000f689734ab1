"""A mesh rises to the feature level of its oldest voter, and an older server gets no seat."""

from __future__ import annotations

import asyncio

import pytest
from waiting import wait_for_async

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import FeatureLevelTooLow
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.voters import VoterList

#: What servers of the next version understand.
LATER = FEATURE_LEVEL + 1


@pytest.mark.jumping
async def test_the_level_rises_when_the_last_voter_is_upgraded_and_older_servers_do_not_vote_any_more(
    memory_mesh, monkeypatch
):
    mesh = await memory_mesh(4, voters=True)

    async def three_vote() -> bool:
        return len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == 3

    await wait_for_async(three_vote, 60.0, what="three servers vote")

    def level() -> int:
        return mesh.nodes["alpha"].seat.voter.keeper.state.info().feature_level

    async def greets_as(name: str, understood: int) -> None:
        monkeypatch.setattr("caso_mesh.server.links.FEATURE_LEVEL", understood)
        await mesh.stop(name)
        await mesh.run(name)
        await mesh.wait_connected(name)
        await asyncio.sleep(30.0)

    # the one in office and one more run later software; the third does not yet
    monkeypatch.setattr("caso_mesh.admin.voting.FEATURE_LEVEL", LATER)
    monkeypatch.setattr("caso_mesh.control.keeper.FEATURE_LEVEL", LATER)
    await greets_as("beta", LATER)
    assert level() == FEATURE_LEVEL
    # the list of voters names who holds it back
    listed = await mesh.call("beta", "voter.list", q.Nothing(), VoterList)
    assert [(row.server, row.state, row.admin, row.connected, row.behind, row.feature_level) for row in listed.voters] == [
        ("alpha", "votes", True, True, 0, LATER), ("beta", "votes", False, True, 0, LATER),
        ("gamma", "votes", False, True, 0, FEATURE_LEVEL),
    ]  # fmt: skip
    assert (listed.majority, listed.there, listed.feature_level) == (2, 3, FEATURE_LEVEL)
    await greets_as("gamma", LATER)
    assert level() == LATER
    await greets_as("delta", FEATURE_LEVEL)
    await mesh.stop("beta")
    listed = await mesh.call("gamma", "voter.list", q.Nothing(), VoterList)
    assert [row.connected for row in listed.voters if row.server == "beta"] == [False]
    assert (listed.majority, listed.there) == (2, 2)
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    with pytest.raises(FeatureLevelTooLow):
        await mesh.call("alpha", "voter.add", q.ServerName("delta"), v.ServerView)
    await greets_as("delta", LATER)
    await mesh.call("alpha", "voter.add", q.ServerName("delta"), v.ServerView)
