"""A link for programs that do one thing after the other: the same dialogue over one blocking socket, without asyncio.

It makes calls and answers none: whatever the peer asks is refused. One thread uses it; ``abandon`` alone may be called
by another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CannotConnect, CasoError, LinkLost, Misuse, PeerFault, Refused, TimedOut
from caso_mesh.wire import fragments, refusals
from caso_mesh.wire.addresses import split_address
from caso_mesh.wire.frames import ClientFrames
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.protocol import (
    Connection,
    GoodbyeReceived,
    RequestReceived,
    ResponseReceived,
    goodbye,
)

#: Nobody asks anything of this end.
LIMITS = Limits(max_calls=1, max_streams=0)
_READ_BYTES = 256 * 1024


class BlockingLink:
    """Made by ``dial``. ``peer`` is what ``authorise`` returned."""

    def __init__(self, sock: ssl.SSLSocket, frames: ClientFrames, connection: Connection, limits: Limits) -> None:
        self.peer: Any = None
        self.closed = False
        self.remote_address = connection.peer
        self._socket = sock
        self._frames = frames
        self._connection = connection
        self._limits = limits
        self._joiner = fragments.Joiner(max_message_bytes=limits.max_message_bytes, peer=connection.peer)
        self._asked: dict[int, str] = {}
        self._answers: dict[int, ResponseReceived] = {}

    def call(self, method: str, params: Any = None, *, timeout_s: float = 15.0) -> Any:
        """The peer's result.

        Raises ``TimedOut``, ``LinkLost``, ``PeerFault``, or the ``CasoError`` the peer answers with.
        """
        return self.answer(self.ask(method, params), timeout_s=timeout_s)

    def ask(self, method: str, params: Any = None) -> int:
        """Sends a call and gives its number, for ``answer``. Raises ``LinkLost``."""
        hello = self._connection.peer_hello
        if hello is None or self._connection.calls_in_flight >= hello.max_calls:
            raise Misuse("more calls at a time than the peer takes")
        id, message = self._connection.request(method, params)
        self._send(message)
        self._asked[id] = method
        return id

    def answer(self, id: int, *, timeout_s: float) -> Any:
        """The result of the call ``id``. Raises as ``call`` does; the peer is told that nobody waits any more."""
        deadline = time.monotonic() + timeout_s
        while id not in self._answers:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                method = self._asked.pop(id)
                self._send(self._connection.cancel(id))
                raise TimedOut(what=f"{method} at {self.remote_address}", seconds=timeout_s)
            self._read(left_s)
        event = self._answers.pop(id)
        if event.error is not None:
            raise event.error
        return event.result

    def close(self) -> None:
        """Ends the link in order; what the peer makes of it is not waited for."""
        self._end(goodbye(None))

    def abandon(self) -> None:
        """Ends the link from another thread: whoever waits for an answer gets ``LinkLost``."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    # --- opening and ending ---

    def upgrade(self, deadline: float) -> None:
        """Makes the connection a websocket. Raises ``CannotConnect`` or ``OSError``."""
        self._socket.sendall(self._frames.upgrade())
        while not self._frames.open:
            self._receive(deadline)

    def greet(self, deadline: float) -> None:
        """Exchanges hellos. Raises ``CannotConnect``, ``PeerFault``, why the peer refuses us, or ``OSError``."""
        self._socket.sendall(self._frames.binary(self._connection.hello()))
        while self._connection.peer_hello is None:
            self._receive(deadline)

    def _receive(self, deadline: float) -> None:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        data = self._socket.recv(_READ_BYTES)
        for message in self._messages(data):
            self._handle(message)
        if not data or self._frames.ended:
            raise self._closed_early()

    def refuse(self, error: CasoError) -> None:
        """Tells the peer why there will be no link, and ends it."""
        self._end(goodbye(error))

    def _end(self, last: bytes) -> None:
        if self.closed:
            return
        self.closed = True
        with self._socket, contextlib.suppress(OSError):  # it may be gone already
            self._socket.settimeout(self._limits.close_timeout_s)
            self._socket.sendall(self._frames.binary(last) + self._frames.close())

    def _lost(self) -> LinkLost:
        self.closed = True
        self._socket.close()
        return LinkLost(peer=self.remote_address)

    def _closed_early(self) -> CannotConnect:
        return CannotConnect(address=self.remote_address, detail="it closed the connection")

    # --- messages ---

    def _read(self, timeout_s: float) -> None:
        """Waits for data, ``timeout_s`` at most, and handles it; asks after a silence whether the peer lives."""
        silence_s = self._limits.heartbeat_s
        try:
            try:
                self._socket.settimeout(min(timeout_s, silence_s))
                data = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                if timeout_s <= silence_s:
                    return
                self._socket.sendall(self._frames.ping())
                self._socket.settimeout(silence_s / 2)
                data = self._socket.recv(_READ_BYTES)
            for message in self._messages(data):
                self._handle(message)
            if self._frames.answers:
                self._socket.sendall(bytes(self._frames.answers))
                self._frames.answers.clear()
        except OSError:
            raise self._lost() from None
        except PeerFault as fault:
            self.refuse(fault)
            raise
        if not data or self._frames.ended:
            raise self._lost()

    def _messages(self, data: bytes) -> Iterator[bytes]:
        for payload in self._frames.receive(data):
            message = self._joiner.feed(payload)
            if message is not None:
                yield message

    def _handle(self, message: bytes) -> None:
        event = self._connection.receive(message)
        if isinstance(event, ResponseReceived):
            # a call that was given up has nobody who waits for its answer
            if self._asked.pop(event.id, None) is not None:
                self._answers[event.id] = event
        elif isinstance(event, RequestReceived):
            self._send(self._connection.fail(event.id, Refused(detail="this end answers nothing")))
        elif isinstance(event, GoodbyeReceived):
            if self._connection.peer_hello is not None:
                raise self._lost()
            raise event.error or self._closed_early()

    def _send(self, message: bytes) -> None:
        if self.closed:
            raise self._lost()
        try:
            self._socket.settimeout(self._limits.heartbeat_s)
            for frame in fragments.split(message):
                self._socket.sendall(self._frames.binary(frame))
        except OSError:
            raise self._lost() from None


