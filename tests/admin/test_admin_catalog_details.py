"""What journals tell of catalog details is the same at every voter, whatever became of its own copies."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from admin.admin_world import Reporter

from caso_mesh.admin import catalog_details
from caso_mesh.admin.catalog_details import PendingDetail
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.database import Database
from caso_mesh.model import facts
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet

MAKER, OFFICE = "node-beta", "node-alpha"
SET = "set1".ljust(26, "a")
_BEFORE = next(number for number, step in enumerate(MIGRATIONS) if step is catalog_details.APART)


def made(set_id: str = SET) -> BackupSet:
    return BackupSet(
        id=set_id, mesh="m", vault="v", device="dev", device_name="disk", medium="m", media_set="s", source="node-gamma",
        source_name="gamma", server=MAKER, server_name="beta", type=BackupType.FULL, job="j", run="j@1", attempt="j@1#1",
        started_at_ns=1, ended_at_ns=2, roots=(b"srv",), filters=b"f" * 32, root=b"r" * 32, parent=None, files=1, entries=1,
        bytes=1, bytes_read=1, bytes_stored=1, exceptions=0,
    )  # fmt: skip


@asynccontextmanager
async def tables_in(path: Path) -> AsyncIterator[Tables]:
    async with Database.open(path, MIGRATIONS, durable=False, same_thread=True) as database:
        yield Tables(database)


async def tell(tables: Tables, *told: tuple[Reporter, facts.Fact]) -> None:
    for reporter, fact in told:
        await tables.accept(reporter.node, reporter.records(5, fact))


async def details(tables: Tables) -> list[Any]:
    return await tables.ask(lambda c: c.execute("SELECT * FROM catalog_detail ORDER BY set_id").fetchall())


async def test_a_copy_that_was_of_no_use_is_wanted_again_when_its_set_is_found_and_what_is_told_of_it_stays(
    tmp_path: Path,
) -> None:
    """Found by the mesh simulator: the voter whose copy was of no use forgot digest and size, the others did not."""
    async with tables_in(tmp_path / "one.db") as one, tables_in(tmp_path / "other.db") as other:
        for tables, state in ((one, "damaged"), (other, "here")):
            maker, office = Reporter(MAKER), Reporter(OFFICE)
            await tell(tables, (maker, facts.SetPublished(made())), (maker, facts.CatalogDetail(SET, b"d" * 32, 9)))
            await tables.change(partial(catalog_details.put, set_id=SET, state=state))
            await tell(tables, (office, facts.SetFound(made(), "node-gamma")))
        assert await details(one) == await details(other) == [(SET, b"d" * 32, 9)]
        assert await other.pending_details() == []
        assert await one.pending_details() == [PendingDetail(SET, "node-gamma", b"", 0, MAKER, again=True)]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
async def test_of_a_set_that_lies_there_again_nothing_counts_that_was_told_before(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Its catalog went with it, also where the journal of its maker comes last."""
    maker, deleter, office = Reporter(MAKER), Reporter("node-delta"), Reporter(OFFICE)
    journals: list[list[tuple[Reporter, facts.Fact]]] = [
        [(maker, facts.SetPublished(made())), (maker, facts.CatalogDetail(SET, b"d" * 32, 9))],
        [(deleter, facts.SetDeleted(SET, "dev", "me"))],
        [(office, facts.SetFound(made(), "node-gamma"))],
    ]
    async with tables_in(tmp_path / "tables.db") as tables:
        for each in order:
            await tell(tables, *journals[each])
        assert await details(tables) == [(SET, b"", 0)]
        (pending,) = await tables.pending_details()
        assert (pending.server, pending.size) == ("node-gamma", 0)


@pytest.mark.parametrize("first", ["lost", "found"])
async def test_what_a_maker_has_counts_whatever_was_told_before(tmp_path: Path, first: str) -> None:
    maker, office = Reporter(MAKER), Reporter(OFFICE)
    before = {
        "lost": (maker, facts.CatalogDetail(SET, b"", 0)),
        "found": (office, facts.SetFound(made(), "node-gamma")),
    }[first]
    async with tables_in(tmp_path / "tables.db") as tables:
        await tell(tables, (maker, facts.SetPublished(made())), before)
        assert await details(tables) == [(SET, b"", 0)]
        await tell(tables, (maker, facts.CatalogDetail(SET, b"d" * 32, 9)))
        await tell(tables, (maker, facts.CatalogDetail(SET, b"e" * 32, 8)))
        assert await tables.pending_details() == [PendingDetail(SET, MAKER, b"d" * 32, 9, MAKER)]


async def test_a_catalog_that_is_made_anew_elsewhere_changes_nothing_of_what_is_told(tmp_path: Path) -> None:
    """The one in office alone forgot digest and size of what it had made anew."""
    maker = Reporter(MAKER)
    async with tables_in(tmp_path / "tables.db") as tables:
        await tell(tables, (maker, facts.SetPublished(made())), (maker, facts.CatalogDetail(SET, b"d" * 32, 9)))
        await tables.change(partial(catalog_details.again, set_ids=[SET, "unknown"], reader="node-gamma"))
        assert await details(tables) == [(SET, b"d" * 32, 9)]
        assert await tables.pending_details() == [PendingDetail(SET, "node-gamma", b"", 0, MAKER, again=True)]
        await tables.change(partial(catalog_details.again, set_ids=[SET]))
        assert await tables.pending_details() == [PendingDetail(SET, MAKER, b"d" * 32, 9, MAKER, again=True)]


async def test_tables_of_before_tell_what_was_told_and_how_far_their_voter_was(tmp_path: Path) -> None:
    states = {"here": "here", "pending": "pending", "damaged": "damaged", "elsewhere": "pending"}
    path = tmp_path / "tables.db"

    def fill(c: sqlite3.Connection) -> None:
        for set_id, state in states.items():
            backup = msgspec.msgpack.encode(made(set_id))
            row = (set_id, backup, "node-gamma", MAKER, "dev", "j@1#1", 2, 1)
            c.execute("INSERT INTO backup_set VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            told = ("node-gamma", b"", 0) if set_id == "elsewhere" else (MAKER, b"d", 9)
            c.execute("INSERT INTO catalog_detail VALUES (?, ?, ?, ?, ?)", (set_id, *told, state))

    async with Database.open(path, MIGRATIONS[:_BEFORE], durable=False, same_thread=True) as database:
        await database.write(fill)
    async with tables_in(path) as tables:
        assert await tables.detail_states([*states]) == states
        assert [(each.set, each.server, each.size, each.damaged) for each in await tables.pending_details()] == [
            ("pending", MAKER, 9, False),
            ("damaged", MAKER, 9, True),
            ("elsewhere", "node-gamma", 0, False),
        ]
