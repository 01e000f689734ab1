"""How many files lie below the folders of a set, and how large they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby

from msgspec import Struct

from caso_mesh.catalog import blocks, browse, folders, sets
from caso_mesh.catalog.schema import DIRECTORY, FILE, Row, join, split
from caso_mesh.model.entries import EntryType, path_key
from caso_mesh.model.errors import PathNotInSet
from caso_mesh.model.units import escape_path


class FolderUsage(Struct, frozen=True):
    """A folder (or the path that was asked for): ``files`` below it and their ``size`` together, in bytes. Every name of a hard link counts."""

    path: bytes
    files: int
    size: int


def usage(conn: sqlite3.Connection, set_id: str, path: bytes, *, depth: int = 0) -> list[FolderUsage]:
    """``path`` itself, then the folders below it, down to ``depth``, in path order.

    One pass over the versions below ``path``: what lies deeper is added up where it is cut off, then upwards. Raises
    ``NotFound``, ``CatalogNotHere``, ``PathNotInSet``.
    """
    place = sets.detailed(conn, set_id)
    path = path.strip(b"/")
    entry = browse.lookup(conn, set_id, path)
    if entry is None:
        raise PathNotInSet(set=set_id, path="/" + escape_path(path))
    if entry.type is not EntryType.DIRECTORY:
        return [FolderUsage(path, *((1, entry.size) if entry.type is EntryType.FILE else (0, 0)))]
    top = folders.find(conn, place.top, path)
    if top is None:
        return [FolderUsage(path, 0, 0)]
    sums = _sums(conn, place, top, depth)
    levels: list[list[tuple[int, int, bytes]]] = [[(top, folders.NOWHERE, path)]]
    for _ in range(depth):
        below = [each for above in levels[-1] for each in _subfolders(conn, place, above[0], above[2])]
        if not below:
            break
        levels.append(below)
    found: dict[bytes, FolderUsage] = {}
    for level in reversed(levels):
        for number, parent, at in level:
            files, size = sums.get(number, (0, 0))
            found[at] = FolderUsage(at, files, size)
            above_files, above_size = sums.get(parent, (0, 0))
            sums[parent] = above_files + files, above_size + size
    return [found[at] for at in sorted(found, key=path_key)]


def _sums(conn: sqlite3.Connection, place: sets.DetailedPlace, top: int, depth: int) -> dict[int, tuple[int, int]]:
    """By folder, files and bytes in itself; of folders at ``depth`` with all that lies below them."""
    found: dict[int, tuple[int, int]] = {}
    for counted, _folder, each in _blocks_below(conn, place, top, depth):
        files, size = found.get(counted, (0, 0))
        sizes = [row[1] for row in _standing(each) if row is not None and row[0] == FILE]
        found[counted] = files + len(sizes), size + sum(sizes)
    return found


def _blocks_below(
    conn: sqlite3.Connection, place: sets.DetailedPlace, top: int, depth: int
) -> Iterator[tuple[int, int, list[tuple[int, int, bytes, bytes]]]]:
    """For each folder below ``top``: with which one it counts, and its blocks (place, id, names, entries) that the set may have."""
    rows = conn.execute(
        "WITH RECURSIVE below(id, counted, depth) AS (VALUES(?1, ?1, 0) UNION ALL"
        " SELECT f.id, CASE WHEN below.depth < ?2 THEN f.id ELSE below.counted END, below.depth + 1"
        " FROM below JOIN folder f ON f.parent = below.id)"
        " SELECT below.counted, below.id, b.first, b.id, b.names, b.entries FROM below CROSS JOIN block b ON b.chain = ?3 AND"
        " b.folder = below.id WHERE b.first <= ?4",
        (top, depth, place.chain, place.seq),
    )
    for (counted, folder), each in groupby(rows, key=lambda row: (row[0], row[1])):
        yield counted, folder, [row[2:] for row in each]


def _standing(each: list[tuple[int, int, bytes, bytes]]) -> Iterable[Row | None]:
    """What holds at last in a folder with these blocks."""
    if len(each) == 1:
        return blocks.opened(*each[0][2:])[1]
    said: dict[bytes, Row | None] = {}
    for _first, _id, names, entries in sorted(each):
        said.update(zip(*blocks.opened(names, entries), strict=True))
    return said.values()


def _subfolders(
    conn: sqlite3.Connection, place: sets.DetailedPlace, folder: int, path: bytes
) -> list[tuple[int, int, bytes]]:
    """Id, parent and path of the folders in a folder that the set has, or that lead to one of its roots. One that was
    never seen with anything in it has no id."""
    names = {name for name, _first, row in blocks.listing(conn, place.chain, folder, place.seq) if row[0] == DIRECTORY}
    names |= {
        split(each)[1]
        for each in browse.on_the_way(place.record.roots, path)
        if browse.leads_to_root(conn, place, each)
    }
    return [(folders.child(conn, folder, name) or folders.NOWHERE, folder, join(path, name)) for name in names - {b""}]
