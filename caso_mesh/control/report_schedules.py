"""Reports that are made by themselves and sent: commands about them, and what people write of them as rows and back."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from caso_mesh.control.documents import one_of
from caso_mesh.control.faults import Fault, raise_first, refused
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.errors import AlreadyExists, Conflict, InvalidValue, NotFound, UsageError
from caso_mesh.model.ids import check_name
from caso_mesh.model.report_schedules import (
    MOST,
    DeleteReportSchedule,
    NoteReport,
    PutReportSchedule,
    ReportForm,
    ReportSchedule,
    ReportScheduleDoc,
)
from caso_mesh.planning import presets
from caso_mesh.planning.schedule import check_schedule
from caso_mesh.reports import catalogue

_KIND = "report-schedule"
_LONGEST_DAYS = 3660.0


def report_schedule_of(name: str, doc: ReportScheduleDoc) -> ReportSchedule:
    """Raises ``NotFound`` for a report that there is not, ``InvalidValue``, ``InvalidSchedule``, ``UnknownZone``."""
    catalogue.named(doc.report)
    schedule = presets.parse_schedule(doc.schedule, doc.zone)
    check_schedule(schedule)
    return ReportSchedule(
        name=name,
        report=doc.report,
        schedule=schedule,
        to=tuple(dict.fromkeys(doc.to)),
        forms=tuple(one_of(ReportForm, form, "form of a report") for form in dict.fromkeys(doc.forms)),
        days=doc.days,
        server=doc.server,
        pool=doc.pool,
        selection=doc.selection,
    )


def report_schedule_doc(row: ReportSchedule) -> ReportScheduleDoc:
    return ReportScheduleDoc(
        report=row.report,
        schedule=presets.shown(row.schedule),
        to=row.to,
        zone=row.schedule.zone,
        forms=tuple(form.value for form in row.forms),
        days=row.days,
        server=row.server,
        pool=row.pool,
        selection=row.selection,
    )


def put_report_schedule(state: ControlState, command: PutReportSchedule, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound``, ``InvalidValue``, ``InvalidSchedule``, ``UsageError``, ``Conflict``. Which reports there
    are is not looked at: another version may have more."""
    row, old = command.row, state.report_schedules.get(command.row.name)
    if command.new and old is not None:
        raise AlreadyExists(kind=_KIND, name=row.name)
    if not command.new and old is None:
        raise NotFound(kind=_KIND, name=row.name)
    raise_first(report_schedule_faults(state, row))
    if old is None and len(state.report_schedules) >= MOST:
        raise Conflict(detail=f"There are {MOST} reports with a schedule, which are all that there may be")
    made = replace(
        row,
        created_by=context.who if old is None else old.created_by,
        created_at_ns=context.at_ns if old is None else old.created_at_ns,
        # what was due by another schedule is not sent by this one
        last_due_at_ns=None if old is None else context.at_ns,
    )
    return Effect({"schedule": row.name}, (Put("report_schedules", row.name, made),))


def report_schedule_faults(state: ControlState, row: ReportSchedule) -> Iterator[Fault]:
    """All that is wrong; places are the keys of ``ReportScheduleDoc``."""
    yield from refused((), check_name, row.name, _KIND)
    yield from refused(("schedule",), check_schedule, row.schedule)
    if not row.to:
        yield Fault(UsageError(detail=f"Say to whom the report {row.report} is sent"), ("to",))
    for name in row.to:
        if name not in state.recipients and name not in state.recipient_groups:
            yield Fault(NotFound(kind="recipient", name=name), ("to",))
    if not row.forms:
        yield Fault(UsageError(detail="Say in which form the report is sent"), ("forms",))
    if row.days is not None and not 0 < row.days <= _LONGEST_DAYS:
        expected = "It is more than 0 and at most 3660"
        yield Fault(InvalidValue(value=f"{row.days:g}", what="number of days", expected=expected), ("days",))
    if row.server is not None:
        yield from refused(("server",), state.server_named, row.server)
    if row.pool is not None:
        yield from refused(("pool",), state.pool_named, row.pool)
    if row.selection is not None:
        yield from refused(("selection",), state.list_named, row.selection)


def delete_report_schedule(state: ControlState, command: DeleteReportSchedule, context: Context) -> Effect:
    """``NotFound``."""
    if command.name not in state.report_schedules:
        raise NotFound(kind=_KIND, name=command.name)
    return Effect(None, (Put("report_schedules", command.name, None),))


def note_report(state: ControlState, command: NoteReport, context: Context) -> Effect:
    """``NotFound``. It never goes back."""
    row = state.report_schedules.get(command.name)
    if row is None:
        raise NotFound(kind=_KIND, name=command.name)
    if (row.last_due_at_ns or 0) >= command.due_at_ns:
        return Effect(None, ())
    return Effect(None, (Put("report_schedules", row.name, replace(row, last_due_at_ns=command.due_at_ns)),))
