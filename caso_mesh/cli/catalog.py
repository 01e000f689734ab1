"""``caso-mesh catalog``: what is in the backup sets."""

from __future__ import annotations

import time
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common, EscapedOption, raw_path, rooted_path, rooted_place
from caso_mesh.model import catalogs as c
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import WITH_EXCEPTIONS, TimedOut
from caso_mesh.model.units import parse_instant_ns

#: So long may the catalog of one set take before waiting for it is given up; it goes on all the same.
_PATIENCE_S = 1800.0

app = Group(name="catalog", help="Files in backup sets: browse, find, versions.")


@app.command
def ls(
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    path: Annotated[str, Parameter(name="PATH", help="A folder in it; its top without it.")] = "/",
    /,
    *,
    after: Annotated[str | None, Parameter(help="Go on after this path, where the last listing ended.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.")] = 10000,
    from_device: Annotated[
        str | None, Parameter(help="Read it out of the set on this device; the catalog is passed by.")
    ] = None,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """List a folder as of a backup set."""
    request = q.CatalogList(
        set=set,
        path=rooted_path(path, escaped=escaped).lstrip(b"/"),
        after=rooted_path(after, escaped=escaped).lstrip(b"/") if after is not None else None,
        limit=limit,
        from_device=from_device,
    )
    output.show(ask(common, "catalog.ls", request, v.EntryList), common.json, _entries)


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
def find(
    glob: Annotated[str, Parameter(name="GLOB", help="Matches whole paths; without a slash the last part, too.")],
    /,
    *,
    server: Annotated[str | None, Parameter(help="Only files of this server.")] = None,
    since: Annotated[str | None, Parameter(help="Only in sets made since, as in 2025-01-31T02:00.")] = None,
    until: Annotated[str | None, Parameter(help="Only in sets made until.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.")] = 1000,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> int:
    """Find files by name in all backup sets. Exit status 7: a server that keeps catalogs could not be asked."""
    request = q.CatalogFind(
        glob=raw_path(glob, escaped=escaped),
        server=server,
        since_ns=parse_instant_ns(since) if since is not None else None,
        until_ns=parse_instant_ns(until) if until is not None else None,
        limit=limit,
    )
    view = ask(common, "catalog.find", request, v.MatchList)
    output.show(view, common.json, _matches)
    return _away(view)


def _away(view: v.MatchList | v.VersionList) -> int:
    for each in view.away:
        output.warning(each.text)
    return WITH_EXCEPTIONS if view.away else 0


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
def versions(
    place: Annotated[str, Parameter(name="SERVER:PATH", help="Which path of which server.")],
    /,
    *,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> int:
    """List all versions of one path. Exit status 7: a server that keeps catalogs could not be asked."""
    server, path = rooted_place(place, escaped=escaped)
    view = ask(common, "catalog.versions", q.CatalogVersions(server, path), v.VersionList)
    output.show(view, common.json, _versions)
    return _away(view)


@app.command
def modes(
    *,
    server: Annotated[str | None, Parameter(help="Only of this server.")] = None,
    pool: Annotated[str | None, Parameter(help="Only of the members of this pool.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Where the catalogs of each server's sets are kept, and how far a move is."""
    view = ask(common, "catalog.modes", c.CatalogModesRequest(server, pool), c.CatalogModes)
    output.show(view, common.json, _modes)


def _modes(view: c.CatalogModes) -> None:
    output.table(
        view.servers,
        ("server", lambda row: row.server),
        ("mode", lambda row: row.mode.value),
        ("from", lambda row: row.origin),
        ("sets", lambda row: row.sets),
        ("at the admin", lambda row: row.at_admin),
        ("at the server", lambda row: row.at_server),
        ("state", lambda row: row.state if row.state != "moving" else f"moving, {row.percent:.0f} %"),
    )
    for row in view.servers:
        if row.note is not None:
            output.warning(row.note)


@app.command
def rebuild(
    device: Annotated[str, Parameter(name="DEVICE", help="The device whose sets are to be known again.")],
    /,
    *,
    wait: Annotated[
        bool, Parameter(name="--wait", negative=(), help="Wait until the catalog of all of them is here.")
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Make the records of sets and their catalog anew, from what lies on a device."""
    began_s = time.monotonic()
    with connect(common) as client:
        view = client.call("catalog.rebuild", q.DeviceName(device), v.CatalogRebuilt)
        if wait and view.pending:
            files = _all_here(client, view.device)
            seconds = time.monotonic() - began_s
            output.note(f"the catalog of {files} files in {seconds:.1f} s, {files / max(seconds, 0.001):.0f} files/s")
    output.show(view, common.json, _rebuilt)


def _all_here(client: Client, device: str) -> int:
    """Waits until every set of a device has its catalog; how many files those have that had none."""
    request = q.SetListRequest(limit=1_000_000)
    missing: dict[str, int] = {}
    left, changed_s = -1, time.monotonic()
    while True:
        rows = [row for row in client.call("set.list", request, v.SetList).sets if row.device == device]
        now = {row.id: row.files for row in rows if not row.catalog}
        missing |= now
        if not now:
            return sum(missing.values())
        if len(now) != left:
            left, changed_s = len(now), time.monotonic()
        if time.monotonic() - changed_s > _PATIENCE_S:
            raise TimedOut(what=f"the catalog of {left} sets of {device}", seconds=f"{_PATIENCE_S:g}")
        time.sleep(0.5)


def _rebuilt(view: v.CatalogRebuilt) -> None:
    output.details(
        ("device", view.device),
        ("read by", view.server),
        ("sets", view.sets),
        ("new here", view.added),
        ("deleted there", view.deleted),
        ("without catalog", view.pending),
    )


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
