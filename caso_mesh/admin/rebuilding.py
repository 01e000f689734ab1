"""Making the records of a device anew: its sets as they lie in its vault, and the catalog out of their trees.

What was found is told in the journal of the server in office, so that every voter has it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from msgspec import Struct

from caso_mesh.admin import catalog_details
from caso_mesh.admin.live import Live
from caso_mesh.admin.on_device import Unreached, readers_of
from caso_mesh.admin.ports import Answer, Caller, Facts, Links
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.whereabouts import Whereabouts
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.device_work import CatalogsStand
from caso_mesh.model.errors import CasoError, Unavailable
from caso_mesh.model.storage import BackupSet, Device
from caso_mesh.wire.codec import to_wire
from caso_mesh.wire.typed import ask

_PAGE_S = 150.0
#: So many ids differ in their last character only.
_LIKE_ONE = 32
#: What this server tells in its own journal is in its own tables within this time.
_TAKEN_IN_S = 60.0
#: Who is said to have found a tombstone or a lock.
_WHO = "catalog rebuild"


class Told(Struct, frozen=True):
    """What came of a page (ids): sets that were new, known ones that are deleted there, and those that are known with another
    content."""

    added: list[str]
    deleted: list[str]
    differ: list[str]


class Taken(Struct, frozen=True):
    """What was made of a page: the sets that are there, what was ``told`` of them, those that have no catalog where it is to
    be and get one now, and (ids) those of another device. ``warnings`` are for people."""

    there: list[BackupSet]
    told: Told
    lacking: list[BackupSet]
    foreign: list[str]
    warnings: list[str]


class Rebuilding:
    """Takes in what lies on devices. ``own`` is the node id of the server in office; ``wake`` has the catalog details fetched
    that are missing."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        catalog: Catalog,
        where: Whereabouts,
        live: Live,
        links: Links,
        unreached: Unreached,
        journal: Facts,
        own: str,
        wake: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._catalog = catalog
        self._where = where
        self._live = live
        self._links = links
        self._unreached = unreached
        self._journal = journal
        self._own = own
        self._wake = wake

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"catalog.rebuild": self._rebuild}

    async def _rebuild(self, caller: Caller, request: q.DeviceName) -> b.CatalogRebuilt:
        return await self.rebuild(request.name)

    async def rebuild(self, name: str) -> b.CatalogRebuilt:
        """Repeated, nothing happens. Raises ``NotFound``, ``Unavailable`` while no server reaches the device."""
        state = self._keeper.state
        device = state.device_named(name)
        readers = readers_of(state, self._live, self._links, device.id)
        if not readers:
            raise self._unreached(device.id)
        server, link = readers[0], self._links.get(readers[0])
        after, total, added, deleted, pending = "", 0, 0, 0, 0
        warnings: dict[str, None] = {}
        more = True
        while more:
            asked = n.VaultSets(device.id, after)
            page = await ask(link, "vault.sets", asked, n.VaultSetsReply, timeout_s=_PAGE_S)
            found = await self.take(device, server, page.sets, page.deleted, page.locks, catalogs=True)
            warnings |= dict.fromkeys((*page.problems, *found.warnings))
            total, pending = total + len(found.there), pending + len(found.lacking)
            added, deleted = added + len(found.told.added), deleted + len(found.told.deleted)
            more = page.more and bool(page.sets)
            after = page.sets[-1].id if page.sets else after
        return b.CatalogRebuilt(
            device=device.name,
            server=state.name_of(server),
            sets=total,
            added=added,
            deleted=deleted,
            pending=pending,
            warnings=tuple(warnings)[:50],
        )

    async def take(
        self,
        device: Device,
        server: str,
        sets: Sequence[BackupSet],
        deleted: Sequence[str],
        locks: Mapping[str, int | None],
        *,
        catalogs: bool,
    ) -> Taken:
        """Takes in a page of what ``server`` (node id) found on a device: ``deleted`` of ``sets`` have a tombstone. With
        ``catalogs`` those that have none where it is to be get one. Raises ``Unavailable``."""
        gone = set(deleted)
        mine = [each for each in sets if each.device == device.id and each.vault == device.vault]
        foreign = [each.id for each in sets if each.device != device.id or each.vault != device.vault]
        there = sorted((each for each in mine if each.id not in gone), key=lambda each: each.started_at_ns)
        doubtful = (await self._tables.gone_from(device.id)).intersection(each.id for each in there)
        again = {each for each in sorted(doubtful) if await self._lies_there(device, server, each)}
        there = [each for each in there if each.id not in doubtful or each.id in again]
        lacking = await self.lacking(there) if catalogs else []
        states = await self._tables.detail_states([each.id for each in there])
        again_here = [*(each.id for each in lacking), *(each for each, state in states.items() if state == "damaged")]
        await self._tables.change(partial(catalog_details.again, set_ids=again_here, reader=server))
        told = await self._tell(device, server, there, [each.id for each in mine if each.id in gone], locks, again)
        warnings = [f"the set {each} was made for another device and is passed over" for each in foreign]
        warnings += [f"the set {each} is known with another content; that stays" for each in told.differ]
        if again_here:
            self._wake()
        await self._tell_voters([each.id for each in there])
        for keeper in sorted({keeper for each in lacking if (keeper := self._keeper_of(each)) is not None}):
            warnings += await self._have_made(keeper)
        return Taken(there, told, lacking, foreign, warnings)

    async def _lies_there(self, device: Device, server: str, set_id: str) -> bool:
        """Whether a set that was found though it is known to be deleted really lies there: a page is as old as its way is
        long, and it may have been deleted since. Raises ``Unavailable``."""
        asked = n.VaultSets(device.id, set_id[:-1], limit=_LIKE_ONE)
        page = await ask(self._links.get(server), "vault.sets", asked, n.VaultSetsReply, timeout_s=_PAGE_S)
        return any(each.id == set_id for each in page.sets) and set_id not in page.deleted

    async def lacking(self, sets: Sequence[BackupSet]) -> list[BackupSet]:
        """Of some sets those that have no catalog where their mode has it."""
        kept = await self._where.kept(sets)
        return [each for each in sets if await self._lacks(each, kept=each.id in kept)]

    async def stand(self, set_ids: Sequence[str]) -> CatalogsStand:
        """How far the catalogs of some sets are."""
        known = [each for id_ in set_ids if (each := await self._tables.set(id_)) is not None]
        lacking = await self.lacking(known)
        states = await self._tables.detail_states([each.id for each in lacking])
        away: dict[str, str] = {}
        damaged: list[str] = []
        for each in lacking:
            keeper = self._keeper_of(each)
            if self._where.mode_of(each).at_voters and not await self._catalog.has_detail(each.id):
                damaged += [each.id] * (states.get(each.id) == "damaged")
            elif keeper is not None and not self._links.linked(keeper):
                away[each.id] = self._keeper.state.name_of(keeper)
        pending = tuple(each.id for each in lacking if each.id not in away and each.id not in damaged)
        return CatalogsStand(pending, away, tuple(damaged))

    async def _lacks(self, backup: BackupSet, *, kept: bool) -> bool:
        """Whether the catalog of a set is not where its mode has it. That the server keeps it helps nobody who is to have it
        here as well, and cannot get it from there since that one is dead."""
        mode = self._where.mode_of(backup)
        return (mode.at_voters or not kept) and not await self._catalog.has_detail(backup.id)

    def _keeper_of(self, backup: BackupSet) -> str | None:
        """The server that is to keep the catalog of a set."""
        server = self._where.keeper_of(backup)
        return server.id if server is not None and self._where.mode_of(backup).at_server else None

    async def _have_made(self, keeper: str) -> list[str]:
        """A server that keeps catalogs looks what it lacks, now rather than in a minute."""
        try:
            await self._links.get(keeper).notify("catalog.look", to_wire(q.Nothing()))
        except CasoError:
            return [f"catalogs that {self._keeper.state.name_of(keeper)} keeps are made when it is connected again"]
        return []

    async def _tell_voters(self, set_ids: Sequence[str]) -> None:
        """Each voter has a catalog of its own, and knows what in it is of no use; one that does not hear of this looks by itself
        whether another one has it."""
        for voter in self._keeper.state.voters():
            if voter.id != self._own and set_ids:
                with contextlib.suppress(CasoError):
                    link = self._links.get(voter.id)
                    await link.notify("catalog.found", to_wire(c.CatalogSets(tuple(set_ids))))

    async def _tell(
        self,
        device: Device,
        server: str,
        there: Sequence[BackupSet],
        gone: Sequence[str],
        locks: Mapping[str, int | None],
        again: Collection[str],
    ) -> Told:
        """Tells what is news of a page of what lies on a device, and returns when the tables hold it. ``again``: of what is
        there what was known to be deleted."""
        known = {each.id: await self._tables.set(each.id) for each in there}
        told_of = await self._tables.detail_states([*known])
        known_gone, known_locks = await self._tables.gone_from(device.id), await self._tables.locks()
        told: list[facts.Fact] = [
            facts.SetFound(each, server, unless_gone=each.id not in again)
            for each in there
            if known[each.id] is None or (known[each.id] == each and each.id not in told_of)
        ]
        told += [facts.SetDeleted(each, device.id, _WHO) for each in gone if each not in known_gone]
        told += [
            facts.SetLocked(each, device.id, _WHO, until_ns)
            for each, until_ns in locks.items()
            if each not in gone and _is_longer(until_ns, known_locks.get(each, 0))
        ]
        lost = [each for each in gone if await self._tables.set(each) is not None]
        missing = self._live.missing.get(device.id, frozenset())
        if not missing.isdisjoint(known):
            left = self._live.missing[device.id] = missing.difference(known)
            told.append(facts.SetsMissing(device.id, tuple(sorted(left)), ""))
        if told:
            await self._journal.append(*told)
            await self._taken_in(device, [each for each in known if known[each] is None], gone)
        return Told(
            [each for each in known if known[each] is None],
            lost,
            [each.id for each in there if known[each.id] not in (None, each)],
        )

    async def _taken_in(self, device: Device, there: Sequence[str], gone: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(_TAKEN_IN_S):
                while True:
                    generation = self._tables.generation
                    held = set(await self._tables.set_ids())
                    # what is deleted meanwhile is not waited for
                    if held.isdisjoint(gone) and held.union(await self._tables.gone_from(device.id)).issuperset(there):
                        return
                    await self._tables.wait_for_change(generation)
        except TimeoutError:
            raise Unavailable(what="the journal of the administrator") from None


def _is_longer(until_ns: int | None, known_ns: int | None) -> bool:
    """Whether a lock lasts longer than the known one; ``None`` is without end."""
    return known_ns is not None and (until_ns is None or until_ns > known_ns)
