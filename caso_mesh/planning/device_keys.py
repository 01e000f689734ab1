"""Who opens the content keys of a device, and wraps them to a server that shares it and lacks them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class KeyPlace(Struct, frozen=True):
    """A server (node id) with a path to a device. ``used``: it may use that path, and nobody stopped communication with it
    by hand; whether new work is given to it does not matter. ``lacks``: whether it has said that it opens none of the keys,
    ``None`` while it has said nothing. ``well``: it saw no problem with the device. ``fresh``: its keys are those of a new
    machine in the place of a lost one."""

    server: str
    linked: bool
    used: bool
    lacks: bool | None
    well: bool
    fresh: bool = False


def openers(places: Sequence[KeyPlace], server: str) -> list[str]:
    """The servers that may wrap a device's keys to ``server`` now, those first that have said that they see it well.

    A server that was paused is among them: the only other one may be lost the next moment, and the keys with it.
    """
    able = [each for each in places if each.server != server and each.linked and each.used and not each.lacks]
    return [each.server for each in sorted(able, key=lambda each: (not each.well, each.lacks is None))]


def lacking(places: Sequence[KeyPlace]) -> list[KeyPlace]:
    """Who has to be given the keys: those that say so, and new machines that have said nothing yet."""
    return [each for each in places if each.lacks or (each.fresh and each.lacks is None)]


def lost(places: Sequence[KeyPlace]) -> bool:
    """Whether nobody with a path to a device opens it any more, as far as they have said."""
    return bool(places) and all(each.lacks for each in places)


def opened(places: Sequence[KeyPlace]) -> bool:
    """Whether somebody has said that it opens the device."""
    return any(each.lacks is False for each in places)
