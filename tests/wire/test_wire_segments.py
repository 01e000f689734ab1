"""Ways on which large packets are lost. The ways themselves are in ``tests/mesh/test_large_packets.py``."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from wire_fixtures import Answers, client_tls, only, pki

from caso_mesh.model.errors import CannotConnect
from caso_mesh.wire import segments as s
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.protocol import Connection, Hello
from caso_mesh.wire.segments import STEPS, Segments, Sockets, filling_bytes
from caso_mesh.wire.websocket import WebSocketNetwork

ADDRESS, OTHER = "10.0.0.1:7300", "10.0.0.2:7300"


def test_each_silence_makes_segments_smaller_and_the_last_one_large_again():
    known, found = Segments(), []
    for now_s in range(len(STEPS) + 1):
        found.append(known.of(ADDRESS, now_s))
        known.silent(ADDRESS, found[-1], now_s)
    assert found == [None, 1200, 536, None]
    assert known.of(OTHER, 9.0) is None, "another way"


def test_a_way_is_tried_with_large_packets_again_after_an_hour():
    known = Segments()
    known.silent(ADDRESS, None, 10.0)
    assert known.of(ADDRESS, 3609.0) == 1200
    assert known.of(ADDRESS, 3610.0) is None


def test_a_way_that_large_packets_have_passed_has_them_again():
    known = Segments()
    known.silent(ADDRESS, None, 10.0)
    known.whole(ADDRESS)
    assert known.of(ADDRESS, 11.0) is None


def test_a_hello_is_filled_to_a_packet_and_understood_by_who_knows_nothing_of_that():
    ours = Connection(dialled=True, limits=Limits(), nonce=bytes(16), peer="a")
    theirs = Connection(dialled=False, limits=Limits(), nonce=bytes(16), peer="b")
    message = ours.hello(1448)
    assert len(message) > 1448
    heard = theirs.receive(message)
    assert isinstance(heard, Hello)
    assert heard.max_calls == Limits().max_calls


def test_a_socket_announces_the_segments_that_it_takes():
    with socket.create_server(("127.0.0.1", 0)) as server, Sockets(536) as sockets:
        made = sockets.make((socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname()))
        with made:
            assert not sockets.packets_matter(), "before it is connected"
            made.connect(server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                assert 0 < filling_bytes(accepted) <= 536, "the other end sends no larger ones"
                assert 0 < filling_bytes(made) <= 536
        assert sockets.packets_matter(), "also when the socket was closed"


def test_this_machine_itself_loses_no_packet_for_its_size():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as made:
        assert filling_bytes(made) == 0


@pytest.mark.parametrize("matters", [True, False])
async def test_who_takes_a_connection_and_says_nothing_is_dialled_with_smaller_segments(monkeypatch, matters):
    monkeypatch.setattr(s, "_LONGEST_BYTES", 100_000 if matters else 9_000)  # as if it were another machine
    monkeypatch.setattr("caso_mesh.wire.dialling.SILENT_S", 0.1)
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
        server.setblocking(False)

        async def take() -> None:
            while True:
                accepted, _ = await asyncio.get_running_loop().sock_accept(server)
                taken.append(filling_bytes(stack.enter_context(accepted)))

        taking = asyncio.create_task(take())
        network = WebSocketNetwork()
        for _ in range(2):
            with pytest.raises(CannotConnect) as caught:
                await network.dial(
                    f"127.0.0.1:{server.getsockname()[1]}", tls=client_tls(pki()[2]), authorise=only(pki()[1].der),
                    handler=Answers(), timeout_s=0.5,
                )  # fmt: skip
            assert ("large packets" in caught.value.message) is matters
        taking.cancel()
    if matters:
        first, second = taken
        assert first > 1200 >= second > 0
    else:
        assert taken == [0, 0]
