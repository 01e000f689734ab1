"""Getting the catalog detail of a set as a file: from who made it, or made anew by who has it or reaches the device."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from caso_mesh.admin.catalog_details import PendingDetail
from caso_mesh.admin.ports import Links
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import chain_of
from caso_mesh.model.errors import (
    CasoError,
    CatalogBaseMissing,
    DataDamaged,
    NotFound,
    ObjectMissing,
    StateFull,
    Unavailable,
)
from caso_mesh.model.nodes import CatalogMade, CatalogMake, CatalogPiece, CatalogRead
from caso_mesh.model.storage import BackupSet
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

PIECE = 1 << 20
#: How long the tree of one set may take to be read.
_MAKE_S = 3600.0
#: No segment is as large as this: one of a hundred million files is smaller.
_LARGEST = 16 << 30
#: So much of the disk stays free, whatever a server says its segment needs; of a small disk only this part.
_KEPT_FREE = 256 << 20
_KEPT_PART = 1 / 8


class Source(Struct, frozen=True):
    """A server (node id) that may make the detail of a set: out of a catalog of its own, or else out of the tree in ``device``
    (id), unless that is empty."""

    server: str
    device: str = ""


class Fetching:
    """``folder`` is for segments on their way."""

    def __init__(self, *, links: Links, folder: Path) -> None:
        self._links = links
        self._folder = folder

    async def fetch_made(
        self, backup: BackupSet, base: str | None, path: Path, reason: CasoError, sources: Sequence[Source]
    ) -> CatalogMade:
        """Into ``path`` what the first of ``sources`` that can do it makes anew against ``base``. Raises ``DataDamaged``,
        ``ObjectMissing`` or ``NotFound`` (the set) where nothing can be made of it any more; after anything else it may
        be tried again."""
        failed: CasoError = Unavailable(what=f"the device {backup.device_name}")
        if isinstance(reason, CatalogBaseMissing):
            failed = reason
        for source in sources:
            try:
                log.debug("catalog of set %s is made anew at %s (%s)", backup.id, source.server, reason)
                request = CatalogMake(source.device, backup.id, base)
                made = await ask(
                    self._links.get(source.server), "catalog.make", request, CatalogMade, timeout_s=_MAKE_S
                )
            except CasoError as error:
                if not source.device:
                    continue  # what is wrong with another one's catalog says nothing about the tree
                if isinstance(error, DataDamaged | ObjectMissing | StateFull) or _is_gone(error):
                    raise
                failed = error if not isinstance(error, NotFound) else failed  # it has not heard of the device yet
                continue
            try:
                await self.fetch(PendingDetail(backup.id, source.server, made.digest, made.size, backup.server), path)
            except StateFull:
                raise
            except (DataDamaged, NotFound):
                # only of its way here, or swept meanwhile
                failed = Unavailable(what=f"the catalog detail of {backup.id}")
            except CasoError as error:
                failed = error
            else:
                log.info("catalog of set %s was made anew at %s (%s)", backup.id, source.server, reason)
                return made
        raise failed

    async def fetch(self, pending: PendingDetail, path: Path) -> None:
        """Raises ``DataDamaged`` if it is not what was told, ``StateFull``, ``OSError``, and what the link raises."""
        what = f"the catalog detail of {pending.set}"
        if not 0 < pending.size <= _LARGEST:
            raise DataDamaged(object=what, detail=f"{pending.size} bytes are no size of one")
        disk = await asyncio.to_thread(shutil.disk_usage, self._folder)
        if disk.free - pending.size < min(_KEPT_FREE, disk.total * _KEPT_PART):
            raise StateFull(state=self._folder.parent)
        link = self._links.get(pending.server)
        digest = hashlib.sha256()
        offset = 0
        while offset < pending.size:
            request = CatalogRead(pending.set, offset, min(PIECE, pending.size - offset), pending.digest)
            piece = await ask(link, "catalog.read", request, CatalogPiece, timeout_s=60.0)
            if not 0 < len(piece.data) <= pending.size - offset or piece.size != pending.size:
                raise DataDamaged(object=what, detail="its size has changed")
            digest.update(piece.data)
            await asyncio.to_thread(_put, path, piece.data, offset)
            offset += len(piece.data)
        if digest.digest() != pending.digest:
            raise DataDamaged(object=what, detail="its digest differs")


def _is_gone(error: CasoError) -> bool:
    """Whether it says that the set itself is not there."""
    return isinstance(error, NotFound) and error.fields.get("kind") == "set"


async def earlier_here(catalog: Catalog, backup: BackupSet) -> str | None:
    """The newest earlier set of the same chain that is in a catalog."""
    chain = chain_of(backup)
    for each in await catalog.sets(source=backup.source, until_ns=backup.ended_at_ns, detail=True):
        if each.id != backup.id and each.device == backup.device and chain_of(each) == chain:
            return each.id
    return None


def _put(path: Path, data: bytes, offset: int) -> None:
    # opened anew for each piece: whoever is cancelled while a thread opens a file loses it open
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if offset else os.O_TRUNC)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
