"""Whom a server wants a link with, and when it dials again."""

from __future__ import annotations

from msgspec import Struct

FIRST_PAUSE_S = 0.3


class Target(Struct, frozen=True):
    """Somebody to have a link with. ``node`` ``None``: whoever answers there may know the administrator."""

    node: str | None
    addresses: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.node or ",".join(self.addresses)


class Pause:
    """When a target is dialled again."""

    def __init__(self) -> None:
        self.next_s = 0.0
        self.length_s = FIRST_PAUSE_S
