"""What only real sockets have: TLS refusals, hostile bytes, the accept loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from contextlib import asynccontextmanager

import aiohttp
import msgpack
import pytest
from ports import hold_port
from wire_fixtures import Answers, client_tls, only, pki, server_tls, wait_for

from caso_mesh.model.errors import (
    CannotConnect,
    CannotListen,
    CertificateRefused,
    Misuse,
    NotOnRoster,
    PeerFault,
    PeerMalformed,
    PeerOversized,
    PortInUse,
    Refused,
)
from caso_mesh.wire import websocket
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.network import ServerTls
from caso_mesh.wire.websocket import WebSocketNetwork

NETWORK = WebSocketNetwork()


@asynccontextmanager
async def listening(*, optional=False, authorise=None, handler=None, limits=None, on_link=None):
    _, alpha, beta, _ = pki()
    async with NETWORK.listen(
        "127.0.0.1:0",
        tls=server_tls(alpha, optional=optional),
        authorise=authorise or only(beta.der),
        handler=handler or Answers(),
        limits=limits or Limits(),
        on_link=on_link,
    ) as listener:
        yield listener


async def dial(address, identity, authorise=None, **options):
    return await NETWORK.dial(
        address,
        tls=client_tls(identity),
        authorise=authorise or only(pki()[1].der),
        handler=Answers(),
        **options,
    )


@pytest.mark.parametrize("attempt", range(5))
async def test_a_foreign_certificate_is_refused_not_lost(attempt):
    """In TLS 1.3 the client has finished its handshake when the server refuses; asyncio would drop the alert."""
    *_, eve = pki()
    async with listening() as listener:
        with pytest.raises(CertificateRefused) as caught:
            await dial(listener.address, eve)
        assert caught.value.fields["peer"] == listener.address


async def test_no_certificate_is_refused_where_one_is_required():
    async with listening() as listener:
        with pytest.raises(CertificateRefused):
            await dial(listener.address, None)


async def test_a_server_of_another_mesh_is_refused_by_the_dialler():
    *_, beta, eve = pki()
    async with NETWORK.listen(
        "127.0.0.1:0", tls=server_tls(eve), authorise=only(beta.der), handler=Answers()
    ) as listener:
        with pytest.raises(CertificateRefused) as caught:
            await dial(listener.address, beta)
        assert caught.value.fields["peer"] == "this server"


async def test_the_dialler_refuses_a_server_it_does_not_know():
    *_, beta, _ = pki()
    links = []
    async with listening(on_link=links.append) as listener:
        with pytest.raises(NotOnRoster):
            await dial(listener.address, beta, authorise=only(b"another"))
        assert not links


async def test_without_a_certificate_one_gets_narrow_limits():
    async def echo(link, params):
        return params

    seen = []

    def authorise(certificate):
        seen.append(certificate)
        return "nobody"

    handler = Answers(echo=echo)
    async with listening(optional=True, authorise=authorise, handler=handler) as listener:
        link = await dial(listener.address, None)
        assert seen == [None]
        assert await link.call("echo", {"ticket": "x"}) == {"ticket": "x"}
        with pytest.raises(Misuse):
            await link.call("echo", {"data": bytes(65 * 1024)})
        with pytest.raises(Refused):
            await link.open_stream("anything")
        (other,) = listener.links
        assert other.peer == "nobody"
        await link.close()


async def test_a_port_in_use_and_a_bad_address_are_told_apart():
    async with listening() as listener:
        with pytest.raises(PortInUse):
            async with NETWORK.listen(listener.address, tls=server_tls(pki()[1]), authorise=only(), handler=Answers()):
                pass
    for address in ("127.0.0.1", "127.0.0.1:99999", "192.0.2.1:0", ":80", "a:b:1"):
        with pytest.raises(CannotListen):
            async with NETWORK.listen(address, tls=server_tls(pki()[1]), authorise=only(), handler=Answers()):
                pass


async def test_dialling_where_nobody_listens_says_so():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(CannotConnect) as caught:  # accepted by the kernel, never answered
            await dial(address, pki()[2], timeout_s=0.2)
        assert "within 0.2 s" in caught.value.message
    with hold_port() as nobody, pytest.raises(CannotConnect):
        await dial(f"127.0.0.1:{nobody.getsockname()[1]}", pki()[2])
    with pytest.raises(CannotConnect):
        await dial("not an address", pki()[2])


async def test_ipv6_addresses_work():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback")
    _, alpha, beta, _ = pki()
    async with NETWORK.listen(
        "[::1]:0", tls=server_tls(alpha), authorise=only(beta.der), handler=Answers()
    ) as listener:
        assert listener.address.startswith("[::1]:")
        link = await dial(listener.address, beta)
        await link.close()


async def test_certificates_are_asked_for_anew_for_each_connection():
    asked = []
    _, alpha, beta, _ = pki()
    tls = server_tls(alpha)

    def context():
        asked.append(1)
        return tls.context()

    async with NETWORK.listen(
        "127.0.0.1:0", tls=ServerTls(context), authorise=only(beta.der), handler=Answers()
    ) as listener:
        for _ in range(2):
            await (await dial(listener.address, beta)).close()
    assert len(asked) == 2


async def test_a_bug_behind_one_connection_does_not_end_the_listener(caplog):
    _, alpha, beta, _ = pki()
    tls, broken = server_tls(alpha), [True]

    def context():
        if broken:
            raise ZeroDivisionError
        return tls.context()

    async with NETWORK.listen(
        "127.0.0.1:0", tls=ServerTls(context), authorise=only(beta.der), handler=Answers()
    ) as listener:
        with pytest.raises(CannotConnect):
            await dial(listener.address, beta)
        broken.clear()
        await (await dial(listener.address, beta)).close()
    assert "ZeroDivisionError" in caplog.text


async def raw_websocket(session, address):
    return await session.ws_connect(
        f"https://{address}/link", ssl=client_tls(pki()[2]).current(), compress=0, max_msg_size=1 << 20
    )


HELLO = [
    5,
    {
        "protocol": 1,
        "nonce": bytes(16),
        "max_message_bytes": 1 << 20,
        "max_calls": 10,
        "max_streams": 4,
        "stream_window_bytes": 1 << 20,
        "from-the-future": 1,
    },
]


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([msgpack.packb([1, 7, None, None])], PeerFault),
        ([msgpack.packb([3, 2, 1, b"x"])], PeerFault),
        ([msgpack.packb([3, 1, 1, b"x"])], PeerFault),
        ([msgpack.packb([4, 1])], PeerFault),
        ([msgpack.packb([0, 1, "a", {}]), msgpack.packb([0, 1, "a", {}])], PeerFault),
        ([msgpack.packb([9, 1])], PeerMalformed),
        ([msgpack.packb([0, "1", "a", {}])], PeerMalformed),
        ([msgpack.packb([0, 1, "a", {}, "more"])], PeerMalformed),
        ([msgpack.packb([0, 1, "a", [1]])], PeerMalformed),
        ([msgpack.packb([2, "", None])], PeerMalformed),
        ([msgpack.packb(HELLO)], PeerMalformed),
        ([b"\xc1"], PeerMalformed),
        ([b""], PeerMalformed),
        ([b"\xff\xff"], PeerMalformed),
        ([b"\xc1" + (9 << 20).to_bytes(4, "big")], PeerOversized),
        ([b"\xc1" + (1 << 20).to_bytes(4, "big"), b"short"], PeerMalformed),
        ([b"x" * (300 * 1024)], PeerOversized),
        ([[b"text"]], PeerMalformed),
    ],
)
async def test_a_peer_that_breaks_the_protocol_loses_its_link_with_the_reason(frames, fault, caplog):
    caplog.set_level(logging.WARNING, "caso_mesh.wire")
    links = []
    limits = Limits(close_timeout_s=0.2)
    async with listening(on_link=links.append, limits=limits) as listener, aiohttp.ClientSession() as session:
        sock = await raw_websocket(session, listener.address)
        await sock.send_bytes(msgpack.packb(HELLO))
        assert msgpack.unpackb((await sock.receive()).data)[0] == 5
        for frame in frames:
            await (sock.send_str("text") if isinstance(frame, list) else sock.send_bytes(frame))
        await wait_for(lambda: bool(links))
        said = [message.data async for message in sock]
        reason = await asyncio.wait_for(links[0].wait_closed(), 30)
        assert type(reason) is fault
        await sock.close()
    if said:  # after an oversized frame aiohttp has closed its websocket already
        kind, error = msgpack.unpackb(said[-1])
        assert (kind, error["code"]) == (6, fault.code)
    assert str(reason) in caplog.text


async def test_a_message_before_the_hello_is_answered_with_goodbye():
    async with listening() as listener, aiohttp.ClientSession() as session:
        sock = await raw_websocket(session, listener.address)
        await sock.send_bytes(msgpack.packb([0, 1, "a", None]))
        kind, error = msgpack.unpackb((await sock.receive()).data)
        assert (kind, error["code"]) == (6, "peer-malformed")
        await sock.close()
        assert not listener.links


async def test_a_silent_peer_is_dropped_after_the_hello_timeout():
    async with listening(limits=Limits(hello_timeout_s=0.1)) as listener, aiohttp.ClientSession() as session:
        sock = await raw_websocket(session, listener.address)
        async with asyncio.timeout(8):  # which is less than what is usual
            assert (await sock.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await sock.close()
        host, port = listener.address.split(":")
        context = client_tls(pki()[2]).current()
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)  # TLS, but never HTTP
        async with asyncio.timeout(8):
            assert await reader.read() == b""
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_other_paths_and_plain_text_get_nothing(caplog):
    caplog.set_level(logging.INFO, "caso_mesh.wire")
    async with listening() as listener, aiohttp.ClientSession() as session:
        context = client_tls(pki()[2]).current()
        async with session.get(f"https://{listener.address}/", ssl=context) as response:
            assert response.status == 404
        async with session.get(f"https://{listener.address}/link", ssl=context) as response:
            assert response.status == 400
        host, port = listener.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):  # our question was not read
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        assert "does not speak TLS" in caplog.text


async def test_tls_1_2_is_refused():
    context = client_tls(pki()[2]).current()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening() as listener:
        host, port = listener.address.split(":")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, int(port), ssl=context)


async def test_idle_connections_cannot_keep_others_out(monkeypatch):
    monkeypatch.setattr(websocket, "MAX_PENDING", 4)
    async with listening(limits=Limits(hello_timeout_s=300.0)) as listener:
        host, port = listener.address.split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
        link = await dial(listener.address, pki()[2])
        assert await asyncio.wait_for(idle[0][0].read(), 30) == b""
        await link.close()
        for _, writer in idle:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_redirection_is_not_followed():
    async def redirect(request):
        raise aiohttp.web.HTTPFound("https://127.0.0.1:1/link")

    app = aiohttp.web.Application()
    app.router.add_get("/link", redirect)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls(pki()[1]).current())
    await site.start()
    port = runner.addresses[0][1]
    with pytest.raises(CannotConnect) as caught:
        await dial(f"127.0.0.1:{port}", pki()[2])
    assert "redirection" in caught.value.message
    await runner.cleanup()


async def test_a_peer_that_reads_nothing_slows_the_sender_down_and_is_let_go_quickly():
    """The sender waits instead of filling its memory, and closing does not wait for the peer."""
    links = []
    async with (
        listening(on_link=links.append, limits=Limits(close_timeout_s=0.2)) as listener,
        aiohttp.ClientSession() as session,
    ):
        sock = await raw_websocket(session, listener.address)
        await sock.send_bytes(msgpack.packb(HELLO))
        await wait_for(lambda: bool(links))
        link, sent = links[0], 0

        async def flood():
            nonlocal sent
            while True:
                await link.notify("data", {"data": bytes(1 << 19)})
                sent += 1

        flooding = asyncio.create_task(flood())
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 64
        async with asyncio.timeout(30):
            await link.close()
        with pytest.raises(Exception, match="lost"):
            await flooding
        sock._conn.transport.abort()
        await sock.close()
