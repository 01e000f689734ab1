"""``caso-mesh voter``: which servers may be elected administrator."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.voters import VoterList

app = Group(name="voter", help="Voters: the servers of which one is elected administrator.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the server.")]


@app.command
def add(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Make a server a voter. It is sent all that the administrator holds first; an even one waits for the next."""
    view = ask(common, "voter.add", q.ServerName(name), v.ServerView)
    what = "votes" if view.voter else "is sent what the administrator holds, and votes as soon as it has it"
    output.show(view, common.json, lambda view: output.line(f"{view.name} {what}"))


@app.command
def remove(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Let a server vote no more. It stays a member, and does not become a voter by itself again."""
    view = ask(common, "voter.remove", q.ServerName(name), v.ServerView)
    output.show(view, common.json, lambda view: output.line(f"{view.name} is no voter"))


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the voters: which of them vote, are there and in office, and how far each is with what was decided."""
    output.show(ask(common, "voter.list", q.Nothing(), VoterList), common.json, _list)


def _list(view: VoterList) -> None:
    output.table(
        view.voters,
        ("server", lambda row: row.server),
        ("state", lambda row: row.state),
        ("in office", lambda row: "yes" if row.admin else None),
        ("connected", lambda row: "yes" if row.connected else "no"),
        ("behind", lambda row: row.behind),
        ("level", lambda row: row.feature_level),
        ("address", lambda row: row.address),
    )
    output.note(f"Voters that are there: {view.there}; needed for anything to be decided: {view.majority}")
