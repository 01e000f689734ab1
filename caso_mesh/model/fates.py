"""What became of an attempt that a server works on yet though its orders do not name it any more."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.jobs import Failure


class FateAsked(Struct, frozen=True):
    """``attempt``: in which the asking server has a part."""

    attempt: str


class Fate(Struct, frozen=True):
    """``state`` as the administrator has it (an attempt that is active has none yet), with its failure; ``other``: the name of the
    other server that has a part in it, empty if there is none."""

    state: str = ""
    failure: Failure | None = None
    other: str = ""
