"""Both networks against the one conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from wire_conformance import CHECKS, Pair, check
from wire_fixtures import Answers, client_tls, only, pki, server_tls

from caso_mesh.wire.link import Link
from caso_mesh.wire.memory import Conditions, MemoryNetwork
from caso_mesh.wire.websocket import WebSocketNetwork


@asynccontextmanager
async def websocket_pair() -> AsyncIterator[Pair]:
    _, alpha, beta, _ = pki()
    network = WebSocketNetwork()
    handler_a, handler_b = Answers(), Answers()
    dialled: list[Link] = []

    async with network.listen(
        "127.0.0.1:0", tls=server_tls(alpha), authorise=only(beta.der), handler=handler_a
    ) as listener:

        async def dial(identity=beta) -> Link:
            link = await network.dial(
                listener.address, tls=client_tls(identity), authorise=only(alpha.der), handler=handler_b
            )
            dialled.append(link)
            return link

        async def dial_as_stranger() -> Link:
            return await dial(alpha)

        async def sever() -> None:
            for link in dialled:
                link._channel._websocket.get_extra_info("socket").shutdown(2)

        yield Pair(handler_a, handler_b, dial, dial_as_stranger, lambda: listener.links, sever)
        for link in dialled:
            await link.close()


@asynccontextmanager
async def memory_pair(conditions: Conditions = Conditions()) -> AsyncIterator[Pair]:  # noqa: B008
    network = MemoryNetwork(seed=1, conditions=conditions)
    a, b, stranger = network.endpoint(b"a"), network.endpoint(b"b"), network.endpoint(b"s")
    handler_a, handler_b = Answers(), Answers()
    dialled: list[Link] = []

    async with a.listen("a:0", authorise=only(b"b"), handler=handler_a) as listener:

        async def dial(by=b) -> Link:
            link = await by.dial(listener.address, authorise=only(b"a"), handler=handler_b)
            dialled.append(link)
            return link

        async def dial_as_stranger() -> Link:
            return await dial(stranger)

        async def sever() -> None:
            network.drop_links(a, b)

        yield Pair(handler_a, handler_b, dial, dial_as_stranger, lambda: listener.links, sever)
        for link in dialled:
            await link.close()
    assert not network._wires


def slow_memory_pair():
    return memory_pair(Conditions(delay_s=0.001, jitter_s=0.002))


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("factory", [websocket_pair, memory_pair, slow_memory_pair], ids=lambda f: f.__name__)
async def test_a_network_keeps_its_contract(factory, one):
    await check(factory, one)
