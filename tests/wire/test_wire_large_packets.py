"""Links over real ways on which large packets get lost without a word; whole daemons are in ``tests/mesh``."""

from __future__ import annotations

import contextlib

import netns
import pytest
from wire_fixtures import Answers, client_tls, only, pki, server_tls

from caso_mesh.model.errors import CannotConnect
from caso_mesh.wire.websocket import WebSocketNetwork

pytestmark = [
    pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable())),
    pytest.mark.skipif(not netns.Site.can_drop(), reason="nftables is not there"),
]
LISTENER, DIALLER = 1, 2


@pytest.mark.parametrize("loses", [LISTENER, DIALLER], ids=["of-the-listener", "of-the-dialler"])
async def test_a_way_that_loses_large_packets_has_no_link_with_them_and_one_with_small_ones(loses):
    """What the dialler says in TLS is short, so that over a way that loses only its packets a link opened, and hung later."""
    _, alpha, beta, _ = pki()

    async def echo(link, params):
        return params["data"]

    with netns.Site(2) as site, contextlib.ExitStack() as machine:
        site.narrow(loses, 1400)
        # sockets are of the machine that the thread is on when they are made
        machine.enter_context(site.inside(LISTENER))
        async with WebSocketNetwork().listen(
            f"{site.address(LISTENER)}:0", tls=server_tls(alpha), authorise=only(beta.der), handler=Answers(echo=echo)
        ) as listener:
            machine.enter_context(site.inside(DIALLER))
            network = WebSocketNetwork()

            async def dial(timeout_s):
                return await network.dial(
                    listener.address,
                    tls=client_tls(beta),
                    authorise=only(alpha.der),
                    handler=Answers(),
                    timeout_s=timeout_s,
                )

            with pytest.raises(CannotConnect, match="large packets"):
                await dial(3.0)
            link = await dial(20.0)
            assert link.segment_bytes == 1200
            data = b"x" * 200_000
            assert await link.call("echo", {"data": data}, timeout_s=20.0) == data
            await link.close()
