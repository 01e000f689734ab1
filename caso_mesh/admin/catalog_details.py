"""The catalog details of sets in the tables: what journals tell of each, and beside it how far this voter is with it.

What journals tell is the same at every voter, in whichever order it comes. Whether this voter's own catalog has a detail, has lost
it, or finds it of no use is nobody else's business: it lies in a table of its own, and what is told is never changed for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from msgspec import Struct

from caso_mesh.model import facts

#: From one table for both. What was made anew somewhere else than where the set was made lost what had been told of it.
APART = """
CREATE TABLE catalog_here (
    set_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('here', 'damaged', 'again')), reader TEXT NOT NULL
) STRICT;
CREATE INDEX catalog_here_by_state ON catalog_here (state);
INSERT INTO catalog_here SELECT set_id, state, '' FROM catalog_detail WHERE state <> 'pending';
INSERT INTO catalog_here SELECT d.set_id, 'again', d.server FROM catalog_detail d JOIN backup_set b ON b.id = d.set_id
    WHERE d.state = 'pending' AND d.size = 0 AND d.server <> b.server;
DROP INDEX catalog_detail_by_state;
ALTER TABLE catalog_detail RENAME TO catalog_detail_before;
CREATE TABLE catalog_detail (set_id TEXT PRIMARY KEY, digest BLOB NOT NULL, size INTEGER NOT NULL) STRICT;
INSERT INTO catalog_detail SELECT set_id, digest, size FROM catalog_detail_before ORDER BY rowid;
DROP TABLE catalog_detail_before;
"""


class PendingDetail(Struct, frozen=True):
    """``maker`` made the set, and has it as that many bytes with that digest; with 0 bytes it is made anew. ``server``: who
    is asked first. ``again``: it was here, or is wanted from wherever it can be had; ``damaged``: it was of no use, and only
    another catalog may have it."""

    set: str
    server: str
    digest: bytes
    size: int
    maker: str
    again: bool = False
    damaged: bool = False


# --- what journals tell ---


def told(c: sqlite3.Connection, fact: facts.CatalogDetail) -> None:
    """Who made a known set has its detail, or has lost it. Of what it tells the first that is not lost counts."""
    digest = fact.digest if fact.size else b""
    news = c.execute(
        "INSERT INTO catalog_detail VALUES (?, ?, ?) ON CONFLICT (set_id) DO UPDATE"
        " SET digest = excluded.digest, size = excluded.size WHERE size = 0 AND excluded.size <> 0",
        (fact.set, digest, fact.size),
    )
    if news.rowcount and fact.size:
        c.execute("DELETE FROM catalog_here WHERE set_id = ? AND state <> 'here'", (fact.set,))


def found(c: sqlite3.Connection, set_id: str, reader: str) -> None:
    """``reader`` found a known set on its device. Whatever is told of its detail stays; where nothing is, or where it was of no
    use here, it is made anew."""
    c.execute("INSERT OR IGNORE INTO catalog_detail VALUES (?, x'', 0)", (set_id,))
    c.execute(
        "INSERT INTO catalog_here SELECT set_id, 'again', ?2 FROM catalog_detail WHERE set_id = ?1 AND size = 0"
        " ON CONFLICT (set_id) DO NOTHING",
        (set_id, reader),
    )
    c.execute(
        "UPDATE catalog_here SET state = 'again', reader = ?2 WHERE set_id = ?1 AND state = 'damaged'", (set_id, reader)
    )


def forget(c: sqlite3.Connection, set_id: str) -> None:
    """A set is deleted."""
    c.execute("DELETE FROM catalog_detail WHERE set_id = ?", (set_id,))
    c.execute("DELETE FROM catalog_here WHERE set_id = ?", (set_id,))


# --- how far this voter is ---


def has(c: sqlite3.Connection, set_id: str) -> None:
    """The catalog has the detail of a set, whether or not any journal has told of it yet."""
    c.execute("INSERT OR REPLACE INTO catalog_here VALUES (?, 'here', '')", (set_id,))


def put(c: sqlite3.Connection, set_id: str, state: str) -> None:
    """``here`` or ``damaged``. Of a set that is deleted meanwhile it means nothing."""
    c.execute(
        "INSERT OR REPLACE INTO catalog_here SELECT set_id, ?, '' FROM catalog_detail WHERE set_id = ?", (state, set_id)
    )


def again(c: sqlite3.Connection, set_ids: Iterable[str], reader: str = "") -> None:
    """The details of known sets are wanted once more: made at ``reader``, or from wherever they can be had."""
    c.executemany(
        "INSERT OR REPLACE INTO catalog_here SELECT set_id, 'again', ? FROM catalog_detail WHERE set_id = ?",
        [(reader, set_id) for set_id in set_ids],
    )


def mend(c: sqlite3.Connection, set_ids: Iterable[str]) -> int:
    """Those of ``set_ids`` that were of no use are wanted once more; how many those are."""
    return c.executemany(
        "UPDATE catalog_here SET state = 'again', reader = '' WHERE set_id = ? AND state = 'damaged'",
        [(set_id,) for set_id in set_ids],
    ).rowcount


def pending(c: sqlite3.Connection) -> list[PendingDetail]:
    """What is not here, in the order in which it was told."""
    rows = c.execute(
        "SELECT d.set_id, coalesce(nullif(h.reader, ''), b.server), iif(coalesce(h.reader, '') = '', d.digest, x''),"
        " iif(coalesce(h.reader, '') = '', d.size, 0), b.server, h.state IS 'again', h.state IS 'damaged'"
        " FROM catalog_detail d JOIN backup_set b ON b.id = d.set_id LEFT JOIN catalog_here h ON h.set_id = d.set_id"
        " WHERE h.state IS NOT 'here' ORDER BY d.rowid"
    )
    return [
        PendingDetail(set_id, server, digest, size, maker, again=bool(again_), damaged=bool(damaged))
        for set_id, server, digest, size, maker, again_, damaged in rows
    ]


def here(c: sqlite3.Connection) -> list[str]:
    """The sets whose details are said to be in the catalog."""
    return [row[0] for row in c.execute("SELECT set_id FROM catalog_here WHERE state = 'here'")]


def states(c: sqlite3.Connection, set_ids: Sequence[str]) -> dict[str, str]:
    """``here``, ``damaged`` or ``pending``; nothing of sets whose details nobody has told of."""
    found: dict[str, str] = {}
    for start in range(0, len(set_ids), 500):
        piece = set_ids[start : start + 500]
        marks = ", ".join("?" * len(piece))
        found.update(
            c.execute(
                "SELECT d.set_id, coalesce(nullif(h.state, 'again'), 'pending') FROM catalog_detail d"
                f" LEFT JOIN catalog_here h ON h.set_id = d.set_id WHERE d.set_id IN ({marks})",
                piece,
            )
        )
    return found
