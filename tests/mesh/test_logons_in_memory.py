"""Logon information in meshes in memory: what a server runs by itself is given it without the administrator, and a new
machine by another server, or by a person."""

from __future__ import annotations

import os
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.founding import join_mesh
from caso_mesh.identity.logons import seal_logon
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import EntryDoc, PolicyDoc, SelectionDoc, TemplateDoc

SECRET = "of beta alone"


async def sealed(mesh: MemoryMesh, name: str, users: q.LogonUsers, version: str, secret: str = SECRET) -> q.SealedLogon:
    to = await mesh.call("alpha", "logon.recipients", users, v.LogonRecipients)
    copies = seal_logon(secret, to.keys, mesh=to.mesh, name=name, version=version, randomness=os.urandom)
    return q.SealedLogon(version, copies)


async def create_logon(mesh: MemoryMesh, name: str, users: q.LogonUsers) -> None:
    request = q.LogonCreate(name, "backup", users, await sealed(mesh, name, users, "v1"))
    await mesh.call("alpha", "logon.create", request, v.LogonView)


async def set_logon(mesh: MemoryMesh, name: str, users: q.LogonUsers, secret: str) -> None:
    request = q.LogonSet(name, "backup", users, await sealed(mesh, name, users, "v2", secret))
    await mesh.call("alpha", "logon.set", request, v.LogonView)


async def own_run(mesh: MemoryMesh, state: str) -> o.JobView:
    async def found() -> o.JobView | None:
        jobs = (await mesh.call("beta", "local.job.list", q.JobListRequest("all"), o.JobList)).jobs
        return next((row for row in jobs if row.run is not None and row.state == state), None)

    return await wait_for_async(found, 120.0, every_s=0.2, what=f"a run of beta is {state}")


@pytest.mark.jumping
async def test_a_copied_job_is_given_its_logon_without_any_connection(memory_mesh: Any, tmp_path: Any) -> None:
    told = tmp_path / "told"
    mesh: MemoryMesh = await memory_mesh(2)
    await mesh.stop("beta")
    words = f'echo "$CASO_MESH_LOGON_USER $CASO_MESH_LOGON_SECRET" >> {told}; echo dumped'
    with (mesh.state("beta") / "config.toml").open("a", encoding="utf-8") as file:
        file.write(f'[commands.db]\nkind = "dump"\nargv = ["/bin/sh", "-c", \'{words}\']\n')
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    await mesh.add_device("beta")
    await create_logon(mesh, "accounts", q.LogonUsers(("beta",)))
    listed = SelectionDoc(entries=(EntryDoc("beta:@db", logon="accounts"),))
    await mesh.call("alpha", "selection.create", q.SelectionCreate("dbs", listed), v.SelectionView)
    policy = PolicyDoc({"full": TemplateDoc("full", to="device:disk-beta")})
    await mesh.call("alpha", "policy.create", q.PolicyCreate("asked", policy), v.PolicyView)
    await mesh.call("alpha", "copy.to", q.CopyTo("server:beta", policies=("asked",), selections=("dbs",)), v.Copied)

    async def taken() -> bool:
        copies = (await mesh.call("alpha", "copy.list", q.CopyListRequest("beta"), v.CopyList)).copies
        return [copy.state for copy in copies] == ["taken"]

    await wait_for_async(taken, 60.0, every_s=0.2, what="the copy is taken")

    await mesh.stop("alpha")
    await mesh.call("beta", "local.job.run", q.JobName("dbs.asked.full"), o.Submitted)
    await own_run(mesh, "succeeded")
    assert told.read_text() == f"backup {SECRET}\n"

    # who may not use it any more learns it with his next orders: what he runs by himself waits then
    alpha = await mesh.run("alpha")

    async def in_office() -> bool:
        return alpha.in_office

    await wait_for_async(in_office, 60.0, every_s=0.1, what="alpha is in office again")
    await mesh.wait_connected("beta")
    await set_logon(mesh, "accounts", q.LogonUsers(("alpha",)), "another")

    async def gone() -> bool:
        return mesh.nodes["beta"].server.orders.logons == ()

    await wait_for_async(gone, 60.0, every_s=0.2, what="beta has no copy any more")
    await mesh.call("beta", "local.job.run", q.JobName("dbs.asked.full"), o.Submitted)
    waits = await own_run(mesh, "ready")
    assert waits.reason == "no-logon"


@pytest.mark.jumping
async def test_a_new_machine_is_handed_the_secrets_of_the_lost_one_by_another_that_has_them_or_by_a_person(
    memory_mesh: Any,
) -> None:
    mesh: MemoryMesh = await memory_mesh(3)
    await mesh.add_pool("west", "beta", "gamma")
    await create_logon(mesh, "shared", q.LogonUsers(pools=("west",)))
    await create_logon(mesh, "own", q.LogonUsers(("beta",)))
    await mesh.stop("beta")

    async def away() -> bool:
        return not next(row for row in await mesh.servers() if row.name == "beta").connected

    await wait_for_async(away, 60.0, every_s=0.2, what="the link with beta has ended")
    link = (await mesh.call("alpha", "token.create", q.TokenCreate(), v.TokenView)).link
    await join_mesh(
        link=link,
        server="beta",
        state=mesh.state("beta2"),
        listen=mesh.listen("beta2"),
        never_admin=True,
        replaces="beta",
        ports=mesh.ports("beta2", None),
    )

    async def logons() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        rows = (await mesh.call("alpha", "logon.list", q.Nothing(), v.LogonList)).logons
        return {row.name: (row.there, row.lacking) for row in rows}

    async def handed_on() -> bool:
        return (await logons())["shared"] == (("beta", "gamma"), ())

    await wait_for_async(handed_on, 60.0, every_s=0.2, what="gamma has handed it on")
    assert (await logons())["own"] == ((), ("beta",))

    async def lost() -> list[str]:
        alerts = (await mesh.call("alpha", "alert.list", q.AlertListRequest(), v.AlertList)).alerts
        return [row.object for row in alerts if row.category == "logon-lost"]

    async def told() -> bool:
        return await lost() == ["own"]

    await wait_for_async(told, 60.0, every_s=0.2, what="an alert says that nobody has the other one")
    await set_logon(mesh, "own", q.LogonUsers(("beta",)), "typed again")
    assert (await logons())["own"] == (("beta",), ())

    async def over() -> bool:
        return not await lost()

    await wait_for_async(over, 60.0, every_s=0.2, what="the alert is over")
