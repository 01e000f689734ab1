"""Alerts in the administrator's tables: how many are kept."""

from __future__ import annotations

import sqlite3

from caso_mesh.model.alerts import CATEGORIES

#: So many are kept at most, beside those of conditions that stand.
KEPT = 50_000
_STANDING = tuple(each.name for each in CATEGORIES if each.standing)


def forget(c: sqlite3.Connection, before_ns: int, kept: int = KEPT) -> None:
    """Those of before an instant, but for what still stands, and of all others all but the newest."""
    marks = ", ".join("?" * len(_STANDING))
    c.execute("DELETE FROM alert WHERE cleared_at_ns < ?", (before_ns,))
    c.execute(f"DELETE FROM alert WHERE raised_at_ns < ? AND category NOT IN ({marks})", (before_ns, *_STANDING))
    c.execute(
        "DELETE FROM alert WHERE rowid IN (SELECT rowid FROM alert WHERE cleared_at_ns IS NOT NULL OR category NOT IN"
        f" ({marks}) ORDER BY raised_at_ns DESC LIMIT -1 OFFSET ?)",
        (*_STANDING, kept),
    )
