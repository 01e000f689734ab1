"""The bulk channel between two worker processes: a link over mutual TLS that either end dials, and that is made anew
when it is lost. The event loop runs in a thread of its own; the engine's threads block.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from caso_mesh.identity.tls import client_context, server_context
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk import (
    SPAN,
    TERMS_DIFFER_S,
    WINDOW,
    WINDOW_BYTES,
    Admission,
    Answering,
    BulkChannel,
    Join,
    NothingToAsk,
    agree,
    as_error,
    bulk_token,
    check_certificate,
    far_of,
    join_of,
)
from caso_mesh.jobs.bulk_answers import Answers, Call, OnlyCalls
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.pacing import Pacer, Shared
from caso_mesh.jobs.task import Task
from caso_mesh.model.errors import (
    CasoError,
    InternalError,
    LinkLost,
    Misuse,
    NoDataPath,
    PeerFault,
    Refused,
    TicketInvalid,
    VersionsDiffer,
)
from caso_mesh.wire.bulk import BulkAcceptor, dial_bulk
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.link import Link
from caso_mesh.wire.network import ClientTls, ServerTls
from caso_mesh.wire.segments import Segments

log = logging.getLogger(__name__)

#: How long the device's end leaves dialling to the source's.
DEVICE_DIALS_AFTER_S = 3.0
_DIAL_S = 5.0
_JOIN_S = 10.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
#: How long the ends of a second device are without each other at most.
BESIDE_S = 120.0
#: How long an end that is done waits for the other to have taken its last answer.
LINGER_S = 5.0
#: For the loop's last rounds.
_ROUNDS_S = 0.01


class WireMeeting:
    """Meets the far end over ``handoff``, the worker's half of its channel with the daemon, and by dialling."""

    def __init__(self, handoff: socket.socket) -> None:
        self._handoff = handoff

    @contextmanager
    def meet(self, task: Task, desk: Desk, answering: Answering) -> Iterator[BulkChannel]:
        """See ``bulk.Meet``."""
        beside = task.order.beside and task.order.end == "source"
        channel = WireChannel(task, desk, answering, None if beside else self._handoff)
        channel.open()
        answers = not isinstance(answering, NothingToAsk)
        try:
            yield channel
        except BaseException as error:
            channel.close(linger_s=0.0, reason=as_error(error))
            raise
        # The end that answers stays until the other has taken its last answer and goes.
        channel.close(linger_s=LINGER_S if answers else 0.0)


class _Started:
    """A call under way."""

    def __init__(self, channel: WireChannel, future: concurrent.futures.Future[Any]) -> None:
        self._channel = channel
        self._future = future

    def result(self) -> Any:
        self._channel.wait_for_answers(self._future.done)
        return self._future.result()


