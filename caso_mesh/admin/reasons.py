"""Keeping why runs wait, as facts: what the last plan says is gone with the next one, and with the office."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Facts
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.jobs import Waiting
from caso_mesh.model.states import RunState, WaitReason
from caso_mesh.planning import lifecycle

_SECOND = 1_000_000_000
_LOOK_EACH_S = 1.0
#: What is over sooner is not kept, so that a job that need not wait costs nothing here. The n-th change of a part's reason
#: is kept n times this after the one before, so that two reasons that take turns all night are a hundred facts.
_STANDS_S = 5.0
_AT_ONCE = 500
#: A place among a thousand devices is not told by all their names.
_MOST_NAMES = 8


class _Seen(Struct):
    """``told``: the reason that is kept. ``changes``: how many were."""

    reason: WaitReason
    since_ns: int
    not_before_s: float
    told: WaitReason | None = None
    changes: int = 0


class Reasons:
    """Compares the reasons of the last plan with what is kept, once a second. A reason is another one by its kind, not by
    the names in it: those that are told are of when it was kept."""

    def __init__(self, *, keeper: ControlKeeper, tables: Tables, live: Live, facts: Facts, clock: Clock) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._facts = facts
        self._clock = clock
        self._seen: dict[tuple[str, str], _Seen] = {}

    async def run(self) -> None:
        """Never returns."""
        await self._load()
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_EACH_S)

    async def _load(self) -> None:
        """What an earlier office has kept of waits that go on."""
        state, now_s = self._keeper.state, self._clock.monotonic_s()
        self._seen = {}
        for row in await self._tables.waits([run.id for run in state.open_runs()]):
            tried = (each.delegated_at_ns for each in state.attempts_of(row.run) if each.source == row.source)
            if max(tried, default=0) > row.since_ns:
                continue
            before = self._seen.get((row.run, row.source))
            reason, changes = row.waiting.reason, 1 if before is None else before.changes + 1
            # longer than the grace of an office, which is no news
            after_s = now_s + _STANDS_S * (changes + 1)
            self._seen[row.run, row.source] = _Seen(reason, row.since_ns, after_s, reason, changes)
        self._live.waits_since = {key: (seen.reason, seen.since_ns) for key, seen in self._seen.items()}

    async def _look(self) -> None:
        now_ns, now_s, waiting = self._clock.now_ns(), self._clock.monotonic_s(), self._live.waiting
        # not in the plan does not mean that it waits no more: a new office has not planned yet
        for key in [key for key in self._seen.keys() - waiting.keys() if not self._is_ready(*key)]:
            del self._seen[key]
            self._live.waits_since.pop(key, None)
        new: list[tuple[_Seen, facts.RunWaits]] = []
        for key, waits in waiting.items():
            seen = self._seen.get(key)
            if seen is None:
                seen = self._seen[key] = _Seen(waits.reason, now_ns, now_s + _STANDS_S)
                self._live.waits_since[key] = (seen.reason, seen.since_ns)
            elif seen.reason is not waits.reason:
                seen.reason, seen.since_ns = waits.reason, now_ns
                self._live.waits_since[key] = (seen.reason, seen.since_ns)
            if seen.told is not waits.reason and now_s >= seen.not_before_s:
                new.append((seen, facts.RunWaits(*key, waits.reason, seen.since_ns, _short(waits))))
        for start in range(0, len(new), _AT_ONCE):
            piece = new[start : start + _AT_ONCE]
            await self._facts.append(*(fact for _, fact in piece))
            for seen, fact in piece:
                seen.told, seen.changes = fact.reason, seen.changes + 1
                seen.not_before_s = now_s + _STANDS_S * seen.changes

    def _is_ready(self, run: str, source: str) -> bool:
        known = self._keeper.state.runs.get(run)
        part = None if known is None else lifecycle.part_of(known, source)
        return part is not None and part.state is RunState.READY


def _short(waits: Waiting) -> dict[str, Any]:
    """The fields of its text, without long lists of names."""
    return {name: _cut(value) if isinstance(value, list | tuple) else value for name, value in waits.fields.items()}


def _cut(names: list[Any] | tuple[Any, ...]) -> list[Any]:
    more = len(names) - _MOST_NAMES
    return [*names[:_MOST_NAMES], *([f"{more} more"] if more > 0 else [])]
