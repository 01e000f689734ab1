"""Reports that are made by themselves: when they are due they are posted, once, whoever is in office then.

What is due follows from the control state, and the key of a message from what is due: a new administrator posts it again,
and the outbox doubles nothing. That all of it arrived, or was given up, is committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import structs

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.outbox import Outbox
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.admin.reporting import Reporting
from caso_mesh.admin.what_if import usual_zone
from caso_mesh.control.dues import latest_due_ns
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.report_schedules import report_schedule_of
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Calendar
from caso_mesh.model.errors import CasoError
from caso_mesh.model.notices import Attachment, Message
from caso_mesh.model.report_schedules import (
    DeleteReportSchedule,
    NoteReport,
    PutReportSchedule,
    ReportForm,
    ReportSchedule,
    ReportScheduleDoc,
    ReportScheduleEdit,
    ReportScheduleList,
    ReportScheduleName,
    ReportScheduleView,
)
from caso_mesh.model.reports import Report, ReportShow
from caso_mesh.model.states import AlertKind
from caso_mesh.model.units import format_instant
from caso_mesh.planning import presets
from caso_mesh.planning.schedule import next_due_ns
from caso_mesh.reports import catalogue, document, page, sheets, text

log = logging.getLogger(__name__)

CATEGORY = "report-failed"
_EACH_S = 2.0
#: Of a report that is sent: a mail of more is taken by few servers.
MOST_ROWS, MOST_BYTES = 2000, 1_000_000


class SendingReports:
    """A duty of the office, and its calls. ``doubtful``: the clock was set a moment ago."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        reporting: Reporting,
        outbox: Outbox,
        submit: Submit,
        alarms: Alarms,
        calendar: Calendar,
        doubtful: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._reporting = reporting
        self._outbox = outbox
        self._submit = submit
        self._alarms = alarms
        self._calendar = calendar
        self._doubtful = doubtful
        #: Made and not arrived yet, by schedule, each with when it was due.
        self._made: dict[str, tuple[int, Message]] = {}

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "report.schedule": self._put,
            "report.unschedule": self._delete,
            "report.scheduled": self._list,
        }

    # --- the duty ---

    async def run(self) -> None:
        """Never returns."""
        while True:
            if not self._doubtful():
                for row in list(self._keeper.state.report_schedules.values()):
                    await self._look(row)
            for name in set(self._alarms.standing(CATEGORY)) - self._keeper.state.report_schedules.keys():
                await self._alarms.ends(CATEGORY, name)
            await asyncio.sleep(_EACH_S)

    async def _look(self, row: ReportSchedule) -> None:
        due_ns = self._due(row)
        if due_ns is None:
            self._made.pop(row.name, None)
            return
        known = self._made.get(row.name)
        if known is None or known[0] != due_ns:
            try:
                known = due_ns, await self._message(row, due_ns)
            except CasoError as error:
                await self._failed(row, due_ns, error)
                return
            self._made[row.name] = known
            await self._alarms.ends(CATEGORY, row.name)
        if not await self._outbox.post(known[1]):
            await self._submit(NoteReport(row.name, due_ns), request_id=f"report-{row.name}-{due_ns}")
            self._made.pop(row.name, None)

    def _due(self, row: ReportSchedule) -> int | None:
        """The last time that it was due and is not sent of: what came before that is told by it."""
        after_ns, now_ns = row.last_due_at_ns or row.created_at_ns, self._calendar.now_ns()
        if row.schedule.cron:
            return latest_due_ns(row.schedule, after_ns, now_ns)
        due_ns = next_due_ns(row.schedule, after_ns)
        return due_ns if due_ns is not None and due_ns <= now_ns else None

    async def _failed(self, row: ReportSchedule, due_ns: int, error: CasoError) -> None:
        log.warning("the report %s cannot be made: %s", row.name, error.message)
        text_ = f"The report {row.report} that is due by the schedule {row.name} could not be made: {error.message}"
        await self._alarms.begins(AlertKind.ERROR, CATEGORY, text_, object=row.name)
        await self._submit(NoteReport(row.name, due_ns), request_id=f"report-{row.name}-{due_ns}")

    async def _message(self, row: ReportSchedule, due_ns: int) -> Message:
        ahead = catalogue.named(row.report).ahead
        request = ReportShow(
            row.report,
            days=row.days,
            until_ns=None if ahead else due_ns,
            server=row.server,
            pool=row.pool,
            selection=row.selection,
            zone=row.schedule.zone,
            limit=MOST_ROWS,
        )
        report = await self._reporting.report(request, most_bytes=MOST_BYTES)
        return await asyncio.to_thread(message_of, row, report, due_ns)

    # --- calls ---

    async def _put(self, caller: Caller, request: ReportScheduleEdit) -> ReportScheduleView:
        if done_before(self._keeper, caller) is None:
            doc = ReportScheduleDoc(
                report=request.report,
                schedule=request.schedule,
                to=request.to,
                zone=request.zone or usual_zone(self._keeper.state),
                forms=request.forms,
                days=request.days,
                server=request.server,
                pool=request.pool,
                selection=request.selection,
            )
            row = report_schedule_of(request.name, doc)
            command = PutReportSchedule(row, new=not request.replace)
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._view(self._keeper.state.report_schedules[request.name])

    async def _delete(self, caller: Caller, request: ReportScheduleName) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self._submit(DeleteReportSchedule(request.name), who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _list(self, caller: Caller, request: q.Nothing) -> ReportScheduleList:
        rows = sorted(self._keeper.state.report_schedules.values(), key=lambda row: row.name)
        return ReportScheduleList(tuple(map(self._view, rows)))

    def _view(self, row: ReportSchedule) -> ReportScheduleView:
        after_ns = max(row.last_due_at_ns or row.created_at_ns, 0)
        return ReportScheduleView(
            name=row.name,
            report=row.report,
            schedule=presets.shown(row.schedule),
            zone=row.schedule.zone,
            to=row.to,
            forms=tuple(form.value for form in row.forms),
            days=row.days,
            server=row.server,
            pool=row.pool,
            selection=row.selection,
            next_due=format_instant(next_due_ns(row.schedule, after_ns)),
            last_due=format_instant(row.last_due_at_ns),
            created_by=row.created_by,
        )


def message_of(row: ReportSchedule, report: Report, due_ns: int) -> Message:
    """What is sent of a report: its text, and what else was asked for."""
    stamp = report.made[:10]
    attachments: list[Attachment] = []
    if ReportForm.CSV in row.forms:
        attachments += [
            Attachment(f"{report.name}-{each.name}-{stamp}.csv", "text/csv", _encoded(each.text))
            for each in sheets.sheets(report)
        ]
    if ReportForm.JSON in row.forms:
        made = Attachment(f"{report.name}-{stamp}.json", "application/json", _encoded(document.render(report)))
        attachments.append(made)
    shown = page.render(report) if ReportForm.HTML in row.forms else None
    if shown is not None:
        # readers of mail leave out styles and drawings: the page itself goes with it
        attachments.append(Attachment(f"{report.name}-{stamp}.html", "text/html", _encoded(shown)))
    mark = {True: "OK: ", False: "! ", None: ""}[report.good]
    return Message(
        key=f"report-{row.name}-{due_ns}",
        subject=f"{mark}{report.title}: {text.clean(report.verdict)}",
        text=text.render(report),
        html=None if shown is None else _encoded(shown).decode(),
        attachments=tuple(attachments),
        recipients=row.to,
        data=structs.asdict(structs.replace(report, needs=(), figures=(), charts=(), tables=()))
        if ReportForm.JSON not in row.forms
        else document.document(report),
        type="report",
    )


def _encoded(text_: str) -> bytes:
    return text_.encode("utf-8", "backslashreplace")
