"""What the mesh simulator compares: it sees every kind of fact and every table, once too few as well as once too often."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from admin.admin_world import Reporter
from mesh.simulation import meaning
from msgspec import structs

from caso_mesh.admin import tables as product
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.database import Database
from caso_mesh.journal import Record
from caso_mesh.model import facts as f
from caso_mesh.model.audit import Change
from caso_mesh.model.copies import Came, Outcome
from caso_mesh.model.entries import SourceException
from caso_mesh.model.ids import attempt_id, local_id, run_now_id
from caso_mesh.model.jobs import BackupSpec, Counts, Failure, Part, Run, SourceRoots, Target, TargetKind
from caso_mesh.model.resources import FileSystem
from caso_mesh.model.states import AlertKind, AttemptState, BackupType, JobKind, Priority, RunState, WaitReason
from caso_mesh.model.storage import BackupSet, Medium

SERVERS = ("node-beta-0000", "node-gamma-000")
#: Kinds of facts that fill no table: what they mean is a command, or is for the server itself.
EMPTY = {f.ServerStarted, f.JournalBegun, f.Publishing, f.CopyTaken, f.AlertAnswered}
#: Kinds that would show twice, if they were taken twice.
ADDING = {f.AttemptExceptions, f.JobLog, f.Audit}


def facts_of(server: str, at: int) -> list[f.Fact]:
    """Some of every kind, in the order in which a server tells them."""
    job = local_id(f"job{at}".ljust(26, "j"), server)
    run, device = run_now_id(job, 1), f"dev{at}"
    ids = [f"{at}{number}".ljust(26, "a") for number in range(4)]
    sets = [
        BackupSet(
            id=id_, mesh="m", vault=f"v{number // 2}", source=server, source_name="s", server=server, server_name="m", device=device,
            device_name="d", medium="B-1", media_set="keep-4-weeks", type=BackupType.FULL, job=job, run=run,
            attempt=attempt_id(run, 1), started_at_ns=1, ended_at_ns=number, roots=(b"srv",), filters=b"f", root=b"r",
            parent=None, files=3, entries=4, bytes=30, bytes_read=30, bytes_stored=40, exceptions=0,
        )
        for number, id_ in enumerate(ids)
    ]  # fmt: skip
    spec = BackupSpec((SourceRoots(server, (b"srv",)),), Target(TargetKind.ANY))
    own = Run(run, job, "mine", spec, Priority.MEDIUM, 1, 1, "ann", (Part(server, RunState.RUNNING),), RunState.RUNNING)
    medium = Medium("B-1", device, "keep-4-weeks", server, 0, 1, None)
    first, second, third = (attempt_id(run, number) for number in (1, 2, 3))
    line = f.LogLine(5, "info", "read")
    return [
        f.ServerStarted("1"),
        f.JournalBegun("before"),
        f.Audit("ann", "pool.create", "pools", changed=(Change("pool lan", "", None, {}),)),
        f.Audit("ann", "audit.trim", "audit"),
        f.AttemptStarted(first, server, device, BackupType.INCREMENTAL),
        f.JobLog(first, (line, line)),
        f.AttemptVerifying(first),
        f.AttemptExceptions(first, (SourceException(b"x", "vanished", ""), SourceException(b"y", "busy", "z"))),
        f.Publishing(first, ids[0], device),
        *(f.SetPublished(each) for each in sets[:3]),
        f.CatalogDetail(ids[0], b"digest", 10),
        f.CatalogDetail(ids[0], b"another", 11),
        f.CatalogAtServer(began=True),
        f.CatalogAtServer(sets=(ids[0], ids[1], ids[2])),
        f.CatalogAtServer(gone=(ids[2],)),
        f.MediumChanged(medium),
        f.MediumChanged(structs.replace(medium, sets=1)),
        f.AttemptEnded(first, AttemptState.SUCCEEDED, Counts(files=3), 1.5, ids[0], BackupType.FULL),
        f.AttemptEnded(first, AttemptState.INTERRUPTED, Counts(), 2.0),
        f.AttemptStarted(second, server, device),
        f.AttemptEnded(second, AttemptState.FAILED, Counts(), 2.0, failure=Failure("device-full", {"device": "d"})),
        f.AttemptStarted(third, server, device),
        f.AttemptVerifying(third),
        f.SetDeleted(ids[1], device, "ann", "request-1"),
        f.SetDeleted(ids[1], device, "ann", "request-2"),
        f.SetLocked(ids[0], device, "ann", 100),
        f.SetLocked(ids[0], device, "ann", 50),
        f.SetFound(structs.replace(sets[3], vault="v2"), server),
        f.RunWaits(run, server, WaitReason.NOT_YET_DUE, 1, {"due": "soon"}),
        f.RunWaits(run, server, WaitReason.ON_HOLD, 1),
        f.CopyTaken("copy", (Outcome("job", "x", Came.MADE),)),
        f.LocalRun(own, (), "list"),
        f.LocalRun(structs.replace(own, state=RunState.SUCCEEDED, closed_at_ns=9), (), "list"),
        f.AlertRaised("a1", AlertKind.ERROR, "device-full", "it is full"),
        f.AlertRaised("a1", AlertKind.ERROR, "device-full", "again"),
        f.AlertCleared("a1"),
        f.AlertAnswered("a1", "ann", "seen"),
        f.AlertRaised("a2", AlertKind.WARNING, "device-full", "still"),
        f.AlertCleared("a2", of=SERVERS[0]),
        f.VaultErased(device, "v1", third, "ann"),
        f.SetsMissing(device, (ids[0],), third),
        f.SetsMissing(device, (), third),
        f.SetsMissing("shared", (server,), third),
        f.FileSystems((FileSystem(b"", "ext4", 100, 50),)),
        f.FileSystems((FileSystem(b"", "ext4", 100, 60), FileSystem(b"srv", "xfs", 10, 5))),
        # of the same ones another server tells, too: whichever is heard first must not show
        f.NoticesSent("boss", f"message{at}", ("a1", "a2")),
        f.AttemptStarted("shared@1#1", server, device, (BackupType.FULL, BackupType.INCREMENTAL)[at]),
        f.AttemptEnded(
            "shared@1#1",
            (AttemptState.FAILED, AttemptState.SUCCEEDED)[at],
            Counts(bytes_read=10 + at),
            0.1 + at,
            kind=(JobKind.BACKUP, JobKind.VERIFY)[at],
        ),
        f.Audit("ann", "backup", "jobs", fields={"to": "any"}),
        f.Audit("ann", "backup", "jobs", fields={"to": "any"}),
        f.AuditTrimmed(4, "ann"),
        f.AuditTrimmed(3, "ann"),
        f.AuditTrimmed(1 << 40, "ann"),
    ]


def journals() -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for at, server in enumerate(SERVERS):
        reporter = Reporter(server)
        found[server] = [
            record for number, fact in enumerate(facts_of(server, at)) for record in reporter.records(number, fact)
        ]
    return found


@asynccontextmanager
async def voter(folder: Path, order: Sequence[str] = SERVERS) -> AsyncIterator[Database]:
    """One that has taken in all journals, in pieces that come twice."""
    async with Database.open(folder / "tables.db", MIGRATIONS, durable=False, same_thread=True) as database:
        tables = Tables(database)
        for server in order:
            records = journals()[server]
            for start in range(0, len(records), 5):
                for _ in range(2):
                    await tables.accept(server, records[start : start + 7])
        yield database


def expected() -> meaning.Rows:
    return meaning.worked_out((server, record, None) for server, records in journals().items() for record in records)


async def seen(folder: Path, order: Sequence[str] = SERVERS) -> str | None:
    async with voter(folder, order) as database:
        return meaning.difference(expected(), await database.read(meaning.held))


@pytest.mark.parametrize("order", [SERVERS, SERVERS[::-1]])
async def test_what_is_worked_out_beside_the_product_is_what_its_tables_hold(tmp_path: Path, order: Any) -> None:
    assert await seen(tmp_path, order) is None


async def test_every_kind_of_fact_and_every_table_is_compared(tmp_path: Path) -> None:
    assert {type(fact) for fact in facts_of(SERVERS[0], 0)} == set(f.Fact.__args__)
    async with voter(tmp_path) as database:
        names = await database.read(
            lambda c: {row[0] for row in c.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        )
        held = await database.read(meaning.held)
    assert {name for name in names if not name.startswith(("journal_", "sqlite_"))} == set(meaning.TABLES) | meaning.OWN
    assert all(held.values()), "no table is empty"


@pytest.mark.parametrize("kind", sorted(set(f.Fact.__args__) - EMPTY, key=lambda kind: kind.__name__))
async def test_a_kind_of_fact_that_is_dropped_when_it_is_taken_in_is_noticed(tmp_path: Path, kind: type) -> None:
    interpret = product.interpret

    def drops(c: sqlite3.Connection, server: str, record: Record, fact: Any) -> str | None:
        return None if isinstance(fact, kind) else interpret(c, server, record, fact)

    with mock.patch.object(product, "interpret", drops):
        assert await seen(tmp_path) is not None


@pytest.mark.parametrize("kind", sorted(set(f.Fact.__args__), key=lambda kind: kind.__name__))
async def test_a_kind_of_fact_that_is_taken_twice_is_noticed_or_means_nothing_more(tmp_path: Path, kind: type) -> None:
    interpret = product.interpret

    def doubles(c: sqlite3.Connection, server: str, record: Record, fact: Any) -> str | None:
        if isinstance(fact, kind):
            interpret(c, server, record, fact)
        return interpret(c, server, record, fact)

    with mock.patch.object(product, "interpret", doubles):
        assert (await seen(tmp_path) is not None) is (kind in ADDING)


#: What is changed of a table, where it is not the last column.
LAST = {"attempt_total": "attempts"}


@pytest.mark.parametrize("table", sorted(meaning.TABLES))
@pytest.mark.parametrize("harm", ["lost", "doubled", "changed"])
async def test_one_row_that_is_lost_doubled_or_changed_at_a_voter_is_noticed(
    tmp_path: Path, table: str, harm: str
) -> None:
    last = LAST.get(table, meaning.TABLES[table].split(", ")[-1])
    row = f"rowid = (SELECT max(rowid) FROM {table})"

    def do(c: sqlite3.Connection) -> None:
        types = {name: kind for _, name, kind, *_ in c.execute(f"PRAGMA table_info({table})")}
        columns = ", ".join(types)
        other = {"INTEGER": "77", "BLOB": "x'00'", "TEXT": "'other'"}[types[last]]
        statements = {
            "lost": f"DELETE FROM {table} WHERE {row}",
            "doubled": f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} LIMIT 1",
            "changed": f"UPDATE {table} SET {last} = {other} WHERE {row}",
        }
        c.execute(statements[harm])

    async with voter(tmp_path) as database:
        try:
            await database.write(do)
        except sqlite3.IntegrityError:
            assert harm == "doubled", "a key keeps it from being there twice"
            return
        assert meaning.difference(expected(), await database.read(meaning.held)) is not None
