"""Tables that take over all of another voter's: for a voter that is new, or was away while records were pruned."""

from __future__ import annotations

import sqlite3

from caso_mesh.journal import Record
from caso_mesh.journal.replica import Arrived

#: Parents first. What a copy has of its own, its name and how far its voter's catalog is, is not among them.
_TABLES = (
    "journal_incarnation", "journal_record", "journal_trace", "attempt", "exception", "log_line", "run_wait",
    "backup_set", "catalog_detail", "medium", "alert", "alert_end", "audit", "set_gone", "set_lock",
    "local_run", "notice_sent", "attempt_total", "audit_floor",
    "catalog_keeper", "catalog_kept", "file_systems", "missing_sets", "erased_vault", "audit_chain", "audit_link",
)  # fmt: skip


def replace_all(c: sqlite3.Connection) -> list[Arrived]:
    """Replaces everything by what the attached database ``copy`` holds; the records that only these tables held, in the
    order in which they came. What lies in this voter's own catalog stays known."""
    own = _beyond(c)
    c.execute("PRAGMA defer_foreign_keys = ON")
    for table in reversed(_TABLES):
        c.execute(f"DELETE FROM main.{table}")
    for table in _TABLES:
        columns = ", ".join(f'"{row[1]}"' for row in c.execute(f"PRAGMA main.table_info({table})"))
        order = "incarnation, seq" if table == "journal_trace" else "rowid"
        c.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM copy.{table} ORDER BY {order}")
    # whoever follows these tables begins anew
    c.execute("UPDATE main.journal_life SET life = lower(hex(randomblob(16)))")
    c.execute("DELETE FROM main.catalog_here WHERE set_id NOT IN (SELECT set_id FROM main.catalog_detail)")
    c.execute("UPDATE main.set_gone SET forgotten = 0")
    return own


def _beyond(c: sqlite3.Connection) -> list[Arrived]:
    found = c.execute(
        "SELECT r.arrival, i.server, r.refused, i.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash"
        " FROM main.journal_record r JOIN main.journal_incarnation i ON i.number = r.incarnation"
        " LEFT JOIN copy.journal_incarnation o ON o.server = i.server AND o.incarnation = i.incarnation"
        " WHERE r.seq > coalesce(o.seq, 0) ORDER BY r.arrival"
    )
    return [Arrived(arrival, server, Record(*record), refused) for arrival, server, refused, *record in found]
