"""News that a server took the mesh over by hand: who is linked hears of it, the one who was in office above all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from caso_mesh.model.mesh import Claim
from caso_mesh.server.bearings import Bearings
from caso_mesh.server.links import LinkBook
from caso_mesh.server.trust import Trust

log = logging.getLogger(__name__)


class Takeovers:
    """``on_claim`` is told of each, with the name of the server."""

    def __init__(self, bearings: Bearings, trust: Trust) -> None:
        self._bearings = bearings
        self._trust = trust
        self._known = bearings.claim()
        self._news = asyncio.Event()
        self.on_claim: Callable[[Claim, str], None] = lambda claim, name: None

    def heard(self, claim: Claim | None) -> None:
        """What a peer said of it, when it greeted."""
        if claim is not None and self._bearings.believe(claim):
            self.look()

    def look(self) -> None:
        """Something was learnt, by a greeting or by orders."""
        claim = self._bearings.claim()
        if claim is None or claim == self._known:
            return
        self._known = claim
        name = self._trust.name_of(claim.node)
        log.warning("%s took the mesh over by hand, in lineage %s", name, claim.lineage)
        self.on_claim(claim, name)
        self._news.set()

    async def spread(self, links: LinkBook) -> None:
        """Greets everybody who is linked again, at each news. Never returns."""
        while True:
            await self._news.wait()
            self._news.clear()
            await links.prove()
