"""``caso-mesh selection``: selection lists."""

from __future__ import annotations

import os
from typing import Annotated, Any

from msgspec.structs import replace

from caso_mesh.cli import output
from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.listing import ANY_SERVER, AfterOption, LimitOption, Servers, note_more
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, Common, EscapedOption, Local
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import EntryDoc, SelectionDoc
from caso_mesh.model.errors import NotFound, UsageError
from caso_mesh.model.listing import MOST_ROWS
from caso_mesh.model.units import escape_path

app = Group(name="selection", help="Selection lists: what to back up.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the selection list.")]
NewName = Annotated[str, Parameter(name="NEW", help="The new name.")]
#: How an option is taken back.
UNSET = "none"

Exclude = Annotated[
    tuple[str, ...],
    Parameter(name="--exclude", negative=(), help="Leave out what matches; may be repeated. Replaces those there are."),
]
Include = Annotated[
    tuple[str, ...],
    Parameter(name="--include", negative=(), help="Of files read only those that match one of these; may be repeated."),
]
OneFileSystem = Annotated[bool | None, Parameter(help="Do not enter other mounted file systems.")]
ExcludeCaches = Annotated[bool | None, Parameter(help="Leave out what folders with a CACHEDIR.TAG hold.")]
LargerThan = Annotated[str | None, Parameter(help="Leave out files of more than this size, as in 500MB; or none.")]
DefaultExcludes = Annotated[
    bool | None, Parameter(help="Leave out what is in /proc, /sys, /run and /dev, and swap files (default).")
]
Priority = PriorityOption
Window = Annotated[
    str | None,
    Parameter(help='When its runs may start, as in "zone Europe/Berlin; mon-fri 20:00-06:00; sat,sun"; or none.'),
]
Within = Annotated[str | None, Parameter(help="Only this writes it: server:NAME or pool:NAME; or none.")]
OldestGood = Annotated[
    str | None, Parameter(help="An alert stands while the newest good backup is older than this, as in 26h; or none.")
]
Logon = Annotated[
    str | None, Parameter(help="Logon information that the commands of its dumps (SERVER:@NAME) are given; or none.")
]


