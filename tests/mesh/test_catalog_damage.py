"""A catalog that is damaged or lost, at a voter or at the server that keeps it: named by an alert, made anew, and nothing
else stops."""

from __future__ import annotations

import shutil

import pytest
from mesh.catalog_site import admin_at, browsed, settled
from mesh.test_catalog_modes import a_site, two_sets
from waiting import wait_for_async

from caso_mesh.model import browsing as b
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError

pytestmark = pytest.mark.jumping


def spoil(folder, name):
    """All but the first pages, and what would repair them."""
    for left in (f"{name}-wal", f"{name}-shm"):
        (folder / left).unlink(missing_ok=True)
    with (folder / name).open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def garble(folder, name):
    (folder / name).write_bytes(b"not a database" * 1000)


def lose(folder, name):
    for left in folder.glob(f"{name}*"):
        left.unlink()


async def alerts(mesh) -> set[tuple[str, str]]:
    rows = (await mesh.call("alpha", "alert.list", q.AlertListRequest(all=True), v.AlertList)).alerts
    return {(row.category, row.server) for row in rows if row.category.startswith("catalog-")}


@pytest.mark.parametrize("harm", [spoil, garble, lose])
@pytest.mark.parametrize(("mode", "where", "name"), [
    ("distributed", "beta", "own.db"), ("replicated", "beta", "own.db"), ("centralized", "alpha", "catalog.db"),
])  # fmt: skip
async def test_a_catalog_that_is_damaged_or_lost_is_named_and_made_anew_and_nothing_else_stops(
    memory_mesh, tmp_path, harm, mode, where, name
):
    mesh, tree = await a_site(memory_mesh, tmp_path, mode)
    sets = await two_sets(mesh, tree)
    await settled(mesh, sets=2)
    seen = await browsed(mesh, sets, tree, "changed")
    for left in (mesh.state("beta") / "catalog" / "segments").glob("*"):
        left.unlink()
    await mesh.stop(where)
    harm(mesh.state(where) / "catalog", name)
    await mesh.run(where)
    await admin_at(mesh, "alpha", "alpha")
    await mesh.wait_connected("beta")
    again = await mesh.result((await mesh.backup("beta", tree, "server:beta", type="incremental")).run)
    assert again.state == "succeeded"

    await wait_for_async(lambda: _complete(mesh, sets, tree), 300.0, every_s=1.0, what="all is there again")
    kind = "catalog-lost" if harm is lose else "catalog-damaged"

    async def told() -> bool:
        return (kind, where) in await alerts(mesh)

    await wait_for_async(told, 30.0, what="it is told of")
    aside = list((mesh.state(where) / "catalog").glob(f"{name}.damaged"))
    assert bool(aside) is (harm is not lose)
    after = await browsed(mesh, sets, tree, "changed")
    assert after.folders == seen.folders


async def _complete(mesh, sets, tree) -> bool:
    try:
        view = await settled(mesh, sets=3, timeout_s=30.0)
        return bool((await browsed(mesh, sets, tree, "changed")).folders) and view.state == "settled"
    except (CasoError, AssertionError):
        return False


async def test_what_nobody_has_any_more_is_made_out_of_the_device_also_by_a_rebuild(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path, "distributed")
    sets = await two_sets(mesh, tree)
    await settled(mesh, sets=2)
    seen = await browsed(mesh, sets, tree, "changed")
    await mesh.stop("beta")
    await mesh.stop("alpha")
    shutil.rmtree(mesh.state("beta") / "catalog")
    shutil.rmtree(mesh.state("alpha") / "catalog")
    await mesh.run("alpha")
    await mesh.run("beta")
    await admin_at(mesh, "alpha", "alpha")
    await mesh.wait_connected("beta")
    rebuilt = await mesh.call("alpha", "catalog.rebuild", q.DeviceName("disk-beta"), b.CatalogRebuilt)
    assert (rebuilt.sets, rebuilt.warnings) == (2, ())
    await settled(mesh, sets=2)
    await wait_for_async(lambda: _as_it_was(mesh, sets, tree, seen), 120.0, every_s=1.0, what="it is as it was")


async def _as_it_was(mesh, sets, tree, seen) -> bool:
    try:
        return await browsed(mesh, sets, tree, "changed") == seen
    except CasoError:
        return False
