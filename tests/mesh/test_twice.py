"""One server that runs twice: its state folder, or a whole virtual machine, was copied.

Both took each other's link with the administrator again and again, for good: each time one of them began a new journal and told
that its disk had been put back, work was delegated to whichever was there, and nobody was told that there were two.
"""

from __future__ import annotations

import asyncio
import shutil

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import ServerTwice
from caso_mesh.model.states import WaitReason
from caso_mesh.wire.codec import to_wire
from caso_mesh.wire.typed import RefusesAll

pytestmark = pytest.mark.jumping


async def copied(mesh: MemoryMesh, name: str) -> None:
    """The server goes on, and a copy of its state folder runs on another machine, ``clone``."""
    await mesh.stop(name)
    shutil.copytree(mesh.state(name), mesh.state("clone"))
    config = mesh.state("clone") / "config.toml"
    config.write_text(config.read_text("utf-8").replace(f"{name}:7300", "clone:7300"), "utf-8")
    node = await mesh.run(name)
    if name == "alpha":
        await wait_for_async(lambda: node.in_office, what="alpha is in office again")
    await mesh.wait_connected(*mesh.names)
    await mesh.run("clone")


async def alerts(mesh: MemoryMesh, category: str, at: str = "alpha") -> list[v.AlertView]:
    rows = (await mesh.call(at, "alert.list", q.AlertListRequest(all=True), v.AlertList)).alerts
    return [row for row in rows if row.category == category]


async def test_who_is_linked_stays_and_the_copy_is_turned_away_tells_why_and_loses_nothing(memory_mesh, tmp_path):
    mesh: MemoryMesh = await memory_mesh(3)
    (files := tmp_path / "files").mkdir()
    (files / "one").write_text("one")
    await mesh.add_device("beta", "disk")
    await copied(mesh, "beta")
    beta, clone = mesh.nodes["beta"], mesh.nodes["clone"]
    link = mesh.nodes["alpha"].links.get(beta.server.keys.id)

    async def told() -> v.AlertView | None:
        return next(iter(await alerts(mesh, "server-twice")), None)

    alert = await wait_for_async(told, 30.0, what="the administrator tells that beta runs twice")
    assert (alert.object, alert.cleared) == ("beta", None)
    for _ in range(2):
        run = (await mesh.backup("gamma", files, "device:disk")).run
        assert (await mesh.result(run)).state == "succeeded"
    assert mesh.nodes["alpha"].links.get(beta.server.keys.id) is link, "beta was not disturbed"
    assert len(await alerts(mesh, "server-twice")) == 1
    assert await alerts(mesh, "state-rolled-back") == []
    with pytest.raises(ServerTwice):
        await mesh.call("clone", "server.list", q.ServerListRequest(), v.ServerList)
    # by itself it does nothing either: both would write as one
    await mesh.call("clone", "local.job.list", q.JobListRequest(), v.Done)
    office = clone.local.office
    assert office is not None
    barred = office.standing.barred()
    assert barred is not None
    assert barred.reason is WaitReason.IDENTITY_IN_USE
    # the right one is the copy: what it has not told yet it tells now
    untold = await clone.server.facts.mark()
    await mesh.stop("beta")
    await wait_for_async(lambda: clone.server.linked_admin() is not None, 60.0, what="the copy is let in")
    await wait_for_async(lambda: not clone.server.courier.telling, 60.0, what="all of it was told")
    assert (await clone.server.facts.mark())[0] != untold[0], "under numbers of its own"
    assert office.standing.barred() is None

    async def over() -> bool:
        return (await alerts(mesh, "server-twice"))[0].cleared is not None

    await wait_for_async(over, 3600.0, what="the alert is over", every_s=30.0)


async def test_a_copy_of_the_administrator_that_meets_members_alone_is_told_of_and_orders_nobody(memory_mesh):
    mesh: MemoryMesh = await memory_mesh(3)
    await copied(mesh, "alpha")

    async def told() -> bool:
        return [(row.object, row.cleared) for row in await alerts(mesh, "server-twice")] == [("alpha", None)]

    await wait_for_async(told, 60.0, what="the administrator hears of its copy from its members")
    for name in ("beta", "gamma"):
        held = mesh.nodes[name].links.greeting_of(mesh.nodes["alpha"].server.keys.id)
        assert held is not None
        assert held.instance == mesh.nodes["alpha"].links.twins.instance


async def test_a_copy_of_a_voter_neither_votes_nor_costs_the_voter_its_seat(memory_mesh):
    mesh: MemoryMesh = await memory_mesh(3, voters=True)

    async def voters() -> bool:
        status = await mesh.call("alpha", "status", q.Nothing(), v.StatusView)
        return set(status.voters) == {"alpha", "beta", "gamma"}

    await wait_for_async(voters, 60.0, what="all three vote", every_s=0.2)
    await copied(mesh, "gamma")
    # the log goes on: the copy is behind now
    await mesh.add_pool("west", "beta")

    async def told() -> bool:
        return [row.object for row in await alerts(mesh, "server-twice")] == ["gamma"]

    await wait_for_async(told, 60.0, what="the administrator tells that gamma runs twice")
    assert await voters()
    assert await alerts(mesh, "voter-lost") == []
    await mesh.call("alpha", "admin.transfer", q.AdminTransfer("gamma"), v.Done, timeout_s=30.0)
    await wait_for_async(lambda: mesh.nodes["gamma"].in_office, 60.0, what="gamma takes the office")
    assert not mesh.nodes["clone"].in_office
    await mesh.wait_connected("alpha", "beta", at="gamma")


async def test_a_server_that_lost_its_power_is_let_in_again_at_once(memory_mesh):
    """Its old link is still open where nobody told that it is gone."""
    mesh: MemoryMesh = await memory_mesh(2)
    beta = mesh.endpoint("beta")
    mesh.network.cut(beta, mesh.endpoint("alpha"))
    await mesh.stop("beta")
    mesh.network.heal()
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    assert await alerts(mesh, "server-twice") == []


async def test_a_member_is_believed_about_a_copy_of_the_administrator_alone(memory_mesh):
    mesh: MemoryMesh = await memory_mesh(3)
    ids = {name: node.server.keys.id for name, node in mesh.nodes.items()}
    link = await mesh.endpoint("gamma").dial(
        mesh.nodes["alpha"].address, authorise=lambda certificate: "alpha", handler=RefusesAll()
    )
    twins = tuple(n.Twin(ids[name], "192.0.2.1:7300") for name in ("alpha", "beta", "gamma"))
    beat = n.Heartbeat(mesh.clock("gamma").now_ns(), None, (), (), twins=(*twins, n.Twin("nobody", "x")))

    async def told() -> list[str]:
        await link.call("server.heartbeat", to_wire(beat))  # again and again: the true gamma beats as well
        return [row.object for row in await alerts(mesh, "server-twice")]

    assert await wait_for_async(told, 30.0, what="the administrator tells of its copy") == ["alpha"]
    for _ in range(50):
        await asyncio.sleep(0.1)
        assert await told() == ["alpha"]
    await link.close()
