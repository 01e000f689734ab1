"""What is shown of the voters: the servers of which one is elected administrator."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class VoterRow(Struct, frozen=True):
    """``state``: it ``votes``, or is ``catching-up`` (it is sent what the administrator holds; an even one waits for the next), or
    ``waits`` until it is reached. ``behind``: so many entries of the replicated log it is not known to have confirmed; ``None``:
    that is not known. ``feature_level``: what its software understands; ``None`` while it is not connected."""

    server: str
    state: Literal["votes", "catching-up", "waits"]
    admin: bool
    connected: bool
    address: str
    behind: int | None = None
    feature_level: int | None = None


class VoterList(Struct, frozen=True):
    """``majority``: so many that vote must be there for anything to be decided; ``there``: so many are. ``feature_level`` is
    that of the mesh."""

    voters: tuple[VoterRow, ...]
    majority: int
    there: int
    feature_level: int
