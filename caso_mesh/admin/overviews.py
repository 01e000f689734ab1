"""The mesh at a glance. However many look, it is put together once in half a second; what takes longer to count, and changes
little, more rarely."""

from __future__ import annotations

import logging
from collections import Counter
from heapq import nsmallest

from msgspec import Struct

from caso_mesh.admin import present
from caso_mesh.admin.due import DueRuns
from caso_mesh.admin.hiding import shown
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Answer, Caller, Links
from caso_mesh.admin.scoping import of_alert, places_of
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import outcomes as o
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError
from caso_mesh.model.jobs import Attempt
from caso_mesh.model.mesh import Server
from caso_mesh.model.overview import MOST_ROWS, AwayServer, DueJob, Overview, OverviewRequest
from caso_mesh.model.states import RunState, ServerState
from caso_mesh.model.units import format_instant
from caso_mesh.planning.lifecycle import part_of, sources_of

log = logging.getLogger(__name__)

_FRESH_S, _SLOW_S = 0.5, 2.0
_DAY_NS = 86400 * 1_000_000_000
_BAD = frozenset({RunState.FAILED, RunState.MISSED, RunState.TIMED_OUT})
_ALERT = "id, raised_at_ns, server, alert, category, object, text, cleared_at_ns"
#: Open alerts that are looked through.
_MOST_ALERTS = 5000


class _Slow(Struct, frozen=True):
    """What is worked out now and then."""

    at_s: float
    since_ns: int
    ended: dict[str, int]
    badly: tuple[str, ...]
    due: tuple[DueJob, ...]


