"""The administrator's copy of all journals. Functions over an open connection, so that the caller stores what the facts
mean in the same transaction as the facts themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from msgspec import Struct

from caso_mesh.journal.record import Head, Record, first_hash, hash_of
from caso_mesh.model.errors import JournalChainBroken, JournalGap

MIGRATION = """
CREATE TABLE journal_incarnation (
    number INTEGER PRIMARY KEY,
    server TEXT NOT NULL, incarnation TEXT NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
    UNIQUE (server, incarnation)
) STRICT;
CREATE TABLE journal_record (
    incarnation INTEGER NOT NULL REFERENCES journal_incarnation,
    seq INTEGER NOT NULL, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (incarnation, seq)
) STRICT;
"""
#: Records are numbered in the order in which they came, so that another copy can follow this one: ``life`` names this
#: copy, ``arrival`` its records. ``refused``: why a record means nothing, as whoever took it in found.
ARRIVALS = """
CREATE TABLE journal_life (only INTEGER PRIMARY KEY CHECK (only = 1), life TEXT NOT NULL) STRICT;
INSERT INTO journal_life VALUES (1, lower(hex(randomblob(16))));
CREATE TABLE journal_arrival (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    incarnation INTEGER NOT NULL REFERENCES journal_incarnation,
    seq INTEGER NOT NULL, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, hash BLOB NOT NULL,
    refused TEXT,
    UNIQUE (incarnation, seq)
) STRICT;
INSERT INTO journal_arrival (incarnation, seq, at_ns, kind, data, hash)
    SELECT incarnation, seq, at_ns, kind, data, hash FROM journal_record ORDER BY rowid;
