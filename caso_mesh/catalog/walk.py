"""Going through a segment in path order, and telling what begins and what ends with its set."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import cast

from caso_mesh.catalog import blocks, folders, names, sets
from caso_mesh.catalog.changes import Changes
from caso_mesh.catalog.schema import DIRECTORY, Row, split, to_row
from caso_mesh.catalog.segment import CatalogEntry, Record, Removal
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import DataDamaged

#: Records of one folder that go at once.
RUN = 2000
_NO_FOLDER = "it has something below what is no folder"


class _Folder:
    """A folder on the way from the top to the record at hand."""

    __slots__ = ("fresh", "id", "is_sound", "names", "new", "path", "prefix", "row", "rows", "said")

    def __init__(self, path: bytes) -> None:
        self.path = path
        # What the paths of all that lies below it begin with.
        self.prefix = path + b"/" if path else b""
        self.id: int | None = None
        self.fresh = False
        # Whether it is certain that the set has this folder.
        self.is_sound = True
        # What waits to be put: names, and what each is from now on.
        self.names: list[bytes] = []
        self.said: list[Row | None] = []
        # Names that no set had before.
        self.new: list[bytes] = []
        # Full listings only: the current versions not yet passed, and the first of them.
        self.rows: Iterator[tuple[bytes, int, Row]] = iter(())
        self.row: tuple[bytes, int, Row] | None = None


#: The folder, path and name of what was a folder in the set before and is none in this one.
_Ended = tuple[_Folder, bytes, bytes]


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
        if compare:
            self._start(self._top)

    def through(self, records: list[Record]) -> Iterator[None]:
        """The next records; where it yields, a slice may end."""
        # Millions of records pass here, most of them files of a folder that has several in a row: such a *run* goes at once.
        parts = [record.path.rpartition(b"/") for record in records]
        begin, total = 0, len(records)
        while begin < total:
            at = parts[begin][0]
            end = begin + 1
            if at:  # what lies at the top may be the top itself, above the others
                while end < total and end - begin < RUN and parts[end][0] == at:
                    end += 1
            run = records[begin:end]
            if not self._is_barred(at, run):
                for folder, path, name in self._run(at, run, [part[2] for part in parts[begin:end]]):
                    yield from self._end_below(folder, path, name)
                self._to.work_done(len(run))
                if self._to.is_slice_full():
                    yield
            begin = end

    def _run(self, at: bytes, run: list[Record], found: list[bytes]) -> Sequence[_Ended]:
        """Records of the folder ``at``, one after the other, and their names. What is no folder any more."""
        if self._root is None or not (at + b"/" if at else b"").startswith(self._root):
            for record in run:
                self._check_root(record.path)
        folder = self._stack[-1]
        if folder.path != at:
            folder = self._go_to(at)
        last = run[-1]
        is_folder = isinstance(last, CatalogEntry) and last.type is EntryType.DIRECTORY
        if not is_folder:
            # Before what follows here, all that lies below it would come.
            self._barred = last.path
        if len(at) < self._longest_above or not at:
            self._check_above_roots(run)
        ended: Sequence[_Ended] = ()
        if folder.id is None and not self._give_ids(make=any(isinstance(record, CatalogEntry) for record in run)):
            pass  # nothing lies there that could be removed
        elif self._full or folder.fresh:
            entries = [record for record in run if isinstance(record, CatalogEntry)]
            if len(entries) < len(run):
                found = [split(entry.path)[1] for entry in entries]
            self._list(folder, found, [to_row(entry) for entry in entries])
        else:
            ended = self._change(folder, run, found)
        if is_folder and last.path:
            self._stack.append(_Folder(last.path))
        return ended

    def _is_barred(self, at: bytes, run: list[Record]) -> bool:
        """Whether the run lies below what is no folder any more. Removing it once more does nothing."""
        barred = self._barred
        if barred is None:
            return False
        if barred and at != barred and not at.startswith(barred + b"/"):
            self._barred = None
            return False
        if not all(isinstance(record, Removal) for record in run):
            raise _damaged(_NO_FOLDER)
        return True

    def _check_above_roots(self, run: list[Record]) -> None:
        for record in run:
            if (
                isinstance(record, CatalogEntry)
                and record.type is not EntryType.DIRECTORY
                and record.path in self._above_roots
            ):
                raise _damaged("a root lies below something that is no folder")

    def _go_to(self, at: bytes) -> _Folder:
        """The folder ``at``, which lies on the stack afterwards, last."""
        stack, framed = self._stack, at + b"/"
        while not framed.startswith(stack[-1].prefix):
            self._leave(stack.pop())
        while stack[-1].path != at:
            self._enter(at)
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
                "SELECT folder FROM block WHERE chain = ? AND folder > ? ORDER BY folder LIMIT 1",
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
        end = target.find(b"/", len(self._stack[-1].prefix))
        path = target if end < 0 else target[:end]
        folder = _Folder(path)
        folder.is_sound = path in self._above_roots
        if self._full and not folder.is_sound:
            raise _damaged(_NO_FOLDER)  # its own entry would have put it on the stack
        self._stack.append(folder)

    def _check_folder(self, folder: _Folder) -> None:
        """Something new lies in a folder of which the segment says nothing: it must be a folder of the base. All above
        it are then, and what was in it before says the same."""
        above, name = self._stack[-2], split(folder.path)[1]
        state = None if above.fresh else blocks.state(self._conn, self._to.chain, cast("int", above.id), name)
        if state is None or state[1] is None or state[1][0] != DIRECTORY:
            raise _damaged(_NO_FOLDER)
        folder.is_sound = True

    def _give_ids(self, *, make: bool) -> bool:
        """Give ids to the folders on the stack that have none yet; ``False`` when one does not exist and is not made."""
        at = len(self._stack) - 1
        while self._stack[at].id is None:
            at -= 1
        missing = self._stack[at + 1 :]
        if not missing:
            return True
        above = self._stack[at]
        last_parts = [folder.path[len(before.prefix) :] for before, folder in itertools.pairwise(self._stack[at:])]
        ids: Sequence[int | None] | None = None
        if not above.fresh:
            ids = folders.descend(self._conn, cast("int", above.id), last_parts)
        if ids is None and not make:
            return False
        for number, folder in enumerate(missing):
            parent, name = cast("int", above.id), last_parts[number]
            if ids is not None:
                folder.id = ids[number]
            elif len(missing) > 1 and not above.fresh:
                folder.id = folders.child(self._conn, parent, name)
            if folder.id is None:
                folder.fresh = True
                folder.id = self._to.new_folder(self._conn, parent, name)
            if self._compare:
                self._start(folder)
            above = folder
        self._to.work_done(len(missing))
        return True

    def _start(self, folder: _Folder) -> None:
        """Begin to compare a folder."""
        number = cast("int", folder.id)
        self._visited.add(number)
        if not folder.fresh:
            folder.rows = blocks.listing(self._conn, self._to.chain, number, self._to.seq - 1)
            folder.row = next(folder.rows, None)

    def _leave(self, folder: _Folder) -> None:
        while folder.row is not None:
            self._pass(folder)
        if folder.names:
            self._to.put(cast("int", folder.id), folder.names, folder.said)
        if folder.new:
            self._to.new_names(cast("int", folder.id), folder.new)

    def _put(self, folder: _Folder) -> None:
        """Hand on what waits, as far as it fills blocks: the rest when the folder is left."""
        if len(folder.names) >= blocks.FULL:
            end = len(folder.names) // blocks.FULL * blocks.FULL
            self._to.put(cast("int", folder.id), folder.names[:end], folder.said[:end])
            del folder.names[:end], folder.said[:end]
        if len(folder.new) >= names.BLOCK:
            end = len(folder.new) // names.BLOCK * names.BLOCK
            self._to.new_names(cast("int", folder.id), folder.new[:end])
            del folder.new[:end]

    def _add_new(self, folder: _Folder, found: list[bytes], chains: list[int]) -> None:
        """Names that begin in ``folder``; those are new that none of the chains ever had."""
        if found and chains and not folder.fresh:
            known = blocks.known(self._conn, chains, cast("int", folder.id), found)
            found = [name for name in found if name not in known]
        folder.new += found

    # --- full listings, and folders that were not there before ---

    def _list(self, folder: _Folder, found: list[bytes], rows: list[Row]) -> None:
        if found and not folder.is_sound:
            self._check_folder(folder)
        if self._compare and not folder.fresh:
            self._merge(folder, found, rows)
        else:
            self._to.appeared += len(found)
            folder.names += found
            folder.said += rows
            self._add_new(folder, found, self._others)
        self._put(folder)

    def _merge(self, folder: _Folder, found: list[bytes], rows: list[Row]) -> None:
        begun: list[bytes] = []
        for name, row in zip(found, rows, strict=True):
            while folder.row is not None and folder.row[0] < name:
                self._pass(folder)
            if folder.row is not None and folder.row[0] == name:
                _name, first, current = folder.row
                folder.row = next(folder.rows, None)
                if current == row:
                    continue
                self._to.count_end(first)
            else:
                begun.append(name)
            self._to.appeared += 1
            folder.names.append(name)
            folder.said.append(row)
        self._add_new(folder, begun, self._chains)

    def _pass(self, folder: _Folder) -> None:
        """The folder's next current version is not in the listing."""
        assert folder.row is not None
        self._to.count_end(folder.row[1])
        self._to.work_done(1)
        folder.names.append(folder.row[0])
        folder.said.append(None)
        folder.row = next(folder.rows, None)

    # --- changes ---

    def _change(self, folder: _Folder, run: list[Record], found: list[bytes]) -> list[_Ended]:
        to, ended = self._to, list[_Ended]()
        states = blocks.states(self._conn, to.chain, cast("int", folder.id), found)
        if not folder.is_sound and any(row is not None for _first, row in states.values()):
            folder.is_sound = True  # what has something in it is a folder, and the segment says nothing of it
        new: list[bytes] = []
        for record, name in zip(run, found, strict=True):
            state = states.get(name)
            current = None if state is None else state[1]
            row = to_row(record) if isinstance(record, CatalogEntry) else None
            if row is None and record.path in self._above_roots:
                ended.append((folder, record.path, name))
            if row == current:
                continue
            if state is None:
                new.append(name)
            if current is None:
                if not folder.is_sound:
                    self._check_folder(folder)
            else:
                to.count_end(cast("tuple[int, Row]", state)[0])
                if current[0] == DIRECTORY and (row is None or row[0] != DIRECTORY):
                    ended.append((folder, record.path, name))
            if row is not None:
                to.appeared += 1
            folder.names.append(name)
            folder.said.append(row)
        self._add_new(folder, new, self._others)
        self._put(folder)
        return ended

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
