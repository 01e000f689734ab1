"""Reports that are made by themselves and sent: what shall be sent when and to whom, and the requests and commands about it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.jobs import CronSchedule

#: How many there may be.
MOST = 200


class ReportForm(StrEnum):
    """What goes with the text: a page, or files."""

    HTML = "html"
    CSV = "csv"
    JSON = "json"
    TEXT = "text"


class ReportSchedule(Struct, frozen=True):
    """The report ``report`` goes to ``to`` (recipients and groups) when ``schedule`` is due. ``days``, ``server``, ``pool`` and
    ``selection`` (names) as in ``ReportShow``. What was due until ``last_due_at_ns`` was sent, or given up."""

    name: str
    report: str
    schedule: CronSchedule
    to: tuple[str, ...]
    forms: tuple[ReportForm, ...] = (ReportForm.HTML,)
    days: float | None = None
    server: str | None = None
    pool: str | None = None
    selection: str | None = None
    created_by: str = ""
    created_at_ns: int = 0
    last_due_at_ns: int | None = None


class ReportScheduleDoc(Struct, frozen=True):
    """A report that is sent by itself, as people write it. ``schedule``: a cron line, or ``daily 07:00`` and its like. ``to``:
    recipients and groups. ``forms``: ``html``, ``csv``, ``json``, ``text``. ``days``, ``server``, ``pool`` and ``selection``
    limit it as in ``ReportShow``."""

    report: str
    schedule: str
    to: tuple[str, ...]
    zone: str = "UTC"
    forms: tuple[str, ...] = ("html",)
    days: float | None = None
    server: str | None = None
    pool: str | None = None
    selection: str | None = None


class PutReportSchedule(Struct, frozen=True, tag="put-report-schedule", tag_field="do"):
    """``new``: it must not be there; else it must."""

    row: ReportSchedule
    new: bool


class DeleteReportSchedule(Struct, frozen=True, tag="delete-report-schedule", tag_field="do"):
    name: str


class NoteReport(Struct, frozen=True, tag="note-report", tag_field="do"):
    """What was due then was sent, or given up."""

    name: str
    due_at_ns: int


class ReportScheduleEdit(Struct, frozen=True):
    """``schedule`` is a cron expression, or as in ``daily 07:00``, in ``zone`` (the one that most schedules have, without).
    ``replace``: it is there and becomes this one."""

    name: str
    report: str
    schedule: str
    to: tuple[str, ...]
    forms: tuple[str, ...] = ("html",)
    zone: str | None = None
    days: float | None = None
    server: str | None = None
    pool: str | None = None
    selection: str | None = None
    replace: bool = False


class ReportScheduleName(Struct, frozen=True):
    name: str


class ReportScheduleView(Struct, frozen=True):
    """``last_due``: what was due then, and before, was sent or given up."""

    name: str
    report: str
    schedule: str
    zone: str
    to: tuple[str, ...]
    forms: tuple[str, ...]
    days: float | None
    server: str | None
    pool: str | None
    selection: str | None
    next_due: str | None
    last_due: str | None
    created_by: str


class ReportScheduleList(Struct, frozen=True):
    schedules: tuple[ReportScheduleView, ...]
