"""Each voter mends its own catalog: from another voter, or out of the device, whichever is there."""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest
from mesh.catalog_site import admin_at, browsed, settled, small_tree
from mesh.test_catalog_damage import lose
from mesh.test_catalog_modes import two_sets
from mesh.test_keeping import three_voters
from waiting import wait_for_async

from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError, LinkLost
from caso_mesh.model.inventories import DeviceInventory

pytestmark = pytest.mark.jumping

VOTERS = ("alpha", "beta", "gamma")


async def a_site(memory_mesh, tmp_path):
    """Three voters, and delta with two sets whose catalogs all of them have."""
    tree = small_tree(tmp_path / "data")
    mesh = await memory_mesh(4, voters=True)
    await three_voters(mesh)
    await mesh.add_device("delta")
    sets = await two_sets(mesh, tree, source="delta", at="delta")
    await settled(mesh, "delta", sets=2)
    await stand(mesh, sets, "here", VOTERS)
    return mesh, tree, sets


async def stand(mesh, sets, state, voters, timeout_s=600.0) -> None:
    """Until some voters are so far with the catalogs of all sets."""

    async def so_far() -> bool:
        for name in voters:
            node = mesh.nodes.get(name)
            voter = None if node is None else node.seat.voter
            if voter is None or await voter.tables.detail_states(sets) != dict.fromkeys(sets, state):
                return False
            # a catalog that was lost is noticed a moment later
            if {await voter.catalog.has_detail(each) for each in sets} != {state == "here"}:
                return False
        return True

    await wait_for_async(so_far, timeout_s, every_s=1.0, what=f"catalogs are {state} at {voters}")


async def in_office(mesh, name) -> None:
    """Whoever is, alpha has the key."""
    if (await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).admin != name:
        with suppress(LinkLost):  # whoever hands over may have done so before it can say so
            await mesh.call("alpha", "admin.transfer", q.AdminTransfer(name), v.Done, timeout_s=30.0)
    await admin_at(mesh, "alpha", name)


async def everywhere(mesh, sets, tree, seen) -> None:
    """Each voter shows the same, when it is in office."""
    for name in VOTERS:
        await in_office(mesh, name)
        await wait_for_async(
            lambda: _shows(mesh, sets, tree, seen), 60.0, every_s=1.0, what=f"{name} shows what it showed"
        )


async def _shows(mesh, sets, tree, seen) -> bool:
    try:
        return await browsed(mesh, sets, tree, "changed", source="delta") == seen
    except CasoError:
        return False


async def test_a_voter_that_lost_its_catalog_takes_it_from_another_one_while_nobody_reaches_the_device(
    memory_mesh, tmp_path
):
    mesh, tree, sets = await a_site(memory_mesh, tmp_path)
    seen = await browsed(mesh, sets, tree, "changed", source="delta")
    await admin_at(mesh, "alpha", "alpha")
    await mesh.stop("delta")
    await mesh.stop("gamma")
    lose(mesh.state("gamma") / "catalog", "catalog.db")
    await mesh.run("gamma")
    await stand(mesh, sets, "here", ["gamma"])
    await mesh.run("delta")
    await mesh.wait_connected("delta")
    await everywhere(mesh, sets, tree, seen)


@pytest.mark.parametrize("way", ["inventory", "rebuild"])
async def test_what_was_of_no_use_to_all_voters_each_of_them_has_again_when_the_device_has_it(
    memory_mesh, tmp_path, way
):
    """Only the one in office mended its copy: what an inventory finds was compared with what it had itself."""
    mesh, tree, sets = await a_site(memory_mesh, tmp_path)
    seen = await browsed(mesh, sets, tree, "changed", source="delta")
    device = mesh.folder / "disk-delta" / "sets"
    shutil.move(device, tmp_path / "aside")
    device.mkdir()
    for left in (mesh.state("delta") / "catalog" / "segments").glob("*"):
        left.unlink()
    for name in VOTERS:
        await mesh.stop(name)
        lose(mesh.state(name) / "catalog", "catalog.db")
    for name in VOTERS:
        await mesh.run(name)
    await admin_at(mesh, "alpha", *VOTERS)
    await stand(mesh, sets, "damaged", VOTERS)

    device.rmdir()
    shutil.move(tmp_path / "aside", device)
    if way == "inventory":
        made = await mesh.call("alpha", "device.inventory", DeviceInventory(("disk-delta",)), o.Submitted)
        assert (await mesh.result(made.run)).state == "succeeded"
    else:
        rebuilt = await mesh.call("alpha", "catalog.rebuild", q.DeviceName("disk-delta"), b.CatalogRebuilt)
        assert (rebuilt.sets, rebuilt.pending) == (2, 2)
    await stand(mesh, sets, "here", VOTERS, timeout_s=50.0)
    await everywhere(mesh, sets, tree, seen)
