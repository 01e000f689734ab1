"""What servers ran by themselves, shown among the runs of the mesh."""

from __future__ import annotations

from msgspec import structs

from caso_mesh.admin import present
from caso_mesh.admin.attempts import AttemptRows
from caso_mesh.admin.destinations import destinations_of
from caso_mesh.admin.live import Live
from caso_mesh.admin.paging import JobPage
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import facts
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model.ids import is_local
from caso_mesh.model.jobs import Attempt, Job, Part
from caso_mesh.model.listing import in_time
from caso_mesh.model.settings import number
from caso_mesh.model.states import ATTEMPT_GOOD, RUN_ENDS
from caso_mesh.model.units import format_instant

#: So many of the newest are looked through for those that a list is about.
_MOST = 5000
#: And for one of a name.
_NEWEST = 500
_ENDS = frozenset(state.value for state in RUN_ENDS)


class LocalHistory:
    """Of servers whose own jobs are monitored."""

    def __init__(self, *, keeper: ControlKeeper, tables: Tables) -> None:
        self._keeper = keeper
        self._tables = tables

    async def fill(self, page: JobPage, request: q.JobListRequest, only: frozenset[str] | None) -> None:
        """Adds what fits to a page of the list. ``only``: of these servers (node ids)."""
        wanted = request.state
        ended = None if wanted == "all" else wanted == "ended" or wanted in _ENDS
        for server, told in await self._tables.local_runs(limit=_MOST, ended=ended):
            if page.full:
                return
            if (only is not None and server not in only) or not self._is_shown(server, told):
                continue
            if not in_time(told.run.due_at_ns, request.since_ns, request.until_ns):
                continue
            rows = await self._tables.attempts([told.run.id])
            views = [self._view(told, part, rows) for part in told.run.parts]
            page.add(told.run.id, [view for view in views if wanted in {None, "all", "ended", view.state}])

    def _is_shown(self, server: str, told: facts.LocalRun) -> bool:
        state = self._keeper.state
        if server not in state.servers:
            return False
        return number(state.settings_of(server), "local-job-monitoring") >= 1.0

    def _view(self, told: facts.LocalRun, part: Part, rows: AttemptRows) -> o.JobView:
        attempt = _deciding(told, part)
        row = rows.of(attempt) if attempt is not None else None
        view = present.job_view(self._keeper.state, told.run, part, attempt, row, Live())
        return structs.replace(view, local=True)

    async def find(self, name: str) -> facts.LocalRun | None:
        """The run of that id (of a run, an attempt, or a job: its newest one), if it is one of these; the newest one of a job
        of that name, if there is no other of it."""
        if not is_local(name):
            return None if "@" in name or self._is_known(name) else await self._named(name)
        found = await self._tables.local_runs(run=name.partition("#")[0], limit=1)
        return next((told for server, told in found if self._is_shown(server, told)), None)

    def _is_known(self, name: str) -> bool:
        return any(name == job.name or job.id.startswith(name) for job in self._keeper.state.job_list())

    async def _named(self, name: str) -> facts.LocalRun | None:
        return next(iter(await self.named(name)), None)

    async def named(self, name: str) -> list[facts.LocalRun]:
        """Those of jobs of a name, newest first, among the newest of all: a server has few jobs of its own. None, if a job of
        the mesh is called so."""
        if self._is_known(name):
            return []
        found = await self._tables.local_runs(limit=_NEWEST)
        return [told for server, told in found if told.run.name == name and self._is_shown(server, told)]

    async def runs(self, *, server: str | None = None, listed: str | None = None, limit: int) -> list[facts.LocalRun]:
        """The newest ones of a server (id), or of a selection list (id)."""
        found = await self._tables.local_runs(server, limit=limit, listed=listed)
        return [told for server, told in found if self._is_shown(server, told)]

    async def detail(self, told: facts.LocalRun) -> o.JobDetail:
        """As ``job.show`` tells of a job."""
        state, run = self._keeper.state, told.run
        runs = [each for _, each in await self._tables.local_runs(run=f"{run.job}@")]
        rows = await self._tables.attempts([each.run.id for each in runs])
        job = Job(run.job, run.name, run.spec, run.created_by, runs[-1].run.created_at_ns)
        return o.JobDetail(
            job=run.job,
            name=run.name,
            kind=present.kind_of(run.spec).value,
            state=job.state.value,
            priority=run.priority.value,
            created=format_instant(job.created_at_ns) or "",
            created_by=run.created_by,
            schedule=None,
            zone=None,
            next_due=None,
            spec=present.spec_view(state, job),
            runs=tuple(
                o.RunView(
                    run=each.run.id,
                    state=present.run_state(each.run, rows, each.attempts).value,
                    due=format_instant(each.run.due_at_ns) or "",
                    closed=format_instant(each.run.closed_at_ns),
                    sets=present.set_outcomes(state, each.run),
                    attempts=tuple(present.attempt_view(state, a, rows.of(a), each.run) for a in each.attempts),
                    note=present.run_note(each.run),
                )
                for each in runs
            ),
            destinations=await destinations_of(state, self._tables, run.spec),
        )


def _deciding(told: facts.LocalRun, part: Part) -> Attempt | None:
    tried = [each for each in told.attempts if each.source == part.source]
    good = [each for each in tried if each.state in ATTEMPT_GOOD]
    return (good or tried)[-1] if tried else None
