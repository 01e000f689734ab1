"""``caso-mesh catalog``: what is in the backup sets."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.options import DEFAULTS, Common, EscapedOption, raw_path, rooted_path, rooted_place
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.units import parse_instant_ns

app = App(name="catalog", help="Files in backup sets: browse, find, versions.")


@app.command
async def ls(
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    path: Annotated[str, Parameter(name="PATH", help="A folder in it; its top without it.")] = "/",
    /,
    *,
    after: Annotated[str | None, Parameter(help="Go on after this path, where the last listing ended.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.")] = 10000,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """List a folder as of a backup set."""
    request = q.CatalogList(
        set=set,
        path=rooted_path(path, escaped=escaped).lstrip(b"/"),
        after=rooted_path(after, escaped=escaped).lstrip(b"/") if after is not None else None,
        limit=limit,
    )
    output.show(await ask(common, "catalog.ls", request, v.EntryList), common.json, _entries)


def _entries(view: v.EntryList) -> None:
    output.table(
        view.entries,
        ("mode", lambda row: row.mode),
        ("type", lambda row: row.type),
        ("size", lambda row: output.size(row.size)),
        ("modified", lambda row: row.mtime),
        ("path", lambda row: row.path),
    )
    if view.more and view.entries:
        output.warning(f"there is more; go on with --escaped --after '{view.entries[-1].path}'")


@app.command
async def find(
    glob: Annotated[str, Parameter(name="GLOB", help="Matches whole paths; without a slash the last part, too.")],
    /,
    *,
    server: Annotated[str | None, Parameter(help="Only files of this server.")] = None,
    since: Annotated[str | None, Parameter(help="Only in sets made since, as in 2025-01-31T02:00.")] = None,
    until: Annotated[str | None, Parameter(help="Only in sets made until.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.")] = 1000,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """Find files by name in all backup sets."""
    request = q.CatalogFind(
        glob=raw_path(glob, escaped=escaped),
        server=server,
        since_ns=parse_instant_ns(since) if since is not None else None,
        until_ns=parse_instant_ns(until) if until is not None else None,
        limit=limit,
    )
    output.show(await ask(common, "catalog.find", request, v.MatchList), common.json, _matches)


def _matches(view: v.MatchList) -> None:
    output.table(
        view.matches,
        ("server", lambda row: row.server),
        ("path", lambda row: row.path),
        ("size", lambda row: output.size(row.size)),
        ("modified", lambda row: row.mtime),
        ("set", lambda row: row.set),
    )
    if view.more:
        output.warning("there is more; narrow the search, or raise --limit")


@app.command
async def versions(
    place: Annotated[str, Parameter(name="SERVER:PATH", help="Which path of which server.")],
    /,
    *,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """List all versions of one path."""
    server, path = rooted_place(place, escaped=escaped)
    view = await ask(common, "catalog.versions", q.CatalogVersions(server, path), v.VersionList)
    output.show(view, common.json, _versions)


def _versions(view: v.VersionList) -> None:
    output.table(
        view.versions,
        ("modified", lambda row: row.mtime),
        ("type", lambda row: row.type),
        ("mode", lambda row: row.mode),
        ("size", lambda row: output.size(row.size)),
        ("first seen", lambda row: row.first_seen),
        ("last seen", lambda row: row.last_seen),
        ("sets", lambda row: row.sets),
        ("last set", lambda row: row.last_set),
    )
