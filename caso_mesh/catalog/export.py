"""The detail of a set as a segment again, out of the index: for another catalog that is to have it.

Against a base it holds what lies between the two sets, in the folders that were touched; without one the whole listing,
folder by folder. Both go in slices, each a read of its own, so that a long one keeps nobody waiting: what a set holds
stays as it is while others come and go.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from itertools import islice

from caso_mesh.catalog import blocks, folders, sets
from caso_mesh.catalog.schema import DIRECTORY, Row, from_row, join, split
from caso_mesh.catalog.segment import CatalogEntry, Record, Removal
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import NotFound

#: Records of one slice, and rows that are fetched at once.
_SLICE, _PAGE = 5000, 2000
#: Changes beyond this number are not sorted in memory: the whole listing is given instead.
_MOST_CHANGES = 200_000


class Export:
    """``base`` becomes ``None`` when the whole listing is given after all. Call ``step`` until it returns ``None``; it
    raises ``NotFound``, ``CatalogNotHere``, also when the set goes meanwhile."""

    def __init__(self, conn: sqlite3.Connection, set_id: str, base: str | None) -> None:
        self._set = set_id
        self._place = sets.detailed(conn, set_id)
        changes = None if base is None else self._changes(conn, base)
        self.base = None if changes is None else base
        self._changed: deque[Record] = deque(changes or ())
        self._roots = set(self._place.record.roots)
        points = () if changes is not None else self._roots | sets.above_roots(self._place.record)
        #: Roots, and folders above them, that are still to come.
        self._points = deque(sorted(points, key=path_key))
        self._stack: list[_Listing] = []
        #: The root that was listed last.
        self._within: bytes | None = None

    def step(self, conn: sqlite3.Connection) -> list[Record] | None:
        """Some records, in path order; ``None`` after the last."""
        if sets.place(conn, self._set).seq != self._place.seq:
            raise NotFound(kind="set", name=self._set)
        found: list[Record] = []
        while len(found) < _SLICE:
            if self._changed:
                found.append(self._changed.popleft())
            elif self._stack:
                self._list(conn, found)
            elif self._points:
                self._point(conn, self._points.popleft(), found)
            else:
                break
        return found or None

    # --- the whole listing ---

    def _point(self, conn: sqlite3.Connection, path: bytes, found: list[Record]) -> None:
        if self._within is not None and sets.is_within(path, self._within):
            return
        at, name = split(path)
        folder = folders.find(conn, self._place.top, at)
        if folder is None:
            return
        state = blocks.state(conn, self._place.chain, folder, name, upto=self._place.seq)
        if state is not None and state[1] is not None:
            found.append(from_row(path, state[1]))
        if path in self._roots:
            self._within = path
            self._enter(conn, folder, path, name)

    def _enter(self, conn: sqlite3.Connection, parent: int, path: bytes, name: bytes) -> None:
        folder = folders.child(conn, parent, name) if path else parent
        if folder is not None:
            self._stack.append(_Listing(folder, path))

    def _list(self, conn: sqlite3.Connection, found: list[Record]) -> None:
        """On to the next folder below, or to the end of this one."""
        listing, place = self._stack[-1], self._place
        while len(found) < _SLICE:
            if not listing.rows and not listing.fetch(conn, place):
                self._stack.pop()
                return
            name, _first, attributes = listing.rows.popleft()
            entry = from_row(join(listing.path, name), attributes)
            found.append(entry)
            if attributes[0] == DIRECTORY:
                self._enter(conn, listing.folder, entry.path, name)
                return

    # --- what changed ---

    def _changes(self, conn: sqlite3.Connection, base: str) -> list[Record] | None:
        """``None`` if the base is no earlier place of this chain, or too much has changed since."""
        place = self._place
        row = conn.execute("SELECT seq FROM backup_set WHERE set_id = ? AND chain = ?", (base, place.chain)).fetchone()
        if row is None or row[0] is None or row[0] >= place.seq:
            return None
        paths, found = folders.Paths(conn), list[Record]()
        touched = conn.execute(
            "SELECT DISTINCT folder FROM touched WHERE chain = ? AND seq > ? AND seq <= ?",
            (place.chain, row[0], place.seq),
        )
        for (folder,) in touched.fetchall():
            at = paths.get(folder)
            if at is None:
                continue
            before, now = self._listing(conn, folder, row[0]), self._listing(conn, folder, place.seq)
            found += [Removal(join(at[1], name)) for name in before.keys() - now.keys()]
            found += [_entry(at[1], name, each) for name, each in now.items() if before.get(name) != each]
            if len(found) > _MOST_CHANGES:
                return None
        found.sort(key=lambda record: path_key(record.path))
        return _tops(found)

    def _listing(self, conn: sqlite3.Connection, folder: int, seq: int) -> dict[bytes, Row]:
        return {name: row for name, _first, row in blocks.listing(conn, self._place.chain, folder, seq)}


class _Listing:
    """A folder whose entries are given one after the other."""

    def __init__(self, folder: int, path: bytes) -> None:
        self.folder = folder
        self.path = path
        self.rows: deque[tuple[bytes, int, Row]] = deque()
        self._after = b""
        self._more = True

    def fetch(self, conn: sqlite3.Connection, place: sets.DetailedPlace) -> bool:
        """Whether there are rows."""
        if self._more:
            # not held over slices: other sets that go may join blocks
            page = list(islice(blocks.listing(conn, place.chain, self.folder, place.seq, after=self._after), _PAGE))
            self._more = len(page) == _PAGE
            self.rows.extend(page)
            if page:
                self._after = page[-1][0]
        return bool(self.rows)


def _entry(folder: bytes, name: bytes, row: Row) -> CatalogEntry:
    return from_row(join(folder, name), row)


def _tops(records: list[Record]) -> list[Record]:
    """Of folders that are gone only the top."""
    kept, gone = list[Record](), b"\x00"
    for record in records:
        if isinstance(record, Removal):
            if record.path.startswith(gone):
                continue
            gone = record.path + b"/"
        kept.append(record)
    return kept
