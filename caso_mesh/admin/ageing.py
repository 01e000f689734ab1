"""A backup that did not happen is an alert: selection lists whose newest good backup is older than they allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.newest import newest_set
from caso_mesh.admin.tables import Tables
from caso_mesh.control.dues import backup_jobs
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.clock import Clock
from caso_mesh.model.policies import SelectionList
from caso_mesh.model.states import AlertKind
from caso_mesh.model.units import format_duration, format_instant

_EACH_S = 60.0
_SECOND = 1_000_000_000
CATEGORY = "backup-overdue"


class Ageing:
    """One alert for each server of a list, which stands until there is a newer backup."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        alarms: Alarms,
        clock: Clock,
        doubtful: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
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
        overdue: set[str] = set()
        for row in self._keeper.state.selection_lists():
            if row.oldest_good_s is not None:
                overdue |= await self._overdue(row, row.oldest_good_s)
        for object_ in self._alarms.standing(CATEGORY):
            if object_ not in overdue:
                await self._alarms.ends(CATEGORY, object_)

    async def _overdue(self, row: SelectionList, oldest_s: float) -> set[str]:
        state, found = self._keeper.state, set[str]()
        before_ns = self._clock.now_ns() - round(oldest_s * _SECOND)
        jobs = backup_jobs(state, row.id) | await self._tables.local_jobs(row.id)
        for source in row.servers():
            newest = await newest_set(state, self._tables, jobs, source)
            if (row.created_at_ns if newest is None else newest.ended_at_ns) >= before_ns:
                continue
            name = state.name_of(source)
            object_ = f"{name}:{row.name}"
            found.add(object_)
            last = f"ended at {format_instant(newest.ended_at_ns)}" if newest is not None else "never was"
            allowed = format_duration(oldest_s)
            text = f"The newest good backup of {name} for the selection list {row.name} {last}: older than {allowed}"
            await self._alarms.begins(AlertKind.ERROR, CATEGORY, text, object=object_)
        return found
