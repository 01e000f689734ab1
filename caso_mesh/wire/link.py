"""A link: calls, notifications and streams with one peer over one channel, as tasks of asyncio.

Order: notifications are handled one after the other, as sent; calls and streams begin in the order in which they were
sent and run at the same time. A handler of notifications that waits for a call over the same link can be overtaken by
its timeout when the peer floods it: start work elsewhere instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from caso_mesh.model.errors import (
    Canceled,
    CasoError,
    InternalError,
    LinkLost,
    Misuse,
    PeerFault,
    Refused,
    TimedOut,
    Unavailable,
)
from caso_mesh.wire.channel import YIELD_EVERY, Channel, Outbox
from caso_mesh.wire.protocol import (
    CancelReceived,
    Connection,
    Event,
    GoodbyeReceived,
    NotificationReceived,
    RequestReceived,
    ResponseReceived,
    StreamAborted,
    StreamCredit,
    StreamData,
    StreamFinished,
    StreamOpened,
    StreamStopped,
    goodbye,
)
from caso_mesh.wire.stream import Stream

log = logging.getLogger(__name__)


class Handler(Protocol):
    """What a peer may ask. Each method runs in a task of its own link and is cancelled when the link ends."""

    async def call(self, link: Link, method: str, params: Any) -> Any:
        """The result, packable. A ``CasoError`` goes to the caller; cancelled when the caller gives up."""
        ...

    async def notify(self, link: Link, method: str, params: Any) -> None:
        """Errors are logged: nobody waits for an answer."""
        ...

    async def stream(self, link: Link, method: str, params: Any, stream: Stream) -> None:
        """The peer opened a stream. It is finished when this returns, aborted when it raises."""
        ...


class LinkStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a link has carried so far, and carries now."""

    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int
    calls_in_flight: int
    """Own calls without an answer, given-up ones included."""
    calls_served: int
    """Calls of the peer without an answer."""
    streams_open: int


