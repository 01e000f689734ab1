"""Where names may lie that match, as the index of names says: the folders, between which names in each, and the way there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from caso_mesh.catalog import folders, names

Range = tuple[bytes, bytes]
#: A folder below another one: name and id.
Child = tuple[bytes, int]


class Leads(Struct, frozen=True):
    """``ranges``: by folder, of names; ``whole``: folders below which any name may match; ``children``: by folder, those below
    it that lead there. ``None``: that was not asked for, all folders are gone through."""

    ranges: dict[int, list[Range]]
    whole: frozenset[int]
    children: dict[int, list[Child]] | None

    def on_the_way(self, conn: sqlite3.Connection) -> Leads:
        """With ``children``, which takes a few microseconds for each folder."""
        children: dict[int, list[Child]] = {}
        for folder, parent, name in folders.upwards(conn, [*{*self.ranges, *self.whole}]):
            below = children.get(parent)
            if below is None:
                children[parent] = [(name, folder)]
            else:
                below.append((name, folder))
        for below in children.values():
            if len(below) > 1:
                below.sort()
        return Leads(self.ranges, self.whole, children)


def leads(conn: sqlite3.Connection, text: bytes, *, is_last: bool, known: Sequence[int] | None) -> Leads:
    """What the index of names says about ``text``, which the last part of each matching path holds, or (unless
    ``is_last``) a folder above. ``known``: the blocks of the index that hold it, if they were asked for before."""
    ranges: dict[int, list[Range]] = {}
    several: set[int] = set()
    for folder, lowest, highest in names.ranges(conn, text, known):
        if folder in ranges:
            ranges[folder].append((lowest, highest))
            several.add(folder)
        else:
            ranges[folder] = [(lowest, highest)]
    for folder in several:
        ranges[folder] = _joined(ranges[folder])
    whole = frozenset[int]() if is_last else frozenset(names.folders(conn, text))
    return Leads(ranges, whole, None)


def _joined(ranges: list[Range]) -> list[Range]:
    """Without what overlaps."""
    ranges.sort()
    found = ranges[:1]
    for lowest, highest in ranges[1:]:
        if lowest <= found[-1][1]:
            found[-1] = found[-1][0], max(highest, found[-1][1])
        else:
            found.append((lowest, highest))
    return found
