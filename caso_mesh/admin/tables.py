"""Reading and filling the administrator's tables."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from caso_mesh.admin import alert_rows, attempts, audit_rows, catalog_details, local_runs, set_rows, waits
from caso_mesh.admin.attempts import AttemptRows
from caso_mesh.admin.catalog_details import PendingDetail
from caso_mesh.admin.copying import replace_all
from caso_mesh.admin.interpret import interpret
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.database import Database
from caso_mesh.journal import Head, Record, replica
from caso_mesh.journal.replica import Arrived, Place
from caso_mesh.model import facts
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import JournalChainBroken, JournalGap, PeerMalformed
from caso_mesh.model.jobs import Attempt
from caso_mesh.model.storage import BackupSet, Medium
from caso_mesh.planning.notices import Told

log = logging.getLogger(__name__)
T = TypeVar("T")


class AlertRow(Struct, frozen=True):
    id: str
    raised_at_ns: int
    server: str
    alert: str
    category: str
    object: str
    text: str
    cleared_at_ns: int | None


class LogRow(Struct, frozen=True):
    attempt: str
    at_ns: int
    level: str
    text: str
    server: str


class Taken(Struct, frozen=True):
    """The cursors after facts were taken, and what of them meant nothing, with the reason of each."""

    heads: list[Head]
    refused: list[str]


class Tables:
    """One database. Cursor and meaning of a fact move together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- filling ---

    async def cursors(self, server: str) -> list[Head]:
        return await self._database.read(lambda c: replica.cursors(c, server))

    async def hash_at(self, server: str, incarnation: str, seq: int) -> bytes | None:
        return await self._database.read(lambda c: replica.hash_at(c, server, incarnation, seq))

    async def fresh(self, server: str, records: Sequence[Record]) -> list[Record]:
        """Those of ``records`` that are new, when all of them continue what is held. Raises ``JournalGap``,
        ``JournalChainBroken``."""
        return await self._database.read(lambda c: replica.fresh(c, server, records))

    async def accept(
        self, server: str, records: Sequence[Record], refused: Mapping[tuple[str, int], str] | None = None
    ) -> Taken:
        """Takes records of one server's journal. Those of ``refused``, by incarnation and number, are kept but mean
        nothing, as those that cannot be understood. Raises ``JournalGap``, ``JournalChainBroken``."""

        def take(c: sqlite3.Connection) -> Taken:
            reasons: list[str] = []
            for record in replica.accept(c, server, records):
                reason = (refused or {}).get((record.incarnation, record.seq)) or _mean(c, server, record)
                if reason is not None:
                    replica.refuse(c, server, record, reason)
                    reasons.append(reason)
            return Taken(replica.cursors(c, server), reasons)

        return await self._database.write(take)

    # --- another voter's tables that follow these, and these that follow others ---

    async def place_behind(self, theirs: Iterable[tuple[str, str, int]]) -> Place:
        """Up to where a voter that holds ``theirs`` (server, incarnation, sequence) lacks nothing of these."""
        return await self._database.read(lambda c: replica.place_behind(c, theirs))

    async def arrived(self, after: int) -> tuple[str, list[Arrived]]:
        """The life of these tables, and some records that came behind ``after``."""
        return await self._database.read(lambda c: (replica.life(c), replica.arrived(c, after)))

    async def heads(self) -> list[tuple[str, str, int]]:
        """(server, incarnation, sequence) of all that is held."""
        return await self._database.read(replica.heads)

    async def follow(self, arrived: Sequence[Arrived]) -> None:
        """Takes in what came into another voter's tables. What meant nothing there means nothing here. Raises
        ``JournalGap``, ``JournalChainBroken``: the other one is not what was followed until now."""

        def take(c: sqlite3.Connection) -> None:
            for each in arrived:
                for record in replica.accept(c, each.server, [each.record]):
                    reason = each.refused or _mean(c, each.server, record)
                    if reason is not None:
                        replica.refuse(c, each.server, record, reason)

        await self._database.write(take)

    # --- what need not be kept as records ---

    async def settle(self) -> int:
        """The number of a record that came, such that it and all before it survive a loss of power."""
        last = await self._database.read(replica.last_arrival)
        await self._database.settle()
        return last

    async def held_upto(self, arrival: int, before_ns: int) -> dict[str, list[tuple[str, int]]]:
        """Server -> (incarnation, sequence): up to there its facts came until ``arrival`` and are older than an instant."""
        return await self._database.read(lambda c: replica.held_upto(c, arrival, before_ns))

    async def prune_records(self, upto: int, trace_since_ns: int) -> int:
        """Forgets records that came up to the arrival ``upto``, of which the meaning stays; how many."""
        return await self._database.prune(lambda c: replica.prune_arrived(c, upto, trace_since_ns))

    async def prune_as(self, floors: Sequence[tuple[str, str, int]], trace_since_ns: int) -> int:
        """Forgets the records that another voter has pruned, as (server, incarnation, floor); how many."""
        return await self._database.prune(lambda c: sum(replica.prune(c, *each, trace_since_ns) for each in floors))

    async def floors(self) -> list[tuple[str, str, int]]:
        """(server, incarnation, sequence) up to which records were pruned."""
        return await self._database.read(replica.floors)

    async def skip(self, server: str, head: Head, at_ns: int) -> int:
        """Goes on behind facts of a server that are lost; how many are missing."""
        return await self._database.write(lambda c: replica.skip(c, server, head, at_ns))

    async def copy_to(self, path: Path) -> None:
        """Writes all of it into a new file."""
        await self._database.copy_to(path)

    async def replace_from(self, path: Path) -> int:
        """Becomes what the copy in ``path`` holds, and what only these tables held beyond it; how many records that were.
        Raises ``StateTooNew`` for the copy of a newer version, ``StateDamaged``."""
        async with Database.open(path, MIGRATIONS, durable=False, same_thread=self._database.same_thread):
            pass  # it may be of an older version

        def replace(c: sqlite3.Connection) -> int:
            kept = 0
            for each in replace_all(c):
                c.execute("SAVEPOINT record")
                try:
                    for record in replica.accept(c, each.server, [each.record]):
                        kept += 1
                        reason = each.refused or _mean(c, each.server, record)
                        if reason is not None:
                            replica.refuse(c, each.server, record, reason)
                except (JournalGap, JournalChainBroken) as error:
                    log.warning("a fact that only this voter held cannot be kept: %s", error)
                    c.execute("ROLLBACK TO record")
                c.execute("RELEASE record")
            return kept

        return await self._database.write_from(path, replace)

    @property
    def generation(self) -> int:
        """Rises with each change; for ``wait_for_change``."""
        return self._database.generation

    async def wait_for_change(self, generation: int) -> None:
        """Returns when something was written after ``generation``."""
        await self._database.wait_for_commit(generation)

    async def prune(self, runs: Sequence[str], before_ns: int, local_kept: int, audit_before_ns: int) -> None:
        """Forgets what is told of attempts of ``runs``, what servers ran by themselves and alerts that are of before an
        instant, of each server's own runs all but ``local_kept``, and of the audit log what is older."""

        def forget(c: sqlite3.Connection) -> None:
            for run in runs:
                for table in ("exception", "log_line"):
                    c.execute(f"DELETE FROM {table} WHERE attempt IN (SELECT id FROM attempt WHERE run = ?)", (run,))
                c.execute("DELETE FROM attempt WHERE run = ?", (run,))
                c.execute("DELETE FROM run_wait WHERE run = ?", (run,))
            local_runs.forget(c, before_ns, local_kept)
            audit_rows.forget(c, audit_before_ns)
            alert_rows.forget(c, before_ns)
            c.execute("DELETE FROM alert_end WHERE at_ns < ?", (before_ns,))
            c.execute("DELETE FROM notice_sent WHERE at_ns < ?", (before_ns,))

        await self._database.prune(forget)

    async def runs_told(self) -> list[str]:
        """Every run that something is told of: an attempt, or why it waited."""
        return [row[0] for row in await self._rows("SELECT run FROM attempt UNION SELECT run FROM run_wait")]

    async def forgotten(self, set_id: str) -> None:
        """The catalog has forgotten a deleted set."""

        def put(c: sqlite3.Connection) -> None:
            c.execute("UPDATE set_gone SET forgotten = 1 WHERE set_id = ?", (set_id,))

        await self._database.write(put)

    # --- reading ---

    async def deleted(self) -> list[str]:
        """Deleted sets that the catalog has not forgotten yet."""
        return [
            row[0]
            for row in await self._rows(
                "SELECT DISTINCT set_id FROM set_gone WHERE forgotten = 0 AND set_id NOT IN (SELECT id FROM backup_set)"
            )
        ]

    async def is_deleted(self, set_id: str) -> bool:
        sql = "SELECT 1 FROM set_gone WHERE set_id = ? AND set_id NOT IN (SELECT id FROM backup_set)"
        return bool(await self._rows(sql, (set_id,)))

    async def gone_from(self, device: str) -> set[str]:
        """Sets that are known to be deleted on a device (id)."""
        return {row[0] for row in await self._rows("SELECT set_id FROM set_gone WHERE device = ?", (device,))}

    async def deleted_by(self, request: str) -> bool:
        """Whether a request has deleted a set."""
        return bool(await self._rows("SELECT 1 FROM set_gone WHERE request = ?", (request,)))

    async def locks(self) -> dict[str, int | None]:
        """Locked sets, over or not, with the end of their lock; ``None`` = without end."""
        return dict(
            await self._rows(
                "SELECT set_lock.set_id, until_ns FROM set_lock JOIN backup_set"
                " ON backup_set.id = set_lock.set_id AND backup_set.device = set_lock.device"
            )
        )

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The answer of a room's own question, which reads only."""
        return await self._database.read(question)

    async def change(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """What a room writes that is this voter's own, and of no journal."""
        return await self._database.write(write)

    async def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return await self._database.read(lambda c: c.execute(sql, tuple(values)).fetchall())

    async def attempts(self, runs: Sequence[str]) -> AttemptRows:
        """What is told of all attempts of some runs."""
        return await self._database.read(lambda c: attempts.of_runs(c, runs))

    async def lengths(self, ids: Sequence[str]) -> dict[tuple[str, str], float]:
        """How many seconds ended attempts took, as (attempt, who told it)."""
        return await self._database.read(lambda c: attempts.lengths(c, ids))

    async def newest_sets(self, barred: Collection[str]) -> dict[tuple[str, str], BackupSet]:
        """The newest set of each job and source, without some (ids)."""
        decode = msgspec.msgpack.Decoder(BackupSet).decode
        sql = "SELECT data FROM backup_set ORDER BY ended_at_ns, id"
        found = await self._database.read(lambda c: [decode(row[0]) for row in c.execute(sql)])
        return {(backup.job, backup.source): backup for backup in found if backup.id not in barred}

    async def waits(self, runs: Sequence[str]) -> list[waits.WaitRow]:
        """Why the parts of some runs waited, in the order of their beginnings."""
        return await self._database.read(lambda c: waits.read(c, runs))

    async def local_runs(
        self,
        server: str | None = None,
        run: str | None = None,
        limit: int = -1,
        *,
        ended: bool | None = None,
        listed: str | None = None,
        since_ns: int | None = None,
    ) -> list[tuple[str, facts.LocalRun]]:
        """(server, fact) of what servers ran by themselves, newest first; of one server, run, state, or selection list, or
        that is open or has ended since an instant."""
        return await self._database.read(
            lambda c: local_runs.read(c, server, run, limit, ended=ended, listed=listed, since_ns=since_ns)
        )

    async def local_jobs(self, selection: str) -> set[str]:
        """The jobs of servers' own that back up copies of a selection list (id)."""
        return await self._database.read(lambda c: local_runs.jobs_of(c, selection))

    async def local_run_ids(self) -> set[str]:
        return await self._database.read(local_runs.ids)

    async def exceptions(self, attempts: Sequence[Attempt], limit: int = 1000) -> list[SourceException]:
        """What the media servers of ``attempts`` told."""
        found: list[SourceException] = []
        for attempt in attempts:
            rows = await self._rows(
                "SELECT path, reason, detail FROM exception WHERE attempt = ? AND reporter = ? ORDER BY rowid LIMIT ?",
                (attempt.id, attempt.server, limit - len(found)),
            )
            found += [SourceException(*row) for row in rows]
        return found

    async def log(self, attempt: Attempt, limit: int = 20000) -> list[LogRow]:
        """The job log of an attempt, of both its ends."""
        rows = await self._rows(
            "SELECT attempt, at_ns, level, text, server FROM log_line WHERE attempt = ? AND server IN (?, ?)"
            " ORDER BY at_ns, rowid LIMIT ?",
            (attempt.id, attempt.server, attempt.other, limit),
        )
        return [LogRow(*row) for row in rows]

    async def log_beyond(self, attempt: str, server: str, seen: int, limit: int) -> tuple[int, list[LogRow]]:
        """How many lines of the job log of an attempt a server has told, and those beyond the first ``seen`` in the order in
        which it told them."""
        which = "FROM log_line WHERE attempt = ? AND server = ?"
        columns = "attempt, at_ns, level, text, server"

        def read(c: sqlite3.Connection) -> tuple[int, list[LogRow]]:
            (told,) = c.execute(f"SELECT count(*) {which}", (attempt, server)).fetchone()
            sql = f"SELECT {columns} {which} ORDER BY rowid LIMIT ? OFFSET ?"
            return told, [LogRow(*row) for row in c.execute(sql, (attempt, server, limit, seen))]

        return await self._database.read(read)

    async def sets(
        self,
        *,
        source: str | None = None,
        attempt: str | None = None,
        limit: int = 1000,
    ) -> list[BackupSet]:
        """Newest first. ``limit``: -1 = all."""
        where, values = ["1"], []
        for column, value in (("source", source), ("attempt", attempt)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        sql = f"SELECT data FROM backup_set WHERE {' AND '.join(where)} ORDER BY ended_at_ns DESC, id DESC LIMIT ?"
        decode = msgspec.msgpack.Decoder(BackupSet).decode
        return await self._database.read(lambda c: [decode(row[0]) for row in c.execute(sql, (*values, limit))])

    async def sets_found(self, wanted: set_rows.Wanted, limit: int = -1) -> list[BackupSet]:
        """Newest first. ``limit``: -1 = all."""
        return await self._database.read(lambda c: set_rows.find(c, wanted, limit))

    async def place_of_set(self, set_id: str) -> tuple[int, str] | None:
        """Where a set stands in the order of ends."""
        return await self._database.read(lambda c: set_rows.place_of(c, set_id))

    async def on_media(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(writing server, label) -> how many sets are on a medium, and the bytes that they have stored."""
        return await self._database.read(set_rows.on_media)

    async def sets_until(self, source: str, until_ns: int) -> AsyncIterator[BackupSet]:
        """The sets of a source (node id) that ended at or before an instant, newest first."""
        last: tuple[int, str] = (until_ns + 1, "")
        while True:
            rows = await self._rows(
                "SELECT data, ended_at_ns, id FROM backup_set WHERE source = ? AND (ended_at_ns, id) < (?, ?)"
                " ORDER BY ended_at_ns DESC, id DESC LIMIT 200",
                (source, *last),
            )
            for data, ended_at_ns, id_ in rows:
                last = (ended_at_ns, id_)
                yield msgspec.msgpack.decode(data, type=BackupSet)
            if not rows:
                return

    async def set_ids(self) -> list[str]:
        return [row[0] for row in await self._rows("SELECT id FROM backup_set ORDER BY id")]

    async def set(self, set_id: str) -> BackupSet | None:
        rows = await self._rows("SELECT data FROM backup_set WHERE id = ?", (set_id,))
        return msgspec.msgpack.decode(rows[0][0], type=BackupSet) if rows else None

    async def set_counts(self) -> dict[str, tuple[int, int]]:
        """Device -> (sets, bytes stored by them)."""
        rows = await self._rows("SELECT device, count(*), sum(bytes_stored) FROM backup_set GROUP BY device")
        return {device: (count, stored) for device, count, stored in rows}

    async def stored(self) -> list[tuple[str, str, str, int]]:
        """Source, server and device of sets, with the bytes that all of those together have stored."""
        return await self._rows(
            "SELECT source, server, device, sum(bytes_stored) FROM backup_set GROUP BY source, server, device"
        )

    async def pending_details(self) -> list[PendingDetail]:
        return await self._database.read(catalog_details.pending)

    async def details_here(self) -> list[str]:
        """The sets whose details are said to be in the catalog."""
        return await self._database.read(catalog_details.here)

    async def detail_states(self, set_ids: Sequence[str]) -> dict[str, str]:
        """See ``catalog_details.states``."""
        return await self._database.read(lambda c: catalog_details.states(c, set_ids))

    async def media(self) -> list[Medium]:
        rows = await self._rows("SELECT data FROM medium ORDER BY label, server")
        return [msgspec.msgpack.decode(row[0], type=Medium) for row in rows]

    async def alerts(self, limit: int = 5000) -> list[AlertRow]:
        rows = await self._rows(
            "SELECT id, raised_at_ns, server, alert, category, object, text, cleared_at_ns FROM alert"
            " ORDER BY raised_at_ns DESC LIMIT ?",
            (limit,),
        )
        return [AlertRow(*row) for row in rows]

    async def alerts_since(self, since_ns: int) -> list[AlertRow]:
        """Those that were raised since an instant, or are over since then, oldest first."""
        rows = await self._rows(
            "SELECT id, raised_at_ns, server, alert, category, object, text, cleared_at_ns FROM alert"
            " WHERE raised_at_ns >= ? OR cleared_at_ns >= ? ORDER BY raised_at_ns",
            (since_ns, since_ns),
        )
        return [AlertRow(*row) for row in rows]

    async def standing_alerts(self, servers: Collection[str]) -> dict[tuple[str, str], tuple[str, str]]:
        """The alerts of some servers that are not cleared: (category, object) -> id and server of the newest of them."""
        rows = await self._rows(
            "SELECT category, object, id, server FROM alert WHERE cleared_at_ns IS NULL ORDER BY raised_at_ns"
        )
        return {(category, object_): (id_, server) for category, object_, id_, server in rows if server in servers}

    async def has_alert(self, id_: str, servers: Collection[str]) -> bool:
        """Whether one of ``servers`` has told of it."""
        return any(row[0] in servers for row in await self._rows("SELECT server FROM alert WHERE id = ?", (id_,)))

    async def alerts_of(self, server: str, ids: Collection[str]) -> list[tuple[str, int | None]]:
        """Which of ``ids`` a server has told of, and since when each is over."""
        marks = ", ".join("?" * len(ids))
        query = f"SELECT id, cleared_at_ns FROM alert WHERE server = ? AND id IN ({marks})"
        return [(id_, over_ns) for id_, over_ns in await self._rows(query, (server, *ids))]

    async def notices_sent(self, since_ns: int) -> list[Told]:
        """What recipients were told, or will not be, since an instant."""
        rows = await self._rows(
            "SELECT recipient, key, message, at_ns FROM notice_sent WHERE at_ns >= ? ORDER BY at_ns", (since_ns,)
        )
        return [Told(*row) for row in rows]

    async def told_of(self, key: str) -> frozenset[str]:
        """The recipients that were told of ``key``, or will not be."""
        return frozenset(row[0] for row in await self._rows("SELECT recipient FROM notice_sent WHERE key = ?", (key,)))

    async def arrival(self) -> int:
        """The number of the last record that came."""
        return await self._database.read(replica.last_arrival)


def _mean(c: sqlite3.Connection, server: str, record: Record) -> str | None:
    """Why a record means nothing, or ``None`` after writing what it does. It never stops those behind it."""
    c.execute("SAVEPOINT fact")
    try:
        reason = interpret(c, server, record, facts.decode(record.kind, record.data))
    except PeerMalformed as error:
        reason = error.message
    except (OverflowError, ValueError, sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError) as error:
        # numbers that fit nowhere, text that is not text
        reason = f"{record.kind}: {error}"
        c.execute("ROLLBACK TO fact")
    c.execute("RELEASE fact")
    return reason
