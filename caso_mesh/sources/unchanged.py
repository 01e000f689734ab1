"""What an earlier set says of a name, and whether the name is still the same to the last field."""

from __future__ import annotations

import os
import stat
from typing import Any, Protocol

from msgspec import Struct

from caso_mesh.model.entries import TYPE_NUMBERS, Entry, EntryType
from caso_mesh.sources.metadata import TYPES, Names
from caso_mesh.sources.places import Places

_SECOND = 1_000_000_000
#: Numbers of types by the type bits of a mode. Device nodes are not among them: their numbers are not compared here.
_NUMBERS = {
    bits: TYPE_NUMBERS[kind]
    for bits, kind in TYPES.items()
    if kind not in {EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE}
}


class Before(Protocol):
    """An entry of the earlier set as it is stored: see ``Entry``; ``type`` is one of ``TYPE_NUMBERS``."""

    path: bytes
    type: int
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    size: int
    modified_s: int
    modified_ns: int
    changed_s: int
    changed_ns: int
    device: int
    inode: int


#: What is stored, the piece of the tree that holds it, and its number there.
Found = tuple[Any, Any, int]


class Previous(Protocol):
    """The set that change is measured against. A walk asks in path order."""

    def find(self, path: bytes) -> Found | None:
        """What it says of a path, as in ``Entry.path``: a ``Before``, and its place."""
        ...

    def entry(self, piece: Any, number: int) -> Entry | None:
        """The entry at a place; None if it cannot be had."""
        ...

    def is_whole(self, before: Any) -> bool:
        """Whether a file was read to its end, or it is none; False as well where only the entry can tell."""
        ...


class Same(Struct, frozen=True, gc=False):
    """A name that is as the earlier set says: it can go into the next one as it is stored there."""

    before: Any
    piece: Any
    number: int


class Sameness:
    """Compares a name with what an earlier set says. ``settled_before`` as for ``Walker``."""

    def __init__(
        self, previous: Previous, names: Names, settled_before: tuple[int, int] | None, places: Places | None
    ) -> None:
        self._is_whole = previous.is_whole
        self._names = names
        self._places = places
        self._settled_ns = None if settled_before is None else settled_before[0] * _SECOND + settled_before[1]
        self._owners: set[tuple[int, int, str, str]] = set()

    def holds(self, before: Any, status: os.stat_result) -> bool:
        """Whether nothing is to be kept of the name that is not there already. False for all that wants a closer look:
        device nodes, hard links, files with lists of their own."""
        mode = status.st_mode
        bits = mode & 0o170000
        changed_ns = status.st_ctime_ns
        if (
            before.inode != status.st_ino
            or before.changed_s * _SECOND + before.changed_ns != changed_ns
            or before.modified_s * _SECOND + before.modified_ns != status.st_mtime_ns
            or before.type != _NUMBERS.get(bits)
            or before.mode != mode & 0o7777
            or before.uid != status.st_uid
            or before.gid != status.st_gid
            or (self._settled_ns is not None and changed_ns >= self._settled_ns)
        ):
            return False
        if bits == stat.S_IFREG:
            if status.st_nlink != 1 or before.size != status.st_size:
                return False
        elif bits != stat.S_IFDIR and (
            status.st_nlink != 1 or (bits == stat.S_IFLNK and before.size != status.st_size)
        ):
            return False
        if not self._is_whole(before):
            return False
        device = status.st_dev if self._places is None else self._places.device(status.st_dev)
        if before.device != device:
            return False
        owner = (before.uid, before.gid, before.user, before.group)
        if owner in self._owners:
            return True
        names = self._names
        if before.user != names.user(before.uid) or before.group != names.group(before.gid):
            return False
        self._owners.add(owner)
        return True
