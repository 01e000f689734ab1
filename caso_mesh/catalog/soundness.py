"""Whether a catalog is what was put into it, as far as that shows."""

from __future__ import annotations

import sqlite3

from caso_mesh.catalog import sets
from caso_mesh.catalog.schema import Nonsense

#: Of a larger catalog (about 30 MB) the pages are not read for this: that takes seconds.
_CHECKED_PAGES = 8192
#: What the columns of small tables hold.
_HOLD = {
    "source": ("root", "integer"),
    "chain": ("source", "integer", "next_seq", "integer"),
    "backup_set": ("set_id", "text", "source", "integer", "chain", "integer", "ended_at_ns", "integer"),
    "pending": ("seq", "integer", "slice", "integer"),
    "name_count": ("indexed", "integer", "gone", "integer"),
}


def check(conn: sqlite3.Connection, *, pages: bool = False) -> None:
    """Looks at the small tables, and whether the large ones are there; of a small catalog, or with ``pages``, at all pages.
    Raises ``Nonsense``, and what SQLite raises."""
    for table in ("folder", "touched", "name_block"):
        conn.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
    conn.execute("SELECT first, names, entries FROM block LIMIT 1").fetchone()
    for table, columns in _HOLD.items():
        wrong = " OR ".join(
            f"typeof({name}) <> '{type_}'" for name, type_ in zip(columns[::2], columns[1::2], strict=True)
        )
        if conn.execute(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1").fetchone():
            raise Nonsense(f"the table {table} holds what was never put there")
    if conn.execute("SELECT count(*) FROM name_count").fetchone()[0] != 1:
        raise Nonsense("the table name_count has not its one row")
    sets.sets(conn)
    if pages or conn.execute("PRAGMA page_count").fetchone()[0] <= _CHECKED_PAGES:
        found = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Nonsense(str(found))
