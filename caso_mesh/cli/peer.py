"""``caso-mesh peer``: static addresses of other servers."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="peer", help="Static addresses of other servers; each server keeps its own.")


@app.command
def add(
    address: Annotated[str, Parameter(name="HOST:PORT", help="Where another server may be reached.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> None:
    """Add an address where another server may be reached. It holds on the server that is asked (--state, --context) alone, also
    after a restart: so that a new server is found whoever is in office, tell each voter."""
    output.show(ask(common, "peer.add", q.PeerAdd(address), v.PeerList), common.json, _added)


def _added(view: v.PeerList) -> None:
    _list(view)
    where = view.server or "the server that was asked"
    output.note(
        f"Only {where} calls there. So that it is called whoever is in office, tell every voter (caso-mesh voter list): the same "
        "command with --state or --context of that server"
    )


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the addresses of other servers that the one that is asked knows (--state, --context)."""
    output.show(ask(common, "peer.list", q.Nothing(), v.PeerList), common.json, _list)


def _list(view: v.PeerList) -> None:
    output.table(
        view.peers,
        ("address", lambda row: row.address),
        ("known from", lambda row: row.source),
        empty="No address is known here. A new one: caso-mesh peer add HOST:PORT",
    )
