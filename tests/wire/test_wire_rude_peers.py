"""What ordinary and rude peers do to a listener: scans, resets, halves of everything. None leaves a traceback, a task or a
descriptor, and whoever comes after them is served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from itertools import groupby
from typing import Any

import pytest
from aiohttp.http_exceptions import InvalidHeader
from test_wire_websocket import dial, listening
from wire_fixtures import client_tls, pki, wait_for

from caso_mesh.wire import demux
from caso_mesh.wire.http import HTTP_LOG
from caso_mesh.wire.limits import Limits

UPGRADE = (
    b"GET /link HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Where = tuple[str, int]
Peer = Callable[[Where], Coroutine[Any, Any, None]]


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    probe = client_tls(pki()[2]).current().wrap_bio(ssl.MemoryBIO(), outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        probe.do_handshake()
    return outgoing.read()


def reset(sock: socket.socket) -> None:
    """A close that the other end sees as a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def tcp(where: Where) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, where)
    return sock


async def says(where: Where, data: bytes, *, end: str, pause_s: float = 0.0) -> None:
    """Sends ``data`` and ends: a close, a reset, or a half that is closed while it reads on."""
    loop = asyncio.get_running_loop()
    sock = await tcp(where)
    try:
        if data:
            await loop.sock_sendall(sock, data)
        if pause_s:
            await asyncio.sleep(pause_s)
        if end == "half":
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while await loop.sock_recv(sock, 65536):
                    pass
    except OSError:
        pass
    finally:
        reset(sock) if end == "reset" else sock.close()


class Tls:
    """TLS by hand, so that it can be broken off anywhere."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = client_tls(pki()[2]).current().wrap_bio(self._in, self._out)

    async def shake(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._object.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.flush()
                self._in.write(await loop.sock_recv(self.sock, 65536))
        await self.flush()

    async def end(self, data: bytes) -> None:
        """``data`` and a polite close notify, in one segment."""
        self._object.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._object.unwrap()
        await self.flush()

    async def flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self._out.read())

    async def send(self, data: bytes) -> None:
        self._object.write(data)
        await self.flush()


async def tls_says(where: Where, data: bytes, *, end: str, turns: int = 0) -> None:
    sock = await tcp(where)
    try:
        tls = Tls(sock)
        await tls.shake()
        if end == "notify":
            await tls.end(data)
            end = "half"
        elif data:
            await tls.send(data)
        for _ in range(turns):
            await asyncio.sleep(0)
        if end == "half":
            sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.05)
        if end == "garbage":
            await asyncio.get_running_loop().sock_sendall(sock, os.urandom(200))
            await asyncio.sleep(0.05)
    except OSError:
        pass
    finally:
        reset(sock) if end == "reset" else sock.close()


def plain(data: Callable[[], bytes], end: str) -> Peer:
    return lambda where: says(where, data(), end=end)


def over_tls(data: bytes, end: str, turns: int = 0) -> Peer:
    return lambda where: tls_says(where, data, end=end, turns=turns)


def garbage() -> bytes:
    return random.Random(1).randbytes(300)


PEERS: dict[str, Peer] = {
    **{f"scan {end}": plain(lambda: b"", end) for end in ("close", "reset", "half")},
    **{f"http {end}": plain(lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", end) for end in ("close", "reset", "half")},
    **{f"garbage {end}": plain(garbage, end) for end in ("close", "reset", "half")},
    **{f"hello {end}": plain(client_hello, end) for end in ("close", "reset", "half")},
    **{f"half-hello {end}": plain(lambda: client_hello()[:100], end) for end in ("close", "reset", "half")},
    **{f"hello-garbage {end}": plain(lambda: client_hello() + garbage(), end) for end in ("close", "reset", "half")},
    **{
        f"{name} {end} {turns}": over_tls(data, end, turns)
        for name, data in {
            "tls": b"",
            "request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "half-request": UPGRADE[:40],
            "upgrade": UPGRADE,
            "upgrade-frame": UPGRADE + b"\x82\xfe\xff",
            "post": b"POST /link HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
            "bad-header": b"GET /link HTTP/1.1\r\nb\x00ad\r\n\r\n",
            "long": b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n",
            "second": b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrubbish\r\n\r\n",
            "no-http": garbage(),
        }.items()
        for end in ("close", "reset", "half", "garbage", "notify")
        for turns in (0, 4)
        if (end, turns) != ("notify", 4)
    },
}


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is no quiet line, of whichever library."""
    return [
        f"{record.name}: {record.getMessage()}"
        for record in caplog.records
        if record.exc_info or record.levelno >= logging.WARNING or "Traceback" in record.getMessage()
    ]


