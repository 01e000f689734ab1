"""Keeping this server's certificate, and that of its local operator, alive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from caso_mesh.identity import certificates
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import authorise
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError, PeerFault, StateDamaged
from caso_mesh.server.trust import Trust
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

#: How often it is looked whether a certificate is due; again when it was, and was not renewed.
RENEW_EACH_S, _SOON_S = 3600.0, 5.0


class Renewal:
    """Asks when two thirds of the certificate's life are over or it has not begun, or when what issued it was rotated away. ``revived`` is
    called when one was renewed that had expired: to the peers of all links this server is one that may only renew it."""

    def __init__(
        self,
        *,
        keys: NodeKeys,
        identity: IdentityStore,
        trust: Trust,
        clock: Clock,
        revived: Callable[[], Awaitable[None]],
    ) -> None:
        self._keys = keys
        self._identity = identity
        self._trust = trust
        self._clock = clock
        self._revived = revived
        self._life: certificates.Life | None = None
        self._issuer = b""
        self._lock = asyncio.Lock()
        #: Until then the clock of this server is the one that is behind: another certificate would not have begun either.
        self._ahead_until_s = 0.0

    async def _due(self) -> bool:
        if self._life is None:
            chain = await asyncio.to_thread(self._identity.load_chain)
            self._life, self._issuer = certificates.life(chain[0]), chain[1] if len(chain) > 1 else b""
        roster = self._trust.roster
        if roster is not None and any(a.certificate == self._issuer and a.rotated for a in roster.anchors):
            return True
        third = (self._life.not_after_ns - self._life.not_before_ns) // 3
        if self._clock.now_ns() >= self._life.not_after_ns - third:
            return True
        # one that begins only later was given by a clock that was ahead, and would be believed for longer than it should
        return not self._begun() and self._clock.monotonic_s() >= self._ahead_until_s

    def _begun(self) -> bool:
        return self._life is None or self._life.not_before_ns <= self._clock.now_ns()

    async def keep(self, link: Callable[[], Awaitable[Callee]]) -> None:
        """Keeps the certificates alive, by the link with the administrator. Never returns."""
        while True:
            anchors = self._trust.anchors_changed
            pause_s = RENEW_EACH_S
            try:
                await self.renew(await link())
                # what is due and was not given is asked for again soon: an authority that is rotated does not wait
                if await self._due():
                    pause_s = _SOON_S
            except CasoError as error:
                log.warning("the certificate could not be renewed: %s", error)
            try:
                async with asyncio.timeout(pause_s):
                    await anchors.wait()
            except TimeoutError:
                continue

    async def renew(self, link: Callee) -> None:
        """Asks ``link`` for new certificates if they are due. A peer that cannot give any (it is not in office) is no
        matter: it may know who is, and the next one is asked.

        Raises ``LinkLost`` and the like only, never for what the peer answered.
        """
        async with self._lock:
            if not await self._due():
                return
            try:
                await self._take(await ask(link, "identity.renew", q.Nothing(), n.RenewReply, timeout_s=10.0))
            except (CasoError, OSError, ValueError) as error:
                log.info("the certificate of this server could not be renewed: %s", error)

    async def _take(self, reply: n.RenewReply) -> None:
        roster = self._trust.roster
        if roster is None or not reply.certificate:
            raise PeerFault(peer="the administrator", detail="it sent no certificate")
        # one that nobody would believe must not replace one that may still be good
        peer = authorise(roster, reply.certificate[0], now_ns=self._clock.now_ns())
        if peer.id != self._keys.id or peer.expired:
            raise PeerFault(peer="the administrator", detail="it sent the certificate of another, or an old one")
        await asyncio.to_thread(self._store, reply)
        expired = self._life is not None and self._clock.now_ns() > self._life.not_after_ns
        self._life = certificates.life(reply.certificate[0])
        if not self._begun():
            self._ahead_until_s = self._clock.monotonic_s() + RENEW_EACH_S
        self._life = None  # it is read again
        self._trust.renewed()
        log.info("the certificate of this server was renewed")
        if expired:
            await self._revived()

    def _store(self, reply: n.RenewReply) -> None:
        self._identity.save_chain(reply.certificate)
        if not reply.operator_certificate:
            return
        operator = self._identity.load_operator().key
        if certificates.public_key_of(reply.operator_certificate[0]) != operator.public_key:
            raise StateDamaged(path=self._identity.operator_key_path, detail="the mesh knows another operator's key")
        self._identity.write_operator(operator, reply.operator_certificate)
