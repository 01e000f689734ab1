"""Records of backup sets, with or without the detail of what they hold."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict, cast, get_type_hints

import msgspec
from msgspec import Struct

from caso_mesh.catalog import folders
from caso_mesh.catalog.schema import Nonsense
from caso_mesh.catalog.segment import chain_of
from caso_mesh.model.errors import AlreadyExists, CatalogNotHere, NotFound
from caso_mesh.model.storage import BackupSet

_encode = msgspec.msgpack.Encoder().encode
# A field of BackupSet is called ``bytes``, which hides the type of that name from msgspec, as it resolves annotations
# inside the class. Resolved outside they type a dictionary, the record is made of it.
_STORED = TypedDict("_STORED", get_type_hints(BackupSet, localns={}), total=False)  # type: ignore[misc]
_decode_fields = msgspec.msgpack.Decoder(_STORED).decode


def _decode(raw: bytes) -> BackupSet:
    """Raises ``Nonsense``."""
    try:
        return BackupSet(**cast("dict[str, Any]", _decode_fields(raw)))
    except (msgspec.MsgspecError, TypeError) as error:
        raise Nonsense(f"the record of a set cannot be read ({error})") from None


class Place(Struct, frozen=True):
    """Where a set is in the tables. ``top`` is its source's top folder; ``seq`` is ``None`` without detail."""

    record: BackupSet
    source: int
    top: int
    chain: int
    seq: int | None


class DetailedPlace(Struct, frozen=True):
    """A ``Place`` of a set that has detail."""

    record: BackupSet
    source: int
    top: int
    chain: int
    seq: int


def add_set(conn: sqlite3.Connection, backup_set: BackupSet) -> None:
    """Record a set; its detail may follow, or never come. Repeated, it does nothing. Raises ``AlreadyExists`` if
    another record has this id."""
    row = conn.execute("SELECT record FROM backup_set WHERE set_id = ?", (backup_set.id,)).fetchone()
    if row is not None:
        if _decode(row[0]) != backup_set:
            raise AlreadyExists(kind="set", name=backup_set.id)
        return
    source = _source(conn, backup_set.source)
    name = chain_of(backup_set)
    conn.execute("INSERT OR IGNORE INTO chain (chain, source, next_seq) VALUES (?, ?, 1)", (name, source))
    conn.execute(
        "INSERT INTO backup_set (set_id, source, chain, seq, ended_at_ns, record)"
        " SELECT ?, ?, id, NULL, ?, ? FROM chain WHERE chain = ?",
        (backup_set.id, source, backup_set.ended_at_ns, _encode(backup_set), name),
    )


def sources_of(conn: sqlite3.Connection) -> list[str]:
    """The nodes of whose files there is a set."""
    return [row[0] for row in conn.execute("SELECT node FROM source")]


def _source(conn: sqlite3.Connection, node: str) -> int:
    row = conn.execute("SELECT id FROM source WHERE node = ?", (node,)).fetchone()
    if row is not None:
        return int(row[0])
    top = folders.make_top(conn, node)
    number = conn.execute("INSERT INTO source (node, root) VALUES (?, ?)", (node, top)).lastrowid
    assert number is not None
    return number


def place(conn: sqlite3.Connection, set_id: str) -> Place:
    """Raises ``NotFound``."""
    row = conn.execute(
        "SELECT b.record, b.source, s.root, b.chain, b.seq FROM backup_set b JOIN source s ON s.id = b.source"
        " WHERE b.set_id = ?",
        (set_id,),
    ).fetchone()
    if row is None:
        raise NotFound(kind="set", name=set_id)
    return Place(_decode(row[0]), *row[1:])


def detailed(conn: sqlite3.Connection, set_id: str) -> DetailedPlace:
    """Raises ``NotFound``, ``CatalogNotHere``."""
    found = place(conn, set_id)
    if found.seq is None:
        raise CatalogNotHere(set=set_id, server=found.record.server_name)
    return DetailedPlace(found.record, found.source, found.top, found.chain, found.seq)


def has_detail(conn: sqlite3.Connection, set_id: str) -> bool:
    """Whether the set is known and can be listed."""
    row = conn.execute("SELECT seq FROM backup_set WHERE set_id = ?", (set_id,)).fetchone()
    return row is not None and row[0] is not None


def latest_seq(conn: sqlite3.Connection, chain: int) -> int:
    """The place of the chain's latest set with detail, 0 if none has."""
    return int(conn.execute("SELECT coalesce(max(seq), 0) FROM backup_set WHERE chain = ?", (chain,)).fetchone()[0])


def chains_of_source(conn: sqlite3.Connection, source: int) -> list[int]:
    return [row[0] for row in conn.execute("SELECT id FROM chain WHERE source = ?", (source,))]


def sets(
    conn: sqlite3.Connection,
    *,
    source: str | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    detail: bool | None = None,
    limit: int | None = None,
) -> list[BackupSet]:
    """Sets, newest first. ``source``: a node id; ``since_ns`` and ``until_ns`` bound the end of the set, both included;
    ``detail``: only those with it, or only those without."""
    conditions: list[str] = []
    values: list[str | int] = []
    if source is not None:
        conditions.append("b.source = (SELECT id FROM source WHERE node = ?)")
        values.append(source)
    if since_ns is not None:
        conditions.append("b.ended_at_ns >= ?")
        values.append(since_ns)
    if until_ns is not None:
        conditions.append("b.ended_at_ns <= ?")
        values.append(until_ns)
    if detail is not None:
        conditions.append(f"b.seq IS {'NOT ' if detail else ''}NULL")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT b.record FROM backup_set b{where} ORDER BY b.ended_at_ns DESC, b.set_id DESC LIMIT ?"
    return [_decode(row[0]) for row in conn.execute(query, (*values, -1 if limit is None else limit))]


def set_as_of(conn: sqlite3.Connection, source: str, path: bytes, at_ns: int) -> BackupSet | None:
    """The newest set of ``source`` (node id) that ended at or before ``at_ns`` and covers ``path``: one of its roots is
    ``path`` or lies above it. If none does, the newest with a root below ``path``, which covers it in part."""
    path = path.strip(b"/")
    partly: BackupSet | None = None
    for record in _newest_first(conn, source, at_ns):
        if any(is_within(path, root) for root in record.roots):
            return record
        if partly is None and any(is_within(root, path) for root in record.roots):
            partly = record
    return partly


def _newest_first(conn: sqlite3.Connection, source: str, at_ns: int) -> Iterator[BackupSet]:
    rows = conn.execute(
        "SELECT record FROM backup_set WHERE source = (SELECT id FROM source WHERE node = ?) AND ended_at_ns <= ?"
        " ORDER BY ended_at_ns DESC, set_id DESC",
        (source, at_ns),
    )
    for row in rows:
        yield _decode(row[0])


def digest_of(set_ids: Iterable[str]) -> bytes:
    """What two ends compare to see that they have the same sets."""
    return hashlib.sha256("".join(f"{set_id}\n" for set_id in sorted(set_ids)).encode()).digest()


def is_within(path: bytes, folder: bytes) -> bool:
    """Whether ``path`` is ``folder`` or lies below it."""
    return not folder or path == folder or path.startswith(folder + b"/")


def above_roots(record: BackupSet) -> set[bytes]:
    """The folders that lie above a root of the set, the top included."""
    found = {b""}
    for root in record.roots:
        at = root.rpartition(b"/")[0]
        while at not in found:
            found.add(at)
            at = at.rpartition(b"/")[0]
    return found
