"""``caso-mesh duplicate``: copy a set to another device."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_WAITING, Common, Waiting
from caso_mesh.cli.waiting import submit
from caso_mesh.model import requests as q
from caso_mesh.model.states import Priority


def duplicate(
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    /,
    *,
    to: Annotated[
        str, Parameter(help="Where to: any, device:NAME, devices:NAME (a device pool), server:NAME or pool:NAME.")
    ] = "any",
    media_set: Annotated[
        str | None, Parameter(help="Media set of the copy: decides how long it is kept. Default: that of the set.")
    ] = None,
    verify: Annotated[bool, Parameter(help="Read the copy back and check it after writing.")] = False,
    priority: PriorityOption = "medium",
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Copy a backup set to another device, also one of another server.

    Only what is not there yet travels. The copy is a set of its own, and needs the first one no more.
    """
    request = q.DuplicateRequest(set, to, media_set, verify, Priority(priority))
    return submit(common, waiting, "duplicate", request)
