"""What makes the audit log tamper-evident: the entries that a server wrote down are chained by hashes, in the order of its
journal, at every voter alike.

A *link* stands for an entry: its hash, and the hash of that with the link before it. Links of entries that were trimmed stay, so that
it can be told what is missing from what was trimmed; they go when the time is over for which entries are kept
(``audit-keep-s``), but for the last of those, on which the next one rests. The journal itself is chained, too, but its records are pruned.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from caso_mesh.journal import Record

#: ``head`` is the last link, with the place of its record in the journal; ``stays``: a trim leaves the entry alone.
MIGRATION = """
CREATE TABLE audit_chain (
    chain BLOB PRIMARY KEY, server TEXT NOT NULL, incarnation TEXT NOT NULL, first INTEGER NOT NULL,
    seq INTEGER NOT NULL, head BLOB NOT NULL
) STRICT;
CREATE TABLE audit_link (
    chain BLOB NOT NULL, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL, stays INTEGER NOT NULL, entry BLOB NOT NULL,
    link BLOB NOT NULL, PRIMARY KEY (chain, seq)
) STRICT;
ALTER TABLE audit ADD COLUMN chain BLOB;
ALTER TABLE audit ADD COLUMN seq INTEGER;
CREATE INDEX audit_by_link ON audit (chain, seq);
"""
_FIRST = b"caso-mesh audit chain 1\x00"
_ENTRY = b"caso-mesh audit entry 1\x00"
#: What an entry's hash is over, beside where it was written down.
COLUMNS = "at_ns, server, who, what, category, outcome, source, fields, changed"
_ROW = ", ".join(f"a.{name}" for name in COLUMNS.split(", "))
#: Links that are looked at in one step.
_STEP = 2000


class Chain(Struct, frozen=True):
    """The entries of one incarnation of a server's journal. ``first`` and ``seq``: the records of the first and the last one;
    ``head``: the last link."""

    chain: bytes
    server: str
    incarnation: str
    first: int
    seq: int
    head: bytes


class Problem(Struct, frozen=True):
    """What is not as it was written. ``server``: node id."""

    server: str
    at_ns: int | None
    text: str


class Found(Struct):
    """What a look at the chains came to: entries that are whole, those that were trimmed or whose time was over, the first and
    the last instant of all of them, and what is wrong."""

    entries: int = 0
    trimmed: int = 0
    aged: int = 0
    since_ns: int | None = None
    until_ns: int | None = None
    problems: list[Problem] = []


def first_link(server: str, incarnation: str) -> bytes:
    return hashlib.sha256(_FIRST + msgspec.msgpack.encode((server, incarnation))).digest()


def link_of(before: bytes, seq: int, entry: bytes) -> bytes:
    return hashlib.sha256(before + struct.pack(">q", seq) + entry).digest()


def entry_hash(row: tuple[object, ...]) -> bytes:
    """Of the values of ``COLUMNS``."""
    return hashlib.sha256(_ENTRY + msgspec.msgpack.encode(row)).digest()


def chain_id(server: str, incarnation: str) -> bytes:
    return first_link(server, incarnation)[:16]


def add(
    c: sqlite3.Connection, server: str, record: Record, row: tuple[object, ...], *, stays: bool
) -> tuple[bytes, int]:
    """Links an entry (the values of ``COLUMNS``) to those before it; chain and number, which go into its row."""
    chain = chain_id(server, record.incarnation)
    known = c.execute("SELECT head FROM audit_chain WHERE chain = ?", (chain,)).fetchone()
    before = first_link(server, record.incarnation) if known is None else known[0]
    entry = entry_hash(row)
    link = link_of(before, record.seq, entry)
    c.execute(
        "INSERT INTO audit_chain VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, head = excluded.head",
        (chain, server, record.incarnation, record.seq, record.seq, link),
    )
    c.execute("INSERT INTO audit_link VALUES (?, ?, ?, ?, ?, ?)", (chain, record.seq, record.at_ns, stays, entry, link))
    return chain, record.seq


def forget(c: sqlite3.Connection, before_ns: int) -> None:
    """The time for which entries are kept is over: of each chain what comes before its first link that is younger goes, but
    for the last one of that."""
    c.execute(
        "DELETE FROM audit_link WHERE at_ns < ?1 AND seq < (SELECT coalesce("
        " (SELECT max(o.seq) FROM audit_link o WHERE o.chain = audit_link.chain AND o.seq <"
        "  (SELECT min(y.seq) FROM audit_link y WHERE y.chain = audit_link.chain AND y.at_ns >= ?1)),"
        " (SELECT max(l.seq) FROM audit_link l WHERE l.chain = audit_link.chain)))",
        (before_ns,),
    )


def chains(c: sqlite3.Connection) -> list[Chain]:
    """All, in an order that is the same everywhere."""
    query = "SELECT chain, server, incarnation, first, seq, head FROM audit_chain ORDER BY server, incarnation"
    return [Chain(*row) for row in c.execute(query)]


class Look:
    """Goes through one chain, step by step, each in a reading of its own. ``kept_ns``: the time of entries of before it may
    be over."""

    def __init__(self, chain: Chain, found: Found, kept_ns: int) -> None:
        self._chain = chain
        self._found = found
        self._floor_ns = -1
        self._kept_ns = kept_ns
        self._seq, self._link = 0, first_link(chain.server, chain.incarnation)
        self._links = 0

    def step(self, c: sqlite3.Connection, floor_ns: int) -> bool:
        """Whether there is more. ``floor_ns``: entries of before it are trimmed."""
        each, self._floor_ns = self._chain, floor_ns
        rows = c.execute(
            f"SELECT l.seq, l.at_ns, l.stays, l.entry, l.link, {_ROW}"
            " FROM audit_link l LEFT JOIN audit a ON a.chain = l.chain AND a.seq = l.seq"
            " WHERE l.chain = ? AND l.seq > ? AND l.seq <= ? ORDER BY l.seq LIMIT ?",
            (each.chain, self._seq, each.seq, _STEP),
        ).fetchall()
        for seq, at_ns, stays, entry, link, *row in rows:
            self._look_at(seq, at_ns, bool(stays), entry, link, tuple(row))
        if len(rows) == _STEP:
            return True
        if self._links == 0 or self._link != each.head or self._seq != each.seq:
            self._wrong(None, "entries at the end of what it told are missing")
        self._look_at_strangers(c)
        return False

    def _look_at(self, seq: int, at_ns: int, stays: bool, entry: bytes, link: bytes, row: tuple[object, ...]) -> None:
        found = self._found
        is_base = self._links == 0 and seq != self._chain.first
        if not is_base and link != link_of(self._link, seq, entry):
            self._wrong(at_ns, "what came before this entry was changed, or is missing")
        self._seq, self._link, self._links = seq, link, self._links + 1
        if row[0] is not None:
            if entry_hash(row) == entry:
                found.entries += 1
            else:
                self._wrong(at_ns, "the entry is not what was written")
        elif is_base:
            found.aged += 1
            return  # the next one rests on it, that is all
        elif at_ns < self._kept_ns:
            found.aged += 1
        elif at_ns < self._floor_ns and not stays:
            found.trimmed += 1
        else:
            self._wrong(at_ns, "the entry is missing, and was not trimmed")
        found.since_ns = at_ns if found.since_ns is None else min(found.since_ns, at_ns)
        found.until_ns = at_ns if found.until_ns is None else max(found.until_ns, at_ns)

    def _look_at_strangers(self, c: sqlite3.Connection) -> None:
        """Entries that no link stands for."""
        each = self._chain
        query = (
            "SELECT a.at_ns FROM audit a WHERE a.chain = ? AND a.seq <= ? AND NOT EXISTS"
            " (SELECT 1 FROM audit_link l WHERE l.chain = a.chain AND l.seq = a.seq) AND a.at_ns >= ?"
        )
        for (at_ns,) in c.execute(query, (each.chain, each.seq, self._kept_ns)).fetchall():
            self._wrong(at_ns, "an entry was put in")
        query = (
            "SELECT at_ns FROM audit WHERE chain IS NULL AND server = ?"
            " AND at_ns > (SELECT min(at_ns) FROM audit_link WHERE chain = ?)"
        )
        for (at_ns,) in c.execute(query, (each.server, each.chain)).fetchall():
            self._wrong(at_ns, "an entry was put in that is in no chain")

    def _wrong(self, at_ns: int | None, text: str) -> None:
        self._found.problems.append(Problem(self._chain.server, at_ns, text))


def strays(c: sqlite3.Connection) -> list[Problem]:
    """Entries and links of chains that there are not."""
    found = list[Problem]()
    for table, server in (("audit", "a.server"), ("audit_link", "''")):
        query = (
            f"SELECT {server}, a.at_ns FROM {table} a WHERE a.chain IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM audit_chain k WHERE k.chain = a.chain)"
        )
        found += [Problem(node, at_ns, "an entry is in no chain that is known") for node, at_ns in c.execute(query)]
    return found


def unchained(c: sqlite3.Connection) -> int:
    """Entries of before there were chains."""
    return int(c.execute("SELECT count(*) FROM audit WHERE chain IS NULL").fetchone()[0])


def link_at(c: sqlite3.Connection, server: str, incarnation: str, seq: int) -> bytes | None:
    """``None`` if it is not there (any more)."""
    row = c.execute(
        "SELECT link FROM audit_link WHERE chain = ? AND seq = ?", (chain_id(server, incarnation), seq)
    ).fetchone()
    return None if row is None else bytes(row[0])


def span(c: sqlite3.Connection, server: str, incarnation: str) -> tuple[int, int] | None:
    """The numbers of the first and the last link that is there."""
    row = c.execute(
        "SELECT min(seq), max(seq) FROM audit_link WHERE chain = ?", (chain_id(server, incarnation),)
    ).fetchone()
    return None if row[0] is None else (int(row[0]), int(row[1]))


def digest(c: sqlite3.Connection, server: str, incarnation: str, first: int, last: int) -> bytes:
    """Of all entries that were written down under the numbers from ``first`` to ``last``, trimmed or not: as they are now."""
    found = hashlib.sha256()
    for seq, entry in _entries(c, server, incarnation, first, last):
        found.update(struct.pack(">q", seq) + entry)
    return found.digest()


def _entries(
    c: sqlite3.Connection, server: str, incarnation: str, first: int, last: int
) -> Iterator[tuple[int, bytes]]:
    for seq, entry, *row in c.execute(
        f"SELECT l.seq, l.entry, {_ROW} FROM audit_link l LEFT JOIN audit a ON a.chain = l.chain AND a.seq = l.seq"
        " WHERE l.chain = ? AND l.seq BETWEEN ? AND ? ORDER BY l.seq",
        (chain_id(server, incarnation), first, last),
    ):
        yield seq, entry if row[0] is None else entry_hash(tuple(row))