class Overviews:
    """Answers of the administrator."""

    def __init__(
        self, *, keeper: ControlKeeper, tables: Tables, live: Live, links: Links, due: DueRuns, own: str, clock: Clock
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._due = due
        self._own = own
        self._clock = clock
        self._last: dict[tuple[frozenset[str] | None, int], tuple[float, Overview]] = {}
        self._slow: dict[frozenset[str] | None, _Slow] = {}

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"overview": self._overview}

    async def _overview(self, caller: Caller, request: OverviewRequest) -> Overview:
        limits, limit = caller.limits(), max(1, min(request.limit, MOST_ROWS))
        now_s = self._clock.monotonic_s()
        known = self._last.get((limits, limit))
        if known is None or now_s - known[0] >= _FRESH_S:
            for table in (self._last, self._slow):
                if len(table) > 50:  # of many people with few rights each
                    table.clear()
            known = self._last[limits, limit] = (now_s, await self._look(limits, limit))
        if request.watch:
            await self._watch(known[1])
        return known[1]

    async def _look(self, limits: frozenset[str] | None, limit: int) -> Overview:
        state, now_ns = self._keeper.state, self._clock.now_ns()
        servers = [each for each in state.server_list() if limits is None or each.id in limits]
        away = [each for each in servers if each.state is not ServerState.ENABLED]
        away += [each for each in servers if each.state is ServerState.ENABLED and not self._connected(each)]
        active = [each for each in state.active_attempts() if limits is None or not limits.isdisjoint(_ends(each))]
        waiting = [key for key in self._live.waiting if limits is None or key[1] in limits]
        reasons = Counter(self._live.waiting[key].reason.value for key in waiting)
        alerts = await self._alerts(limits)
        slow = self._slowly(limits, limit)
        progress = [self._live.progress[each.id] for each in active if each.id in self._live.progress]
        return Overview(
            at=format_instant(now_ns) or "",
            servers=dict(Counter(each.state.value for each in servers)),
            connected=sum(map(self._connected, servers)),
            away=tuple(self._away(each) for each in away[:limit]),
            running_total=len(active),
            running=tuple(await self._running(active[:limit])),
            rate=sum(each.rate for each in progress),
            waiting_total=len(waiting),
            waiting=tuple(self._waiting(sorted(waiting)[:limit])),
            reasons=dict(reasons.most_common()),
            alerts_total=len(alerts),
            alerts=tuple(map(self._alert, alerts[:limit])),
            since=format_instant(slow.since_ns) or "",
            ended=slow.ended,
            ended_badly=slow.badly,
            due=slow.due,
        )

    async def _running(self, active: list[Attempt]) -> list[o.JobView]:
        state, found = self._keeper.state, list[o.JobView]()
        rows = await self._tables.attempts([each.run for each in active])
        for attempt in active:
            run = state.runs.get(attempt.run)
            part = part_of(run, attempt.source) if run is not None else None
            if run is not None and part is not None:
                found.append(present.job_view(state, run, part, attempt, rows.of(attempt), self._live))
        return found

    def _connected(self, server: Server) -> bool:
        return server.id == self._own or self._links.linked(server.id)

    def _away(self, server: Server) -> AwayServer:
        enabled = server.state is ServerState.ENABLED
        state = "not-connected" if enabled else server.state.value
        return AwayServer(server.name, state, format_instant(server.silent_since_ns))

    def _waiting(self, keys: list[tuple[str, str]]) -> list[o.JobView]:
        state, found = self._keeper.state, list[o.JobView]()
        for run_id, source in keys:
            run = state.runs.get(run_id)
            part = part_of(run, source) if run is not None else None
            if run is not None and part is not None:
                found.append(present.job_view(state, run, part, None, None, self._live))
        return found

    async def _alerts(self, limits: frozenset[str] | None) -> list[AlertRow]:
        """Open ones, the newest first."""
        sql = f"SELECT {_ALERT} FROM alert WHERE cleared_at_ns IS NULL ORDER BY raised_at_ns DESC LIMIT {_MOST_ALERTS}"
        rows = await self._tables.ask(lambda c: c.execute(sql).fetchall())
        state = self._keeper.state
        found = shown(state, [AlertRow(*row) for row in rows if row[0] not in state.answers])
        if limits is None:
            return found
        places = places_of(state)
        return [row for row in found if of_alert(state, row, places) & limits]

    def _alert(self, row: AlertRow) -> v.AlertView:
        return v.AlertView(
            id=row.id,
            alert=row.alert,
            category=row.category,
            server=self._keeper.state.name_of(row.server),
            object=row.object,
            text=row.text,
            raised=format_instant(row.raised_at_ns) or "",
            answered=None,
            answered_by=None,
            response=None,
            cleared=None,
        )

    def _slowly(self, limits: frozenset[str] | None, limit: int) -> _Slow:
        now_s, known = self._clock.monotonic_s(), self._slow.get(limits)
        if known is None or now_s - known.at_s >= _SLOW_S:
            known = self._slow[limits] = self._count(limits, limit, now_s)
        return known

    def _count(self, limits: frozenset[str] | None, limit: int, now_s: float) -> _Slow:
        state, since_ns = self._keeper.state, self._clock.now_ns() - _DAY_NS
        ended = [
            run
            for run in state.runs.values()
            if run.closed_at_ns is not None
            and run.closed_at_ns >= since_ns
            and (limits is None or any(part.source in limits for part in run.parts))
        ]
        bad = sorted((run.closed_at_ns or 0, run.name) for run in ended if run.state in _BAD)[::-1]
        due = [
            (due_ns, job.name)
            for job in state.jobs.values()
            if job.schedule is not None
            and (limits is None or not limits.isdisjoint(sources_of(job.spec)))
            and (due_ns := self._due.next_due_ns(job)) is not None
        ]
        return _Slow(
            now_s,
            since_ns,
            dict(Counter(run.state.value for run in ended)),
            tuple(dict.fromkeys(name for _, name in bad[:MOST_ROWS])),
            tuple(DueJob(format_instant(at) or "", name) for at, name in nsmallest(max(limit, 10), due)),
        )

    async def _watch(self, shown: Overview) -> None:
        state = self._keeper.state
        by_server: dict[str, list[str]] = {}
        for view in shown.running:
            attempt = state.attempts.get(view.attempt or "")
            if attempt is not None:
                by_server.setdefault(attempt.server, []).append(attempt.id)
        for server, attempts in by_server.items():
            try:
                await self._links.get(server).notify("attempt.watch", {"attempts": attempts})
            except CasoError as error:
                log.debug("%s reports at its own pace: %s", server, error)


def _ends(attempt: Attempt) -> tuple[str, ...]:
    return attempt.source, attempt.server, attempt.reader
