"""People are told of ways on which large packets are lost: all works, more slowly, and nobody else would notice."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress

from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CannotConnect, CasoError
from caso_mesh.model.facts import AlertCleared
from caso_mesh.model.states import AlertKind
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.trust import Trust
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.link import Handler, Link
from caso_mesh.wire.network import ClientTls, Network
from caso_mesh.wire.segments import SILENT_S

log = logging.getLogger(__name__)

CATEGORY = "large-packets-lost"
#: The first look comes after so long: when thousands come back at once, who answers is busy, and they need not all dial twice.
_FIRST_S = (5.0, 60.0)
#: Between two looks whether large packets come through again where small ones are sent.
_AGAIN_S = 600.0


async def nothing_of_packets(link: Link) -> None:
    """Watches nothing."""


class Packets:
    """Tells of large packets that are lost between ``server`` and those that it dials."""

    def __init__(
        self,
        *,
        network: Network,
        trust: Trust,
        handler: Handler,
        limits: Limits,
        facts: FactWriter,
        server: str,
        clock: Clock,
        jitter: random.Random,
    ) -> None:
        self._jitter = jitter
        self._network = network
        self._trust = trust
        self._handler = handler
        self._limits = limits
        self._facts = facts
        self._server = server
        self._clock = clock

    async def watch(self, link: Link) -> None:
        """Tells, as long as a link lasts that has small packets for it. Another dial with large ones has to fail as well: the
        peer may only have been too busy."""
        peer, address = link.peer.name, link.remote_address
        wait_s = self._jitter.uniform(*_FIRST_S) if link.segment_bytes is not None else 0.0
        while wait_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await link.wait_closed()
            if link.closed:
                break
            lost = await self._lost(address)
            if lost and not link.closed:
                await self._tell(peer, address, lost=True)
            wait_s = 0.0 if lost is False else _AGAIN_S
        await self._tell(peer, address, lost=False)

    async def _lost(self, address: str) -> bool | None:
        """Whether large packets are lost; ``None`` if it cannot be told."""
        began_s = self._clock.monotonic_s()
        try:
            link = await self._network.dial(
                address, tls=ClientTls(self._trust.client_tls), authorise=self._trust.authorise,
                handler=self._handler, limits=self._limits, whole=True,
            )  # fmt: skip
        except CannotConnect:
            return True if self._clock.monotonic_s() - began_s >= SILENT_S else None
        except CasoError as error:
            log.debug("dialling %s with large packets: %s", address, error)
            return None
        await link.close()
        return False

    async def _tell(self, peer: str, address: str, *, lost: bool) -> None:
        standing = (await self._facts.alerts()).standing(CATEGORY, peer, AlertKind.WARNING)
        if lost is (standing is not None):
            return
        way = f"between {self._server} and {peer} ({address})"
        text = f"Large packets are lost {way}; smaller ones are sent, which come through"
        if lost:
            log.warning("%s", text)
        else:
            log.info("large packets are not lost any more %s", way)
        try:
            if standing is not None:
                await self._facts.append(AlertCleared(standing))
            else:
                await self._facts.alert(AlertKind.WARNING, CATEGORY, text, object=peer)
        except CasoError as error:
            log.error("%s (%s)", text, error)  # the disk is full: told when it is looked at again
