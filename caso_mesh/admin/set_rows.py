"""Backup sets in the tables: found by what a list is about, a page at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator

import msgspec
from msgspec import Struct

from caso_mesh.model.storage import BackupSet

#: Where the sets of one server are found without looking at those of all others.
INDICES = """
CREATE INDEX backup_set_by_source ON backup_set (source, ended_at_ns, id);
CREATE INDEX backup_set_by_server ON backup_set (server, ended_at_ns, id);
"""
#: Of so many servers and more all sets are walked through in the order of their ends instead.
_MANY = 500


class Wanted(Struct, frozen=True):
    """``of``: node ids of which one holds the set or is its source; ``source`` (node id): it is. ``ids``: one of these. ``locked``:
    locked at that instant. ``before`` (instant, id): behind that one. ``None`` = whichever."""

    of: Collection[str] | None = None
    source: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    ids: Collection[str] | None = None
    locked_ns: int | None = None
    before: tuple[int, str] | None = None


def find(c: sqlite3.Connection, wanted: Wanted, limit: int) -> list[BackupSet]:
    """Newest first; -1 = all."""
    where, values = _where(wanted)
    if wanted.of is None:
        rows = f"SELECT id, ended_at_ns FROM backup_set WHERE {where}"
    elif len(wanted.of) >= _MANY:
        among = "(SELECT value FROM json_each(?))"
        rows = f"SELECT id, ended_at_ns FROM backup_set WHERE {where} AND (source IN {among} OR server IN {among})"
        values += [_list(wanted.of)] * 2
    else:
        # each half is answered out of its own index
        half = f"SELECT id, ended_at_ns FROM backup_set WHERE {where} AND {{}} IN (SELECT value FROM json_each(?))"
        rows = f"{half.format('source')} UNION {half.format('server')}"
        values = [*values, _list(wanted.of), *values, _list(wanted.of)]
    # the large rows of those that are left only
    sql = (
        f"SELECT b.data FROM (SELECT id, ended_at_ns FROM ({rows}) ORDER BY ended_at_ns DESC, id DESC LIMIT ?) f"
        " JOIN backup_set b ON b.id = f.id ORDER BY f.ended_at_ns DESC, f.id DESC"
    )
    decode = msgspec.msgpack.Decoder(BackupSet).decode
    return [decode(row[0]) for row in c.execute(sql, (*values, limit))]


def _where(wanted: Wanted) -> tuple[str, list[object]]:
    conditions: list[tuple[str, list[object]]] = [("1", [])]
    if wanted.source is not None:
        conditions.append(("source = ?", [wanted.source]))
    if wanted.since_ns is not None:
        conditions.append(("ended_at_ns >= ?", [wanted.since_ns]))
    if wanted.until_ns is not None:
        conditions.append(("ended_at_ns < ?", [wanted.until_ns]))
    if wanted.ids is not None:
        conditions.append(("id IN (SELECT value FROM json_each(?))", [_list(wanted.ids)]))
    if wanted.locked_ns is not None:
        locked = (
            "id IN (SELECT l.set_id FROM set_lock l WHERE l.device = backup_set.device"
            " AND (l.until_ns IS NULL OR l.until_ns > ?))"
        )
        conditions.append((locked, [wanted.locked_ns]))
    if wanted.before is not None:
        conditions.append(("(ended_at_ns, id) < (?, ?)", list(wanted.before)))
    return " AND ".join(text for text, _ in conditions), [value for _, values in conditions for value in values]


def _list(values: Collection[str]) -> str:
    return json.dumps(sorted(values))


def source_called(c: sqlite3.Connection, name: str) -> str | None:
    """The source (node id) of the newest set that says this name."""
    decode = msgspec.msgpack.Decoder(_Source).decode
    rows = c.execute("SELECT source, data FROM backup_set ORDER BY ended_at_ns DESC, id DESC")
    return next((source for source, data in rows if decode(data).source_name == name), None)


class _Source(Struct):
    source_name: str


def place_of(c: sqlite3.Connection, set_id: str) -> tuple[int, str] | None:
    """Where a set stands among the others, by its id."""
    row = c.execute("SELECT ended_at_ns, id FROM backup_set WHERE id = ?", (set_id,)).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def on_device(c: sqlite3.Connection, device: str, after: str = "", limit: int = -1) -> list[BackupSet]:
    """Those on a device (id) whose ids follow ``after``, by id; -1 = all."""
    sql = "SELECT data FROM backup_set WHERE device = ? AND id > ? ORDER BY id LIMIT ?"
    decode = msgspec.msgpack.Decoder(BackupSet).decode
    return [decode(row[0]) for row in c.execute(sql, (device, after, limit))]


def on_media(c: sqlite3.Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """(writing server, label) -> how many sets are on a medium, and the bytes that they have stored."""
    there: dict[tuple[str, str], tuple[int, int]] = {}
    for server, medium, stored in _media(c):
        sets, bytes_ = there.get((server, medium), (0, 0))
        there[server, medium] = (sets + 1, bytes_ + stored)
    return there


class _OnMedium(Struct):
    medium: str


def _media(c: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    decode = msgspec.msgpack.Decoder(_OnMedium).decode
    for server, data, stored in c.execute("SELECT server, data, bytes_stored FROM backup_set"):
        yield server, decode(data).medium, stored
