"""The network of real sockets: mutual TLS 1.3, HTTP upgrade at ``/link``, binary websocket frames (aiohttp).

A listener's sockets are accepted here, not by aiohttp, so that bulk connections can leave before TLS (``demux``).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import (
    CannotListen,
    CasoError,
    PeerFault,
    PortInUse,
    Refused,
)
from caso_mesh.wire import demux, refusals
from caso_mesh.wire.dialling import dial_websocket
from caso_mesh.wire.handshake import Authorise, establish
from caso_mesh.wire.http import Opening, runner_of
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
from caso_mesh.wire.segments import Segments, filling_bytes
from caso_mesh.wire.tls import accept_tls, shrink_buffer
from caso_mesh.wire.websocket_channel import MAX_FRAME, PATH, Pace, WebSocketChannel

log = logging.getLogger(__name__)

#: Connections between accept and hello; beyond it the oldest is dropped for the new one.
MAX_PENDING = 256
_BACKLOG = 256
_TLS_TIMEOUT_S = 5.0
#: Before accepting again when the process is out of descriptors or the kernel out of memory.
_EXHAUSTED_PAUSE_S = 0.5
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class LinkServer:
    """Makes links of accepted sockets: TLS, upgrade, hello. The listener and a worker's bulk acceptor own one each."""

    def __init__(
        self,
        *,
        tls: ServerTls,
        authorise: Authorise,
        handler: Handler,
        limits: Limits,
        on_link: OnLink | None,
        random_bytes: Randomness,
        on_refusal: OnRefusal | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._on_refusal = on_refusal
        self._pace = pace
        self._tls = tls
        self._authorise = authorise
        self._handler = handler
        self._limits = limits
        self._on_link = on_link
        self._random_bytes = random_bytes
        self._opening: dict[asyncio.BaseProtocol, asyncio.Future[OSError | None]] = {}
        self.links: set[Link] = set()
        app = web.Application()
        app.router.add_get(PATH, self._serve)
        app.on_shutdown.append(self._shutdown)
        self._runner = runner_of(app, limits.close_timeout_s)

    async def start(self) -> None:
        await self._runner.setup()

    async def close(self) -> None:
        """Ends all links. Whoever calls ``serve`` has ended those calls before."""
        await self._runner.cleanup()

    def refused(self, address: str, error: BaseException, certificate: bytes | None = None) -> None:
        """Somebody was refused, or broke the protocol; what else goes wrong with a connection is nobody's doing."""
        if isinstance(error, ssl.SSLError):
            error = refusals.of_handshake(address, error)
        if self._on_refusal is not None and isinstance(error, (Refused, PeerFault)):
            self._on_refusal(address, error, certificate)

    async def serve(self, sock: socket.socket, peer: str) -> None:
        """Turns an accepted, non-blocking socket, which it owns from now on, into a link; returns when that is open.

        Raises ``OSError`` or ``TimeoutError`` when there will be no link.
        """
        server = self._runner.server
        assert server is not None  # between start and close
        try:
            context = self._tls.current()
        except BaseException:
            sock.close()
            raise
        opened: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        transport, protocol = await accept_tls(
            lambda: Opening(server(), opened), sock, context, timeout_s=_TLS_TIMEOUT_S
        )
        assert isinstance(protocol, Opening)
        shrink_buffer(transport, self._limits.read_bytes)
        self._opening[protocol.http] = opened
        try:
            async with asyncio.timeout(self._limits.hello_timeout_s):
                lost = await opened
            if lost is not None:
                raise lost
            transport.set_protocol(protocol.http)
        except BaseException:
            transport.abort()
            raise
        finally:
            del self._opening[protocol.http]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        transport, opened = request.transport, self._opening.get(request.protocol)
        if transport is None or opened is None or opened.done():
            raise web.HTTPBadRequest
        host, port = transport.get_extra_info("peername")[:2]
        address = join_address(host, port)
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        websocket = web.WebSocketResponse(
            compress=False,
            max_msg_size=MAX_FRAME,
            heartbeat=self._limits.heartbeat_s,
            timeout=self._limits.close_timeout_s,
        )
        await websocket.prepare(request)
        judged: list[CasoError] = []

        def authorise(shown: bytes | None) -> Any:
            try:
                return self._authorise(shown)
            except CasoError as error:
                judged.append(error)
                raise

        try:
            link = await establish(
                WebSocketChannel(websocket, limits=self._limits, peer=address, pace=self._pace),
                dialled=False,
                address=address,
                certificate=certificate,
                authorise=authorise,
                handler=self._handler,
                limits=self._limits,
                random_bytes=self._random_bytes,
                filling_bytes=filling_bytes(transport.get_extra_info("socket")),
            )
        except CasoError as error:
            log.info("refused %s: %s", address, error)
            # what the peer has against us is not a refusal of ours
            if error in judged or isinstance(error, PeerFault):
                self.refused(address, error, certificate)
            return websocket
        finally:
            if not opened.done():
                opened.set_result(None)
        self.links.add(link)
        try:
            if self._on_link is not None:
                self._on_link(link)
            await link.wait_closed()
            if link.fault is not None:
                self.refused(address, link.fault, certificate)
        finally:
            self.links.discard(link)
            await link.close()
        return websocket

    async def _shutdown(self, app: web.Application) -> None:
        async with asyncio.TaskGroup() as group:
            for link in tuple(self.links):
                group.create_task(link.close())


class WebSocketListener:
    """An open listening socket; made by ``WebSocketNetwork.listen``."""

    def __init__(self, sock: socket.socket, host: str, server: LinkServer, worker_for: WorkerFor | None) -> None:
        self._socket = sock
        self._server = server
        self._worker_for = worker_for
        self._pending: dict[asyncio.Task[None], None] = {}  # in order of arrival
        self.address = join_address(host, sock.getsockname()[1])

    @property
    def links(self) -> frozenset[Link]:
        return frozenset(self._server.links)

    async def run(self) -> None:
        """Accepts until cancelled. What ends it otherwise is logged at once and raised on leaving ``listen``."""
        try:
            await self._accept()
        except Exception:
            log.exception("%s accepts no more", self.address)
            raise

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    sock, _ = await loop.sock_accept(self._socket)
                except OSError as exc:
                    if exc.errno in _EXHAUSTED:
                        log.warning("%s cannot accept: %s", self.address, exc.strerror)
                        await asyncio.sleep(_EXHAUSTED_PAUSE_S)
                    elif exc.errno not in (errno.ECONNABORTED, errno.EPROTO):
                        raise
                    continue
                if len(self._pending) >= MAX_PENDING:
                    # Honest handshakes take milliseconds: the oldest pending one is the likeliest to be idle on purpose.
                    next(iter(self._pending)).cancel()
                task = group.create_task(self._one(sock))
                self._pending[task] = None
                task.add_done_callback(self._pending.pop)

    async def _one(self, sock: socket.socket) -> None:
        peer = ""
        try:
            with sock:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer = join_address(*sock.getpeername()[:2])
                token = demux.bulk_token(await demux.peek_name(sock, peer))
                if token is not None:
                    channel = self._worker_for(token, peer) if self._worker_for is not None else None
                    if channel is None:
                        raise demux.refuse_bulk(token)
                    demux.hand_over(channel, token, sock)
                    return  # our copy closes, the worker's lives on
                own = sock.dup()  # the transport closes what it was given
            own.setblocking(False)
            await self._server.serve(own, peer)
        except (OSError, TimeoutError, CasoError) as exc:
            log.info("%s refused a connection: %s", self.address, str(exc) or type(exc).__name__)
            self._server.refused(peer, exc)
        except Exception:
            # A bug behind one connection (in making a TLS context, say) must not end the accepting of all others.
            log.exception("%s could not serve a connection", self.address)


class WebSocketNetwork:
    """The ``Network`` of real sockets."""

    def __init__(self, *, random_bytes: Randomness = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._segments = Segments()

    @asynccontextmanager
    async def listen(
        self,
        address: str,
        *,
        tls: ServerTls,
        authorise: Authorise,
        handler: Handler,
        on_link: OnLink | None = None,
        on_refusal: OnRefusal | None = None,
        worker_for: WorkerFor | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> AsyncIterator[Listener]:
        """As in ``Network``."""
        sock, host = await _listening_socket(address)
        with sock:
            server = LinkServer(
                tls=tls,
                authorise=authorise,
                handler=handler,
                limits=limits,
                on_link=on_link,
                on_refusal=on_refusal,
                random_bytes=self._random_bytes,
            )
            await server.start()
            listener = WebSocketListener(sock, host, server, worker_for)
            accepting = asyncio.create_task(listener.run(), name=f"listener {listener.address}")
            try:
                yield listener
            finally:
                accepting.cancel()
                (outcome,) = await asyncio.gather(accepting, return_exceptions=True)
                await server.close()
                if isinstance(outcome, Exception):
                    raise outcome

    async def dial(
        self,
        address: str,
        *,
        tls: ClientTls,
        authorise: Authorise,
        handler: Handler,
        timeout_s: float = 10.0,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        whole: bool = False,
    ) -> Link:
        """As in ``Network``."""
        link = await dial_websocket(
            address,
            tls=tls,
            authorise=authorise,
            handler=handler,
            timeout_s=timeout_s,
            limits=limits,
            random_bytes=self._random_bytes,
            segments=Segments() if whole else self._segments,
        )
        if whole:
            self._segments.whole(address)
        return link


async def _listening_socket(address: str) -> tuple[socket.socket, str]:
    try:
        host, port = split_address(address)
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, where = found[0]
        sock = socket.create_server(where[:2], family=family, backlog=_BACKLOG)
    except ValueError as exc:
        raise CannotListen(address=address, detail=str(exc)) from None
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(address=address) from exc
        raise CannotListen(address=address, detail=exc.strerror or str(exc)) from exc
    sock.setblocking(False)
    return sock, host
