"""Finding paths by a pattern, over all sets, sources and times.

``*`` is any text, slashes included, ``?`` any one character, ``[a-z]`` and ``[!a-z]`` one of (or none of) some. A pattern
is compared with the whole path, and without a slash with the last part as well; a slash at its beginning or end may be
given or not.

The longest texts in a pattern that surely lie within one part of the path lead to candidates by trigrams (``names.py``):
either the last part holds such a text, or a folder above does. **The fallback**: a pattern without a text of three
bytes (the ends of a part count as one) is compared with all names that its other conditions leave; names that are not
UTF-8 need none, since names are indexed byte for byte. Whatever takes long ends when the time is over (``is_over``), with
what was found by then.

Without regard to case the index is asked for ASCII texts only: it folds bytes, and a letter beyond them is several.
"""

from __future__ import annotations

import fnmatch
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from caso_mesh.catalog import folders, names
from caso_mesh.catalog.browse import timelines
from caso_mesh.catalog.schema import ATTRIBUTES, from_row, join, number_of, split
from caso_mesh.catalog.segment import NAME_MAX, CatalogEntry
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import InvalidValue

_PATTERN_MAX = 4096
_WILDCARD = re.compile(r"\*|\?|\[!?\]?[^\]]*\]")
#: Blocks and folders up to which candidates are counted to choose a text.
_COUNT = 2000
#: SQLite's steps between two looks at the time: about a millisecond.
_STEPS = 20_000
#: Beyond every name.
_HIGHEST = b"\xff" * (NAME_MAX + 1)


class Match(Struct, frozen=True):
    """``set`` is the newest set that has ``path`` as asked for, ``entry`` what it is there; ``source`` a node id."""

    set: str
    source: str
    path: bytes
    entry: CatalogEntry


class _Text(Struct, frozen=True):
    """A text that one part of each matching path holds: the last one, if ``is_last``."""

    text: bytes
    is_last: bool


class Wanted(Struct, frozen=True):
    """What a path must be beside its name. ``sources``: node ids; ``since_ns``, ``until_ns``: when the set ended;
    ``size_min``, ``size_max``: bytes; ``modified_since``, ``modified_until``: (seconds, nanoseconds); all bounds are
    included. ``ignore_case``: letters are alike whatever their case."""

    sources: frozenset[str] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    size_min: int | None = None
    size_max: int | None = None
    modified_since: tuple[int, int] | None = None
    modified_until: tuple[int, int] | None = None
    type: EntryType | None = None
    ignore_case: bool = False

    def condition(self) -> tuple[str, tuple[int, ...]]:
        """Of the rows of ``version``, and its values."""
        parts: list[str] = []
        values: list[int] = []
        for text, bound in (("size >= ?", self.size_min), ("size <= ?", self.size_max)):
            if bound is not None:
                parts.append(text)
                values.append(max(0, min(bound, 2**63 - 1)))
        for sign, time in ((">=", self.modified_since), ("<=", self.modified_until)):
            if time is not None:
                parts.append(f"(seconds, nanoseconds) {sign} (?, ?)")
                values += time
        if self.type is not None:
            parts.append("type = ?")
            values.append(number_of(self.type))
        return "".join(f" AND {part}" for part in parts), tuple(values)


class Found(Struct, frozen=True):
    """``is_cut_off``: the time was over before everything was looked at."""

    matches: list[Match]
    is_cut_off: bool = False


ANYTHING = Wanted()
_Hits = dict[tuple[str, bytes], tuple[tuple[int, str], CatalogEntry]]


def find(
    conn: sqlite3.Connection,
    glob: str | bytes,
    wanted: Wanted = ANYTHING,
    *,
    limit: int = 1000,
    is_over: Callable[[], bool] = lambda: False,
) -> Found:
    """Paths that match ``glob``, each once per source, with the newest set that has them as ``wanted``, in order of source
    and path.

    When more than ``limit`` match, which of them are given is not defined. ``is_over`` is asked about every millisecond
    whether to stop. Raises ``InvalidValue`` for an empty or overlong pattern.
    """
    text = glob.decode("utf-8", "surrogateescape") if isinstance(glob, bytes) else glob
    if len(text) > _PATTERN_MAX or not text.strip("/") or not _is_path_text(text):
        raise InvalidValue(value=text[:100], what="pattern", expected="Give a name, with * for any text")
    hits: _Hits = {}
    with _ended_when(conn, is_over) as state:
        _Search(conn, text, wanted, hits, limit).run()
    found = [
        Match(newest[1], node, path, entry) for (node, path), (newest, entry) in sorted(hits.items(), key=_by_place)
    ]
    return Found(found[:limit], state.is_cut_off)