DROP TABLE journal_record;
ALTER TABLE journal_arrival RENAME TO journal_record;
"""
#: Records up to ``floor`` of an incarnation were pruned: what they mean is in the tables, or at a majority of the voters.
#: ``journal_trace`` keeps their hashes, by which an old copy of a journal is told from another one.
FLOORS = """
ALTER TABLE journal_incarnation ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
CREATE TABLE journal_trace (
    incarnation INTEGER NOT NULL REFERENCES journal_incarnation,
    seq INTEGER NOT NULL, at_ns INTEGER NOT NULL, hash BLOB NOT NULL, arrival INTEGER NOT NULL,
    PRIMARY KEY (incarnation, seq)
) STRICT, WITHOUT ROWID;
"""
MIGRATIONS = (MIGRATION, ARRIVALS, FLOORS)


class Arrived(Struct, frozen=True):
    """A record of a copy, with the server whose journal it is of, its place in the copy, and why it means nothing."""

    arrival: int
    server: str
    record: Record
    refused: str | None = None


class Place(Struct, frozen=True):
    """A place in a copy: behind ``arrival`` of the copy ``life``. ``pruned``: what came before is not all there as records
    any more, so that the tables made of it have to be taken over."""

    life: str
    arrival: int
    pruned: bool = False


def cursor(conn: sqlite3.Connection, server: str, incarnation: str) -> Head:
    """How far the copy of one incarnation is; ``seq`` 0 and the first hash if there is nothing yet."""
    row = conn.execute(
        "SELECT seq, hash FROM journal_incarnation WHERE server = ? AND incarnation = ?", (server, incarnation)
    ).fetchone()
    return Head(incarnation, *row) if row else Head(incarnation, 0, first_hash(server, incarnation))


def cursors(conn: sqlite3.Connection, server: str) -> list[Head]:
    """How far the copies of all incarnations of ``server`` are, in the order they arrived: oldest first."""
    rows = conn.execute(
        "SELECT incarnation, seq, hash FROM journal_incarnation WHERE server = ? ORDER BY number", (server,)
    )
    return [Head(*row) for row in rows]


def hash_at(conn: sqlite3.Connection, server: str, incarnation: str, seq: int) -> bytes | None:
    """The hash of a record, ``None`` if the copy has none; at 0 the first hash. For ``compare.find_fork``."""
    if seq == 0:
        return first_hash(server, incarnation)
    for table in ("journal_record", "journal_trace"):
        row = conn.execute(
            f"SELECT r.hash FROM journal_incarnation i JOIN {table} r ON r.incarnation = i.number"
            " WHERE i.server = ? AND i.incarnation = ? AND r.seq = ?",
            (server, incarnation, seq),
        ).fetchone()
        if row:
            return bytes(row[0])
    return None


def accept(conn: sqlite3.Connection, server: str, records: Sequence[Record]) -> list[Record]:
    """Store what is new, and return it; what is already held is dropped, if it is the same.

    Records of several incarnations may come in one push, those of one in rising order. All are checked before the
    first is stored. Raises ``JournalGap`` (records before it are missing: they are to be sent again from the cursor),
    ``JournalChainBroken`` (a record that does not belong behind what is held, or differs from it).
    """
    new, at = _checked(conn, server, records)
    _store(conn, server, new, at)
    return new


def fresh(conn: sqlite3.Connection, server: str, records: Sequence[Record]) -> list[Record]:
    """What ``accept`` would store and return. Stores nothing. Raises as ``accept``."""
    return _checked(conn, server, records)[0]


def _checked(conn: sqlite3.Connection, server: str, records: Sequence[Record]) -> tuple[list[Record], dict[str, Head]]:
    at: dict[str, Head] = {}
    new: list[Record] = []
    pushed: dict[tuple[str, int], bytes] = {}
    for record in records:
        place = (record.incarnation, record.seq)
        head = at.get(record.incarnation) or cursor(conn, server, record.incarnation)
        if record.seq <= head.seq:
            held = pushed.get(place) or hash_at(conn, server, *place)
            # The hash alone could be copied from the true record onto another content.
            before = pushed.get((record.incarnation, record.seq - 1)) or hash_at(
                conn, server, record.incarnation, record.seq - 1
            )
            if (held is None or before is None) and 0 < record.seq <= floor(conn, server, record.incarnation):
                continue  # it was pruned so long ago that nobody can compare it, and it means nothing new
            if before is None or record.hash != held or hash_of(record, before) != held:
                raise JournalChainBroken(server=server, incarnation=record.incarnation, seq=record.seq)
            continue
        if record.seq != head.seq + 1:
            raise JournalGap(server=server, incarnation=record.incarnation, found=record.seq, expected=head.seq + 1)
        if record.hash != hash_of(record, head.hash):
            raise JournalChainBroken(server=server, incarnation=record.incarnation, seq=record.seq)
        at[record.incarnation] = Head(record.incarnation, record.seq, record.hash)
        pushed[place] = record.hash
        new.append(record)
    return new, at


def replica_records(
    conn: sqlite3.Connection, server: str, incarnation: str, after: int, limit: int = 512, max_bytes: int = 1 << 20
) -> list[Record]:
    """The held records beyond ``after``, up to ``limit`` and about ``max_bytes``; at least one if there is one."""
    return take(
        conn.execute(
            "SELECT i.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash"
            " FROM journal_incarnation i JOIN journal_record r ON r.incarnation = i.number"
            " WHERE i.server = ? AND i.incarnation = ? AND r.seq > ? ORDER BY r.seq LIMIT ?",
            (server, incarnation, after, limit),
        ),
        max_bytes,
    )


# --- forgetting records ---


def floor(conn: sqlite3.Connection, server: str, incarnation: str) -> int:
    """The number of the last record that was pruned; 0 if none was."""
    row = conn.execute(
        "SELECT floor FROM journal_incarnation WHERE server = ? AND incarnation = ?", (server, incarnation)
    ).fetchone()
    return int(row[0]) if row else 0


def floors(conn: sqlite3.Connection, server: str | None = None) -> list[tuple[str, str, int]]:
    """(server, incarnation, floor) of all whose records were pruned, or of those of one server."""
    return conn.execute(
        "SELECT server, incarnation, floor FROM journal_incarnation WHERE floor > 0 AND (? IS NULL OR server = ?)"
        " ORDER BY number",
        (server, server),
    ).fetchall()


def prune(conn: sqlite3.Connection, server: str, incarnation: str, upto: int, trace_since_ns: int) -> int:
    """Forgets the records up to ``upto`` of an incarnation, as far as they are held; how many. Their hashes stay, but for
    those written before ``trace_since_ns``."""
    row = conn.execute(
        "SELECT number, seq, floor FROM journal_incarnation WHERE server = ? AND incarnation = ?", (server, incarnation)
    ).fetchone()
    if row is None:
        return 0
    number, seq, below = row
    upto = min(upto, seq)
    if upto <= below:
        return 0
    conn.execute(
        "INSERT OR IGNORE INTO journal_trace SELECT incarnation, seq, at_ns, hash, rowid FROM journal_record"
        " WHERE incarnation = ? AND seq <= ?",
        (number, upto),
    )
    gone = conn.execute("DELETE FROM journal_record WHERE incarnation = ? AND seq <= ?", (number, upto)).rowcount
    conn.execute("UPDATE journal_incarnation SET floor = ? WHERE number = ?", (upto, number))
    # the last one stays: what follows is checked against it
    conn.execute(
        "DELETE FROM journal_trace WHERE incarnation = ? AND at_ns < ? AND seq < ?", (number, trace_since_ns, upto)
    )
    return gone


def prune_arrived(conn: sqlite3.Connection, upto: int, trace_since_ns: int) -> int:
    """Forgets the records that came up to the arrival ``upto``; how many."""
    found = conn.execute(
        "SELECT i.server, i.incarnation, max(r.seq) FROM journal_record r"
        " JOIN journal_incarnation i ON i.number = r.incarnation WHERE r.arrival <= ? GROUP BY r.incarnation",
        (upto,),
    ).fetchall()
    return sum(prune(conn, server, incarnation, seq, trace_since_ns) for server, incarnation, seq in found)


def skip(conn: sqlite3.Connection, server: str, head: Head, at_ns: int) -> int:
    """Records up to ``head`` are lost: the copy goes on behind them. How many are missing."""
    held = cursor(conn, server, head.incarnation)
    if head.seq <= held.seq:
        return 0
    (number,) = conn.execute(
        "INSERT INTO journal_incarnation (server, incarnation, seq, hash, floor) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (server, incarnation) DO UPDATE SET seq = excluded.seq, hash = excluded.hash,"
        " floor = excluded.floor RETURNING number",
        (server, head.incarnation, head.seq, head.hash, head.seq),
    ).fetchone()
    conn.execute("DELETE FROM journal_record WHERE incarnation = ?", (number,))
    conn.execute("INSERT OR REPLACE INTO journal_trace VALUES (?, ?, ?, ?, 0)", (number, head.seq, at_ns, head.hash))
    return head.seq - held.seq


def held_upto(conn: sqlite3.Connection, arrival: int, before_ns: int) -> dict[str, list[tuple[str, int]]]:
    """Server -> (incarnation, sequence) up to which its journal came until ``arrival``, and was written before
    ``before_ns``."""
    found: dict[str, list[tuple[str, int]]] = {}
    for server, incarnation, upto in conn.execute(
        "SELECT i.server, i.incarnation, max(r.seq) FROM journal_incarnation i JOIN"
        " (SELECT incarnation, seq FROM journal_record WHERE arrival <= ?1 AND at_ns < ?2 UNION ALL"
        " SELECT incarnation, seq FROM journal_trace WHERE arrival <= ?1 AND at_ns < ?2) r"
        " ON r.incarnation = i.number GROUP BY i.number",
        (arrival, before_ns),
    ):
        found.setdefault(server, []).append((incarnation, upto))
    return found


# --- one copy that follows another ---


def refuse(conn: sqlite3.Connection, server: str, record: Record, reason: str) -> None:
    """Notes why a held record means nothing."""
    conn.execute(
        "UPDATE journal_record SET refused = ? WHERE seq = ? AND incarnation ="
        " (SELECT number FROM journal_incarnation WHERE server = ? AND incarnation = ?)",
        (reason, record.seq, server, record.incarnation),
    )


def life(conn: sqlite3.Connection) -> str:
    """The name of this copy."""
    (found,) = conn.execute("SELECT life FROM journal_life").fetchone()
    return str(found)


def heads(conn: sqlite3.Connection) -> list[tuple[str, str, int]]:
    """(server, incarnation, sequence) of all that is held."""
    return conn.execute("SELECT server, incarnation, seq FROM journal_incarnation ORDER BY number").fetchall()


def place_behind(conn: sqlite3.Connection, theirs: Iterable[tuple[str, str, int]]) -> Place:
    """The place in this copy up to which another one, which holds ``theirs``, lacks nothing."""
    held = {(server, incarnation): seq for server, incarnation, seq in theirs}
    first: int | None = None
    for number, server, incarnation, below in conn.execute(
        "SELECT number, server, incarnation, floor FROM journal_incarnation"
    ).fetchall():
        if held.get((server, incarnation), 0) < below:
            return Place(life(conn), last_arrival(conn), pruned=True)
        (found,) = conn.execute(
            "SELECT min(arrival) FROM journal_record WHERE incarnation = ? AND seq > ?",
            (number, held.get((server, incarnation), 0)),
        ).fetchone()
        if found is not None and (first is None or found < first):
            first = found
    if first is None:
        return Place(life(conn), last_arrival(conn))
    return Place(life(conn), first - 1)


def last_arrival(conn: sqlite3.Connection) -> int:
    """The number of the last record that came, whether it was pruned or not."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal_record'").fetchone()
    return int(row[0]) if row else 0


