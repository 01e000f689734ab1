"""Finding paths by a pattern, over all sets, sources and times.

``*`` is any text, slashes included, ``?`` any one character, ``[a-z]`` and ``[!a-z]`` one of (or none of) some. A pattern
is compared with the whole path, and without a slash with the last part as well; a slash at its beginning or end may be
given or not.

The longest texts in a pattern that surely lie within one part of the path lead to candidates by trigrams (``names.py``):
either the last part holds such a text, or a folder above does. **The fallback**: a pattern without a text of three
bytes (the ends of a part count as one) is compared with all names that its other conditions leave; names that are not
UTF-8 need none, since names are indexed byte for byte. Whatever takes long ends when the time is over (``is_over``), with
what was found by then.

Without regard to case ASCII texts alone are looked for in the index and in blocks: both compare bytes, and a letter beyond
them is several. So what a pattern says in ASCII letters is found in ASCII letters only.
"""

from __future__ import annotations

import fnmatch
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.catalog import names
from caso_mesh.catalog.browse import timelines
from caso_mesh.catalog.in_order import Filter, Rows, Walk
from caso_mesh.catalog.leads import Leads, leads
from caso_mesh.catalog.schema import Row, from_row, join, number_of
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import InvalidValue

_PATTERN_MAX = 4096
_WILDCARD = re.compile(r"\*|\?|\[!?\]?[^\]]*\]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
#: Blocks and folders up to which candidates are counted to choose a text.
_COUNT = 6000
#: Fewer need no further look for a text that leads to still fewer.
_FEW = 50
#: SQLite's steps between two looks at the time: about a millisecond.
_STEPS = 20_000
#: So many folders are walked through before the index is asked where names of many are, ...
_FIRST_FOLDERS = 2000
#: ... and so many more, where one in so many of them gave a match: a text of frequent trigrams may itself be rare.
_MORE_FOLDERS = 20_000
_PROMISING = 20
#: As many folders are passed by in the time that it takes to learn how one is reached.
_WAY_UP = 3
#: Where the index leads to more, all folders are gone through: of each place a kilobyte or so would be kept in memory.
_MOST_PLACES = 50_000
#: How many folders are entered, and names compared, between two looks at the time: small questions have few steps.
_LOOK_EACH, _COMPARE_EACH = 200, 1000


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
    """What a path must be beside its name. ``sources``: node ids; ``order``: those, in which they come (``None``: by id), all
    behind the source of the place to go on after, if it is not one of them; ``since_ns``, ``until_ns``: when the set ended;
    ``size_min``, ``size_max``: bytes; ``modified_since``, ``modified_until``: (seconds, nanoseconds); all bounds are
    included. ``ignore_case``: letters are alike whatever their case."""

    sources: frozenset[str] | None = None
    order: tuple[str, ...] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    size_min: int | None = None
    size_max: int | None = None
    modified_since: tuple[int, int] | None = None
    modified_until: tuple[int, int] | None = None
    type: EntryType | None = None
    ignore_case: bool = False

    def admits(self, row: Row) -> bool:
        """Whether what lies at a path is as wanted."""
        size, modified = row[1], row[2:4]
        return (
            (self.size_min is None or size >= self.size_min)
            and (self.size_max is None or size <= self.size_max)
            and (self.modified_since is None or modified >= self.modified_since)
            and (self.modified_until is None or modified <= self.modified_until)
            and (self.type is None or row[0] == number_of(self.type))
        )


class Found(Struct, frozen=True):
    """``is_cut_off``: the time was over before everything was looked at; all that comes before and at ``reached`` (source and
    path) was, if it is known."""

    matches: list[Match]
    is_cut_off: bool = False
    reached: tuple[str, bytes] | None = None


ANYTHING = Wanted()


def find(
    conn: sqlite3.Connection,
    glob: str | bytes,
    wanted: Wanted = ANYTHING,
    *,
    limit: int = 1000,
    after: tuple[str, bytes] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Found:
    """Paths that match ``glob``, each once per source, with the newest set that has them as ``wanted``, in order of source
    and path: the first ``limit`` of those that come ``after`` a source and a path.

    ``is_over`` is asked about every millisecond whether to stop. Raises ``InvalidValue`` for an empty or overlong pattern.
    """
    text = glob.decode("utf-8", "surrogateescape") if isinstance(glob, bytes) else glob
    if len(text) > _PATTERN_MAX or not text.strip("/") or not _is_path_text(text):
        raise InvalidValue(value=text[:100], what="pattern", expected="Give a name, with * for any text")
    search = _Search(conn, text, wanted, limit, after, is_over)
    with _ended_when(conn, is_over) as state:
        search.run()
    is_cut_off = state.is_cut_off or search.is_cut_off
    return Found(search.hits, is_cut_off, search.place if is_cut_off and search.place != after else None)


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
    """One question. ``run`` puts what it finds into ``hits``, until there are ``limit``."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        glob: str,
        wanted: Wanted,
        limit: int,
        after: tuple[str, bytes] | None,
        is_over: Callable[[], bool],
    ) -> None:
        self._conn = conn
        self._glob = glob
        self._limit = limit
        self._ignores_case = wanted.ignore_case
        self._is_over = is_over
        self._matches = _matcher(glob, ignore_case=wanted.ignore_case)
        self._lines = timelines(conn, since_ns=wanted.since_ns, until_ns=wanted.until_ns)
        self._newest: dict[tuple[int, int, int], tuple[int, str] | None] = {}
        literal = _longest_in_name(glob, ascii_only=wanted.ignore_case)
        self._only = Filter(wanted.admits, self._compared_as(literal), ignores_case=wanted.ignore_case)
        self._entered = self._compared = 0
        self._chains: dict[str, list[int]] = {}
        self._order = wanted.order
        self._tops: dict[str, int] = dict(conn.execute("SELECT node, root FROM source").fetchall())
        for chain, node in conn.execute("SELECT c.id, s.node FROM chain c JOIN source s ON s.id = c.source"):
            if chain in self._lines and (wanted.sources is None or node in wanted.sources):
                self._chains.setdefault(node, []).append(chain)
        self.hits: list[Match] = []
        self.place = after
        self.is_cut_off = False

    def run(self) -> None:
        """Where the index leads to many names, most of them match, as a rule: it is only asked for all of them when the first
        folders have not given enough, nor promise that a walk gives it sooner."""
        texts = _texts(self._glob, ascii_only=self._ignores_case)
        if not texts:
            self._walk(None, None)
            return
        chosen, known, cost = self._rarest(texts)
        self._only = replace(self._only, part=self._compared_as(chosen.text))
        if cost >= _COUNT:
            if self._walk(None, _FIRST_FOLDERS):
                return
            # The index tells all places before the first: where some thousand more folders will do, that takes longer.
            if len(self.hits) * _PROMISING >= self._entered and self._walk(None, _MORE_FOLDERS):
                return
        index = leads(self._conn, chosen.text, is_last=chosen.is_last, known=known, most=_MOST_PLACES)
        if index is None:
            self._walk(None, None)
        else:
            self._by_index(index)

    def _compared_as(self, text: bytes) -> bytes:
        return text.lower() if self._ignores_case else text

    def _rarest(self, texts: Sequence[_Text]) -> tuple[_Text, list[int] | None, int]:
        """Which leads to the fewest places, the blocks of the index that hold it, and how many places there are, about:
        ``None`` and ``_COUNT`` if more than that."""
        found: tuple[_Text, list[int] | None, int] | None = None
        for text in sorted(texts, key=lambda each: (each.is_last, len(each.text)), reverse=True):
            most = _COUNT if found is None else found[2]
            its_blocks = names.first(self._conn, text.text, most)
            cost = len(its_blocks)
            if cost < most and not text.is_last:
                cost += names.count_below(self._conn, text.text, most - cost)
            if cost < most:
                found = text, its_blocks, cost
            elif found is None:
                found = text, None, most
            if found[2] < _FEW:
                break
        assert found is not None
        return found

    def _by_index(self, index: Leads) -> None:
        """Either through all folders, of which those are looked into to which the index leads, or to these alone, when it is
        known where they are: that takes longer for each of them, but they may be few."""
        places = len(index.ranges) + len(index.whole)
        most_folders = places * _WAY_UP
        folders = int(self._conn.execute("SELECT coalesce(max(id), 0) FROM folder").fetchone()[0])
        expected = folders * min(1.0, (self._limit - len(self.hits)) / max(places, 1))
        if expected < most_folders and self._walk(index, most_folders):
            return
        self._walk(index.in_order(self._conn), None)

    def _walk(self, index: Leads | None, most_folders: int | None) -> bool:
        """From the place that was reached on; whether there is nothing more to do."""
        most = None if most_folders is None else self._entered + most_folders

        def entered() -> bool:
            self._entered += 1
            if self._entered % _LOOK_EACH == 0 and self._is_over():
                self.is_cut_off = True
            return not self.is_cut_off and (most is None or self._entered < most)

        for node in self._nodes():
            after = self.place[1] if self.place is not None and node == self.place[0] else None
            walk = Walk(
                self._conn,
                top=self._tops[node],
                chains=self._chains[node],
                only=self._only,
                leads=index,
                after=after,
                entered=entered,
            )
            try:
                with closing(walk.names()) as found:
                    if self._look_at(node, found):
                        return True
            finally:
                if walk.place is not None:
                    self.place = node, walk.place
            if self.is_cut_off or (most is not None and self._entered >= most):
                return self.is_cut_off
        return True

    def _nodes(self) -> list[str]:
        """The sources that are left, in order."""
        if self._order is None:
            return [node for node in sorted(self._chains) if self.place is None or node >= self.place[0]]
        behind = self._order.index(self.place[0]) if self.place is not None and self.place[0] in self._order else 0
        return [node for node in self._order[behind:] if node in self._chains]

    def _look_at(self, node: str, found: Iterable[tuple[bytes, bytes, Rows]]) -> bool:
        """Whether there are enough."""
        if len(self.hits) >= self._limit:
            return True
        folder, prefix = b"", ""
        for at, name, rows in found:
            self._compared += 1
            if self._compared % _COMPARE_EACH == 0 and self._is_over():
                self.is_cut_off = True
                return True
            if at is not folder:
                folder, prefix = at, _readable(at) + "/" if at else ""
            if not self._matches(prefix, _readable(name)):
                continue
            best: tuple[tuple[int, str], Row] | None = None
            for row in rows:
                newest = self._newest_of(row[1], row[2], row[3])
                if newest is not None and (best is None or best[0] < newest):
                    best = newest, row[4]
            if best is None:
                continue
            path = join(at, name)
            self.hits.append(Match(best[0][1], node, path, from_row(path, best[1])))
            if len(self.hits) >= self._limit:
                return True
        return False

    def _newest_of(self, chain: int, first: int, last: int) -> tuple[int, str] | None:
        interval = chain, first, last
        if interval not in self._newest:
            self._newest[interval] = self._lines[chain].newest(first, last)
        return self._newest[interval]


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
            raw = _pieces(text, ascii_only=ascii_only)
            found += [_Text(each, is_last) for each in raw if each.strip(b"/") and len(each) >= 3]
    return found


def _longest_in_name(glob: str, *, ascii_only: bool) -> bytes:
    """The longest text that the last part of each matching path holds."""
    found = b""
    for run, _is_first, is_final in _runs(glob):
        if is_final:
            found = max(found, *_pieces(run.rpartition("/")[2], ascii_only=ascii_only), key=len)
    return found


def _pieces(text: str, *, ascii_only: bool) -> Iterator[bytes]:
    """Of a text, what is looked for byte by byte."""
    pieces = _BEYOND_ASCII.split(text) if ascii_only else [text]
    return (each.encode("utf-8", "surrogateescape") for each in pieces)
