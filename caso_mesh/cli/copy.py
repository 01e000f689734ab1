"""``caso-mesh copy``: copy definitions to servers, which then run them by themselves."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import UsageError

app = Group(
    name="copy", help="Copy jobs, policies and settings to servers, which run them also without an administrator."
)


@app.command
def to(
    target: Annotated[str, Parameter(name="TARGET", help="server:NAME, or pool:NAME for all servers of a pool.")],
    /,
    *,
    policy: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="A policy, with the selection lists that it has there; may be repeated."),
    ] = (),
    selection: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="A selection list, as far as it is about the server; may be repeated."),
    ] = (),
    job: Annotated[
        tuple[str, ...], Parameter(negative=(), help="A recurring job that no policy made; may be repeated.")
    ] = (),
    error_rules: Annotated[bool, Parameter(negative=(), help="The error-handling rules.")] = False,
    settings: Annotated[
        bool, Parameter(negative=(), help="The settings of the mesh, which become those of the server.")
    ] = False,
    overwrite: Annotated[
        bool,
        Parameter(
            negative=(), help="What has a name that is taken there takes its place; its jobs keep their history."
        ),
    ] = False,
    skip: Annotated[
        bool, Parameter(negative=(), help="What has a name that is taken there is left out (default).")
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Copy to a server, or to those of a pool. One that is away gets it when it returns.

    A server runs what was copied to it by its own schedule, to its own devices, beside what is delegated to it: hold the
    jobs here if it shall take them over.
    """
    if overwrite and skip:
        raise UsageError(detail="Give --overwrite or --skip, not both")
    request = q.CopyTo(target, policy, selection, job, error_rules, settings, overwrite)
    output.show(ask(common, "copy.to", request, v.Copied), common.json, _copied)


def _copied(view: v.Copied) -> None:
    for row in view.copies:
        output.line(f"copied to {row.server}; what came of it: caso-mesh copy list --server {row.server}")
    if view.settings:
        output.line(f"settings of the mesh are those of {view.settings} servers now")
    for each in view.refused:
        output.warning(f"{each.server}: {each.error.get('message', '')}")


@app.command(name="list")
def list_(
    *,
    server: Annotated[str | None, Parameter(help="Only what was copied to this server.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.", at_least=1)] = 200,
    common: Common = DEFAULTS,
) -> None:
    """List what was copied to servers, the newest first, and what came of it."""
    view = ask(common, "copy.list", q.CopyListRequest(server, limit), v.CopyList)
    output.show(view, common.json, _list)


def _list(view: v.CopyList) -> None:
    output.table(
        [(row, each) for row in view.copies for each in (row.outcomes or (None,))],
        ("copied", lambda row: row[0].copied),
        ("by", lambda row: row[0].copied_by),
        ("server", lambda row: row[0].server),
        ("on a clash", lambda row: row[0].clash),
        ("taken", lambda row: row[0].taken or "not yet"),
        ("what", lambda row: row[1] and row[1].kind),
        ("name", lambda row: row[1] and row[1].name),
        ("came", lambda row: row[1] and row[1].came),
        ("because", lambda row: (row[1] and row[1].reason) or None),
        empty="Nothing was copied to a server. What is: caso-mesh copy to server:SERVER --policy POLICY",
    )
    if view.more:
        output.note("There are more: a higher --limit, or one server: --server")
