"""One TCP port for links and bulk channels: reads the server name out of the ClientHello without consuming it, and
hands a bulk connection to its worker before TLS begins.

The hello is parsed by OpenSSL itself, in a throwaway server that has no certificate and never answers. Nothing here
trusts the name: it only chooses the process that will then ask for certificates.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl

from caso_mesh.model.errors import (
    CannotConnect,
    CasoError,
    Misuse,
    PeerFault,
    PeerNotTls,
    PeerOversized,
    Unavailable,
)

#: Longest ClientHello; browsers stay under 2 KiB, OpenSSL without tickets under 1 KiB.
MAX_HELLO_BYTES = 16 * 1024
#: From accepting to the whole ClientHello.
HELLO_TIMEOUT_S = 3.0
#: Pause after a wake-up that brought nothing new (a FIN, or a kernel that ignores SO_RCVLOWAT).
_TICK_S = 0.02
_RECORD_HEADER = 5
#: "attempt-" and the token are one DNS label, which Python's IDNA codec holds to 63 characters.
_TOKEN = re.compile(r"[a-z0-9-]{1,55}\Z")
_BULK_NAME = re.compile(r"attempt-([a-z0-9-]{1,55})\.bulk\.caso-mesh\Z")


def bulk_name(token: str) -> str:
    """The server name of the bulk channel of a token. Raises ``Misuse`` if it is none."""
    if not _TOKEN.match(token):
        raise Misuse("a bulk token is 1 to 55 of a-z, 0-9 and -")
    return f"attempt-{token}.bulk.caso-mesh"


def bulk_token(name: str) -> str | None:
    """The token in a server name, ``None`` if it is not that of a bulk channel."""
    match = _BULK_NAME.match(name)
    return None if match is None else match[1]


def _see_name(obj: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> int:
    _seen[obj] = name or ""
    return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE  # stop here, before any key exchange


_seen: dict[ssl.SSLObject | ssl.SSLSocket, str] = {}
_PROBE = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
_PROBE.sni_callback = _see_name


def parse_hello(data: bytes, peer: str) -> str | int:
    """The server name in a ClientHello ("" if it has none), or how many bytes are needed to know more.

    Raises ``PeerFault`` for what is no ClientHello.
    """
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    probe = _PROBE.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    try:
        probe.do_handshake()
    except ssl.SSLWantReadError:
        record = int.from_bytes(data[3:5], "big") if len(data) >= _RECORD_HEADER else 0
        need = max(_RECORD_HEADER + record, len(data) + 1)
        if need > MAX_HELLO_BYTES:
            raise PeerOversized(peer=peer, size=need, limit=MAX_HELLO_BYTES) from None
        return need
    except ssl.SSLError as exc:
        name = _seen.pop(probe, None)
        if name is None:
            raise PeerNotTls(peer=peer, detail=(exc.reason or "no ClientHello").lower().replace("_", " ")) from None
        return name
    return _seen.pop(probe, "")


async def peek_name(sock: socket.socket, peer: str) -> str:
    """Waits for the ClientHello on a non-blocking socket and returns its server name; the socket stays unread.

    Raises ``PeerFault`` (not TLS, too long, too slow), ``CannotConnect`` (closed).
    """
    need = _RECORD_HEADER
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            while True:
                # A plain MSG_PEEK would wake up again at once for the same bytes.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, need)
                await readable(sock)
                data = sock.recv(MAX_HELLO_BYTES, socket.MSG_PEEK)
                if not data:
                    raise CannotConnect(address=peer, detail="closed before it said hello")
                found = parse_hello(data, peer)
                if isinstance(found, str):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                    return found
                if len(data) < need:
                    await asyncio.sleep(_TICK_S)
                need = found
    except TimeoutError:
        raise PeerFault(peer=peer, detail=f"no ClientHello within {HELLO_TIMEOUT_S:g} s") from None


def hand_over(channel: socket.socket, token: str, sock: socket.socket) -> None:
    """Sends ``sock`` to the worker at the other end of ``channel``; our own copy stays to be closed.

    Raises ``Unavailable`` if the worker has ended or does not take connections quickly enough.
    """
    try:
        socket.send_fds(channel, [token.encode()], [sock.fileno()])
    except OSError as exc:
        raise Unavailable(what=f"the worker of {token[:8]} ({exc.strerror})") from exc


def refuse_bulk(token: str) -> CasoError:
    """Why a bulk connection without a worker is closed. Only for the log: the token is a secret until admitted."""
    return Unavailable(what=f"no worker for the bulk token {token[:4]}..., which")


async def readable(sock: socket.socket) -> None:
    """Waits until ``sock`` has bytes (above its low-water mark) or an end to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
