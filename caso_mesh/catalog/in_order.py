"""Walking the names of a catalog in order of source and path, from any place on: what is found first is what comes first, so that
the next page begins behind the last one, whoever is asked for it.

A walk goes through all folders, or through those alone to which the index of names leads (``Leads``).
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import dropwhile, islice
from operator import itemgetter
from typing import TypeVar

from msgspec import Struct

from caso_mesh.catalog import blocks, folders, names
from caso_mesh.catalog.schema import Row, join
from caso_mesh.catalog.segment import NAME_MAX

_T = TypeVar("_T")
_Range = tuple[bytes, bytes]
#: A folder below another one: name, id, and whether there may be others below it.
_Child = tuple[bytes, int, bool]
#: Of a chain, the blocks of a folder; ``None``: they are to be asked for.
_OfChain = tuple[int, Sequence[blocks.Fetched] | None]
#: Of the versions of one name: itself, its chain, ``first``, ``last`` and what it is.
Rows = list[tuple[bytes, int, int, int, Row]]
#: Up to what is beyond every name.
_EVERYTHING: list[_Range] = [(b"", b"\xff" * (NAME_MAX + 1))]
_BELOW = (
    "SELECT name, id, EXISTS (SELECT 1 FROM folder f WHERE f.parent = folder.id) FROM folder"
    " WHERE parent = ? AND name >= ? ORDER BY name"
)
#: Of so many folders blocks are fetched at once.
_AHEAD = 100


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
    for folder, parent, name in folders.upwards(conn, [*{*ranges, *whole}]):
        children.setdefault(parent, []).append((name, folder, True))
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


class _Ahead:
    """The blocks of folders to which the index leads, fetched for many folders at once: most hold nothing, and a question
    of its own for each takes longer than all the rest."""

    def __init__(self, conn: sqlite3.Connection, top: int, chains: list[int], leads: Leads, holding: bytes) -> None:
        self._conn = conn
        self._chains = chains
        self._holding = holding
        self._order = _in_order(leads, top)
        self._asked: frozenset[int] = frozenset()
        self._fetched: list[dict[int, Sequence[blocks.Fetched]]] = []

    def get(self, folder: int, literal: bytes) -> list[Sequence[blocks.Fetched] | None]:
        """For each chain; ``None`` where it is to be asked for. Folders are to be given in the order of the walk."""
        if not literal or literal != self._holding:
            return [None] * len(self._chains)
        if folder not in self._asked:
            order = dropwhile(lambda each: each != folder, self._order)
            some = list(islice(order, _AHEAD))
            self._asked = frozenset(some)
            self._fetched = [blocks.fetch(self._conn, chain, some, literal) for chain in self._chains if some]
        return [fetched.get(folder) for fetched in self._fetched] or [None] * len(self._chains)


def _in_order(leads: Leads, top: int) -> Iterator[int]:
    """The folders with ranges, in path order, without those of which all is walked through."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        if folder in leads.whole:
            continue
        if folder in leads.ranges:
            yield folder
        waiting += [below for _name, below, _more in reversed(leads.children.get(folder, []))]


class _Level(Struct):
    """A folder that is being walked: what is next in it, and what is next below it."""

    path: bytes
    names: Generator[tuple[bytes, Rows], None, None] | None
    below: Generator[_Child, None, None] | None
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
        self._ahead = None if leads is None else _Ahead(conn, top, chains, leads, only.part.strip(b"/"))
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
                for each in (level.names, level.below):
                    if each is not None:
                        each.close()

    def _through(self, levels: list[_Level]) -> Iterator[tuple[bytes, bytes, Rows]]:
        behind = None if self._after is None else self._after.split(b"/")
        self._enter(levels, self._top, b"", self._leads is None, behind, has_below=True)
        while levels:
            at = levels[-1]
            if at.name is not None and (at.child is None or at.name[0] <= at.child[0]):
                name, rows = at.name
                at.name = _following(at.names)
                yield at.path, name, rows
                self._last = at.path, name
            elif at.child is not None:
                name, folder, has_below = at.child
                at.child = _following(at.below)
                # only the first folder on the way was begun before
                on_the_way = behind is not None and behind[len(levels) - 1 : len(levels)] == [name]
                behind = behind if on_the_way else None
                rest = behind[len(levels) :] if behind is not None else []
                if not rest:
                    self._last = at.path, name
                if not self._entered():
                    return
                self._enter(levels, folder, join(at.path, name), at.is_whole, rest or None, has_below=has_below)
            else:
                levels.pop()

    def _enter(
        self,
        levels: list[_Level],
        folder: int,
        path: bytes,
        is_whole: bool,
        behind: list[bytes] | None,
        *,
        has_below: bool,
    ) -> None:
        """``behind``: what of the place to go on after lies below ``folder``. Most folders hold nothing: they are passed
        by with as little as can be."""
        leads = self._leads
        is_whole = is_whole or (leads is not None and folder in leads.whole)
        low = None if behind is None else behind[0]
        ranges = _EVERYTHING if is_whole or leads is None else leads.ranges.get(folder, [])
        literal = self._only.within(path)
        chosen = self._chosen(folder, is_whole, ranges, literal, low)
        level = _Level(
            path,
            self._names(folder, chosen, ranges, literal, low) if chosen else None,
            self._below(folder, is_whole, low) if has_below else None,
            is_whole,
        )
        levels.append(level)
        level.name, level.child = _following(level.names), _following(level.below)

    def _chosen(
        self, folder: int, is_whole: bool, ranges: list[_Range], literal: bytes, low: bytes | None
    ) -> list[_OfChain]:
        """The chains that may have such names in the folder."""
        if self._ahead is None or is_whole:
            found = ((chain, blocks.may_have(self._conn, chain, folder, low or b"", literal)) for chain in self._chains)
            return [each for each in found if each[1]]
        if not ranges:
            return []
        ahead = zip(self._chains, self._ahead.get(folder, literal), strict=True)
        return [each for each in ahead if each[1] is None or each[1]]

    def _names(
        self, folder: int, chosen: list[_OfChain], ranges: list[_Range], literal: bytes, low: bytes | None
    ) -> Generator[tuple[bytes, Rows], None, None]:
        each = [self._of_chain(chain, folder, ranges, literal, low, fetched) for chain, fetched in chosen]
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
        self,
        chain: int,
        folder: int,
        ranges: list[_Range],
        literal: bytes,
        low: bytes | None,
        fetched: Sequence[blocks.Fetched] | None,
    ) -> Generator[tuple[bytes, int, int, int, Row], None, None]:
        admits = self._only.admits
        for lowest, highest in ranges:
            begin = lowest if low is None or low < lowest else low + b"\x00"
            if begin <= highest:
                for name, first, last, row in blocks.history(
                    self._conn, chain, folder, begin, highest, literal, fetched=fetched
                ):
                    if admits(row):
                        yield name, chain, first, last, row

    def _below(self, folder: int, is_whole: bool, low: bytes | None) -> Generator[_Child, None, None]:
        if is_whole or self._leads is None:
            yield from self._conn.execute(_BELOW, (folder, low or b""))
            return
        for each in self._leads.children.get(folder, []):
            if low is None or each[0] >= low:
                yield each


def _following(each: Generator[_T, None, None] | None) -> _T | None:
    return None if each is None else next(each, None)
