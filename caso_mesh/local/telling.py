"""Telling the administrator, by the journal, of the runs that this server runs by itself."""

from __future__ import annotations

from msgspec import structs

from caso_mesh.admin.ports import Facts
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import facts
from caso_mesh.model.jobs import Attempt, Run

_AT_ONCE = 50


class TellingRuns:
    """A run is told of as it is, whenever it has changed; the last word counts."""

    def __init__(self, *, keeper: ControlKeeper, tables: Tables, facts: Facts, own: str) -> None:
        self._keeper = keeper
        self._tables = tables
        self._facts = facts
        self._own = own
        self._told: dict[str, tuple[Run, tuple[Attempt, ...]]] = {}

    async def run(self) -> None:
        """Never returns."""
        known = {fact.run.id: fact for _, fact in await self._tables.local_runs(self._own)}
        for run in self._keeper.state.runs.values():
            if known.get(run.id) == self._fact(run):
                self._told[run.id] = (run, tuple(self._keeper.state.attempts_of(run.id)))
        async for _ in self._keeper.changes():
            await self._tell()

    async def _tell(self) -> None:
        state = self._keeper.state
        for gone in self._told.keys() - state.runs.keys():
            del self._told[gone]
        changed = [run for run in state.runs.values() if self._is_news(run)]
        for start in range(0, len(changed), _AT_ONCE):
            piece = [(run, tuple(state.attempts_of(run.id))) for run in changed[start : start + _AT_ONCE]]
            await self._facts.append(*(self._fact(run) for run, _ in piece))
            self._told.update((run.id, (run, attempts)) for run, attempts in piece)

    def _is_news(self, run: Run) -> bool:
        told = self._told.get(run.id)
        return told is None or told[0] is not run or told[1] != tuple(self._keeper.state.attempts_of(run.id))

    def _fact(self, run: Run) -> facts.LocalRun:
        attempts = (structs.replace(each, secret=b"") for each in self._keeper.state.attempts_of(run.id))
        job = self._keeper.state.jobs.get(run.job)
        listed = job.origin.list if job is not None and job.origin is not None else ""
        return facts.LocalRun(run, tuple(attempts), listed)
