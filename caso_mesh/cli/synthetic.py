"""``caso-mesh synthetic``: make full sets out of what is stored."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_WAITING, Common, EscapedOption, Waiting, source_place
from caso_mesh.cli.waiting import submit
from caso_mesh.model import requests as q
from caso_mesh.model.errors import UsageError
from caso_mesh.model.states import Priority


def synthetic(
    *what: Annotated[
        str,
        Parameter(
            name="SERVER:PATH|LIST",
            help="The paths of a set, as they were backed up, of any servers; or one selection list.",
        ),
    ],
    media_set: Annotated[
        str | None,
        Parameter(help="Media set of the full set: decides how long it is kept. Default: that of the newest."),
    ] = None,
    verify: Annotated[
        bool, Parameter(help="Read back and check every byte first, not only look up that it is there.")
    ] = False,
    priority: PriorityOption = "medium",
    escaped: EscapedOption = False,
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Make a full set of the newest full or incremental one of each server, where that lies.

    The source is not read, and next to nothing is stored. The set is a full one in all: it restores alone, and
    incrementals and differentials build on it.
    """
    if not what:
        raise UsageError(detail="Name what to make full sets of: SERVER:PATH ... or a selection list")
    listed = what[0] if len(what) == 1 and ":" not in what[0] else None
    request = q.SyntheticRequest(
        sources=() if listed else tuple(source_place(each, escaped=escaped) for each in what),
        selection=listed,
        media_set=media_set,
        verify=verify,
        priority=Priority(priority),
    )
    return submit(common, waiting, "synthetic", request)
