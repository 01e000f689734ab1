"""The certification authority of a mesh is rotated, over real TLS: everybody gets new certificates, nothing stands still."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest_asyncio
from mesh.inside import LiveMesh
from waiting import wait_for_async

from caso_mesh.identity.certificates import signed_by
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import Unavailable
from caso_mesh.server.folder import StateFolder


def identity(mesh: LiveMesh, name: str) -> IdentityStore:
    return IdentityStore(StateFolder(mesh.state(name)).identity)


@pytest_asyncio.fixture
async def mesh(tmp_path: pathlib.Path) -> AsyncIterator[LiveMesh]:
    made = LiveMesh(tmp_path)
    try:
        yield made
    finally:
        await made.close()


async def test_servers_voters_and_operators_have_certificates_of_the_new_ca(mesh: LiveMesh) -> None:
    await mesh.start(3, voters=True)

    async def votes() -> bool:
        return len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == 3

    await wait_for_async(votes, 60.0, what="three servers vote", every_s=0.2)
    old = identity(mesh, "alpha").load_authority()
    before = await mesh.call("alpha", "ca.show", q.Nothing(), v.CaView)
    assert before.rotation == "never"
    await mesh.call("alpha", "ca.rotate", q.CaRotate(urgent=True), v.CaView)

    async def renewed() -> v.CaView | None:
        view = await mesh.call("alpha", "ca.show", q.Nothing(), v.CaView)
        return view if view.rotation == "switched" and not view.lacking else None

    view = await wait_for_async(renewed, 60.0, what="all servers, voters and operators have renewed", every_s=0.3)
    assert view is not None and view.root != before.root
    authority = identity(mesh, "alpha").load_authority()
    assert authority.root != old.root and authority.has_root_key

    async def stored() -> bool:
        stores = [identity(mesh, name) for name in mesh.names]
        chains = [chain for store in stores for chain in (store.load_chain(), store.load_operator().chain)]
        return all(signed_by(chain[0], chain[1]) and chain[1] == authority.issuing for chain in chains)

    await wait_for_async(stored, 30.0, what="everybody has stored new certificates", every_s=0.2)

    async def seated() -> bool:
        held = [identity(mesh, name).load_authority() for name in ("beta", "gamma")]
        return all(signed_by(each.issuing, authority.issuing) and each.root == authority.root for each in held)

    await wait_for_async(seated, 30.0, what="other voters issue below the new root", every_s=0.2)

    # a newcomer joins, links are made anew with the new certificates, and another voter goes on with the new authority
    await mesh.join("delta")
    await mesh.run("delta")
    await mesh.wait_connected("delta")
    await mesh.stop("delta")
    await mesh.run("delta")
    await mesh.wait_connected(*mesh.names)
    await mesh.stop("alpha")

    async def elected() -> str | None:
        return next((name for name in ("beta", "gamma") if mesh.nodes[name].in_office), None)

    new = await wait_for_async(elected, 30.0, what="another voter is in office", every_s=0.1)
    assert new is not None

    async def shown() -> v.CaView | None:
        try:
            return await mesh.call(new, "ca.show", q.Nothing(), v.CaView)
        except Unavailable:
            return None  # its office begins

    found = await wait_for_async(shown, 30.0, what="its office has begun", every_s=0.2)
    assert found is not None and found.root == view.root
