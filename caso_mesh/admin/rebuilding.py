"""Making the records of a device anew: its sets as they lie in its vault, and the catalog out of their trees."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.live import Live
from caso_mesh.admin.on_device import readers_of
from caso_mesh.admin.ports import Answer, Caller, Links
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import Unavailable
from caso_mesh.model.storage import BackupSet, Device
from caso_mesh.wire.typed import ask

_PAGE_S = 150.0


class Rebuilding:
    """Answers ``catalog.rebuild``. ``wake`` has the catalog details fetched that are missing."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        catalog: Catalog,
        live: Live,
        links: Links,
        wake: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._catalog = catalog
        self._live = live
        self._links = links
        self._wake = wake

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"catalog.rebuild": self._rebuild}

    async def _rebuild(self, caller: Caller, request: q.DeviceName) -> v.CatalogRebuilt:
        """Repeated, nothing happens. Raises ``NotFound``, ``Unavailable`` while no server reaches the device."""
        state = self._keeper.state
        device = state.device_named(request.name)
        readers = readers_of(state, self._live, self._links, device.id)
        if not readers:
            raise Unavailable(what=f"the device {device.name}")
        server, link = readers[0], self._links.get(readers[0])
        after, total, added, deleted, pending = "", 0, 0, 0, 0
        warnings: list[str] = []
        more = True
        while more:
            asked = q.VaultSets(device.id, after)
            page = await ask(link, "vault.sets", asked, q.VaultSetsReply, timeout_s=_PAGE_S)
            warnings += page.problems
            mine = [each for each in page.sets if self._belongs(each, device, warnings)]
            gone = set(page.deleted)
            there = sorted((each for each in mine if each.id not in gone), key=lambda each: each.started_at_ns)
            lacking = [each.id for each in there if not await self._catalog.has_detail(each.id)]
            found = await self._tables.found(
                device.id, server, there, [each.id for each in mine if each.id in gone], page.locks, lacking
            )
            warnings += [f"the set {each} is known with another content; that stays" for each in found.differ]
            total, added, deleted = total + len(there), added + found.added, deleted + found.deleted
            pending += len(lacking)
            more = page.more and bool(page.sets)
            after = page.sets[-1].id if page.sets else after
        self._wake()
        return v.CatalogRebuilt(
            device=device.name,
            server=state.name_of(server),
            sets=total,
            added=added,
            deleted=deleted,
            pending=pending,
            warnings=tuple(warnings[:50]),
        )

    def _belongs(self, backup: BackupSet, device: Device, warnings: list[str]) -> bool:
        if backup.device == device.id and backup.vault == device.vault:
            return True
        warnings.append(f"the set {backup.id} was made for another device and is passed over")
        return False
