"""Attempts that ended, counted over all time: what is forgotten of runs stays in these numbers, so that they only rise.

Counted in the transaction that takes the end of an attempt in, so once, and the same at every voter, in whichever order
journals come.
"""

from __future__ import annotations

import sqlite3

import msgspec
from msgspec import Struct

from caso_mesh.model.jobs import Counts

TABLE = """
CREATE TABLE attempt_total (
    kind TEXT NOT NULL, type TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
    bytes_read INTEGER NOT NULL, bytes_stored INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (kind, type, state)
) STRICT;
"""
#: Of a server that says no kind, whose software is older.
UNKNOWN = "unknown"
#: A number that no honest attempt comes to, and of which many fit into the sum; the same in seconds, and their steps in one.
_LARGEST, _LONGEST_S, _STEPS = 1 << 50, 1 << 30, 1 << 10


class AttemptTotal(Struct, frozen=True):
    """All attempts of a kind (of backups: and a type) that ended in a state."""

    kind: str
    type: str
    state: str
    attempts: int
    bytes_read: int
    bytes_stored: int
    seconds: float


def count(c: sqlite3.Connection, server: str, attempt: str) -> None:
    """An attempt has ended by the word of ``server``, as its row says. Of two servers that both say so the earlier end counts,
    whichever is heard first: so all voters come to the same. (That is rare: then a number falls by one, and another rises.)"""
    query = (
        "SELECT ended_at_ns, reporter, kind, type, state, counts, seconds FROM attempt"
        " WHERE id = ? AND reporter {} ? AND ended_at_ns IS NOT NULL ORDER BY ended_at_ns, reporter LIMIT 1"
    )
    own = c.execute(query.format("="), (attempt, server)).fetchone()
    other = c.execute(query.format("<>"), (attempt, server)).fetchone()
    if other is not None and (other[2] is None or other[:2] < own[:2]):
        return  # one without a kind was counted by an earlier version
    if other is not None:
        _add(c, -1, *other[2:])
    _add(c, 1, *own[2:])


def _add(
    c: sqlite3.Connection, sign: int, kind: str, type: str | None, state: str, counts: bytes, seconds: float
) -> None:
    # in steps of which any number add up to the same in any order
    steps = round(seconds * _STEPS) / _STEPS if 0.0 <= seconds < _LONGEST_S else 0.0
    known = msgspec.msgpack.decode(counts, type=Counts)
    read, stored = (min(max(0, each), _LARGEST) for each in (known.bytes_read, known.bytes_stored))
    c.execute(
        "INSERT INTO attempt_total VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, type, state) DO UPDATE SET"
        " attempts = attempts + excluded.attempts, bytes_read = bytes_read + excluded.bytes_read,"
        " bytes_stored = bytes_stored + excluded.bytes_stored, seconds = seconds + excluded.seconds",
        (kind, type or "", state, sign, sign * read, sign * stored, sign * steps),
    )
    c.execute("DELETE FROM attempt_total WHERE attempts = 0")


def read(c: sqlite3.Connection) -> tuple[AttemptTotal, ...]:
    """All of them."""
    rows = c.execute(
        "SELECT kind, type, state, attempts, bytes_read, bytes_stored, seconds FROM attempt_total ORDER BY 1, 2, 3"
    )
    return tuple(AttemptTotal(*row) for row in rows)
