"""What is known of the sets, put before ``planning.retention``: which go, and why each other stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.live import Live
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model.clock import Clock
from caso_mesh.model.jobs import Job, SyntheticSpec
from caso_mesh.model.storage import BackupSet
from caso_mesh.planning.choosing import Flaws
from caso_mesh.planning.retention import Line, Verdict, judge

#: So many sets are judged without a thread.
_AT_ONCE = 1000


class Retaining:
    """Nothing is remembered: each question is answered by what is known now. ``away``: whether nobody reaches a device
    (id) now."""

    def __init__(
        self, *, keeper: ControlKeeper, tables: Tables, live: Live, clock: Clock, away: Callable[[str], bool]
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._clock = clock
        self._away = away

    def redundant(self) -> set[str]:
        """The ids of sets of attempts that were not needed."""
        return {each for ids in self._live.redundant.values() for each in ids}

    async def flaws(self) -> Flaws:
        """All that is known against sets."""
        return await flaws_of(self._keeper.state, self._tables, self._live)

    def away(self, sets: Iterable[BackupSet]) -> set[str]:
        """Of the devices (ids) of some sets those that nobody reaches now."""
        return {device for device in {each.device for each in sets} if self._away(device)}

    async def verdicts(self, sets: Collection[BackupSet], away: Collection[str]) -> dict[str, Verdict]:
        """``sets`` are all that there are of their lines. ``away``: devices (ids) that nobody reaches; what lies there is
        judged as if they were here."""
        state = self._keeper.state
        media_sets = {each.name: each for each in state.media_set_list()}
        media = {(medium.server, medium.label): medium for medium in await self._tables.media()}
        locks, flaws = await self._tables.locks(), await self.flaws()
        redundant = flaws.missing | flaws.redundant
        line, now_ns = line_of(state), self._clock.now_ns()
        imported = {device.id for device in state.device_list() if device.imported is not None}
        lines: dict[str, Line] = {}
        for number, each in enumerate(sets):
            lines[each.id] = line(each)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)  # others are answered meanwhile

        def judged(away: Collection[str]) -> dict[str, Verdict]:
            return judge(
                sets,
                media_sets=media_sets,
                media=media,
                locks=locks,
                redundant=redundant,
                damaged=flaws.damaged,
                away=away,
                imported=imported,
                line_of=lambda each: lines[each.id],
                now_ns=now_ns,
            )

        def all_judged() -> dict[str, Verdict]:
            found = judged(away)
            if away:
                back = judged(())
                found.update((each.id, back[each.id]) for each in sets if each.device in away)
            return found

        # ten thousand sets take some 60 ms, for which nobody else should wait
        return all_judged() if len(sets) <= _AT_ONCE else await asyncio.to_thread(all_judged)


def listed_by(job: Job | None) -> str:
    """The selection list (id) that a job's sets are of; empty for none."""
    if job is None:
        return ""
    if job.origin is not None:
        return job.origin.list
    return job.spec.list if isinstance(job.spec, SyntheticSpec) else ""


def line_of(state: ControlState) -> Callable[[BackupSet], Line]:
    """The line that a set belongs to. A set whose job is gone counts as one of a job without a list: that may keep one
    too many, never one too few. Copies on another device are a line of their own there."""
    zones: dict[str, str] = {}
    for job in state.job_list():
        if job.origin is not None and job.schedule is not None:
            # what starts because something else ended has no schedule of its own
            zones.setdefault(job.origin.list, job.schedule.zone)
    origins: dict[str, str] = {}

    def line(backup: BackupSet) -> Line:
        source = origins.get(backup.source)
        if source is None:
            source = origins[backup.source] = state.origin_of(backup.source)
        job = state.jobs.get(backup.job)
        copied = () if backup.copy_of is None else ("copy", backup.device)
        zone = job.schedule.zone if job is not None and job.schedule is not None else "UTC"
        listed = listed_by(job)
        if job is None or not listed:
            return Line((*copied, "roots", source, *(root.hex() for root in backup.roots)), zone)
        return Line((*copied, "list", listed, source), zones.get(listed, zone) if job.schedule is None else zone)

    return line
