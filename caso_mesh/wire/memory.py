"""A network in memory, for meshes inside one process and for simulation: delays, cuts and losses at will, no sockets,
no threads, no clock but the loop's (so that a loop with virtual time repeats exactly from the seed).

It behaves as TCP with heartbeats does: inside a link nothing is lost or reordered. A cut way holds messages back; if
it is not healed within ``silence_s``, both ends lose the link. A reset (``drop_links``) shows at once.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec

from caso_mesh.model.errors import CannotConnect, CannotListen, CasoError, PeerOversized, PortInUse
from caso_mesh.wire.handshake import Authorise, establish
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.link import Handler, Link
from caso_mesh.wire.network import (
    ClientTls,
    Listener,
    OnLink,
    OnRefusal,
    ServerTls,
    WorkerFor,
    join_address,
    split_address,
)

#: Bytes on their way in one direction before the sender waits.
_WINDOW_BYTES = 1024 * 1024
_FIRST_FREE_PORT = 40_000


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes from one endpoint to another. Seconds; probabilities from 0 to 1."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Added to the delay, evenly spread. Two links overtake each other; one link never itself."""
    loss: float = 0.0
    """For each message, that the link breaks instead."""
    duplicate: float = 0.0
    """For each dial, that the other side sees a second link of the same peer, which breaks a little later."""


class MemoryNetwork:
    """All endpoints that can reach each other. ``silence_s``: when both ends give up a link over a cut way."""

    def __init__(self, *, seed: int = 0, conditions: Conditions | None = None, silence_s: float = 15.0) -> None:
        self._random = random.Random(seed)
        self._default = conditions or Conditions()
        self._silence_s = silence_s
        self._conditions: dict[tuple[MemoryEndpoint, MemoryEndpoint], Conditions] = {}
        self._cut: set[tuple[MemoryEndpoint, MemoryEndpoint]] = set()
        self._endpoints: list[MemoryEndpoint] = []
        self._listeners: dict[tuple[str, int], _MemoryListener] = {}
        self._wires: list[_Wire] = []
        self._next_port = _FIRST_FREE_PORT
        #: Called with sender and receiver of each message that sets out.
        self.on_message: Callable[[MemoryEndpoint, MemoryEndpoint], None] = lambda sender, receiver: None

    def endpoint(self, certificate: bytes | None, *, name: str | None = None) -> MemoryEndpoint:
        """A ``Network`` whose peers see ``certificate`` (any bytes) as its leaf."""
        endpoint = MemoryEndpoint(self, certificate, name or f"node{len(self._endpoints) + 1}")
        self._endpoints.append(endpoint)
        return endpoint

    def set_conditions(self, a: MemoryEndpoint, b: MemoryEndpoint, conditions: Conditions) -> None:
        """For messages between ``a`` and ``b``, both ways, from now on."""
        self._conditions[a, b] = self._conditions[b, a] = conditions

    def cut(self, a: MemoryEndpoint, b: MemoryEndpoint, *, one_way: bool = False) -> None:
        """Nothing goes from ``a`` to ``b`` any more and, unless ``one_way``, nothing back."""
        self._cut.add((a, b))
        if not one_way:
            self._cut.add((b, a))
        for wire in self._between(a, b):
            wire.was_cut()

    def partition(self, *groups: Iterable[MemoryEndpoint]) -> None:
        """Cuts between endpoints of different groups; an endpoint in no group is a group of its own."""
        side = {endpoint: number for number, group in enumerate(groups) for endpoint in group}
        for number, endpoint in enumerate(self._endpoints):
            side.setdefault(endpoint, -1 - number)
        for number, a in enumerate(self._endpoints):
            for b in self._endpoints[:number]:
                if side[a] != side[b]:
                    self.cut(a, b)

    def heal(self, a: MemoryEndpoint | None = None, b: MemoryEndpoint | None = None) -> None:
        """Ends the cuts between ``a`` and ``b``, all cuts of ``a``, or all cuts."""
        self._cut = {way for way in self._cut if not (a is None or (a in way and (b is None or b in way)))}
        for wire in tuple(self._wires):
            wire.was_healed()

    def drop_links(self, a: MemoryEndpoint | None = None, b: MemoryEndpoint | None = None) -> None:
        """Breaks the links between ``a`` and ``b``, all of ``a``, or all, at once on both sides."""
        for wire in tuple(self._wires):
            if a is None or (a in wire.ends and (b is None or b in wire.ends)):
                wire.break_now()

    def is_cut(self, a: MemoryEndpoint, b: MemoryEndpoint) -> bool:
        """Whether nothing goes from ``a`` to ``b``."""
        return (a, b) in self._cut

    def conditions(self, a: MemoryEndpoint, b: MemoryEndpoint) -> Conditions:
        return self._conditions.get((a, b), self._default)

    def _between(self, a: MemoryEndpoint, b: MemoryEndpoint) -> list[_Wire]:
        return [wire for wire in self._wires if a in wire.ends and b in wire.ends]

    def _free_port(self) -> int:
        self._next_port += 1
        return self._next_port

    async def _travel(self, a: MemoryEndpoint, b: MemoryEndpoint) -> None:
        """As long as one packet takes; for ever when the way is cut (whoever waits has a timeout)."""
        if self.is_cut(a, b):
            await asyncio.get_running_loop().create_future()
        conditions = self.conditions(a, b)
        await asyncio.sleep(conditions.delay_s + self._random.random() * conditions.jitter_s)


