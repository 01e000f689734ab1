"""``caso-mesh pool``: media server pools."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="pool", help="Media server pools.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the pool.")]
Servers = Annotated[tuple[str, ...], Parameter(name="--server", negative=(), help="A member; may be repeated.")]


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the pools."""
    output.show(ask(common, "pool.list", q.Nothing(), v.PoolList), common.json, _list)


def _list(view: v.PoolList) -> None:
    output.table(
        view.pools,
        ("name", lambda row: row.name),
        ("servers", lambda row: row.servers),
        empty="No pools to show. A new one: caso-mesh pool create NAME --server SERVER --server SERVER",
    )


def _one(view: v.PoolView) -> None:
    nobody = f"no server yet: caso-mesh pool set {view.name} --server NAME"
    output.line(f"pool {view.name}: {output.cell(view.servers) if view.servers else nobody}")


@app.command
def create(name: Name, /, *, server: Servers = (), common: Common = DEFAULTS) -> None:
    """Make a pool of servers."""
    output.show(ask(common, "pool.create", q.PoolEdit(name, server), v.PoolView), common.json, _one)


@app.command(name="set")
def set_(name: Name, /, *, server: Servers = (), common: Common = DEFAULTS) -> None:
    """Replace the members of a pool."""
    output.show(ask(common, "pool.set", q.PoolEdit(name, server), v.PoolView), common.json, _one)


@app.command
def delete(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Delete a pool; its servers stay."""
    view = ask(common, "pool.delete", q.PoolName(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"pool {name} was deleted"))
