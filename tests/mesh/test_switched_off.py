"""Identity is for life: certificates last a week, and what was switched off for longer comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.identity.certificates import NODE_LIFE_S, life
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.server.folder import StateFolder


def is_good(mesh: MemoryMesh, name: str) -> bool:
    """Whether the certificate of a server is valid by its own clock."""
    certificate = IdentityStore(StateFolder(mesh.state(name)).identity).load_chain()[0]
    return life(certificate).not_after_ns > mesh.clock(name).now_ns()


@pytest.mark.jumping
@pytest.mark.parametrize("voters", [1, 3])
async def test_a_mesh_that_was_switched_off_for_longer_than_certificates_live_comes_back_and_so_does_who_is_late(
    memory_mesh: Callable[..., Any], voters: int
) -> None:
    """Three voters whose certificates had all expired refused each other, so that nobody was elected who could have renewed
    one: such a mesh was lost."""
    mesh: MemoryMesh = await memory_mesh(5, voters=voters == 3)

    async def seated() -> bool:
        return len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == voters

    await wait_for_async(seated, 30.0, what=f"{voters} servers vote", every_s=0.1)
    for name in reversed(mesh.names):
        await mesh.stop(name)
    await asyncio.sleep(1.7 * NODE_LIFE_S)
    assert not any(is_good(mesh, name) for name in mesh.names)
    # epsilon finds a mesh whose certificates are all new, the others none
    for name in mesh.names[:4]:
        await mesh.run(name)
    await wait_for_async(lambda: all(is_good(mesh, name) for name in mesh.names[:4]), 60.0, what="all have renewed")
    await mesh.wait_connected(*mesh.names[:4])
    await mesh.run("epsilon")
    await mesh.wait_connected(*mesh.names)
    assert is_good(mesh, "epsilon")
    states = {row.name: row.state for row in await mesh.servers("epsilon")}
    assert set(states.values()) == {"enabled"}, states
