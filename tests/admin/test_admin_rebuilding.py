"""Catalog details that are lost, or change a set that is not here, are made anew by whoever reaches the device."""

from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path

import pytest
from admin.admin_world import admin_world, node

from caso_mesh.catalog.segment import CatalogEntry, SegmentWriter, chain_of
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.commands import AddDevice, RemoveServer, SetVoter
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import CasoError, DataDamaged, NotFound, TimedOut, Unavailable
from caso_mesh.model.storage import Device, DeviceKind, DevicePath

pytestmark = pytest.mark.jumping


def segment(backup, base=None) -> bytes:
    data = io.BytesIO()
    writer = SegmentWriter(data, set_id=backup.id, chain=chain_of(backup), base=base)
    writer.add(CatalogEntry(b"srv", EntryType.DIRECTORY))
    writer.finish()
    return data.getvalue()


def detail(backup, data: bytes) -> facts.CatalogDetail:
    return facts.CatalogDetail(backup.id, hashlib.sha256(data).digest(), len(data))


async def listed(w, backup):
    return [row.catalog for row in (await w.ask("set.list", q.SetListRequest())).sets if row.id == backup.id] == [True]


async def wait_listed(w, backup):
    async with asyncio.timeout(60):
        while not await listed(w, backup):  # noqa: ASYNC110 - in virtual time that costs nothing
            await asyncio.sleep(0.1)


