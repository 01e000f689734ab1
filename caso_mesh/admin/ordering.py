"""Handing each linked server its orders, whole, whenever its slice has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.orders import Difference, as_change, difference, orders_for, same_slice, shared_digest, spec_of
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.tickets import digest_of_paths, issue
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import CasoError, LinkLost, NotFound, ServerNotLinked, StaleOrders, UnknownCall
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.jobs import Attempt, Run
from caso_mesh.model.nodes import OrdersTaken
from caso_mesh.model.orders import Authority, Orders, ticket_paths
from caso_mesh.model.views import Done
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

#: How long an attempt's two workers have to meet for the first time.
TICKET_LIFE_S = 24 * 3600.0
#: Between two messages to one server.
_COALESCE_S = 0.02
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class _Shared:
    """What lies between two states of the roster and the addresses, which the control state hands out as the same tuples
    until they change."""

    def __init__(self, held: Orders, now: Orders) -> None:
        self._between = (held.roster, held.nodes, now.roster, now.nodes)
        self.base = shared_digest(held)
        self.difference = Difference() if held is now else difference(held, now)

    def lies_between(self, held: Orders, now: Orders) -> bool:
        between = (held.roster, held.nodes, now.roster, now.nodes)
        return all(one is other for one, other in zip(self._between, between, strict=True))


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
        #: What all servers that are told now are told alike.
        self._shared: _Shared | None = None
        #: What each linked server is told by when its orders have changed.
        self._news: dict[str, asyncio.Event] = {}
        #: The orders that each linked server took last.
        self._taken: dict[str, Orders] = {}
        #: Of each linked server the first orders that it took over its link, and by attempt that wrote files there the first
        #: ones without it.
        self._first: dict[str, Authority] = {}
        self._left: dict[str, dict[str, Authority]] = {}

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

    def holds(self, server: str, certificate: bytes) -> bool:
        """Whether a linked server has taken orders with that anchor."""
        taken = self._taken.get(server)
        return taken is not None and any(each.certificate == certificate for each in taken.roster.anchors)

    def knows(self, server: str, others: Collection[str]) -> bool:
        """Whether a linked server has taken orders by which all those nodes are voters: it lets in and follows no others."""
        taken = self._taken.get(server)
        if taken is None:
            return False
        rows, voters = {row.id for row in taken.roster.rows}, {anchor.voter for anchor in taken.roster.anchors}
        return rows & voters >= set(others)

    def without(self, server: str, attempt: str) -> Authority | None:
        """The first orders without an attempt that writes files of a linked server which that has taken; ``None`` if it has
        not, as far as is known."""
        taken = self._taken.get(server)
        if taken is None or any(each.attempt == attempt for each in taken.attempts):
            return None
        return self._left[server].get(attempt, self._first[server])

    def _note_taken(self, server: str, before: Orders | None, orders: Orders) -> None:
        if before is None:
            self._first[server], self._left[server] = orders.authority, {}
        else:
            now = {each.attempt for each in orders.attempts}
            for gone in before.attempts:
                if gone.writes_files and gone.attempt not in now:
                    self._left[server][gone.attempt] = orders.authority
        self._taken[server] = orders

    def _ticket(self, attempt: Attempt, run: Run) -> bytes:
        spec = spec_of(self._keeper.state, attempt)
        if spec is None or (attempt.other == attempt.server and not attempt.beside):
            return b""
        ticket = self._tickets.get(attempt.id)
        if ticket is None:
            authority = self._keeper.authority
            ticket = self._tickets[attempt.id] = issue(
                self._keys,
                attempt=attempt.id,
                part=attempt.source,
                dialler=attempt.other,
                acceptor=attempt.server,
                paths=digest_of_paths(ticket_paths(spec, attempt.source)),
                lineage=authority.lineage,
                term=authority.term,
                index=authority.index,
                now_ns=self._clock.now_ns(),
                life_s=TICKET_LIFE_S,
                randomness=self._randomness,
            )
        return ticket

    def _of_version(self, server: str) -> str:
        """Which software it runs, where that may be why."""
        greeting = self._links.greeting_of(server)
        if greeting is None or greeting.feature_level == FEATURE_LEVEL:
            return ""
        return (
            f" (it runs caso-mesh {greeting.version} of feature level {greeting.feature_level}, this server is of level"
            f" {FEATURE_LEVEL}: upgrade the older)"
        )

    async def run(self) -> None:
        """Never returns."""
        serving: dict[str, tuple[Callee, asyncio.Task[None]]] = {}
        wake = asyncio.Event()
        unobserve = self._links.observe(lambda node, linked: wake.set())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forget_tickets())
                group.create_task(self._spread())
                while True:
                    wake.clear()
                    for server in sorted(self._keeper.state.servers.keys() | serving.keys()):
                        link = self._link(server)
                        known = serving.get(server)
                        if known is not None and (known[0] is not link or known[1].done()):
                            # the server behind a new link may be one that was put back to an older state: it is told anew
                            known[1].cancel()
                            del serving[server]
                            known = None
                        if link is not None and known is None:
                            serving[server] = (link, group.create_task(self._serve(server, link)))
                    try:
                        async with asyncio.timeout(1.0):
                            await wake.wait()
                    except TimeoutError:
                        continue
        finally:
            unobserve()

    async def _spread(self) -> None:
        """Wakes those whose orders may have changed, and nobody else. Never returns."""
        told: dict[str, tuple[int, int]] = {}
        async for _ in self._keeper.changes():
            state = self._keeper.state
            for server, news in self._news.items():
                version = state.orders_version(server)
                if told.get(server) != version:
                    told[server] = version
                    news.set()
            for server in told.keys() - self._news.keys():
                del told[server]

    def _link(self, server: str) -> Callee | None:
        if server not in self._keeper.state.servers or not self._links.linked(server):
            return None
        try:
            return self._links.get(server)
        except ServerNotLinked:
            return None

    async def _serve(self, server: str, link: Callee) -> None:
        """Keeps one server told as long as this link lasts."""
        sent: Orders | None = None
        pause_s = _FIRST_PAUSE_S
        news = self._news[server] = asyncio.Event()
        try:
            while True:
                news.clear()
                orders = self.orders_of(server)
                if sent is not None and same_slice(sent, orders):
                    await news.wait()
                    continue
                while True:
                    try:
                        if not await self._change(link, orders if sent is None else sent, orders):
                            await ask(link, "orders.put", orders, Done)
                        break
                    except LinkLost:
                        return
                    except CasoError as error:
                        name = self._keeper.state.name_of(server)
                        log.log(
                            logging.ERROR if isinstance(error, StaleOrders) else logging.INFO,
                            "%s does not take its orders%s: %s", name, self._of_version(server), error,
                        )  # fmt: skip
                        await asyncio.sleep(pause_s)
                        pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
                        orders = self.orders_of(server)
                self._note_taken(server, sent, orders)
                sent, pause_s = orders, _FIRST_PAUSE_S
                # changes that follow each other closely make one more message, not one each
                await asyncio.sleep(_COALESCE_S)
        except NotFound:
            return  # removed meanwhile
        finally:
            if self._news.get(server) is news:
                del self._news[server]
                for known in (self._taken, self._first, self._left):
                    known.pop(server, None)

    async def _change(self, link: Callee, held: Orders, orders: Orders) -> bool:
        """Sends what differs from what the server holds; whether it took that. Of a new link it is not known what it
        holds: most likely all that is in all orders, since it was there before."""
        known = self._shared
        if known is None or not known.lies_between(held, orders):
            known = self._shared = _Shared(held, orders)
        try:
            reply = await ask(link, "orders.change", as_change(known.base, orders, known.difference), OrdersTaken)
        except UnknownCall:
            return False  # of an older version
        return reply.taken

    async def _forget_tickets(self) -> None:
        async for _ in self._keeper.changes():
            active = {attempt.id for attempt in self._keeper.state.active_attempts()}
            for attempt in [each for each in self._tickets if each not in active]:
                del self._tickets[attempt]
