"""Finding paths by a pattern, over all sets, sources and times.

``*`` is any text, slashes included, ``?`` any one character, ``[a-z]`` and ``[!a-z]`` one of (or none of) some. A pattern
is compared with the whole path, and without a slash with the last part as well; a slash at its beginning or end may be
given or not.

The longest texts in a pattern that surely lie within one part of the path lead to candidates by trigrams (``names.py``):
either the last part holds such a text, or a folder above does. **The fallback**: a pattern without a text of three
bytes (the ends of a part count as one) is compared with all names; names that are not UTF-8 need none, since names are
indexed byte for byte.
"""

from __future__ import annotations

import fnmatch
import re
import sqlite3
from collections.abc import Iterator

from msgspec import Struct

from caso_mesh.catalog import folders, names
from caso_mesh.catalog.browse import timelines
from caso_mesh.catalog.schema import ATTRIBUTES, from_row, join
from caso_mesh.catalog.segment import NAME_MAX, CatalogEntry
from caso_mesh.model.errors import InvalidValue

_PATTERN_MAX = 4096
_WILDCARD = re.compile(r"\*|\?|\[!?\]?[^\]]*\]")
#: Blocks and folders up to which candidates are counted to choose a text.
_COUNT = 2000
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


def find(
    conn: sqlite3.Connection,
    glob: str | bytes,
    *,
    source: str | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    size_min: int | None = None,
    size_max: int | None = None,
    limit: int = 1000,
) -> list[Match]:
    """Paths that match ``glob``, each once per source, with the newest set that has them, in order of source and path.

    ``source``: a node id; ``since_ns``, ``until_ns``: when the set ended; ``size_min``, ``size_max``: bytes; all bounds
    are included. When more than ``limit`` match, which of them are given is not defined. Raises ``InvalidValue`` for an
    empty or overlong pattern.
    """
    text = glob.decode("utf-8", "surrogateescape") if isinstance(glob, bytes) else glob
    if len(text) > _PATTERN_MAX or not text.strip("/") or not _is_path_text(text):
        raise InvalidValue(value=text[:100], what="pattern", expected="Give a name, with * for any text")
    matches = _matcher(text)
    lines = timelines(conn, source=source, since_ns=since_ns, until_ns=until_ns)
    chains: dict[str, list[int]] = {}
    for chain, node in conn.execute("SELECT c.id, s.node FROM chain c JOIN source s ON s.id = c.source"):
        if chain in lines:
            chains.setdefault(node, []).append(chain)
    paths = folders.Paths(conn)
    low, high = (0 if size_min is None else size_min), (2**63 - 1 if size_max is None else size_max)
    query = (
        f"SELECT name, first, last, {ATTRIBUTES} FROM version WHERE chain = ? AND folder = ? AND name >= ?"
        " AND name <= ? AND size BETWEEN ? AND ?"
    )
    found: dict[tuple[str, bytes], tuple[tuple[int, str], CatalogEntry]] = {}
    for folder, lowest, highest in _candidates(conn, text, source):
        place = paths.get(folder)
        if place is None or place[0] not in chains:
            continue
        node, at = place
        prefix = _readable(at) + "/" if at else ""
        hits: dict[bytes, tuple[tuple[int, str], CatalogEntry]] = {}
        verdicts: dict[bytes, bool] = {}
        for chain in chains[node]:
            line = lines[chain]
            rows = conn.execute(query, (chain, folder, lowest, highest, low, high))
            for name, first, last, *attributes in rows:
                verdict = verdicts.get(name)
                if verdict is None:
                    verdict = verdicts[name] = matches(prefix, _readable(name))
                if not verdict:
                    continue
                newest = max(line.within(first, last), default=None)
                if newest is not None and (name not in hits or hits[name][0] < newest):
                    hits[name] = newest, from_row(join(at, name), attributes)
        for name, hit in hits.items():
            found[node, join(at, name)] = hit
        if len(found) >= limit:
            break
    return [
        Match(newest[1], node, path, entry) for (node, path), (newest, entry) in sorted(found.items(), key=_by_place)
    ][:limit]


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

    def __init__(self, glob: str) -> None:
        pattern = glob.rstrip("/")
        anchored = pattern.startswith("/")
        pattern = pattern.lstrip("/")
        self._match = re.compile(fnmatch.translate(pattern)).match
        self._with_slash = not anchored and pattern.startswith(("*", "?", "["))
        self._also_last = not anchored and "/" not in pattern

    def __call__(self, prefix: str, name: str) -> bool:
        if self._also_last and self._match(name):
            return True
        path = prefix + name
        return bool(self._match(path)) or (self._with_slash and bool(self._match("/" + path)))


def _texts(glob: str) -> list[_Text]:
    """What trigrams can be asked for."""
    pattern = glob.strip("/")
    found: list[_Text] = []
    position = 0
    bounds = [(match.start(), match.end()) for match in _WILDCARD.finditer(pattern)]
    for begin, end in [*bounds, (len(pattern), len(pattern))]:
        run = pattern[position:begin]
        if run:
            parts = run.encode("utf-8", "surrogateescape").split(b"/")
            for number, part in enumerate(parts):
                at_begin = number > 0 or position == 0
                at_end = number < len(parts) - 1 or begin == len(pattern)
                is_last = number == len(parts) - 1 and begin == len(pattern)
                text = (b"/" if at_begin else b"") + part + (b"/" if at_end else b"")
                if part and len(text) >= 3:
                    found.append(_Text(text, is_last))
        position = end
    return found


def _candidates(conn: sqlite3.Connection, glob: str, source: str | None) -> Iterator[tuple[int, bytes, bytes]]:
    """Folders, with the lowest and the highest of the names that may match."""
    texts = _texts(glob)
    if not texts:
        for (top,) in conn.execute("SELECT root FROM source WHERE ?1 IS NULL OR node = ?1", (source,)).fetchall():
            for folder in folders.below(conn, top):
                yield folder, b"", _HIGHEST
        return
    text = texts[0] if len(texts) == 1 else min(texts, key=lambda text: _cost(conn, text))
    yield from names.blocks(conn, text.text)
    if not text.is_last:
        for begin in names.folders(conn, text.text):
            for folder in folders.below(conn, begin):
                yield folder, b"", _HIGHEST


def _cost(conn: sqlite3.Connection, text: _Text) -> int:
    cost = names.count_blocks(conn, text.text, _COUNT)
    return cost if text.is_last else cost + names.count_below(conn, text.text, _COUNT)
