"""``caso-mesh why``: the story of a run, or of a night of a list or a server."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q


def why(
    name: Annotated[
        str,
        Parameter(
            name="NAME",
            help="A run, a selection list, a server or a job; list:NAME, server:NAME or job:NAME if it could be several.",
        ),
    ],
    /,
    *,
    night: Annotated[
        str | None,
        Parameter(help="The date of its evening, as in 2025-01-31: from that noon to the next. The newest, without."),
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Tell what became of a run, or of a night of a list or a server, and why."""
    output.show(ask(common, "why", q.Why(name, night), o.Story), common.json, _story)


def _story(view: o.Story) -> None:
    night = f", night of {view.night} ({view.zone})" if view.night is not None else ""
    output.line(f"{view.kind} {view.about}{night}")
    several = len(view.runs) > 1
    for line in view.lines:
        who = f"{line.name}: " if several and line.name is not None else ""
        output.line(f"{line.at}  {who}{line.text}")
    for run in view.runs if several else ():
        sets = ", ".join(each.set for each in run.sets if each.set is not None) or "no set"
        output.line(f"{run.name} ({run.run}): {run.state}, {sets}")
    for text in view.notes:
        output.note(text)
