"""Alerts of the office: each told once, also when the office begins anew; those of a condition are cleared with it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection

from caso_mesh.admin.ports import Facts
from caso_mesh.admin.tables import Tables
from caso_mesh.model import facts
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import base32, local_id
from caso_mesh.model.states import AlertKind

log = logging.getLogger(__name__)


def occasion_id(category: str, occasion: str) -> str:
    """The id of the alert that ``Alarms.once`` raises."""
    return base32(hashlib.sha256(f"{category}\0{occasion}".encode()).digest())[:26]


class Alarms:
    """``own`` is the node id of the server in office: its journal carries them. ``offices``: the servers that were in office
    or may have been, whose alerts are this office's to end. ``alone``: it is the office of a server over its own work; what it
    tells of may be answered at that server, too."""

    def __init__(
        self, *, tables: Tables, facts: Facts, own: str, offices: Callable[[], Collection[str]], alone: bool = False
    ) -> None:
        self._alone = alone
        self._tables = tables
        self._facts = facts
        self._own = own
        self._offices = offices
        self._standing: dict[tuple[str, str], tuple[str, str]] = {}
        # A duty and a call may both see that a condition began or ended: it is told once.
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Which conditions an earlier office has told of already."""
        self._standing = await self._tables.standing_alerts({self._own, *self._offices()})

    async def once(
        self,
        occasion: str,
        kind: AlertKind,
        category: str,
        text: str,
        *,
        object: str,
        ending: str = "",
        at_ns: int | None = None,
    ) -> str:
        """Tells of something that happened; its id. ``occasion`` names it: the same one is told once. ``ending``: what its id
        ends with, for whoever has to find again what is alike. ``at_ns``: when it happened, if not now."""
        id_, servers = occasion_id(category, occasion), {self._own, *self._offices()}
        id_ = id_[: len(id_) - len(ending)] + ending
        told = await self._tables.has_alert(id_, servers)
        if self._alone:
            # an earlier version told it under an id without a place
            id_ = local_id(id_, self._own)
            told = told or await self._tables.has_alert(id_, servers)
        if not told:
            raised = facts.AlertRaised(id_, kind, category, text, object=object, happened_at_ns=at_ns or 0)
            await self._facts.append(raised)
        return id_

    async def begins(self, kind: AlertKind, category: str, text: str, *, object: str) -> None:
        """Tells of a condition, if that was not told yet."""
        async with self._changing:
            if (category, object) not in self._standing:
                id_ = await self._facts.alert(kind, category, text, object=object)
                self._standing[category, object] = (id_, self._own)

    async def ends(self, category: str, object: str) -> None:
        """A condition is over."""
        async with self._changing:
            told = self._standing.get((category, object))
            if told is not None:
                id_, server = told
                await self._facts.append(facts.AlertCleared(id_, of="" if server == self._own else server))
                del self._standing[category, object]

    async def over(self, id_: str, server: str) -> None:
        """What an alert told of is over. ``server``: the node id of the one that told of it."""
        await self._facts.append(facts.AlertCleared(id_, of="" if server == self._own else server))

    def standing(self, category: str) -> list[str]:
        """What stands in a category."""
        return sorted(object for found, object in self._standing if found == category)

    async def attempt(self, occasion: str, kind: AlertKind, category: str, text: str, *, object: str) -> None:
        """As ``once``; if even that fails, the daemon's own log has to do."""
        try:
            await self.once(occasion, kind, category, text, object=object)
        except CasoError as error:
            log.error("no alert could be raised (%s): %s", error, text)

    async def attempt_begins(self, kind: AlertKind, category: str, text: str, *, object: str) -> None:
        """As ``begins``; if even that fails, the daemon's own log has to do, and it is begun the next time."""
        try:
            await self.begins(kind, category, text, object=object)
        except CasoError as error:
            log.error("no alert could be raised (%s): %s", error, text)

    async def attempt_ends(self, category: str, object: str) -> None:
        """As ``ends``; if that fails, the alert stands until the next time."""
        try:
            await self.ends(category, object)
        except CasoError as error:
            log.error("the end of an alert could not be told (%s): %s %s", error, category, object)
