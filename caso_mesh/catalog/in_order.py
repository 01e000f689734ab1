"""Walking the names of a catalog in order of source and path, from any place on: what is found first is what comes first, so that
the next page begins behind the last one, whoever is asked for it.

A walk goes through all folders, or through those alone to which the index of names leads (``Leads``). Blocks are fetched for
many folders at once: most hold nothing, and a question of its own for each takes longer than all the rest.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

from msgspec import Struct

from caso_mesh.catalog import blocks
from caso_mesh.catalog.descent import Step, steps
from caso_mesh.catalog.leads import Leads, Range
from caso_mesh.catalog.schema import Row, join
from caso_mesh.catalog.segment import NAME_MAX

#: Of the versions of one name: itself, its chain, ``first``, ``last`` and what it is.
Rows = list[tuple[bytes, int, int, int, Row]]
#: Up to what is beyond every name.
_EVERYTHING: list[Range] = [(b"", b"\xff" * (NAME_MAX + 1))]
_NOTHING: list[Range] = []
#: Of so many folders blocks are fetched at once: few at first, so that what is found soon is told soon.
_AHEAD, _AHEAD_MOST = 25, 400


class Filter(Struct, frozen=True):
    """What is left out before paths are compared. ``admits``: of versions; each name that may match holds ``literal``; a part of each path that may match holds ``part`` (with a slash where that begins or ends): in a folder
    whose path does not, the name must. Neither is needed."""

    admits: Callable[[Row], bool]
    literal: bytes = b""
    part: bytes = b""

    def within(self, folder: bytes) -> bytes:
        """What a name in that folder holds."""
        return self.literal if self.part in b"/%s/" % folder else self.part.strip(b"/")


#: Of each chain, the blocks of a folder; ``None``: they are to be asked for.
_Blocks = list[Sequence[blocks.Fetched] | None]


class _Folder(NamedTuple):
    """One to be looked into: ``literal`` is what names in it hold that may match, ``ranges`` where these lie, ``low`` what of
    it comes before the place where the walk begins, if that lies in it."""

    level: int
    name: bytes
    path: bytes
    id: int
    literal: bytes
    ranges: list[Range]
    low: bytes | None


class _Opened(Struct):
    """A folder of which not all names were given yet: the next one, and those after it."""

    level: int
    path: bytes
    next: tuple[bytes, Rows] | None
    names: Generator[tuple[bytes, Rows], None, None]


class Walk:
    """The versions of each name of one source, in path order. ``chains``: its chains that count; ``top``: its top folder.

    It begins behind the path ``after``. ``entered`` is asked before a folder is looked into: ``False`` ends the walk there."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        *,
        top: int,
        chains: list[int],
        only: Filter,
        leads: Leads | None,
        after: bytes | None,
        entered: Callable[[], bool],
    ) -> None:
        self._conn = conn
        self._top = top
        self._chains = chains
        self._only = only
        self._leads = leads
        self._entered = entered
        self._after = after
        self._last: tuple[bytes, bytes] | None = None
        # By level, the path of the folder to which the last step went.
        self._paths: list[bytes] = []

    @property
    def place(self) -> bytes | None:
        """The path up to which all was given: a later walk goes on after it."""
        return self._after if self._last is None else join(*self._last)

    def names(self) -> Generator[tuple[bytes, bytes, Rows], None, None]:
        """Folder, name, and what there is of it. To be closed, if it is not gone through: no question stays open."""
        opened: list[_Opened] = []
        try:
            with closing(steps(self._conn, self._top, self._leads, self._after)) as each:
                yield from self._through(each, opened)
        finally:
            for folder in opened:
                folder.names.close()

    def _through(self, each: Iterator[Step], opened: list[_Opened]) -> Iterator[tuple[bytes, bytes, Rows]]:
        ahead = _AHEAD
        while some := [self._folder(*step) for step in islice(each, ahead)]:
            ahead = min(2 * ahead, _AHEAD_MOST)
            while some:
                fetched = self._fetch(some)
                for folder, its_blocks in zip(some, fetched, strict=False):
                    if opened and opened[-1].level >= folder.level - 1:
                        yield from self._upto(folder.level, folder.name, opened)
                    if folder.level and folder.low is None:
                        self._after, self._last = folder.path, None
                        if not self._entered():
                            return
                    if its_blocks is not None:
                        names = self._names(folder, its_blocks)
                        first = next(names, None)
                        if first is not None:
                            opened.append(_Opened(folder.level, folder.path, first, names))
                del some[: len(fetched)]
        yield from self._upto(0, b"", opened)

    def _upto(self, level: int, name: bytes, opened: list[_Opened]) -> Iterator[tuple[bytes, bytes, Rows]]:
        """The names that come before what lies in the folder ``name`` on that level, which is the next one."""
        while opened and opened[-1].level >= level - 1:
            at = opened[-1]
            is_over = at.level >= level
            while at.next is not None and (is_over or at.next[0] <= name):
                found, rows = at.next
                at.next = next(at.names, None)
                yield at.path, found, rows
                self._last = at.path, found
            if at.next is not None:
                return
            opened.pop()

    def _folder(self, level: int, name: bytes, number: int, is_whole: bool, low: bytes | None) -> _Folder:
        """What is to be known of the folder of a step."""
        del self._paths[level:]
        path = join(self._paths[-1], name) if level else b""
        self._paths.append(path)
        ranges = _EVERYTHING if is_whole or self._leads is None else self._leads.ranges.get(number, _NOTHING)
        return _Folder(level, name, path, number, self._only.within(path) if ranges else b"", ranges, low)

    def _fetch(self, some: Sequence[_Folder]) -> list[_Blocks | None]:
        """The blocks of as many of the folders, from the first one on, as can be at once; ``None`` where none may match."""
        by_literal: dict[bytes, list[int]] = {}
        for folder in some:
            if folder.ranges and folder.low is None:
                by_literal.setdefault(folder.literal, []).append(folder.id)
        end = len(some)
        by_chain: list[dict[int, list[blocks.Fetched]]] = []
        for chain in self._chains:
            found: dict[int, list[blocks.Fetched]] = {}
            for literal, ids in by_literal.items():
                its_blocks, first_missing = blocks.fetch(self._conn, chain, ids, literal)
                found |= its_blocks
                if first_missing is not None:
                    end = min(end, next(at for at, folder in enumerate(some) if folder.id == first_missing))
            by_chain.append(found)
        each_alone: _Blocks = [None] * len(self._chains)
        if not end:  # the first one has too many
            return [each_alone]
        given: list[_Blocks | None] = []
        for folder in some[:end]:
            if folder.ranges and folder.low is not None:
                given.append(each_alone)
            elif any(folder.id in found for found in by_chain):
                given.append([found.get(folder.id, ()) for found in by_chain])
            else:
                given.append(None)
        return given

    def _names(self, folder: _Folder, its_blocks: _Blocks) -> Generator[tuple[bytes, Rows], None, None]:
        each = [
            self._of_chain(chain, folder, of_chain)
            for chain, of_chain in zip(self._chains, its_blocks, strict=True)
            if of_chain is None or of_chain
        ]
        group: Rows = []
        try:
            for row in each[0] if len(each) == 1 else heapq.merge(*each, key=itemgetter(0)):
                if group and row[0] != group[0][0]:
                    yield group[0][0], group
                    group = []
                group.append(row)
            if group:
                yield group[0][0], group
        finally:
            for rows in each:
                rows.close()

    def _of_chain(
        self, chain: int, folder: _Folder, fetched: Sequence[blocks.Fetched] | None
    ) -> Generator[tuple[bytes, int, int, int, Row], None, None]:
        admits, low = self._only.admits, folder.low
        for lowest, highest in folder.ranges:
            begin = lowest if low is None or low < lowest else low + b"\x00"
            if begin <= highest:
                for name, first, last, row in blocks.history(
                    self._conn, chain, folder.id, begin, highest, folder.literal, fetched=fetched
                ):
                    if admits(row):
                        yield name, chain, first, last, row
