"""Handing each linked server its orders, whole, whenever its slice has changed."""

from __future__ import annotations

import asyncio
import logging

from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.orders import orders_for, same_slice
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.tickets import digest_of_paths, issue
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import CasoError, NotFound, StaleOrders
from caso_mesh.model.jobs import Attempt, Run
from caso_mesh.model.orders import Orders, ticket_paths
from caso_mesh.model.views import Done
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

#: How long an attempt's two workers have to meet for the first time.
TICKET_LIFE_S = 24 * 3600.0


class Ordering:
    """One task for each linked server."""

    def __init__(
        self, *, keeper: ControlKeeper, links: Links, keys: NodeKeys, live: Live, clock: Clock, randomness: Randomness
    ) -> None:
        self._keeper = keeper
        self._links = links
        self._keys = keys
        self._live = live
        self._clock = clock
        self._randomness = randomness
        self._tickets: dict[str, bytes] = {}
        self._changed = asyncio.Event()

    def orders_of(self, server: str) -> Orders:
        """The orders of a server as of now. Raises ``NotFound`` for one that is not in the mesh."""
        return orders_for(
            self._keeper.state,
            server,
            self._keeper.authority,
            self._keys.id,
            lambda source: self._live.redundant.get(source, ()),
            self._ticket,
        )

    def _ticket(self, attempt: Attempt, run: Run) -> bytes:
        if attempt.source == attempt.server:
            return b""
        ticket = self._tickets.get(attempt.id)
        if ticket is None:
            authority = self._keeper.authority
            ticket = self._tickets[attempt.id] = issue(
                self._keys,
                attempt=attempt.id,
                part=attempt.source,
                dialler=attempt.source,
                acceptor=attempt.server,
                paths=digest_of_paths(ticket_paths(run.spec, attempt.source)),
                lineage=authority.lineage,
                term=authority.term,
                index=authority.index,
                now_ns=self._clock.now_ns(),
                life_s=TICKET_LIFE_S,
                randomness=self._randomness,
            )
        return ticket

    async def run(self) -> None:
        """Never returns."""
        tasks: dict[str, asyncio.Task[None]] = {}
        wake = asyncio.Event()
        unobserve = self._links.observe(lambda node, linked: wake.set())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forget_tickets())
                while True:
                    wake.clear()
                    for server in sorted(self._keeper.state.servers):
                        task = tasks.get(server)
                        if self._links.linked(server) and (task is None or task.done()):
                            tasks[server] = group.create_task(self._serve(server))
                    try:
                        async with asyncio.timeout(1.0):
                            await wake.wait()
                    except TimeoutError:
                        continue
        finally:
            unobserve()

    async def _serve(self, server: str) -> None:
        sent: Orders | None = None
        try:
            link = self._links.get(server)
            async for _ in self._keeper.changes():
                orders = self.orders_of(server)
                if sent is None or not same_slice(sent, orders):
                    await ask(link, "orders.put", orders, Done)
                    sent = orders
        except StaleOrders as error:
            log.error("orders for %s: %s", self._keeper.state.name_of(server), error)
            await asyncio.sleep(5.0)
        except NotFound:
            return
        except CasoError as error:
            log.debug("orders for %s: %s", self._keeper.state.name_of(server), error)
            await asyncio.sleep(0.2)

    async def _forget_tickets(self) -> None:
        async for _ in self._keeper.changes():
            active = {attempt.id for attempt in self._keeper.state.active_attempts()}
            for attempt in [each for each in self._tickets if each not in active]:
                del self._tickets[attempt]
