"""Versions lie in *blocks*: what began in one folder with one set, up to ``FULL`` names and their entries in one row.

What a block says of a name holds until a later block says something else of it: another entry, or that there is none (a
*gone* name has no row). So a version that begins costs one entry in a new block, and ends the version before it
without a write. Two blocks of the same set may name the same path, of which the one written later holds.

A full block says between which names it lies and is passed by when others are looked for. Smaller ones do not, and are
always looked into: a folder with many of them has few names.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, TypeVar

import msgspec

from caso_mesh.catalog.schema import Nonsense, Row

#: Names of a full block. The row then has about the size of a page.
FULL = 64
#: Later than every place.
LATEST = 2**63 - 1

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Row | None]).decode
_decode_apart = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_one = msgspec.msgpack.Decoder(Row | None).decode

T = TypeVar("T")
#: Names and entries as they lie in a row.
_Raw = tuple[bytes, bytes]


class Holding(NamedTuple):
    """A text, without a slash, that names hold. ``ignores_case``: it is in small letters, and letters of ASCII are alike
    whatever their case."""

    text: bytes
    ignores_case: bool = False


#: Every name holds it.
NO_TEXT = Holding(b"")
#: Up to which place, from which name to which (None: the end), and what they hold.
_Wanted = tuple[int, bytes, bytes | None, Holding]
_ANY: _Wanted = (LATEST, b"", None, NO_TEXT)
#: So many blocks of a folder are fetched at once, others one after the other.
_FEW = 8
_SELECT_BY = (
    "SELECT first, id, lowest, highest, names, entries FROM block WHERE chain = ?1 AND folder = ?2 AND first <= ?3"
    " AND (lowest IS NULL OR (highest >= ?4 AND (?5 IS NULL OR lowest <= ?5))) AND {holds}"
    f" LIMIT {_FEW + 1}"
)
#: As many blocks at most are fetched of many folders at once.
_MANY = 500
#: In the order in which the folders are given.
_SELECT_OF_MANY_BY = (
    "SELECT b.folder, b.first, b.id, b.lowest, b.highest, b.names, b.entries FROM json_each(?2) wanted"
    " CROSS JOIN block b ON b.chain = ?1 AND b.folder = wanted.value WHERE {holds} LIMIT ?3"
)
#: Small letters are made by SQLite, byte by byte as ``bytes.lower`` makes them: what it passes by costs Python nothing.
_SELECT = [_SELECT_BY.format(holds=each) for each in ("instr(names, ?6)", "instr(CAST(lower(names) AS BLOB), ?6)")]
_SELECT_OF_MANY = [
    _SELECT_OF_MANY_BY.format(holds=each) for each in ("instr(b.names, ?4)", "instr(CAST(lower(b.names) AS BLOB), ?4)")
]
#: Rows are decoded one by one where less than one of so many is wanted.
_APART = 4


class Key(NamedTuple):
    """A block: the place with which it began, its id, and between which names it lies if it says so. Keys are in order: of
    blocks of one folder the one with the higher key holds."""

    first: int
    id: int
    lowest: bytes | None
    highest: bytes | None


#: A block as it is read: its key, names and entries, which may be left to be fetched.
Fetched = tuple[int, int, bytes | None, bytes | None, bytes | None, bytes | None]
#: As it is bound: chain, folder, first, lowest, highest, names, entries.
Block = tuple[int, int, int, bytes | None, bytes | None, bytes, bytes]


def pack(chain: int, folder: int, first: int, names: Sequence[bytes], rows: Sequence[Row | None]) -> Block:
    """A block of ``names``, which are in order, and what each is."""
    is_full = len(names) >= FULL
    lowest, highest = (names[0], names[-1]) if is_full else (None, None)
    return chain, folder, first, lowest, highest, b"/".join(names), _encode(rows)


def insert(conn: sqlite3.Connection, blocks: Sequence[Block]) -> None:
    conn.executemany(
        "INSERT INTO block (chain, folder, first, lowest, highest, names, entries) VALUES (?, ?, ?, ?, ?, ?, ?)", blocks
    )


def keys(conn: sqlite3.Connection, chain: int, folder: int) -> list[Key]:
    """The blocks of a folder, earlier ones first."""
    query = "SELECT first, id, lowest, highest FROM block WHERE chain = ? AND folder = ?"
    found = conn.execute(query, (chain, folder)).fetchall()
    if len(found) > 1:
        found.sort()
    return [Key._make(row) for row in found]


def load_names(conn: sqlite3.Connection, number: int) -> list[bytes]:
    """The names of a block. Raises ``Nonsense``."""
    return _split(_raw(conn, number)[0])


def opened(names: bytes, entries: bytes) -> tuple[list[bytes], list[Row | None]]:
    """The names of a block and what each is, of its columns. Raises ``Nonsense``."""
    found, rows = _split(names), _decoded(_decode, entries)
    if len(found) != len(rows):
        raise Nonsense("a block has not as many names as entries")
    return found, rows


def _some(names: int, entries: bytes, at: Sequence[int]) -> list[Row | None]:
    """What some of so many names are: to decode a row takes longer than all the rest."""
    raw = _decoded(_decode_apart, entries)
    if len(raw) != names:
        raise Nonsense("a block has not as many names as entries")
    return [_decoded(_decode_one, raw[each]) for each in at]


def _split(names: bytes) -> list[bytes]:
    if type(names) is not bytes:
        raise Nonsense("the names of a block are none")
    return names.split(b"/")


def _raw(conn: sqlite3.Connection, number: int) -> _Raw:
    row: _Raw | None = conn.execute("SELECT names, entries FROM block WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise Nonsense("a block is only in the index")
    return row


def _decoded(decode: Callable[[bytes | msgspec.Raw], T], entries: bytes | msgspec.Raw) -> T:
    try:
        return decode(entries)
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise Nonsense(f"a block cannot be read ({error})") from None


def _may_have(conn: sqlite3.Connection, chain: int, folder: int, wanted: _Wanted) -> Sequence[Fetched]:
    """The blocks that may have such a name, earlier ones first."""
    upto, lowest, highest, holding = wanted
    text, ignores_case = holding
    rows = conn.execute(_SELECT[ignores_case], (chain, folder, upto, lowest, highest, text)).fetchall()
    if len(rows) <= _FEW:
        if len(rows) > 1:
            rows.sort()
        return rows
    return [
        (*key, None, None)
        for key in keys(conn, chain, folder)
        if key.first <= upto
        and (key.lowest is None or ((key.highest or b"") >= lowest and (highest is None or key.lowest <= highest)))
    ]


def states(
    conn: sqlite3.Connection, chain: int, folder: int, names: Sequence[bytes], *, upto: int = LATEST
) -> dict[bytes, tuple[int, Row | None]]:
    """Of those of ``names`` (in order) that any block up to the place ``upto`` has: where the last one says of it began,
    and what it is. Raises ``Nonsense``."""
    holding = Holding(names[0]) if len(names) == 1 else NO_TEXT
    missing = set(names)
    found: dict[bytes, tuple[int, Row | None]] = {}
    for block in reversed(_may_have(conn, chain, folder, (upto, names[0], names[-1], holding))):
        if block[2] is not None and not _has_between(names, block):
            continue
        first, (raw, entries) = block[0], _columns(conn, block)
        within = _split(raw)
        hits = missing.intersection(within)
        if not hits:
            continue
        if len(hits) * _APART < len(within):
            order = list(hits)
            for name, row in zip(order, _some(len(within), entries, [*map(within.index, order)]), strict=True):
                found[name] = (first, row)
        else:
            for name, row in zip(*opened(raw, entries), strict=True):
                if name in hits:
                    found[name] = (first, row)
        missing -= hits
        if not missing:
            break
    return found


def state(
    conn: sqlite3.Connection, chain: int, folder: int, name: bytes, *, upto: int = LATEST
) -> tuple[int, Row | None] | None:
    """As ``states``, of one name."""
    return states(conn, chain, folder, (name,), upto=upto).get(name)


def known(
    conn: sqlite3.Connection,
    chains: Collection[int],
    folder: int,
    names: Sequence[bytes],
    *,
    but: tuple[int, int] | None = None,
) -> set[bytes]:
    """Those of ``names`` (in order) that any version has, past or current; of the chain ``but`` names only up to a place."""
    found: set[bytes] = set()
    for chain in chains:
        upto = but[1] if but is not None and but[0] == chain else LATEST
        found.update(states(conn, chain, folder, names, upto=upto))
    return found


def _has_between(names: Sequence[bytes], block: Fetched) -> bool:
    at = bisect_left(names, block[2] or b"")
    return at < len(names) and names[at] <= (block[3] or b"")


def listing(
    conn: sqlite3.Connection, chain: int, folder: int, at: int, *, after: bytes | None = None
) -> Iterator[tuple[bytes, int, Row]]:
    """Names beyond ``after`` in order that the set at the place ``at`` has in ``folder``: where its version began, and what
    it is. In memory is what the smaller blocks hold, and a few of the full ones. Raises ``Nonsense``."""
    wanted = (at, b"" if after is None else after + b"\x00", None, NO_TEXT)
    for name, said in _sweep(conn, _may_have(conn, chain, folder, wanted), wanted):
        first, _id, row = said[-1]
        if row is not None:
            yield name, first, row


def fetch(
    conn: sqlite3.Connection, chain: int, folders: Sequence[int], holding: Holding
) -> tuple[dict[int, list[Fetched]], int | None]:
    """By folder, its blocks that may have names with ``holding``, for ``history``. Where that is too much at once, also the
    first folder of which some are missing, and of all after it."""
    found: dict[int, list[Fetched]] = {}
    text, ignores_case = holding
    query = _SELECT_OF_MANY[ignores_case]
    rows = conn.execute(query, (chain, json.dumps(folders), _MANY + 1, text)).fetchall()
    missing = rows[-1][0] if len(rows) > _MANY else None
    for row in rows:
        folder = row[0]
        if folder == missing:
            found.pop(folder, None)
            break
        if folder in found:
            found[folder].append(row[1:])
        else:
            found[folder] = [row[1:]]
    for each in found.values():
        if len(each) > 1:
            each.sort()
    return found, missing


def history(
    conn: sqlite3.Connection,
    chain: int,
    folder: int,
    lowest: bytes,
    highest: bytes | None,
    holding: Holding = NO_TEXT,
    *,
    fetched: Sequence[Fetched] | None = None,
) -> Iterator[tuple[bytes, int, int, Row]]:
    """Versions of names from ``lowest`` to ``highest`` with ``holding`` in them, in order of names: first and last place (0:
    it is current), and what it is. Raises ``Nonsense``."""
    wanted = (LATEST, lowest, highest, holding)
    chosen = _may_have(conn, chain, folder, wanted) if fetched is None else fetched
    for name, said in _sweep(conn, chosen, wanted):
        for version in intervals(said):
            yield name, *version


def last_said(conn: sqlite3.Connection, chosen: Sequence[Key]) -> Iterator[tuple[bytes, Row | None]]:
    """Names of these blocks in order, and what the last of them says of each. Raises ``Nonsense``."""
    for name, said in _sweep(conn, [(*key, None, None) for key in chosen], _ANY):
        yield name, said[-1][2]


#: What a block says of a name: the block's place and id, the entry.
Said = tuple[int, int, Row | None]


def intervals(said: list[Said]) -> Iterator[tuple[int, int, Row]]:
    """The versions that come of it: first and last place, and what it is."""
    for at, (first, _id, row) in enumerate(said):
        following = said[at + 1][0] if at + 1 < len(said) else 0
        if row is not None and following != first:  # of two of one set the later one holds
            yield first, max(following - 1, 0), row


def _sweep(conn: sqlite3.Connection, chosen: Sequence[Fetched], wanted: _Wanted) -> Iterator[tuple[bytes, list[Said]]]:
    """Names in order, and what the blocks say of them, earlier ones first."""
    if len(chosen) == 1:  # as most folders have it
        first, number = chosen[0][:2]
        for name, row in _content(*_columns(conn, chosen[0]), wanted):
            yield name, [(first, number, row)]
        return
    pending: dict[bytes, list[Said]] = {}
    order: list[bytes] = []
    whole = [block for block in chosen if block[2] is None]
    parts = sorted((block for block in chosen if block[2] is not None), key=lambda block: (block[2], block[1]))
    for block in (*whole, *parts):
        first, number, lowest = block[:3]
        while order and lowest is not None and order[0] < lowest:
            name = heappop(order)
            yield name, _in_order(pending.pop(name))
        for name, row in _content(*_columns(conn, block), wanted):
            if name not in pending:
                pending[name] = []
                heappush(order, name)
            pending[name].append((first, number, row))
    while order:
        name = heappop(order)
        yield name, _in_order(pending.pop(name))


def _columns(conn: sqlite3.Connection, block: Fetched) -> _Raw:
    names, entries = block[4:]
    return _raw(conn, block[1]) if names is None or entries is None else (names, entries)


def _content(raw: bytes, entries: bytes, wanted: _Wanted) -> Iterable[tuple[bytes, Row | None]]:
    """The names of a block that are wanted, and what it says of them."""
    _upto, lowest, highest, holding = wanted
    text, ignores_case = holding
    if not lowest and highest is None and not text:
        return zip(*opened(raw, entries), strict=True)
    found = [
        (number, name)
        for number, name in (_holding(raw, text, ignores_case) if text else enumerate(_split(raw)))
        if name >= lowest and (highest is None or name <= highest)
    ]
    if text and not found:
        return ()
    names = [name for _number, name in found]
    if len(found) * _APART < raw.count(b"/"):
        return zip(names, _some(raw.count(b"/") + 1, entries, [number for number, _name in found]), strict=True)
    rows = opened(raw, entries)[1]
    return [(name, rows[number]) for number, name in found]


def _holding(raw: bytes, text: bytes, ignores_case: bool) -> Iterator[tuple[int, bytes]]:
    """The names that hold ``text``, and which ones of the block they are."""
    within = raw.lower() if ignores_case else raw
    number = end = 0
    at = within.find(text)
    while at >= 0:
        number += raw.count(b"/", end, at)
        begin = raw.rfind(b"/", end, at) + 1
        end = raw.find(b"/", at)
        if end < 0:
            end = len(raw)
        yield number, raw[begin:end]
        at = within.find(text, end)


def _in_order(said: list[Said]) -> list[Said]:
    if len(said) > 1:
        said.sort(key=lambda each: each[:2])
    return said
