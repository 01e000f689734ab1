"""The log on disk, in one SQLite file. Functions over an open connection; each row carries a hash of its content."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
from typing import Literal, cast

from msgspec import Struct

from caso_mesh.consensus.port import KEPT_ENTRIES, Entry, Snapshot
from caso_mesh.model.errors import Misuse, StateDamaged, StateNotEmpty

MIGRATIONS = [
    """
    CREATE TABLE mark (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        node TEXT NOT NULL, lineage INTEGER NOT NULL, term INTEGER NOT NULL, hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE entry (
        "index" INTEGER PRIMARY KEY,
        term INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE snapshot (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        "index" INTEGER NOT NULL, term INTEGER NOT NULL, data BLOB NOT NULL, hash BLOB NOT NULL
    ) STRICT;
    """
]

#: One load stops at so many entries, or bytes.
_BATCH, _BATCH_BYTES = 512, 4 << 20


class Mark(Struct, frozen=True):
    """What the log belongs to and how far its terms have come."""

    node: str
    lineage: int
    term: int


def found(conn: sqlite3.Connection, path: str, node: str, lineage: int, start: Snapshot | None) -> None:
    """Lay down a new log; an existing one must be ``node``'s. Raises ``StateNotEmpty``, ``StateDamaged``."""
    if (mark := _mark(conn, path)) is not None:
        if mark.node != node:
            raise StateNotEmpty(state=os.path.dirname(path) or ".", server=mark.node)
        return
    if start is not None:
        _put_snapshot(conn, start)
    _put_mark(conn, Mark(node, lineage, start.term if start else 0))


def begin_term(conn: sqlite3.Connection, path: str, lineage: int) -> Mark:
    """Begin the next term with its no-op. Raises ``StateDamaged``."""
    old = _mark(conn, path)
    assert old is not None
    mark = Mark(old.node, max(old.lineage, lineage), old.term + 1)
    _put_mark(conn, mark)
    append(conn, mark.term, "noop", b"")
    return mark


def append(conn: sqlite3.Connection, term: int, kind: Literal["noop", "command"], data: bytes) -> int:
    """The index of the new entry."""
    index = last_index(conn) + 1
    conn.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", (index, term, kind, data, _hash(index, term, kind, data)))
    return index


def last_index(conn: sqlite3.Connection) -> int:
    """0 if there is nothing yet."""
    (index,) = conn.execute('SELECT max("index") FROM entry').fetchone()
    return cast("int", index) if index is not None else _snapshot_index(conn)


def first_index(conn: sqlite3.Connection) -> int:
    """The lowest index from which entries can be had one by one."""
    (index,) = conn.execute('SELECT min("index") FROM entry').fetchone()
    return cast("int", index) if index is not None else _snapshot_index(conn) + 1


def load(conn: sqlite3.Connection, path: str, after: int) -> list[Entry]:
    """Some entries beyond ``after``, none if there are none. Raises ``StateDamaged``."""
    entries: list[Entry] = []
    size = 0
    for index, term, kind, data, digest in conn.execute(
        'SELECT "index", term, kind, data, hash FROM entry WHERE "index" > ? ORDER BY "index" LIMIT ?', (after, _BATCH)
    ):
        if digest != _hash(index, term, kind, data):
            raise StateDamaged(path=path, detail=f"entry {index} is not what was written")
        if index != after + 1 + len(entries):
            raise StateDamaged(path=path, detail=f"entry {after + 1 + len(entries)} is missing")
        entries.append(Entry(index, term, kind, data))
        size += len(data)
        if size >= _BATCH_BYTES:
            break
    return entries


def snapshot(conn: sqlite3.Connection, path: str) -> Snapshot:
    """The one held. Raises ``StateDamaged``, also when there is none."""
    row = conn.execute('SELECT "index", term, data, hash FROM snapshot').fetchone()
    if row is None:
        raise StateDamaged(path=path, detail="its first entries are missing")
    index, term, data, digest = row
    if digest != _hash(index, term, "snapshot", data):
        raise StateDamaged(path=path, detail=f"the snapshot at {index} is not what was written")
    return Snapshot(index, term, data)


def compact(conn: sqlite3.Connection, path: str, new: Snapshot) -> None:
    """See ``Consensus.compact``."""
    if new.index <= _snapshot_index(conn):
        return
    row = conn.execute('SELECT term FROM entry WHERE "index" = ?', (new.index,)).fetchone()
    if row is None or row[0] != new.term:
        raise Misuse(f"a snapshot at {new.index} of term {new.term}, which is not of this log")
    _put_snapshot(conn, new)
    conn.execute('DELETE FROM entry WHERE "index" <= ?', (new.index - KEPT_ENTRIES,))


def check_shape(conn: sqlite3.Connection, path: str) -> int:
    """The index before the first entry. Raises ``StateDamaged`` if entries and snapshot do not meet, or the marks
    contradict them."""
    mark = _mark(conn, path)
    assert mark is not None
    first, last, held = first_index(conn), last_index(conn), _snapshot_index(conn)
    if held:
        snapshot(conn, path)
    if first > held + 1:
        raise StateDamaged(path=path, detail=f"entry {held + 1} is missing")
    if last < held:
        raise StateDamaged(path=path, detail=f"it ends at {last}, before its snapshot at {held}")
    (term,) = conn.execute(
        "SELECT max(term) FROM (SELECT term FROM entry UNION ALL SELECT term FROM snapshot)"
    ).fetchone()
    if (term or 0) != mark.term:  # a term is begun in one transaction with its first entry
        raise StateDamaged(path=path, detail=f"it is at term {mark.term}, but its entries end with term {term or 0}")
    return first - 1


def _mark(conn: sqlite3.Connection, path: str) -> Mark | None:
    row = conn.execute("SELECT node, lineage, term, hash FROM mark").fetchone()
    if row is None:
        return None
    node, lineage, term, digest = row
    if digest != _hash(lineage, term, "mark", node.encode()):
        raise StateDamaged(path=path, detail="its term is not what was written")
    return Mark(node, lineage, term)


def _put_mark(conn: sqlite3.Connection, mark: Mark) -> None:
    digest = _hash(mark.lineage, mark.term, "mark", mark.node.encode())
    conn.execute("INSERT OR REPLACE INTO mark VALUES (1, ?, ?, ?, ?)", (mark.node, mark.lineage, mark.term, digest))


def _put_snapshot(conn: sqlite3.Connection, new: Snapshot) -> None:
    digest = _hash(new.index, new.term, "snapshot", new.data)
    conn.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?, ?)", (new.index, new.term, new.data, digest))


def _snapshot_index(conn: sqlite3.Connection) -> int:
    row = conn.execute('SELECT "index" FROM snapshot').fetchone()
    return cast("int", row[0]) if row else 0


def _hash(first: int, second: int, kind: str, data: bytes) -> bytes:
    """Guards against a disk that returns something else than was written; 16 bytes of SHA-256."""
    digest = hashlib.sha256(struct.pack(">qqH", first, second, len(kind)) + kind.encode())
    digest.update(data)
    return digest.digest()[:16]
