"""A server that was down while all voters it knew were replaced works for the new ones, when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import Conflict, NoAdmin, Unavailable, VotersUnknown


async def vote(mesh: MemoryMesh, at: str, *names: str) -> None:
    """Makes these the voters."""

    async def now() -> set[str]:
        return set((await mesh.call(at, "status", q.Nothing(), v.StatusView)).voters)

    async def done() -> bool:
        return await now() == set(names)

    for name in sorted(await now() - set(names)):
        await mesh.call(at, "voter.remove", q.ServerName(name), v.ServerView, timeout_s=30.0)
        await wait_for_async(lambda name=name: _lacks(now, name), 30.0, what=f"{name} does not vote", every_s=0.1)
    for name in sorted(set(names) - await now()):
        await mesh.call(at, "voter.add", q.ServerName(name), v.ServerView, timeout_s=30.0)
    await wait_for_async(done, 60.0, what=f"{names} vote", every_s=0.1)


async def _lacks(now: Callable[[], Awaitable[set[str]]], name: str) -> bool:
    return name not in await now()


async def in_office(mesh: MemoryMesh, name: str) -> None:
    async def is_() -> bool:
        return mesh.nodes[name].in_office

    await wait_for_async(is_, 60.0, what=f"{name} is in office", every_s=0.1)


@pytest.mark.jumping
async def test_a_server_that_was_down_while_all_voters_it_knew_were_replaced_is_told_by_one_of_them(
    memory_mesh: Callable[..., Any],
) -> None:
    mesh: MemoryMesh = await memory_mesh(7)
    await vote(mesh, "alpha", "alpha", "beta", "gamma")
    await mesh.stop("delta")
    await vote(mesh, "alpha", "alpha", "epsilon", "zeta")
    await mesh.call("alpha", "admin.transfer", q.AdminTransfer("epsilon"), v.Done, timeout_s=30.0)
    await in_office(mesh, "epsilon")
    await vote(mesh, "alpha", "epsilon", "zeta", "eta")
    # one of them is enough: the two others are not there
    await mesh.stop("gamma")
    await mesh.stop("beta")
    node = (await mesh.run("delta")).server
    assert node.orders.admin == mesh_id(mesh, "alpha", node)
    await mesh.wait_connected("delta", at="alpha", timeout_s=60.0)
    tree = mesh.folder / "tree"
    tree.mkdir()
    (tree / "file").write_text("it works")
    disk = mesh.folder / "disk"
    disk.mkdir()
    await mesh.call("alpha", "device.add", q.DeviceAdd("disk", "disk", {"delta": str(disk)}), v.DeviceView)
    asked = q.BackupRequest(sources=(("delta", bytes(tree)),), target="device:disk")
    run = (await mesh.call("alpha", "backup", asked, o.Submitted)).run
    assert run is not None
    assert (await mesh.result(run, at="alpha")).state == "succeeded"
    assert {node.trust.name_of(each) for each in node.bearings.voters()} == {"epsilon", "zeta", "eta"}
    assert node.orders.admin == mesh.nodes["epsilon"].server.keys.id


def mesh_id(mesh: MemoryMesh, name: str, node: Any) -> str:
    """The id of a server by the roster of another one."""
    return next(row.id for row in node.orders.roster.rows if row.name == name)


@pytest.mark.jumping
async def test_a_server_that_was_down_while_all_voters_it_knew_left_the_mesh_says_so_and_joins_again_in_its_own_place(
    memory_mesh: Callable[..., Any],
) -> None:
    mesh: MemoryMesh = await memory_mesh(7)
    await vote(mesh, "alpha", "alpha", "beta", "gamma")
    await mesh.add_pool("west", "delta")
    await mesh.stop("delta")
    await vote(mesh, "alpha", "alpha", "epsilon", "zeta")
    await mesh.call("alpha", "admin.transfer", q.AdminTransfer("epsilon"), v.Done, timeout_s=30.0)
    await in_office(mesh, "epsilon")
    await vote(mesh, "alpha", "epsilon", "zeta", "eta")
    await mesh.stop("alpha")  # its machine is lost
    for name in ("beta", "gamma"):
        await mesh.stop(name)
        await mesh.call("epsilon", "server.remove", q.ServerName(name), v.Done, timeout_s=30.0, by="alpha")
    node = (await mesh.run("delta")).server
    tree, disk = mesh.folder / "tree", mesh.folder / "disk"
    for folder in (tree, disk):
        folder.mkdir()
    (tree / "file").write_text("it works")

    async def says_so() -> bool:
        try:
            await mesh.call("delta", "job.list", q.JobListRequest(), o.JobList)
        except VotersUnknown as error:
            return error.fields == {"server": "delta", "admin": "epsilon", "voters": "alpha, beta, gamma"}
        except NoAdmin:
            return False
        raise AssertionError("delta believes somebody")

    await wait_for_async(says_so, 60.0, what="delta says that it knows none of the voters", every_s=0.5)
    assert "--replaces delta" in VotersUnknown(server="delta", admin="epsilon", voters="alpha").hint
    assert not node.bearings.is_admin(mesh.nodes["epsilon"].server.keys.id)

    await mesh.stop("delta")
    await asyncio.sleep(60.0)  # before that epsilon does not know that it is not just late
    await mesh.join("delta-again", at="epsilon", by="alpha", replaces="delta")
    await mesh.run("delta-again")
    await mesh.wait_connected("delta", at="epsilon", timeout_s=60.0)
    assert next(row.pools for row in await mesh.servers("epsilon") if row.name == "delta") == ("west",)
    await mesh.call(
        "epsilon", "device.add", q.DeviceAdd("disk", "disk", {"delta": str(disk)}), v.DeviceView, by="alpha"
    )
    asked = q.BackupRequest(sources=(("delta", bytes(tree)),), target="pool:west")
    run = (await mesh.call("epsilon", "backup", asked, o.Submitted, by="alpha")).run
    assert run is not None
    assert (await mesh.result(run, at="epsilon")).state == "succeeded"


@pytest.mark.jumping
async def test_nobody_takes_the_place_of_a_server_that_the_next_administrator_has_not_met_yet(
    memory_mesh: Callable[..., Any],
) -> None:
    """An administrator that has just come into office is linked with nobody: whoever had a link could take the place of any
    server that ran on as ever."""
    mesh: MemoryMesh = await memory_mesh(5)
    await vote(mesh, "alpha", "alpha", "beta", "gamma")
    for name in ("beta", "gamma", "epsilon"):
        mesh.network.cut(mesh.endpoint("delta"), mesh.endpoint(name))
    await mesh.stop("alpha")

    async def next_one() -> str | None:
        return next((name for name in ("beta", "gamma") if mesh.nodes[name].in_office), None)

    name = await wait_for_async(next_one, 60.0, what="another one is in office", every_s=0.1)
    assert name is not None
    with pytest.raises(Unavailable, match="does not know whether delta is there"):
        await mesh.join("thief", at=name, by="alpha", replaces="delta")
    mesh.network.heal()
    await mesh.wait_connected("delta", at=name, timeout_s=60.0)
    with pytest.raises(Conflict, match="is there"):
        await mesh.join("thief-again", at=name, by="alpha", replaces="delta")


@pytest.mark.jumping
async def test_a_newcomer_finds_whoever_is_in_office_when_it_starts(memory_mesh: Callable[..., Any]) -> None:
    """It was told of the administrator alone among the voters, and refused the next one for ever: by its roster that one
    voted, so that nobody had to say so, and was unknown."""
    mesh: MemoryMesh = await memory_mesh(4)
    await vote(mesh, "alpha", "alpha", "beta", "gamma")
    await mesh.join("epsilon")
    await mesh.call("alpha", "admin.transfer", q.AdminTransfer("beta"), v.Done, timeout_s=30.0)
    await in_office(mesh, "beta")
    node = (await mesh.run("epsilon")).server
    await mesh.wait_connected("epsilon", at="delta", timeout_s=60.0)
    assert node.orders.admin == mesh.nodes["beta"].server.keys.id
