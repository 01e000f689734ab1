"""The audit log in the administrator's tables. Entries come by the journals of all servers, also late; what was trimmed does
not come back."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Struct

from caso_mesh.admin import audit_chain
from caso_mesh.journal import Record
from caso_mesh.model import facts
from caso_mesh.model.audit import MOST_BYTES, MOST_ENTRIES, Change

MIGRATION = """
ALTER TABLE audit ADD COLUMN changed BLOB NOT NULL DEFAULT x'90';
CREATE INDEX audit_by_what ON audit (what, at_ns);
CREATE TABLE audit_floor (before_ns INTEGER NOT NULL) STRICT;
"""
#: What tells of a trim outlives it.
TRIM = "audit.trim"
_COLUMNS = audit_chain.COLUMNS
_changed = msgspec.msgpack.Decoder(tuple[Change, ...])


class AuditRow(Struct, frozen=True):
    at_ns: int
    server: str
    who: str
    what: str
    category: str
    outcome: str
    source: str
    fields: dict[str, Any]
    changed: tuple[Change, ...] = ()


class Wanted(Struct, frozen=True):
    """``servers``: node ids. ``what`` may end in a dot: whatever begins so. ``after``: behind that instant, in the order that
    is asked for. ``None`` = whichever."""

    category: str | None = None
    who: str | None = None
    what: str | None = None
    servers: Collection[str] | None = None
    outcome: str | None = None
    text: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    after_ns: int | None = None
    oldest_first: bool = False


def write(c: sqlite3.Connection, server: str, record: Record, fact: facts.Audit) -> None:
    """What a server wrote down, unless entries of its time are trimmed: then it has its place in the chain alone."""
    row = (
        record.at_ns,
        server,
        fact.who,
        fact.what,
        fact.category,
        fact.outcome,
        fact.source,
        msgspec.msgpack.encode(fact.fields),
        msgspec.msgpack.encode(fact.changed),
    )
    place = audit_chain.add(c, server, record, row, stays=fact.what == TRIM)
    if fact.what == TRIM or record.at_ns >= floor_ns(c):
        c.execute(
            f"INSERT INTO audit ({_COLUMNS}, chain, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, *place)
        )


def trim(c: sqlite3.Connection, at_ns: int, fact: facts.AuditTrimmed) -> str | None:
    """Forgets what is older; or why the fact means nothing."""
    if fact.before_ns > at_ns:
        return "that entries of the audit log are trimmed that are still to come"
    if fact.before_ns > floor_ns(c):
        c.execute("DELETE FROM audit_floor")
        c.execute("INSERT INTO audit_floor VALUES (?)", (fact.before_ns,))
    c.execute("DELETE FROM audit WHERE at_ns < ? AND what <> ?", (fact.before_ns, TRIM))
    return None


def forget(c: sqlite3.Connection, before_ns: int) -> None:
    """The time for which entries are kept is over."""
    c.execute("DELETE FROM audit WHERE at_ns < ?", (before_ns,))
    audit_chain.forget(c, before_ns)


def tells_of_trim(c: sqlite3.Connection, before_ns: int) -> bool:
    """Whether an entry tells of a trim up to that instant."""
    rows = c.execute("SELECT fields FROM audit WHERE what = ? AND outcome = 'done'", (TRIM,))
    return any(msgspec.msgpack.decode(fields).get("before_ns") == before_ns for (fields,) in rows)


def floor_ns(c: sqlite3.Connection) -> int:
    """Entries of before that instant are trimmed; -1: none are."""
    row = c.execute("SELECT before_ns FROM audit_floor").fetchone()
    return -1 if row is None else int(row[0])


def older(c: sqlite3.Connection, before_ns: int) -> int:
    """How many entries a trim would remove."""
    sql = "SELECT count(*) FROM audit WHERE at_ns < ? AND what <> ?"
    return int(c.execute(sql, (before_ns, TRIM)).fetchone()[0])


def oldest_ns(c: sqlite3.Connection) -> int | None:
    """The time of the oldest entry."""
    return None if (found := c.execute("SELECT min(at_ns) FROM audit").fetchone()[0]) is None else int(found)


def find(c: sqlite3.Connection, wanted: Wanted, limit: int) -> tuple[list[AuditRow], bool]:
    """A page of at most ``limit`` entries, and whether there are more behind it. Entries of one instant are on one page, so
    that the next one is found at every voter alike: behind the instant of the last one."""
    limit = max(1, min(limit, MOST_ENTRIES))
    where, values = _where(wanted)
    way = "ASC" if wanted.oldest_first else "DESC"
    sql = f"SELECT {_COLUMNS} FROM audit WHERE {where} ORDER BY at_ns {way}, rowid {way}"
    rows, size = list[AuditRow](), 0
    for row in c.execute(sql, values):
        full = len(rows) >= limit or size > MOST_BYTES
        if full and row[0] != rows[-1].at_ns:
            return rows, True
        at_ns, server, who, what, category, outcome, source, asked, changed = row
        size += 200 + len(asked) + len(changed)
        fields = msgspec.msgpack.decode(asked)
        rows.append(AuditRow(at_ns, server, who, what, category, outcome, source, fields, _changed.decode(changed)))
    return rows, False


def _where(wanted: Wanted) -> tuple[str, list[Any]]:
    conditions, values = ["1"], list[Any]()

    def add(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    for column in ("category", "who"):
        value = getattr(wanted, column)
        if value is not None:
            add(f"{column} = ?", value)
    if wanted.what is not None and wanted.what.endswith("."):
        add("what >= ? AND what < ?", wanted.what, f"{wanted.what[:-1]}/")
    elif wanted.what is not None:
        add("what = ?", wanted.what)
    if wanted.outcome == "not-done":
        add("outcome <> 'done'")
    elif wanted.outcome is not None:
        add("outcome = ?", wanted.outcome)
    if wanted.servers is not None:
        add(f"server IN ({', '.join('?' * len(wanted.servers))})", *sorted(wanted.servers))
    if wanted.text is not None:
        blob = "CAST(? AS BLOB)"
        places = " OR ".join(f"instr({column}, ?)" for column in ("who", "what", "source", "outcome"))
        add(f"({places} OR instr(fields, {blob}) OR instr(changed, {blob}))", *[wanted.text] * 4, *[wanted.text] * 2)
    if wanted.since_ns is not None:
        add("at_ns >= ?", wanted.since_ns)
    if wanted.until_ns is not None:
        add("at_ns < ?", wanted.until_ns)
    if wanted.after_ns is not None:
        add("at_ns > ?" if wanted.oldest_first else "at_ns < ?", wanted.after_ns)
    return " AND ".join(conditions), values
