"""Taking in the detail of a set: what changed against the latest set of its chain becomes versions.

A segment against the latest set costs what it names. One against an older set first takes back what changed since, in
the folders that were touched. A full listing is compared with what is current, folder by folder, in path order.

All of it goes in *slices*, each one transaction of the caller, so that others are served in between. Until the last one
the new set has no place (``backup_set.seq``), and whatever begins at its place is in no set that can be seen; ending a
version just before it changes nothing for sets before. A slice that was not the last is undone by ``abandon``.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from typing import cast

from msgspec import Struct

from caso_mesh.catalog import folders, names, sets
from caso_mesh.catalog.removal import abandon
from caso_mesh.catalog.schema import ATTRIBUTES, DIRECTORY, IN_SET, Row, split, to_row
from caso_mesh.catalog.segment import CatalogEntry, Record, Removal, SegmentReader
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import CatalogBaseMissing, DataDamaged

#: Operations after which a slice ends: about a tenth of a second. Smaller ones cost: 5000 take 15 % longer in all.
SLICE = 20000
#: Versions of a folder that are fetched at once.
_PAGE = 2000
_NO_FOLDER = "it has something below what is no folder"


class IngestResult(Struct, frozen=True):
    """``appeared`` versions begin with the set (``first_seen`` of them have names never seen there before), ``ended``
    ones were in the chain's set before and are not in this one, changed entries are in both. ``repeated``: the detail
    was there already, nothing was done."""

    set: str
    appeared: int = 0
    ended: int = 0
    first_seen: int = 0
    repeated: bool = False


class SliceLost(Exception):
    """A slice was undone after it had returned (a neighbour's failure took the transaction with it). Begin anew."""


class _Folder:
    """A folder on the way from the top to the record at hand."""

    __slots__ = ("fresh", "id", "is_sound", "names", "path", "row", "rows")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.id: int | None = None
        self.fresh = False
        # Whether it is certain that the set has this folder.
        self.is_sound = True
        self.names: list[bytes] = []
        # Full listings only: the current versions not yet passed, and the first of them.
        self.rows: Iterator[tuple[bytes, int, Row]] = iter(())
        self.row: tuple[bytes, int, Row] | None = None


class Ingest:
    """One taking-in. Call ``step`` in one transaction after the other until it returns the result.

    ``step`` raises ``NotFound`` (the set has no record), ``CatalogBaseMissing``, ``DataDamaged``, ``SliceLost``; then
    ``abandon`` takes back what earlier slices did.
    """

    def __init__(self, segment: SegmentReader) -> None:
        self._segment = segment
        self._slices = 0
        self._work: Iterator[None] | None = None
        self._chain = 0
        self._seq = 0
        self._ended: list[tuple[int, int, int, bytes, int]] = []
        self._undone: list[tuple[int, int, bytes, int]] = []
        self._begun: list[tuple[object, ...]] = []
        self._touched: set[int] = set()
        self._names = names.NameWriter()
        self._folders = folders.FolderWriter()
        self._operations = 0
        self._counts = [0, 0, 0]

    def step(self, conn: sqlite3.Connection) -> IngestResult | None:
        """One slice; the result after the last."""
        header = self._segment.header
        if self._work is None:
            if not self._begin(conn):
                return IngestResult(header.set, repeated=True)
        else:
            row = conn.execute(
                "SELECT 1 FROM pending WHERE chain = ? AND seq = ? AND slice = ?",
                (self._chain, self._seq, self._slices),
            ).fetchone()
            if row is None:
                raise SliceLost
        work = cast("Iterator[None]", self._work)
        self._slices += 1
        for _ in work:
            self._flush(conn)
            conn.execute("UPDATE pending SET slice = ? WHERE chain = ?", (self._slices, self._chain))
            return None
        self._flush(conn)
        conn.execute("DELETE FROM pending WHERE chain = ?", (self._chain,))
        conn.execute("UPDATE backup_set SET seq = ? WHERE set_id = ?", (self._seq, header.set))
        appeared, ended, first_seen = self._counts
        return IngestResult(header.set, appeared, ended, first_seen)

    def _begin(self, conn: sqlite3.Connection) -> bool:
        header = self._segment.header
        place = sets.place(conn, header.set)
        if place.seq is not None:
            return False
        self._chain = place.chain
        if conn.execute("SELECT chain FROM chain WHERE id = ?", (place.chain,)).fetchone()[0] != header.chain:
            raise _damaged("it is of another chain than its set")
        abandon(conn, place.chain)
        base = None
        if header.base is not None:
            found = conn.execute(
                "SELECT seq FROM backup_set WHERE set_id = ? AND chain = ?", (header.base, place.chain)
            ).fetchone()
            if found is None or found[0] is None:
                raise CatalogBaseMissing(set=header.set, base=header.base)
            base = int(found[0])
        self._seq = int(conn.execute("SELECT next_seq FROM chain WHERE id = ?", (place.chain,)).fetchone()[0])
        conn.execute("UPDATE chain SET next_seq = next_seq + 1 WHERE id = ?", (place.chain,))
        conn.execute("INSERT INTO pending (chain, seq, slice) VALUES (?, ?, 0)", (place.chain, self._seq))
        self._work = self._all(conn, place, base)
        return True

    def _all(self, conn: sqlite3.Connection, place: sets.Place, base: int | None) -> Iterator[None]:
        latest = sets.latest_seq(conn, self._chain)
        walk = _Walk(conn, self, place, full=base is None, compare=base is None and latest > 0)
        if base is not None and base != latest:
            yield from self._take_back(conn, base, latest)
            self._flush(conn)
        for block in self._segment.blocks():
            for record in block:
                more = walk.take(record)
                if more is not None:
                    yield from more
                if self._operations >= SLICE:
                    self._operations = 0
                    yield
        yield from walk.finish()

    def _take_back(self, conn: sqlite3.Connection, base: int, latest: int) -> Iterator[None]:
        """Make the current versions those of the set at ``base``."""
        touched = conn.execute(
            "SELECT DISTINCT folder FROM touched WHERE chain = ? AND seq > ? AND seq <= ?", (self._chain, base, latest)
        ).fetchall()
        for (folder,) in touched:
            wanted = dict(self._listing(conn, folder, IN_SET, (base, base)))
            current = dict(self._listing(conn, folder, "last = 0", ()))
            for name, (first, row) in current.items():
                if name not in wanted or wanted[name][1] != row:
                    self.end(folder, name, first)
            for name, (_first, row) in wanted.items():
                if name not in current or current[name][1] != row:
                    self.begin(folder, name, row)
            self._operations += 2 + len(wanted)
            if self._operations >= SLICE:
                self._operations = 0
                yield

    def _listing(
        self, conn: sqlite3.Connection, folder: int, which: str, values: tuple[int, ...]
    ) -> Iterator[tuple[bytes, tuple[int, Row]]]:
        # A row that begins at the new place is ours, from before the last flush.
        query = (
            f"SELECT name, first, {ATTRIBUTES} FROM version WHERE chain = ? AND folder = ? AND first < ? AND {which}"
        )
        for row in conn.execute(query, (self._chain, folder, self._seq, *values)).fetchall():
            yield row[0], (row[1], row[2:])

    @property
    def chain(self) -> int:
        return self._chain

    @property
    def seq(self) -> int:
        return self._seq

    def begin(self, folder: int, name: bytes, row: Row) -> None:
        """A version begins with the new set."""
        self._begun.append((self._chain, folder, name, self._seq, *row))
        self._touched.add(folder)
        self._operations += 1
        self._counts[0] += 1

    def end(self, folder: int, name: bytes, first: int) -> None:
        """The current version, which began at ``first``, is not in the new set."""
        if first == self._seq:
            self._undone.append((self._chain, folder, name, first))
            self._counts[0] -= 1
        else:
            self._ended.append((self._seq - 1, self._chain, folder, name, first))
            self._counts[1] += 1
        self._touched.add(folder)
        self._operations += 1

    def end_folder(self, conn: sqlite3.Connection, folder: int) -> None:
        """All current versions in ``folder`` itself are not in the new set."""
        undone = conn.execute(
            "DELETE FROM version WHERE chain = ? AND folder = ? AND first = ?", (self._chain, folder, self._seq)
        ).rowcount
        ended = conn.execute(
            "UPDATE version SET last = ? WHERE chain = ? AND folder = ? AND last = 0",
            (self._seq - 1, self._chain, folder),
        ).rowcount
        if undone or ended:
            self._touched.add(folder)
        self._counts[0] -= undone
        self._counts[1] += ended
        self._operations += 1 + undone + ended

    def new_folder(self, conn: sqlite3.Connection, parent: int, name: bytes) -> int:
        """The id of a folder that is not there yet."""
        return self._folders.make(conn, parent, name)

    def new_names(self, folder: int, found: list[bytes]) -> None:
        self._names.add_all(folder, found)
        self._counts[2] += len(found)

    def work_done(self, number: int) -> None:
        self._operations += number

    def is_slice_full(self) -> bool:
        """Whether it is time to yield; if so, counting begins anew."""
        if self._operations < SLICE:
            return False
        self._operations = 0
        return True

    def _flush(self, conn: sqlite3.Connection) -> None:
        conn.executemany("DELETE FROM version WHERE chain = ? AND folder = ? AND name = ? AND first = ?", self._undone)
        conn.executemany(
            "UPDATE version SET last = ? WHERE chain = ? AND folder = ? AND name = ? AND first = ?", self._ended
        )
        # Neighbours in the tree go in one after the other, which also fills pages better.
        self._begun.sort(key=lambda row: row[1:3])
        conn.executemany(
            f"INSERT INTO version (chain, folder, name, first, last, {ATTRIBUTES})"
            " VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._begun,
        )
        conn.executemany(
            "INSERT OR IGNORE INTO touched (chain, seq, folder) VALUES (?, ?, ?)",
            [(self._chain, self._seq, folder) for folder in sorted(self._touched)],
        )
        self._folders.flush(conn)
        self._names.flush(conn)
        self._undone.clear()
        self._ended.clear()
        self._begun.clear()
        self._touched.clear()


class _Walk:
    """Goes through the records in path order with the folders above the one at hand on a stack."""

    def __init__(
        self, conn: sqlite3.Connection, ingest: Ingest, place: sets.Place, *, full: bool, compare: bool
    ) -> None:
        self._conn = conn
        self._ingest = ingest
        self._full = full
        self._compare = compare
        self._roots = place.record.roots
        self._above_roots = sets.above_roots(place.record)
        self._chains = [place.chain, *(c for c in sets.chains_of_source(conn, place.source) if c != place.chain)]
        self._top = _Folder(b"")
        self._top.id = place.top
        self._stack = [self._top]
        self._visited: set[int] = {place.top}
        # A path that was removed or is no folder any more, with a slash: nothing may be added below it.
        self._barred: bytes | None = None
        # The root that the record before lay in, with a slash.
        self._root: bytes | None = None
        self._start(self._top)

    def take(self, record: Record) -> Iterator[None] | None:
        """The next record. What is returned is work that is left and wants to be done before the next one."""
        path = record.path
        if self._barred is not None:
            if path.startswith(self._barred):
                if isinstance(record, Removal):
                    return None
                raise _damaged(_NO_FOLDER)
            self._barred = None
        if self._root is None or not path.startswith(self._root):
            self._check_root(path)
        at, _, name = path.rpartition(b"/")
        stack = self._stack
        while stack[-1].path != at:
            if sets.is_within(at, stack[-1].path):
                self._enter(at)
            else:
                self._leave(stack.pop())
        folder = stack[-1]
        if isinstance(record, Removal):
            return self._remove(folder, path, name)
        is_folder = record.type is EntryType.DIRECTORY
        if not is_folder:
            if path in self._above_roots:
                raise _damaged("a root lies below something that is no folder")
            self._barred = path + b"/"
        if folder.id is None:
            self._give_ids()
        more = None
        if self._full:
            self._merge(folder, name, to_row(record))
        else:
            more = self._change(folder, record, name)
        if is_folder and path:
            stack.append(_Folder(path))
        return more

    def finish(self) -> Iterator[None]:
        """End what the listing did not have."""
        while self._stack:
            self._leave(self._stack.pop())
        if not self._compare:
            return
        at = -1
        while True:
            row = self._conn.execute(
                "SELECT folder FROM version WHERE chain = ? AND folder > ? ORDER BY folder LIMIT 1",
                (self._ingest.chain, at),
            ).fetchone()
            if row is None:
                return
            at = row[0]
            if at not in self._visited:
                self._ingest.end_folder(self._conn, at)
                if self._ingest.is_slice_full():
                    yield

    # --- the way ---

    def _check_root(self, path: bytes) -> None:
        for root in self._roots:
            if sets.is_within(path, root):
                self._root = root + b"/" if root else b""
                return
        if path not in self._above_roots:
            raise _damaged("it has something outside the roots of its set")

    def _enter(self, target: bytes) -> None:
        """Put the next folder on the way to ``target`` on the stack, which no record did."""
        above = self._stack[-1]
        begin = len(above.path) + 1 if above.path else 0
        end = target.find(b"/", begin)
        path = target if end < 0 else target[:end]
        folder = _Folder(path)
        folder.is_sound = path in self._above_roots
        if self._full and not folder.is_sound:
            raise _damaged(_NO_FOLDER)  # its own entry would have put it on the stack
        self._stack.append(folder)

    def _check_folder(self, folder: _Folder) -> None:
        """Something new lies in a folder of which the segment says nothing: it must be a folder of the base. All above
        it are then, and what was in it before says the same."""
        above = self._stack[-2]
        row = None if above.fresh else self._current(above, split(folder.path)[1])
        if row is None or row[1][0] != DIRECTORY:
            raise _damaged(_NO_FOLDER)
        folder.is_sound = True

    def _look_up(self) -> bool:
        """Give ids to the folders on the stack that have none yet; ``False`` when one does not exist."""
        return self._give_ids(make=False)

    def _give_ids(self, *, make: bool = True) -> bool:
        at = len(self._stack) - 1
        while self._stack[at].id is None:
            at -= 1
        for above, folder in itertools.pairwise(self._stack[at:]):
            parent, name = cast("int", above.id), split(folder.path)[1]
            found = None if above.fresh else folders.child(self._conn, parent, name)
            if found is None:
                if not make:
                    return False
                folder.fresh = True
                found = self._ingest.new_folder(self._conn, parent, name)
            folder.id = found
            self._ingest.work_done(1)
            self._start(folder)
        return True

    def _start(self, folder: _Folder) -> None:
        folder_id = cast("int", folder.id)
        if self._full:
            if self._compare:
                self._visited.add(folder_id)
                if not folder.fresh:
                    folder.rows = self._pages(folder_id)
                    folder.row = next(folder.rows, None)

    def _leave(self, folder: _Folder) -> None:
        while folder.row is not None:
            self._pass(folder)
        if folder.names:
            self._ingest.new_names(cast("int", folder.id), folder.names)

    # --- full listings ---

    def _pages(self, folder: int) -> Iterator[tuple[bytes, int, Row]]:
        query = (
            f"SELECT name, first, {ATTRIBUTES} FROM version"
            " WHERE chain = ? AND folder = ? AND name {} ? AND last = 0 AND first < ? ORDER BY name LIMIT ?"
        )
        at, comparison = b"", ">="
        while True:
            rows = self._conn.execute(
                query.format(comparison), (self._ingest.chain, folder, at, self._ingest.seq, _PAGE)
            ).fetchall()
            for row in rows:
                yield row[0], row[1], row[2:]
            if len(rows) < _PAGE:
                return
            at, comparison = rows[-1][0], ">"

    def _pass(self, folder: _Folder) -> None:
        """The folder's next current version is not in the listing."""
        assert folder.row is not None
        self._ingest.end(cast("int", folder.id), folder.row[0], folder.row[1])
        folder.row = next(folder.rows, None)

    def _merge(self, folder: _Folder, name: bytes, row: Row) -> None:
        while folder.row is not None and folder.row[0] < name:
            self._pass(folder)
        known = folder.row is not None and folder.row[0] == name
        if known:
            assert folder.row is not None
            if folder.row[2] == row:
                folder.row = next(folder.rows, None)
                self._ingest.work_done(1)
                return
            self._pass(folder)
        self._begin(folder, name, row, known=known)

    def _begin(self, folder: _Folder, name: bytes, row: Row, *, known: bool) -> None:
        folder_id = cast("int", folder.id)
        self._ingest.begin(folder_id, name, row)
        if not known and (folder.fresh or not names.is_known(self._conn, self._chains, folder_id, name)):
            folder.names.append(name)
            if len(folder.names) >= names.BLOCK:
                self._ingest.new_names(folder_id, folder.names)
                folder.names = []

    # --- changes ---

    def _current(self, folder: _Folder, name: bytes) -> tuple[int, Row] | None:
        """Where the current version of a name begins, and what it is. Nothing of it waits to be written: each path
        comes once, and what was written before was written out."""
        row = self._conn.execute(
            f"SELECT first, {ATTRIBUTES} FROM version WHERE chain = ? AND folder = ? AND name = ? AND last = 0",
            (self._ingest.chain, folder.id, name),
        ).fetchone()
        return None if row is None else (row[0], row[1:])

    def _change(self, folder: _Folder, entry: CatalogEntry, name: bytes) -> Iterator[None] | None:
        row = to_row(entry)
        current = None if folder.fresh else self._current(folder, name)
        if current is not None:
            if current[1] == row:
                self._ingest.work_done(1)
                return None
            self._ingest.end(cast("int", folder.id), name, current[0])
        elif not folder.is_sound:
            self._check_folder(folder)
        self._begin(folder, name, row, known=current is not None)
        if current is not None and current[1][0] == DIRECTORY and row[0] != DIRECTORY:
            return self._end_below(folder, entry.path, name)
        return None

    def _remove(self, folder: _Folder, path: bytes, name: bytes) -> Iterator[None] | None:
        self._barred = path + b"/" if path else b""
        if folder.fresh or not self._look_up():
            return None
        current = self._current(folder, name)
        if current is not None:
            self._ingest.end(cast("int", folder.id), name, current[0])
        if path in self._above_roots or (current is not None and current[1][0] == DIRECTORY):
            return self._end_below(folder, path, name)
        return None

    def _end_below(self, folder: _Folder, path: bytes, name: bytes) -> Iterator[None]:
        parent = cast("int", folder.id)
        begin = parent if not path else folders.child(self._conn, parent, name)
        if begin is None:
            return
        for number in folders.below(self._conn, begin):
            self._ingest.end_folder(self._conn, number)
            if self._ingest.is_slice_full():
                yield


def ingest(conn: sqlite3.Connection, segment: SegmentReader) -> IngestResult:
    """Take in the detail of a set, whole or not at all; repeated, it does nothing.

    Raises ``NotFound`` if the set has no record (``add_set``), ``CatalogBaseMissing`` if the set that the segment builds
    on has no detail here: ask for a full listing; ``DataDamaged``.
    """
    conn.execute("SAVEPOINT catalog_ingest")
    try:
        work = Ingest(segment)
        result = None
        while result is None:
            result = work.step(conn)
    except BaseException:
        if not conn.in_transaction:
            raise
        conn.execute("ROLLBACK TO catalog_ingest")
        conn.execute("RELEASE catalog_ingest")
        raise
    conn.execute("RELEASE catalog_ingest")
    return result


def _damaged(detail: str) -> DataDamaged:
    return DataDamaged(object="the catalog segment", detail=detail)
