"""Where names may lie that match, as the index of names says: the folders, and between which names in each."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from caso_mesh.catalog import folders, names
from caso_mesh.catalog.schema import join
from caso_mesh.model.entries import path_key

Range = tuple[bytes, bytes]


class Place(Struct, frozen=True, order=True):
    """A folder to which the index leads. ``key``: by which paths are in order."""

    key: bytes
    path: bytes
    folder: int


class Leads(Struct, frozen=True):
    """``ranges``: by folder, of names; ``whole``: folders below which any name may match; ``places``: by top folder, all these
    in path order. ``None``: that was not asked for, all folders are gone through."""

    ranges: dict[int, list[Range]]
    whole: frozenset[int]
    places: dict[int, list[Place]] | None = None

    def in_order(self, conn: sqlite3.Connection) -> Leads:
        """With ``places``, which takes some microseconds for each."""
        above = {number: (parent, name) for number, parent, name in folders.upwards(conn, {*self.ranges, *self.whole})}
        # Top folder and path by folder.
        known: dict[int, tuple[int, bytes]] = {}
        places: dict[int, list[Place]] = {}
        for folder in {*self.ranges, *self.whole} & above.keys():
            way: list[int] = []
            at = folder
            while at not in known:
                parent = above[at][0]
                if parent == folders.NOWHERE:
                    known[at] = at, b""
                else:
                    way.append(at)
                    at = parent
            top, path = known[at]
            for each in reversed(way):
                path = join(path, above[each][1])
                known[each] = top, path
            places.setdefault(top, []).append(Place(path_key(path), path, folder))
        for of_source in places.values():
            of_source.sort()
        return Leads(self.ranges, self.whole, places)


def leads(
    conn: sqlite3.Connection, text: bytes, *, is_last: bool, known: Sequence[int] | None, most: int
) -> Leads | None:
    """What the index of names says about ``text``, which the last part of each matching path holds, or (unless
    ``is_last``) a folder above. ``known``: the blocks of the index that hold it, if they were asked for before. ``None`` if
    more than ``most`` do: they would take much memory."""
    ranges: dict[int, list[Range]] = {}
    several: set[int] = set()
    count = 0
    for folder, lowest, highest in names.ranges(conn, text, known, most + 1):
        count += 1
        if folder in ranges:
            ranges[folder].append((lowest, highest))
            several.add(folder)
        else:
            ranges[folder] = [(lowest, highest)]
    for folder in several:
        ranges[folder] = _joined(ranges[folder])
    whole = frozenset[int]() if is_last else frozenset(names.folders(conn, text, most + 1))
    return Leads(ranges, whole) if count <= most and len(whole) <= most else None


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
