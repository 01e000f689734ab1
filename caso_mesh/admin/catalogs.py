"""Fetching the catalog detail of each new set from the server that made it, and taking it into the central catalog."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.ports import Facts, Links
from caso_mesh.admin.tables import PendingDetail, Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import SegmentReader, chain_of
from caso_mesh.model.errors import (
    AlreadyExists,
    CasoError,
    CatalogBaseMissing,
    DataDamaged,
    NotFound,
    ObjectMissing,
    StateFull,
    Unavailable,
)
from caso_mesh.model.requests import CatalogMade, CatalogMake, CatalogPiece, CatalogRead
from caso_mesh.model.states import AlertKind
from caso_mesh.model.storage import BackupSet
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_PIECE = 1 << 20
_PAUSE_S = 2.0
#: How long the tree of one set may take to be read.
_MAKE_S = 3600.0
#: No segment is as large as this: one of a hundred million files is smaller.
_LARGEST = 16 << 30
#: So much of the disk stays free, whatever a server says its segment needs; of a small disk only this part.
_KEPT_FREE = 256 << 20
_KEPT_PART = 1 / 8


class CatalogIntake:
    """``incoming`` is a folder for segments on their way. Servers are asked side by side, each for one at a time.
    ``arrived`` is called when a detail is in the catalog, or never will be. ``readers``: the servers that reach a device
    (id) now. One that is lost or of no use, or changes a set whose detail is not here, is made anew out of the tree."""

    def __init__(
        self,
        *,
        tables: Tables,
        catalog: Catalog,
        links: Links,
        facts: Facts,
        alarms: Alarms,
        incoming: Path,
        arrived: Callable[[], None],
        readers: Callable[[str], list[str]] = lambda device: [],
    ) -> None:
        self._tables = tables
        self._catalog = catalog
        self._links = links
        self._facts = facts
        self._alarms = alarms
        self._incoming = incoming
        self._arrived = arrived
        self._readers = readers
        self._wake = asyncio.Event()
        #: Sets whose detail changes a listing that is not here, with that base.
        self.without_base: dict[str, str] = {}
        #: Sets whose detail does not fit on the disk of the state folder.
        self.without_room: set[str] = set()
        self._told: dict[str, str] = {}

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Never returns."""
        await asyncio.to_thread(self._begin)
        await self._miss()
        unobserve = self._links.observe(lambda node, linked: self._wake.set())
        working: dict[str, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._wake.clear()
                    for set_id in await self._tables.deleted():
                        await self._catalog.remove_set(set_id)
                        await self._tables.forgotten(set_id)
                    pending = await self._tables.pending_details()
                    by_server: dict[str, list[PendingDetail]] = {}
                    for each in pending:
                        by_server.setdefault(each.server, []).append(each)
                    for server, details in by_server.items():
                        task = working.get(server)
                        if task is None or task.done():
                            working[server] = group.create_task(self._work_off(details))
                    try:
                        async with asyncio.timeout(_PAUSE_S if pending else None):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
        finally:
            unobserve()

    def _begin(self) -> None:
        self._incoming.mkdir(0o700, parents=True, exist_ok=True)
        for left in self._incoming.glob("*.segment"):
            left.unlink()

    async def _miss(self) -> None:
        """A catalog that was lost, or put back to an older copy, is noticed: what it lacks is fetched or made again."""
        held = {backup.id for backup in await self._catalog.sets(detail=True)}
        lost = [set_id for set_id in await self._tables.details_here() if set_id not in held]
        if lost:
            log.warning("the catalog lacks the details of %d sets that it had; they are fetched again", len(lost))
        for set_id in lost:
            await self._tables.set_detail_state(set_id, "pending")

    async def _work_off(self, details: Iterable[PendingDetail]) -> None:
        """Others are looked for at once if one of these is done; else after a pause."""
        done = False
        for each in details:
            if each.size and not self._links.linked(each.server):
                break
            done = await self._take(each) or done
        await self._tell()
        if done:
            self._wake.set()

    async def _take(self, pending: PendingDetail) -> bool:
        """Whether nothing more is to be done for it."""
        backup = await self._tables.set(pending.set)
        if backup is None:
            return False
        path = self._incoming / f"{pending.set}.segment"
        try:
            try:
                if not pending.size:
                    raise NotFound(kind="catalog", name=pending.set)
                await self._fetch(pending, path)
                await self._ingest(backup, path)
            except (CatalogBaseMissing, DataDamaged, NotFound) as error:
                await self._take_made(backup, path, error)
            if await self._tables.is_deleted(pending.set):
                await self._catalog.remove_set(pending.set)  # deleted while its detail was on its way
            await self._tables.set_detail_state(pending.set, "here")
        except CatalogBaseMissing as error:
            self.without_base[pending.set] = str(error.fields["base"])
            self._waits(pending, error)
        except StateFull as error:
            self.without_room.add(pending.set)
            self._waits(pending, error)
        except (DataDamaged, NotFound, ObjectMissing, AlreadyExists) as error:
            await self._damaged(pending, error)
            return True
        except (CasoError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.without_room.add(pending.set)
            self._waits(pending, error)
        else:
            self.without_base.pop(pending.set, None)
            self.without_room.discard(pending.set)
            self._told.pop(pending.set, None)
            return True
        finally:
            self._arrived()
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return False

    def _waits(self, pending: PendingDetail, error: Exception) -> None:
        """Says once why."""
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

    async def _take_made(self, backup: BackupSet, path: Path, reason: CasoError) -> None:
        """What the first server that can do it makes anew of the tree. Raises ``DataDamaged``, ``ObjectMissing`` or
        ``NotFound`` (the set) where nothing can be made of it any more; after anything else it is tried again."""
        failed: CasoError = Unavailable(what=f"the device {backup.device_name}")
        if isinstance(reason, CatalogBaseMissing):
            failed = reason
        base = await self._base_of(backup)
        for server in self._readers(backup.device):
            try:
                log.info("catalog of set %s is made anew at %s (%s)", backup.id, server, reason)
                request = CatalogMake(backup.device, backup.id, base)
                made = await ask(self._links.get(server), "catalog.make", request, CatalogMade, timeout_s=_MAKE_S)
                try:
                    await self._fetch(PendingDetail(backup.id, server, made.digest, made.size), path)
                except (DataDamaged, NotFound) as error:
                    # only of its way here, or swept meanwhile: that says nothing about the tree
                    raise Unavailable(what=f"the catalog detail of {backup.id}") from error
            except (DataDamaged, ObjectMissing, StateFull):
                raise
            except CasoError as error:
                if isinstance(error, NotFound) and error.fields.get("kind") == "set":
                    raise
                failed = error if not isinstance(error, NotFound) else failed  # it has not heard of the device yet
                continue
            return await self._ingest(backup, path)
        raise failed

    async def _base_of(self, backup: BackupSet) -> str | None:
        """The newest earlier set of its chain that is here."""
        chain = chain_of(backup)
        for each in await self._catalog.sets(source=backup.source, until_ns=backup.ended_at_ns, detail=True):
            if each.id != backup.id and each.device == backup.device and chain_of(each) == chain:
                return each.id
        return None

    async def _damaged(self, pending: PendingDetail, error: CasoError) -> None:
        text = f"The catalog detail of set {pending.set} cannot be used: {error}"
        await self._facts.alert(AlertKind.WARNING, "catalog-error", text, object=pending.set)
        await self._tables.set_detail_state(pending.set, "damaged")

    async def _fetch(self, pending: PendingDetail, path: Path) -> None:
        what = f"the catalog detail of {pending.set}"
        if not 0 < pending.size <= _LARGEST:
            raise DataDamaged(object=what, detail=f"{pending.size} bytes are no size of one")
        disk = await asyncio.to_thread(shutil.disk_usage, self._incoming)
        if disk.free - pending.size < min(_KEPT_FREE, disk.total * _KEPT_PART):
            raise StateFull(state=self._incoming.parent)
        link = self._links.get(pending.server)
        digest = hashlib.sha256()
        offset = 0
        file = await asyncio.to_thread(_create, path)
        try:
            while offset < pending.size:
                request = CatalogRead(pending.set, offset, min(_PIECE, pending.size - offset), pending.digest)
                piece = await ask(link, "catalog.read", request, CatalogPiece, timeout_s=60.0)
                if not 0 < len(piece.data) <= pending.size - offset or piece.size != pending.size:
                    raise DataDamaged(object=what, detail="its size has changed")
                digest.update(piece.data)
                await asyncio.to_thread(file.write, piece.data)
                offset += len(piece.data)
        finally:
            await asyncio.to_thread(file.close)
        if digest.digest() != pending.digest:
            raise DataDamaged(object=what, detail="its digest differs")


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