def arrived(conn: sqlite3.Connection, after: int, limit: int = 512, max_bytes: int = 1 << 20) -> list[Arrived]:
    """Records behind ``after`` in the order in which they came, up to ``limit`` and about ``max_bytes``; at least one
    if there is one."""
    found: list[Arrived] = []
    size = 0
    for arrival, server, refused, *record in conn.execute(
        "SELECT r.arrival, i.server, r.refused, i.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash"
        " FROM journal_record r JOIN journal_incarnation i ON i.number = r.incarnation"
        " WHERE r.arrival > ? ORDER BY r.arrival LIMIT ?",
        (after, limit),
    ):
        each = Arrived(arrival, server, Record(*record), refused)
        size += len(each.record.data) + len(each.record.kind) + _OVERHEAD
        if found and size > max_bytes:
            break
        found.append(each)
    return found


def take(rows: sqlite3.Cursor, max_bytes: int) -> list[Record]:
    """Records from rows (incarnation, seq, at_ns, kind, data, hash) until they are larger than ``max_bytes``."""
    records: list[Record] = []
    size = 0
    for row in rows:
        record = Record(*row)
        size += len(record.data) + len(record.kind) + _OVERHEAD
        if records and size > max_bytes:
            break
        records.append(record)
    return records


#: What a record takes on the wire beside kind and data.
_OVERHEAD = 128


def _store(conn: sqlite3.Connection, server: str, new: Sequence[Record], at: dict[str, Head]) -> None:
    numbers: dict[str, int] = {}
    for head in at.values():
        (numbers[head.incarnation],) = conn.execute(
            "INSERT INTO journal_incarnation (server, incarnation, seq, hash) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (server, incarnation) DO UPDATE SET seq = excluded.seq, hash = excluded.hash RETURNING number",
            (server, head.incarnation, head.seq, head.hash),
        ).fetchone()
    conn.executemany(
        "INSERT INTO journal_record (incarnation, seq, at_ns, kind, data, hash) VALUES (?, ?, ?, ?, ?, ?)",
        [(numbers[r.incarnation], r.seq, r.at_ns, r.kind, r.data, r.hash) for r in new],
    )
