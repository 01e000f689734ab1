"""Opening the runs of recurring jobs when they are due, and closing those that could not start in their window or take
too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.live import Live
from caso_mesh.admin.newest import newest_sets
from caso_mesh.admin.ports import Submit
from caso_mesh.admin.tables import Tables
from caso_mesh.control.dues import Late, due_after_ns, lateness, latest_due_ns, opening
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.clock import Calendar, Clock
from caso_mesh.model.commands import CloseRun
from caso_mesh.model.errors import CasoError, NotFound
from caso_mesh.model.jobs import CronSchedule, Job, Run
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind, JobState, RunState
from caso_mesh.planning import lifecycle
from caso_mesh.planning.schedule import next_due_ns

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
#: A wall clock that moves by more than this against the monotonic one has been set.
_JUMP_S = 30.0
#: For so long after that nothing is opened: a clock that was set wrong is often set right at once.
_DOUBT_S = 60.0
_LONGEST_WAIT_S = 30.0
#: So many runs are opened together: the log takes them at once.
_TOGETHER = 64
#: So long after the office began the clock is steady, if it was not set meanwhile: one that boots wrong is often set soon.
_SETTLED_S = 600.0


class DueRuns:
    """``doubtful`` says whether the wall clock was set a short while ago."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        submit: Submit,
        alarms: Alarms,
        clock: Clock,
        calendar: Calendar,
        opened: Callable[[], None],
        whose: str = "the administrator",
    ) -> None:
        self._keeper = keeper
        self._opened = opened
        self._tables = tables
        self._live = live
        self._submit = submit
        self._alarms = alarms
        self._clock = clock
        self._calendar = calendar
        self._whose = whose
        self._next: dict[str, tuple[CronSchedule, int, int | None]] = {}
        self._offset_s = self._now_offset_s()
        self._doubt_until_s = 0.0
        self._late: set[str] = set()
        self._set_s = clock.monotonic_s()
        self._was_set = False

    def next_due_ns(self, job: Job) -> int | None:
        """When a recurring, active job is due next."""
        if job.schedule is None or job.state is not JobState.ACTIVE:
            return None
        after = due_after_ns(job)
        known = self._next.get(job.id)
        if known is None or known[:2] != (job.schedule, after):
            known = self._next[job.id] = (job.schedule, after, next_due_ns(job.schedule, after))
        return known[2]

    @property
    def doubtful(self) -> bool:
        return self._clock.monotonic_s() < self._doubt_until_s

    def has_steady_clock(self, seconds: float) -> bool:
        """Whether the wall clock was not set for so long; of a term that is younger, for ``_SETTLED_S`` at most."""
        if abs(self._now_offset_s() - self._offset_s) > _JUMP_S:
            return False
        limit_s = seconds if self._was_set else min(seconds, _SETTLED_S)
        return self._clock.monotonic_s() - self._set_s >= limit_s

    async def open(self) -> None:
        """Opens a run for each due time that has come. Never returns.

        Of several due times that passed while nobody was in office only the latest is opened.
        """
        while True:
            await self._look_at_clock()
            soonest_s = self._doubt_until_s - self._clock.monotonic_s()
            if soonest_s <= 0:
                soonest_s = await self._open_all()
            seen = self._keeper.position.index
            try:
                async with asyncio.timeout(max(0.01, min(soonest_s, _LONGEST_WAIT_S))):
                    await self._keeper.wait_change(seen)
            except TimeoutError:
                continue

    async def _open_all(self) -> float:
        """Seconds until the next due time. What is due at once is opened before any of it is handed out: else what came
        first would be, whatever its priority."""
        soonest_s, due = _LONGEST_WAIT_S, list[tuple[Job, int]]()
        jobs = self._keeper.state.job_list()
        for gone in self._next.keys() - {job.id for job in jobs}:
            del self._next[gone]
        for job in jobs:
            now_ns = self._calendar.now_ns()
            due_ns = self.next_due_ns(job)
            if due_ns is None or job.schedule is None:
                continue
            if due_ns > now_ns:
                soonest_s = min(soonest_s, self._calendar.wait_s(due_ns))
                continue
            due.append((job, latest_due_ns(job.schedule, due_after_ns(job), now_ns) or due_ns))
        if not due:
            return soonest_s
        self._live.opening = True
        try:
            for start in range(0, len(due), _TOGETHER):
                async with asyncio.TaskGroup() as group:
                    for job, due_ns in due[start : start + _TOGETHER]:
                        group.create_task(self._open(job, due_ns))
        finally:
            self._live.opening = False
            self._opened()
        return 0.0

    async def _open(self, job: Job, due_ns: int) -> None:
        try:
            flaws = partial(flaws_of, self._keeper.state, self._tables, self._live)
            sets = await newest_sets(self._keeper.state, self._tables, job, flaws)
            opened = opening(self._keeper.state, job, due_ns, self._clock.now_ns(), sets)
            await self._submit(opened, request_id=f"due-{job.id}-{due_ns}")
        except NotFound:
            log.info("the job %s was deleted when it was due", job.name)

    def _now_offset_s(self) -> float:
        return self._clock.now_ns() / _SECOND - self._clock.monotonic_s()

    async def _look_at_clock(self) -> None:
        moved_s = self._now_offset_s() - self._offset_s
        if abs(moved_s) <= _JUMP_S:
            # it may be slewed: only a sudden move counts
            self._offset_s += moved_s
            return
        self._offset_s += moved_s
        self._set_s, self._was_set = self._clock.monotonic_s(), True
        self._doubt_until_s = self._set_s + _DOUBT_S
        text = f"The clock of {self._whose} was set by {moved_s:+.0f} s; due runs wait for {_DOUBT_S:.0f} s"
        log.warning("%s", text)
        occasion = str(self._clock.now_ns() // _SECOND)
        await self._alarms.attempt(occasion, AlertKind.WARNING, "clock-jumped", text, object="clock")

    async def close_late(self) -> None:
        """Closes scheduled runs that could not start in their window, and runs that take too long. Never returns."""
        while True:
            await asyncio.sleep(1.0)
            if self.doubtful:
                continue
            state, now_ns = self._keeper.state, self._calendar.now_ns()
            window_s = number(state.settings_of_mesh(), "start-window-s")
            self._late &= {run.id for run in state.open_runs()}
            for run in state.open_runs():
                late = lateness(state, run, window_s, now_ns)
                if late is not None:
                    await self._miss(run, late)
            await self._time_out()

    async def _miss(self, run: Run, late: Late) -> None:
        if late is Late.CAUGHT_UP_WITH:
            if run.id in self._late:
                return
            self._late.add(run.id)
            text = f"{run.name} could not start in its window; it is caught up with as soon as it can"
            await self._alarms.attempt(run.id, AlertKind.WARNING, "job-late", text, object=run.id)
            return
        waits = (self._live.waiting.get((run.id, part.source)) for part in run.parts)
        waiting = next((each for each in waits if each is not None), None)
        if waiting is not None:
            self._live.missed_for[run.id] = waiting
        try:
            await self._submit(CloseRun(run.id, RunState.MISSED, self._clock.now_ns()), request_id=f"missed-{run.id}")
        except CasoError as error:
            self._live.missed_for.pop(run.id, None)
            log.warning("run %s cannot be closed as missed: %s", run.id, error)

    async def _time_out(self) -> None:
        """By the beginning of the first attempt of a run."""
        runs = self._keeper.state.open_runs()
        limited = [run for run in runs if run.terms.cancel_after_s is not None and not run.terms.timed_out]
        begun = {run.id for run in limited if any(part.attempts for part in run.parts)}
        if not begun:
            return
        rows = await self._tables.attempts(sorted(begun))
        now_ns = self._clock.now_ns()
        for run in limited:
            told = [rows.of(attempt) for attempt in self._keeper.state.attempts_of(run.id)]
            starts = [row.started_at_ns for row in told if row is not None and row.started_at_ns is not None]
            limit_s = run.terms.cancel_after_s
            if limit_s is None or not starts or now_ns < min(starts) + round(limit_s * _SECOND):
                continue
            try:
                command = CloseRun(run.id, RunState.TIMED_OUT, now_ns, lifecycle.too_long(run))
                await self._submit(command, request_id=f"too-long-{run.id}")
            except CasoError as error:
                log.warning("run %s cannot be closed, which takes too long: %s", run.id, error)
