"""A backup that did not happen is an alert: selection lists whose newest good backup is older than they allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from caso_mesh.admin.ages import Age, ages
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.live import Live
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.clock import Clock
from caso_mesh.model.states import AlertKind
from caso_mesh.model.units import format_duration, format_instant

_EACH_S = 60.0
CATEGORY = "backup-overdue"


class Ageing:
    """One alert for each server of a list, which stands until there is a newer backup."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        alarms: Alarms,
        clock: Clock,
        doubtful: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._alarms = alarms
        self._clock = clock
        self._doubtful = doubtful

    async def run(self) -> None:
        """Never returns."""
        while True:
            if not self._doubtful():
                await self._look()
            await asyncio.sleep(_EACH_S)

    async def _look(self) -> None:
        state, now_ns, overdue = self._keeper.state, self._clock.now_ns(), set[str]()
        flaws = await flaws_of(state, self._tables, self._live)
        for age in await ages(state, self._tables, flaws, now_ns):
            if age.overdue(now_ns):
                overdue.add(await self._tell(age))
        for object_ in self._alarms.standing(CATEGORY):
            if object_ not in overdue:
                await self._alarms.ends(CATEGORY, object_)

    async def _tell(self, age: Age) -> str:
        """Raises the alert of a server of a list; what it is about."""
        name, newest = self._keeper.state.name_of(age.source), age.newest
        object_ = f"{name}:{age.selection.name}"
        last = f"ended at {format_instant(newest.ended_at_ns)}" if newest is not None else "never was"
        allowed = format_duration(age.allowed.seconds or 0.0)
        text = (
            f"The newest good backup of {name} for the selection list {age.selection.name} {last}: older than {allowed}"
        )
        if age.selection.oldest_good_s is None:
            text += f" ({age.allowed.origin})"
        await self._alarms.begins(AlertKind.ERROR, CATEGORY, text, object=object_)
        return object_
