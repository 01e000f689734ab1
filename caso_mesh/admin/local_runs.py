"""Runs that servers run by themselves, in the administrator's tables: each as its server last told."""

from __future__ import annotations

import sqlite3

import msgspec

from caso_mesh.model import facts
from caso_mesh.model.ids import is_local, is_of_place, job_of_run

TABLE = """
CREATE TABLE local_run (
    id TEXT PRIMARY KEY, server TEXT NOT NULL, created_at_ns INTEGER NOT NULL, closed_at_ns INTEGER, data BLOB NOT NULL
) STRICT;
CREATE INDEX local_run_by_time ON local_run (created_at_ns);
"""
#: The selection list of the job: one that was copied has the id that it has at the administrator.
LISTED = """
ALTER TABLE local_run ADD COLUMN list TEXT NOT NULL DEFAULT '';
CREATE INDEX local_run_by_list ON local_run (list);
"""
_decode = msgspec.msgpack.Decoder(facts.LocalRun).decode


def write(c: sqlite3.Connection, server: str, fact: facts.LocalRun) -> str | None:
    """What ``server`` (node id) tells of a run of its own; or why it means nothing."""
    run = fact.run
    if not is_local(run.id) or not is_of_place(run.id, server):
        return f"the run {run.id[:100]}, which is not one of its own"
    if not all(each.run == run.id and each.server == server for each in fact.attempts):
        return f"attempts of the run {run.id[:100]} that it cannot have made"
    c.execute(
        "INSERT OR REPLACE INTO local_run VALUES (?, ?, ?, ?, ?, ?)",
        (run.id, server, run.created_at_ns, run.closed_at_ns, msgspec.msgpack.encode(fact), fact.list),
    )
    return None


def read(
    c: sqlite3.Connection,
    server: str | None = None,
    run: str | None = None,
    limit: int = -1,
    *,
    ended: bool | None = None,
    listed: str | None = None,
    since_ns: int | None = None,
) -> list[tuple[str, facts.LocalRun]]:
    """(server, fact), newest first; ``run``: those of which the id is that, or begins so; ``ended``: only those that have
    ended, or that have not; ``listed``: those of copies of a selection list (id); ``since_ns``: those that are open, or have
    ended since."""
    where, values = ["1"], list[str | int]()
    if since_ns is not None:
        where.append("(closed_at_ns IS NULL OR closed_at_ns >= ?)")
        values.append(since_ns)
    if listed is not None:
        where.append("list = ?")
        values.append(listed)
    if ended is not None:
        where.append("closed_at_ns IS NOT NULL" if ended else "closed_at_ns IS NULL")
    if server is not None:
        where.append("server = ?")
        values.append(server)
    if run is not None:
        where.append("substr(id, 1, length(?)) = ?")
        values += [run, run]
    sql = f"SELECT server, data FROM local_run WHERE {' AND '.join(where)} ORDER BY created_at_ns DESC, id DESC LIMIT ?"
    return [(server, _decode(data)) for server, data in c.execute(sql, (*values, limit))]


def jobs_of(c: sqlite3.Connection, selection: str) -> set[str]:
    """The jobs that back up copies of a selection list (id)."""
    runs = c.execute("SELECT id FROM local_run WHERE list = ?", (selection,))
    return {job_of_run(row[0]) for row in runs}


def ids(c: sqlite3.Connection) -> set[str]:
    """Of all that are kept."""
    return {row[0] for row in c.execute("SELECT id FROM local_run")}


def forget(c: sqlite3.Connection, before_ns: int, most: int) -> None:
    """Those that were closed before an instant, and beyond the ``most`` newest ones of each server."""
    c.execute("DELETE FROM local_run WHERE closed_at_ns < ?", (before_ns,))
    for (server,) in c.execute("SELECT DISTINCT server FROM local_run").fetchall():
        c.execute(
            "DELETE FROM local_run WHERE id IN (SELECT id FROM local_run WHERE server = ? AND closed_at_ns IS NOT NULL"
            " ORDER BY created_at_ns DESC LIMIT -1 OFFSET ?)",
            (server, most),
        )
