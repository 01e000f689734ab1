"""Commands about reports that are made by themselves and sent."""

from __future__ import annotations

from msgspec.structs import replace

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.errors import AlreadyExists, Conflict, InvalidValue, NotFound, UsageError
from caso_mesh.model.ids import check_name
from caso_mesh.model.report_schedules import MOST, DeleteReportSchedule, NoteReport, PutReportSchedule, ReportSchedule
from caso_mesh.planning.schedule import check_schedule

_KIND = "report-schedule"
_LONGEST_DAYS = 3660.0


def put_report_schedule(state: ControlState, command: PutReportSchedule, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound``, ``InvalidValue``, ``InvalidSchedule``, ``UsageError``, ``Conflict``. Which reports there
    are is not looked at: another version may have more."""
    row, old = command.row, state.report_schedules.get(command.row.name)
    if command.new and old is not None:
        raise AlreadyExists(kind=_KIND, name=row.name)
    if not command.new and old is None:
        raise NotFound(kind=_KIND, name=row.name)
    check_name(row.name, _KIND)
    check_schedule(row.schedule)
    _check(state, row)
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


def _check(state: ControlState, row: ReportSchedule) -> None:
    if not row.to:
        raise UsageError(detail=f"Say to whom the report {row.report} is sent")
    for name in row.to:
        if name not in state.recipients and name not in state.recipient_groups:
            raise NotFound(kind="recipient", name=name)
    if not row.forms:
        raise UsageError(detail="Say in which form the report is sent")
    if row.days is not None and not 0 < row.days <= _LONGEST_DAYS:
        raise InvalidValue(value=f"{row.days:g}", what="number of days", expected="It lies between 0 and 3660")
    if row.server is not None:
        state.server_named(row.server)
    if row.pool is not None:
        state.pool_named(row.pool)
    if row.selection is not None:
        state.list_named(row.selection)


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
