"""A request that comes again changes nothing a second time, also where another server answers it then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import Conflict, Unavailable

pytestmark = pytest.mark.jumping


async def voting(mesh: MemoryMesh, count: int) -> None:
    async def all_vote() -> bool:
        status = await mesh.call("alpha", "status", q.Nothing(), v.StatusView)
        return len(status.voters) == count

    await wait_for_async(all_vote, 60.0, what=f"{count} servers vote", every_s=0.2)


async def transfer(mesh: MemoryMesh, to: str | None, id: str) -> str:
    """Asks at the last server, which hands it on; who is in office then."""

    async def asked() -> bool:
        """As the command line does: what may pass by itself is asked again, under the same id."""
        try:
            await mesh.call("delta", "admin.transfer", q.AdminTransfer(to), v.Done, timeout_s=60.0, by="alpha", id=id)
        except Unavailable:
            return False
        return True

    await wait_for_async(asked, 60.0, what="somebody in office answers")

    def one() -> str | None:
        found = [name for name, node in mesh.nodes.items() if node.in_office]
        return found[0] if len(found) == 1 else None

    return await wait_for_async(one, 60.0, what="somebody is in office")


async def test_an_office_is_handed_over_once_however_often_that_is_asked_for(memory_mesh: Callable[..., Any]) -> None:
    """A call whose answer was lost with the link is made again: the new administrator handed the office on to a third one.
    And whoever had handed a call on could make it again for ten minutes."""
    mesh: MemoryMesh = await memory_mesh(4, voters=True)
    await voting(mesh, 3)
    first = await transfer(mesh, None, "anyone")
    assert first != "alpha"
    assert await transfer(mesh, None, "anyone") == first
    second = next(name for name in ("beta", "gamma") if name != first)
    assert await transfer(mesh, second, "second") == second
    assert await transfer(mesh, second, "second") == second
    assert await transfer(mesh, None, "anyone") == second  # whoever was to be left is left
    assert await transfer(mesh, "alpha", "back") == "alpha"
    for to, id, meant in ((None, "anyone", first), (second, "second", second)):
        with pytest.raises(Conflict, match=f"alpha is in office.* {meant} was to take it"):
            await transfer(mesh, to, id)
    assert mesh.nodes["alpha"].in_office


async def test_an_old_request_makes_no_voter_of_a_server_that_was_let_go_since(memory_mesh: Callable[..., Any]) -> None:
    mesh: MemoryMesh = await memory_mesh(4, voters=True)
    await voting(mesh, 3)
    status = await mesh.call("alpha", "status", q.Nothing(), v.StatusView)
    name = next(name for name in mesh.names if name != "alpha" and name in status.voters)
    server, node = q.ServerName(name), mesh.nodes[name].server.keys.id

    def has_seat() -> bool:
        voter = mesh.nodes["alpha"].seat.voter
        assert voter is not None
        return bool(voter.keeper.state.server(node).voter)

    await mesh.call("alpha", "voter.add", server, v.ServerView, id="old")
    await mesh.call("alpha", "voter.remove", server, v.ServerView)
    assert not has_seat()
    await mesh.call("alpha", "voter.add", server, v.ServerView, id="old")
    assert not has_seat()
    await mesh.call("alpha", "voter.add", server, v.ServerView)
    assert has_seat()
