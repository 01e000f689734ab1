"""The calls of people about jobs and runs: lists, details, logs, and following one run to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from caso_mesh.admin import present
from caso_mesh.admin.attempts import AttemptRows
from caso_mesh.admin.catalogs import CatalogIntake
from caso_mesh.admin.destinations import destinations_of
from caso_mesh.admin.due import DueRuns
from caso_mesh.admin.held import Held
from caso_mesh.admin.live import Live
from caso_mesh.admin.local_history import LocalHistory
from caso_mesh.admin.paging import JobPage
from caso_mesh.admin.ports import Answer, Caller, Links
from caso_mesh.admin.standing_waits import run_waits
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.whereabouts import Whereabouts
from caso_mesh.admin.work import Work
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.seconds import seconds_of
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError, InvalidValue, NotFound
from caso_mesh.model.jobs import Attempt, BackupSpec, Counts, Job, Part, Run, TestRunSpec
from caso_mesh.model.listing import in_time, limited
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD, AttemptState, JobState, Liveness, RunState
from caso_mesh.model.units import format_instant
from caso_mesh.planning import presets
from caso_mesh.planning.lifecycle import sources_of

#: Runs whose attempts are looked up at once for a list.
_PAGE = 200
#: How long a follower is kept waiting at most.
_LONGEST_WAIT_S = 10.0
#: Levels of lines, the least first.
_LEVELS = ("debug", "info", "warning", "error")
_STATES = {"all", "ended", *(state.value for state in RunState)}


class Runs:
    """Answers of the administrator. ``local``: what servers run by themselves is shown, too. Without ``catalogs`` none is
    waited for."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        links: Links,
        held: Held,
        work: Work,
        due: DueRuns,
        catalogs: CatalogIntake | None,
        where: Whereabouts | None,
        local: LocalHistory | None,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._held = held
        self._work = work
        self._due = due
        self._catalogs = catalogs
        self._where = where
        self._local = local

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "backup": self._work.backup,
            "restore": self._work.restore,
            "restore.selected": self._work.restore_selected,
            "verify": self._work.verify,
            "duplicate": self._work.duplicate,
            "synthetic": self._work.synthetic,
            "drill": self._work.drill,
            "run.follow": self._run_follow,
            "job.list": self._job_list,
            "job.show": self._job_show,
            "job.log": self._job_log,
            "job.run": self._work.run_now,
            "job.cancel": self._work.cancel,
            "job.set": self._work.set_priority,
            "job.hold": self._job_hold,
            "job.release": self._job_release,
            "job.delete": self._work.delete,
        }

    def running(self) -> int:
        """How many runs have an active attempt."""
        return len({attempt.run for attempt in self._keeper.state.active_attempts()})

    # --- lists ---

    def _parts(self, run: Run, rows: AttemptRows) -> list[o.JobView]:
        views = []
        for part in run.parts:
            attempt = self._deciding(run, part)
            row = rows.of(attempt) if attempt else None
            views.append(present.job_view(self._keeper.state, run, part, attempt, row, self._live))
        return views

    async def _job_list(self, caller: Caller, request: q.JobListRequest) -> o.JobList:
        wanted, limit = request.state, limited(request.limit)
        if wanted is not None and wanted not in _STATES:
            raise InvalidValue(value=wanted, what="state", expected="Use all, ended, or a state of runs")
        state = self._keeper.state
        only = present.restricted_to(state, request.server, request.pool, caller.limits())
        listed = JobPage(limit, request.after)
        if wanted in {None, "all", "scheduled", "on-hold"}:
            for job in state.job_list():
                if job.schedule is None or (only is not None and only.isdisjoint(sources_of(job.spec))):
                    continue
                view = self._waits_for_its_time(job)
                if view is not None and wanted in {None, "all", view.state} and self._is_in_time(job, request):
                    listed.add(job.id, [view])
        runs = state.open_runs() if wanted is None else list(state.runs.values())
        runs = [
            run
            for run in runs
            if (wanted != "ended" or run.closed_at_ns is not None)
            and in_time(run.due_at_ns, request.since_ns, request.until_ns)
            and (only is None or not only.isdisjoint(self._touched(run)))
        ]
        runs.sort(key=lambda run: (run.created_at_ns, run.id), reverse=True)
        names = None if only is None else {state.name_of(each) for each in only}
        for start in range(0, len(runs), _PAGE):
            if listed.full:
                break
            page = listed.left(runs[start : start + _PAGE], lambda run: run.id)
            rows = await self._tables.attempts([run.id for run in page])
            for run in page:
                views = [
                    view
                    for view in self._parts(run, rows)
                    if (names is None or view.server in names or view.source in names)
                    and (wanted in {None, "all", "ended"} or view.state == wanted)
                ]
                listed.add(run.id, views)
        if self._local is not None and not listed.full:
            await self._local.fill(listed, request, only)
        return listed.answer()

    def _is_in_time(self, job: Job, request: q.JobListRequest) -> bool:
        due_ns = None if job.state is JobState.ON_HOLD else self._due.next_due_ns(job)
        return in_time(due_ns, request.since_ns, request.until_ns)

    def _touched(self, run: Run) -> set[str]:
        """The servers of a run: those of its files, and those that had an attempt of it."""
        found = {part.source for part in run.parts}
        for attempt in self._keeper.state.attempts_of(run.id):
            found |= {attempt.server, attempt.source}
        return found

    def _waits_for_its_time(self, job: Job) -> o.JobView | None:
        """``None``: its schedule is over, it runs by hand only."""
        if job.state is JobState.ON_HOLD:
            return present.scheduled_view(self._keeper.state, job, None, "on-hold", "on-hold", {"job": job.name})
        due = self._due.next_due_ns(job)
        if due is None:
            return None
        fields = {"due": format_instant(due)}
        return present.scheduled_view(self._keeper.state, job, due, "scheduled", "not-yet-due", fields)

    # --- one job ---

    async def _job_show(self, caller: Caller, request: q.JobName) -> o.JobDetail:
        elsewhere = await self._local.find(request.name) if self._local is not None else None
        if self._local is not None and elsewhere is not None:
            return await self._local.detail(elsewhere)
        job, state = self._work.find_job(request.name), self._keeper.state
        runs = state.runs_of(job.id)[::-1]
        rows = await self._tables.attempts([run.id for run in runs])
        return o.JobDetail(
            job=job.id,
            name=job.name,
            kind=present.kind_of(job.spec).value,
            state=job.state.value,
            priority=job.priority.value,
            created=format_instant(job.created_at_ns) or "",
            created_by=job.created_by,
            schedule=presets.shown(job.schedule) if job.schedule else None,
            zone=job.schedule.zone if job.schedule else None,
            next_due=format_instant(self._due.next_due_ns(job)),
            spec=present.spec_view(state, job),
            runs=tuple(self._run_view(run, rows) for run in runs),
            origin=present.origin_view(state, job),
            start_window_s=job.schedule.start_window_s if job.schedule else None,
            cancel_after_s=job.schedule.cancel_after_s if job.schedule else None,
            catch_up=job.schedule.catch_up if job.schedule else False,
            exclude_days=job.schedule.excludes if job.schedule else (),
            destinations=await destinations_of(state, self._tables, job.spec),
        )

    def _run_view(self, run: Run, rows: AttemptRows) -> o.RunView:
        state = self._keeper.state
        attempts = state.attempts_of(run.id)
        return o.RunView(
            run=run.id,
            state=present.run_state(run, rows, attempts).value,
            due=format_instant(run.due_at_ns) or "",
            closed=format_instant(run.closed_at_ns),
            sets=present.set_outcomes(state, run),
            attempts=tuple(present.attempt_view(state, each, rows.of(each), run) for each in attempts),
            note=present.run_note(run),
            second=present.second_outcomes(state, run),
            waits=run_waits(state, run, self._live),
        )

    async def _job_log(self, caller: Caller, request: q.JobLogRequest) -> o.JobLogView:
        elsewhere = await self._local.find(request.name) if self._local is not None else None
        attempts = (
            list(elsewhere.attempts)
            if elsewhere is not None
            else self._keeper.state.attempts_of(self._work.find_run(request.name).id)
        )
        if "#" in request.name:
            number = request.name.rpartition("#")[2]
            attempts = [each for each in attempts if str(each.number) == number]
            if not attempts:
                raise NotFound(kind="attempt", name=request.name)
        if request.level is not None and request.level not in _LEVELS:
            raise InvalidValue(value=request.level, what="level", expected=f"Use one of {', '.join(_LEVELS)}")
        levels = _LEVELS[_LEVELS.index(request.level) :] if request.level is not None else _LEVELS
        only = present.restricted_to(self._keeper.state, request.server, request.pool)
        logs, away = list[o.AttemptLog](), dict[str, None]()
        for attempt in attempts:
            kept, missing = await self._held.lines(attempt, only)
            away.update(dict.fromkeys(missing))
            told = [row for row in await self._tables.log(attempt) if only is None or row.server in only]
            rows = [(row.at_ns, row.level, row.text) for row in told]
            rows += [(line.at_ns, line.level, line.text) for line in kept]
            lines = [
                o.LogLineView(format_instant(at_ns) or "", level, text)
                for at_ns, level, text in sorted(rows, key=lambda row: row[0])
                if level in levels and in_time(at_ns, request.since_ns, request.until_ns)
            ]
            if lines:
                logs.append(o.AttemptLog(attempt.id, tuple(lines)))
        return o.JobLogView(tuple(logs), tuple(away))

    async def _job_hold(self, caller: Caller, request: q.JobName) -> v.Done:
        return await self._work.hold(caller, request, held=True)

    async def _job_release(self, caller: Caller, request: q.JobName) -> v.Done:
        return await self._work.hold(caller, request, held=False)

    # --- following a run ---

    async def _run_follow(self, caller: Caller, request: q.RunFollow) -> o.RunProgress:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(max(0.0, request.wait_s), _LONGEST_WAIT_S)
        first: str | None = None
        while True:
            # before the state is read: nothing that comes after may be missed
            news, index = self._live.next_news(), self._keeper.position.index
            left_s = deadline - loop.time()
            if request.until_end and left_s > 0 and not self._over(self._keeper.state.run_named(request.run)):
                await self._come_further(news, index, left_s)
                continue
            found = await self._progress_of(request)
            if found.result is not None or left_s <= 0 or (first not in {None, found.state} and not request.until_end):
                return found
            first = found.state
            await self._come_further(news, index, left_s)

    async def _come_further(self, news: asyncio.Event, index: int, timeout_s: float) -> None:
        """Returns when facts came, or commands were applied, or the time is over."""
        waiting = [asyncio.ensure_future(news.wait()), asyncio.ensure_future(self._keeper.wait_change(index))]
        try:
            done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()  # what ended the keeper ends this too
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _progress_of(self, request: q.RunFollow) -> o.RunProgress:
        state = self._keeper.state
        run = state.run_named(request.run)
        rows = await self._tables.attempts([run.id])
        active = [each for each in state.attempts_of(run.id) if each.state in ATTEMPT_ACTIVE]
        for attempt in active if not request.until_end else ():
            await self._watch(attempt)
        result = None
        if self._over(run):
            missing = await self._missing(run, rows)
            if missing is not None:
                result = await self._result(run, rows, missing)
        shown = present.run_state(run, rows, active)
        return o.RunProgress(run.id, shown.value, tuple(self._parts(run, rows)), result)

    def _over(self, run: Run) -> bool:
        """Whether it is closed, and nothing is on its way to second devices."""
        state = self._keeper.state
        under_way = (
            each.state in ATTEMPT_ACTIVE for second in seconds_of(state, run) for each in state.attempts_of(second.id)
        )
        return run.closed_at_ns is not None and not any(under_way)

    async def _watch(self, attempt: Attempt) -> None:
        try:
            link = self._links.get(attempt.server)
            await link.notify("attempt.watch", {"attempts": [attempt.id]})
        except CasoError:
            return  # it reports at its own interval, or is away

    def _deciding(self, run: Run, part: Part) -> Attempt | None:
        """The attempt that decided a part: the one whose success counts, else the last."""
        tried = [each for each in self._keeper.state.attempts_of(run.id) if each.source == part.source]
        good = [each for each in tried if each.state in ATTEMPT_GOOD]
        return (good or tried)[-1] if tried else None

    def _lost(self, server: str) -> bool:
        """Nothing more is to be expected of a server for now."""
        row = self._keeper.state.servers.get(server)
        return row is None or row.liveness is Liveness.NO_COMMUNICATION

    async def _missing(self, run: Run, rows: AttemptRows) -> tuple[str, ...] | None:
        """``None`` while facts of a closed run are on their way: the ends of its attempts, its sets, their catalogs.
        What will not come, since its server is lost, is not waited for, but named."""
        missing: list[str] = []
        for part in run.parts:
            attempt = self._deciding(run, part)
            if attempt is None or attempt.state is AttemptState.RECOVERED or attempt.state in ATTEMPT_ACTIVE:
                continue
            row = rows.of(attempt)
            if row is None or row.ended_at_ns is None:
                if not self._lost(attempt.server):
                    return None
                name = self._keeper.state.name_of(attempt.server)
                missing.append(f"the figures of {attempt.id} are on {name}, which does not answer")
        sets = [part.set for part in run.parts if part.set is not None]
        details = await self._tables.detail_states(sets)
        for set_id in sets:
            backup = await self._tables.set(set_id)
            if backup is None:
                if await self._tables.is_deleted(set_id):
                    continue
                return None
            if self._catalogs is None or self._where is None or details.get(set_id) != "pending":
                continue
            if await self._where.is_kept(backup):
                continue
            if set_id in self._catalogs.without_room:
                missing.append(
                    f"the catalog of set {set_id} does not fit on the disk of the administrator's state folder"
                )
                continue
            base = self._catalogs.without_base.get(set_id)
            if not self._lost(backup.server) and (base is None or await self._comes(base)):
                return None
            missing.append(f"the catalog of set {set_id} is not here yet")
        return tuple(missing)

    async def _comes(self, set_id: str) -> bool:
        """Whether the catalog of a set is on its way."""
        backup = await self._tables.set(set_id)
        if backup is None or self._lost(backup.server):
            return False
        return (await self._tables.detail_states([set_id])).get(set_id) == "pending"

    async def _result(self, run: Run, rows: AttemptRows, warnings: tuple[str, ...]) -> o.RunResult:
        state = self._keeper.state
        attempts = [each for part in run.parts if (each := self._deciding(run, part)) is not None]
        told = [row for attempt in attempts if (row := rows.of(attempt)) is not None]
        only = attempts[0] if len(run.parts) == 1 and attempts else None
        counts = [each.counts for each in told] or [Counts()]
        failures = [part.failure for part in run.parts if part.failure is not None]
        sets = present.set_outcomes(state, run)
        exceptions = await self._tables.exceptions(attempts)
        for attempt in attempts:
            kept, away = await self._held.exceptions(attempt)
            exceptions += kept
            warnings += tuple(f"Its exceptions are on {server}, which cannot be asked now." for server in away)
        return o.RunResult(
            job=run.job,
            run=run.id,
            attempt=only.id if only else None,
            state=run.state.value,
            type=_the_one(each.type.value for each in told if each.type is not None)
            if isinstance(run.spec, BackupSpec | TestRunSpec)
            else None,
            server=state.name_of(only.server) if only else None,
            device=present.device_name(state, only.device) if only else None,
            set=sets[0].set if len(sets) == 1 else None,
            sets=sets,
            files=sum(each.files for each in counts),
            bytes=sum(each.bytes for each in counts),
            bytes_read=sum(each.bytes_read for each in counts),
            bytes_stored=sum(each.bytes_stored for each in counts),
            seconds=max((each.seconds or 0.0 for each in told), default=0.0),
            exceptions=tuple(map(present.exception_view, exceptions)),
            error=present.failure_view(failures[0]) if failures else None,
            warnings=warnings,
            predicted=present.predicted_of(told),
            second=present.second_outcomes(state, run),
            inventories=tuple(
                found
                for each in attempts
                if (row := rows.of(each)) and (found := row.inventory(present.device_name(state, each.device)))
            ),
            catalogs=tuple(
                made
                for each in attempts
                if (row := rows.of(each)) and (made := row.catalog(present.device_name(state, each.device)))
            ),
            destinations=await destinations_of(state, self._tables, run.spec),
        )


def _the_one(values: Iterable[str]) -> str | None:
    """The value, if all are the same."""
    found = set(values)
    return found.pop() if len(found) == 1 else None
