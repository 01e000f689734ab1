"""The links of this server: one for each peer that it works with, whoever dialled.

A server that is not in office wants a link with the administrator; the one in office wants links with all servers.
Addresses are hints from orders, discovery, configuration and greetings; only the link says who is there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial

from caso_mesh.identity.roster import Peer
from caso_mesh.model.clock import Clock
from caso_mesh.model.dialects import NEWEST, OLDEST
from caso_mesh.model.errors import (
    CasoError,
    CertificateRefused,
    IdentityInUse,
    RemovedFromMesh,
    ServerNotLinked,
    StaleOrders,
    TimedOut,
)
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.mesh import Claim
from caso_mesh.model.nodes import HelloReply, HelloRequest
from caso_mesh.model.orders import Authority
from caso_mesh.server.greetings import bounded, bounded_reply
from caso_mesh.server.packets import nothing_of_packets
from caso_mesh.server.targets import FIRST_PAUSE_S, Pause, Target
from caso_mesh.server.trust import Trust
from caso_mesh.server.twins import ANSWER_S, Twins
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.link import Handler, Link
from caso_mesh.wire.network import ClientTls, Network
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 15.0
#: Of a target among many: however many servers are away, no more than so many are dialled in a second in the long run.
_DIALS_PER_S = 10.0
#: Dials at the same time: thousands of handshakes at once would keep whoever comes into office from its voters.
_DIALS_AT_ONCE = 128
#: Between two looks at who is wanted.
_LOOK_EACH_S = 0.05
#: Two servers that dial each other at the same moment keep one link; within this time of its start it wins by rule.
_SAME_MOMENT_S = 5.0


async def _nothing(link: Link, reply: HelloReply) -> None:
    return


class LinkBook:
    """Every open link by the id of its peer. ``run`` keeps the wanted ones open. ``removed`` is told which peer (id) said
    that this server was removed from the mesh, ``packets`` watches each link that was dialled."""

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
        partners: Callable[[], set[str]] = lambda: set(),  # noqa: PLW0108 - a set of its own each time
        voters: Callable[[], set[str]] = lambda: set(),  # noqa: PLW0108 - as above
        concerns: Callable[[str], bool] = lambda node: True,
        claim: Callable[[], Claim | None] = lambda: None,
        learnt: Callable[[str, HelloRequest | HelloReply], None],
        before_hello: Callable[[Link], Awaitable[None]],
        after_hello: Callable[[Link, HelloReply], Awaitable[None]] = _nothing,
        removed: Callable[[str], None] = lambda by: None,
        packets: Callable[[Link], Coroutine[None, None, None]] = nothing_of_packets,
        jitter: random.Random,
        twins: Twins | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._limits = limits
        self.twins = twins or Twins("", clock)
        self._own = own
        self._network = network
        self._trust = trust
        self._handler = handler
        self._clock = clock
        self._version = version
        self._greeting = greeting
        self._wanted = wanted
        self._partners = partners
        self._voters = voters
        self._concerns = concerns
        self._claim = claim
        self._learnt = learnt
        self._before_hello = before_hello
        self._after_hello = after_hello
        self._removed = removed
        self._packets = packets
        self._jitter = jitter
        self._links: dict[str, Link] = {}
        self._since: dict[str, float] = {}
        self._greetings: dict[str, HelloRequest | HelloReply] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._pauses: dict[str, Pause] = {}
        self._dialling: set[str] = set()
        self._doubted: set[str] = set()
        self._worked: dict[str, str] = {}
        #: Who was reached last, by target: why one side did not believe the certificate of the other, if so.
        self._strange: dict[str, CertificateRefused | None] = {}
        self._longest_pause_s = _LONGEST_PAUSE_S
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

    def strange(self) -> CertificateRefused | None:
        """Why nobody is linked, if it is the certificates: with every server that was reached lately one side did not believe
        that of the other."""
        why = None if self.nodes() else list(self._strange.values())
        return why[-1] if why and None not in why else None

    def turned_away(self) -> IdentityInUse | None:
        """Why voters do not work with this daemon, if it is the second one with its key, and is not linked with the administrator."""
        admin = self._greeting()[2]
        return None if admin is not None and self.linked(admin) else self.twins.of_this_server(self._voters())

    def greeting_of(self, node: str) -> HelloRequest | HelloReply | None:
        """What a linked peer said of itself."""
        return self._greetings.get(node) if self.linked(node) else None

    async def clock_offset_s(self, node: str) -> float:
        """How far a peer's clock is ahead of this one's: it is asked, since a link lives for months. Raises ``Unavailable``."""
        if node == self._own().id:
            return 0.0
        reply = await self._ask_who(self.get(node))
        return (reply.now_ns - self._clock.now_ns()) / 1e9

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

    def wake(self, node: str | None = None) -> None:
        """What is wanted, or an address (of ``node`` alone), has changed: look again now."""
        for key, pause in self._pauses.items():
            if node in {None, key}:
                pause.next_s = 0.0
        self._wake.set()

    def doubt(self, *nodes: str | None) -> None:
        """Links with these may lead nowhere any more, as when another one is in office: it is looked at now, since whoever
        waits for an answer over one that does not would wait for the whole of its silence."""
        self._doubted.update(node for node in nodes if node in self._links)
        self._wake.set()

    async def begin_anew(self) -> None:
        """Every link ends, and is dialled anew: the certificate that was shown on it says other things now."""
        await asyncio.gather(*(link.close() for link in list(self._links.values())))
        self.wake()

    async def prove(self) -> None:
        """This server's addresses have changed: every peer is told, and a link that leads nowhere any more ends now
        instead of after its silence."""
        await asyncio.gather(*(self._prove(link) for link in list(self._links.values())))
        self.wake()

    async def _prove(self, link: Link) -> None:
        try:
            # as long as a ping may take: nothing is lost sooner because it is doubted
            await self._greet(link, self._limits.heartbeat_s / 2)
        except TimedOut as error:
            log.info("the link with %s leads nowhere any more", link.peer.name)
            await link.close(error)
        except CasoError as error:
            log.debug("greeting %s again: %s", link.peer.name, error)

    async def roster_changed(self) -> None:
        """Closes the links with all who are not on the roster any more, and those that are of no use any more: with one that
        was in office and votes no longer, or if that was this server, with those that it was in office for."""
        gone = [link for node, link in self._links.items() if self._trust.row(node) is None]
        for node in [node for node in self._greetings if self._trust.row(node) is None]:
            del self._greetings[node]
        for link in gone:
            log.info("the link with %s ends: it is not on the roster any more", link.peer.name)
        over = [link for node, link in self._links.items() if link not in gone and not self._concerns(node)]
        for link in over:
            log.info("the link with %s ends: neither it nor this server votes any more", link.peer.name)
        await asyncio.gather(
            *(link.close(RemovedFromMesh(peer=link.peer.name)) for link in gone), *(link.close() for link in over)
        )

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
            claim=self._claim(),
            feature_level=FEATURE_LEVEL,
            bulk_newest=NEWEST,
            bulk_oldest=OLDEST,
            instance=self.twins.instance,
        )

    def _reply(self) -> HelloReply:
        addresses, authority, admin, admin_addresses = self._greeting()
        return HelloReply(
            name=self._own().name,
            version=self._version,
            addresses=addresses,
            authority=authority,
            admin=admin,
            admin_addresses=admin_addresses,
            now_ns=self._clock.now_ns(),
            claim=self._claim(),
            feature_level=FEATURE_LEVEL,
            bulk_newest=NEWEST,
            bulk_oldest=OLDEST,
            instance=self.twins.instance,
        )

    async def greeted(self, link: Link, hello: HelloRequest) -> HelloReply:
        """A peer that dialled greets; from now on the link is in the book, unless it believes to be in office while the
        mesh was taken over: then it is only told. Raises ``IdentityInUse``."""
        try:
            await self._check_only_one(link, hello)
            self._note(link, hello)
        except StaleOrders:
            return self._reply()
        await self._register(link)
        return self._reply()

    async def greet_again(self, node: str | None) -> None:
        """Asks a linked peer once more whom it takes for the administrator."""
        link = self._links.get(node) if node is not None else None
        if link is None or link.closed:
            return
        try:
            await self._greet(link)
        except CasoError as error:
            log.debug("greeting %s again: %s", link.peer.name, error)

    async def _greet(self, link: Link, timeout_s: float = 15.0) -> None:
        reply = await self._ask_who(link, timeout_s)
        await self._check_only_one(link, reply)
        self._note(link, reply)
        await self._after_hello(link, reply)

    async def _ask_who(self, link: Callee, timeout_s: float = 15.0) -> HelloReply:
        return await ask(link, "link.hello", self._hello(), HelloReply, timeout_s=timeout_s)

    async def _check_only_one(self, link: Link, hello: HelloRequest | HelloReply) -> None:
        node = link.peer.id
        self._check_lineage(node, hello)  # the lost one is told, and not taken for a copy of the rebuilt one
        again = partial(self._ask_who, timeout_s=min(ANSWER_S, self._limits.heartbeat_s / 2))
        await self.twins.check(link, hello, self._links.get(node), self._greetings.get(node), again)

    def _note(self, link: Link, hello: HelloRequest | HelloReply) -> None:
        hello = bounded_reply(hello) if isinstance(hello, HelloReply) else bounded(hello)
        node = link.peer.id
        self._check_lineage(node, hello)
        self._greetings[node] = hello
        self._learnt(node, hello)

    def _check_lineage(self, node: str, hello: HelloRequest | HelloReply) -> None:
        """An administrator that was rebuilt elsewhere is the same node as the lost one, in a higher lineage. The lost
        one is not talked to: it would take the place of the other in this book. Raises ``StaleOrders``. Where this
        server itself is in office, another one that still believes to be is told, by orders of the higher lineage."""
        _, known, admin, _ = self._greeting()
        if admin == self._own().id != node:
            return
        if hello.admin != node or hello.authority is None or known is None:
            return
        claim = self._claim()
        if hello.authority.lineage < max(known.lineage, claim.lineage if claim is not None else 0):
            raise StaleOrders(given=hello.authority, current=known)

    async def _register(self, link: Link) -> bool:
        node = link.peer.id
        old = self._links.get(node)
        if old is link or link.closed:
            return old is link
        now = self._clock.monotonic_s()
        if old is not None and not old.closed:
            ours_wins = self._own().id < node
            keep_old = old.dialled == ours_wins and link.dialled != ours_wins
            if keep_old and now - self._since[node] < _SAME_MOMENT_S:
                await link.close()
                return False
        self._links[node] = link
        self._since[node] = now
        self.twins.accepted(node)
        self._look_after(self._watch(node, link), f"link with {link.peer.name}")
        if old is not None:
            await old.close()
        await self._announce(node, linked=True)
        if link.dialled:
            self._look_after(self._packets(link), f"packets to {link.peer.name}")
        return True

    def _look_after(self, work: Coroutine[None, None, None], name: str) -> None:
        watcher = asyncio.create_task(work, name=name)
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, node: str, link: Link) -> None:
        await link.wait_closed()
        if self._links.get(node) is link:
            del self._links[node]
            lived_s = self._clock.monotonic_s() - self._since.pop(node)
            if lived_s >= _SAME_MOMENT_S and node in self._pauses:
                # it had worked: the way back is tried soon, but a peer that hangs up at once is left alone for longer
                self._pauses[node].length_s = FIRST_PAUSE_S
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
                for doubted in [self._links[node] for node in sorted(self._doubted) if node in self._links]:
                    group.create_task(self._prove(doubted))
                self._doubted.clear()
                targets = list(self._wanted())
                self._longest_pause_s = max(_LONGEST_PAUSE_S, len(targets) / _DIALS_PER_S)
                for key in self._pauses.keys() - {target.key for target in targets} - self._links.keys():
                    if key not in self._dialling:
                        del self._pauses[key]
                        self._strange.pop(key, None)
                due = list[tuple[Target, Pause]]()
                for target in targets:
                    if target.node is not None and (self.linked(target.node) or target.node == self._own().id):
                        continue
                    if not target.addresses or target.key in self._dialling:
                        continue
                    pause = self._pauses.setdefault(target.key, Pause())
                    if pause.next_s > now:
                        soonest = min(soonest, pause.next_s)
                        continue
                    due.append((target, pause))
                # who has waited longest first: else those that are away would be dialled again before others once
                for target, pause in sorted(due, key=lambda each: each[1].next_s):
                    if len(self._dialling) >= _DIALS_AT_ONCE and target.node not in self._partners():
                        continue  # the end of one of them wakes this
                    self._dialling.add(target.key)
                    group.create_task(self._dial(target, pause))
                # what wakes it comes in crowds when a thousand servers come or go
                await asyncio.sleep(_LOOK_EACH_S)
                try:
                    async with asyncio.timeout(max(0.0, soonest - now - _LOOK_EACH_S)):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _dial(self, target: Target, pause: Pause) -> None:
        worked = self._worked.get(target.key)
        # the one that worked last goes first: hints of the network cannot push it back
        addresses = sorted(target.addresses, key=lambda address: address != worked)
        # set before, so that whoever wakes this book meanwhile has the next try at once
        pause.next_s = self._clock.monotonic_s() + _LONGEST_PAUSE_S
        try:
            for address in addresses:
                if await self._try(target, address):
                    self._worked[target.key] = address
                    break
        finally:
            if pause.next_s > 0:
                pause.next_s = self._clock.monotonic_s() + pause.length_s * self._jitter.uniform(0.7, 1.3)
            pause.length_s = min(self._longest_pause_s, pause.length_s * 2)
            self._dialling.discard(target.key)
            self._wake.set()

    async def _try(self, target: Target, address: str) -> bool:
        link: Link | None = None
        kept, there = False, list[Peer]()

        def authorise(certificate: bytes | None) -> Peer:
            there.append(self._trust.authorise(certificate))
            return there[-1]

        try:
            link = await self._network.dial(
                address,
                tls=ClientTls(self._trust.client_tls),
                authorise=authorise,
                handler=self._handler,
                limits=self._limits,
            )
            if link.peer.id == self._own().id or link.peer.kind != "node":
                return False
            self._strange[target.key] = None
            if target.node is not None and link.peer.id != target.node:
                log.info("%s is %s now, not %s", address, link.peer.name, self._trust.name_of(target.node))
            await self._before_hello(link)
            await self._greet(link)
            # one that only told who the administrator is has done its service
            if self._greeting()[2] in {link.peer.id, self._own().id} or link.peer.id in self._partners():
                kept = await self._register(link)
        except StaleOrders as error:
            log.error(
                "%s is of a higher lineage: the administrator of this mesh was rebuilt on another machine (%s)",
                address, error,
            )  # fmt: skip
        except CertificateRefused as error:
            if self._strange.get(target.key) is None:
                log.warning("%s: %s", self._trust.name_of(target.node) if target.node else address, error)
            self._strange[target.key] = error
        except IdentityInUse as error:
            log.debug("dialling %s: %s", address, error)
            if there and error.fields.get("server") == self._own().name:
                self.twins.refused(there[-1].id, error)
        except RemovedFromMesh as error:
            log.debug("dialling %s: %s", address, error)
            if there:  # else it is the other one that was removed
                self._removed(there[-1].id)
        except CasoError as error:
            log.debug("dialling %s: %s", address, error)
        except Exception:
            # one peer that cannot be dialled, for whatever reason, ends neither the others nor the daemon
            log.exception("dialling %s", address)
        finally:
            if link is not None and not kept:
                await link.close()
        return kept

    @asynccontextmanager
    async def closing(self) -> AsyncIterator[None]:
        """Closes every link at the end."""
        try:
            yield
        finally:
            await asyncio.gather(*(link.close() for link in list(self._links.values())), return_exceptions=True)
            for watcher in list(self._watchers):
                watcher.cancel()
            await asyncio.gather(*self._watchers, return_exceptions=True)
