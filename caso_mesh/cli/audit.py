"""``caso-mesh audit``: who did what."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="audit", help="Who did what.")


@app.command(name="list")
def list_(
    *,
    category: Annotated[str | None, Parameter(help="Only this category, as in security or backup.")] = None,
    limit: Annotated[int, Parameter(help="At most this many, the newest.")] = 500,
    common: Common = DEFAULTS,
) -> None:
    """List who did what, and how it ended."""
    view = ask(common, "audit.list", q.AuditListRequest(limit, category), v.AuditList)
    output.show(view, common.json, _list)


def _list(view: v.AuditList) -> None:
    output.table(
        view.entries,
        ("at", lambda row: row.at),
        ("who", lambda row: row.who),
        ("what", lambda row: row.what),
        ("outcome", lambda row: row.outcome),
        ("server", lambda row: row.server),
        ("from", lambda row: row.source),
        ("fields", lambda row: " ".join(f"{key}={value}" for key, value in row.fields.items() if value is not None)),
    )