class _State(Struct):
    is_cut_off: bool = False


@contextmanager
def _ended_when(conn: sqlite3.Connection, is_over: Callable[[], bool]) -> Iterator[_State]:
    """A query that goes on when ``is_over`` ends there, and is cut off."""
    state = _State()

    def look() -> bool:
        state.is_cut_off = state.is_cut_off or is_over()
        return state.is_cut_off

    conn.set_progress_handler(look, _STEPS)
    try:
        yield state
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT or not state.is_cut_off:
            raise
    finally:
        conn.set_progress_handler(None, 0)


class _Search:
    """One question. ``run`` puts what it finds into ``hits``, until there are more than ``limit``."""

    def __init__(self, conn: sqlite3.Connection, glob: str, wanted: Wanted, hits: _Hits, limit: int) -> None:
        self._conn = conn
        self._glob = glob
        self._wanted = wanted
        self._hits = hits
        self._limit = limit
        self._matches = _matcher(glob, ignore_case=wanted.ignore_case)
        self._paths = folders.Paths(conn)
        self._lines = timelines(conn, since_ns=wanted.since_ns, until_ns=wanted.until_ns)
        self._newest: dict[tuple[int, int, int], tuple[int, str] | None] = {}
        self._chains: dict[str, list[int]] = {}
        for chain, node in conn.execute("SELECT c.id, s.node FROM chain c JOIN source s ON s.id = c.source"):
            if chain in self._lines and (wanted.sources is None or node in wanted.sources):
                self._chains.setdefault(node, []).append(chain)

    def run(self) -> None:
        texts = _texts(self._glob, ascii_only=self._wanted.ignore_case)
        if texts:
            self._by_index(min(texts, key=lambda text: _cost(self._conn, text)) if len(texts) > 1 else texts[0])
        else:
            self._through_all()

    def _by_index(self, text: _Text) -> None:
        for folder, lowest, highest, literal in self._candidates(text):
            place = self._paths.get(folder)
            if place is None or place[0] not in self._chains:
                continue
            self._look_into(folder, place, lowest, highest, literal)
            if len(self._hits) >= self._limit:
                return

    def _look_into(self, folder: int, place: tuple[str, bytes], lowest: bytes, highest: bytes, literal: bytes) -> None:
        condition, values = self._wanted.condition()
        query = (
            f"SELECT name, first, last, {ATTRIBUTES} FROM version WHERE chain = ? AND folder = ? AND name >= ?"
            f" AND name <= ? AND instr(name, ?){condition}"
        )
        verdicts: dict[bytes, bool] = {}
        for chain in self._chains[place[0]]:
            for name, *row in self._conn.execute(query, (chain, folder, lowest, highest, literal, *values)):
                self._look_at(chain, place, name, row, verdicts)

    def _candidates(self, text: _Text) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        """Folders, the lowest and the highest of the names that may match, and what those hold: most names are told from it
        before they cost anything. (SQLite finds an empty text everywhere.)"""
        exact = not self._wanted.ignore_case
        literal = text.text.strip(b"/") if exact else b""
        for folder, lowest, highest in names.blocks(self._conn, text.text):
            yield folder, lowest, highest, literal
        if text.is_last:
            return
        literal = _longest_in_name(self._glob) if exact else b""
        for begin in names.folders(self._conn, text.text):
            for folder in folders.below(self._conn, begin):
                yield folder, b"", _HIGHEST, literal

    def _through_all(self) -> None:
        """The rows go by as they lie, folder by folder."""
        condition, values = self._wanted.condition()
        literal = b"" if self._wanted.ignore_case else _longest_in_name(self._glob)
        query = (
            f"SELECT folder, name, first, last, {ATTRIBUTES} FROM version WHERE chain = ?{condition} AND instr(name, ?)"
        )
        verdicts: dict[bytes, bool] = {}
        at: int | None = None
        place: tuple[str, bytes] | None = None
        for chains in self._chains.values():
            for chain in chains:
                for folder, name, *row in self._conn.execute(query, (chain, *values, literal)):
                    if folder != at:
                        at, place, verdicts = folder, self._paths.get(folder), {}
                        if len(self._hits) >= self._limit:
                            self._look_elsewhere()
                            return
                    if place is not None:
                        self._look_at(chain, place, name, row, verdicts)

    def _look_elsewhere(self) -> None:
        """What was found in one chain of a source may be newer in another one that was not looked at."""
        tops = dict(self._conn.execute("SELECT node, root FROM source").fetchall())
        for node, path in list(self._hits):
            at, name = split(path)
            folder = folders.find(self._conn, tops[node], at) if len(self._chains[node]) > 1 else None
            if folder is not None:
                self._look_into(folder, (node, at), name, name, b"")

    def _look_at(
        self, chain: int, place: tuple[str, bytes], name: bytes, row: list[Any], verdicts: dict[bytes, bool]
    ) -> None:
        node, at = place
        verdict = verdicts.get(name)
        if verdict is None:
            verdict = verdicts[name] = self._matches(_readable(at) + "/" if at else "", _readable(name))
        if not verdict:
            return
        interval = (chain, row[0], row[1])
        if interval not in self._newest:
            self._newest[interval] = self._lines[chain].newest(row[0], row[1])
        newest = self._newest[interval]
        if newest is None:
            return
        path = join(at, name)
        known = self._hits.get((node, path))
        if known is None or known[0] < newest:
            self._hits[node, path] = newest, from_row(path, row[2:])


