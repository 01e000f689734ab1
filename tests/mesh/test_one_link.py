"""One join link is good for one machine, whoever is asked, and whoever believes to be in office."""

from __future__ import annotations

import asyncio

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.founding import join_mesh
from caso_mesh.identity import tokens
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError, JoinLinkUsed

pytestmark = pytest.mark.jumping


async def three_voters(memory_mesh) -> MemoryMesh:
    mesh: MemoryMesh = await memory_mesh(3, voters=True)

    async def all_vote() -> bool:
        status = await mesh.call("alpha", "status", q.Nothing(), v.StatusView)
        return set(status.voters) == {"alpha", "beta", "gamma"}

    await wait_for_async(all_vote, 60.0, what="all three vote", every_s=0.2)
    return mesh


async def join(mesh: MemoryMesh, name: str, text: str, at: str) -> CasoError | None:
    """Joins with the link, which leads to the server ``at`` only; why not, if it is refused."""
    link = tokens.parse_link(text)
    text = tokens.make_link(
        mesh=link.mesh,
        root_fingerprint=link.root,
        addresses=(f"{at}:7300",),
        secret=link.secret,
        expires_at_ns=link.expires_at_ns,
    )
    try:
        await join_mesh(
            link=text, server=name, state=mesh.state(name), listen=mesh.listen(name), preset="local", never_admin=True,
            replaces="", ports=mesh.ports(name, None),
        )  # fmt: skip
    except CasoError as error:
        return error
    return None


async def names(mesh: MemoryMesh, at: str) -> set[str]:
    return {row.name for row in await mesh.servers(at)}


async def test_two_machines_with_one_link_at_two_servers_at_the_same_moment(memory_mesh):
    mesh = await three_voters(memory_mesh)
    link = (await mesh.call("alpha", "token.create", q.TokenCreate(), v.TokenView)).link
    refused = await asyncio.gather(join(mesh, "delta", link, "beta"), join(mesh, "epsilon", link, "gamma"))
    assert sorted(map(type, refused), key=str) == sorted([type(None), JoinLinkUsed], key=str)
    assert len(await names(mesh, "alpha") & {"delta", "epsilon"}) == 1


async def test_two_machines_with_one_link_at_the_administrator_and_at_one_that_was_deposed(memory_mesh):
    mesh = await three_voters(memory_mesh)
    link = (await mesh.call("alpha", "token.create", q.TokenCreate(), v.TokenView)).link
    for name in ("beta", "gamma"):
        mesh.network.cut(mesh.endpoint("alpha"), mesh.endpoint(name))

    # it believes to be in office for a moment still, and its newcomer reaches it
    asked = asyncio.create_task(join(mesh, "delta", link, "alpha"))

    async def next_one() -> str | None:
        return next((name for name in ("beta", "gamma") if mesh.nodes[name].in_office), None)

    name = await wait_for_async(next_one, 60.0, what="another one is in office", every_s=0.05)
    assert name is not None
    assert await join(mesh, "epsilon", link, name) is None
    assert await asked is not None
    mesh.network.heal()
    await mesh.wait_connected("alpha", at=name)
    assert await names(mesh, name) == {"alpha", "beta", "gamma", "epsilon"}
