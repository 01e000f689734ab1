"""``caso-mesh catalog``: what is in the backup sets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from caso_mesh.cli import output
from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.client import Client, ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import (
    DEFAULTS,
    NOT_WAITING,
    Common,
    EscapedOption,
    Waiting,
    raw_path,
    rooted_path,
    rooted_place,
)
from caso_mesh.cli.scheduling import NOW, Scheduling
from caso_mesh.cli.waiting import submit
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model.cataloguing import DeviceCatalog
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import WITH_EXCEPTIONS, UsageError
from caso_mesh.model.listing import MOST_MATCHES, CatalogFind
from caso_mesh.model.states import Priority
from caso_mesh.model.units import parse_instant_ns, parse_size

#: So many servers are named in a warning.
_MOST_NAMED = 10

app = Group(name="catalog", help="Files in backup sets: browse, find, versions, sizes.")

SetOrPlace = Annotated[
    str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it; or SERVER:PATH (see --as-of).")
]
AsOf = Annotated[
    str | None,
    Parameter(help="With SERVER:PATH: as it was then, as in 2025-01-31T02:00; without it: as it was last."),
]


@app.command
def ls(
    set: SetOrPlace,
    path: Annotated[
        str | None, Parameter(name="PATH", help="A folder in it; what was selected for the set without it.")
    ] = None,
    /,
    *,
    as_of: AsOf = None,
    after: Annotated[str | None, Parameter(help="Go on after this path, where the last listing ended.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.", at_least=1)] = 10000,
    from_device: Annotated[
        str | None, Parameter(help="Read it out of the set on this device; the catalog is passed by.")
    ] = None,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """List what a backup set holds, a folder of it, or a folder as of a time."""
    if ":" in set and from_device is not None:
        raise UsageError(detail="--from-device belongs to a set")
    roots = ":" not in set and path is None
    set, folder = _looked_into(common, set, path or "/", as_of, escaped=escaped)
    request = b.CatalogList(
        set=set,
        path=folder,
        after=rooted_path(after, escaped=escaped).lstrip(b"/") if after is not None else None,
        limit=limit,
        from_device=from_device,
        roots=roots,
    )
    output.show(ask(common, "catalog.ls", request, b.EntryList), common.json, _entries)


def _looked_into(common: Common, set: str, path: str, as_of: str | None, *, escaped: bool) -> tuple[str, bytes]:
    """The set and the path in it (without its leading slash) that are meant."""
    if ":" not in set:
        if as_of is not None:
            raise UsageError(detail="--as-of belongs to SERVER:PATH")
        return set, rooted_path(path, escaped=escaped).lstrip(b"/")
    if path != "/":
        raise UsageError(detail="SERVER:PATH names the path already")
    server, folder = rooted_place(set, escaped=escaped)
    request = c.CatalogAsOf(server, folder, parse_instant_ns(as_of) if as_of is not None else None)
    choice = ask(common, "catalog.as-of", request, c.CatalogChoice)
    for text in choice.warnings:
        output.warning(text)
    output.note(f"set {choice.set} of {choice.source}, ended {choice.ended}")
    return choice.set, folder.lstrip(b"/")


def _entries(view: b.EntryList) -> None:
    output.table(
        view.entries,
        ("mode", lambda row: row.mode),
        ("type", lambda row: row.type),
        ("size", lambda row: output.size(row.size) if row.mtime is not None else None),
        ("modified", lambda row: row.mtime),
        ("path", lambda row: row.path),
        empty="This folder is empty.",
    )
    if view.more and view.entries:
        output.warning(f"there is more; go on with --escaped --after '{view.entries[-1].path}'")


_TYPES = {"f": EntryType.FILE, "d": EntryType.DIRECTORY, "l": EntryType.SYMLINK}


@app.command
def find(
    glob: Annotated[str, Parameter(name="GLOB", help="Matches whole paths; without a slash the last part, too.")],
    /,
    *,
    server: Annotated[str | None, Parameter(help="Only files of this server.")] = None,
    since: Annotated[str | None, Parameter(help="Only in sets made since, as in 2025-01-31T02:00.")] = None,
    until: Annotated[str | None, Parameter(help="Only in sets made until.")] = None,
    larger: Annotated[str | None, Parameter(help="Only of this size or more, as in 500MB or 10GiB.")] = None,
    smaller: Annotated[str | None, Parameter(help="Only of this size or less.")] = None,
    modified_since: Annotated[str | None, Parameter(help="Only what was changed at this time or later.")] = None,
    modified_until: Annotated[str | None, Parameter(help="Only what was changed at this time or before.")] = None,
    type: Annotated[Literal["f", "d", "l"] | None, Parameter(help="Only files, folders or symbolic links.")] = None,
    ignore_case: Annotated[bool, Parameter(negative=(), help="Letters match whatever their case.")] = False,
    limit: Annotated[int, Parameter(help="At most this many.", at_least=1)] = 1000,
    after: Annotated[str | None, Parameter(help="Go on behind a page, by what that one said.")] = None,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> int:
    """Find files by name, size, time and type in all backup sets, server by server in order of paths. Exit status 7: a server that
    keeps catalogs could not be asked, or the search took too long and was cut off."""

    def instant_ns(text: str | None) -> int | None:
        return None if text is None else parse_instant_ns(text)

    request = CatalogFind(
        glob=raw_path(glob, escaped=escaped),
        server=server,
        since_ns=instant_ns(since),
        until_ns=instant_ns(until),
        limit=limit,
        size_min=parse_size(larger) if larger is not None else None,
        size_max=parse_size(smaller) if smaller is not None else None,
        modified_since_ns=instant_ns(modified_since),
        modified_until_ns=instant_ns(modified_until),
        type=_TYPES[type] if type is not None else None,
        ignore_case=ignore_case,
        after=after,
    )
    with connect(common) as client:
        pages = list(_pages(client, request))
    view = msgspec.structs.replace(
        pages[-1],
        matches=tuple(match for page in pages for match in page.matches),
        away=tuple({each.server: each for page in pages for each in page.away}.values()),
    )
    output.show(view, common.json, _matches)
    if view.cut_off:
        output.warning(
            "the search took too long and was cut off: there may be others"
            + ("" if view.next is None else f", it goes on with --after {shlex.quote(view.next)}")
            + "; give three letters of the name, or a server"
        )
    if view.only:
        output.warning(_only(view.only))
    return _away(view) or (WITH_EXCEPTIONS if view.cut_off else 0)


def _pages(client: Client, request: CatalogFind) -> Iterator[b.MatchList]:
    """Page after page, until there are as many as were asked for, or one took too long."""
    left = request.limit
    while True:
        page = client.call("catalog.find", msgspec.structs.replace(request, limit=min(left, MOST_MATCHES)), b.MatchList)
        yield page
        left -= len(page.matches)
        if page.next is None or page.cut_off or left <= 0:
            return
        request = msgspec.structs.replace(request, after=page.next)


def _only(servers: tuple[str, ...]) -> str:
    """That others were not searched."""
    more = f" and {len(servers) - _MOST_NAMED} more" if len(servers) > _MOST_NAMED else ""
    return f"only {', '.join(servers[:_MOST_NAMED])}{more} can be searched: your role is limited to them"


def _away(view: b.MatchList | b.VersionList) -> int:
    for each in view.away:
        output.warning(each.text)
    return WITH_EXCEPTIONS if view.away else 0


def _matches(view: b.MatchList) -> None:
    output.table(
        view.matches,
        ("server", lambda row: row.server),
        ("path", lambda row: row.path),
        ("size", lambda row: output.size(row.size)),
        ("modified", lambda row: row.mtime),
        ("set", lambda row: row.set),
        empty='Nothing found. A pattern stands for the whole path, one without a slash also for the name: "*report*", "*.conf"',
    )
    if view.next is not None and not view.cut_off:
        output.note(f"There are more: --after {shlex.quote(view.next)}, or a higher --limit")


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
    view = ask(common, "catalog.versions", b.CatalogVersions(server, path), b.VersionList)
    output.show(view, common.json, _versions)
    return _away(view)


@app.command
def du(
    set: SetOrPlace,
    path: Annotated[str, Parameter(name="PATH", help="A folder in it; all of it without it.")] = "/",
    /,
    *,
    as_of: AsOf = None,
    depth: Annotated[int, Parameter(help="Show the folders below it, too, so many levels down.")] = 0,
    limit: Annotated[int, Parameter(help="At most this many folders.", at_least=1)] = 10000,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """How many files lie below a folder of a backup set, and how large they are together."""
    set, folder = _looked_into(common, set, path, as_of, escaped=escaped)
    view = ask(common, "catalog.du", c.CatalogUsage(set, folder, depth, limit), c.UsageList)
    output.show(view, common.json, _usage)


def _usage(view: c.UsageList) -> None:
    output.table(
        view.folders,
        ("files", lambda row: row.files),
        ("size", lambda row: output.size(row.bytes)),
        ("path", lambda row: row.path),
    )
    if view.more:
        output.warning("there is more; name a folder further down, or raise --limit")


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
    *names: Annotated[
        str, Parameter(name="DEVICE", help="The device whose sets are to be known again; may be repeated.")
    ],
    all: Annotated[bool, Parameter(negative=(), help="Every device that takes work when it is due.")] = False,
    scheduling: Scheduling = NOW,
    priority: PriorityOption = "medium",
    wait: Annotated[
        bool, Parameter(help="Wait until the catalog of all of them is there (default without --schedule).")
    ] = True,
    json_lines: Annotated[bool, Parameter(negative=(), help="Print progress as JSON, one record a line.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Make the records of sets and their catalog anew, from what lies on devices. It is a job, which goes on if nobody waits.

    Exit status 7: some catalogs are not there yet, or cannot be made; the exceptions say why.
    """
    if bool(names) is all:
        raise UsageError(detail="Name devices, or give --all")
    when = scheduling.words(NOT_WAITING)
    request = DeviceCatalog(tuple(names), Priority(priority), scheduling.name, when)
    return submit(common, Waiting(wait and when is None, json_lines), "catalog.remake", request)


def _versions(view: b.VersionList) -> None:
    output.table(
        view.versions,
        ("modified", lambda row: row.mtime),
        ("type", lambda row: row.type),
        ("mode", lambda row: row.mode),
        ("size", lambda row: output.size(row.size)),
        ("first seen", lambda row: row.first_seen),
        ("last seen", lambda row: row.last_seen),
        ("sets", lambda row: row.sets),
        ("first set", lambda row: row.first_set),
        ("last set", lambda row: row.last_set),
    )
