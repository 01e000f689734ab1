"""``caso-mesh restore``: bring back a set or parts of it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated, Literal

from caso_mesh.cli import output
from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import (
    DEFAULTS,
    NOT_LOCAL,
    NOT_WAITING,
    Common,
    EscapedOption,
    Local,
    Waiting,
    command_place,
    place,
    rooted_path,
    rooted_place,
)
from caso_mesh.cli.waiting import submit
from caso_mesh.model import browsing as b
from caso_mesh.model import requests as q
from caso_mesh.model.errors import UsageError
from caso_mesh.model.selections import spread
from caso_mesh.model.states import Overwrite, Priority
from caso_mesh.model.units import parse_instant_ns, unescape_path

#: A list of paths that is read.
_LARGEST_LIST = 64 << 20


def restore(
    set: Annotated[
        str,
        Parameter(name="SET", help="Id of the backup set, or a unique beginning of it; or SERVER:PATH (see --as-of)."),
    ],
    /,
    *paths: Annotated[str, Parameter(name="PATH", help="What to bring back; everything without it.")],
    as_of: Annotated[
        str | None,
        Parameter(help="With SERVER:PATH: as it was then, as in 2025-01-31T02:00; without it: as it was last."),
    ] = None,
    to: Annotated[
        str | None, Parameter(help="SERVER:FOLDER to restore below, by whole paths; without it: where it came from.")
    ] = None,
    into_command: Annotated[
        str | None,
        Parameter(help="NAME or SERVER:NAME: give one file of the set to a command of that server's own file."),
    ] = None,
    logon: Annotated[
        str | None, Parameter(help="With --into-command: logon information that the command is given.")
    ] = None,
    from_device: Annotated[
        str | None, Parameter(help="Look for the set on this device, whatever the administrator knows of it.")
    ] = None,
    files_from: Annotated[
        str | None, Parameter(help="Bring back what this file names, too, one path a line; - reads it from stdin.")
    ] = None,
    null: Annotated[
        bool, Parameter(name="-0", negative=(), help="With --files-from: paths end with a NUL and not with the line.")
    ] = False,
    strip: Annotated[bool, Parameter(negative=(), help="With --to: without the path of the source's root.")] = False,
    overwrite: Annotated[
        Literal["never", "older", "always"], Parameter(help="What to do with files that exist.")
    ] = "always",
    no_ownership: Annotated[bool, Parameter(negative=(), help="Do not restore owners and groups.")] = False,
    priority: PriorityOption = "medium",
    escaped: EscapedOption = False,
    local: Local = NOT_LOCAL,
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Restore a backup set or parts of it."""
    if logon is not None and into_command is None:
        raise UsageError(detail="--logon belongs to --into-command")
    if strip and to is None:
        raise UsageError(detail="--strip belongs to --to")
    if null and files_from is None:
        raise UsageError(detail="-0 belongs to --files-from")
    wanted = tuple(rooted_path(path, escaped=escaped) for path in paths)
    named = () if files_from is None else _named_in(files_from, null=null, escaped=escaped)
    if ":" in set and from_device is not None:
        raise UsageError(detail="--from-device belongs to a set")
    if ":" in set and local.local:
        raise UsageError(detail="With --local name the set: which one has a path as of some time is in the catalog")
    if ":" in set:
        server, first = rooted_place(set, escaped=escaped)
        near = place(to, escaped=escaped)[0] if to is not None else None
        set = chosen_set(common, server, (first, *wanted), as_of, near=near)
        if not named:
            wanted = (first, *wanted)
    elif as_of is not None:
        raise UsageError(detail="--as-of belongs to SERVER:PATH")
    listed, selection = spread([path.lstrip(b"/") for path in (*wanted, *named)]) if named else (wanted, b"")
    request = q.RestoreRequest(
        set=set,
        paths=listed,
        selection=selection,
        to=place(to, escaped=escaped) if to is not None else None,
        strip=strip,
        into_command=command_place(into_command) if into_command is not None else None,
        overwrite=Overwrite(overwrite),
        ownership=not no_ownership,
        priority=Priority(priority),
        from_device=from_device,
        logon=logon,
    )
    # an administrator that did not know of selections would restore everything: it does not know this call either
    return submit(common, waiting, "restore.selected" if selection else "restore", request, local)


def _named_in(file: str, *, null: bool, escaped: bool) -> tuple[bytes, ...]:
    """The absolute paths that a file names. Raises ``UsageError`` if it names none, or is too large."""
    try:
        with open(file, "rb") if file != "-" else nullcontext(sys.stdin.buffer) as stream:
            text = stream.read(_LARGEST_LIST + 1)
    except OSError as error:
        raise UsageError(detail=f"{file} cannot be read: {error.strerror}") from None
    if len(text) > _LARGEST_LIST:
        raise UsageError(detail=f"{file} names too much: more than {_LARGEST_LIST >> 20} MiB")
    lines = [line for line in text.split(b"\x00" if null else b"\n") if line]
    if escaped:
        lines = [unescape_path(line.decode("utf-8", "surrogateescape")) for line in lines]
    if not lines:
        raise UsageError(detail=f"{file} names no path")
    return tuple(b"/" + line.lstrip(b"/") for line in lines)


def chosen_set(
    common: Common, server: str, paths: tuple[bytes, ...], as_of: str | None, *, near: str | None = None
) -> str:
    """The set with ``paths`` of ``server`` as they were at a time, of copies the one that is nearest to the server ``near``;
    says which it is and where it lies."""
    request = b.SetAsOf(server, paths, parse_instant_ns(as_of) if as_of is not None else None, near)
    choice = ask(common, "set.as-of", request, b.SetChoice)
    for text in choice.warnings:
        output.warning(text)
    readers = ", ".join(choice.servers)
    output.note(f"set {choice.id} of {choice.source}, ended {choice.ended}, on the device {choice.device} of {readers}")
    return choice.id
