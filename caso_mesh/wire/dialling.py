"""Dialling: mutual TLS 1.3, the upgrade to a websocket, hello."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CannotConnect, CasoError
from caso_mesh.wire import refusals
from caso_mesh.wire.addresses import split_address
from caso_mesh.wire.handshake import Authorise, establish
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.link import Handler, Link
from caso_mesh.wire.network import ClientTls
from caso_mesh.wire.segments import SILENT_S, Segments, Sockets, filling_bytes
from caso_mesh.wire.websocket_channel import MAX_FRAME, PATH, Pace, WebSocketChannel


async def dial_websocket(
    address: str,
    *,
    tls: ClientTls,
    authorise: Authorise,
    handler: Handler,
    timeout_s: float,
    limits: Limits,
    random_bytes: Randomness,
    segments: Segments,
    server_name: str | None = None,
    pace: Pace | None = None,
) -> Link:
    """``Network.dial`` with what is known of packets, the server name to put into the ClientHello, and what is awaited
    before bytes are sent."""
    try:
        split_address(address)
    except ValueError as exc:
        raise CannotConnect(address=address, detail=str(exc)) from None
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    segment_bytes = segments.of(address, began_s)
    with Sockets(segment_bytes) as sockets:
        try:
            async with asyncio.timeout(timeout_s):
                channel, certificate, filling = await _connect(
                    address, tls.current(), limits, server_name, pace, sockets
                )
                link = await establish(
                    channel,
                    dialled=True,
                    address=address,
                    certificate=certificate,
                    authorise=authorise,
                    handler=handler,
                    limits=limits,
                    random_bytes=random_bytes,
                    filling_bytes=filling,
                )
        except (TimeoutError, CannotConnect) as error:
            detail = f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else error.fields["detail"]
            if loop.time() - began_s >= SILENT_S and sockets.packets_matter():
                segments.silent(address, segment_bytes, loop.time())
                sockets.hang_up()
                detail += "; it takes connections: are large packets lost on the way (MTU)?"
            raise CannotConnect(address=address, detail=detail) from None
    link.segment_bytes = segment_bytes
    return link


async def _connect(
    address: str,
    context: ssl.SSLContext,
    limits: Limits,
    server_name: str | None,
    pace: Pace | None,
    sockets: Sockets,
) -> tuple[WebSocketChannel, bytes | None, int]:
    redirected = aiohttp.TraceConfig()
    redirected.on_request_redirect.append(_no_redirect)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=1, force_close=True, socket_factory=sockets.make),
        timeout=aiohttp.ClientTimeout(total=None, sock_read=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[redirected],
        trust_env=False,
    )
    try:
        websocket = await session.ws_connect(
            f"https://{address}{PATH}",
            ssl=context,
            server_hostname=server_name,
            compress=0,
            max_msg_size=MAX_FRAME,
            heartbeat=limits.heartbeat_s,
            timeout=aiohttp.ClientWSTimeout(ws_receive=None, ws_close=limits.close_timeout_s),
        )
    except BaseException as exc:
        await WebSocketChannel.close_session(session)
        if isinstance(exc, (aiohttp.ClientError, OSError)) and not isinstance(exc, TimeoutError):
            raise _why_not(address, exc) from exc
        raise
    certificate = websocket.get_extra_info("ssl_object").getpeercert(binary_form=True)
    filling = filling_bytes(websocket.get_extra_info("socket"))
    return WebSocketChannel(websocket, limits=limits, peer=address, session=session, pace=pace), certificate, filling


async def _no_redirect(session: aiohttp.ClientSession, context: object, params: object) -> None:
    raise aiohttp.ClientError("it answers with a redirection")


def _why_not(address: str, exc: BaseException) -> CasoError:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            cause = cause.certificate_error  # looks like the next, but has none of its fields
        refusal = refusals.of_certificate(address, cause)
        if refusal is not None:
            return refusal
        cause = cause.__cause__ or cause.__context__
    if isinstance(exc, aiohttp.WSServerHandshakeError):
        return CannotConnect(address=address, detail=f"it is no caso-mesh server (HTTP {exc.status})")
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return CannotConnect(address=address, detail="it closed the connection")
    detail = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return CannotConnect(address=address, detail=detail or type(exc).__name__)
