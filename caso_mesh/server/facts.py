"""This server's journal, in the words of ``model.facts``."""

from __future__ import annotations

from typing import Any

from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model.ids import IdSource
from caso_mesh.model.states import AlertKind


class FactWriter:
    """Appends facts; they are durable when a method returns."""

    def __init__(self, journal: Journal, new_id: IdSource) -> None:
        self._journal = journal
        self._new_id = new_id

    async def append(self, *new: facts.Fact) -> None:
        await self._journal.append([facts.encode(fact) for fact in new])

    async def alert(
        self, alert: AlertKind, category: str, text: str, *, object: str = "", fields: dict[str, Any] | None = None
    ) -> str:
        """Raises an alert; returns its id."""
        id_ = self._new_id()
        await self.append(facts.AlertRaised(id_, alert, category, text, object=object, fields=fields or {}))
        return id_
