"""The only server that the own work of a server knows: itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import ServerNotLinked, UnknownCall
from caso_mesh.model.states import AlertKind
from caso_mesh.server.facts import held_piece
from caso_mesh.server.node import ServerNode
from caso_mesh.server.paths import check_paths
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.typed import Callee

log = logging.getLogger(__name__)


class Itself:
    """What the duties of an office ask of a server, answered without a link: who asks is this server."""

    def __init__(self, node: ServerNode) -> None:
        self._node = node
        self.peer: Peer = node.own()

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        if method == "path.check":
            return to_wire(await check_paths(self._node, from_wire(params or {}, n.PathCheck)))
        if method == "attempt.held":
            return to_wire(await held_piece(self._node.facts, from_wire(params or {}, n.AttemptHeld)))
        raise UnknownCall(peer=self.peer.name, call=method, detail="the own work of a server asks nothing of the kind")

    async def notify(self, method: str, params: Any = None) -> None:
        if method == "attempt.watch":
            asked = from_wire(params or {}, n.WatchAttempts)
            await self._node.attempts.watch(asked.attempts, asked.for_s)


class OwnLinks:
    """As the links of an office; nobody else is ever linked."""

    def __init__(self, node: ServerNode) -> None:
        self._own = node.keys.id
        self._itself = Itself(node)

    def get(self, node: str) -> Callee:
        """Raises ``ServerNotLinked``."""
        if node != self._own:
            raise ServerNotLinked(server=node)
        return self._itself

    def linked(self, node: str) -> bool:
        return node == self._own

    def nodes(self) -> list[str]:
        return []

    def observe(self, observer: Callable[[str, bool], None]) -> Callable[[], None]:
        return lambda: None

    def greeting_of(self, node: str) -> Any:
        return None

    async def clock_offset_s(self, node: str) -> float:
        """Raises ``ServerNotLinked``."""
        self.get(node)
        return 0.0

    async def wait_for(self, node: str, timeout_s: float) -> Callee:
        return self.get(node)


class Unheard:
    """Where what a server finds wrong in its own journal goes: it would only report itself."""

    async def append(self, *new: facts.Fact) -> None:
        log.debug("of the own journal: %s", new)

    async def alert(
        self, alert: AlertKind, category: str, text: str, *, object: str = "", fields: dict[str, Any] | None = None
    ) -> str:
        log.debug("of the own journal: %s", text)
        return ""
