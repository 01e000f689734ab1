"""TLS on an accepted socket, with the alert that asyncio keeps to itself.

When a handshake fails, asyncio up to 3.14 drops the alert that OpenSSL wrote for the peer (CPython issue 98078): a
refused client would only see its connection close and could not tell "refused" from "lost". Here the alert is sent,
and the socket lingers until the client has had the chance to read it (an early close with unread data is a reset,
which would overtake the alert).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import Any, cast

_LINGER_S = 1.0
_LINGER_BYTES = 64 * 1024


class _Watched:
    """Stands in for a context, to take the alert of a failed handshake before asyncio throws it away."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.alert = b""

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any) -> ssl.SSLObject:
        sslobj = self._context.wrap_bio(incoming, outgoing, **options)
        handshake = sslobj.do_handshake

        def do_handshake() -> None:
            try:
                handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                self.alert = outgoing.read()
                raise

        sslobj.do_handshake = do_handshake  # type: ignore[method-assign]
        return sslobj


def shrink_buffer(transport: asyncio.BaseTransport, size: int) -> None:
    """Reads at most ``size`` bytes at once from a TLS transport of asyncio, which else keeps a buffer of 256 KiB for each
    connection: with a thousand links most of the memory. A transport of another make is left alone."""
    protocol = getattr(transport, "_ssl_protocol", None)
    if isinstance(protocol, sslproto.SSLProtocol) and protocol.max_size > size:
        vars(protocol)["max_size"] = size
        protocol._ssl_buffer = bytearray(size)  # type: ignore[attr-defined]
        protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)  # type: ignore[attr-defined]


async def accept_tls(
    factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket, context: ssl.SSLContext, *, timeout_s: float
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """The transport and protocol of an accepted, non-blocking socket, which they own from now on.

    Raises ``OSError`` (``ssl.SSLError`` is one) with everything closed.
    """
    loop = asyncio.get_running_loop()
    watched = _Watched(context)
    with sock.dup() as spare:
        try:
            transport, protocol = await loop.connect_accepted_socket(
                factory,
                sock,
                ssl=cast("ssl.SSLContext", watched),
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=timeout_s,
            )
        except ssl.SSLError:
            await _part(spare, watched.alert)
            raise
    return transport, protocol


async def _part(sock: socket.socket, alert: bytes) -> None:
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    try:
        async with asyncio.timeout(_LINGER_S):
            await loop.sock_sendall(sock, alert)
            sock.shutdown(socket.SHUT_WR)
            left = _LINGER_BYTES
            while left > 0:
                data = await loop.sock_recv(sock, left)
                if not data:
                    return
                left -= len(data)
    except (OSError, TimeoutError):
        return  # it is gone, or reads nothing: nobody is left to tell
