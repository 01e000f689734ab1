"""The link without asyncio: against the real listener, and against whoever listens instead of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import in_one_of_three
from wire_fixtures import Answers, client_tls, only, pki, server_tls

from caso_mesh.model.errors import (
    CannotConnect,
    CasoError,
    CertificateRefused,
    LinkLost,
    NotFound,
    NotOnRoster,
    PeerMalformed,
    PeerOversized,
    Refused,
    TimedOut,
)
from caso_mesh.wire import fragments
from caso_mesh.wire.blocking import LIMITS, BlockingLink, dial
from caso_mesh.wire.frames import ClientFrames
from caso_mesh.wire.limits import FRAGMENT_BYTES, Limits
from caso_mesh.wire.websocket import WebSocketNetwork


@contextlib.asynccontextmanager
async def listening(handler: Answers, **options: Any) -> AsyncIterator[Any]:
    _, alpha, beta, _ = pki()
    async with WebSocketNetwork().listen(
        "127.0.0.1:0", tls=server_tls(alpha), authorise=options.pop("authorise", only(beta.der)), handler=handler,
        **options,
    ) as listener:  # fmt: skip
        yield listener


def dialled(address: str, *, identity: Any = None, expected: bytes | None = None, **options: Any) -> BlockingLink:
    _, alpha, beta, _ = pki()
    tls = client_tls(identity or beta).current()
    return dial(address, tls=tls, authorise=only(expected or alpha.der), **options)


async def test_calls_are_answered_in_any_order_and_errors_come_back() -> None:
    gate = asyncio.Event()

    async def slow(link: Any, params: Any) -> Any:
        await gate.wait()
        return params

    async def quick(link: Any, params: Any) -> Any:
        gate.set()
        return params

    async def missing(link: Any, params: Any) -> Any:
        raise NotFound(kind="set", name="x")

    handler = Answers()
    handler.calls |= {"slow": slow, "quick": quick, "missing": missing}

    def work(address: str) -> None:
        link = dialled(address)
        first, second = link.ask("slow", {"n": 1}), link.ask("quick", {"n": 2})
        assert link.answer(first, timeout_s=30) == {"n": 1}
        assert link.answer(second, timeout_s=30) == {"n": 2}
        with pytest.raises(NotFound):
            link.call("missing")
        assert link.call("quick", {"b": b"\x00\xff"}) == {"b": b"\x00\xff"}
        link.close()
        with pytest.raises(LinkLost):
            link.call("quick")

    async with listening(handler) as listener:
        await asyncio.to_thread(work, listener.address)
        async with asyncio.timeout(30):
            while listener.links:  # noqa: ASYNC110 - the listener has no event for it
                await asyncio.sleep(0.01)


async def test_long_messages_arrive_whole_both_ways() -> None:
    async def echo(link: Any, params: Any) -> Any:
        return params

    handler = Answers()
    handler.calls["echo"] = echo

    def work(address: str) -> None:
        link = dialled(address)
        for size in (0, 125, 126, 65_535, FRAGMENT_BYTES - 40, FRAGMENT_BYTES + 1, 5 << 20):
            data = random.Random(size).randbytes(size)
            assert link.call("echo", {"data": data}) == {"data": data}
        link.close()

    async with listening(handler) as listener:
        await asyncio.to_thread(work, listener.address)


async def test_a_call_that_is_given_up_is_cancelled_at_the_peer_and_the_link_lives() -> None:
    cancelled = threading.Event()

    async def hang(link: Any, params: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def echo(link: Any, params: Any) -> Any:
        return params

    handler = Answers()
    handler.calls |= {"hang": hang, "echo": echo}

    def work(address: str) -> None:
        link = dialled(address)
        with pytest.raises(TimedOut, match="hang"):
            link.call("hang", timeout_s=0.1)
        assert link.call("echo", {"x": 1}) == {"x": 1}
        assert cancelled.wait(30)
        link.close()

    async with listening(handler) as listener:
        await asyncio.to_thread(work, listener.address)


async def test_pings_are_answered_and_what_the_peer_asks_is_refused() -> None:
    refused: list[CasoError] = []

    async def patient(link: Any, params: Any) -> Any:
        with contextlib.suppress(Refused):
            await link.call("anything")
            raise AssertionError
        refused.append(Refused(detail=""))
        await asyncio.sleep(0.5)  # several heartbeats of the listener
        return {}

    handler = Answers()
    handler.calls["patient"] = patient

    def work(address: str) -> None:
        link = dialled(address)
        assert link.call("patient") == {}
        link.close()

    async def attempt() -> None:
        async with listening(handler, limits=Limits(heartbeat_s=0.1)) as listener:
            await asyncio.to_thread(work, listener.address)

    await in_one_of_three(attempt)
    assert refused


async def test_a_refusal_says_why_whichever_end_refuses() -> None:
    *_, beta, eve = pki()

    def refused(address: str, **options: Any) -> CasoError:
        with pytest.raises(CasoError) as caught:
            dialled(address, **options)
        return caught.value

    async with listening(Answers()) as listener:
        for _ in range(5):
            error = await asyncio.to_thread(refused, listener.address, identity=eve)
            assert isinstance(error, CertificateRefused)
            assert error.fields["peer"] == listener.address
        error = await asyncio.to_thread(refused, listener.address, expected=beta.der)
        assert isinstance(error, NotOnRoster)
    async with listening(Answers(), authorise=only(eve.der)) as listener:
        error = await asyncio.to_thread(refused, listener.address)
        assert isinstance(error, NotOnRoster)
    for address in ("127.0.0.1:1", "nonsense"):
        assert isinstance(await asyncio.to_thread(refused, address), CannotConnect)


async def test_the_end_of_the_listener_ends_who_waits_and_so_does_another_thread() -> None:
    asked = asyncio.Semaphore(0)

    async def hang(link: Any, params: Any) -> Any:
        asked.release()
        await asyncio.Event().wait()

    handler = Answers()
    handler.calls["hang"] = hang

    def work(link: BlockingLink) -> None:
        with pytest.raises(LinkLost):
            link.call("hang", timeout_s=20)
        assert link.closed

    async with listening(handler) as listener:
        link = await asyncio.to_thread(dialled, listener.address)
        waiting = asyncio.create_task(asyncio.to_thread(work, link))
        await asked.acquire()
        link.abandon()
        await waiting
        second = await asyncio.to_thread(dialled, listener.address)
        waiting = asyncio.create_task(asyncio.to_thread(work, second))
        await asked.acquire()
    await waiting


@contextlib.contextmanager
def impostor(serve: Callable[[ssl.SSLSocket], None]) -> Any:
    """Somebody with the right certificate who says something else."""
    _, alpha, *_ = pki()
    context = server_tls(alpha).current()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                plain, _ = listener.accept()
                with context.wrap_socket(plain, server_side=True) as sock:
                    serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(30)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404"),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n", "no caso-mesh server"),
        (b"SSH-2.0-x\r\n\r\n", "no caso-mesh server"),
        (b"x" * 20_000, "no caso-mesh server"),
        (b"", "closed the connection"),
    ],
    ids=["404", "wrong accept", "other protocol", "endless", "nothing"],
)
def test_whoever_is_no_server_of_ours_is_told_so(answer: bytes, said: str) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        sock.recv(4096)
        sock.sendall(answer)

    with impostor(serve) as address, pytest.raises(CannotConnect, match=said):
        dialled(address, timeout_s=30)


def test_a_peer_that_is_silent_is_given_up_when_it_answers_no_ping() -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        while sock.recv(4096):
            pass

    limits = Limits(max_calls=1, max_streams=0, heartbeat_s=0.1)
    with impostor(serve) as address, pytest.raises(CannotConnect, match="no answer"):
        dialled(address, timeout_s=0.3)
    with impostor(serve) as address:
        link = _half_open(address, limits)
        with pytest.raises(LinkLost):
            link._read(1e6)


def _half_open(address: str, limits: Limits) -> BlockingLink:
    from caso_mesh.wire.protocol import Connection

    _, _, beta, _ = pki()
    host, port = address.split(":")
    sock = client_tls(beta).current().wrap_socket(socket.create_connection((host, int(port))))
    frames = ClientFrames(address, random_bytes=os.urandom)
    frames.open = True
    return BlockingLink(sock, frames, Connection(dialled=True, limits=limits, nonce=bytes(16), peer=address), limits)


def opened() -> ClientFrames:
    frames = ClientFrames("a:1", random_bytes=os.urandom)
    frames.open = True
    return frames


def server_frame(opcode: int, payload: bytes, first: int = 0x80) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    if size >= 1 << 16:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([first | opcode]) + length + payload


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=70_000), max_size=4), st.integers(1, 4096))
def test_frames_come_out_as_they_went_in_however_they_are_cut(payloads: list[bytes], step: int) -> None:
    frames = opened()
    data = b"".join(server_frame(2, payload) + server_frame(9, b"p") for payload in payloads)
    found = [each for at in range(0, len(data), step) for each in frames.receive(data[at : at + step])]
    assert found == payloads
    assert len(frames.answers) == 7 * len(payloads)  # a pong of one byte each: 2 + 4 of mask + 1


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (server_frame(1, b"text"), PeerMalformed),
        (server_frame(2, b"x", first=0x00), PeerMalformed),
        (server_frame(2, b"x", first=0xC0), PeerMalformed),
        (b"\x82\x81aaaab", PeerMalformed),
        (server_frame(9, bytes(126)), PeerMalformed),
        (b"\x82\x7f" + (FRAGMENT_BYTES + 1).to_bytes(8, "big"), PeerOversized),
        (server_frame(3, b""), PeerMalformed),
    ],
    ids=["text", "in parts", "extension", "masked", "long ping", "oversized", "unknown kind"],
)
def test_a_frame_that_the_page_of_the_wire_forbids_is_a_fault(data: bytes, error: type[CasoError]) -> None:
    with pytest.raises(error):
        list(opened().receive(data))


def test_nothing_is_taken_after_the_end() -> None:
    frames = opened()
    assert list(frames.receive(server_frame(8, b"\x03\xe8") + server_frame(2, b"late"))) == []
    assert frames.ended
    assert LIMITS.max_streams == 0
    assert list(fragments.split(b"short")) == [b"short"]
