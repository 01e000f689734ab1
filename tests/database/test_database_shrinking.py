"""What a database needs no more it gives back to the file system: new files page by page, older ones by one copy."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from caso_mesh.database import Database, shrinking

SCHEMA = ["CREATE TABLE item (name TEXT PRIMARY KEY, data BLOB)"]
PIECE = 50_000


def fill(conn: sqlite3.Connection, first: int, count: int) -> None:
    conn.executemany(
        "INSERT INTO item VALUES (?, ?)", [(f"{n:05}", os.urandom(PIECE)) for n in range(first, first + count)]
    )


def forget(conn: sqlite3.Connection, below: int) -> None:
    conn.execute("DELETE FROM item WHERE name < ?", (f"{below:05}",))


def names(conn: sqlite3.Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT name FROM item ORDER BY name")]


def older(path: Path, count: int, kept: int) -> None:
    """A file of an earlier program, most of which is empty."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute(SCHEMA[0])
        conn.execute("PRAGMA user_version=1")
        fill(conn, 0, count)
        forget(conn, count - kept)
    path.chmod(0o600)


@pytest.mark.parametrize("same_thread", [False, True])
async def test_a_file_becomes_smaller_after_much_was_deleted_and_keeps_a_reserve(
    tmp_path: Path, same_thread: bool
) -> None:
    path = tmp_path / "test.db"
    async with Database.open(path, SCHEMA, durable=False, same_thread=same_thread) as db:
        await db.write(lambda c: fill(c, 0, 400))
        await db.settle()
        full = path.stat().st_size
        await db.write(lambda c: forget(c, 380))
        given = pieces = 0
        while step := await db.give_back():
            given += step
            pieces += 1
            assert step <= 16 * 256, "not all of it at once"
        await db.settle()
        small = path.stat().st_size
        assert given > 4000
        assert pieces == 2
        assert small < full // 5
        kept = await db.read(shrinking.room_of)
        assert kept.surplus == 0
        assert kept.free * kept.page_bytes >= 1 << 20, "room for what comes next"
        await db.write(lambda c: fill(c, 0, 10))
        assert await db.give_back() == 0
        assert len(await db.read(names)) == 30
    async with Database.open(path, SCHEMA, durable=False, same_thread=same_thread) as db:
        assert len(await db.read(names)) == 30
        await db.check()


async def test_an_older_file_that_is_mostly_empty_is_copied_once_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    older(path, 1000, 20)
    full = path.stat().st_size
    assert full > 40 << 20
    async with Database.open(path, SCHEMA, durable=True) as db:
        assert path.stat().st_size < full // 20
        assert path.stat().st_mode & 0o777 == 0o600
        assert await db.read(names) == [f"{n:05}" for n in range(980, 1000)]
        room = await db.read(shrinking.room_of)
        assert room.incremental
        assert (await db.read(lambda c: c.execute("PRAGMA journal_mode").fetchone()))[0] == "wal"
        assert (await db.read(lambda c: c.execute("PRAGMA user_version").fetchone()))[0] == 1
        await db.write(lambda c: fill(c, 0, 1))
        await db.check()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["test.db"]


async def test_an_older_file_is_left_where_a_copy_is_not_worth_it_or_has_no_room_or_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "test.db"
    older(path, 1000, 20)
    full = path.stat().st_size

    async def opens_as_it_was() -> None:
        async with Database.open(path, SCHEMA, durable=False) as db:
            assert len(await db.read(names)) == 20
            assert await db.give_back() == 0
        assert path.stat().st_size == full
        assert sorted(each.name for each in tmp_path.iterdir()) == ["test.db"]

    with monkeypatch.context() as patch:
        patch.setattr(shrinking, "_WORTH_BYTES", 1 << 40)
        await opens_as_it_was()
    with monkeypatch.context() as patch:
        patch.setattr(shrinking, "_MOST_COPIED_BYTES", 1000)
        await opens_as_it_was()
    with monkeypatch.context() as patch:
        patch.setattr(shrinking, "_LEFT_FREE_BYTES", 1 << 60)
        await opens_as_it_was()

    def refuse(*given: object) -> None:
        raise OSError(5, "Input/output error")

    for call in ("caso_mesh.database.shrinking._sync", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(call, refuse)
            await opens_as_it_was()
        assert "keeps what it does not need" in caplog.text
        caplog.clear()
    # somebody else has it open
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM item").fetchone()
        monkeypatch.setattr("caso_mesh.database.connection._BUSY_TIMEOUT_MS", 50)
        async with Database.open(path, SCHEMA, durable=False) as db:
            await db.write(lambda c: fill(c, 0, 1))
            assert other.execute("SELECT count(*) FROM item").fetchone() == (21,)
    assert path.stat().st_size >= full