def dial(
    address: str,
    *,
    tls: ssl.SSLContext,
    authorise: Callable[[bytes | None], Any],
    timeout_s: float = 10.0,
    limits: Limits = LIMITS,
    random_bytes: Randomness = os.urandom,
) -> BlockingLink:
    """A link to the node at HOST:PORT; ``authorise`` is shown its certificate (DER), and whoever dialled closes it.

    Raises ``CannotConnect``, ``CertificateRefused`` when TLS fails on a certificate of either side, what ``authorise``
    raises, or the reason for which the other side refuses.
    """
    deadline = time.monotonic() + timeout_s
    try:
        host, port = split_address(address)
    except ValueError as exc:
        raise CannotConnect(address=address, detail=str(exc)) from None
    try:
        # as bytes, and without a server name that nobody looks at: names in other letters take a library to write
        where: Any = host.encode() if host.isascii() else host
        plain = socket.create_connection((where, port), timeout_s)
        with contextlib.ExitStack() as opened:
            opened.callback(plain.close)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(max(0.001, deadline - time.monotonic()))
            sock = tls.wrap_socket(plain)
            opened.callback(sock.close)
            frames = ClientFrames(address, random_bytes=random_bytes)
            connection = Connection(dialled=True, limits=limits, nonce=random_bytes(16), peer=address)
            link = BlockingLink(sock, frames, connection, limits)
            certificate = sock.getpeercert(binary_form=True)
            link.upgrade(deadline)
            try:
                link.peer = authorise(certificate)
            except CasoError as refusal:
                link.refuse(refusal)
                raise
            link.greet(deadline)
            opened.pop_all()
            return link
    except TimeoutError:
        raise CannotConnect(address=address, detail=f"no answer within {timeout_s:g} s") from None
    except OSError as exc:
        why = refusals.of_certificate(address, exc)
        if why is not None:
            raise why from exc
        raise CannotConnect(address=address, detail=exc.strerror or str(exc) or type(exc).__name__) from exc