@app.command(name="list")
def list_(
    *,
    servers: Servers = ANY_SERVER,
    limit: LimitOption = MOST_ROWS,
    after: AfterOption = None,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """List the selection lists that name servers."""
    request = q.SelectionListRequest(servers.server, servers.pool, limit, after)
    output.show(ask(common, local.call("selection.list"), request, v.SelectionViews), common.json, _list)


def _list(view: v.SelectionViews) -> None:
    output.table(
        view.selections,
        ("name", lambda row: row.name),
        ("entries", lambda row: [*row.definition.paths, *(entry.path for entry in row.definition.entries)]),
        ("priority", lambda row: row.definition.priority),
        ("policies", lambda row: row.policies),
        empty="No selection lists to show. A new one: caso-mesh selection create NAME SERVER:/PATH",
    )
    note_more(view.more, view.selections[-1].name if view.selections else None)


@app.command
def show(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Show a selection list, its policies and the jobs that were made."""
    output.show(ask(common, local.call("selection.show"), q.Named(name), v.SelectionView), common.json, _show)


def _show(view: v.SelectionView) -> None:
    listed = view.definition
    output.details(
        ("name", view.name),
        ("created", f"{view.created} by {view.created_by}"),
        ("paths", listed.paths or None),
        *((f"path {entry.path}", _patterns(entry)) for entry in listed.entries),
        ("exclude", listed.exclude or None),
        ("include", listed.include or None),
        ("one file system", listed.one_file_system or None),
        ("exclude caches", listed.exclude_caches or None),
        ("exclude larger than", listed.exclude_larger_than),
        ("default excludes", None if listed.default_excludes else "no"),
        ("priority", listed.priority),
        ("window", listed.window or None),
        ("within", listed.within),
        ("oldest good backup", listed.oldest_good),
        ("policies", view.policies),
        ("jobs", view.jobs or None),
    )


def _patterns(entry: EntryDoc) -> str:
    pieces = [f"exclude {pattern}" for pattern in entry.exclude] + [f"include {pattern}" for pattern in entry.include]
    return ", ".join([*pieces, f"logon {entry.logon}"] if entry.logon else pieces)


@app.command
def create(
    name: Name,
    /,
    *sources: Annotated[str, Parameter(name="SERVER:PATH", help="What to back up; SERVER:@NAME for a dump.")],
    exclude: Exclude = (),
    include: Include = (),
    one_file_system: OneFileSystem = None,
    exclude_caches: ExcludeCaches = None,
    exclude_larger_than: LargerThan = None,
    default_excludes: DefaultExcludes = None,
    priority: Priority = "medium",
    window: Window = None,
    within: Within = None,
    oldest_good: OldestGood = None,
    logon: Logon = None,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """Make a selection list."""
    if not sources:
        raise UsageError(detail="Say what to back up, as SERVER:/PATH")
    listed = _with_logon(
        SelectionDoc(
            paths=tuple(_place(source, escaped=escaped) for source in sources),
            exclude=exclude,
            include=include,
            one_file_system=bool(one_file_system),
            exclude_caches=bool(exclude_caches),
            exclude_larger_than=_unset(exclude_larger_than),
            default_excludes=default_excludes is not False,
            priority=priority,
            window=_unset(window) or "",
            within=_unset(within),
            oldest_good=_unset(oldest_good),
        ),
        None,
        logon,
    )
    view = ask(common, "selection.create", q.SelectionCreate(name, listed), v.SelectionView)
    output.show(view, common.json, _show)


@app.command
def edit(
    name: Name,
    /,
    *,
    add: Annotated[tuple[str, ...], Parameter(name="--add", negative=(), help="One more SERVER:PATH.")] = (),
    remove: Annotated[tuple[str, ...], Parameter(name="--remove", negative=(), help="A SERVER:PATH less.")] = (),
    of: Annotated[
        str | None,
        Parameter(help="The SERVER:PATH to which --exclude, --include and --logon apply; else to all of the list."),
    ] = None,
    exclude: Exclude = (),
    include: Include = (),
    no_patterns: Annotated[bool, Parameter(negative=(), help="Take all patterns back (of the entry --of).")] = False,
    one_file_system: OneFileSystem = None,
    exclude_caches: ExcludeCaches = None,
    exclude_larger_than: LargerThan = None,
    default_excludes: DefaultExcludes = None,
    priority: Annotated[str | None, Parameter(help="Who goes first.")] = None,
    window: Window = None,
    within: Within = None,
    oldest_good: OldestGood = None,
    logon: Logon = None,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """Change a selection list; the jobs that were made of it follow."""
    with connect(common) as client:
        old = client.call("selection.show", q.Named(name), v.SelectionView).definition
        listed = _entries(old, add, remove, escaped=escaped)
        if exclude or include or no_patterns:
            listed = _with_patterns(listed, of, exclude, include, escaped=escaped)
        if logon is not None:
            listed = _with_logon(listed, None if of is None else _place(of, escaped=escaped), logon)
        values: dict[str, Any] = {
            "one_file_system": one_file_system,
            "exclude_caches": exclude_caches,
            "default_excludes": default_excludes,
            "priority": priority,
            "window": None if window is None else _unset(window) or "",
        }
        given = {key: value for key, value in values.items() if value is not None}
        optional = {"exclude_larger_than": exclude_larger_than, "within": within, "oldest_good": oldest_good}
        given.update({key: _unset(value) for key, value in optional.items() if value is not None})
        listed = replace(listed, **given)
        view = client.call("selection.set", q.SelectionSet(name, listed, before=old), v.SelectionView)
    output.show(view, common.json, _show)


def _entries(old: SelectionDoc, add: tuple[str, ...], remove: tuple[str, ...], *, escaped: bool) -> SelectionDoc:
    gone = {_place(text, escaped=escaped) for text in remove}
    there = {*old.paths, *(entry.path for entry in old.entries)}
    for path in gone - there:
        raise NotFound(kind="entry", name=path)
    paths = [path for path in old.paths if path not in gone]
    paths += [path for text in add if (path := _place(text, escaped=escaped)) not in paths]
    return replace(old, paths=tuple(paths), entries=tuple(entry for entry in old.entries if entry.path not in gone))


def _with_patterns(
    old: SelectionDoc, of: str | None, exclude: tuple[str, ...], include: tuple[str, ...], *, escaped: bool
) -> SelectionDoc:
    if of is None:
        return replace(old, exclude=exclude, include=include)
    path = _place(of, escaped=escaped)
    if path not in {*old.paths, *(entry.path for entry in old.entries)}:
        raise NotFound(kind="entry", name=path)
    others = tuple(entry for entry in old.entries if entry.path != path)
    logon = next((entry.logon for entry in old.entries if entry.path == path), None)
    return replace(
        old,
        paths=tuple(each for each in old.paths if each != path),
        entries=(*others, EntryDoc(path, exclude, include, logon)),
    )


def _with_logon(old: SelectionDoc, of: str | None, logon: str | None) -> SelectionDoc:
    """A list of which one dump, or each (``of`` None), has a logon, or (``none``) has none any more."""
    if logon is None:
        return old
    entries = {path: EntryDoc(path) for path in old.paths} | {entry.path: entry for entry in old.entries}
    chosen = [path for path in entries if path == of or (of is None and path.partition(":")[2].startswith("@"))]
    if not chosen:
        if of is None:
            raise UsageError(detail="--logon belongs to SERVER:@NAME")
        raise NotFound(kind="entry", name=of)
    entries.update({path: replace(entries[path], logon=_unset(logon)) for path in chosen})
    return replace(old, paths=(), entries=tuple(entries.values()))


@app.command
def rename(name: Name, new: NewName, /, *, common: Common = DEFAULTS) -> None:
    """Rename a selection list; its jobs keep their history."""
    view = ask(common, "selection.rename", q.Renamed(name, new), v.SelectionView)
    output.show(view, common.json, _show)


@app.command
def copy(name: Name, new: NewName, /, *, common: Common = DEFAULTS) -> None:
    """Copy a selection list; the copy has no policies."""
    view = ask(common, "selection.copy", q.Renamed(name, new), v.SelectionView)
    output.show(view, common.json, _show)


@app.command
def delete(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Delete a selection list that no policy is associated with; its sets stay."""
    view = ask(common, local.call("selection.delete"), q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"selection list {name} was deleted"))


def _place(text: str, *, escaped: bool) -> str:
    """``SERVER:PATH`` in its escaped form."""
    if escaped:
        return text
    server, colon, path = text.partition(":")
    return server + colon + escape_path(os.fsencode(path))


def _unset(value: str | None) -> str | None:
    return None if value == UNSET else value