async def test_a_detail_whose_base_is_deleted_is_made_anew_and_whole(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        lies = [segment(backup, base="a-deleted-set")]
        made: list[n.CatalogMake] = []
        link = w.links.get(node("beta"))

        def make(request: n.CatalogMake) -> n.CatalogMade:
            made.append(request)
            lies.append(segment(backup))
            return n.CatalogMade(hashlib.sha256(lies[-1]).digest(), len(lies[-1]))

        link.answers["catalog.make"] = make
        link.answers["catalog.read"] = lambda request: n.CatalogPiece(
            lies[-1][request.offset : request.offset + request.length], len(lies[-1])
        )
        await w.report("beta", *w.success(attempt, backup), detail(backup, lies[0]))
        await wait_listed(w, backup)
        assert made == [n.CatalogMake("dev-beta", backup.id, None)]


@pytest.mark.parametrize("wrong", ["size", "content", "set", "cut"])
async def test_a_detail_that_is_not_what_was_told_of_is_made_anew_out_of_the_tree(tmp_path: Path, wrong: str) -> None:
    """It was taken for damaged, for ever, though the tree that it is made of lies on the device."""
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        whole = segment(backup)
        lies = {
            "size": whole + b"x",
            "content": whole[:-1] + b"x",
            "set": segment(w.made_set(attempt)),
            "cut": whole[: len(whole) // 2],
        }[wrong]
        told = lies if wrong in {"set", "cut"} else whole  # what a server tells of may be of no use itself
        made: list[n.CatalogMake] = []
        link = w.links.get(node("beta"))

        def make(request: n.CatalogMake) -> n.CatalogMade:
            made.append(request)
            return n.CatalogMade(hashlib.sha256(whole).digest(), len(whole))

        def read(request: n.CatalogRead) -> n.CatalogPiece:
            data = whole if made else lies
            return n.CatalogPiece(data[request.offset : request.offset + request.length], len(data))

        link.answers["catalog.make"], link.answers["catalog.read"] = make, read
        await w.report("beta", *w.success(attempt, backup), detail(backup, told))
        await wait_listed(w, backup)
        assert made == [n.CatalogMake("dev-beta", backup.id, None)]
        assert not w.facts.alerts("catalog-error")


@pytest.mark.parametrize("error", [NotFound(kind="device", name="dev-shared"), TimedOut(what="the device", seconds=1)])
async def test_what_one_server_cannot_make_another_makes_that_reaches_the_device(
    tmp_path: Path, error: CasoError
) -> None:
    """A server that was put back may not know the device yet. Its answer was taken for the last word on the catalog."""
    async with admin_world(tmp_path) as w:
        places = (DevicePath(node("beta"), "/mnt/shared"), DevicePath(node("gamma"), "/mnt/shared"))
        await w.submit(AddDevice(Device("dshared", "dev-shared", DeviceKind.SHARED, "v-shared", places)))
        attempt = await w.delegated(await w.backup(to="device:dshared"))
        backup = w.made_set(attempt)
        whole = segment(backup)

        def cannot(request: n.CatalogMake) -> n.CatalogMade:
            raise error

        w.links.get(node("beta")).answers["catalog.make"] = cannot
        link = w.links.get(node("gamma"))
        link.answers["catalog.make"] = lambda request: n.CatalogMade(hashlib.sha256(whole).digest(), len(whole))
        link.answers["catalog.read"] = lambda request: n.CatalogPiece(whole[request.offset :], len(whole))
        # it was lost with the power
        await w.report(w.state.servers[attempt.server].name, *w.success(attempt, backup), detail(backup, b""))
        await wait_listed(w, backup)
        assert not w.facts.alerts("catalog-error")


async def test_a_rebuild_takes_in_what_lies_on_the_device_and_repeated_nothing(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        there, gone = w.made_set(attempt, vault="v-beta"), w.made_set(attempt, vault="v-beta")
        foreign = w.made_set(attempt, vault="another")
        link = w.links.get(node("beta"))
        made: list[str] = []

        def make(request: n.CatalogMake) -> n.CatalogMade:
            made.append(request.set)
            data = segment(there)
            return n.CatalogMade(hashlib.sha256(data).digest(), len(data))

        link.answers["vault.sets"] = lambda request: n.VaultSetsReply(
            tuple(sorted((there, gone, foreign), key=lambda each: each.id)) if not request.after else (),
            (gone.id,), {there.id: None}, False, ("a problem",),
        )  # fmt: skip
        link.answers["catalog.make"] = make
        link.answers["catalog.read"] = lambda request: n.CatalogPiece(
            segment(there)[request.offset : request.offset + request.length], len(segment(there))
        )
        first = await w.ask("catalog.rebuild", q.DeviceName("dbeta"))
        assert (first.sets, first.added, first.deleted, first.pending, first.server) == (1, 1, 0, 1, "beta")
        assert any("another device" in text for text in first.warnings)
        assert "a problem" in first.warnings
        await wait_listed(w, there)
        (row,) = (await w.ask("set.list", q.SetListRequest())).sets
        assert (row.id, row.locked, row.protected_until) == (there.id, True, None)
        again = await w.ask("catalog.rebuild", q.DeviceName("dbeta"))
        assert (again.sets, again.added, again.pending) == (1, 0, 0)
        assert made == [there.id]
        with pytest.raises(NotFound):
            await w.ask("catalog.rebuild", q.DeviceName("nothing"))
        w.links.down(node("beta"))
        with pytest.raises(Unavailable):
            await w.ask("catalog.rebuild", q.DeviceName("dbeta"))


@pytest.mark.parametrize("back", [True, False])
async def test_a_set_that_was_deleted_is_looked_for_again_before_it_is_believed_to_be_back(
    tmp_path: Path, back: bool
) -> None:
    """A page that was read before the set was deleted would bring it back."""
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt, vault="v-beta")
        await w.report("beta", *w.success(attempt, backup), facts.SetDeleted(backup.id, "dev-beta", "me"))
        pages = [n.VaultSetsReply((backup,), (), {}, more=False)]
        pages += [n.VaultSetsReply((backup,), () if back else (backup.id,), {}, more=False)]
        link = w.links.get(node("beta"))
        link.answers["vault.sets"] = lambda request: pages.pop(0)
        done = await w.ask("catalog.rebuild", q.DeviceName("dbeta"))
        assert not pages
        assert done.added == back
        assert await w.tables.sets() == [backup] * back


async def test_the_catalog_that_a_server_had_which_left_the_mesh_is_made_anew_by_another_one(tmp_path: Path) -> None:
    """Another machine had taken its place before the catalog was fetched: it was waited for the lost one, for ever."""
    async with admin_world(tmp_path) as w:
        places = (DevicePath(node("beta"), "/mnt/shared"), DevicePath(node("gamma"), "/mnt/shared"))
        await w.submit(AddDevice(Device("dshared", "dev-shared", DeviceKind.SHARED, "v-shared", places)))
        attempt = await w.delegated(await w.backup(to="device:dshared"))
        maker, other = sorted((node("beta"), node("gamma")), key=lambda each: each != attempt.server)
        backup = w.made_set(attempt)
        whole = segment(backup)
        link = w.links.get(other)
        link.answers["catalog.make"] = lambda request: n.CatalogMade(hashlib.sha256(whole).digest(), len(whole))
        link.answers["catalog.read"] = lambda request: n.CatalogPiece(whole[request.offset :], len(whole))
        w.links.down(maker)
        await w.report(w.state.servers[maker].name, *w.success(attempt, backup), detail(backup, whole))
        await asyncio.sleep(5.0)
        assert not await listed(w, backup)
        await w.submit(RemoveServer(maker, node("alpha")))
        await wait_listed(w, backup)
        assert not w.facts.alerts("catalog-error")


async def test_what_was_of_no_use_comes_from_another_voter_as_soon_as_that_has_it_and_the_tree_is_read_once(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await w.submit(SetVoter(node("gamma"), True, b"its issuing certificate"))
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        whole, read, asked = segment(backup), list[str](), list[n.CatalogMake]()

        def damaged(request: n.CatalogMake) -> n.CatalogMade:
            if not request.device:
                raise NotFound(kind="catalog", name=request.set)
            read.append(request.set)
            raise DataDamaged(object="its tree", detail="as it is")

        def copied(request: n.CatalogMake) -> n.CatalogMade:
            asked.append(request)
            if len(asked) < 4:
                raise NotFound(kind="catalog", name=request.set)
            return n.CatalogMade(hashlib.sha256(whole).digest(), len(whole))

        w.links.get(node("beta")).answers["catalog.make"] = damaged
        link = w.links.get(node("gamma"))
        link.answers["catalog.make"] = copied
        link.answers["catalog.read"] = lambda request: n.CatalogPiece(whole[request.offset :], len(whole))
        await w.report("beta", *w.success(attempt, backup), detail(backup, b""))
        await w.until(lambda: w.facts.alerts("catalog-error"))
        await w.until(lambda: len(asked) == 4, 3600.0)
        await wait_listed(w, backup)
        assert (read, set(asked)) == ([backup.id], {n.CatalogMake("", backup.id, None)})
        assert len(w.facts.alerts("catalog-error")) == 1


async def test_other_voters_are_told_what_a_rebuild_found_and_what_was_of_no_use_here_is_tried_again(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await w.submit(SetVoter(node("gamma"), True, b"its issuing certificate"))
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt, vault="v-beta")
        whole = segment(backup)
        link = w.links.get(node("beta"))

        def gone(request: n.CatalogMake) -> n.CatalogMade:
            raise NotFound(kind="set", name=request.set)

        link.answers["catalog.make"] = gone
        link.answers["catalog.read"] = lambda request: n.CatalogPiece(whole[request.offset :], len(whole))
        link.answers["vault.sets"] = lambda request: n.VaultSetsReply((backup,), (), {}, more=False)
        await w.report("beta", *w.success(attempt, backup), detail(backup, b""))
        await w.until(lambda: w.facts.alerts("catalog-error"))
        link.answers["catalog.make"] = lambda request: n.CatalogMade(hashlib.sha256(whole).digest(), len(whole))
        told = len(w.facts.all)
        assert (await w.ask("catalog.rebuild", q.DeviceName("dbeta"))).pending == 1
        await wait_listed(w, backup)
        assert w.links.get(node("gamma")).told("catalog.found") == [{"sets": (backup.id,)}]
        assert not any(isinstance(each, facts.SetFound) for each in w.facts.all[told:]), "nothing of it is news"
