"""``caso-mesh schedule``: what is due."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, Common, Local
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="schedule", help="What is due in the next days.")


@app.command
def preview(
    name: Annotated[
        str | None, Parameter(name="NAME", help="A selection list, a policy or a job; all, without.")
    ] = None,
    /,
    *,
    days: Annotated[int, Parameter(help="How many days from now, at most 400.")] = 7,
    limit: Annotated[int, Parameter(help="At most this many runs.", at_least=1)] = 1000,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Show what is due in the next days, with the rules of policies applied."""
    request = q.SchedulePreview(name, float(days), limit)
    output.show(ask(common, local.call("schedule.preview"), request, v.PreviewList), common.json, _preview)


def _preview(view: v.PreviewList) -> None:
    output.table(
        view.runs,
        ("due", lambda row: row.due),
        ("job", lambda row: row.job),
        ("type", lambda row: row.type),
        ("state", lambda row: row.state),
        ("because", _because),
        empty='Nothing is due. A job that runs by itself: caso-mesh backup ... --schedule "daily 22:00", or a policy (caso-mesh help guide)',
    )
    if view.more:
        output.note("There is more: ask for a shorter time, or for more with --limit.")


def _because(row: v.PreviewRow) -> str | None:
    if row.by is not None:
        return f"{row.by} is due at {row.by_due}"
    pieces = [f"runs after {row.after}"] if row.after is not None else []
    if row.first is not None:
        pieces.append(f"waits for {row.first}, which must complete first")
    return ", ".join([*pieces, *row.starts]) or None
