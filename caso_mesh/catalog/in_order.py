"""Walking the names of a catalog in order of source and path, from any place on: what is found first is what comes first, so that
the next page begins behind the last one, whoever is asked for it.

A walk goes through all folders, or through those alone to which the index of names leads (``Leads``).
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Generator, Iterator
from operator import itemgetter

from msgspec import Struct

from caso_mesh.catalog import blocks, folders, names
from caso_mesh.catalog.schema import Row, join
from caso_mesh.catalog.segment import NAME_MAX

_Range = tuple[bytes, bytes]
#: A folder below another one: name and id.
_Child = tuple[bytes, int]
#: Of the versions of one name: itself, its chain, ``first``, ``last`` and what it is.
Rows = list[tuple[bytes, int, int, int, Row]]
#: Up to what is beyond every name.
_EVERYTHING: list[_Range] = [(b"", b"\xff" * (NAME_MAX + 1))]


class Filter(Struct, frozen=True):
    """What is left out before paths are compared. ``admits``: of versions; each name that may match holds ``literal``; a part of each path that may match holds ``part`` (with a slash where that begins or ends): in a folder
    whose path does not, the name must. Neither is needed."""

    admits: Callable[[Row], bool]
    literal: bytes = b""
    part: bytes = b""

    def within(self, folder: bytes) -> bytes:
        """What a name in that folder holds."""
        return self.literal if self.part in b"/%s/" % folder else self.part.strip(b"/")


class Leads(Struct, frozen=True):
    """Where names may lie that match. ``ranges``: by folder, of names; ``whole``: folders below which any name may;
    ``children``: by folder, those below it that lead there."""

    ranges: dict[int, list[_Range]]
    whole: frozenset[int]
    children: dict[int, list[_Child]]


def leads(conn: sqlite3.Connection, text: bytes, *, is_last: bool) -> Leads:
    """What the index of names says about ``text``, which the last part of each matching path holds, or (unless
    ``is_last``) a folder above."""
    ranges: dict[int, list[_Range]] = {}
    for folder, lowest, highest in names.blocks(conn, text):
        ranges.setdefault(folder, []).append((lowest, highest))
    whole = frozenset[int]() if is_last else frozenset(names.folders(conn, text))
    children: dict[int, list[_Child]] = {}
    known = set[int]()
    for folder in {*ranges, *whole}:
        at = folder
        while at not in known and at != folders.NOWHERE:
            known.add(at)
            row = conn.execute("SELECT parent, name FROM folder WHERE id = ?", (at,)).fetchone()
            if row is None:
                break  # its names are gone, and only the index still has them
            children.setdefault(row[0], []).append((row[1], at))
            at = row[0]
    for below in children.values():
        below.sort()
    return Leads({folder: _joined(each) for folder, each in ranges.items()}, whole, children)


def _joined(ranges: list[_Range]) -> list[_Range]:
    """Without what overlaps."""
    ranges.sort()
    found = ranges[:1]
    for lowest, highest in ranges[1:]:
        if lowest <= found[-1][1]:
            found[-1] = found[-1][0], max(highest, found[-1][1])
        else:
            found.append((lowest, highest))
    return found


class _Level(Struct):
    """A folder that is being walked: what is next in it, and what is next below it."""

    path: bytes
    names: Generator[tuple[bytes, Rows], None, None]
    below: Generator[_Child, None, None]
    is_whole: bool
    name: tuple[bytes, Rows] | None = None
    child: _Child | None = None


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

    @property
    def place(self) -> bytes | None:
        """The path up to which all was given: a later walk goes on after it."""
        return self._after if self._last is None else join(*self._last)

    def names(self) -> Generator[tuple[bytes, bytes, Rows], None, None]:
        """Folder, name, and what there is of it. To be closed, if it is not gone through: no question stays open."""
        levels: list[_Level] = []
        try:
            yield from self._through(levels)
        finally:
            for level in levels:
                level.names.close()
                level.below.close()

    def _through(self, levels: list[_Level]) -> Iterator[tuple[bytes, bytes, Rows]]:
        behind = None if self._after is None else self._after.split(b"/")
        self._enter(levels, self._top, b"", self._leads is None, behind)
        while levels:
            at = levels[-1]
            if at.name is not None and (at.child is None or at.name[0] <= at.child[0]):
                name, rows = at.name
                at.name = next(at.names, None)
                yield at.path, name, rows
                self._last = at.path, name
            elif at.child is not None:
                name, folder = at.child
                at.child = next(at.below, None)
                # only the first folder on the way was begun before
                on_the_way = behind is not None and behind[len(levels) - 1 : len(levels)] == [name]
                behind = behind if on_the_way else None
                rest = behind[len(levels) :] if behind is not None else []
                if not rest:
                    self._last = at.path, name
                if not self._entered():
                    return
                self._enter(levels, folder, join(at.path, name), at.is_whole, rest or None)
            else:
                levels.pop()

    def _enter(
        self, levels: list[_Level], folder: int, path: bytes, is_whole: bool, behind: list[bytes] | None
    ) -> None:
        """``behind``: what of the place to go on after lies below ``folder``."""
        leads = self._leads
        is_whole = is_whole or (leads is not None and folder in leads.whole)
        low = None if behind is None else behind[0]
        ranges = _EVERYTHING if is_whole or leads is None else leads.ranges.get(folder, [])
        literal = self._only.within(path)
        level = _Level(path, self._names(folder, ranges, literal, low), self._below(folder, is_whole, low), is_whole)
        levels.append(level)
        level.name, level.child = next(level.names, None), next(level.below, None)

    def _names(
        self, folder: int, ranges: list[_Range], literal: bytes, low: bytes | None
    ) -> Generator[tuple[bytes, Rows], None, None]:
        each = [self._of_chain(chain, folder, ranges, literal, low) for chain in self._chains]
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
        self, chain: int, folder: int, ranges: list[_Range], literal: bytes, low: bytes | None
    ) -> Generator[tuple[bytes, int, int, int, Row], None, None]:
        admits = self._only.admits
        for lowest, highest in ranges:
            begin = lowest if low is None or low < lowest else low + b"\x00"
            if begin <= highest:
                for name, first, last, row in blocks.history(self._conn, chain, folder, begin, highest, literal):
                    if admits(row):
                        yield name, chain, first, last, row

    def _below(self, folder: int, is_whole: bool, low: bytes | None) -> Generator[_Child, None, None]:
        if is_whole or self._leads is None:
            query = "SELECT name, id FROM folder WHERE parent = ? AND name >= ? ORDER BY name"
            yield from self._conn.execute(query, (folder, low or b""))
            return
        for each in self._leads.children.get(folder, []):
            if low is None or each[0] >= low:
                yield each
