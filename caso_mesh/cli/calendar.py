"""``caso-mesh calendar``: named days without runs."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import CalendarDoc

app = Group(name="calendar", help="Calendars: named days without runs.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the calendar.")]
Days = Annotated[
    tuple[str, ...],
    Parameter(name="--day", negative=(), help="As in 2025-12-24, or 2025-12-24..2026-01-01; may be repeated."),
]


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the calendars."""
    output.show(ask(common, "calendar.list", q.Nothing(), v.CalendarViews), common.json, _list)


def _list(view: v.CalendarViews) -> None:
    output.table(
        view.calendars,
        ("name", lambda row: row.name),
        ("days", lambda row: row.definition.days),
        empty="No calendars to show. A new one: caso-mesh calendar create NAME --day 2025-12-24..2026-01-01",
    )


def _one(view: v.CalendarView) -> None:
    output.line(f"calendar {view.name}: {output.cell(view.definition.days)}")


@app.command
def create(name: Name, /, *, day: Days = (), common: Common = DEFAULTS) -> None:
    """Make a calendar."""
    edit = q.CalendarEdit(name, CalendarDoc(day))
    output.show(ask(common, "calendar.create", edit, v.CalendarView), common.json, _one)


@app.command(name="set")
def set_(name: Name, /, *, day: Days = (), common: Common = DEFAULTS) -> None:
    """Replace the days of a calendar; schedules that name it follow."""
    edit = q.CalendarEdit(name, CalendarDoc(day))
    output.show(ask(common, "calendar.set", edit, v.CalendarView), common.json, _one)


@app.command
def delete(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Delete a calendar that no template names."""
    view = ask(common, "calendar.delete", q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"calendar {name} was deleted"))