class WireChannel:
    """See ``bulk.BulkChannel``. Without ``handoff`` it only dials."""

    def __init__(self, task: Task, desk: Desk, answering: Answering, handoff: socket.socket | None) -> None:
        if task.tls is None:
            raise Misuse("a bulk channel needs certificates")
        self._task = task
        self._tls = task.tls
        self._far = far_of(task)
        self._desk = desk
        self._handoff = handoff
        self._admission = Admission(task, lambda: desk.term)
        self._shared = Shared(task.pace_path)
        try:
            self._pacer = Pacer(lambda: desk.bandwidth or task.bandwidth, self._shared, desk.clock)
        except BaseException:
            self._shared.close()
            raise
        self._answers = Answers(answering)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bulk", daemon=True)
        self._lock = threading.Lock()
        self._number = self._bytes = 0
        #: Threads that wait for an answer, not only for room.
        self._awaiting = 0
        self._pending: dict[int, concurrent.futures.Future[Any]] = {}
        self._failed: BaseException | None = None
        # of the loop's thread:
        self._links: list[Link] = []
        #: Of ends of another version.
        self._strange: list[Link] = []
        self._watchers: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._segments = Segments()
        self._leaving: CasoError | None = None
        # read by all:
        self._met = False
        self._lost: CasoError | None = None
        self._ended = False

    @property
    def lost(self) -> CasoError | None:
        return self._lost

    def open(self) -> None:
        """Raises ``NoDataPath``, ``TicketInvalid``, ``Canceled``."""
        self._thread.start()
        try:
            self._desk.wait_for(lambda: self._met or self._lost is not None or self._ended)
            if self._lost is not None:
                raise self._lost
            if not self._met:
                raise LinkLost(peer="the daemon")
        except BaseException as error:
            self.close(linger_s=0.0, reason=as_error(error))
            raise

    def close(self, *, linger_s: float, reason: CasoError | None = None) -> None:
        """Ends it, and tells the other end why; first waits for that one to go, at most so long. A failure is not told
        before all that was sent has its answer: on a slow way the goodbye would lie behind it, and be given up with it."""
        self._leaving = reason
        if self._met and self._lost is None:
            if reason is not None:
                self._desk.waiting.wait_for(self._settled, self._task.rejoin_s)
            elif linger_s:
                self._desk.waiting.wait_for(lambda: not self._links or self._ended, linger_s)
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._shared.close()

    def _settled(self) -> bool:
        nothing_comes = self._failed is not None or self._lost is not None or self._ended
        return not self._pending or nothing_comes or self._desk.interrupted

    # --- calls ---

    def call(self, method: str, params: Any = None) -> Any:
        return self.start(method, params).result()

    def start(self, method: str, params: Any = None, *, size: int = 0) -> _Started:
        while True:
            self._wait_for(lambda: self._has_room(size))
            with self._lock:
                if not self._room(size):
                    continue
                self._bytes += size
                self._number += 1
                number = self._number
                future = asyncio.run_coroutine_threadsafe(self._deliver(number, method, params), self._loop)
                self._pending[number] = future
            future.add_done_callback(partial(self._arrived, number, size))
            return _Started(self, future)

    def _has_room(self, size: int) -> bool:
        with self._lock:
            return self._room(size)

    def _room(self, size: int) -> bool:
        # numbers rise, so the first that waits is the oldest
        oldest = next(iter(self._pending), self._number)
        fits = not size or not self._bytes or self._bytes + size <= WINDOW_BYTES
        return fits and len(self._pending) < WINDOW and self._number + 1 - oldest < SPAN

    def drain(self) -> None:
        self.wait_for_answers(lambda: not self._pending)

    def wait_for_answers(self, predicate: Callable[[], bool]) -> None:
        """Raises what went wrong before."""
        with self._lock:
            self._awaiting += 1
        try:
            self._wait_for(predicate)
        finally:
            with self._lock:
                self._awaiting -= 1

    def _wait_for(self, predicate: Callable[[], bool]) -> None:
        self._desk.wait_for(lambda: predicate() or self._failed is not None or self._lost is not None)
        if self._failed is not None:
            raise self._failed
        if not predicate() and self._lost is not None:
            raise self._lost

    def _arrived(self, number: int, size: int, future: concurrent.futures.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and self._failed is None:
            self._failed = error
        with self._lock:
            self._pending.pop(number, None)
            self._bytes -= size
            # Whoever waits for room sleeps until there is plenty: to be woken by each answer costs more than to send.
            plenty = self._bytes <= WINDOW_BYTES // 2 and len(self._pending) <= WINDOW // 2
            tells = plenty or self._awaiting or error is not None
        if tells:
            self._desk.waiting.notify()

    async def _deliver(self, number: int, method: str, params: Any) -> Any:
        while True:
            link = await self._link()
            with self._lock:
                low = min(self._pending, default=number)
            try:
                # a ``Call`` as a map: ``params`` are plain already, and may hold views that are packed from there
                call = {"number": number, "low": min(low, number), "params": params}
                return await link.call(method, call, timeout_s=None)
            except LinkLost:
                if not link.closed:
                    raise

    async def _link(self) -> Link:
        """A link that is up; waits for one. Raises why there will be none."""
        while True:
            if self._lost is not None:
                raise self._lost
            # the newest first: an older one may be dead without anybody knowing yet
            for link in reversed(self._links):
                if not link.closed:
                    return link
            self._changed.clear()
            await self._changed.wait()

    # --- the loop's thread ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # it is told where somebody waits
            log.exception("the bulk channel failed")
            self._lost = self._lost or InternalError(detail=f"{type(error).__name__}: {error}")
        finally:
            self._ended = True
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            # a transport that was aborted closes its socket only in the rounds that follow
            self._loop.run_until_complete(asyncio.sleep(_ROUNDS_S))
            self._loop.close()
            self._desk.waiting.notify()

    async def _main(self) -> None:
        tls = self._tls

        def server() -> Any:
            return server_context(tls.chain_path, tls.key_path, tls.anchors)

        async with AsyncExitStack() as stack:
            acceptor: BulkAcceptor | None = None
            if self._handoff is not None:
                acceptor = await stack.enter_async_context(
                    BulkAcceptor(
                        self._handoff,
                        tls=ServerTls(server),
                        authorise=self._authorise,
                        handler=OnlyCalls(self._asked),
                        on_refusal=self._turned_away,
                        pace=self._pacer.wait,
                    )
                )
            works = [("dialling", self._dial()), ("watching", self._watch())]
            if acceptor is not None:
                works.append(("accepting", self._accept(acceptor)))
            tasks = [asyncio.create_task(work, name=f"bulk {name}") for name, work in works]
            try:
                await self._closing.wait()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for link in [*self._links, *self._strange]:
                    await link.close(self._leaving)
                self._answers.close()
                await asyncio.gather(*self._watchers, return_exceptions=True)

    def _turned_away(self, source: str, error: CasoError, certificate: bytes | None) -> None:
        self._desk.say(say.TurnedAway(error.code, source, str(error.fields.get("detail", ""))))

    def _authorise(self, certificate: bytes | None) -> str:
        return check_certificate(self._task, certificate, self._desk.clock.now_ns())

    async def _accept(self, acceptor: BulkAcceptor) -> None:
        """Links are of use once they have joined; here they are only taken off the acceptor's hands."""
        while True:
            try:
                await acceptor.accept()
            except LinkLost:
                return

    async def _dial(self) -> None:
        if self._task.order.beside and self._task.order.end == "device":
            return  # the end that reads has only one door, for its own attempt
        if self._task.order.end == "device":
            await asyncio.sleep(DEVICE_DIALS_AFTER_S)
        pause = _PAUSE_S
        refused_s: float | None = None
        while True:
            if any(not link.closed for link in self._links):
                pause = _PAUSE_S
                self._changed.clear()
                await self._changed.wait()
                continue
            for address in self._far.addresses:
                try:
                    await self._try(address)
                    break
                except TicketInvalid as error:
                    refused_s = refused_s if refused_s is not None else self._loop.time()
                    if self._loop.time() - refused_s >= TERMS_DIFFER_S:
                        self._lose(error)
                        return
                    log.debug("bulk channel to %s: %s", address, error)
                except VersionsDiffer as error:
                    self._lose(error)
                    return
                except CasoError as error:
                    log.debug("bulk channel to %s: %s", address, error)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        self._changed.clear()
                        await self._changed.wait()
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _try(self, address: str) -> None:
        tls = self._tls

        def client() -> Any:
            return client_context(tls.chain_path, tls.key_path, tls.anchors)

        link = await dial_bulk(
            address,
            bulk_token(self._task.order.secret),
            tls=ClientTls(client),
            authorise=self._authorise,
            handler=OnlyCalls(self._asked),
            timeout_s=_DIAL_S,
            pace=self._pacer.wait,
            segments=self._segments,
        )
        try:
            join = to_wire(join_of(self._task, self._desk))
            answer = from_wire(await link.call("join", join, timeout_s=_JOIN_S), Join)
            self._admission.check(answer.attempt, answer.ticket, answer.secret, self._desk.clock.now_ns())
            self._agree(link, answer)
        except BaseException as error:
            await link.close(self._leaving or (error if isinstance(error, CasoError) else None))
            raise
        self._admitted(link)

    def _agree(self, link: Link, join: Join) -> None:
        """Raises ``VersionsDiffer``. The other end may not find that out by itself: whatever it asks is answered with it."""
        try:
            agree(self._task, self._desk, join)
        except VersionsDiffer as error:
            self._strange.append(link)
            self._lose(error)
            raise

    def _admitted(self, link: Link) -> None:
        self._links.append(link)
        watcher = self._loop.create_task(self._until_closed(link), name="bulk link")
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        self._met = True
        self._changed.set()
        self._desk.waiting.notify()

    async def _until_closed(self, link: Link) -> None:
        reason = await link.wait_closed()
        self._links.remove(link)
        if not isinstance(reason, LinkLost) and not self._links and not self._closing.is_set():
            # It did not break: the other end went, and may have said why.
            self._lose(reason or LinkLost(peer=self._far.name))
        self._changed.set()
        self._desk.waiting.notify()

    async def _watch(self) -> None:
        """Notices when the other end stays away for too long."""
        loop = asyncio.get_running_loop()
        left_at = loop.time()
        while True:
            now = loop.time()
            if any(not link.closed for link in self._links):
                left_at = now
            limit = self._task.rejoin_s if self._met else self._task.join_s
            if self._task.order.beside:
                # the first set is kept waiting meanwhile, and the second one can be made as a copy
                limit = min(limit, BESIDE_S)
                if self._desk.alone:
                    self._lose(LinkLost(peer=self._far.name))
                    return
            if now - left_at >= limit:
                task = self._task
                self._lose(
                    LinkLost(peer=self._far.name)
                    if self._met
                    else NoDataPath(source=task.source_name, server=_server_name(task))
                )
                return
            await asyncio.sleep(min(0.1, limit))

    def _lose(self, error: CasoError) -> None:
        if self._lost is None:
            self._lost = error
        self._changed.set()
        self._desk.waiting.notify()

    # --- what the far end asks ---

    async def _asked(self, link: Link, method: str, params: Any) -> Any:
        if method == "join":
            join = from_wire(params, Join)
            try:
                self._admission.check(join.attempt, join.ticket, join.secret, self._desk.clock.now_ns())
            except TicketInvalid as error:
                self._desk.log("warning", f"{self._far.name} was refused: {error.message}")
                self._turned_away(link.remote_address, error, None)
                raise
            with suppress(VersionsDiffer):
                self._agree(link, join)
                if link not in self._links:
                    self._admitted(link)
            return to_wire(join_of(self._task, self._desk))
        if link in self._strange and self._lost is not None:
            raise self._lost
        if link not in self._links:
            raise Refused(detail="a worker joins first")
        try:
            return await self._answers.answer(from_wire(params, Call), method)
        except PeerFault as fault:
            self._turned_away(link.remote_address, fault, None)
            raise


def _server_name(task: Task) -> str:
    return far_of(task).name if task.order.end == "source" else task.server_name