@contextlib.contextmanager
def no_noise(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], None]]:
    """Nothing that is called here ``done`` has left a traceback, or an exception that only the event loop was told."""
    caplog.set_level(logging.DEBUG)
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def done(name: str) -> None:
        assert (name, loud(caplog), told) == (name, [], [])
        caplog.clear()

    try:
        yield done
    finally:
        loop.set_exception_handler(None)


async def test_no_peer_leaves_a_traceback_a_task_or_a_descriptor_and_the_next_one_is_served(caplog):
    """A client that went away in the middle of the websocket handshake left a traceback, and one that closed after TLS
    held its place for ten seconds."""
    async with listening(limits=Limits(hello_timeout_s=600.0, close_timeout_s=0.2)) as listener:
        host, port = listener.address.split(":")
        with no_noise(caplog) as done:
            before = len(os.listdir("/proc/self/fd"))
            for name, peers in groupby(PEERS.items(), lambda item: item[0].partition(" ")[0]):
                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    for _, peer in peers:
                        group.create_task(peer((host, int(port))))
                try:
                    await wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)
                except TimeoutError:
                    pytest.fail(f"{name} still holds a descriptor")
                done(name)
            link = await dial(listener.address, pki()[2])
            await link.close()
            await wait_for(lambda: not listener.links)
            done("an honest one")


async def test_a_peer_that_trickles_is_let_go(caplog, monkeypatch):
    """A slow-loris: at any stage it has a few seconds for the whole, not for each byte."""
    monkeypatch.setattr(demux, "HELLO_TIMEOUT_S", 0.2)
    hello = client_hello()
    async with listening(limits=Limits(hello_timeout_s=0.2)) as listener:
        host, port = listener.address.split(":")
        where = (host, int(port))
        with no_noise(caplog) as done:
            sock = await tcp(where)
            with sock:
                assert await trickled(sock, lambda at: raw(sock, hello[at : at + 1]))
            done("a slow hello")
            sock = await tcp(where)
            with sock:
                tls = Tls(sock)
                await tls.shake()
                assert await trickled(sock, lambda at: tls.send(UPGRADE[at : at + 1]))
            done("a slow request")


async def raw(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def trickled(sock: socket.socket, step: Callable[[int], Awaitable[None]]) -> bool:
    """Whether the other end closed before all of it was sent, a byte each 10 ms."""
    for at in range(100):
        try:
            await step(at)
        except OSError:
            return True
        await asyncio.sleep(0.01)
    with contextlib.suppress(OSError):
        async with asyncio.timeout(30):
            while await asyncio.get_running_loop().sock_recv(sock, 65536):
                pass
    return True


def test_what_is_our_own_fault_keeps_its_traceback(caplog):
    caplog.set_level(logging.INFO)
    HTTP_LOG.exception("Error handling request from %s", "127.0.0.1", exc_info=ZeroDivisionError())
    HTTP_LOG.exception("Error handling request from %s", "127.0.0.1", exc_info=InvalidHeader("\x1b[2J\n" * 500))
    ours, theirs = caplog.records
    assert ours.exc_info
    assert ours.levelno == logging.ERROR
    assert (theirs.exc_info, theirs.levelno) == (None, logging.INFO)
    assert len(theirs.getMessage()) <= 200
    assert theirs.getMessage().isprintable()
