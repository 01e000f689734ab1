"""Two machines with one key: a state folder, or a whole virtual machine, that was copied and runs twice.

Each daemon names itself anew when it starts. Who is linked stays: one that greets with the same key and another name is
believed to be the same server, started again, only if the one that is linked does not answer any more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError, IdentityInUse
from caso_mesh.model.nodes import HelloReply, HelloRequest, Twin
from caso_mesh.wire.link import Link

log = logging.getLogger(__name__)

#: How long the one that is linked may take to answer, when another one says to be it.
ANSWER_S = 3.0
#: For so long it is told that a second one was there: it dials again and again, but rarely where many are to be dialled.
TOLD_FOR_S = 900.0
#: Of those that were turned away so many are told.
_MOST = 20


class Twins:
    """``instance`` is the name of this daemon. ``greet(link)`` asks a peer who it is, once more."""

    def __init__(self, instance: str, clock: Clock) -> None:
        self.instance = instance
        self._clock = clock
        #: Somebody was turned away.
        self.on_news: Callable[[], None] = lambda: None
        self._turned_away: dict[str, tuple[str, float]] = {}
        self._refused: dict[str, IdentityInUse] = {}

    # --- of others ---

    async def check(
        self,
        link: Link,
        hello: HelloRequest | HelloReply,
        held: Link | None,
        known: HelloRequest | HelloReply | None,
        greet: Callable[[Link], Awaitable[HelloReply]],
    ) -> None:
        """``hello`` came over ``link`` from a node that is linked by ``held``, where it had said ``known``. Raises
        ``IdentityInUse`` if these are two daemons."""
        if held is None or held is link or held.closed or known is None:
            return
        if not hello.instance or known.instance in {"", hello.instance}:
            return  # the same one, or one of a version that does not say
        try:
            there = (await greet(held)).instance == known.instance
        except CasoError as error:
            log.debug("%s is there anew: its old link leads nowhere (%s)", link.peer.name, error)
            return
        if not there:
            return
        address = str(link.remote_address)
        news = link.peer.id not in self._turned_away
        if news:
            log.error("two machines run with the key of %s: %s and %s", link.peer.name, held.remote_address, address)
        self._turned_away[link.peer.id] = (address, self._clock.monotonic_s())
        if news:
            self.on_news()
        raise IdentityInUse(server=link.peer.name, address=str(held.remote_address))

    def seen(self) -> tuple[Twin, ...]:
        """Whose second daemon was turned away here lately."""
        since_s = self._clock.monotonic_s() - TOLD_FOR_S
        self._turned_away = {node: seen for node, seen in self._turned_away.items() if seen[1] >= since_s}
        return tuple(Twin(node, address) for node, (address, _) in sorted(self._turned_away.items()))[:_MOST]

    # --- of this server ---

    def refused(self, by: str, error: IdentityInUse) -> None:
        """The peer ``by`` says that this daemon is the second one."""
        if by not in self._refused:
            log.error("%s", error)
        self._refused[by] = error

    def accepted(self, by: str) -> None:
        """The peer ``by`` works with this daemon."""
        self._refused.pop(by, None)

    def of_this_server(self, voters: set[str]) -> IdentityInUse | None:
        """What somebody of ``voters`` says who turned this daemon away."""
        return next((self._refused[by] for by in sorted(self._refused) if by in voters), None)
