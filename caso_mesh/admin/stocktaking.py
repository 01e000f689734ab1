"""Inventories, and catalogs that are made anew: asked for by people, and what an attempt finds in a device put before what is
believed to be there.

The attempt asks while it runs (``jobs.inventory``, ``jobs.cataloguing``), and only the one that was handed to that server is answered. What is
news is told in the journal of the server in office, so that every voter has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from caso_mesh.admin import missing_sets, set_rows
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Answer, Caller, Facts
from caso_mesh.admin.rebuilding import Rebuilding
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import outcomes as o
from caso_mesh.model import views as v
from caso_mesh.model.cataloguing import DeviceCatalog
from caso_mesh.model.device_jobs import CatalogSpec, InventorySpec, SurveySpec
from caso_mesh.model.device_work import PAGE, CatalogsAsked, CatalogsStand, DeviceCompared, DeviceFound, DeviceLacks
from caso_mesh.model.errors import NotFound
from caso_mesh.model.importing import as_here
from caso_mesh.model.inventories import DeviceInventory
from caso_mesh.model.jobs import Attempt
from caso_mesh.model.states import ATTEMPT_ACTIVE, AlertKind
from caso_mesh.model.storage import BackupSet, Device

MISSING = "sets-missing"
_NAMED = 5


class Stocktaking:
    """Answers of the administrator."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        work: Work,
        rebuilding: Rebuilding,
        alarms: Alarms,
        journal: Facts,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._work = work
        self._rebuilding = rebuilding
        self._alarms = alarms
        self._journal = journal

    def handlers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {"device.inventory": self._inventory, "catalog.remake": self._catalog}

    def node_handlers(self) -> dict[str, Callable[[Peer, Any, Any], Awaitable[Any]]]:
        """Calls of servers, by name."""
        return {"device.found": self._found, "device.lacks": self._lacks, "device.catalogs": self._catalogs}

    async def load(self) -> None:
        """What earlier inventories found missing."""
        self._live.missing = await self._tables.ask(missing_sets.read)

    async def _inventory(self, caller: Caller, request: DeviceInventory) -> o.Submitted:
        return await self._create(caller, request, InventorySpec, "inventory")

    async def _catalog(self, caller: Caller, request: DeviceCatalog) -> o.Submitted:
        return await self._create(caller, request, CatalogSpec, "catalog")

    async def _create(
        self,
        caller: Caller,
        request: DeviceInventory | DeviceCatalog,
        spec: Callable[[tuple[str, ...]], SurveySpec],
        what: str,
    ) -> o.Submitted:
        """Raises ``NotFound`` for a device, or without any, ``InvalidSchedule``."""

        async def made() -> SurveySpec:
            state = self._keeper.state
            if not state.devices:
                raise NotFound(kind="device", name="")
            return spec(tuple(dict.fromkeys(state.device_named(name).id for name in request.devices)))

        stem = f"{what}-{request.devices[0] if len(request.devices) == 1 else 'of-devices'}"
        name = request.name or ""
        return await self._work.create(caller, made, request.priority, stem, name=name, when=request.when)

    def _attempt(self, peer: Peer, id_: str, *specs: type[SurveySpec]) -> tuple[Attempt, Device, SurveySpec]:
        state = self._keeper.state
        attempt = state.attempts.get(id_)
        if attempt is None or attempt.server != peer.id or attempt.state not in ATTEMPT_ACTIVE:
            raise NotFound(kind="attempt", name=id_[:100])
        spec = state.run(attempt.run).spec
        if not isinstance(spec, specs):
            raise NotFound(kind="attempt", name=id_[:100])
        return attempt, state.device(attempt.device), spec

    async def _found(self, peer: Peer, request: DeviceFound, link: Any) -> DeviceCompared:
        """Raises ``NotFound``."""
        _, device, spec = self._attempt(peer, request.attempt, InventorySpec, CatalogSpec)
        sets = [as_here(each, device) for each in request.sets]
        taken = await self._rebuilding.take(
            device, peer.id, sets, request.deleted, request.locks, catalogs=isinstance(spec, CatalogSpec)
        )
        until = None if request.last or not request.sets else request.sets[-1].id
        believed = await self._tables.ask(partial(set_rows.on_device, device=device.id, after=request.after))
        found = {each.id for each in request.sets}
        at_work = self._at_work()
        return DeviceCompared(
            missing=tuple(each.id for each in believed if each.id not in found and (until is None or each.id <= until)),
            added=tuple(taken.told.added),
            deleted=tuple(taken.told.deleted),
            differ=tuple(taken.told.differ),
            foreign=tuple(taken.foreign),
            abandoned=tuple({each.attempt for each in request.sessions if each.attempt not in at_work}),
            lacking=tuple(each.id for each in taken.lacking),
        )

    def _at_work(self) -> set[str]:
        """The attempts that are active, those that servers run by themselves included."""
        own = {each for heard in self._live.heard.values() for each in (*heard.beat.running, *heard.beat.holding)}
        return own | {attempt.id for attempt in self._keeper.state.active_attempts()}

    async def _catalogs(self, peer: Peer, request: CatalogsAsked, link: Any) -> CatalogsStand:
        """Raises ``NotFound``."""
        self._attempt(peer, request.attempt, CatalogSpec)
        return await self._rebuilding.stand(request.sets[:PAGE])

    async def _lacks(self, peer: Peer, request: DeviceLacks, link: Any) -> v.Done:
        """All that is missing on a device; nothing else is. Raises ``NotFound``."""
        attempt, device, _ = self._attempt(peer, request.attempt, InventorySpec)
        known = await self._tables.ask(partial(set_rows.on_device, device=device.id))
        missing = {each.id: each for each in known if each.id in set(request.sets)}
        if self._live.missing.get(device.id, frozenset()) != missing.keys():
            await self._journal.append(facts.SetsMissing(device.id, tuple(sorted(missing)), attempt.id))
            self._live.missing[device.id] = frozenset(missing)
        # an earlier one may name others
        await self._alarms.ends(MISSING, device.name)
        if missing:
            named = ", ".join(_named(each) for each in list(missing.values())[:_NAMED])
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            text = f"{len(missing)} backup sets that should be on the device {device.name} are not there: {named}{more}"
            await self._alarms.begins(AlertKind.ERROR, MISSING, text, object=device.name)
        return v.Done()


def _named(backup: BackupSet) -> str:
    return f"{backup.id} of {backup.source_name}"
