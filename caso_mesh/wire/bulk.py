"""Bulk channels: links between two workers over the daemon's one port, whose content no daemon touches.

The dialling worker names its token in the TLS server name; the accepting daemon hands the socket to the worker that
answers to the token (``demux``), which does TLS, upgrade and hello itself. The rest is a link like any other, with
larger messages.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from types import TracebackType
from typing import Self

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CasoError, LinkLost, Misuse
from caso_mesh.wire import demux
from caso_mesh.wire.dialling import dial_websocket
from caso_mesh.wire.handshake import Authorise
from caso_mesh.wire.limits import BULK, Limits
from caso_mesh.wire.link import Handler, Link
from caso_mesh.wire.network import ClientTls, OnRefusal, ServerTls, join_address
from caso_mesh.wire.segments import Segments
from caso_mesh.wire.websocket import LinkServer
from caso_mesh.wire.websocket_channel import Pace

log = logging.getLogger(__name__)

_MAX_TOKEN_BYTES = 64


class BulkAcceptor:
    """The worker's end of its channel with the daemon; an async context manager that ends with all its links.

    ``channel`` is the worker's half of an AF_UNIX SOCK_SEQPACKET pair; it is closed on leaving. ``pace`` is awaited
    before bytes are sent on any of its links.
    """

    def __init__(
        self,
        channel: socket.socket,
        *,
        tls: ServerTls,
        authorise: Authorise,
        handler: Handler,
        on_refusal: OnRefusal | None = None,
        limits: Limits = BULK,
        random_bytes: Randomness = os.urandom,
        pace: Pace | None = None,
    ) -> None:
        self._channel = channel
        self._opened: asyncio.Queue[Link | None] = asyncio.Queue()
        self._server = LinkServer(
            tls=tls,
            authorise=authorise,
            handler=handler,
            limits=limits,
            on_link=self._opened.put_nowait,
            on_refusal=on_refusal,
            random_bytes=random_bytes,
            pace=pace,
        )
        self._receiving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._channel.setblocking(False)
        await self._server.start()
        self._receiving = asyncio.create_task(self._receive(), name="bulk acceptor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        await self._server.close()
        self._channel.close()

    async def accept(self) -> Link:
        """The next link of an authorised peer. Raises ``LinkLost`` when the daemon has gone and no more can come."""
        if self._receiving is None:
            raise Misuse("accept() before entering the context")
        link = await self._opened.get()
        if link is None:
            self._opened.put_nowait(None)
            raise LinkLost(peer="the daemon")
        return link

    async def _receive(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while (sock := await self._next_socket()) is not None:
                    group.create_task(self._one(sock))
        finally:
            self._opened.put_nowait(None)

    async def _next_socket(self) -> socket.socket | None:
        while True:
            await demux.readable(self._channel)
            try:
                token, descriptors, _, _ = socket.recv_fds(self._channel, _MAX_TOKEN_BYTES, 1)
            except BlockingIOError:
                continue
            except ConnectionError:
                return None
            if descriptors:
                os.set_inheritable(descriptors[0], False)  # Python 3.11 drops the flag that would do it
                return socket.socket(fileno=descriptors[0])
            if not token:
                return None

    async def _one(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            peer = join_address(*sock.getpeername()[:2])
        except OSError as exc:
            sock.close()
            log.info("a bulk connection was gone before it began: %s", exc.strerror)
            return
        try:
            await self._server.serve(sock, peer)
        except (OSError, TimeoutError, CasoError) as exc:
            log.info("refused the bulk connection of %s: %s", peer, str(exc) or type(exc).__name__)
            self._server.refused(peer, exc)
        except Exception:
            # A bug behind one connection must not end the accepting of all others.
            log.exception("could not serve the bulk connection of %s", peer)


async def dial_bulk(
    address: str,
    token: str,
    *,
    tls: ClientTls,
    authorise: Authorise,
    handler: Handler,
    timeout_s: float = 10.0,
    limits: Limits = BULK,
    random_bytes: Randomness = os.urandom,
    pace: Pace | None = None,
    segments: Segments | None = None,
) -> Link:
    """A link to the worker that answers to ``token`` behind the daemon at ``address``; ``segments``: what is known of the
    ways from here. Raises like ``Network.dial``."""
    return await dial_websocket(
        address,
        tls=tls,
        authorise=authorise,
        handler=handler,
        timeout_s=timeout_s,
        limits=limits,
        random_bytes=random_bytes,
        segments=segments or Segments(),
        server_name=demux.bulk_name(token),
        pace=pace,
    )
