"""Fetching the catalog detail of each new set from the server that made it, and taking it into the central catalog."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from pathlib import Path

from caso_mesh.admin.ports import Facts, Links
from caso_mesh.admin.tables import PendingDetail, Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import SegmentReader
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.errors import CasoError, CatalogBaseMissing, DataDamaged, NotFound
from caso_mesh.model.requests import CatalogPiece, CatalogRead
from caso_mesh.model.states import AlertKind
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_PIECE = 1 << 20
_PAUSE_S = 2.0


class CatalogIntake:
    """``incoming`` is a folder for segments on their way."""

    def __init__(
        self, *, keeper: ControlKeeper, tables: Tables, catalog: Catalog, links: Links, facts: Facts, incoming: Path
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._catalog = catalog
        self._links = links
        self._facts = facts
        self._incoming = incoming
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Never returns."""
        await asyncio.to_thread(self._incoming.mkdir, 0o700, parents=True, exist_ok=True)
        while True:
            self._wake.clear()
            waits = False
            for pending in await self._tables.pending_details():
                waits |= not await self._take(pending)
            try:
                async with asyncio.timeout(_PAUSE_S if waits else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _take(self, pending: PendingDetail) -> bool:
        """Whether it is done with: here, or found damaged for good."""
        backup = await self._tables.set(pending.set)
        if backup is None:
            return False
        path = self._incoming / f"{pending.set}.segment"
        try:
            await self._fetch(pending, path)
            await self._catalog.add_set(backup)
            await self._catalog.ingest(SegmentReader(path))
        except (CatalogBaseMissing, OSError) as error:
            log.info("catalog of set %s waits: %s", pending.set, error)
            return False
        except (DataDamaged, NotFound) as error:
            await self._tables.set_detail_state(pending.set, "damaged")
            await self._facts.alert(
                AlertKind.WARNING,
                "catalog-error",
                f"The catalog detail of set {pending.set} cannot be used: {error}",
                object=pending.set,
            )
            return True
        except CasoError as error:
            log.debug("catalog of set %s waits: %s", pending.set, error)
            return False
        await self._tables.set_detail_state(pending.set, "here")
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return True

    async def _fetch(self, pending: PendingDetail, path: Path) -> None:
        link = self._links.get(pending.server)
        digest = hashlib.sha256()
        offset = 0
        descriptor = await asyncio.to_thread(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            while offset < pending.size:
                request = CatalogRead(pending.set, offset, _PIECE)
                piece = await ask(link, "catalog.read", request, CatalogPiece, timeout_s=60.0)
                if not piece.data or piece.size != pending.size:
                    raise DataDamaged(object=f"the catalog detail of {pending.set}", detail="its size has changed")
                digest.update(piece.data)
                await asyncio.to_thread(os.write, descriptor, piece.data)
                offset += len(piece.data)
        finally:
            os.close(descriptor)
        if digest.digest() != pending.digest:
            raise DataDamaged(object=f"the catalog detail of {pending.set}", detail="its digest differs")
