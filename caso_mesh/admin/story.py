"""``why``: which runs and alerts a question is about, and their story out of what is kept."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from caso_mesh.admin import present
from caso_mesh.admin.due import DueRuns
from caso_mesh.admin.local_history import LocalHistory
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.admin.scoping import of_alert, places_of
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.admin.what_happened import Told, of_alerts, of_run
from caso_mesh.admin.work import Work
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import Ambiguous, InvalidValue, NotFound
from caso_mesh.model.facts import LocalRun
from caso_mesh.model.ids import is_local
from caso_mesh.model.jobs import Job, Run
from caso_mesh.model.states import JobState
from caso_mesh.model.units import format_instant
from caso_mesh.planning.lifecycle import sources_of

_SECOND = 1_000_000_000
_NOON = datetime.timedelta(hours=12)
#: Of one story; the newest are told.
_MOST_RUNS = 200


class _About(Struct, frozen=True):
    """``server`` is a node id. ``jobs``: whose runs it may be about."""

    kind: str
    name: str
    runs: tuple[Run, ...]
    server: str | None = None
    jobs: tuple[Job, ...] = ()


class Stories:
    """Answers of the administrator."""

    def __init__(
        self, *, keeper: ControlKeeper, tables: Tables, work: Work, due: DueRuns, clock: Clock, local: LocalHistory
    ) -> None:
        self._keeper = keeper
        self._local = local
        self._tables = tables
        self._work = work
        self._due = due
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"why": self._why}

    async def _why(self, caller: Caller, request: q.Why) -> o.Story:
        """Raises ``NotFound``, ``Ambiguous``, ``InvalidValue``."""
        limits, told_elsewhere = caller.limits(), await self._elsewhere(request.name)
        state = with_runs(self._keeper.state, told_elsewhere)
        about = self._about(state, request.name, {each.run.id: each.run for each in told_elsewhere})
        seen = [run for run in about.runs if limits is None or {part.source for part in run.parts} <= limits]
        if limits is not None and not _may_see(about, seen, limits):
            raise NotFound(kind=about.kind, name=request.name)
        zone = _zone_of(state, seen, about.jobs)
        night = self._night(about, seen, request.night, zone)
        runs = [run for run in seen if night is None or _night_of(run.due_at_ns, zone) == night]
        notes = [f"There are {len(runs)} runs; the newest {_MOST_RUNS} are told."] if len(runs) > _MOST_RUNS else []
        runs = sorted(runs, key=lambda run: (run.due_at_ns, run.id))[-_MOST_RUNS:]
        if not runs:
            notes += self._why_none(about, night)
        ids, now_ns = [run.id for run in runs], self._clock.now_ns()
        rows, waits = await self._tables.attempts(ids), await self._tables.waits(ids)
        told: list[Told] = []
        for run in runs:
            told += of_run(state, run, rows, [each for each in waits if each.run == run.id], now_ns)
        told += of_alerts(state, await self._alerts(state, about, runs, night, zone, limits))
        told.sort(key=lambda each: (each.at_ns, each.rank))
        return o.Story(
            about=about.name,
            kind=about.kind,
            night=None if night is None else night.isoformat(),
            zone=zone.key,
            runs=tuple(
                o.StoryRun(
                    run=run.id,
                    name=run.name,
                    state=present.run_state(run, rows, state.attempts_of(run.id)).value,
                    due=format_instant(run.due_at_ns) or "",
                    closed=format_instant(run.closed_at_ns),
                    sets=present.set_outcomes(state, run),
                )
                for run in runs
            ),
            lines=tuple(each.line for each in told),
            notes=tuple(notes),
        )

    # --- what it is about ---

    async def _elsewhere(self, text: str) -> list[LocalRun]:
        """What servers ran by themselves and it may be about."""
        if is_local(text):
            found = await self._local.find(text)
            return [found] if found is not None else []
        state, (kind, colon, name) = self._keeper.state, text.partition(":")
        kind, name = (kind, name) if colon else ("", text)
        lists = [row.id for row in state.selection_lists() if row.name == name and kind in {"", "list"}]
        servers = [row.id for row in state.server_list() if row.name == name and kind in {"", "server"}]
        if not lists and not servers and kind in {"", "job"}:
            return await self._local.named(name)
        told = [each for server in servers for each in await self._local.runs(server=server, limit=_MOST_RUNS)]
        return told + [each for row in lists for each in await self._local.runs(listed=row, limit=_MOST_RUNS)]

    def _about(self, state: ControlState, text: str, elsewhere: Mapping[str, Run]) -> _About:
        if "@" in text:
            run = next(iter(elsewhere.values())) if elsewhere else self._work.find_run(text)
            return _About("run", run.id, (run,))
        kind, colon, name = text.partition(":")
        if not colon:
            kind, name = self._kind_of(text, is_elsewhere=bool(elsewhere)), text
        match kind:
            case "list":
                jobs = state.jobs_made_of(selection=state.list_named(name).id)
                return _About(kind, name, (*self._runs_of(jobs), *elsewhere.values()), jobs=tuple(jobs))
            case "server":
                server = state.server_named(name).id
                ids = {attempt.run for attempt in state.attempts.values() if server in {attempt.server, attempt.source}}
                ids |= {run.id for run in state.runs.values() if any(part.source == server for part in run.parts)}
                return _About(kind, name, tuple(state.runs[id_] for id_ in ids if id_ in state.runs), server)
            case "job" if elsewhere:
                return _About(kind, name, tuple(elsewhere.values()))
            case "job":
                job = self._work.find_job(name)
                return _About(kind, job.name, self._runs_of([job]), jobs=(job,))
            case _:
                expected = "Use a run, or the name of a list, a server or a job; list:NAME, server:NAME, job:NAME"
                raise InvalidValue(value=text, what="name", expected=expected)

    def _kind_of(self, name: str, *, is_elsewhere: bool) -> str:
        state = self._keeper.state
        named = {
            "list": {each.name for each in state.selection_lists()},
            "server": {each.name for each in state.server_list()},
            "job": {each.name for each in state.job_list()},
        }
        found = [kind for kind, names in named.items() if name in names]
        if len(found) > 1:
            raise Ambiguous(name=name, kind="object", candidates=", ".join(f"{kind}:{name}" for kind in found))
        if not found and not is_elsewhere:
            try:
                self._work.find_job(name)
            except NotFound:
                raise NotFound(kind="run, selection list, server or job", name=name) from None
        return found[0] if found else "job"

    def _runs_of(self, jobs: Sequence[Job]) -> tuple[Run, ...]:
        return tuple(run for job in jobs for run in self._keeper.state.runs_of(job.id))

    def _night(
        self, about: _About, runs: Sequence[Run], asked: str | None, zone: zoneinfo.ZoneInfo
    ) -> datetime.date | None:
        """The night that is told; ``None`` = all there is."""
        if asked is not None:
            try:
                return datetime.date.fromisoformat(asked)
            except ValueError:
                expected = "Use the date of its evening, as in 2025-01-31"
                raise InvalidValue(value=asked, what="night", expected=expected) from None
        if about.kind == "run":
            return None
        newest_ns = max((run.due_at_ns for run in runs), default=None if about.server is None else self._clock.now_ns())
        return None if newest_ns is None else _night_of(newest_ns, zone)

    def _why_none(self, about: _About, night: datetime.date | None) -> list[str]:
        if about.kind == "run":
            return [f"{about.name} was not due in the night of {night}."]
        if about.server is not None:
            return [f"No run touched {about.name} in the night of {night}."]
        if about.kind == "list" and not about.jobs:
            return [f"No policy is associated with {about.name}, so nothing is ever due."]
        notes = [f"Nothing was due{'' if night is None else f' in the night of {night}'}."]
        for job in about.jobs:
            due = format_instant(self._due.next_due_ns(job))
            if job.state is JobState.ON_HOLD:
                notes.append(f"{job.name} is on hold; release it with: caso-mesh job release {job.name}")
            elif due is not None:
                notes.append(f"{job.name} is due next at {due}.")
            else:
                notes.append(f"{job.name} has no due time to come; it runs when it is asked for or started by a rule.")
        return notes

    async def _alerts(
        self,
        state: ControlState,
        about: _About,
        runs: Sequence[Run],
        night: datetime.date | None,
        zone: zoneinfo.ZoneInfo,
        limits: frozenset[str] | None,
    ) -> list[AlertRow]:
        """Those about the runs and their jobs, and while they went on, about the servers and devices that they needed; of
        a server those of its night."""
        now_ns = self._clock.now_ns()
        own = {run.id for run in runs} | {run.job for run in runs} | {run.name for run in runs}
        spans = [(run.due_at_ns, run.closed_at_ns or now_ns, _touched(state, run)) for run in runs]
        if about.server is not None and night is not None:
            spans.append((_noon_ns(night, zone), _noon_ns(night + datetime.timedelta(days=1), zone), {about.server}))
        found, rows, places = [], await self._tables.alerts(), places_of(state)
        for row in rows:
            concerned = of_alert(state, row, places)
            if limits is not None and not concerned & limits:
                continue
            foreign = row.object in state.runs or row.object in state.jobs
            if row.object in own or (not foreign and _is_within(row, concerned, spans)):
                found.append(row)
        return found


def with_runs(state: ControlState, told: Sequence[LocalRun]) -> ControlState:
    """A state in which these are runs as any others."""
    if not told:
        return state
    draft = state.draft()
    draft.write(Put("runs", each.run.id, each.run) for each in told)
    draft.write(Put("attempts", attempt.id, attempt) for each in told for attempt in each.attempts)
    return draft


def _may_see(about: _About, seen: Sequence[Run], limits: frozenset[str]) -> bool:
    """Whether somebody who is limited to some servers may ask at all."""
    if about.kind == "run" or (about.kind == "job" and not about.jobs):
        return bool(seen)
    if about.server is not None:
        return about.server in limits
    return bool(about.jobs) and all(set(sources_of(job.spec)) <= limits for job in about.jobs)


def _is_within(row: AlertRow, concerned: frozenset[str], spans: Sequence[tuple[int, int, Collection[str]]]) -> bool:
    """Whether it stood while something that it is about was needed."""
    over_ns = row.cleared_at_ns if row.cleared_at_ns is not None else row.raised_at_ns
    return any(
        row.raised_at_ns <= until_ns and max(over_ns, row.raised_at_ns) >= from_ns and concerned.intersection(servers)
        for from_ns, until_ns, servers in spans
    )


def _touched(state: ControlState, run: Run) -> set[str]:
    attempts = state.attempts_of(run.id)
    return {part.source for part in run.parts} | {each.server for each in attempts}


def _zone_of(state: ControlState, runs: Sequence[Run], jobs: Sequence[Job]) -> zoneinfo.ZoneInfo:
    """That of the newest run's schedule, or of a job's."""
    newest = sorted(runs, key=lambda run: run.due_at_ns, reverse=True)
    known = [state.jobs[run.job] for run in newest if run.job in state.jobs] or list(jobs)
    return zoneinfo.ZoneInfo(next((job.schedule.zone for job in known if job.schedule is not None), "UTC"))


def _night_of(at_ns: int, zone: zoneinfo.ZoneInfo) -> datetime.date:
    """The date of the evening: a night goes from noon to noon."""
    moment = datetime.datetime.fromtimestamp(at_ns // _SECOND, zone).replace(tzinfo=None)
    return (moment - _NOON).date()


def _noon_ns(day: datetime.date, zone: zoneinfo.ZoneInfo) -> int:
    return int(datetime.datetime.combine(day, datetime.time(12), zone).timestamp()) * _SECOND
