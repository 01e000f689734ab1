"""``caso-mesh alert``: what needs somebody's attention."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="alert", help="Alerts: list and answer.")


@app.command(name="list")
def list_(
    *,
    all: Annotated[bool, Parameter(negative=(), help="Answered and cleared ones, too.")] = False,
    server: Annotated[str | None, Parameter(help="Only alerts of this server.")] = None,
    pool: Annotated[str | None, Parameter(help="Only alerts of the servers of this pool.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.")] = 500,
    common: Common = DEFAULTS,
) -> None:
    """List the alerts that nobody answered yet."""
    view = ask(common, "alert.list", q.AlertListRequest(all, server, pool, limit), v.AlertList)
    output.show(view, common.json, _list)


def _list(view: v.AlertList) -> None:
    output.table(
        view.alerts,
        ("id", lambda row: row.id),
        ("raised", lambda row: row.raised),
        ("category", lambda row: row.category),
        ("alert", lambda row: row.alert),
        ("server", lambda row: row.server),
        ("text", lambda row: row.text),
        ("answered", lambda row: row.answered and f"{row.response} by {row.answered_by}"),
        ("cleared", lambda row: row.cleared),
    )


@app.command
def answer(
    id: Annotated[str, Parameter(name="ID", help="Id of the alert, or a unique beginning of it.")],
    response: Annotated[str, Parameter(name="RESPONSE", help="What you say to it.")] = "ok",
    /,
    *,
    common: Common = DEFAULTS,
) -> None:
    """Answer an alert."""
    view = ask(common, "alert.answer", q.AlertAnswer(id, response), v.Done)
    output.show(view, common.json, lambda _: output.line(f"alert {id} is answered: {response}"))
