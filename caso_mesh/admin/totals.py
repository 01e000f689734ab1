"""Attempts that ended, counted over all time: what is forgotten of runs stays in these numbers, so that they only rise.

Counted in the transaction that takes the end of an attempt in, so once, and the same at every voter.
"""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from caso_mesh.model import facts

TABLE = """
CREATE TABLE attempt_total (
    kind TEXT NOT NULL, type TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
    bytes_read INTEGER NOT NULL, bytes_stored INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (kind, type, state)
) STRICT;
"""
#: Of a server that says no kind, whose software is older.
UNKNOWN = "unknown"
#: A number that no honest attempt comes to, and of which many fit into the sum.
_LARGEST = 1 << 50


class AttemptTotal(Struct, frozen=True):
    """All attempts of a kind (of backups: and a type) that ended in a state."""

    kind: str
    type: str
    state: str
    attempts: int
    bytes_read: int
    bytes_stored: int
    seconds: float


def count(c: sqlite3.Connection, server: str, fact: facts.AttemptEnded) -> None:
    """An attempt has ended by the word of ``server``; of two ends that both say so the first one counts."""
    told = "SELECT 1 FROM attempt WHERE id = ? AND reporter <> ? AND ended_at_ns IS NOT NULL"
    if c.execute(told, (fact.attempt, server)).fetchone() is not None:
        return
    kind = UNKNOWN if fact.kind is None else fact.kind.value
    seconds = fact.seconds if 0.0 <= fact.seconds < _LARGEST else 0.0
    read, stored = (min(max(0, each), _LARGEST) for each in (fact.counts.bytes_read, fact.counts.bytes_stored))
    c.execute(
        "INSERT INTO attempt_total VALUES (?, ?, ?, 1, ?, ?, ?) ON CONFLICT (kind, type, state) DO UPDATE SET"
        " attempts = attempts + 1, bytes_read = bytes_read + excluded.bytes_read,"
        " bytes_stored = bytes_stored + excluded.bytes_stored, seconds = seconds + excluded.seconds",
        (kind, "" if fact.type is None else fact.type.value, fact.state.value, read, stored, seconds),
    )


def read(c: sqlite3.Connection) -> tuple[AttemptTotal, ...]:
    """All of them."""
    rows = c.execute(
        "SELECT kind, type, state, attempts, bytes_read, bytes_stored, seconds FROM attempt_total ORDER BY 1, 2, 3"
    )
    return tuple(AttemptTotal(*row) for row in rows)
