"""Alerts of conditions."""

from __future__ import annotations

import asyncio
from typing import Any

from caso_mesh.admin.alarms import Alarms
from caso_mesh.model import facts
from caso_mesh.model.states import AlertKind


class SlowFacts:
    """A journal whose disk takes its time."""

    def __init__(self) -> None:
        self.all: list[str] = []

    async def append(self, *new: facts.Fact) -> None:
        await asyncio.sleep(0)
        self.all += [type(fact).__name__ for fact in new]

    async def alert(self, alert: AlertKind, category: str, text: str, **more: Any) -> str:
        await self.append(facts.AlertRaised("a", alert, category, text))
        return "a"


async def test_a_condition_that_two_see_begin_and_end_at_once_is_told_once() -> None:
    """A recovery kit was confirmed while the duty looked: both cleared the alert, and the command ended in a bug."""
    journal = SlowFacts()
    alarms = Alarms(tables=None, facts=journal, own="n", offices=tuple)  # type: ignore[arg-type]
    both = [alarms.begins(AlertKind.ATTENTION, "no-recovery-kit", "text", object="mesh") for _ in range(2)]
    await asyncio.gather(*both)
    assert alarms.standing("no-recovery-kit") == ["mesh"]
    await asyncio.gather(*(alarms.ends("no-recovery-kit", "mesh") for _ in range(2)))
    assert alarms.standing("no-recovery-kit") == []
    assert journal.all == ["AlertRaised", "AlertCleared"]
