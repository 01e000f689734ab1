"""Alerts in the administrator's tables: how they come there, and how many are kept."""

from __future__ import annotations

import sqlite3

from caso_mesh.model import facts
from caso_mesh.model.alerts import CATEGORIES

#: So many are kept at most, beside those of conditions that stand.
KEPT = 50_000
_STANDING = tuple(each.name for each in CATEGORIES if each.standing)


def raised(c: sqlite3.Connection, server: str, at_ns: int, fact: facts.AlertRaised) -> None:
    """One that a server told of; its end may have come before it. It is as old as what it tells of, never younger than its fact."""
    if 0 < fact.happened_at_ns < at_ns:
        at_ns = fact.happened_at_ns
    c.execute(
        "INSERT OR IGNORE INTO alert VALUES (?, ?, ?, ?, ?, ?, ?,"
        " (SELECT at_ns FROM alert_end WHERE server = ? AND id = ?))",
        (fact.id, at_ns, server, fact.alert.value, fact.category, fact.object, fact.text, server, fact.id),
    )


def cleared(c: sqlite3.Connection, server: str, at_ns: int, fact: facts.AlertCleared) -> None:
    """The end of what an alert told of. Of several ends the earliest counts, in whichever order they come."""
    of = fact.of or server
    (ended_ns,) = c.execute(
        "INSERT INTO alert_end VALUES (?, ?, ?)"
        " ON CONFLICT (server, id) DO UPDATE SET at_ns = min(at_ns, excluded.at_ns) RETURNING at_ns",
        (of, fact.id, at_ns),
    ).fetchone()
    c.execute("UPDATE alert SET cleared_at_ns = ? WHERE id = ? AND server = ?", (ended_ns, fact.id, of))


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
