"""Looking into one set, and at one path over all sets."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from itertools import islice

from msgspec import Struct

from caso_mesh.catalog import blocks, folders, sets
from caso_mesh.catalog.schema import DIRECTORY, Row, from_row, join, split
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import PathNotInSet
from caso_mesh.model.units import escape_path


class Version(Struct, frozen=True):
    """One state of a path. ``first_set`` and ``last_set`` are the oldest and the newest set (by their end) that have
    exactly this entry, ``sets`` is how many have it."""

    entry: CatalogEntry
    first_set: str
    last_set: str
    sets: int


class Timeline(Struct, frozen=True):
    """The sets with detail of one chain, by their places; ``ends`` holds (end in ns, set id)."""

    seqs: list[int]
    ends: list[tuple[int, str]]

    def within(self, first: int, last: int) -> list[tuple[int, str]]:
        """The sets that have a version; ``last`` 0 = to the latest."""
        begin = bisect_left(self.seqs, first)
        return self.ends[begin : bisect_right(self.seqs, last) if last else len(self.seqs)]

    def newest(self, first: int, last: int) -> tuple[int, str] | None:
        """The one of ``within`` that ended last."""
        return max(self.within(first, last), default=None)


def timelines(
    conn: sqlite3.Connection, *, source: str | None = None, since_ns: int | None = None, until_ns: int | None = None
) -> dict[int, Timeline]:
    """By chain, the sets with detail that ended in the given time, both ends included."""
    rows = conn.execute(
        "SELECT b.chain, b.seq, b.ended_at_ns, b.set_id FROM backup_set b JOIN source s ON s.id = b.source"
        " WHERE b.seq IS NOT NULL AND (?1 IS NULL OR s.node = ?1) AND (?2 IS NULL OR b.ended_at_ns >= ?2)"
        " AND (?3 IS NULL OR b.ended_at_ns <= ?3) ORDER BY b.chain, b.seq",
        (source, since_ns, until_ns),
    )
    found: dict[int, Timeline] = {}
    for chain, seq, ended, set_id in rows:
        line = found.setdefault(chain, Timeline([], []))
        line.seqs.append(seq)
        line.ends.append((ended, set_id))
    return found


def lookup(conn: sqlite3.Connection, set_id: str, path: bytes) -> CatalogEntry | None:
    """The entry of ``path``, or ``None``. Folders above the roots of the set are ``implied``.

    Raises ``NotFound``, ``CatalogNotHere``."""
    place = sets.detailed(conn, set_id)
    path = path.strip(b"/")
    row = _row(conn, place, path)
    if row is not None:
        return from_row(path, row)
    return implied(path) if not path or leads_to_root(conn, place, path) else None


def list_folder(
    conn: sqlite3.Connection, set_id: str, path: bytes, *, after: bytes | None = None, limit: int = 10_000
) -> list[CatalogEntry]:
    """What lies immediately in a folder of a set, in order of names; a path that is no folder gives itself.

    ``path`` ``b""`` is the top. Folders above the roots of the set appear as ``implied``. To go on after ``limit``
    entries, give the path (or the name) of the last one as ``after``. Raises ``NotFound``, ``CatalogNotHere``,
    ``PathNotInSet``.
    """
    place = sets.detailed(conn, set_id)
    path = path.strip(b"/")
    row = _row(conn, place, path) if path else None
    if row is not None and row[0] != DIRECTORY:
        return [] if after is not None or limit < 1 else [from_row(path, row)]
    if path and row is None and not leads_to_root(conn, place, path):
        raise PathNotInSet(set=set_id, path="/" + escape_path(path))
    begin = b"" if after is None else split(after.strip(b"/"))[1]
    found: dict[bytes, CatalogEntry] = {}
    folder = folders.find(conn, place.top, path)
    if folder is not None:
        page = blocks.listing(conn, place.chain, folder, place.seq, after=begin)
        for name, _first, attributes in islice(page, max(limit, 0)):
            found[name] = from_row(join(path, name), attributes)
    above = {child for child in on_the_way(place.record.roots, path) if split(child)[1] > begin}
    missing = [child for child in above if split(child)[1] not in found and leads_to_root(conn, place, child)]
    if not missing:
        return list(found.values())
    for child in missing:
        # One that has an entry of its own was not found because the page is full.
        if _row(conn, place, child) is None:
            found[split(child)[1]] = implied(child)
    return [entry for _name, entry in sorted(found.items())][:limit]


def versions(conn: sqlite3.Connection, source: str, path: bytes) -> list[Version]:
    """The different states of ``path`` in all sets of ``source`` (node id) that have detail, newest first (by the end
    of the last set that has it). Two sets have the same version when the whole entry is the same."""
    path = path.strip(b"/")
    row = conn.execute("SELECT root FROM source WHERE node = ?", (source,)).fetchone()
    folder = None if row is None else folders.find(conn, row[0], split(path)[0])
    if folder is None:
        return []
    having: dict[Row, list[tuple[int, str]]] = {}
    for chain, line in timelines(conn, source=source).items():
        name = split(path)[1]
        for _name, first, last, attributes in blocks.history(conn, chain, folder, name, name):
            having.setdefault(attributes, []).extend(line.within(first, last))
    found = [(max(ends), min(ends), len(ends), row) for row, ends in having.items() if ends]
    found.sort(key=lambda item: item[0], reverse=True)
    return [Version(from_row(path, row), first[1], last[1], count) for last, first, count, row in found]


def implied(path: bytes) -> CatalogEntry:
    """A folder above the roots of a set, which itself was not backed up."""
    return CatalogEntry(path, EntryType.DIRECTORY, mode=0o755)


def _row(conn: sqlite3.Connection, place: sets.DetailedPlace, path: bytes) -> Row | None:
    at, name = split(path)
    folder = folders.find(conn, place.top, at)
    if folder is None:
        return None
    state = blocks.state(conn, place.chain, folder, name, upto=place.seq)
    return None if state is None else state[1]


def on_the_way(roots: tuple[bytes, ...], path: bytes) -> set[bytes]:
    """The children of ``path`` that are a root or lead to one."""
    begin = len(path) + 1 if path else 0
    return {
        root[: end if (end := root.find(b"/", begin)) >= 0 else len(root)]
        for root in roots
        if root != path and sets.is_within(root, path)
    }


def leads_to_root(conn: sqlite3.Connection, place: sets.DetailedPlace, path: bytes) -> bool:
    """Whether ``path`` lies above something of the set and above or at one of its roots."""
    for root in place.record.roots:
        at = root
        while at != path and sets.is_within(at, path):
            if _row(conn, place, at) is not None:
                return True
            at = split(at)[0]
    return False
