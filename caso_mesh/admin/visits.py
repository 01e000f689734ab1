"""Servers at addresses that a person named: where multicast does not cross, nobody else tells that somebody new is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from caso_mesh.discovery.sighting import Sighting
from caso_mesh.identity.certificates import is_self_signed, public_key_of
from caso_mesh.identity.roster import Peer
from caso_mesh.identity.tls import unverified_client_context
from caso_mesh.model.errors import CasoError, PeerFault
from caso_mesh.model.ids import node_id
from caso_mesh.wire.network import ClientTls, Network
from caso_mesh.wire.typed import RefusesAll

log = logging.getLogger(__name__)

#: How often the list of addresses is looked at, and how long at most an address is left alone where nobody answered.
_EVERY_S, _LONGEST_PAUSE_S = 1.0, 15.0
#: How long it is left alone where a member of a mesh answered, to which we are a stranger.
_MEMBER_PAUSE_S = 600.0


async def newcomers_at(
    named: Callable[[], Sequence[str]], known: Callable[[], Collection[str]], network: Network
) -> AsyncIterator[Sighting]:
    """A sighting whenever a server that belongs to no mesh answers at one of the ``named`` addresses (HOST:PORT). Those
    that are ``known`` (of members, of who was found already) are left alone. Never ends."""
    pauses: dict[str, tuple[float, float]] = {}
    loop = asyncio.get_running_loop()
    while True:
        wanted = dict.fromkeys(named())
        pauses = {address: pause for address, pause in pauses.items() if address in wanted}
        skipped = known()
        for address in wanted:
            until, pause_s = pauses.get(address, (0.0, 1.0))
            if address in skipped or loop.time() < until:
                continue
            try:
                node = await _who_is_at(address, network)
            except (CasoError, ValueError) as error:
                log.debug("nobody new at %s: %s", address, error)
                pauses[address] = (loop.time() + pause_s, min(_LONGEST_PAUSE_S, 2 * pause_s))
                continue
            pauses[address] = (loop.time() + (_MEMBER_PAUSE_S if node is None else _LONGEST_PAUSE_S), 1.0)
            if node is not None:
                yield Sighting(None, node, address, (address,), "", address, "static")
        await asyncio.sleep(_EVERY_S)


async def _who_is_at(address: str, network: Network) -> str | None:
    """The node id of a server that belongs to no mesh, ``None`` of one that does. Raises ``CasoError``, ``ValueError``."""
    shown: list[bytes] = []

    def look(certificate: bytes | None) -> Peer:
        if certificate is None:
            raise PeerFault(peer=address, detail="it shows no certificate")
        shown.append(certificate)
        if not is_self_signed(certificate):
            raise PeerFault(peer=address, detail="it belongs to a mesh")
        return Peer(id=node_id(public_key_of(certificate)), name=address, kind="anonymous")

    tls = ClientTls(unverified_client_context)
    try:
        link = await network.dial(address, tls=tls, authorise=look, handler=RefusesAll())
    except PeerFault:
        if shown and not is_self_signed(shown[-1]):
            return None
        raise
    await link.close()
    return link.peer.id
