"""What servers hold back of job logs and history, as the settings of forwarding say: asked of them when somebody looks."""

from __future__ import annotations

import logging

from caso_mesh.admin.ports import Links
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import nodes as n
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import CasoError
from caso_mesh.model.facts import LogLine
from caso_mesh.model.jobs import Attempt
from caso_mesh.model.settings import AT_END, AT_ONCE, text
from caso_mesh.model.states import ATTEMPT_ACTIVE
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_ASK_S = 5.0
#: How many lines of one attempt are shown at most.
_MOST_LINES = 20_000


class Held:
    """Asks the servers of an attempt that are linked."""

    def __init__(self, *, keeper: ControlKeeper, links: Links) -> None:
        self._keeper = keeper
        self._links = links

    async def lines(self, attempt: Attempt, only: frozenset[str] | None = None) -> tuple[list[LogLine], list[str]]:
        """Lines that no journal has told of, and the names of servers that may have more and cannot be asked. ``only``: of
        these servers (node ids)."""
        found, away = list[LogLine](), list[str]()
        for server in dict.fromkeys((attempt.server, attempt.other)):
            if (only is not None and server not in only) or not self._may_hold(attempt, server, "joblog-forwarding"):
                continue
            more = True
            begin = len(found)
            while more and len(found) < _MOST_LINES:
                piece = await self._ask(server, n.AttemptHeld(attempt.id, len(found) - begin))
                if piece is None:
                    away.append(self._keeper.state.name_of(server))
                    break
                found += piece.lines
                more = piece.more and bool(piece.lines)
        return found, away

    async def beyond(self, attempt: Attempt, server: str, seen: int, limit: int) -> tuple[list[LogLine], bool]:
        """At most ``limit`` lines that one server (node id) holds back, behind ``seen`` of them; and whether it may hold more
        and cannot be asked."""
        found = list[LogLine]()
        if not self._may_hold(attempt, server, "joblog-forwarding"):
            return found, False
        more = True
        while more and len(found) < limit:
            piece = await self._ask(server, n.AttemptHeld(attempt.id, seen + len(found)))
            if piece is None:
                return found, True
            found += piece.lines
            more = piece.more and bool(piece.lines)
        return found[:limit], False

    async def exceptions(self, attempt: Attempt) -> tuple[list[SourceException], list[str]]:
        """As ``lines``. The end of the device tells of exceptions."""
        if not self._may_hold(attempt, attempt.server, "history-forwarding"):
            return [], []
        piece = await self._ask(attempt.server, n.AttemptHeld(attempt.id))
        return ([], [self._keeper.state.name_of(attempt.server)]) if piece is None else (list(piece.exceptions), [])

    def _may_hold(self, attempt: Attempt, server: str, setting: str) -> bool:
        state = self._keeper.state
        if server not in state.servers:
            return False
        forwarding = text(state.settings_of(server), setting)
        return forwarding != AT_ONCE and not (forwarding == AT_END and attempt.state not in ATTEMPT_ACTIVE)

    async def _ask(self, server: str, request: n.AttemptHeld) -> n.HeldPiece | None:
        """``None``: it cannot be asked now."""
        try:
            return await ask(self._links.get(server), "attempt.held", request, n.HeldPiece, timeout_s=_ASK_S)
        except CasoError as error:
            log.info("what %s holds back of %s: %s", self._keeper.state.name_of(server), request.attempt, error)
            return None
