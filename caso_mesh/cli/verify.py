"""``caso-mesh verify``: read a set back and check it."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, NOT_WAITING, Common, Local, Waiting
from caso_mesh.cli.waiting import submit
from caso_mesh.model import requests as q
from caso_mesh.model.states import Priority


def verify(
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    /,
    *,
    priority: PriorityOption = "medium",
    local: Local = NOT_LOCAL,
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Read back and check every byte of a backup set."""
    return submit(common, waiting, "verify", q.VerifyRequest(set, Priority(priority)), local)
