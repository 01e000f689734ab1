"""Walking the names of a catalog in order of source and path, from any place on: what is found first is what comes first, so that
the next page begins behind the last one, whoever is asked for it.

A walk goes through all folders, or through those alone to which the index of names leads (``Leads``). Blocks are fetched for
many folders at once: most hold nothing, and a question of its own for each takes longer than all the rest.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from operator import itemgetter

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
#: Where the index leads to no more than so many, each is asked for its blocks by the range of names: a folder may have a
#: million of them.
_ALONE = 50


class Filter(Struct, frozen=True):
    """What is left out before paths are compared. ``admits``: of versions; each name that may match holds ``literal``; a part of
    each path that may match holds ``part`` (with a slash where that begins or ends): in a folder whose path does not, the
    name must. Neither is needed. ``ignores_case``: both are in small letters, and letters of ASCII are alike."""

    admits: Callable[[Row], bool]
    literal: bytes = b""
    part: bytes = b""
    ignores_case: bool = False

    def within(self, folder: bytes) -> bytes:
        """What a name in that folder holds."""
        path = folder.lower() if self.ignores_case else folder
        return self.literal if self.part in b"/%s/" % path else self.part.strip(b"/")


#: Of each chain, the blocks of a folder; ``None``: they are to be asked for.
_Blocks = list[Sequence[blocks.Fetched] | None]


#: One to be looked into: path, id, what names in it hold that may match, where these lie, and, on the way to the place where
#: the walk begins, what of it comes before.
_Folder = tuple[bytes, int, bytes, list[Range], bytes | None]


class _Opened(Struct):
    """A folder of which not all names were given yet: what paths below it begin with, the next name, and those after it."""

    path: bytes
    prefix: bytes
    next: tuple[bytes, Rows] | None
    names: Generator[tuple[bytes, Rows], None, None]

    def is_before(self, path: bytes) -> bool:
        """Whether the next name comes before what lies in the folder ``path``, which is a later one."""
        if not path.startswith(self.prefix):
            return True
        return self.next is None or self.next[0] <= path[len(self.prefix) :].partition(b"/")[0]


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
        self._alone = leads is not None and len(leads.ranges) <= _ALONE
        self._entered = entered
        self._after = after
        self._last: tuple[bytes, bytes] | None = None

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
        while some := self._folders(islice(each, ahead)):
            ahead = min(2 * ahead, _AHEAD_MOST)
            while some:
                fetched = self._fetch(some)
                for folder, its_blocks in zip(some, fetched, strict=False):
                    path = folder[0]
                    if opened and opened[-1].is_before(path):
                        yield from self._before(path, opened)
                    if path and folder[4] is None:
                        self._after, self._last = path, None
                        if not self._entered():
                            return
                    if its_blocks is not None:
                        names = self._names(folder, its_blocks)
                        first = next(names, None)
                        if first is not None:
                            opened.append(_Opened(path, path + b"/" if path else b"", first, names))
                del some[: len(fetched)]
        while opened:
            yield from self._given(opened, None)

    def _before(self, path: bytes, opened: list[_Opened]) -> Iterator[tuple[bytes, bytes, Rows]]:
        """The names that come before what lies in the folder ``path``, which is the next one."""
        while opened:
            at = opened[-1]
            if not at.is_before(path):
                return
            is_above = path.startswith(at.prefix)
            yield from self._given(opened, path[len(at.prefix) :].partition(b"/")[0] if is_above else None)

    def _given(self, opened: list[_Opened], upto: bytes | None) -> Iterator[tuple[bytes, bytes, Rows]]:
        """Of the last one opened, the names up to ``upto``."""
        at = opened[-1]
        while at.next is not None and (upto is None or at.next[0] <= upto):
            name, rows = at.next
            at.next = next(at.names, None)
            yield at.path, name, rows
            self._last = at.path, name
        if at.next is None:
            opened.pop()

    def _folders(self, some: Iterable[Step]) -> list[_Folder]:
        """What is to be known of the folders of some steps."""
        found: list[_Folder] = []
        # most patterns have but one text
        within = self._only.within if self._only.part.strip(b"/") != self._only.literal else None
        literal = self._only.literal
        every = None if self._leads is None else self._leads.ranges
        for path, number, is_whole, low in some:
            ranges = _EVERYTHING if is_whole or every is None else every.get(number, _NOTHING)
            found.append((path, number, within(path) if within and ranges else literal, ranges, low))
        return found

    def _fetch(self, some: Sequence[_Folder]) -> list[_Blocks | None]:
        """The blocks of as many of the folders, from the first one on, as can be at once; ``None`` where none may match."""
        by_literal: dict[bytes, list[int]] = {}
        for _path, number, literal, ranges, low in some:
            if ranges and not self._is_alone(ranges, low):
                by_literal.setdefault(literal, []).append(number)
        end = len(some)
        by_chain: list[dict[int, list[blocks.Fetched]]] = []
        for chain in self._chains:
            found: dict[int, list[blocks.Fetched]] = {}
            for literal, ids in by_literal.items():
                its_blocks, first_missing = blocks.fetch(self._conn, chain, ids, self._holding(literal))
                found |= its_blocks
                if first_missing is not None:
                    end = min(end, next(at for at, folder in enumerate(some) if folder[1] == first_missing))
            by_chain.append(found)
        each_alone: _Blocks = [None] * len(self._chains)
        if not end:  # the first one has too many
            return [each_alone]
        holding = {number for found in by_chain for number in found}
        given: list[_Blocks | None] = []
        for _path, number, _literal, ranges, low in some[:end]:
            if ranges and self._is_alone(ranges, low):
                given.append(each_alone)
            elif number in holding:
                given.append([found.get(number, ()) for found in by_chain])
            else:
                given.append(None)
        return given

    def _is_alone(self, ranges: list[Range], low: bytes | None) -> bool:
        """Whether the blocks of a folder are asked for when it is looked into."""
        return low is not None or (self._alone and ranges is not _EVERYTHING)

    def _holding(self, literal: bytes) -> blocks.Holding:
        return blocks.Holding(literal, self._only.ignores_case) if literal else blocks.NO_TEXT

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
        admits = self._only.admits
        _path, number, literal, ranges, low = folder
        holding = self._holding(literal)
        for lowest, highest in ranges:
            begin = lowest if low is None or low < lowest else low + b"\x00"
            if begin <= highest:
                for name, first, last, row in blocks.history(
                    self._conn, chain, number, begin, highest, holding, fetched=fetched
                ):
                    if admits(row):
                        yield name, chain, first, last, row