def _by_place(item: tuple[tuple[str, bytes], object]) -> tuple[str, bytes]:
    node, path = item[0]
    return node, path.replace(b"/", b"\x00")


def _is_path_text(text: str) -> bool:
    try:
        return b"\x00" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _readable(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


class _matcher:  # noqa: N801  # a function with two compiled patterns
    """Whether the path of ``prefix`` (empty or with a slash at its end) and ``name`` matches."""

    def __init__(self, glob: str, *, ignore_case: bool) -> None:
        pattern = glob.rstrip("/")
        anchored = pattern.startswith("/")
        pattern = pattern.lstrip("/")
        self._match = re.compile(fnmatch.translate(pattern), re.IGNORECASE if ignore_case else 0).match
        self._with_slash = not anchored and pattern.startswith(("*", "?", "["))
        self._also_last = not anchored and "/" not in pattern

    def __call__(self, prefix: str, name: str) -> bool:
        if self._also_last and self._match(name):
            return True
        path = prefix + name
        return bool(self._match(path)) or (self._with_slash and bool(self._match("/" + path)))


def _runs(glob: str) -> Iterator[tuple[str, bool, bool]]:
    """The texts between wildcards, and whether each is at the beginning and at the end of the pattern."""
    pattern = glob.strip("/")
    position = 0
    bounds = [(match.start(), match.end()) for match in _WILDCARD.finditer(pattern)]
    for begin, end in [*bounds, (len(pattern), len(pattern))]:
        if begin > position:
            yield pattern[position:begin], position == 0, begin == len(pattern)
        position = end


def _texts(glob: str, *, ascii_only: bool) -> list[_Text]:
    """What trigrams can be asked for."""
    found: list[_Text] = []
    for run, is_first, is_final in _runs(glob):
        parts = run.split("/")
        for number, part in enumerate(parts):
            at_begin = number > 0 or is_first
            at_end = number < len(parts) - 1 or is_final
            is_last = number == len(parts) - 1 and is_final
            text = ("/" if at_begin else "") + part + ("/" if at_end else "")
            pieces = re.split(r"[^\x00-\x7f]+", text) if ascii_only else [text]
            raw = (each.encode("utf-8", "surrogateescape") for each in pieces)
            found += [_Text(each, is_last) for each in raw if each.strip(b"/") and len(each) >= 3]
    return found


def _longest_in_name(glob: str) -> bytes:
    """The longest text that the last part of each matching path holds."""
    found = b""
    for run, _is_first, is_final in _runs(glob):
        text = run.encode("utf-8", "surrogateescape")
        if is_final:
            found = max(found, text.rpartition(b"/")[2], key=len)
    return found


def _cost(conn: sqlite3.Connection, text: _Text) -> int:
    cost = names.count_blocks(conn, text.text, _COUNT)
    return cost if text.is_last else cost + names.count_below(conn, text.text, _COUNT)
