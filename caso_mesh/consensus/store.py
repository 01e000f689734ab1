"""The log on disk, in one SQLite file. Functions over an open connection; each row carries a hash of its content."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from caso_mesh.consensus.membership import Membership, apply_changes, decode_change
from caso_mesh.consensus.messages import Image
from caso_mesh.consensus.port import KEPT_ENTRIES, Entry, Position, Snapshot
from caso_mesh.consensus.raft import HardState
from caso_mesh.model.errors import Misuse, StateDamaged, StateNotEmpty

_FIRST = """
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
#: ``standing``: whose log it is, its term and vote, what is known to be committed. ``base``: the entry before the first
#: that is held, and who took part then. ``witness``: what each member was seen to confirm, this one included.
_SECOND = """
    CREATE TABLE standing (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        node TEXT NOT NULL, lineage INTEGER NOT NULL, preset TEXT NOT NULL,
        term INTEGER NOT NULL, vote TEXT, committed INTEGER NOT NULL, hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE base (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        "index" INTEGER NOT NULL, term INTEGER NOT NULL, members BLOB NOT NULL, hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE witness (
        node TEXT PRIMARY KEY, term INTEGER NOT NULL, "index" INTEGER NOT NULL, hash BLOB NOT NULL
    ) STRICT;
    """


class Standing(Struct, frozen=True):
    """Whose log it is, of which lineage, at which pace its voters are to be, and what must survive."""

    node: str
    lineage: int
    preset: str
    hard: HardState


class Base(Struct, frozen=True):
    """The place before the first entry that is held, and who took part in the log then."""

    index: int
    term: int
    members: Membership


class Held(Struct, frozen=True):
    """Everything that is on the disk. ``joined``: of a member that was to be sent everything,
    and had not yet come to where others take part."""

    standing: Standing
    base: Base
    entries: tuple[Entry, ...]
    snapshot: Snapshot | None
    seen: dict[str, Position]
    joined: bool = False


def _to_second(conn: sqlite3.Connection) -> None:
    """The log of a mesh whose only voter was its administrator: all of it was committed."""
    for statement in _SECOND.split(";"):
        if statement.strip():
            conn.execute(statement)
    row = conn.execute("SELECT node, lineage, term FROM mark").fetchone()
    if row is not None:
        node, lineage, term = row
        held = conn.execute('SELECT "index", term FROM snapshot').fetchone() or (0, 0)
        first = conn.execute('SELECT "index", term FROM entry ORDER BY "index" LIMIT 1').fetchone()
        (last,) = conn.execute('SELECT max("index") FROM entry').fetchone()
        # the term of an entry that is gone: no other node ever compared it
        base = held if first is None or first[0] == held[0] + 1 else (first[0] - 1, min(first[1], held[1]))
        _put_standing(conn, Standing(node, lineage, "lan", HardState(term, None, last or held[0])))
        _put_base(conn, Base(base[0], base[1], Membership((node,))))
    conn.execute("DROP TABLE mark")


#: There is a row in the log of a member that was to be sent everything.
_THIRD = "CREATE TABLE joiner (only INTEGER PRIMARY KEY CHECK (only = 1)) STRICT;"

MIGRATIONS: list[str | Callable[[sqlite3.Connection], None]] = [_FIRST, _to_second, _THIRD]


def found(conn: sqlite3.Connection, path: str, node: str, *, lineage: int, preset: str, base: Base,
          start: Snapshot | None, joins: bool = False) -> None:  # fmt: skip
    """Lay down a new log; an existing one must be ``node``'s. Raises ``StateNotEmpty``, ``StateDamaged``."""
    if (standing := _standing(conn, path)) is not None:
        if standing.node != node:
            raise StateNotEmpty(state=os.path.dirname(path) or ".", server=standing.node)
        return
    is_laid(conn, path)
    if start is not None:
        _put_snapshot(conn, start)
    if joins:
        conn.execute("INSERT INTO joiner VALUES (1)")
    _put_base(conn, base)
    _put_standing(conn, Standing(node, lineage, preset, HardState(base.term, None, base.index)))


