"""A database of what can be made again: damaged, it is set aside, and an empty one takes its place."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from caso_mesh.database import Database, MendingDatabase
from caso_mesh.model.errors import StateTooNew, Unavailable

MIGRATIONS = ["CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"]


def fill(conn: sqlite3.Connection) -> None:
    conn.executemany("INSERT INTO t (text) VALUES (?)", [("x" * 1000,)] * 4000)


def count(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT count(*) FROM t WHERE text LIKE 'x%'").fetchone()[0])


def spoil(path: Path) -> None:
    """All but the header, as a disk does that goes bad."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


@pytest.mark.parametrize("same_thread", [True, False])
async def test_a_file_that_turns_out_damaged_is_set_aside_and_the_next_call_finds_an_empty_one(tmp_path, same_thread):
    path, told = tmp_path / "c.db", []
    async with MendingDatabase.open(path, MIGRATIONS, what="the catalog", same_thread=same_thread) as database:
        database.on_mended.append(lambda: told.append(database.mended))
        await database.write(fill)
        assert (await database.read(count), database.mended, database.damage) == (4000, 0, None)
    spoil(path)
    async with MendingDatabase.open(path, MIGRATIONS, what="the catalog", same_thread=same_thread) as database:
        database.on_mended.append(lambda: told.append(database.mended))
        with pytest.raises(Unavailable, match="the catalog"):
            await database.read(count)
        assert await database.read(count) == 0
        assert (told, database.mended) == ([1], 1)
        assert "c.db.damaged" in (database.damage or "")
        await database.write(fill)
        await database.settle()
        assert await database.read(count) == 4000
    assert (tmp_path / "c.db.damaged").exists()


async def test_a_file_that_is_no_database_is_set_aside_when_it_is_opened(tmp_path):
    path = tmp_path / "c.db"
    for _ in range(3):
        path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
        async with MendingDatabase.open(path, MIGRATIONS, what="the catalog") as database:
            assert (database.mended, await database.read(count)) == (1, 0)
        assert [each.name for each in tmp_path.glob("*damaged*")] == ["c.db.damaged"]


async def test_one_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "c.db"
    async with Database.open(path, [*MIGRATIONS, "CREATE TABLE later (n INTEGER) STRICT"], durable=False):
        pass
    with pytest.raises(StateTooNew):
        async with MendingDatabase.open(path, MIGRATIONS, what="the catalog"):
            pass
    assert not list(tmp_path.glob("*damaged*"))
