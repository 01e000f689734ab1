"""``caso-mesh token``: join links."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import join_links as links
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.units import parse_duration_s

app = Group(name="token", help="Join links: made, listed, taken back.")


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
    if view.id:
        output.note(f"To take it back: caso-mesh token revoke {view.id}")


@app.command(name="list")
def list_(
    *,
    all: Annotated[
        bool, Parameter(negative=(), help="Also those that are used or have expired, as long as they are remembered.")
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """List the links by which servers and operators may still join. Nobody can show their secrets again."""
    view = ask(common, "token.list", links.TokenListRequest(all), links.TokenList)
    output.show(view, common.json, _list)


def _list(view: links.TokenList) -> None:
    output.table(
        view.tokens,
        ("id", lambda row: row.id),
        ("state", lambda row: row.state),
        ("for", lambda row: "a server" if row.operator is None else f"operator {row.operator}"),
        ("expires", lambda row: row.expires),
        ("uses left", lambda row: row.uses_left),
        ("made by", lambda row: row.created_by),
        ("used by", lambda row: row.used_by),
        empty="No link is open. A new one: caso-mesh token create",
    )


@app.command
def revoke(
    id: Annotated[str, Parameter(name="ID", help="Id of the link (token list), or a unique beginning of it.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> None:
    """Take a link back: nobody joins by it any more. Who has joined by it stays; see server remove, operator revoke."""
    view = ask(common, "token.revoke", links.TokenName(id), v.Done)
    output.show(view, common.json, lambda _: output.line(f"nobody joins by {id} any more"))
