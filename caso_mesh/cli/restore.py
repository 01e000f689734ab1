"""``caso-mesh restore``: bring back a set or parts of it."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.options import DEFAULTS, NOT_WAITING, Common, EscapedOption, Waiting, place, rooted_path
from caso_mesh.cli.waiting import submit
from caso_mesh.model import requests as q
from caso_mesh.model.errors import UsageError
from caso_mesh.model.states import Overwrite, Priority


async def restore(
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    /,
    *paths: Annotated[str, Parameter(name="PATH", help="What to bring back; everything without it.")],
    to: Annotated[
        str | None, Parameter(help="SERVER:FOLDER to restore below, by whole paths; without it: where it came from.")
    ] = None,
    strip: Annotated[bool, Parameter(negative=(), help="With --to: without the path of the source's root.")] = False,
    overwrite: Annotated[
        Literal["never", "older", "always"], Parameter(help="What to do with files that exist.")
    ] = "always",
    no_ownership: Annotated[bool, Parameter(negative=(), help="Do not restore owners and groups.")] = False,
    priority: PriorityOption = "medium",
    escaped: EscapedOption = False,
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Restore a backup set or parts of it."""
    if strip and to is None:
        raise UsageError(detail="--strip belongs to --to")
    request = q.RestoreRequest(
        set=set,
        paths=tuple(rooted_path(path, escaped=escaped) for path in paths),
        to=place(to, escaped=escaped) if to is not None else None,
        strip=strip,
        overwrite=Overwrite(overwrite),
        ownership=not no_ownership,
        priority=Priority(priority),
    )
    return await submit(common, waiting, "restore", request)