class Link:
    """Made by ``dial``, or by a listener. ``peer`` is what ``authorise`` returned."""

    def __init__(
        self, channel: Channel, connection: Connection, handler: Handler, *, peer: Any, dialled: bool, session: str
    ) -> None:
        hello = connection.peer_hello
        if hello is None:
            raise Misuse("a link before the hello")
        self.peer = peer
        self.dialled = dialled
        self.session = session
        self.remote_address = connection.peer
        #: What the peer did against the protocol, once this end has ended the link for it.
        self.fault: PeerFault | None = None
        #: With segments of how many bytes it was dialled, since larger ones did not come through; ``None``: as the kernel has it.
        self.segment_bytes: int | None = None
        self._channel = channel
        self._connection = connection
        self._handler = handler
        self._limits = connection.limits
        self._outbox = Outbox(channel, connection.peer)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._streams: dict[int, Stream] = {}
        self._served: dict[int, asyncio.Task[None]] = {}
        self._served_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._call_slots = asyncio.Semaphore(hello.max_calls)
        self._stream_slots = asyncio.Semaphore(hello.max_streams) if hello.max_streams else None
        self._notices: deque[tuple[NotificationReceived, int]] = deque()
        self._notice_bytes = 0
        self._notices_changed = asyncio.Event()
        self._notices_room = asyncio.Event()
        self._bytes_in = 0
        self._messages_in = 0
        loop = asyncio.get_running_loop()
        # Set once, by whatever ends the link first: the reason, and whether this end was the one to end it.
        self._ending: asyncio.Future[tuple[CasoError | None, bool]] = loop.create_future()
        self._closed: asyncio.Future[CasoError | None] = loop.create_future()
        self._main: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Link {'to' if self.dialled else 'from'} {self.remote_address} {self.session[:8]} peer={self.peer}>"

    # --- the public face ---

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        """The peer's result. Cancelling the caller cancels the handler at the peer.

        Raises ``TimedOut``, ``LinkLost``, or the ``CasoError`` the peer answers with.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._call(method, params)
        except TimeoutError:
            raise TimedOut(what=f"{method} at {self.remote_address}", seconds=timeout_s) from None

    async def notify(self, method: str, params: Any = None) -> None:
        """Tells the peer; returns when there is room to send it, not when it has arrived. Raises ``LinkLost``."""
        self._check_open()
        await self._outbox.room()
        self._check_open()
        self._outbox.push(self._connection.notify(method, params))

    async def open_stream(self, method: str, params: Any = None) -> Stream:
        """A new stream, which the caller must finish and read to its end, or abort (``async with`` does).

        Waits while as many are open as the peer takes. Raises ``LinkLost``, or ``Refused`` by a peer that takes none.
        """
        self._check_open()
        if self._stream_slots is None:
            raise Refused(detail=f"{self.remote_address} takes no streams from this peer")
        await self._stream_slots.acquire()
        try:
            self._check_open()
            await self._outbox.room()
            self._check_open()
            id, message = self._connection.open_stream(method, params)
        except BaseException:
            self._stream_slots.release()
            raise
        stream = self._streams[id] = Stream(self, id)
        self._outbox.push(message)
        return stream

    async def close(self, reason: CasoError | None = None) -> None:
        """Ends the link and waits until nothing of it is left; the peer is told the reason.

        Called by a handler of this link it only begins the end, which cancels that handler.
        """
        self._end(reason, ours=True)
        if asyncio.current_task() not in self._tasks:
            await asyncio.shield(self._closed)

    async def wait_closed(self) -> CasoError | None:
        """Waits for the end. The reason: ``None`` after an orderly end, ``LinkLost``, a fault, or what was said."""
        return await asyncio.shield(self._closed)

    @property
    def closed(self) -> bool:
        """Whether the link has ended or begun to."""
        return self._ending.done()

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(
            bytes_in=self._bytes_in,
            bytes_out=self._outbox.bytes_out,
            messages_in=self._messages_in,
            messages_out=self._outbox.messages_out,
            calls_in_flight=self._connection.calls_in_flight,
            calls_served=self._connection.calls_unanswered,
            streams_open=self._connection.streams_open,
        )

    # --- own calls ---

    async def _call(self, method: str, params: Any) -> Any:
        self._check_open()
        await self._call_slots.acquire()
        try:
            self._check_open()
            await self._outbox.room()
            self._check_open()
            id, message = self._connection.request(method, params)
        except BaseException:
            self._call_slots.release()
            raise
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[id] = answer
        self._outbox.push(message)
        try:
            return await answer
        except asyncio.CancelledError:
            # The slot stays taken until the answer arrives: the peer still works on it.
            if self._answers.pop(id, None) is not None and not self.closed:
                self._push(self._connection.cancel(id))
            if answer.done() and not answer.cancelled():
                answer.exception()  # it came together with the cancellation: nobody else will look at it
            raise

    def _on_response(self, event: ResponseReceived) -> None:
        self._call_slots.release()
        answer = self._answers.pop(event.id, None)
        if answer is None or answer.done():
            return
        if event.error is not None:
            answer.set_exception(event.error)
        else:
            answer.set_result(event.result)

    # --- what the peer asks ---

    def _on_request(self, event: RequestReceived, size: int) -> None:
        if self._served_bytes + size > self._limits.max_call_bytes:
            self._push(self._connection.fail(event.id, Unavailable(what=f"the call {event.method}")))
            return
        self._served_bytes += size
        task = self._served[event.id] = self._group.create_task(self._serve_call(event))
        self._adopt(task)

        def done(_: asyncio.Task[None]) -> None:
            self._served_bytes -= size
            del self._served[event.id]
            # Cancelled, perhaps before its first step: the caller gets its answer here.
            if self._connection.is_unanswered(event.id) and not self.closed:
                self._push(self._connection.fail(event.id, Canceled(who="the caller")))

        task.add_done_callback(done)

    async def _serve_call(self, event: RequestReceived) -> None:
        try:
            result = await self._handler.call(self, event.method, event.params)
            await self._outbox.room()
            message = self._connection.respond(event.id, result)
        except CasoError as error:
            await self._outbox.room()
            message = self._connection.fail(event.id, error)
        except Exception as exc:
            # A bug in a handler is its caller's InternalError, never the end of a link that others use.
            log.exception("handler of %s failed", event.method, extra={"peer": self.remote_address})
            await self._outbox.room()
            message = self._connection.fail(event.id, InternalError(detail=f"{type(exc).__name__} in {event.method}"))
        self._push(message)

    async def _serve_notices(self) -> None:
        while True:
            while not self._notices:
                self._notices_changed.clear()
                await self._notices_changed.wait()
            event, size = self._notices.popleft()
            try:
                await self._handler.notify(self, event.method, event.params)
            except CasoError as error:
                log.warning("notification %s of %s: %s", event.method, self.remote_address, error)
            except Exception:
                # As above: a bug in one handler does not end the link.
                log.exception("handler of %s failed", event.method, extra={"peer": self.remote_address})
            self._notice_bytes -= size
            self._notices_room.set()

    async def _on_notification(self, event: NotificationReceived, size: int) -> None:
        self._notices.append((event, size))
        self._notice_bytes += size
        self._notices_changed.set()
        most_bytes = 2 * self._limits.max_message_bytes
        while len(self._notices) >= self._limits.max_notifications or self._notice_bytes > most_bytes:
            self._notices_room.clear()
            await self._notices_room.wait()

    async def _serve_stream(self, event: StreamOpened, stream: Stream) -> None:
        try:
            await self._handler.stream(self, event.method, event.params, stream)
            await stream.finish()
            await stream.stop()
        except CasoError as error:
            await stream.abort(error)
        except Exception as exc:
            # As above: a bug in one handler does not end the link.
            log.exception("handler of %s failed", event.method, extra={"peer": self.remote_address})
            await stream.abort(InternalError(detail=f"{type(exc).__name__} in {event.method}"))

    # --- streams, for Stream ---

    def _stream_credit(self, id: int) -> int:
        return self._connection.credit(id)

    def _stream_send(self, id: int, data: bytes | memoryview) -> None:
        self._push(self._connection.stream_data(id, data))

    def _stream_consumed(self, id: int, cost: int) -> None:
        if not self.closed:
            message = self._connection.stream_consumed(id, cost)
            if message is not None:
                self._push(message)

    def _stream_finish(self, id: int) -> None:
        if not self.closed:
            self._push(self._connection.stream_finish(id))
            self._forget_stream(id)

    def _stream_stop(self, id: int) -> None:
        if not self.closed:
            message = self._connection.stream_stop(id)
            if message is not None:
                self._push(message)

    def _stream_abort(self, id: int, error: CasoError) -> None:
        if not self.closed:
            message = self._connection.stream_abort(id, error)
            if message is not None:
                self._push(message)
            self._forget_stream(id)

    def _forget_stream(self, id: int) -> None:
        if not self._connection.is_open(id) and self._streams.pop(id, None) is not None and self._stream_slots:
            if id % 2 == (1 if self.dialled else 0):
                self._stream_slots.release()

    # --- life ---

    def start(self) -> None:
        """Begins to read. Whoever made the link calls it, once."""
        self._main = asyncio.get_running_loop().create_task(self._run(), name=f"link {self.remote_address}")

    async def _run(self) -> None:
        reason: CasoError | None = LinkLost(peer=self.remote_address)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                writer = group.create_task(self._write())
                reader = group.create_task(self._read())
                self._start(self._serve_notices())
                reason, ours = await self._ending
                reader.cancel()
                self._fail_all()
                for task in self._tasks:
                    task.cancel()
                if ours:
                    await self._say_goodbye(reason)
                writer.cancel()
        finally:
            if not self._ending.done():
                self._ending.set_result((reason, True))
            self._fail_all()
            try:
                await self._channel.close()
            finally:
                self._closed.set_result(reason)

    async def _say_goodbye(self, reason: CasoError | None) -> None:
        try:
            async with asyncio.timeout(self._limits.close_timeout_s):
                self._outbox.push(goodbye(reason))
                await self._outbox.flush()
        except (TimeoutError, PeerFault):
            log.debug("%s did not take our goodbye", self.remote_address)

    async def _write(self) -> None:
        try:
            await self._outbox.run()
        except OSError:
            self._end(LinkLost(peer=self.remote_address), ours=False)

    async def _read(self) -> None:
        try:
            while True:
                message = await self._channel.receive()
                if message is None:
                    self._end(LinkLost(peer=self.remote_address), ours=False)
                    return
                self._bytes_in += len(message)
                self._messages_in += 1
                event = self._connection.receive(message)
                if event is not None:
                    await self._handle(event, len(message))
                if self._messages_in % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
        except PeerFault as fault:
            self._fault(fault)

    async def _handle(self, event: Event, size: int) -> None:
        match event:
            case ResponseReceived():
                self._on_response(event)
            case RequestReceived():
                self._on_request(event, size)
            case NotificationReceived():
                await self._on_notification(event, size)
            case CancelReceived(id=id):
                if id in self._served:
                    self._served[id].cancel()
            case StreamOpened(id=id):
                stream = self._streams[id] = Stream(self, id)
                self._start(self._serve_stream(event, stream))
            case StreamData(id=id, data=data):
                self._streams[id]._feed(data)
            case StreamCredit(id=id):
                if id in self._streams:
                    self._streams[id]._credited()
            case StreamFinished(id=id):
                self._streams[id]._peer_finish()
                self._forget_stream(id)
            case StreamStopped(id=id, answer=answer):
                self._streams[id]._peer_stop()
                self._push(answer)
                self._forget_stream(id)
            case StreamAborted(id=id, error=error, answer=answer):
                self._streams[id]._fail(error)
                if answer is not None:
                    self._push(answer)
                self._forget_stream(id)
            case GoodbyeReceived(error=error):
                self._end(error, ours=False)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._adopt(self._group.create_task(work))

    def _adopt(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _push(self, message: bytes) -> None:
        try:
            self._outbox.push(message)
        except PeerFault as fault:
            self._fault(fault)

    def _fault(self, fault: PeerFault) -> None:
        log.warning("link with %s closed: %s", self.remote_address, fault)
        self.fault = self.fault or fault
        self._end(fault, ours=True)

    def _end(self, reason: CasoError | None, *, ours: bool) -> None:
        if not self._ending.done():
            self._ending.set_result((reason, ours))

    def _check_open(self) -> None:
        if self._ending.done():
            # Whoever waits behind us for a slot or for room shall wake up and see the same.
            self._call_slots.release()
            if self._stream_slots is not None:
                self._stream_slots.release()
            raise LinkLost(peer=self.remote_address)

    def _fail_all(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LinkLost(peer=self.remote_address))
        self._answers.clear()
        for stream in self._streams.values():
            stream._fail(LinkLost(peer=self.remote_address))
        self._streams.clear()
        self._outbox.close()
        self._call_slots.release()
        if self._stream_slots is not None:
            self._stream_slots.release()
