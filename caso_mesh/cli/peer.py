"""``caso-mesh peer``: static addresses of other servers."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="peer", help="Static addresses of other servers.")


@app.command
def add(
    address: Annotated[str, Parameter(name="HOST:PORT", help="Where another server may be reached.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> None:
    """Add an address where another server may be reached."""
    output.show(ask(common, "peer.add", q.PeerAdd(address), v.PeerList), common.json, _list)


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the addresses of other servers that this one knows."""
    output.show(ask(common, "peer.list", q.Nothing(), v.PeerList), common.json, _list)


def _list(view: v.PeerList) -> None:
    output.table(
        view.peers,
        ("address", lambda row: row.address),
        ("known from", lambda row: row.source),
        empty="No address is known here. A new one: caso-mesh peer add HOST:PORT",
    )
