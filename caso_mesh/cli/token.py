"""``caso-mesh token``: join links."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.units import parse_duration_s

app = Group(name="token", help="Join links for new servers.")


@app.command
def create(
    *,
    ttl: Annotated[str, Parameter(help="How long the link is good for, as in 15m or 1h.")] = "1h",
    common: Common = DEFAULTS,
) -> None:
    """Make a join link: secret, short-lived, for one server."""
    view = ask(common, "token.create", q.TokenCreate(parse_duration_s(ttl)), v.TokenView)
    output.show(view, common.json, _one)


def _one(view: v.TokenView) -> None:
    output.line(view.link)
    output.note(f"Good for one server until {view.expires}. On that server: caso-mesh join LINK --server NAME ...")
