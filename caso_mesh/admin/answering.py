"""Alerts that nobody answers are answered after a time, where a setting says so: the list shows what still matters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from caso_mesh.admin.ports import Facts, Submit
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import facts
from caso_mesh.model.alerts import AUTOMATIC, BY_NAME
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import AnswerAlert
from caso_mesh.model.settings import Value, parse_answer_after, text

log = logging.getLogger(__name__)

_LOOK_S = 60.0
_SECOND = 1_000_000_000


class Answering:
    """A duty of the office. Not by a clock that is in doubt."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        facts: Facts,
        submit: Submit,
        clock: Clock,
        doubtful: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._facts = facts
        self._submit = submit
        self._clock = clock
        self._doubtful = doubtful

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._doubtful():
                await self.look()

    async def look(self) -> int:
        """One round; how many were answered."""
        count = 0
        for row in await self._tables.alerts():
            if row.cleared_at_ns is None and row.id not in self._keeper.state.answers and self._is_due(row):
                await self._answer(row)
                count += 1
        return count

    def _is_due(self, row: AlertRow) -> bool:
        """One that stands is over with its condition, and one that waits for a person waits."""
        known = BY_NAME.get(row.category)
        if known is None or known.standing or not known.response:
            return False
        after = parse_answer_after(text(self._settings(row.server), "alert-answer-after"))
        limit_s = after.get(row.category, after.get(row.alert))
        return limit_s is not None and self._clock.now_ns() - row.raised_at_ns >= limit_s * _SECOND

    def _settings(self, server: str) -> dict[str, Value]:
        state = self._keeper.state
        return state.settings_of(server) if server in state.servers else state.settings_of_mesh()

    async def _answer(self, row: AlertRow) -> None:
        response = BY_NAME[row.category].response
        command = AnswerAlert(row.id, response, self._clock.now_ns())
        result = await self._submit(command, who=AUTOMATIC, request_id=f"automatic-{row.id}")
        if not result["first"]:
            return
        fields = {"id": row.id, "category": row.category, "response": response}
        await self._facts.append(facts.Audit(AUTOMATIC, "alert.answer", "alert", fields=fields))
        log.info("the alert %s (%s) was answered by nobody", row.id, row.category)
