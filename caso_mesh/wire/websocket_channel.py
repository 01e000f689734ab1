"""The channel of a link over a websocket of aiohttp."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from caso_mesh.model.errors import PeerMalformed, PeerOversized
from caso_mesh.wire import fragments
from caso_mesh.wire.limits import FRAGMENT_BYTES, Limits

log = logging.getLogger(__name__)

PATH = "/link"
#: aiohttp refuses a frame of exactly ``max_msg_size``.
MAX_FRAME = FRAGMENT_BYTES + 64

#: Awaited with the bytes that are to be sent next.
Pace = Callable[[int], Awaitable[None]]

_WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class WebSocketChannel:
    """Messages over one websocket of aiohttp, of either end."""

    def __init__(
        self,
        websocket: _WebSocket,
        *,
        limits: Limits,
        peer: str,
        session: aiohttp.ClientSession | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._websocket = websocket
        self._joiner = fragments.Joiner(max_message_bytes=limits.max_message_bytes, peer=peer)
        self._peer = peer
        self._session = session
        self._close_timeout_s = limits.close_timeout_s
        self._pace = pace

    async def send(self, message: bytes) -> None:
        for frame in fragments.split(message):
            if self._pace is not None:
                await self._pace(len(frame))
            # aiohttp takes any buffer here, and does not copy it on the accepting side.
            await self._websocket.send_bytes(frame)  # type: ignore[arg-type]

    async def receive(self) -> bytes | None:
        while True:
            try:
                message = await self._websocket.receive()
            except OSError:
                return None  # it went while a ping was answered
            match message.type:
                case aiohttp.WSMsgType.BINARY:
                    joined = self._joiner.feed(message.data)
                    if joined is not None:
                        return joined
                case aiohttp.WSMsgType.ERROR if isinstance(message.data, aiohttp.WebSocketError):
                    if message.data.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
                        raise PeerOversized(peer=self._peer, size=f"over {MAX_FRAME}", limit=FRAGMENT_BYTES)
                    raise PeerMalformed(peer=self._peer, detail=str(message.data))
                case aiohttp.WSMsgType.TEXT:
                    raise PeerMalformed(peer=self._peer, detail="a text frame")
                case _:
                    return None

    async def close(self) -> None:
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await self._websocket.close()
        except (TimeoutError, OSError, RuntimeError, aiohttp.ClientError) as exc:
            log.debug("%s: no orderly end: %r", self._peer, exc)
        finally:
            if self._session is not None:
                await self.close_session(self._session)

    @staticmethod
    async def close_session(session: aiohttp.ClientSession) -> None:
        if session.connector is not None:
            await session.connector.close(abort_ssl=True)
        await session.close()
