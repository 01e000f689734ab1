"""Reading and filling the administrator's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from caso_mesh.admin.interpret import interpret
from caso_mesh.database import Database
from caso_mesh.journal import Head, Record, replica
from caso_mesh.model import facts
from caso_mesh.model.entries import SourceException
from caso_mesh.model.jobs import Counts, Failure
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet, Medium


class AttemptRow(Struct, frozen=True):
    """What the journals say of an attempt."""

    id: str
    run: str
    state: AttemptState
    type: BackupType | None
    started_at_ns: int | None
    ended_at_ns: int | None
    seconds: float | None
    counts: Counts
    set: str | None
    failure: Failure | None


class AlertRow(Struct, frozen=True):
    id: str
    raised_at_ns: int
    server: str
    alert: str
    category: str
    object: str
    text: str
    cleared_at_ns: int | None


class AuditRow(Struct, frozen=True):
    at_ns: int
    server: str
    who: str
    what: str
    category: str
    outcome: str
    source: str
    fields: dict[str, Any]


class LogRow(Struct, frozen=True):
    attempt: str
    at_ns: int
    level: str
    text: str
    server: str


class PendingDetail(Struct, frozen=True):
    set: str
    server: str
    digest: bytes
    size: int


_ATTEMPT = "id, run, state, type, started_at_ns, ended_at_ns, seconds, counts, set_id, failure"


class Tables:
    """One database. Cursor and meaning of a fact move together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- filling ---

    async def cursors(self, server: str) -> list[Head]:
        return await self._database.read(lambda c: replica.cursors(c, server))

    async def hash_at(self, server: str, incarnation: str, seq: int) -> bytes | None:
        return await self._database.read(lambda c: replica.hash_at(c, server, incarnation, seq))

    async def accept(self, server: str, records: Sequence[Record]) -> list[Head]:
        """Takes records of one server's journal; returns the cursors. Raises ``JournalGap``, ``JournalChainBroken``,
        ``PeerMalformed``."""

        def take(c: sqlite3.Connection) -> list[Head]:
            for record in replica.accept(c, server, records):
                interpret(c, server, record.at_ns, facts.decode(record.kind, record.data))
            return replica.cursors(c, server)

        return await self._database.write(take)

    async def set_detail_state(self, set_id: str, state: str) -> None:
        def put(c: sqlite3.Connection) -> None:
            c.execute("UPDATE catalog_detail SET state = ? WHERE set_id = ?", (state, set_id))

        await self._database.write(put)

    # --- reading ---

    async def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return await self._database.read(lambda c: c.execute(sql, tuple(values)).fetchall())

    async def attempts(self, runs: Sequence[str]) -> dict[str, AttemptRow]:
        """What is known of all attempts of some runs, by attempt."""
        found: dict[str, AttemptRow] = {}
        for start in range(0, len(runs), 500):
            piece = runs[start : start + 500]
            marks = ", ".join("?" * len(piece))
            for row in await self._rows(f"SELECT {_ATTEMPT} FROM attempt WHERE run IN ({marks})", piece):
                found[row[0]] = _attempt_row(row)
        return found

    async def exceptions(self, attempts: Sequence[str], limit: int = 1000) -> list[SourceException]:
        marks = ", ".join("?" * len(attempts))
        rows = await self._rows(
            f"SELECT path, reason, detail FROM exception WHERE attempt IN ({marks}) ORDER BY rowid LIMIT ?",
            (*attempts, limit),
        )
        return [SourceException(*row) for row in rows]

    async def log(self, run: str, limit: int = 20000) -> list[LogRow]:
        rows = await self._rows(
            "SELECT attempt, at_ns, level, text, server FROM log_line WHERE attempt = ? OR attempt LIKE ? || '#%'"
            " ORDER BY attempt, at_ns, rowid LIMIT ?",
            (run, run, limit),
        )
        return [LogRow(*row) for row in rows]

    async def sets(
        self, *, server: str | None = None, source: str | None = None, attempt: str | None = None, limit: int = 1000
    ) -> list[BackupSet]:
        """Newest first."""
        where, values = ["1"], []
        for column, value in (("server", server), ("source", source), ("attempt", attempt)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        rows = await self._rows(
            f"SELECT data FROM backup_set WHERE {' AND '.join(where)} ORDER BY ended_at_ns DESC, id DESC LIMIT ?",
            (*values, limit),
        )
        return [msgspec.msgpack.decode(row[0], type=BackupSet) for row in rows]

    async def set_ids(self) -> list[str]:
        return [row[0] for row in await self._rows("SELECT id FROM backup_set ORDER BY id")]

    async def set(self, set_id: str) -> BackupSet | None:
        rows = await self._rows("SELECT data FROM backup_set WHERE id = ?", (set_id,))
        return msgspec.msgpack.decode(rows[0][0], type=BackupSet) if rows else None

    async def set_counts(self) -> dict[str, tuple[int, int]]:
        """Device -> (sets, bytes stored by them)."""
        rows = await self._rows("SELECT device, count(*), sum(bytes_stored) FROM backup_set GROUP BY device")
        return {device: (count, stored) for device, count, stored in rows}

    async def sets_by_source_device(self) -> dict[tuple[str, str], int]:
        """(source, device) -> how many sets of that source lie there."""
        rows = await self._rows("SELECT source, device, count(*) FROM backup_set GROUP BY source, device")
        return {(source, device): count for source, device, count in rows}

    async def pending_details(self) -> list[PendingDetail]:
        rows = await self._rows(
            "SELECT set_id, server, digest, size FROM catalog_detail WHERE state = 'pending' ORDER BY rowid"
        )
        return [PendingDetail(*row) for row in rows]

    async def detail_states(self, set_ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(set_ids), 500):
            piece = set_ids[start : start + 500]
            marks = ", ".join("?" * len(piece))
            found.update(await self._rows(f"SELECT set_id, state FROM catalog_detail WHERE set_id IN ({marks})", piece))
        return found

    async def media(self) -> list[Medium]:
        rows = await self._rows("SELECT data FROM medium ORDER BY label")
        return [msgspec.msgpack.decode(row[0], type=Medium) for row in rows]

    async def alerts(self, limit: int = 5000) -> list[AlertRow]:
        rows = await self._rows(
            "SELECT id, raised_at_ns, server, alert, category, object, text, cleared_at_ns FROM alert"
            " ORDER BY raised_at_ns DESC LIMIT ?",
            (limit,),
        )
        return [AlertRow(*row) for row in rows]

    async def audit(self, limit: int, category: str | None) -> list[AuditRow]:
        rows = await self._rows(
            "SELECT at_ns, server, who, what, category, outcome, source, fields FROM audit"
            " WHERE ? IS NULL OR category = ? ORDER BY at_ns DESC, rowid DESC LIMIT ?",
            (category, category, limit),
        )
        return [_audit_row(row) for row in rows]


def _attempt_row(row: Any) -> AttemptRow:
    id_, run, state, type_, started, ended, seconds, counts, set_id, failure = row
    return AttemptRow(
        id=id_,
        run=run,
        state=AttemptState(state),
        type=BackupType(type_) if type_ else None,
        started_at_ns=started,
        ended_at_ns=ended,
        seconds=seconds,
        counts=msgspec.msgpack.decode(counts, type=Counts) if counts else Counts(),
        set=set_id,
        failure=msgspec.msgpack.decode(failure, type=Failure) if failure else None,
    )


def _audit_row(row: Any) -> AuditRow:
    at_ns, server, who, what, category, outcome, source, fields = row
    return AuditRow(at_ns, server, who, what, category, outcome, source, msgspec.msgpack.decode(fields))
