"""This server's journal, in the words of ``model.facts``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model.ids import IdSource
from caso_mesh.model.states import AlertKind

#: A place in the journal: an incarnation, and the number of a record in it.
Mark = tuple[str, int]


class FactWriter:
    """Appends facts; they are durable when a method returns."""

    def __init__(self, journal: Journal, new_id: IdSource) -> None:
        self._journal = journal
        self._new_id = new_id

    async def append(self, *new: facts.Fact) -> None:
        await self._journal.append([facts.encode(fact) for fact in new])

    async def mark(self) -> Mark:
        """Where the journal is now."""
        head = await self._journal.head()
        return head.incarnation, head.seq

    async def since(self, mark: Mark | None) -> AsyncIterator[facts.Fact | facts.UnknownFact]:
        """All facts appended after ``mark``, oldest first; everything for ``None`` or a place that is not known."""
        heads, floors = await self._journal.incarnations(), await self._journal.floors()
        places = [head.incarnation for head in heads]
        first = places.index(mark[0]) if mark is not None and mark[0] in places else 0
        for number, head in enumerate(heads[first:]):
            after = mark[1] if mark is not None and number == 0 and head.incarnation == mark[0] else 0
            after = max(after, floors.get(head.incarnation, 0))
            while after < head.seq:
                records = await self._journal.records(head.incarnation, after)
                if not records:
                    break
                for record in records:
                    yield facts.decode(record.kind, record.data)
                after = records[-1].seq

    async def alert(
        self, alert: AlertKind, category: str, text: str, *, object: str = "", fields: dict[str, Any] | None = None
    ) -> str:
        """Raises an alert; returns its id."""
        id_ = self._new_id()
        await self.append(facts.AlertRaised(id_, alert, category, text, object=object, fields=fields or {}))
        return id_
