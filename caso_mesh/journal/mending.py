"""A journal of which a part cannot be believed any more: what cannot is left out, with a note, and the rest goes on.

The chain of hashes tells which records are as they were written, also behind one that is not: each is checked against the
hash that stands at the one before. What is left out is a *gap*; whoever copies this journal is told of it as of records that
were pruned, and goes on behind it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby

from msgspec import Struct

from caso_mesh.database import readable
from caso_mesh.journal import replica
from caso_mesh.journal.record import Record, hash_of

#: Of each incarnation, the first and last record that were left out.
GAPS = """
CREATE TABLE journal_gap (
    incarnation INTEGER NOT NULL REFERENCES journal_incarnation, first INTEGER NOT NULL, upto INTEGER NOT NULL,
    PRIMARY KEY (incarnation, first)
) STRICT;
"""
#: What the server keeps beside its journal, written in the same moment as the facts it follows from.
NOTES = "CREATE TABLE journal_note (key TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;"
#: Of a stretch that cannot be read, so many records are tried one by one.
_TRIED = 10_000


class Gap(Struct, frozen=True):
    """Records ``first`` to ``upto`` of an incarnation are lost."""

    incarnation: str
    first: int
    upto: int


class Salvaged(Struct, frozen=True):
    """What could be read of a damaged file; rows as they lay there."""

    incarnations: list[tuple[int, str, str, int, bytes, int]]
    records: list[tuple[int, int, int, str, bytes, bytes]]
    traces: list[tuple[int, int, int, bytes, int]]
    gaps: list[tuple[int, int, int]]
    held: list[tuple[str, int, str, bytes]]
    notes: list[tuple[str, bytes]]


def gaps(conn: sqlite3.Connection) -> list[Gap]:
    """All that are known, in order."""
    rows = conn.execute(
        "SELECT i.incarnation, g.first, g.upto FROM journal_gap g JOIN journal_incarnation i ON i.number = g.incarnation"
        " WHERE g.upto > i.floor ORDER BY i.number, g.first"
    )
    return [Gap(*row) for row in rows]


def behind(conn: sqlite3.Connection, incarnation: str, after: int) -> int:
    """The number of the record behind which to go on, when the next one lies in a gap."""
    for gap in gaps(conn):
        if gap.incarnation == incarnation and gap.first <= after + 1 <= gap.upto:
            after = gap.upto
    return after


def mend(conn: sqlite3.Connection, server: str) -> int:
    """Looks at all records, and leaves out those that are not what was written; how many."""
    lost = 0
    for number, incarnation, head, digest, floor in conn.execute(
        "SELECT number, incarnation, seq, hash, floor FROM journal_incarnation ORDER BY number"
    ).fetchall():
        lost += _mend(conn, server, number, incarnation, head, bytes(digest), floor)
    return lost


def _mend(
    conn: sqlite3.Connection, server: str, number: int, incarnation: str, head: int, digest: bytes, floor: int
) -> int:
    known = dict(conn.execute("SELECT upto, first FROM journal_gap WHERE incarnation = ?", (number,)))
    rows = [
        Record(incarnation, *row)
        for row in conn.execute(
            "SELECT seq, at_ns, kind, data, hash FROM journal_record WHERE incarnation = ? AND seq > ? ORDER BY seq",
            (number, floor),
        )
    ]
    previous, last = replica.hash_at(conn, server, incarnation, floor), floor
    bad: list[int] = []
    for place, record in enumerate(rows):
        if record.seq != last + 1:
            missing = range(last + 1, record.seq)
            if known.get(record.seq - 1) != last + 1:
                bad += missing
            previous = replica.hash_at(conn, server, incarnation, record.seq - 1)
        last = record.seq
        if previous is not None and hash_of(record, previous) == record.hash:
            previous = record.hash
            continue
        ours = hash_of(record, previous) if previous is not None else None
        follows = rows[place + 1] if place + 1 < len(rows) else None
        if ours is not None and (
            (follows is not None and follows.seq == last + 1 and hash_of(follows, ours) == follows.hash)
            or (follows is None and last == head and ours == digest)
        ):
            # only what stands beside it was damaged
            conn.execute("UPDATE journal_record SET hash = ? WHERE incarnation = ? AND seq = ?", (ours, number, last))
            previous = ours
            continue
        bad.append(last)
        previous = record.hash
    wrong = set(bad)
    kept = max((record.seq for record in rows if record.seq not in wrong), default=floor)
    at = replica.hash_at(conn, server, incarnation, kept)
    if at is None:
        # not even what it stood on is left: all of it is a gap, behind which nothing comes
        conn.execute("DELETE FROM journal_record WHERE incarnation = ?", (number,))
        conn.execute("INSERT OR IGNORE INTO journal_trace VALUES (?, ?, 0, ?, 0)", (number, head, digest))
        conn.execute("INSERT OR REPLACE INTO journal_gap VALUES (?, ?, ?)", (number, floor + 1, head))
        return head - floor
    inside = [seq for seq in bad if seq < kept]
    _leave_out(conn, number, inside)
    conn.execute("DELETE FROM journal_record WHERE incarnation = ? AND seq > ?", (number, kept))
    conn.execute("UPDATE journal_incarnation SET seq = ?, hash = ? WHERE number = ?", (kept, at, number))
    return len(inside) + max(0, head - kept)


def _leave_out(conn: sqlite3.Connection, number: int, bad: list[int]) -> None:
    """The last hash stays, on which the next record stands."""
    for _, run in groupby(enumerate(bad), lambda pair: pair[1] - pair[0]):
        seqs = [seq for _, seq in run]
        first, upto = seqs[0], seqs[-1]
        conn.execute(
            "INSERT OR IGNORE INTO journal_trace SELECT incarnation, seq, at_ns, hash, rowid FROM journal_record"
            " WHERE incarnation = ? AND seq = ?",
            (number, upto),
        )
        conn.execute("DELETE FROM journal_record WHERE incarnation = ? AND seq BETWEEN ? AND ?", (number, first, upto))
        conn.execute("INSERT OR REPLACE INTO journal_gap VALUES (?, ?, ?)", (number, first, upto))


# --- a file that cannot be read as a whole ---


def salvage(conn: sqlite3.Connection) -> Salvaged:
    """All that can be read of it. Reads only."""

    def rows(sql: str) -> Iterator[tuple[object, ...]]:
        try:
            yield from readable(conn.execute(sql))
        except sqlite3.DatabaseError:
            return

    incarnations = list(rows("SELECT number, server, incarnation, seq, hash, floor FROM journal_incarnation"))
    records: list[tuple[object, ...]] = []
    for number, _, _, head, _, floor in incarnations:
        records += _records(conn, number, floor, head)  # type: ignore[arg-type]  # numbers, as the table has them
    return Salvaged(
        incarnations,  # type: ignore[arg-type]  # the types of the columns are those of STRICT tables
        records,  # type: ignore[arg-type]
        list(rows("SELECT incarnation, seq, at_ns, hash, arrival FROM journal_trace")),  # type: ignore[arg-type]
        list(rows("SELECT incarnation, first, upto FROM journal_gap")),  # type: ignore[arg-type]
        list(rows("SELECT key, at_ns, kind, data FROM journal_held ORDER BY number")),  # type: ignore[arg-type]
        list(rows("SELECT key, data FROM journal_note")),  # type: ignore[arg-type]
    )


def _records(conn: sqlite3.Connection, number: int, floor: int, head: int) -> Iterator[tuple[object, ...]]:
    """On from each one that cannot be read, one by one."""
    sql = "SELECT incarnation, seq, at_ns, kind, data, hash FROM journal_record WHERE incarnation = ?"
    after, tried = floor, 0
    while after < head and tried < _TRIED:
        before = after
        try:
            for row in readable(conn.execute(f"{sql} AND seq > ? ORDER BY seq", (number, after))):
                after = row[1]
                yield row
        except sqlite3.DatabaseError:
            pass
        tried += 1
        if after == before:
            after += 1  # that one


def put_back(conn: sqlite3.Connection, salvaged: Salvaged) -> None:
    """Into a new, empty journal."""
    conn.executemany(
        "INSERT OR IGNORE INTO journal_incarnation (number, server, incarnation, seq, hash, floor)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        salvaged.incarnations,
    )
    conn.executemany("INSERT OR IGNORE INTO journal_record VALUES (?, ?, ?, ?, ?, ?)", salvaged.records)
    known = {row[0] for row in salvaged.incarnations}
    conn.executemany(
        "INSERT OR IGNORE INTO journal_trace VALUES (?, ?, ?, ?, ?)",
        [row for row in salvaged.traces if row[0] in known],
    )
    conn.executemany(
        "INSERT OR IGNORE INTO journal_gap VALUES (?, ?, ?)", [row for row in salvaged.gaps if row[0] in known]
    )
    conn.executemany("INSERT INTO journal_held (key, at_ns, kind, data) VALUES (?, ?, ?, ?)", salvaged.held)
    conn.executemany("INSERT INTO journal_note VALUES (?, ?)", salvaged.notes)
