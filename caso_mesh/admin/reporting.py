"""The calls of people about reports, and reports for whoever else wants them: what is sent by mail, too."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import structs

from caso_mesh.admin import present
from caso_mesh.admin.gathering import Gathering, Period, Scope, let_go
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.admin.what_if import usual_zone
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Calendar
from caso_mesh.model.errors import InvalidValue, OutsideScope
from caso_mesh.model.reports import Report, ReportList, ReportShow
from caso_mesh.model.states import Role
from caso_mesh.model.units import format_instant
from caso_mesh.planning.schedule import zone as zone_named
from caso_mesh.reports import catalogue
from caso_mesh.reports.making import SECOND, Definition
from caso_mesh.reports.rows import Gathered

#: Rows of one table, and bytes of a whole report, at most: well below a frame of the wire.
MOST_ROWS, MOST_BYTES = 20_000, 4_000_000
_MOST_DAYS = 3660.0
#: A forecast looks no further.
_MOST_DAYS_AHEAD = 31.0


class Reporting:
    """Answers of the administrator."""

    def __init__(self, *, keeper: ControlKeeper, gathering: Gathering, calendar: Calendar) -> None:
        self._keeper = keeper
        self._gathering = gathering
        self._calendar = calendar

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"report.list": self._list, "report.show": self._show}

    async def report(
        self, request: ReportShow, limits: frozenset[str] | None = None, most_bytes: int = MOST_BYTES
    ) -> Report:
        """A report of what ``limits`` (servers, ids; ``None``: all) may see, of so many bytes at most. Raises ``NotFound``, ``InvalidValue``,
        ``UnknownZone``."""
        definition = catalogue.named(request.name)
        scope, period = self._scope(request, limits), self._period(definition, request)
        rows = max(1, min(request.limit, MOST_ROWS))
        told = [await self._gathering.gathered(definition.parts, scope, period, rows)]
        return await asyncio.to_thread(_made, definition, told, most_bytes)

    async def _list(self, caller: Caller, request: q.Nothing) -> ReportList:
        seen = caller.limits() is None
        return ReportList(tuple(catalogue.info(each) for each in catalogue.REPORTS if seen or not each.whole_mesh))

    async def _show(self, caller: Caller, request: ReportShow) -> Report:
        limits = caller.limits()
        if limits is not None and catalogue.named(request.name).whole_mesh:
            raise OutsideScope(call=f"report {request.name}", who=caller.who, role=Role.VIEWER.value)
        return await self.report(request, limits)

    def _scope(self, request: ReportShow, limits: frozenset[str] | None) -> Scope:
        state = self._keeper.state
        only = present.restricted_to(state, request.server, request.pool, limits)
        selection = state.list_named(request.selection).id if request.selection is not None else ""
        named = (("the server", request.server), ("the pool", request.pool), ("the list", request.selection))
        words = [f"{kind} {name}" for kind, name in named if name is not None]
        if limits is not None and not words:
            words = ["the servers that you may see"]
        return Scope(only, selection, tuple(words))

    def _period(self, definition: Definition, request: ReportShow) -> Period:
        now_ns = self._calendar.now_ns()
        zone = zone_named(request.zone or usual_zone(self._keeper.state)).key
        if request.days is not None and not 0 < request.days <= _MOST_DAYS:
            raise InvalidValue(
                value=f"{request.days:g}", what="number of days", expected="It is more than 0 and at most 3660"
            )
        span_ns = round((request.days or definition.days or 1.0) * 86400 * SECOND)
        if definition.ahead:
            begins_ns = now_ns if request.since_ns is None else max(now_ns, request.since_ns)
            until_ns = begins_ns + span_ns if request.until_ns is None else request.until_ns
            if not begins_ns < until_ns <= now_ns + round(_MOST_DAYS_AHEAD * 86400 * SECOND):
                expected = "It lies behind the beginning, within 31 days from now"
                raise InvalidValue(value=format_instant(until_ns) or "", what="end of the time", expected=expected)
            return Period(now_ns, begins_ns, until_ns, zone)
        # what ends this very moment is told, too
        until_ns = now_ns + 1 if request.until_ns is None else request.until_ns
        begins_ns = until_ns - span_ns if request.since_ns is None else request.since_ns
        if not 0 <= begins_ns < until_ns:
            raise InvalidValue(
                value=format_instant(begins_ns) or "", what="beginning of the time", expected="It lies before the end"
            )
        return Period(now_ns, begins_ns, until_ns, zone)


def _made(definition: Definition, only: list[Gathered], most_bytes: int) -> Report:
    """In a thread, which is the last one to know what is taken out of ``only``."""
    told = only.pop()
    report = within(catalogue.made(definition.name, told), most_bytes)
    rows = [row for part in definition.parts for row in getattr(told, part.value)]
    del told
    let_go(rows)
    return report


def within(report: Report, most_bytes: int) -> Report:
    """A report of which the largest tables are cut until all of it fits into so many bytes."""
    while (size := len(msgspec.msgpack.encode(report))) > most_bytes:
        sizes = [len(msgspec.msgpack.encode(table.rows)) for table in report.tables]
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        table = report.tables[largest]
        kept = len(table.rows) * max(0, sizes[largest] - (size - most_bytes)) // max(1, sizes[largest]) * 9 // 10
        cut = structs.replace(table, rows=table.rows[:kept], more=table.more + len(table.rows) - kept)
        report = structs.replace(report, tables=(*report.tables[:largest], cut, *report.tables[largest + 1 :]))
    return report
