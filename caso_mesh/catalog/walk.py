"""Going through a segment in path order, and telling what begins and what ends with its set."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from typing import cast

from caso_mesh.catalog import folders, names, sets
from caso_mesh.catalog.changes import Changes
from caso_mesh.catalog.schema import ATTRIBUTES, DIRECTORY, Bytes, Row, split, to_row
from caso_mesh.catalog.segment import CatalogEntry, Record, Removal
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import DataDamaged

#: Versions of a folder that are fetched at once.
PAGE = 2000
_LATEST = (
    f"SELECT first, last, {ATTRIBUTES} FROM version WHERE chain = ? AND folder = ? AND name = ?"
    " ORDER BY first DESC LIMIT 1"
)
_NO_FOLDER = "it has something below what is no folder"


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


class Walk:
    """Goes through the records in path order with the folders above the one at hand on a stack."""

    def __init__(self, conn: sqlite3.Connection, to: Changes, place: sets.Place, *, full: bool, compare: bool) -> None:
        self._conn = conn
        self._to = to
        self._full = full
        self._compare = compare
        self._roots = place.record.roots
        self._above_roots = sets.above_roots(place.record)
        self._longest_above = max(map(len, self._above_roots))
        self._cursor = conn.cursor()
        self._others = [chain for chain in sets.chains_of_source(conn, place.source) if chain != place.chain]
        self._chains = [place.chain, *self._others]
        self._top = _Folder(b"")
        self._top.id = place.top
        self._stack = [self._top]
        self._visited: set[int] = {place.top}
        # A path that was removed or is no folder any more: nothing may be added below it.
        self._barred: bytes | None = None
        # The root that the record before lay in, with a slash.
        self._root: bytes | None = None
        self._start(self._top)

    def through(self, records: list[Record]) -> Iterator[None]:
        """The next records; where it yields, a slice may end."""
        # Millions of records pass here, nearly all of them files of a folder that is on the stack: those take the short way.
        to, stack, full = self._to, self._stack, self._full
        chain, seq, begin = to.chain, to.seq, to.begun.append
        for record in records:
            path = record.path
            at, _, name = path.rpartition(b"/")
            folder = stack[-1]
            # What is barred is no folder on the stack.
            if self._barred is not None and (folder.path != at or not self._barred):
                if path.startswith(self._barred + b"/" if self._barred else b""):
                    if isinstance(record, Removal):
                        continue
                    raise _damaged(_NO_FOLDER)
                self._barred = None
            if self._root is None or not path.startswith(self._root):
                self._check_root(path)
            if folder.path != at:
                folder = self._go_to(at)
            if isinstance(record, Removal):
                more = self._remove(folder, path, name)
                if more is not None:
                    yield from more
                if to.is_slice_full():
                    yield
                continue
            is_folder = record.type is EntryType.DIRECTORY
            if not is_folder:
                if len(path) <= self._longest_above and path in self._above_roots:
                    raise _damaged("a root lies below something that is no folder")
                self._barred = path
            if folder.id is None:
                self._give_ids()
            if folder.fresh or (full and folder.row is None and not self._compare):
                begin((chain, folder.id, bytearray(name), seq, *to_row(record)))
                if folder.fresh or not self._is_known(folder, name):
                    self._add_name(folder, name)
                if not folder.is_sound:
                    self._check_folder(folder)
            elif full:
                self._merge(folder, name, to_row(record))
            else:
                more = self._change(folder, record, name)
                if more is not None:
                    yield from more
            if is_folder and path:
                stack.append(_Folder(path))
            if to.is_slice_full():
                yield

    def _go_to(self, at: bytes) -> _Folder:
        """The folder ``at``, which lies on the stack afterwards, last."""
        stack = self._stack
        while stack[-1].path != at:
            if sets.is_within(at, stack[-1].path):
                self._enter(at)
            else:
                self._leave(stack.pop())
        return stack[-1]

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
                (self._to.chain, at),
            ).fetchone()
            if row is None:
                return
            at = row[0]
            if at not in self._visited:
                self._to.end_folder(self._conn, at)
                if self._to.is_slice_full():
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
                found = self._to.new_folder(self._conn, parent, name)
            folder.id = found
            self._to.work_done(1)
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
            self._to.new_names(cast("int", folder.id), folder.names)

    # --- full listings ---

    def _pages(self, folder: int) -> Iterator[tuple[bytes, int, Row]]:
        query = (
            f"SELECT name, first, {ATTRIBUTES} FROM version"
            " WHERE chain = ? AND folder = ? AND name {} ? AND last = 0 AND first < ? ORDER BY name LIMIT ?"
        )
        at, comparison = b"", ">="
        while True:
            rows = self._conn.execute(
                query.format(comparison), (self._to.chain, folder, at, self._to.seq, PAGE)
            ).fetchall()
            for row in rows:
                yield row[0], row[1], row[2:]
            if len(rows) < PAGE:
                return
            at, comparison = rows[-1][0], ">"

    def _pass(self, folder: _Folder) -> None:
        """The folder's next current version is not in the listing."""
        assert folder.row is not None
        self._to.end(cast("int", folder.id), folder.row[0], folder.row[1])
        folder.row = next(folder.rows, None)

    def _merge(self, folder: _Folder, name: bytes, row: Row) -> None:
        while folder.row is not None and folder.row[0] < name:
            self._pass(folder)
        known = folder.row is not None and folder.row[0] == name
        if known:
            assert folder.row is not None
            if folder.row[2] == row:
                folder.row = next(folder.rows, None)
                self._to.work_done(1)
                return
            self._pass(folder)
        self._begin(folder, name, row, known=known)

    def _begin(self, folder: _Folder, name: bytes, row: Row, *, known: bool) -> None:
        self._to.begin(cast("int", folder.id), name, row)
        if not known and not self._is_known(folder, name):
            self._add_name(folder, name)

    def _add_name(self, folder: _Folder, name: bytes) -> None:
        folder.names.append(name)
        if len(folder.names) >= names.BLOCK:
            self._to.new_names(cast("int", folder.id), folder.names)
            folder.names = []

    def _is_known(self, folder: _Folder, name: bytes) -> bool:
        return not folder.fresh and names.is_known(self._conn, self._chains, cast("int", folder.id), name)

    # --- changes ---

    def _latest(self, folder: _Folder, name: Bytes) -> tuple[int, int, Row] | None:
        """Where the latest version of a name begins and ends, and what it is. Nothing of it waits to be written: each path
        comes once, and what was written before was written out."""
        row = self._cursor.execute(_LATEST, (self._to.chain, folder.id, name)).fetchone()
        return None if row is None else (row[0], row[1], row[2:])

    def _current(self, folder: _Folder, name: bytes) -> tuple[int, Row] | None:
        latest = self._latest(folder, name)
        return None if latest is None or latest[1] else (latest[0], latest[2])

    def _change(self, folder: _Folder, entry: CatalogEntry, name: bytes) -> Iterator[None] | None:
        """What is returned is work that is left and wants to be done before the next record."""
        row = to_row(entry)
        folder_id, key = cast("int", folder.id), bytearray(name)
        latest = self._latest(folder, key)
        if latest is None or latest[1]:
            if not folder.is_sound:
                self._check_folder(folder)
            self._to.begin(folder_id, key, row)
            if latest is None and not names.is_known(self._conn, self._others, folder_id, key):
                self._add_name(folder, name)
            return None
        first, _last, current = latest
        if current == row:
            self._to.work_done(1)
            return None
        self._to.end(folder_id, key, first)
        self._to.begin(folder_id, key, row)
        if current[0] == DIRECTORY and row[0] != DIRECTORY:
            return self._end_below(folder, entry.path, name)
        return None

    def _remove(self, folder: _Folder, path: bytes, name: bytes) -> Iterator[None] | None:
        self._barred = path
        if folder.fresh or not self._look_up():
            return None
        current = self._current(folder, name)
        if current is not None:
            self._to.end(cast("int", folder.id), name, current[0])
        if path in self._above_roots or (current is not None and current[1][0] == DIRECTORY):
            return self._end_below(folder, path, name)
        return None

    def _end_below(self, folder: _Folder, path: bytes, name: bytes) -> Iterator[None]:
        parent = cast("int", folder.id)
        begin = parent if not path else folders.child(self._conn, parent, name)
        if begin is None:
            return
        for number in folders.below(self._conn, begin):
            self._to.end_folder(self._conn, number)
            if self._to.is_slice_full():
                yield


def _damaged(detail: str) -> DataDamaged:
    return DataDamaged(object="the catalog segment", detail=detail)
