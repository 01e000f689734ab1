"""The central catalog of a voter: the detail of each set is fetched from the server that made it and taken in; where the
server keeps it by itself it is not, and goes from here as soon as that one says that it has it."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from pathlib import Path

from caso_mesh.admin import catalog_details, kept_catalogs
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.catalog_details import PendingDetail
from caso_mesh.admin.fetching import Fetching, Source, earlier_here
from caso_mesh.admin.ports import Facts, Links
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.whereabouts import Whereabouts
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import SegmentReader
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import (
    AlreadyExists,
    CasoError,
    CatalogBaseMissing,
    DataDamaged,
    NotFound,
    ObjectMissing,
    StateFull,
)
from caso_mesh.model.states import AlertKind
from caso_mesh.model.storage import BackupSet
from caso_mesh.planning.pauses import Pauses

log = logging.getLogger(__name__)

#: How long what cannot be had is left alone, the first time and at most. A server that is linked again is asked at once.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 4.0, 60.0
_LEAST_PAUSE_S = 1.0
#: The same of what was of no use, until another voter has it.
_FIRST_HOPE_S, _LONGEST_HOPE_S = 60.0, 3600.0
#: Catalogs that are dropped before it is looked whether that is still right.
_DROPPED_AT_ONCE = 50


class CatalogIntake:
    """``incoming`` is a folder for segments on their way. Servers are asked side by side, each for one at a time.
    ``arrived`` is called when a detail is in the catalog, or never will be. ``readers``: the servers that reach a device
    (id) now. A detail that cannot be had is left alone for longer and longer, until a server is linked that has it or
    reaches the device. One that is lost or of no use, or changes a set whose detail is not here, is made anew by the server that keeps
    it, by another voter than ``own`` (node id) that has it, or out of the tree. Where all of that is of no use it is looked now and then
    whether another catalog has it meanwhile; ``found`` says that the tree is worth another look. ``lost`` is told (category and text of an alert) when this catalog lacks what it had."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        catalog: Catalog,
        links: Links,
        own: str,
        facts: Facts,
        alarms: Alarms,
        incoming: Path,
        arrived: Callable[[], None],
        clock: Clock,
        randomness: Randomness,
        readers: Callable[[str], list[str]] = lambda device: [],
        lost: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._keeper = keeper
        self._where = Whereabouts(keeper, tables)
        self._own = own
        self._fetching = Fetching(links=links, folder=incoming)
        self._tables = tables
        self._catalog = catalog
        self._links = links
        self._facts = facts
        self._alarms = alarms
        self._incoming = incoming
        self._arrived = arrived
        self._readers = readers
        self._lost = lost
        self._mended = 0
        self._wake = asyncio.Event()
        self._clock = clock
        self._pauses = Pauses(first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S, randomness=randomness)
        self._hopes = Pauses(first_s=_FIRST_HOPE_S, longest_s=_LONGEST_HOPE_S, randomness=randomness)
        #: What is left alone, by who has it and by the device that it lies on.
        self._alone: dict[str, set[str]] = {}
        #: Sets whose detail changes a listing that is not here, with that base.
        self.without_base: dict[str, str] = {}
        #: Sets whose detail does not fit on the disk of the state folder.
        self.without_room: set[str] = set()
        self._told: dict[str, str] = {}

    def wake(self) -> None:
        self._wake.set()

    async def found(self, set_ids: Collection[str]) -> None:
        """Sets lie on their device: those whose details were of no use are tried again."""
        if await self._tables.change(partial(catalog_details.mend, set_ids=set_ids)):
            self._wake.set()

    async def run(self) -> None:
        """Never returns."""
        await asyncio.to_thread(self._begin)
        await self._miss()
        unobserve = self._links.observe(self._linked)
        self._catalog.on_mended.append(self._wake.set)
        working: dict[str, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_modes())
                while True:
                    self._wake.clear()
                    if self._catalog.mended != self._mended:
                        await self._miss()
                    for set_id in await self._tables.deleted():
                        await self._catalog.remove_set(set_id)
                        await self._tables.forgotten(set_id)
                    await self._drop()
                    elsewhere = await self._where.not_fetched()
                    pending = [each for each in await self._tables.pending_details() if each.maker not in elsewhere]
                    await self._remember({each.set for each in pending})
                    now_s = self._clock.monotonic_s()
                    by_server: dict[str, list[PendingDetail]] = {}
                    for each in pending:
                        if self._pauses_of(each).is_due(each.set, now_s):
                            by_server.setdefault(each.server, []).append(each)
                    for server, details in by_server.items():
                        task = working.get(server)
                        if task is None or task.done():
                            working[server] = group.create_task(self._work_off(details))
                    try:
                        pauses_s = [each.next_s(now_s) for each in (self._pauses, self._hopes)]
                        pause_s = min((each for each in pauses_s if each is not None), default=None)
                        # what is due may wait for what its server is asked for just now
                        async with asyncio.timeout(None if pause_s is None else max(_LEAST_PAUSE_S, pause_s)):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
        finally:
            unobserve()
            self._catalog.on_mended.remove(self._wake.set)

    def _linked(self, node: str, linked: bool) -> None:
        """What that server has, or could make, is asked for at once."""
        if linked:
            for place in [place for place in self._alone if place == node or node in self._readers(place)]:
                for set_id in self._alone.pop(place):
                    self._pauses.over(set_id)
                    self._hopes.over(set_id)
        self._wake.set()

    def _pauses_of(self, pending: PendingDetail) -> Pauses:
        return self._hopes if pending.damaged else self._pauses

    async def _remember(self, pending: set[str]) -> None:
        """Of what nobody waits for any more nothing is kept, nor is it told that it waits."""
        self._pauses.keep(pending)
        self._hopes.keep(pending)
        self._alone = {place: left for place, sets in self._alone.items() if (left := sets & pending)}
        for set_id in self.without_base.keys() - pending:
            del self.without_base[set_id]
        if not self.without_room <= pending or not pending:
            self.without_room &= pending
            await self._tell()

    def _leave_alone(self, pending: PendingDetail, device: str | None = None) -> None:
        self._pauses.failed(pending.set, self._clock.monotonic_s())
        for place in (pending.server, device):
            if place is not None:
                self._alone.setdefault(place, set()).add(pending.set)

    def _hope(self, set_id: str) -> None:
        """It is of no use here, and left alone until another catalog may have it."""
        self._hopes.failed(set_id, self._clock.monotonic_s())
        for voter in self._other_voters():
            self._alone.setdefault(voter, set()).add(set_id)

    def _begin(self) -> None:
        self._incoming.mkdir(0o700, parents=True, exist_ok=True)
        for left in self._incoming.glob("*.segment"):
            left.unlink()

    async def _follow_modes(self) -> None:
        """Never returns before the keeper ends."""
        seen: dict[str, str] = {}
        async for _ in self._keeper.changes():
            found = self._where.distributed()
            if found != seen:
                seen = found
                self._wake.set()

    async def _drop(self) -> None:
        """What the server keeps that made it. That one gives nothing up before voters have it that know that they are to
        (``admin/keeping_catalogs.py``)."""
        while sets := await self._where.to_drop(_DROPPED_AT_ONCE):
            for set_id, keeper in sets:
                # first what is said of it: interrupted, what is left in the catalog is known there already, or removed
                if await self._tables.change(partial(kept_catalogs.drop, set_id=set_id, keeper=keeper)):
                    await self._catalog.remove_set(set_id)
            self._arrived()

    def _sources(self, backup: BackupSet, *, tree: bool) -> list[Source]:
        """Who may make the detail of a set: its own server first, which may have it in a catalog of its own, then who has it
        for certain if nothing is wrong, and out of the ``tree`` whoever reaches the device."""
        own = self._where.keeper_of(backup)
        device = backup.device if tree else ""
        found = [Source(own.id, device)] if own is not None and self._links.linked(own.id) else []
        found += [Source(each) for each in self._other_voters() if self._links.linked(each)]
        mine = {each.server for each in found if each.device}
        return found + [Source(each, device) for each in self._readers(backup.device) if tree and each not in mine]

    def _other_voters(self) -> list[str]:
        return [each.id for each in self._keeper.state.voters() if each.id != self._own]

    async def _miss(self) -> None:
        """A catalog that was lost, damaged, or put back to an older copy, is noticed: what it lacks is fetched or made
        again."""
        found, self._mended = self._catalog.mended, self._catalog.mended
        held = {backup.id for backup in await self._catalog.sets(detail=True)}
        lost = [set_id for set_id in await self._tables.details_here() if set_id not in held]
        if self._lost is not None and (lost or found):
            damage = self._catalog.damage if found else None
            what = f"is damaged: {damage}; it" if damage is not None else "was lost or put back to an older copy; it"
            text = f"The catalog of this voter {what} lacks {len(lost)} sets, which are fetched or made anew"
            await self._lost("catalog-damaged" if damage is not None else "catalog-lost", text)
        # last: who comes into office just then begins anew, and would find nothing to tell of
        await self._tables.change(partial(catalog_details.again, set_ids=lost))

    async def _work_off(self, details: Iterable[PendingDetail]) -> None:
        """Others are looked for at once."""
        for each in details:
            if each.damaged:
                await self._take_copy(each)
            elif self._is_away(each) and not each.again:
                self._leave_alone(each)
            elif await self._take(each):
                self._pauses.over(each.set)
        await self._tell()
        self._wake.set()

    def _is_away(self, pending: PendingDetail) -> bool:
        return bool(pending.size) and not self._has_left(pending.server) and not self._links.linked(pending.server)

    def _has_left(self, server: str) -> bool:
        """Whether a server was removed from the mesh, or another machine is in its place: what it had to give is gone with it."""
        return server not in self._keeper.state.servers

    async def _take(self, pending: PendingDetail) -> bool:
        """Whether nothing more is to be done for it."""
        backup = await self._tables.set(pending.set)
        if backup is None:
            self._leave_alone(pending)
            return False
        path = self._incoming / f"{pending.set}.segment"
        try:
            try:
                if not pending.size or self._has_left(pending.server):
                    raise NotFound(kind="catalog", name=pending.set)
                await self._fetching.fetch(pending, path)
                await self._ingest(backup, path)
            except (CatalogBaseMissing, DataDamaged, NotFound) as error:
                await self._take_made(backup, path, error)
            except CasoError as error:
                if isinstance(error, StateFull) or not pending.again:
                    raise
                # who made it does not answer: the tree is not read for what comes with it
                await self._take_made(backup, path, error, tree=False)
            await self._taken(pending)
        except CatalogBaseMissing as error:
            self.without_base[pending.set] = str(error.fields["base"])
            self._waits(pending, backup, error)
        except StateFull as error:
            self.without_room.add(pending.set)
            self._waits(pending, backup, error)
        except (DataDamaged, NotFound, ObjectMissing, AlreadyExists) as error:
            await self._damaged(pending, error)
            return True
        except (CasoError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.without_room.add(pending.set)
            self._waits(pending, backup, error)
        else:
            self.without_base.pop(pending.set, None)
            self.without_room.discard(pending.set)
            self._told.pop(pending.set, None)
            return True
        finally:
            self._arrived()
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return False

    async def _take_copy(self, pending: PendingDetail) -> None:
        """What was of no use, if another catalog has it."""
        backup = await self._tables.set(pending.set)
        path = self._incoming / f"{pending.set}.segment"
        try:
            if backup is not None:
                await self._take_made(backup, path, NotFound(kind="catalog", name=pending.set), tree=False)
                await self._taken(pending)
                self._hopes.over(pending.set)
        except (CasoError, OSError) as error:
            log.debug("catalog of set %s is not to be had: %s", pending.set, error)
            self._hope(pending.set)
        finally:
            self._arrived()
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _taken(self, pending: PendingDetail) -> None:
        if await self._tables.is_deleted(pending.set):
            await self._catalog.remove_set(pending.set)  # deleted while its detail was on its way
        await self._tables.change(partial(catalog_details.put, set_id=pending.set, state="here"))

    def _waits(self, pending: PendingDetail, backup: BackupSet, error: Exception) -> None:
        """Says once why."""
        self._leave_alone(pending, backup.device)
        if self._told.get(pending.set) != str(error):
            self._told[pending.set] = str(error)
            log.info("catalog of set %s waits: %s", pending.set, error)

    async def _tell(self) -> None:
        """An alert stands while details do not fit."""
        error = StateFull(state=self._incoming.parent)
        try:
            if self.without_room:
                text = f"Catalogs of new sets wait: {error.message} {error.hint} Restores and backups go on."
                await self._alarms.begins(AlertKind.WARNING, error.code, text, object="catalogs")
            else:
                await self._alarms.ends(error.code, "catalogs")
        except StateFull:
            log.error("%s", error)

    async def _ingest(self, backup: BackupSet, path: Path) -> None:
        header = (await asyncio.to_thread(SegmentReader, path)).header
        if header.set != backup.id:
            raise DataDamaged(object=f"the catalog detail of {backup.id}", detail="it is of another set")
        await self._catalog.add_set(backup)
        await self._catalog.ingest(path)

    async def _take_made(self, backup: BackupSet, path: Path, reason: CasoError, *, tree: bool = True) -> None:
        """What is made anew against the newest earlier set of its chain that is here, by its own server, another voter, or by
        one that reaches the device. Raises as ``Fetching.fetch_made``."""
        base = await earlier_here(self._catalog, backup)
        await self._fetching.fetch_made(backup, base, path, reason, self._sources(backup, tree=tree))
        await self._ingest(backup, path)

    async def _damaged(self, pending: PendingDetail, error: CasoError) -> None:
        text = f"The catalog detail of set {pending.set} cannot be used: {error}"
        await self._facts.alert(AlertKind.WARNING, "catalog-error", text, object=pending.set)
        await self._tables.change(partial(catalog_details.put, set_id=pending.set, state="damaged"))
        self._hope(pending.set)


async def alert_of(facts: Facts, server: str, category: str, text: str) -> None:
    """An alert of the server whose catalog it is."""
    await facts.alert(AlertKind.WARNING, category, text.replace("this voter", server), object=server)