def is_laid(conn: sqlite3.Connection, path: str) -> bool:
    """Whether there is a log, not only its tables: who laid it down may have died before that. Raises ``StateDamaged``."""
    if _standing(conn, path) is not None:
        return True
    if any(conn.execute(f"SELECT 1 FROM {table}").fetchone() for table in ("base", "entry", "snapshot")):
        raise StateDamaged(path=path, detail="whose log it is, is missing")
    return False


def met_others(conn: sqlite3.Connection) -> None:
    """From now on a log in which nobody else takes part is that of a mesh of one."""
    conn.execute("DELETE FROM joiner")


def load(conn: sqlite3.Connection, path: str) -> Held:
    """All of it. Raises ``StateDamaged`` if a row is not what was written, one is missing, or they contradict."""
    standing, base = _standing(conn, path), _base(conn, path)
    if standing is None or base is None:
        raise StateDamaged(path=path, detail="whose log it is, is missing")
    held = _snapshot(conn, path)
    entries: list[Entry] = []
    for index, term, kind, data, digest in conn.execute(
        'SELECT "index", term, kind, data, hash FROM entry ORDER BY "index"'
    ):
        if digest != _hash(index, term, kind, data):
            raise StateDamaged(path=path, detail=f"entry {index} is not what was written")
        if index != base.index + 1 + len(entries):
            raise StateDamaged(path=path, detail=f"entry {base.index + 1 + len(entries)} is missing")
        entries.append(Entry(index, term, kind, data))
    last, last_term = (entries[-1].index, entries[-1].term) if entries else (base.index, base.term)
    snapshot_at = held.index if held else 0
    if not base.index <= snapshot_at <= last and held is not None:
        raise StateDamaged(path=path, detail=f"it goes from {base.index} to {last}, its snapshot is at {snapshot_at}")
    if held is None and base.index:
        raise StateDamaged(path=path, detail="its first entries are missing")
    if standing.hard.commit > last:
        raise StateDamaged(path=path, detail=f"it ends at {last}, but {standing.hard.commit} were committed")
    if last_term > standing.hard.term:
        raise StateDamaged(path=path, detail=f"it is at term {standing.hard.term}, but ends with term {last_term}")
    joined = conn.execute("SELECT 1 FROM joiner").fetchone() is not None
    return Held(standing, base, tuple(entries), held, _seen(conn, path), joined=joined)


def save(
    conn: sqlite3.Connection,
    path: str,
    hard: HardState | None,
    entries: Sequence[Entry],
    image: Image | None,
    seen: Mapping[str, Position],
) -> None:
    """What one ``Ready`` wants to be durable, and what others were seen to confirm. Entries replace what is at their
    places, and all behind them."""
    conn.executemany(
        "INSERT OR REPLACE INTO witness VALUES (?, ?, ?, ?)",
        [(node, at.term, at.index, _hash(at.index, at.term, "witness", node.encode())) for node, at in seen.items()],
    )
    if image is not None:
        conn.execute("DELETE FROM entry")
        _put_base(conn, Base(image.index, image.term, image.membership))
        _put_snapshot(conn, Snapshot(image.index, image.term, image.data))
    if entries:
        conn.execute('DELETE FROM entry WHERE "index" >= ?', (entries[0].index,))
        conn.executemany(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?)",
            [(e.index, e.term, e.kind, e.data, _hash(e.index, e.term, e.kind, e.data)) for e in entries],
        )
    if hard is not None:
        standing = _standing(conn, path)
        assert standing is not None
        _put_standing(conn, msgspec.structs.replace(standing, hard=hard))


def forget(conn: sqlite3.Connection, nodes: Iterable[str]) -> None:
    """What members that are gone for good had confirmed."""
    conn.executemany("DELETE FROM witness WHERE node = ?", [(node,) for node in nodes])


