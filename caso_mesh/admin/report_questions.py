"""Questions of reports to the administrator's tables: about times, and about the newest of many."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import AsyncIterator, Collection

import msgspec
from msgspec import Struct

from caso_mesh.admin.audit_rows import AuditRow
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.model.ids import job_of_run
from caso_mesh.model.resources import FileSystem
from caso_mesh.model.storage import BackupSet

#: Sets that are read at once: others, who wait for an answer, come between.
_PIECE = 500
_ALERT = "id, raised_at_ns, server, alert, category, object, text, cleared_at_ns"
_AUDIT = "at_ns, server, who, what, category, outcome, source, fields"


class NewestSet(Struct, frozen=True):
    """``device`` is an id."""

    ended_at_ns: int
    id: str
    device: str


async def newest_by_job(tables: Tables, redundant: Collection[str]) -> dict[tuple[str, str], NewestSet]:
    """The newest set of each source and job (ids), without ``redundant`` ones; the sets are not looked into."""
    sql = (
        "SELECT source, substr(attempt, 1, instr(attempt, '@') - 1) AS job, max(ended_at_ns), id, device FROM backup_set"
        " WHERE id NOT IN (SELECT value FROM json_each(?)) GROUP BY source, job"
    )
    given = msgspec.json.encode(sorted(redundant)).decode()
    rows = await tables.ask(lambda c: c.execute(sql, (given,)).fetchall())
    return {(source, job): NewestSet(*newest) for source, job, *newest in rows}


async def local_jobs_by_list(tables: Tables) -> dict[str, set[str]]:
    """The jobs of servers' own that back up copies of selection lists, by the id of the list."""
    rows = await tables.ask(lambda c: c.execute("SELECT id, list FROM local_run WHERE list <> ''").fetchall())
    found: dict[str, set[str]] = {}
    for run, listed in rows:
        found.setdefault(listed, set()).add(job_of_run(run))
    return found


async def sets_between(tables: Tables, begins_ns: int, until_ns: int) -> AsyncIterator[list[BackupSet]]:
    """Sets that ended in a time, oldest first, some hundreds after the other."""
    place: tuple[int, str] = (begins_ns, "")
    while found := await tables.ask(functools.partial(_sets, place=place, until_ns=until_ns)):
        yield found
        place = (found[-1].ended_at_ns, found[-1].id)


def _sets(c: sqlite3.Connection, place: tuple[int, str], until_ns: int) -> list[BackupSet]:
    decode = msgspec.msgpack.Decoder(BackupSet).decode
    rows = c.execute(
        "SELECT data FROM backup_set WHERE (ended_at_ns, id) > (?, ?) AND ended_at_ns < ?"
        f" ORDER BY ended_at_ns, id LIMIT {_PIECE}",
        (*place, until_ns),
    )
    return [decode(row[0]) for row in rows]


async def file_systems(tables: Tables) -> dict[str, tuple[int, tuple[FileSystem, ...]]]:
    """What servers (ids) told of their file systems, and when."""
    decode = msgspec.msgpack.Decoder(tuple[FileSystem, ...]).decode
    rows = await tables.ask(lambda c: c.execute("SELECT server, at_ns, data FROM file_systems").fetchall())
    return {server: (at_ns, decode(data)) for server, at_ns, data in rows}


async def alerts_between(tables: Tables, begins_ns: int, until_ns: int, limit: int) -> list[AlertRow]:
    """Alerts that were raised in a time, or stood in it, newest first."""
    sql = (
        f"SELECT {_ALERT} FROM alert WHERE raised_at_ns < ?"
        " AND (raised_at_ns >= ? OR cleared_at_ns IS NULL OR cleared_at_ns >= ?) ORDER BY raised_at_ns DESC LIMIT ?"
    )
    rows = await tables.ask(lambda c: c.execute(sql, (until_ns, begins_ns, begins_ns, limit)).fetchall())
    return [AlertRow(*row) for row in rows]


async def audit_between(tables: Tables, begins_ns: int, until_ns: int, limit: int) -> list[AuditRow]:
    """What was done in a time, newest first."""
    sql = f"SELECT {_AUDIT} FROM audit WHERE at_ns >= ? AND at_ns < ? ORDER BY at_ns DESC, rowid DESC LIMIT ?"
    rows = await tables.ask(lambda c: c.execute(sql, (begins_ns, until_ns, limit)).fetchall())
    return [
        AuditRow(at_ns, server, who, what, category, outcome, source, msgspec.msgpack.decode(fields))
        for at_ns, server, who, what, category, outcome, source, fields in rows
    ]
