"""Opening the runs of recurring jobs when they are due, and closing those that could not start in their window."""

from __future__ import annotations

import asyncio
import logging

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Submit
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.clock import Calendar, Clock
from caso_mesh.model.commands import CloseRun, OpenRun
from caso_mesh.model.errors import CasoError, NotFound
from caso_mesh.model.jobs import CronSchedule, Job
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind, JobState, RunState
from caso_mesh.planning.schedule import next_due_ns
from caso_mesh.planning.window import missed_sources

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_HOUR = 3600 * _SECOND
#: How far back the latest of many missed due times is looked for, nearest first.
_BACK = (_HOUR, 24 * _HOUR, 32 * 24 * _HOUR, 400 * 24 * _HOUR)
#: A wall clock that moves by more than this against the monotonic one has been set.
_JUMP_S = 30.0
#: For so long after that nothing is opened: a clock that was set wrong is often set right at once.
_DOUBT_S = 60.0
_LONGEST_WAIT_S = 30.0


def latest_due_ns(schedule: CronSchedule, after_ns: int, now_ns: int) -> int | None:
    """The last due time beyond ``after_ns`` that is not in the future, however many passed."""
    for back in (*_BACK, now_ns):
        start = max(after_ns, now_ns - back)
        found = None
        due = next_due_ns(schedule, start)
        while due is not None and due <= now_ns:
            found, due = due, next_due_ns(schedule, due)
        if found is not None or start == after_ns:
            return found
    return None


class DueRuns:
    """``doubtful`` says whether the wall clock was set a short while ago."""

    def __init__(
        self, *, keeper: ControlKeeper, live: Live, submit: Submit, alarms: Alarms, clock: Clock, calendar: Calendar
    ) -> None:
        self._keeper = keeper
        self._live = live
        self._submit = submit
        self._alarms = alarms
        self._clock = clock
        self._calendar = calendar
        self._next: dict[str, tuple[CronSchedule, int, int | None]] = {}
        self._offset_s = self._now_offset_s()
        self._doubt_until_s = 0.0

    def next_due_ns(self, job: Job) -> int | None:
        """When a recurring, active job is due next."""
        if job.schedule is None or job.state is not JobState.ACTIVE:
            return None
        after = job.last_due_at_ns or job.created_at_ns
        known = self._next.get(job.id)
        if known is None or known[:2] != (job.schedule, after):
            known = self._next[job.id] = (job.schedule, after, next_due_ns(job.schedule, after))
        return known[2]

    @property
    def doubtful(self) -> bool:
        return self._clock.monotonic_s() < self._doubt_until_s

    async def open(self) -> None:
        """Opens a run for each due time that has come. Never returns.

        Of several due times that passed while nobody was in office only the latest is opened.
        """
        while True:
            await self._look_at_clock()
            soonest_s = _LONGEST_WAIT_S
            if not self.doubtful:
                soonest_s = await self._open_all()
            seen = self._keeper.position.index
            try:
                async with asyncio.timeout(max(0.01, min(soonest_s, _LONGEST_WAIT_S))):
                    await self._keeper.wait_change(seen)
            except TimeoutError:
                continue

    async def _open_all(self) -> float:
        """Seconds until the next due time."""
        soonest_s = _LONGEST_WAIT_S
        jobs = self._keeper.state.job_list()
        for gone in self._next.keys() - {job.id for job in jobs}:
            del self._next[gone]
        for job in jobs:
            now_ns = self._calendar.now_ns()
            due = self.next_due_ns(job)
            if due is None or job.schedule is None:
                continue
            if due > now_ns:
                soonest_s = min(soonest_s, self._calendar.wait_s(due))
                continue
            latest = latest_due_ns(job.schedule, job.last_due_at_ns or job.created_at_ns, now_ns)
            try:
                opened = OpenRun(job.id, latest or due, self._clock.now_ns())
                await self._submit(opened, request_id=f"due-{job.id}-{latest or due}")
            except NotFound:
                continue  # deleted meanwhile
            soonest_s = 0.0
        return soonest_s

    def _now_offset_s(self) -> float:
        return self._clock.now_ns() / _SECOND - self._clock.monotonic_s()

    async def _look_at_clock(self) -> None:
        moved_s = self._now_offset_s() - self._offset_s
        if abs(moved_s) <= _JUMP_S:
            # it may be slewed: only a sudden move counts
            self._offset_s += moved_s
            return
        self._offset_s += moved_s
        self._doubt_until_s = self._clock.monotonic_s() + _DOUBT_S
        text = f"The clock of the administrator was set by {moved_s:+.0f} s; due runs wait for {_DOUBT_S:.0f} s"
        log.warning("%s", text)
        occasion = str(self._clock.now_ns() // _SECOND)
        await self._alarms.attempt(occasion, AlertKind.WARNING, "clock-jumped", text, object="clock")

    async def close_missed(self) -> None:
        """Closes scheduled runs that could not start in their window. Never returns."""
        while True:
            await asyncio.sleep(1.0)
            if self.doubtful:
                continue
            window_s = number(self._keeper.state.settings_of_mesh(), "start-window-s")
            for run in self._keeper.state.open_runs():
                if not missed_sources(run, window_s, self._calendar.now_ns()):
                    continue
                waits = (self._live.waiting.get((run.id, part.source)) for part in run.parts)
                waiting = next((each for each in waits if each is not None), None)
                if waiting is not None:
                    self._live.missed_for[run.id] = waiting
                try:
                    await self._submit(
                        CloseRun(run.id, RunState.MISSED, self._clock.now_ns()), request_id=f"missed-{run.id}"
                    )
                except CasoError as error:
                    self._live.missed_for.pop(run.id, None)
                    log.warning("run %s cannot be closed as missed: %s", run.id, error)