def compact(conn: sqlite3.Connection, path: str, new: Snapshot) -> Base:
    """See ``Consensus.compact``; the base that holds now."""
    base, held = _base(conn, path), _snapshot(conn, path)
    assert base is not None
    if held is not None and new.index <= held.index:
        return base
    row = conn.execute('SELECT term FROM entry WHERE "index" = ?', (new.index,)).fetchone()
    if row is None or row[0] != new.term:
        raise Misuse(f"a snapshot at {new.index} of term {new.term}, which is not of this log")
    _put_snapshot(conn, new)
    upto = new.index - KEPT_ENTRIES
    if upto <= base.index:
        return base
    (term,) = conn.execute('SELECT term FROM entry WHERE "index" = ?', (upto,)).fetchone()
    members = base.members
    for (data,) in conn.execute(
        'SELECT data FROM entry WHERE "index" <= ? AND kind = \'membership\' ORDER BY "index"', (upto,)
    ):
        members = apply_changes(members, decode_change(data).changes)
    base = Base(upto, term, members)
    _put_base(conn, base)
    conn.execute('DELETE FROM entry WHERE "index" <= ?', (upto,))
    return base


def _standing(conn: sqlite3.Connection, path: str) -> Standing | None:
    row = conn.execute("SELECT node, lineage, preset, term, vote, committed, hash FROM standing").fetchone()
    if row is None:
        return None
    node, lineage, preset, term, vote, committed, digest = row
    standing = Standing(node, lineage, preset, HardState(term, vote, committed))
    if digest != _standing_hash(standing):
        raise StateDamaged(path=path, detail="its term and vote are not what was written")
    return standing


def _standing_hash(standing: Standing) -> bytes:
    return _hash(standing.lineage, standing.hard.term, "standing", msgspec.msgpack.encode(standing))


def _put_standing(conn: sqlite3.Connection, standing: Standing) -> None:
    hard = standing.hard
    conn.execute(
        "INSERT OR REPLACE INTO standing VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
        (
            standing.node, standing.lineage, standing.preset,
            hard.term, hard.vote, hard.commit, _standing_hash(standing),
        ),
    )  # fmt: skip


def _base(conn: sqlite3.Connection, path: str) -> Base | None:
    row = conn.execute('SELECT "index", term, members, hash FROM base').fetchone()
    if row is None:
        return None
    index, term, members, digest = row
    if digest != _hash(index, term, "base", members):
        raise StateDamaged(path=path, detail="its beginning is not what was written")
    return Base(index, term, msgspec.msgpack.decode(members, type=Membership))


def _put_base(conn: sqlite3.Connection, base: Base) -> None:
    members = msgspec.msgpack.encode(base.members)
    conn.execute(
        "INSERT OR REPLACE INTO base VALUES (1, ?, ?, ?, ?)",
        (base.index, base.term, members, _hash(base.index, base.term, "base", members)),
    )


def _seen(conn: sqlite3.Connection, path: str) -> dict[str, Position]:
    found: dict[str, Position] = {}
    for node, term, index, digest in conn.execute('SELECT node, term, "index", hash FROM witness'):
        if digest != _hash(index, term, "witness", node.encode()):
            raise StateDamaged(path=path, detail="what other voters confirmed is not what was written")
        found[node] = Position(term, index)
    return found


def _snapshot(conn: sqlite3.Connection, path: str) -> Snapshot | None:
    row = conn.execute('SELECT "index", term, data, hash FROM snapshot').fetchone()
    if row is None:
        return None
    index, term, data, digest = row
    if digest != _hash(index, term, "snapshot", data):
        raise StateDamaged(path=path, detail=f"the snapshot at {index} is not what was written")
    return Snapshot(index, term, data)


def _put_snapshot(conn: sqlite3.Connection, new: Snapshot) -> None:
    digest = _hash(new.index, new.term, "snapshot", new.data)
    conn.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?, ?)", (new.index, new.term, new.data, digest))


def _hash(first: int, second: int, kind: str, data: bytes) -> bytes:
    """Guards against a disk that returns something else than was written; 16 bytes of SHA-256."""
    digest = hashlib.sha256(struct.pack(">qqH", first, second, len(kind)) + kind.encode())
    digest.update(data)
    return digest.digest()[:16]
