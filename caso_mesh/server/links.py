"""The links of this server: one for each peer that it works with, whoever dialled.

A server that is not in office wants a link with the administrator; the one in office wants links with all servers.
Addresses are hints from orders, discovery, configuration and greetings; only the link says who is there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from caso_mesh.identity.roster import Peer
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError, LinkLost, NoAdmin, ServerNotLinked
from caso_mesh.model.orders import Authority
from caso_mesh.model.requests import HelloReply, HelloRequest
from caso_mesh.server.trust import Trust
from caso_mesh.wire.codec import to_wire
from caso_mesh.wire.link import Handler, Link
from caso_mesh.wire.network import ClientTls, Network
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 15.0
#: Two servers that dial each other at the same moment keep one link; within this time of its start it wins by rule.
_SAME_MOMENT_S = 5.0


class Target(Struct, frozen=True):
    """Somebody to have a link with. ``node`` ``None``: whoever answers there may know the administrator."""

    node: str | None
    addresses: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.node or ",".join(self.addresses)


class OwnLink:
    """This server talking to itself, by the same calls and the same encoding as over a link."""

    def __init__(self, peer: Peer, handler: Handler) -> None:
        self.peer = peer
        self.remote_address = "own"
        self.dialled = True
        self.session = "own"
        self.closed = False
        self._handler = handler

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        async with asyncio.timeout(timeout_s):
            return await self._handler.call(self, method, params)  # type: ignore[arg-type]

    async def notify(self, method: str, params: Any = None) -> None:
        await self._handler.notify(self, method, params)  # type: ignore[arg-type]


class _Pause:
    """When a target is dialled again."""

    def __init__(self) -> None:
        self.next_s = 0.0
        self.length_s = _FIRST_PAUSE_S


class LinkBook:
    """Every open link by the id of its peer. ``run`` keeps the wanted ones open."""

    def __init__(
        self,
        *,
        own: Callable[[], Peer],
        network: Network,
        trust: Trust,
        handler: Handler,
        clock: Clock,
        version: str,
        greeting: Callable[[], tuple[tuple[str, ...], Authority | None, str | None, tuple[str, ...]]],
        wanted: Callable[[], Iterable[Target]],
        learnt: Callable[[str, tuple[str, ...], Authority | None], None],
        before_hello: Callable[[Link], Awaitable[None]],
        jitter: random.Random,
    ) -> None:
        self._own = own
        self._network = network
        self._trust = trust
        self._handler = handler
        self._clock = clock
        self._version = version
        self._greeting = greeting
        self._wanted = wanted
        self._learnt = learnt
        self._before_hello = before_hello
        self._jitter = jitter
        self._links: dict[str, Link] = {}
        self._since: dict[str, float] = {}
        self._greetings: dict[str, HelloRequest | HelloReply] = {}
        self._clock_offsets: dict[str, float] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._pauses: dict[str, _Pause] = {}
        self._dialling: set[str] = set()
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._observers: list[Callable[[str, bool], None]] = []
        self.own_link: Callee | None = None

    # --- looking up ---

    def get(self, node: str) -> Callee:
        """The link with a node; with this server itself its own. Raises ``ServerNotLinked``."""
        if node == self._own().id and self.own_link is not None:
            return self.own_link
        link = self._links.get(node)
        if link is None or link.closed:
            raise ServerNotLinked(server=self._trust.name_of(node))
        return link

    def linked(self, node: str) -> bool:
        if node == self._own().id:
            return True
        link = self._links.get(node)
        return link is not None and not link.closed

    def nodes(self) -> list[str]:
        """The peers linked now, this server not among them."""
        return sorted(node for node, link in self._links.items() if not link.closed)

    def greeting_of(self, node: str) -> HelloRequest | HelloReply | None:
        """What a linked peer said of itself."""
        return self._greetings.get(node) if self.linked(node) else None

    def clock_offset_s(self, node: str) -> float | None:
        """How far a peer's clock was ahead of this one's when it greeted."""
        return self._clock_offsets.get(node)

    async def wait_for(self, node: str, timeout_s: float) -> Callee:
        """The link with a node, waiting for it. Raises ``ServerNotLinked``."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.linked(node))
        except TimeoutError:
            raise ServerNotLinked(server=self._trust.name_of(node)) from None
        return self.get(node)

    def observe(self, observer: Callable[[str, bool], None]) -> Callable[[], None]:
        """Calls ``observer(node, linked)`` at each change; returns what ends that."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def wake(self) -> None:
        """What is wanted, or an address, has changed: look again now."""
        self._pauses.clear()
        self._wake.set()

    # --- greeting ---

    def _hello(self) -> HelloRequest:
        addresses, authority, admin, _ = self._greeting()
        return HelloRequest(
            name=self._own().name,
            version=self._version,
            addresses=addresses,
            authority=authority,
            admin=admin,
            now_ns=self._clock.now_ns(),
        )

    async def greeted(self, link: Link, hello: HelloRequest) -> HelloReply:
        """A peer that dialled greets; from now on the link is in the book."""
        self._note(link, hello)
        addresses, authority, admin, admin_addresses = self._greeting()
        await self._register(link)
        return HelloReply(
            name=self._own().name,
            version=self._version,
            addresses=addresses,
            authority=authority,
            admin=admin,
            admin_addresses=admin_addresses,
            now_ns=self._clock.now_ns(),
        )

    def _note(self, link: Link, hello: HelloRequest | HelloReply) -> None:
        node = link.peer.id
        self._greetings[node] = hello
        self._clock_offsets[node] = (hello.now_ns - self._clock.now_ns()) / 1e9
        if hello.admin is not None:
            addresses = hello.admin_addresses if isinstance(hello, HelloReply) else ()
            if hello.admin == node:
                addresses = (*hello.addresses, *addresses)
            self._learnt(hello.admin, addresses, hello.authority)

    async def _register(self, link: Link) -> bool:
        node = link.peer.id
        old = self._links.get(node)
        now = self._clock.monotonic_s()
        if old is not None and not old.closed and old is not link:
            ours_wins = self._own().id < node
            keep_old = old.dialled == ours_wins and link.dialled != ours_wins
            if keep_old and now - self._since[node] < _SAME_MOMENT_S:
                await link.close()
                return False
        self._links[node] = link
        self._since[node] = now
        watcher = asyncio.create_task(self._watch(node, link))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        if old is not None and old is not link:
            await old.close()
        await self._announce(node, linked=True)
        return True

    async def _watch(self, node: str, link: Link) -> None:
        await link.wait_closed()
        if self._links.get(node) is link:
            del self._links[node]
            await self._announce(node, linked=False)
            self._wake.set()

    async def _announce(self, node: str, *, linked: bool) -> None:
        for observer in list(self._observers):
            observer(node, linked)
        async with self._changed:
            self._changed.notify_all()

    # --- dialling ---

    async def run(self) -> None:
        """Dials what is wanted and not linked, with pauses that grow; never returns."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                now = self._clock.monotonic_s()
                soonest = now + 5.0
                for target in self._wanted():
                    if target.node is not None and (self.linked(target.node) or target.node == self._own().id):
                        continue
                    if not target.addresses or target.key in self._dialling:
                        continue
                    pause = self._pauses.setdefault(target.key, _Pause())
                    if pause.next_s > now:
                        soonest = min(soonest, pause.next_s)
                        continue
                    self._dialling.add(target.key)
                    group.create_task(self._dial(target, pause))
                try:
                    async with asyncio.timeout(max(0.02, soonest - now)):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _dial(self, target: Target, pause: _Pause) -> None:
        try:
            for address in target.addresses:
                if await self._try(target, address):
                    pause.length_s = _FIRST_PAUSE_S
                    break
            pause.next_s = self._clock.monotonic_s() + pause.length_s * self._jitter.uniform(0.7, 1.3)
            pause.length_s = min(_LONGEST_PAUSE_S, pause.length_s * 2)
        finally:
            self._dialling.discard(target.key)
            self._wake.set()

    async def _try(self, target: Target, address: str) -> bool:
        link: Link | None = None
        try:
            link = await self._network.dial(
                address,
                tls=ClientTls(self._trust.client_tls),
                authorise=self._trust.authorise,
                handler=self._handler,
            )
            if link.peer.id == self._own().id or link.peer.kind != "node":
                await link.close()
                return False
            if target.node is not None and link.peer.id != target.node:
                log.info("%s is %s now, not %s", address, link.peer.name, self._trust.name_of(target.node))
            await self._before_hello(link)
            reply = await ask(link, "link.hello", self._hello(), HelloReply)
            self._note(link, reply)
            own_admin = self._greeting()[2]
            if own_admin in {link.peer.id, self._own().id}:
                return await self._register(link)
            # it only told who the administrator is
            await link.close()
            return False
        except CasoError as error:
            log.debug("dialling %s: %s", address, error)
            if link is not None:
                await link.close()
            return False

    @asynccontextmanager
    async def closing(self) -> AsyncIterator[None]:
        """Closes every link at the end."""
        try:
            yield
        finally:
            for link in list(self._links.values()):
                await link.close()
            for watcher in list(self._watchers):
                watcher.cancel()
            await asyncio.gather(*self._watchers, return_exceptions=True)


class AdminLink:
    """The way to the administrator in office, wherever it is."""

    def __init__(self, book: LinkBook, admin: Callable[[], str | None], own_name: str) -> None:
        self._book = book
        self._admin = admin
        self._own_name = own_name

    def get(self) -> Callee:
        """Raises ``NoAdmin``."""
        admin = self._admin()
        if admin is None or not self._book.linked(admin):
            raise NoAdmin(server=self._own_name)
        return self._book.get(admin)

    async def notify(self, method: str, params: Struct) -> None:
        """Tells the administrator, if there is one; what cannot be told now is not repeated."""
        try:
            await self.get().notify(method, to_wire(params))
        except (NoAdmin, LinkLost, ServerNotLinked):
            return