class MemoryEndpoint:
    """The ``Network`` of one identity in a ``MemoryNetwork``. TLS is not asked for anything."""

    def __init__(self, network: MemoryNetwork, certificate: bytes | None, name: str) -> None:
        self.network = network
        self.certificate = certificate
        self.name = name

    def __repr__(self) -> str:
        return f"<MemoryEndpoint {self.name}>"

    @asynccontextmanager
    async def listen(
        self,
        address: str,
        *,
        tls: ServerTls | None = None,
        authorise: Authorise,
        handler: Handler,
        on_link: OnLink | None = None,
        on_refusal: OnRefusal | None = None,
        worker_for: WorkerFor | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> AsyncIterator[Listener]:
        """As in ``Network``. There are no sockets to hand over, so nobody is ever sent to ``worker_for``."""
        try:
            host, port = split_address(address)
        except ValueError as exc:
            raise CannotListen(address=address, detail=str(exc)) from None
        key = (host, port or self.network._free_port())
        if key in self.network._listeners:
            raise PortInUse(address=address)
        listener = _MemoryListener(self, join_address(*key), authorise, handler, on_link, limits)
        self.network._listeners[key] = listener
        try:
            yield listener
        finally:
            del self.network._listeners[key]
            await listener.close()

    async def dial(
        self,
        address: str,
        *,
        tls: ClientTls | None = None,
        authorise: Authorise,
        handler: Handler,
        timeout_s: float = 10.0,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        whole: bool = False,
    ) -> Link:
        """As in ``Network``."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._dial(address, authorise, handler, limits)
        except TimeoutError:
            raise CannotConnect(address=address, detail=f"no answer within {timeout_s:g} s") from None

    async def _dial(self, address: str, authorise: Authorise, handler: Handler, limits: Limits) -> Link:
        try:
            key = split_address(address)
        except ValueError as exc:
            raise CannotConnect(address=address, detail=str(exc)) from None
        listener = self.network._listeners.get(key)
        if listener is None:
            raise CannotConnect(address=address, detail="Connection refused")
        there = listener.endpoint
        await self.network._travel(self, there)
        await self.network._travel(there, self)
        if listener.closed:
            raise CannotConnect(address=address, detail="Connection refused")
        if self.network._random.random() < self.network.conditions(self, there).duplicate:
            await self._duplicate(listener, address, authorise, handler, limits)
        wire = _Wire(self.network, self, there)
        listener.accept(wire)
        return await self._establish(wire, address, there, authorise, handler, limits)

    async def _duplicate(
        self, listener: _MemoryListener, address: str, authorise: Authorise, handler: Handler, limits: Limits
    ) -> None:
        wire = _Wire(self.network, self, listener.endpoint)
        listener.accept(wire)
        await self._establish(wire, address, listener.endpoint, authorise, handler, limits)
        later = self.network.conditions(self, listener.endpoint).delay_s + self.network._random.random()
        asyncio.get_running_loop().call_later(later, wire.break_now)

    async def _establish(
        self,
        wire: _Wire,
        address: str,
        there: MemoryEndpoint,
        authorise: Authorise,
        handler: Handler,
        limits: Limits,
    ) -> Link:
        return await establish(
            _MemoryChannel(wire, 0, limits, address),
            dialled=True,
            address=address,
            certificate=there.certificate,
            authorise=authorise,
            handler=handler,
            limits=limits,
            random_bytes=self.network._random.randbytes,
        )


class _MemoryListener:
    def __init__(
        self,
        endpoint: MemoryEndpoint,
        address: str,
        authorise: Authorise,
        handler: Handler,
        on_link: OnLink | None,
        limits: Limits,
    ) -> None:
        self.endpoint = endpoint
        self.address = address
        self.closed = False
        self._authorise = authorise
        self._handler = handler
        self._on_link = on_link
        self._limits = limits
        self._links: dict[Link, None] = {}  # in the order in which they came, as a set is not
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def links(self) -> frozenset[Link]:
        return frozenset(self._links)

    def accept(self, wire: _Wire) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self.closed = True
        async with asyncio.TaskGroup() as group:
            for link in tuple(self._links):
                group.create_task(link.close())
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, wire: _Wire) -> None:
        dialler = wire.ends[0]
        address = join_address(dialler.name, self.endpoint.network._free_port())
        try:
            link = await establish(
                _MemoryChannel(wire, 1, self._limits, address),
                dialled=False,
                address=address,
                certificate=dialler.certificate,
                authorise=self._authorise,
                handler=self._handler,
                limits=self._limits,
                random_bytes=self.endpoint.network._random.randbytes,
            )
        except CasoError:
            return  # the dialler was told
        self._links[link] = None
        try:
            if self._on_link is not None:
                self._on_link(link)
            await link.wait_closed()
        finally:
            self._links.pop(link, None)
            await link.close()


class _Wire:
    """One connection: two directions between two endpoints, the dialler first."""

    def __init__(self, network: MemoryNetwork, dialler: MemoryEndpoint, acceptor: MemoryEndpoint) -> None:
        self.network = network
        self.ends = (dialler, acceptor)
        self.broken = False
        self.closed_ends = 0
        self.directions = (_Direction(self, dialler, acceptor), _Direction(self, acceptor, dialler))
        self._silence: asyncio.TimerHandle | None = None
        network._wires.append(self)

    @property
    def is_cut(self) -> bool:
        return any(self.network.is_cut(way.sender, way.receiver) for way in self.directions)

    def was_cut(self) -> None:
        if self._silence is None and not self.broken:
            self._silence = asyncio.get_running_loop().call_later(self.network._silence_s, self.break_now)

    def was_healed(self) -> None:
        if self._silence is not None and not self.is_cut:
            self._silence.cancel()
            self._silence = None
        for way in self.directions:
            way.resume()

    def break_now(self) -> None:
        """Both ends lose the connection; what is on its way is lost as well."""
        if self.broken:
            return
        self.broken = True
        self.network._wires.remove(self)
        if self._silence is not None:
            self._silence.cancel()
        for way in self.directions:
            way.stop()


class _Direction:
    """Messages from one end to the other: on their way, then arrived, in order."""

    def __init__(self, wire: _Wire, sender: MemoryEndpoint, receiver: MemoryEndpoint) -> None:
        self.sender = sender
        self.receiver = receiver
        self._wire = wire
        self._coming: deque[bytes | None] = deque()
        self._held = 0
        self._arrived: deque[bytes | None] = deque()
        self._bytes = 0
        self._last_arrival_s = 0.0
        self._timers: set[asyncio.TimerHandle] = set()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    async def send(self, message: bytes) -> None:
        while self._bytes > _WINDOW_BYTES and not self._wire.broken:
            self._room.clear()
            await self._room.wait()
        network = self._wire.network
        if not self._wire.broken and network._random.random() < network.conditions(self.sender, self.receiver).loss:
            self._wire.break_now()
        if self._wire.broken:
            raise ConnectionResetError("the link is broken")
        self._bytes += len(message)
        self._put(message)
        network.on_message(self.sender, self.receiver)

    def end(self) -> None:
        """The sender closes: its messages arrive, then an end."""
        if not self._wire.broken:
            self._put(None)

    async def receive(self) -> bytes | None:
        while not self._arrived:
            if self._wire.broken:
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._arrived.popleft()
        if message is None:
            self._arrived.append(None)  # an end stays an end
            return None
        self._bytes -= len(message)
        self._room.set()
        return message

    def resume(self) -> None:
        """The way is healed: what was held back sets out."""
        if not self._wire.broken and not self._wire.network.is_cut(self.sender, self.receiver):
            for _ in range(self._held):
                self._set_out()
            self._held = 0

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._coming.clear()
        self._arrived.clear()
        self._changed.set()
        self._room.set()

    def _put(self, message: bytes | None) -> None:
        self._coming.append(message)
        if self._wire.network.is_cut(self.sender, self.receiver):
            self._held += 1
        else:
            self._set_out()

    def _set_out(self) -> None:
        # Each message gets a time of its own, never before its predecessor's; a timer delivers the oldest message,
        # so that the order holds even where timers of the same instant fire in any order.
        network, loop = self._wire.network, asyncio.get_running_loop()
        conditions = network.conditions(self.sender, self.receiver)
        delay_s = conditions.delay_s + network._random.random() * conditions.jitter_s
        self._last_arrival_s = max(self._last_arrival_s, loop.time() + delay_s)
        if delay_s == 0 and not self._timers:
            self._deliver()
            return

        def arrive() -> None:
            self._timers.discard(timer)
            self._deliver()

        timer = loop.call_at(self._last_arrival_s, arrive)
        self._timers.add(timer)

    def _deliver(self) -> None:
        self._arrived.append(self._coming.popleft())
        self._changed.set()


class _MemoryChannel:
    """One end (0: dialler, 1: acceptor) of a wire."""

    def __init__(self, wire: _Wire, end: int, limits: Limits, peer: str) -> None:
        self._wire = wire
        self._out = wire.directions[end]
        self._in = wire.directions[1 - end]
        self._limits = limits
        self._peer = peer
        self._ended = False

    async def send(self, message: bytes) -> None:
        await self._out.send(message)

    async def receive(self) -> bytes | None:
        message = await self._in.receive()
        if message is not None and len(message) > self._limits.max_message_bytes:
            raise PeerOversized(peer=self._peer, size=len(message), limit=self._limits.max_message_bytes)
        return message

    async def close(self) -> None:
        """Our messages still arrive, then an end; the wire is gone when both ends have closed."""
        if self._ended or self._wire.broken:
            return
        self._ended = True
        self._out.end()
        self._wire.closed_ends += 1
        if self._wire.closed_ends == len(self._wire.ends):
            self._wire.break_now()
