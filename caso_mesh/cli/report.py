"""``caso-mesh report``: questions about the mesh, answered as text, CSV, JSON or an HTML page."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import UsageError
from caso_mesh.model.report_schedules import (
    ReportScheduleEdit,
    ReportScheduleList,
    ReportScheduleName,
    ReportScheduleView,
)
from caso_mesh.model.reports import Report, ReportInfo, ReportList, ReportShow
from caso_mesh.model.units import format_number, parse_instant_ns

app = Group(name="report", help="Reports: is all well, what failed, what fills up, what is not backed up ...")
#: A year of a large mesh, and a night to come, take a while to be worked out.
_PATIENCE = "5m"


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the reports that there are, and what each answers."""
    output.show(ask(common, "report.list", q.Nothing(), ReportList), common.json, _list)


def _list(view: ReportList) -> None:
    output.table(
        view.reports,
        ("report", lambda row: row.name),
        ("answers", lambda row: row.answers),
        ("tells of", _time),
    )


def _time(row: ReportInfo) -> str:
    if row.days is None:
        return "now"
    days = f"{format_number(row.days)} day{'' if row.days == 1 else 's'}"
    return f"the next {days}" if row.ahead else f"the last {days}"


@app.command
def show(
    name: Annotated[str, Parameter(name="NAME", help="Which report; caso-mesh report list.")],
    /,
    *,
    days: Annotated[
        float | None, Parameter(help="Of the last so many days, or the next ones if it looks ahead.")
    ] = None,
    since: Annotated[str | None, Parameter(help="Of the time from then on (ISO 8601).")] = None,
    until: Annotated[str | None, Parameter(help="Of the time until then (ISO 8601).")] = None,
    server: Annotated[str | None, Parameter(help="Only what concerns this server.")] = None,
    pool: Annotated[str | None, Parameter(help="Only what concerns servers of this pool.")] = None,
    list_name: Annotated[str | None, Parameter(name="--list", help="Only what concerns this selection list.")] = None,
    zone: Annotated[
        str | None, Parameter(help="Time zone of days and hours, as in Europe/Berlin; that of most schedules, without.")
    ] = None,
    limit: Annotated[int, Parameter(help="At most this many rows of each table.", at_least=1)] = 1000,
    format: Annotated[
        Literal["text", "csv", "json", "html"], Parameter(name="--format", help="How it is written.")
    ] = "text",
    table: Annotated[
        str | None, Parameter(help="Only this table, by its name in CSV and JSON; the first one of a CSV without.")
    ] = None,
    output_file: Annotated[
        Path | None,
        Parameter(name="--output", help="Write to this file; the CSV of several tables to NAME-TABLE.csv beside it."),
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Make a report. A page of --format html needs nothing else: open it, print it, send it."""
    if days is not None and since is not None and until is not None:
        raise UsageError(detail="Give two of --days, --since and --until at most")
    if common.json and format not in {"text", "json"}:
        raise UsageError(detail=f"--json is not --format {format}")
    if common.timeout == DEFAULTS.timeout:
        common = dataclasses.replace(common, timeout=_PATIENCE)
    request = ReportShow(
        name,
        days=days,
        since_ns=None if since is None else parse_instant_ns(since),
        until_ns=None if until is None else parse_instant_ns(until),
        server=server,
        pool=pool,
        selection=list_name,
        zone=zone,
        limit=limit,
    )
    report = _limited(ask(common, "report.show", request, Report), table)
    shown = "json" if common.json else format
    if output_file is not None:
        _write(report, shown, output_file)
    elif shown == "text":
        _text(report)
    else:
        sys.stdout.write(_written(report, shown))
        sys.stdout.flush()
    if shown == "csv" and output_file is None and len(report.tables) > 1:
        rest = ", ".join(each.name for each in report.tables[1:])
        output.note(f"This is the table {report.tables[0].name}. There are more, for --table: {rest}.")


@app.command
def schedule(
    name: Annotated[str, Parameter(name="NAME", help="Which report; caso-mesh report list.")],
    /,
    *,
    cron: Annotated[
        str,
        Parameter(
            name="--cron", help='When: a cron expression, or as in "daily 07:00", "weekdays 07:00", "1st 06:00".'
        ),
    ],
    to: Annotated[
        tuple[str, ...], Parameter(name="--to", negative=(), help="A recipient or a group of them; may be repeated.")
    ],
    as_: Annotated[
        str | None, Parameter(name="--as", help="Name of this schedule, if it is not that of the report.")
    ] = None,
    zone: Annotated[str | None, Parameter(help="Time zone of the schedule and of the report.")] = None,
    format: Annotated[
        str,
        Parameter(name="--format", help="What goes with the text: html, csv, json, or several of them with commas."),
    ] = "html",
    days: Annotated[
        float | None, Parameter(help="Of the last so many days, or the next ones if it looks ahead.")
    ] = None,
    server: Annotated[str | None, Parameter(help="Only what concerns this server.")] = None,
    pool: Annotated[str | None, Parameter(help="Only what concerns servers of this pool.")] = None,
    list_name: Annotated[str | None, Parameter(name="--list", help="Only what concerns this selection list.")] = None,
    replace: Annotated[bool, Parameter(negative=(), help="The schedule is there, and becomes this one.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Send a report by itself, whenever it is due, to recipients and groups of them."""
    request = ReportScheduleEdit(
        name=as_ or name,
        report=name,
        schedule=cron,
        to=to,
        forms=tuple(each.strip() for each in format.split(",") if each.strip()),
        zone=zone,
        days=days,
        server=server,
        pool=pool,
        selection=list_name,
        replace=replace,
    )
    view = ask(common, "report.schedule", request, ReportScheduleView)
    output.show(view, common.json, _say_when)


def _say_when(row: ReportScheduleView) -> None:
    output.line(f"{row.name}: {row.report}, {row.schedule} ({row.zone}), next at {row.next_due}")


@app.command
def scheduled(*, common: Common = DEFAULTS) -> None:
    """List the reports that are sent by themselves."""
    output.show(ask(common, "report.scheduled", q.Nothing(), ReportScheduleList), common.json, _scheduled)


def _scheduled(view: ReportScheduleList) -> None:
    output.table(
        view.schedules,
        ("schedule", lambda row: row.name),
        ("report", lambda row: row.report),
        ("when", lambda row: row.schedule),
        ("zone", lambda row: row.zone),
        ("to", lambda row: row.to),
        ("as", lambda row: row.forms),
        ("days", lambda row: row.days),
        ("only of", lambda row: [each for each in (row.server, row.pool, row.selection) if each]),
        ("next", lambda row: row.next_due),
        ("last", lambda row: row.last_due),
        empty='No report is sent by a schedule. One is: caso-mesh report schedule overnight-summary --cron "daily 07:00" --to RECIPIENT',
    )


@app.command
def unschedule(
    name: Annotated[str, Parameter(name="SCHEDULE", help="Which schedule; caso-mesh report scheduled.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> None:
    """Send a report by itself no more."""
    view = ask(common, "report.unschedule", ReportScheduleName(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"the report {name} is not sent by itself any more"))


def _limited(report: Report, table: str | None) -> Report:
    """A report with one of its tables alone. Raises ``UsageError``."""
    from msgspec import structs

    if table is None:
        return report
    found = tuple(each for each in report.tables if each.name == table)
    if not found:
        known = ", ".join(each.name for each in report.tables)
        raise UsageError(detail=f"The report has no table {table}; it has {known}")
    return structs.replace(report, tables=found)


def _text(report: Report) -> None:
    from caso_mesh.reports import text

    for line in text.head(report):
        output.line(line)
    for table in report.tables:
        output.line("")
        output.line(table.title)
        if table.rows:
            heads = [column.title for column in table.columns]
            columns = [(head, lambda row, place=place: row[place]) for place, head in enumerate(heads)]
            output.table(text.cells(table, report), *columns)
        else:
            output.line(f"  {table.empty}")
        if table.more:
            output.note(f"{text.more(table)}: ask for them with --limit")
    for note in report.notes:
        output.note(note)


def _written(report: Report, form: str) -> str:
    from caso_mesh.reports import document, page, sheets, text

    match form:
        case "csv":
            return sheets.sheet(report.tables[0])
        case "json":
            return document.render(report)
        case "html":
            return page.render(report)
        case _:
            return text.render(report)


def _write(report: Report, form: str, path: Path) -> None:
    """Raises ``UsageError``."""
    from caso_mesh.reports import sheets

    files = {path: ""}
    if form == "csv" and len(report.tables) > 1:
        files = {
            path.with_name(f"{path.stem}-{each.name}{path.suffix or '.csv'}"): each.text
            for each in sheets.sheets(report)
        }
    else:
        files = {path: _written(report, form)}
    for target, content in files.items():
        try:
            with open(target, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(content)
        except OSError as error:
            raise UsageError(detail=f"{os.fspath(target)} cannot be written: {error.strerror or error}") from None
        output.line(f"written to {os.fspath(target)}")
