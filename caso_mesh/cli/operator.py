"""``caso-mesh operator``: people, and what each may do where."""

from __future__ import annotations

from typing import Annotated, Literal

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.states import Role
from caso_mesh.model.units import parse_duration_s

app = Group(name="operator", help="People, and what each may do where.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the operator.")]


@app.command
def create(
    name: Name,
    /,
    *,
    role: Annotated[
        Literal["admin", "operator", "restore", "viewer"],
        Parameter(help="What the operator may do; each role holds the ones after it."),
    ],
    server: Annotated[
        tuple[str, ...], Parameter(name="--server", negative=(), help="Only on this server; may be repeated.")
    ] = (),
    pool: Annotated[
        tuple[str, ...],
        Parameter(name="--pool", negative=(), help="Only on the members of this pool; may be repeated."),
    ] = (),
    ttl: Annotated[str, Parameter(help="How long the link is good for, as in 15m or 1h.")] = "1h",
    common: Common = DEFAULTS,
) -> None:
    """Invite an operator by a link. The key is made on the operator's own machine and never leaves it."""
    request = q.OperatorCreate(name, Role(role), server, pool, parse_duration_s(ttl))
    output.show(ask(common, "operator.create", request, v.OperatorInvited), common.json, _invited)


def _invited(view: v.OperatorInvited) -> None:
    output.line(view.link)
    output.note(
        f"Good for one key until {view.expires}. On {view.name}'s machine: caso-mesh context create NAME --link LINK"
    )


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the operators and what each may do, and who is invited."""
    output.show(ask(common, "operator.list", q.Nothing(), v.OperatorList), common.json, _list)


def _list(view: v.OperatorList) -> None:
    output.table(
        view.operators,
        ("name", lambda row: row.name),
        ("state", lambda row: row.state),
        ("everywhere", lambda row: row.role),
        ("on", lambda row: tuple(f"{place}: {role}" for place, role in row.on.items())),
        ("on pools", lambda row: tuple(f"{pool}: {role}" for pool, role in row.on_pools.items())),
        ("key at", lambda row: row.home),
        ("expires", lambda row: row.expires),
    )


@app.command
def revoke(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Refuse an operator's key from now on, on open links too; or take an invitation back."""
    view = ask(common, "operator.revoke", q.OperatorName(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"{name} was revoked"))
