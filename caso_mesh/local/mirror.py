"""The own control state of a server follows its orders, and takes the copies that are in them, each once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import structs

from caso_mesh.admin.ports import Facts, Submit
from caso_mesh.control.following import follow_orders
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.tables import Context
from caso_mesh.control.taking import all_refused, outcomes_of
from caso_mesh.model import facts
from caso_mesh.model.commands import FoundMesh
from caso_mesh.model.copies import Copy, FollowOrders, TakeCopy
from caso_mesh.model.errors import Conflict, InUse, InvalidName, InvalidValue, NotFound, UsageError
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.ids import IdSource
from caso_mesh.model.orders import Orders
from caso_mesh.model.states import DataLocation, Liveness, ServerState

log = logging.getLogger(__name__)

#: Why a parcel as a whole cannot be taken; anything else may pass, and it is tried again.
_REFUSALS = (Conflict, InvalidName, InvalidValue, NotFound, UsageError)


class Mirror:
    """``orders`` are those in force; ``look`` tells that there are others."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        submit: Submit,
        facts: Facts,
        orders: Callable[[], Orders],
        new_id: IdSource,
    ) -> None:
        self._keeper = keeper
        self._submit = submit
        self._facts = facts
        self._orders = orders
        self._new_id = new_id
        self._told: set[str] = set()
        #: A copy waits for the end of runs of what it replaces.
        self.waits = False
        self._looks = asyncio.Event()

    def look(self) -> None:
        """There are other orders."""
        self._looks.set()

    async def found(self) -> None:
        """Before anything else: the state knows the mesh, this server and its devices."""
        orders = self._orders()
        first = as_command(orders)
        if self._keeper.state.mesh is None:
            await self._submit(FoundMesh(first.mesh, (), first.server, (), orders.media_sets))
        await self._follow(orders)

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_when_changed())
            while True:
                self._looks.clear()
                self.waits = False
                orders = self._orders()
                await self._follow(orders)
                for copy in orders.copies:
                    if copy.id not in self._told:
                        await self._take(copy)
                self._told &= {copy.id for copy in orders.copies}
                await self._looks.wait()

    async def _look_when_changed(self) -> None:
        # a device that left the orders goes when the attempt that uses it has ended
        async for _ in self._keeper.changes():
            if self.waits or self._is_behind(self._orders()):
                self._looks.set()

    def _is_behind(self, orders: Orders) -> bool:
        return bool(follow_orders(self._keeper.state, as_command(orders), Context("", 0)).changes)

    async def _follow(self, orders: Orders) -> None:
        if self._is_behind(orders):
            await self._submit(as_command(orders))

    async def _take(self, copy: Copy) -> None:
        """Taken again, as after a restart before the administrator knew of it, it comes to what it came to."""
        try:
            result = await self._submit(TakeCopy(copy, self._new_id()), who=copy.who, request_id=f"copy-{copy.id}")
            outcomes = outcomes_of(result)
        except InUse as error:
            log.info("a copy waits for the end of what it replaces: %s", error)
            self.waits = True
            return
        except _REFUSALS as error:
            outcomes = all_refused(copy, error.message)
        for each in outcomes:
            log.info("copied to this server: %s %s, %s %s", each.kind, each.name, each.came, each.reason)
        await self._facts.append(facts.CopyTaken(copy.id, outcomes))
        self._told.add(copy.id)


def as_command(orders: Orders) -> FollowOrders:
    """What the own control state of a server is to know of the mesh. Its own work goes on while the server is paused,
    and wherever its device and media data lie."""
    own = orders.server.id
    server = structs.replace(
        orders.server, set_state=ServerState.ENABLED, data_location=DataLocation.ADMIN, liveness=Liveness.ALIVE, silent_since_ns=None, ever_linked=True,
        voter=False, settings={},
    )  # fmt: skip
    devices = tuple(
        structs.replace(device, paths=tuple(place for place in device.paths if place.server == own))
        for device in orders.devices
        if device.path_on(own) is not None
    )
    mesh = structs.replace(orders.roster.mesh, feature_level=FEATURE_LEVEL)
    return FollowOrders(mesh, server, devices, orders.media_sets, dict(orders.settings), orders.logons)
