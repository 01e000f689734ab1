"""The handoff of bulk connections before TLS."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_fixtures import Answers, client_tls, only, pki, server_tls, wait_for

from caso_mesh.model.errors import CannotConnect, CertificateRefused, LinkLost, Misuse, NotOnRoster, PeerFault
from caso_mesh.wire import demux
from caso_mesh.wire.bulk import BulkAcceptor, dial_bulk
from caso_mesh.wire.websocket import WebSocketNetwork

TOKEN = "k7-token"


@asynccontextmanager
async def daemon_and_worker(handler=None):
    """A listener whose one worker, in this same process, answers to TOKEN."""
    _, alpha, beta, _ = pki()
    daemon_end, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon_end.setblocking(False)
    authorise = only(beta.der)
    async with (
        BulkAcceptor(worker_end, tls=server_tls(alpha), authorise=authorise, handler=handler or Answers()) as acceptor,
        WebSocketNetwork().listen(
            "127.0.0.1:0",
            tls=server_tls(alpha),
            authorise=authorise,
            handler=Answers(),
            worker_for=lambda token, source: daemon_end if token == TOKEN else None,
        ) as listener,
    ):
        with daemon_end:
            yield listener, acceptor, daemon_end


async def dial(address, token=TOKEN, identity=None, authorise=None):
    _, alpha, beta, _ = pki()
    return await dial_bulk(
        address,
        token,
        tls=client_tls(identity or beta),
        authorise=authorise or only(alpha.der),
        handler=Answers(),
    )


async def test_a_bulk_connection_reaches_the_worker_and_never_the_daemon():
    async def take(link, params):
        return len(params["data"])

    async with daemon_and_worker(Answers(take=take)) as (listener, acceptor, _):
        link = await dial(listener.address)
        other = await acceptor.accept()
        assert other.session == link.session
        assert other.peer == "peer0"
        assert not listener.links
        assert await link.call("take", {"data": bytes(20 << 20)}) == 20 << 20
        await link.close()
        assert await other.wait_closed() is None


async def test_the_worker_asks_for_certificates_itself():
    _, alpha, _, eve = pki()
    async with daemon_and_worker() as (listener, _, _):
        with pytest.raises(CertificateRefused):
            await dial(listener.address, identity=eve)
        with pytest.raises(NotOnRoster):
            await dial(listener.address, identity=alpha)


async def test_an_unknown_token_is_closed_without_a_word():
    async with daemon_and_worker() as (listener, acceptor, _):
        with pytest.raises(CannotConnect):
            await dial(listener.address, token="another")
        await (await dial(listener.address)).close()
        await acceptor.accept()


async def test_a_dead_worker_is_a_refusal_and_the_daemon_lives():
    async with daemon_and_worker() as (listener, acceptor, _):
        acceptor._channel.shutdown(socket.SHUT_RDWR)
        with pytest.raises(CannotConnect):
            await dial(listener.address)
        link = await WebSocketNetwork().dial(
            listener.address, tls=client_tls(pki()[2]), authorise=only(pki()[1].der), handler=Answers()
        )
        await link.close()


async def test_the_worker_learns_that_the_daemon_is_gone():
    async with daemon_and_worker() as (_, acceptor, daemon_end):
        daemon_end.close()
        for _ in range(2):
            with pytest.raises(LinkLost):
                await asyncio.wait_for(acceptor.accept(), 30)


async def test_no_descriptor_is_left_after_many_handoffs():
    async with daemon_and_worker() as (listener, acceptor, _):
        await (await dial(listener.address)).close()
        await (await acceptor.accept()).wait_closed()
        await wait_for(lambda: not acceptor._server.links)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            await (await dial(listener.address)).close()
            await (await acceptor.accept()).wait_closed()
        await wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_tokens_are_dns_labels():
    assert demux.bulk_token(demux.bulk_name("a" * 55)) == "a" * 55
    for bad in ("", "a" * 56, "A", "a.b", "a_b", "a\n", "ä"):
        with pytest.raises(Misuse):
            demux.bulk_name(bad)
    for name in (
        "",
        "x.bulk.caso-mesh",
        "attempt-.bulk.caso-mesh",
        "attempt-a.bulk.caso-mesh.evil",
        "attempt-A.bulk.caso-mesh",
    ):
        assert demux.bulk_token(name) is None


async def test_a_hello_in_single_bytes_is_still_read():
    """Peeking must neither consume nor spin, and must survive the slowest sender."""
    near, far = tcp_pair()
    hello = client_hello("attempt-a.bulk.caso-mesh")
    with near, far:
        peek = asyncio.create_task(demux.peek_name(near, "peer"))
        for byte in hello:
            far.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await peek == "attempt-a.bulk.caso-mesh"
        assert near.recv(len(hello)) == hello


async def test_an_incomplete_hello_ends_by_time_and_a_closed_one_at_once(monkeypatch):
    monkeypatch.setattr(demux, "HELLO_TIMEOUT_S", 0.1)
    hello = client_hello("x.example")
    near, far = tcp_pair()
    with near, far:
        far.send(hello[:-1])
        with pytest.raises(PeerFault, match="no ClientHello"):
            await demux.peek_name(near, "peer")
    near, far = tcp_pair()
    with near:
        far.close()
        with pytest.raises(CannotConnect, match="closed"):
            await demux.peek_name(near, "peer")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near, _ = server.accept()
    near.setblocking(False)
    return near, far


def client_hello(name: str | None) -> bytes:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    obj = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        obj.do_handshake()
    return outgoing.read()


def test_the_name_is_read_from_a_hello():
    assert demux.parse_hello(client_hello("attempt-a.bulk.caso-mesh"), "p") == "attempt-a.bulk.caso-mesh"
    assert demux.parse_hello(client_hello(None), "p") == ""
    assert not demux._seen


@given(st.binary(max_size=600), st.integers(0, 400), st.integers(0, 600))
def test_garbage_is_never_more_than_a_fault_or_a_request_for_more(noise, keep, cut):
    data = (client_hello("a.example")[:keep] + noise)[: cut + 1]
    try:
        found = demux.parse_hello(data, "peer")
    except PeerFault:
        return
    finally:
        assert not demux._seen
    assert isinstance(found, str) or len(data) < found <= demux.MAX_HELLO_BYTES
