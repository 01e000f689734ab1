"""``caso-mesh drill``: whether a set can be restored, by restoring some of it."""

from __future__ import annotations

import re
from typing import Annotated

from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_WAITING, Common, Waiting
from caso_mesh.cli.waiting import submit
from caso_mesh.model import requests as q
from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.states import Priority
from caso_mesh.model.units import parse_size


def drill(
    set: Annotated[
        str,
        Parameter(
            name="SET|SERVER", help="Id of the backup set, or a unique beginning of it; or a server: its newest set."
        ),
    ],
    /,
    *,
    sample: Annotated[
        str, Parameter(help="How many entries, as in 100, or which share of all, as in 5%; drawn at random.")
    ] = "100",
    max_bytes: Annotated[str, Parameter(help="No more than this is restored, as in 500MB or 4GiB.")] = "1GB",
    on: Annotated[
        str | None,
        Parameter(help="Server to restore to, into its state folder; without it: where the files came from."),
    ] = None,
    priority: PriorityOption = "medium",
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Restore a random sample of a set to scratch, compare it with what the set promises, and remove it again."""
    entries, percent = sample_size(sample)
    request = q.DrillRequest(set, on, entries, percent, parse_size(max_bytes), Priority(priority))
    return submit(common, waiting, "drill", request)


def sample_size(text: str) -> tuple[int | None, float | None]:
    """Entries, or percent. Raises ``InvalidValue``."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text), None
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?%", text):
        return None, float(text[:-1])
    raise InvalidValue(value=text, what="sample", expected="Use a number of entries, as in 100, or a share, as in 5%")
