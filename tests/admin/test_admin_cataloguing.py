"""Catalogs made anew as a job: what an attempt found is taken in, and it is told how far the catalogs are."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from admin.admin_world import admin_world, node
from admin.test_admin_inventory import backed_up, found
from admin.test_admin_rebuilding import detail, segment, wait_listed

from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.calls import BY_NAME
from caso_mesh.model.cataloguing import DeviceCatalog
from caso_mesh.model.commands import SetSetting
from caso_mesh.model.device_jobs import Catalogued
from caso_mesh.model.device_work import CatalogsAsked, CatalogsStand, DeviceLacks
from caso_mesh.model.errors import DataDamaged, NotFound
from caso_mesh.model.inventories import ScheduleWords
from caso_mesh.model.states import AttemptState

pytestmark = pytest.mark.jumping


async def begun(w, *devices):
    """The attempts of a new job."""
    run = (await w.ask("catalog.remake", DeviceCatalog(tuple(devices)))).run
    await w.until(lambda: all(part.attempts for part in w.state.runs[run].parts))
    return w.state.attempts_of(run)


async def stand(w, attempt, *sets):
    asked = CatalogsAsked(attempt.id, tuple(each.id for each in sets))
    return await w.node_call(attempt.server, "device.catalogs", asked)


def makes(w, *backups):
    """Beta makes the catalogs of these, once it is asked."""
    made: list[str] = []
    link = w.links.get(node("beta"))
    whole = {each.id: segment(each) for each in backups}

    def make(request: n.CatalogMake) -> n.CatalogMade:
        made.append(request.set)
        return n.CatalogMade(hashlib.sha256(whole[request.set]).digest(), len(whole[request.set]))

    def read(request: n.CatalogRead) -> n.CatalogPiece:
        data = whole[request.set]
        return n.CatalogPiece(data[request.offset : request.offset + request.length], len(data))

    link.answers["catalog.make"], link.answers["catalog.read"] = make, read
    return made


async def test_what_nobody_knew_is_taken_in_and_its_catalog_waited_for(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        there, gone, foreign = (w.made_set(attempt, vault=vault) for vault in ("v-beta", "v-beta", "another"))
        made = makes(w, there)
        await w.report("beta", w.end(attempt, AttemptState.FAILED))
        (attempt,) = await begun(w, "dbeta")
        assert (attempt.server, attempt.device, attempt.source) == (node("beta"), "dev-beta", "dev-beta")
        page = found(attempt, there, gone, foreign, deleted=(gone.id,), locks={there.id: None})
        said = await w.node_call(attempt.server, "device.found", page)
        assert (said.added, said.lacking, said.foreign, said.missing) == ((there.id,), (there.id,), (foreign.id,), ())
        async with asyncio.timeout(60):
            while await stand(w, attempt, there) != CatalogsStand():  # noqa: ASYNC110 - in virtual time that costs nothing
                await asyncio.sleep(0.1)
        assert made == [there.id]
        (row,) = (await w.ask("set.list", q.SetListRequest())).sets
        assert (row.id, row.locked, row.catalog) == (there.id, True, True)
        again = await w.node_call(attempt.server, "device.found", page)
        assert (again.added, again.lacking) == ((), ())
        told = Catalogued(1, 0, 1, 1, 1, 3, 0.5)
        await w.report("beta", w.end(attempt, AttemptState.SUCCEEDED, catalogued=told))
        shown = await w.ask("job.show", q.JobName(attempt.run))
        catalog = shown.runs[0].attempts[0].catalog
        assert (catalog.device, catalog.lacked, catalog.made, catalog.files) == ("dbeta", 1, 1, 3)
        assert (shown.kind, shown.spec) == ("catalog", {"devices": ["dbeta"]})


async def test_what_an_inventory_finds_without_a_catalog_is_left_to_a_job_of_its_own(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await backed_up(w)
        run = (await w.ask("device.inventory", DeviceCatalog(("dbeta",)))).run
        await w.until(lambda: all(part.attempts for part in w.state.runs[run].parts))
        (inventory,) = w.state.attempts_of(run)
        assert (await w.node_call(inventory.server, "device.found", found(inventory, backup))).lacking == ()
        with pytest.raises(NotFound):
            await stand(w, inventory, backup)


async def test_of_a_catalog_that_a_server_keeps_which_is_away_that_one_is_named(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await backed_up(w)
        await w.submit(SetSetting("catalog-mode", "distributed"))
        (attempt,) = await begun(w, "dbeta")
        said = await w.node_call(attempt.server, "device.found", found(attempt, backup))
        assert said.lacking == (backup.id,)
        assert await stand(w, attempt, backup) == CatalogsStand((backup.id,))
        w.links.down(node("beta"))
        assert await stand(w, attempt, backup) == CatalogsStand(away={backup.id: "beta"})


async def test_what_cannot_be_made_is_damaged_and_a_job_has_it_tried_again(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt, vault="v-beta")

        def cannot(request: n.CatalogMake) -> n.CatalogMade:
            raise DataDamaged(object="its tree", detail="a record is not what it was")

        w.links.get(node("beta")).answers["catalog.make"] = cannot
        await w.report("beta", *w.success(attempt, backup), detail(backup, b""))
        await w.until(lambda: w.facts.alerts("catalog-error"))
        (attempt,) = await begun(w, "dbeta")
        assert await stand(w, attempt, backup) == CatalogsStand(damaged=(backup.id,))
        made = makes(w, backup)
        said = await w.node_call(attempt.server, "device.found", found(attempt, backup))
        assert (said.added, said.lacking) == ((), (backup.id,))
        await wait_listed(w, backup)
        assert made == [backup.id]


async def test_only_the_attempt_that_runs_at_a_server_is_answered_and_it_says_nothing_of_missing_sets(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        backup = await backed_up(w)
        (attempt,) = await begun(w, "dbeta")
        with pytest.raises(NotFound):
            await w.node_call(node("gamma"), "device.catalogs", CatalogsAsked(attempt.id, (backup.id,)))
        with pytest.raises(NotFound):
            await w.node_call(attempt.server, "device.lacks", DeviceLacks(attempt.id, (backup.id,)))


async def test_such_a_job_concerns_the_servers_that_reach_its_devices_and_one_of_all_the_whole_mesh(
    tmp_path: Path,
) -> None:
    """Who is operator of one server could submit it, and was then refused a look at it."""
    async with admin_world(tmp_path) as w:
        for devices, servers in (
            (("dbeta",), {node("beta")}),
            (("dbeta", "dgamma"), {node("beta"), node("gamma")}),
            ((), set()),
        ):
            run = (await w.ask("catalog.remake", DeviceCatalog(devices))).run
            assert await w.office.concerned(BY_NAME["job.show"], q.JobName(run)) == servers


async def test_it_recurs_as_any_job_does_and_is_about_all_devices_that_take_work(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        request = DeviceCatalog((), name="monthly", when=ScheduleWords("sun 06:00", "Europe/Berlin"))
        submitted = await w.ask("catalog.remake", request)
        assert (submitted.run, submitted.name) == (None, "monthly")
        (row,) = (await w.ask("schedule.preview", q.SchedulePreview())).runs
        assert row.job == "monthly"
        again = await w.ask("job.run", q.JobName("monthly"))
        await w.until(lambda: len(w.state.attempts_of(again.run)) == 2)
