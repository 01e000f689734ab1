"""Device and media data on the server: nothing is delegated to it, its own work goes on, its catalog is distributed."""

from __future__ import annotations

import asyncio

import pytest
from mesh.catalog_site import ls, mode_of, set_mode, settled
from mesh.test_catalog_modes import a_site
from waiting import wait_for_async

from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import DataLocationRefused
from caso_mesh.model.states import DataLocation

pytestmark = pytest.mark.jumping


async def lie_on(mesh, location):
    await mesh.call("alpha", "server.set", q.ServerSet("beta", location), v.ServerView)


async def test_on_the_server_nothing_is_delegated_own_work_goes_on_and_its_catalog_is_distributed(
    memory_mesh, tmp_path
):
    mesh, tree = await a_site(memory_mesh, tmp_path, None)
    with pytest.raises(DataLocationRefused, match="with the catalog mode centralized"):
        await lie_on(mesh, DataLocation.SERVER)
    await set_mode(mesh, "distributed")
    await lie_on(mesh, DataLocation.SERVER)
    with pytest.raises(DataLocationRefused, match="replicated"):
        await set_mode(mesh, "replicated")

    # what is delegated waits, and says why; so does a restore from there
    run = (await mesh.backup("alpha", tree, "device:disk-beta")).run
    await asyncio.sleep(10.0)
    (waiting,) = [row for row in await mesh.jobs() if row.run == run]
    assert (waiting.state, waiting.reason) == ("ready", "data-on-server")
    assert waiting.reason_text == "the device and media data of beta are on it: nothing is delegated there"

    # its own work needs nobody's leave
    request = q.BackupRequest((("beta", bytes(tree)),), "device:disk-beta")
    await mesh.call("beta", "local.backup", request, o.Submitted)

    async def made() -> str | None:
        sets = await mesh.sets()
        return sets[0].id if sets else None

    set_id = await wait_for_async(made, 60.0, every_s=0.5, what="the own job has made a set")
    view = await settled(mesh, sets=1)
    assert (view.mode, view.origin, view.at_admin, view.at_server) == ("distributed", "data-location", 0, 1)
    assert (await ls(mesh, set_id, tree)).entries
    assert (await mesh.call("alpha", "set.list", q.SetListRequest(), b.SetList)).sets[0].catalog

    # the way back is one command
    await lie_on(mesh, DataLocation.ADMIN)
    assert (await mesh.result(run)).state == "succeeded"
    await set_mode(mesh, None)
    assert (await mode_of(mesh)).mode == "centralized"
    view = await settled(mesh, sets=2)
    assert (view.at_admin, view.at_server) == (2, 0)


async def test_the_catalog_of_own_work_is_kept_on_the_server_without_any_connection(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path, "distributed")
    await settled(mesh, sets=0)
    await asyncio.sleep(5.0)
    await mesh.stop("alpha")
    request = q.BackupRequest((("beta", bytes(tree)),), "device:disk-beta")
    await mesh.call("beta", "local.backup", request, o.Submitted)
    own = mesh.nodes["beta"].server.kept.catalogs
    await wait_for_async(lambda: len(own._mine) == 1, 60.0, every_s=0.5, what="the server has its catalog")
    (set_id,) = own._mine
    await mesh.run("alpha")

    async def listed() -> bool:
        return [row.id for row in await mesh.sets()] == [set_id] and (await mode_of(mesh)).state == "settled"

    await wait_for_async(lambda: _quietly(listed), 60.0, every_s=0.5, what="the set is known")
    assert (await ls(mesh, set_id, tree)).entries


async def _quietly(ask) -> bool:
    try:
        return await ask()
    except Exception as error:
        if getattr(error, "exit_status", None) != 3:
            raise
        return False
