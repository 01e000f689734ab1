"""This server becomes a voter: its end of it. The seat itself, log and tables, is the daemon's."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from caso_mesh.identity.certificates import public_key_of
from caso_mesh.identity.roster import Peer
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import telling as t
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CasoError, Misuse, Refused, StateDamaged, StateMissing, TakenOver, Unavailable
from caso_mesh.model.facts import AlertRaised
from caso_mesh.model.ids import SHORT_NODE_ID, local_id
from caso_mesh.model.states import AlertKind
from caso_mesh.model.views import Done
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.links import LinkBook
from caso_mesh.wire.codec import to_wire

log = logging.getLogger(__name__)


class Seating:
    """``prepare(make)`` calls ``make``, which gives the public key of a seat's issuing key, while the seat is not being
    changed. ``take(request, accept)`` opens the seat, once ``accept`` has put the issuing certificate in place; repeated,
    nothing happens. ``hear`` is given each message of the replicated log: the node id of its sender, its lineage, its bytes."""

    def __init__(
        self,
        *,
        identity: IdentityStore,
        is_admin: Callable[[str], bool],
        root: Callable[[], bytes],
        prepare: Callable[[Callable[[], bytes]], Awaitable[bytes]],
        take: Callable[[t.VoterBecome, Callable[[], None]], Awaitable[None]],
        hear: Callable[[str, int, bytes], None],
        randomness: Randomness,
    ) -> None:
        self._identity = identity
        self._is_admin = is_admin
        self._root = root
        self._prepare_alone = prepare
        self._take = take
        self._hear = hear
        self._randomness = randomness

    def handlers(self) -> dict[str, Callable[[Peer, Any, Any], Awaitable[Any]]]:
        return {
            "voter.prepare": self._prepare,
            "voter.become": self._become,
            "consensus.message": self._message,
        }

    def _only_admin(self, peer: Peer) -> None:
        if not self._is_admin(peer.id):
            raise Refused(detail=f"{peer.name} is not the administrator")

    async def _prepare(self, peer: Peer, request: t.VoterPrepare, link: Any) -> t.VoterPrepared:
        self._only_admin(peer)
        return t.VoterPrepared(await self._prepare_alone(self._key))

    def _key(self) -> bytes:
        held = self._held()
        return public_key_of(held) if held is not None else self._identity.prepare_issuing(self._randomness)

    def _held(self) -> bytes | None:
        """The issuing certificate (DER) that is here already."""
        try:
            return self._identity.load_authority().issuing
        except StateMissing:
            return None

    def _accept(self, request: t.VoterBecome) -> None:
        if self._held() == request.issuing:
            return
        try:
            self._identity.accept_issuing(request.root, request.issuing)
        except Misuse:
            # orders that took an earlier seat away came in between, and its key went with it: a new one is asked for
            raise Unavailable(what="The key of this seat") from None

    async def _become(self, peer: Peer, request: t.VoterBecome, link: Any) -> Done:
        self._only_admin(peer)
        if request.root != self._root():
            raise Refused(detail=f"{peer.name} named another root than that of the mesh")
        await self._take(request, lambda: self._accept(request))
        return Done()

    async def _message(self, peer: Peer, request: t.ConsensusMessage, link: Any) -> Done:
        self._hear(peer.id, request.lineage, request.data)
        return Done()


async def tell_member(links: LinkBook, node: str, lineage: int, data: bytes) -> bool:
    """Sends a message of the replicated log to another member of it; whether there was a link to send it by."""
    try:
        await links.get(node).notify("consensus.message", to_wire(t.ConsensusMessage(lineage, data)))
    except CasoError as error:
        log.debug("to the voter %s: %s", node[:SHORT_NODE_ID], error)
        return False
    return True


async def tell_lost(facts: FactWriter, name: str, node: str, error: BaseException) -> None:
    """An alert of a server (its name and node id) that cannot take part in the log any more."""
    text = f"{name} takes part in no decision of the mesh any more: {error}"
    if isinstance(error, TakenOver):
        # told once, however often it is started before the one that took over reaches it
        id_ = local_id(f"voter-lost-{error.fields['lineage']}", node)
        await facts.append(AlertRaised(id_, AlertKind.WARNING, "voter-lost", text, object=name))
    else:
        await facts.alert(AlertKind.ERROR, "voter-lost", text, object=name)


async def tell_damaged(facts: FactWriter, name: str, error: StateDamaged, aside: Path) -> None:
    """An alert of a server (its name) whose replica was damaged and lies ``aside`` now."""
    text = (
        f"{error.fields['path']} of {name} was damaged, {error.fields['detail']}: it is {aside} now. What it "
        "held comes from another voter, or from the journals of the servers; what only it held is lost"
    )
    await facts.alert(AlertKind.ERROR, "tables-damaged", text, object=name)
