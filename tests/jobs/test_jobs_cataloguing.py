"""Catalogs made anew out of a device: what lies there is told, and it is waited for what those make who keep them."""

from __future__ import annotations

import pytest
from job_site import listen, run

from caso_mesh.jobs import cataloguing
from caso_mesh.jobs import messages as say
from caso_mesh.model.device_jobs import CatalogSpec
from caso_mesh.model.device_work import CatalogsStand, DeviceCompared
from caso_mesh.model.states import AttemptState

SPEC = CatalogSpec(("dev1",))


@pytest.fixture
async def two(site, runner, tmp_path):
    """Two sets in the device, of one file each."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"content" * 1000)
    return [(await run(runner, site.task(site.backup_spec(tree)))).set for _ in range(2)]


async def make(runner, site, compared, stands, on_stand=lambda worker: None):
    """Has it made; the administrator says ``compared`` to the page, and ``stands`` one after the other."""
    worker = await runner.start(site.task(SPEC))
    asked, left = [], list(stands)

    async def on(message):
        if isinstance(message, say.Consults):
            asked.append(message)
            if message.found is not None:
                await worker.send(say.Answered(compared=compared))
            elif left:
                await worker.send(say.Answered(catalogs=left.pop(0)))
            else:
                await on_stand(worker)

    heard = await listen(worker, on=on)
    return heard, asked


def lacking(*sets):
    return DeviceCompared(lacking=tuple(each.id for each in sets))


async def test_it_ends_when_the_last_catalog_is_there_and_changes_nothing_in_the_device(site, threads, two):
    before = {path: path.stat().st_mtime_ns for path in site.device.rglob("*")}
    one, other = two
    stands = [CatalogsStand((one.id, other.id)), CatalogsStand((other.id,)), CatalogsStand()]
    heard, asked = await make(threads, site, lacking(*two), stands)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    made = heard.ended.catalogued
    assert (made.sets, made.deleted, made.added, made.lacked, made.made, made.files) == (2, 0, 0, 2, 2, 2)
    assert [set(each.catalogs.sets) for each in asked[1:]] == [{one.id, other.id}, {one.id, other.id}, {other.id}]
    assert heard.ended.counts.files == 2
    assert any("1 of 2 catalogs with 1 files took" in line for line in heard.lines), "it says how long it will take"
    assert {path: path.stat().st_mtime_ns for path in site.device.rglob("*")} == before


async def test_where_nothing_is_missing_nobody_is_waited_for(site, threads, two):
    said = DeviceCompared(added=(two[0].id,), missing=("01gone",))
    heard, asked = await make(threads, site, said, [])
    made = heard.ended.catalogued
    assert (heard.ended.state, made.added, made.lacked, made.made) == (AttemptState.SUCCEEDED, 1, 0, 0)
    assert len(asked) == 1
    assert any("01gone" in line and "device inventory" in line for line in heard.lines)


async def test_what_a_server_that_is_away_keeps_is_an_exception_that_names_it(site, threads, two):
    one, _ = two
    heard, _ = await make(threads, site, lacking(*two), [CatalogsStand(away={one.id: "gamma"})])
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    (exception,) = heard.exceptions
    assert (exception.path, exception.reason) == (f"sets/{one.id}".encode(), "catalog-away")
    assert "gamma" in exception.detail
    assert (heard.ended.catalogued.lacked, heard.ended.catalogued.made) == (2, 1)


async def test_what_is_damaged_is_believed_only_when_it_still_is_after_a_while(
    site, threads, two, monkeypatch: pytest.MonkeyPatch
):
    """That it is made anew may not be told yet when it is asked for the first time."""
    monkeypatch.setattr(cataloguing, "_SURE_AFTER_S", 0.0)
    one, other = two
    damaged = CatalogsStand((other.id,), damaged=(one.id,))
    stands = [damaged, CatalogsStand((one.id, other.id)), damaged, damaged, CatalogsStand()]
    heard, _ = await make(threads, site, lacking(*two), stands)
    (exception,) = heard.exceptions
    assert (exception.path, exception.reason) == (f"sets/{one.id}".encode(), "catalog-damaged")
    assert heard.ended.catalogued.made == 1


async def test_what_does_not_come_is_not_waited_for_without_end_and_a_cancel_ends_the_waiting(
    site, threads, two, monkeypatch: pytest.MonkeyPatch
):
    pending = CatalogsStand(tuple(each.id for each in two))

    async def cancel(worker):
        await worker.send(say.Cancel())

    heard, _ = await make(threads, site, lacking(*two), [pending], cancel)
    assert heard.ended.state is AttemptState.CANCELED
    monkeypatch.setattr(cataloguing, "PATIENCE_S", 0.0)
    heard, _ = await make(threads, site, lacking(*two), [pending])
    assert {each.reason for each in heard.exceptions} == {"catalog-not-made"}
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
