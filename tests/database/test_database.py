"""The database room, in both its forms, through ``Database`` alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from caso_mesh.database import Database
from caso_mesh.model.errors import (
    InvalidValue,
    Misuse,
    StateDamaged,
    StateDiskFailed,
    StateFull,
    StateLocked,
    StateTooNew,
)

SCHEMA = ["CREATE TABLE item (name TEXT PRIMARY KEY, size INTEGER); CREATE TABLE blob (data BLOB);"]


@pytest.fixture(params=["threaded", "same-thread"])
def opened(request, tmp_path):
    """``opened()`` opens tmp_path/test.db in the form under test."""

    def make(migrations=SCHEMA, *, durable=False, path=None, **more):
        path = tmp_path / "test.db" if path is None else path
        return Database.open(path, migrations, durable=durable, same_thread=request.param == "same-thread", **more)

    return make


def put(name, size=1):
    return lambda conn: conn.execute("INSERT INTO item VALUES (?, ?)", (name, size)).lastrowid


def names(conn):
    return [row[0] for row in conn.execute("SELECT name FROM item ORDER BY name")]


async def count_commits(db) -> list[str]:
    commits: list[str] = []

    def watch(conn):
        conn.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await db.write(watch)
    commits.clear()
    return commits


async def test_what_was_written_is_read_again_after_reopening(opened):
    async with opened() as db:
        assert await db.write(put("a")) == 1
        assert await db.read(names) == ["a"]
    async with opened() as db:
        assert await db.read(names) == ["a"]


async def test_concurrent_writes_share_commits(opened):
    async with opened() as db:
        commits = await count_commits(db)
        await asyncio.gather(*(db.write(put(f"{n:03}")) for n in range(200)))
        assert len(await db.read(names)) == 200
        assert 1 <= len(commits) <= 100


async def test_writes_that_wait_for_a_busy_writer_become_one_commit(tmp_path):
    async with Database.open(tmp_path / "test.db", SCHEMA, durable=False) as db:
        commits = await count_commits(db)
        began, go_on = threading.Event(), threading.Event()

        def slow(conn):
            began.set()
            assert go_on.wait(10)

        first = asyncio.ensure_future(db.write(slow))
        await asyncio.to_thread(began.wait, 10)
        others = [asyncio.ensure_future(db.write(put(f"{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, *others)
        assert len(commits) == 2


async def test_a_long_queue_is_cut_into_groups(opened):
    async with opened() as db:
        commits = await count_commits(db)
        await asyncio.gather(*(db.write(put(f"{n:04}")) for n in range(600)))
        assert len(await db.read(names)) == 600
        assert len(commits) >= 3


async def test_a_failing_writer_gets_its_own_error_and_undoes_only_its_own_work(opened):
    class Own(Exception):
        pass

    def failing(conn):
        put("half")(conn)
        raise Own

    async with opened() as db:
        results = await asyncio.gather(
            db.write(put("a")),
            db.write(failing),
            db.write(put("a")),
            db.write(put("b")),
            return_exceptions=True,
        )
        assert [type(r) for r in results] == [int, Own, sqlite3.IntegrityError, int]
        assert await db.read(names) == ["a", "b"]


async def test_a_neighbour_that_loses_the_whole_transaction_harms_nobody_else(opened):
    """SQLite rolls the whole transaction back, not only the statement, when it finds the disk full."""

    calls = []

    def huge(conn):
        calls.append(1)
        conn.execute("INSERT INTO blob VALUES (zeroblob(4000000))")

    async with opened() as db:
        await db.write(lambda conn: conn.execute("PRAGMA max_page_count=100").fetchall())
        results = await asyncio.gather(db.write(put("a")), db.write(huge), db.write(put("b")), return_exceptions=True)
        assert [type(r) for r in results] == [int, StateFull, int]
        assert await db.read(names) == ["a", "b"]
        assert len(calls) == 1


async def test_a_write_that_ends_its_transaction_is_told_so_and_harms_nobody_else(opened):
    async with opened() as db:
        results = await asyncio.gather(
            db.write(put("a")),
            db.write(lambda conn: conn.execute("ROLLBACK")),
            db.write(put("b")),
            return_exceptions=True,
        )
        assert [type(r) for r in results] == [int, Misuse, int]
        assert await db.read(names) == ["a", "b"]


async def test_a_read_cannot_write(opened):
    async with opened() as db:
        with pytest.raises(Misuse, match="read function"):
            await db.read(put("a"))
        with pytest.raises(ZeroDivisionError):
            await db.read(lambda conn: 1 // 0)
        assert await db.read(names) == []


async def test_a_long_read_sees_one_state_and_does_not_block_the_writer(tmp_path):
    async with Database.open(tmp_path / "test.db", SCHEMA, durable=False) as db:
        await db.write(put("a"))
        began, go_on = threading.Event(), threading.Event()

        def slow(conn):
            before = names(conn)
            began.set()
            assert go_on.wait(10)
            return before, names(conn)

        reading = asyncio.ensure_future(db.read(slow))
        await asyncio.to_thread(began.wait, 10)
        await asyncio.wait_for(db.write(put("b")), 30)
        go_on.set()
        assert await reading == (["a"], ["a"])
        assert await db.read(names) == ["a", "b"]


async def test_a_second_reader_does_not_wait_for_the_first(tmp_path):
    async with Database.open(tmp_path / "test.db", SCHEMA, durable=False, readers=2) as db:
        began, go_on = threading.Event(), threading.Event()

        def slow(conn):
            began.set()
            assert go_on.wait(10)

        reading = asyncio.ensure_future(db.read(slow))
        await asyncio.to_thread(began.wait, 10)
        assert await asyncio.wait_for(db.read(names), 30) == []
        go_on.set()
        await reading


async def test_a_cancelled_writer_leaves_whole_work_or_none_and_the_next_goes_on(opened):
    def both(name):
        def fn(conn):
            put(f"{name}-1")(conn)
            put(f"{name}-2")(conn)

        return fn

    async with opened() as db:
        for turns in range(4):
            task = asyncio.ensure_future(db.write(both(f"w{turns}")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await db.write(put("last"))
        found = await db.read(names)
        assert "last" in found
        for turns in range(4):
            assert len([name for name in found if name.startswith(f"w{turns}-")]) in {0, 2}


async def test_a_write_cancelled_before_it_began_is_left_out(tmp_path):
    async with Database.open(tmp_path / "test.db", SCHEMA, durable=False) as db:
        began, go_on = threading.Event(), threading.Event()

        def slow(conn):
            began.set()
            assert go_on.wait(10)

        first = asyncio.ensure_future(db.write(slow))
        await asyncio.to_thread(began.wait, 10)
        waiting = asyncio.ensure_future(db.write(put("never")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        go_on.set()
        await first
        await db.write(put("later"))
        assert await db.read(names) == ["later"]


async def test_waiting_for_a_commit_ends_with_it_even_if_the_writer_was_cancelled(opened):
    async with opened() as db:
        before = db.generation
        waiting = asyncio.ensure_future(db.wait_for_commit(before))
        task = asyncio.ensure_future(db.write(put("a")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await db.write(put("b"))
        assert await asyncio.wait_for(waiting, 30) > before


async def test_closing_finishes_what_was_asked_and_refuses_the_rest(opened):
    async with opened() as db:
        task = asyncio.ensure_future(db.write(put("a")))
        waiting = asyncio.ensure_future(db.wait_for_commit(100))
        await asyncio.sleep(0)
    await task
    with pytest.raises(Misuse):
        await waiting
    with pytest.raises(Misuse):
        await db.write(put("b"))
    with pytest.raises(Misuse):
        await db.read(names)
    async with opened() as db:
        assert await db.read(names) == ["a"]


async def test_closing_leaves_no_thread_and_no_log_behind(opened, tmp_path):
    before = set(threading.enumerate())
    async with opened() as db:
        await db.write(put("a"))
    assert set(threading.enumerate()) == before
    assert os.listdir(tmp_path) == ["test.db"]


async def test_cancelling_while_opening_closes_everything(opened):
    before = set(threading.enumerate())

    async def use():
        async with opened():
            raise AssertionError("was cancelled before")

    task = asyncio.ensure_future(use())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
async def test_the_pragmas_are_set(opened, durable, level):
    def pragma(name):
        return lambda conn: conn.execute(f"PRAGMA {name}").fetchone()[0]

    async with opened(durable=durable) as db:
        assert await db.write(pragma("synchronous")) == level
        assert await db.write(pragma("journal_mode")) == "wal"
        assert await db.write(pragma("foreign_keys")) == 1
        assert await db.write(pragma("busy_timeout")) == 5000


async def test_a_new_file_is_for_its_owner_only(opened, tmp_path):
    async with opened() as db:
        await db.write(put("a"))
        for name in os.listdir(tmp_path):
            assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600, name


# --- migrations ------------------------------------------------------------------------------------------------------


def old_fixture(path, version=1):
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(
            f"CREATE TABLE item (name TEXT PRIMARY KEY, size INTEGER); CREATE TABLE blob (data BLOB);"
            f"INSERT INTO item VALUES ('old', 7); PRAGMA user_version={version};"
        )


async def test_an_old_database_is_copied_and_brought_forward(opened, tmp_path):
    def doubled(conn):
        conn.execute("UPDATE item SET size = size * 2")

    old_fixture(tmp_path / "test.db")
    trigger = """
        -- a trigger holds semicolons; so does this comment
        ALTER TABLE item ADD COLUMN note TEXT DEFAULT ';';
        CREATE TRIGGER noted AFTER INSERT ON item BEGIN
            UPDATE item SET note = 'new;' WHERE name = NEW.name; SELECT 1;
        END
    """
    async with opened([*SCHEMA, trigger, doubled]) as db:
        await db.write(lambda conn: conn.execute("INSERT INTO item (name, size) VALUES ('new', 1)"))
        rows = await db.read(lambda conn: conn.execute("SELECT * FROM item ORDER BY name").fetchall())
        assert rows == [("new", 1, "new;"), ("old", 14, ";")]
        assert await db.read(lambda conn: conn.execute("PRAGMA user_version").fetchone()[0]) == 3
    assert stat.S_IMODE(os.stat(tmp_path / "test.db.v1").st_mode) == 0o600
    with closing(sqlite3.connect(tmp_path / "test.db.v1")) as copy:
        assert copy.execute("SELECT * FROM item").fetchall() == [("old", 7)]
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    assert sorted(os.listdir(tmp_path)) == ["test.db", "test.db.v1"]


async def test_a_migration_that_fails_changes_nothing(opened, tmp_path):
    old_fixture(tmp_path / "test.db")
    with pytest.raises(sqlite3.OperationalError):
        async with opened([*SCHEMA, "DROP TABLE item", "DROP TABLE nothing"]):
            raise AssertionError("not reached")
    async with opened() as db:
        assert await db.read(names) == ["old"]


async def test_a_migration_may_rebuild_a_table_that_others_refer_to(opened, tmp_path):
    with closing(sqlite3.connect(tmp_path / "test.db")) as conn:
        conn.executescript(
            "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a REFERENCES a ON DELETE CASCADE);"
            "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); PRAGMA user_version=1;"
        )
    rebuild = "CREATE TABLE a2 (id INTEGER PRIMARY KEY, x); INSERT INTO a2 (id) SELECT id FROM a; DROP TABLE a;"
    async with opened(["", rebuild + "ALTER TABLE a2 RENAME TO a"]) as db:
        assert await db.read(lambda conn: conn.execute("SELECT * FROM b").fetchall()) == [(1,)]
        with pytest.raises(sqlite3.IntegrityError):
            await db.write(lambda conn: conn.execute("INSERT INTO b VALUES (2)"))
    with pytest.raises(StateDamaged, match="refers to nothing"):
        async with opened(["", "", "DELETE FROM a"]):
            raise AssertionError("not reached")


async def test_a_newer_database_is_refused_untouched(opened, tmp_path):
    old_fixture(tmp_path / "test.db", version=9)
    before = (tmp_path / "test.db").read_bytes()[100:]
    with pytest.raises(StateTooNew, match="9"):
        async with opened():
            raise AssertionError("not reached")
    assert (tmp_path / "test.db").read_bytes()[100:] == before
    assert not os.path.exists(tmp_path / "test.db.v9")


# --- damage and full disks -------------------------------------------------------------------------------------------


async def test_a_file_that_is_no_database_is_refused(opened, tmp_path):
    (tmp_path / "test.db").write_bytes(b"not a database at all " * 500)
    with pytest.raises(StateDamaged):
        async with opened():
            raise AssertionError("not reached")


async def test_another_programs_database_is_refused(opened, tmp_path):
    old_fixture(tmp_path / "test.db", version=0)
    with pytest.raises(StateDamaged, match="another program"):
        async with opened():
            raise AssertionError("not reached")


async def test_a_damaged_page_is_reported_where_it_is_read(opened, tmp_path):
    async with opened() as db:
        await db.write(
            lambda conn: conn.executemany("INSERT INTO item VALUES (?, 1)", [(f"{n}" * 50,) for n in range(999)])
        )
    data = bytearray((tmp_path / "test.db").read_bytes())
    for page in range(4, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    (tmp_path / "test.db").write_bytes(data)
    async with opened() as db:
        with pytest.raises(StateDamaged, match="malformed"):
            await db.read(names)


async def test_a_missing_folder_is_reported_with_the_path(opened, tmp_path):
    with pytest.raises(StateDiskFailed, match="nowhere"):
        async with opened(path=tmp_path / "nowhere" / "test.db"):
            raise AssertionError("not reached")


async def test_a_file_locked_by_another_process_is_reported(opened, tmp_path):
    async with opened() as db:
        await db.write(lambda conn: conn.execute("PRAGMA busy_timeout=10").fetchall())
        with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(*(db.write(put(str(n))) for n in range(3)), return_exceptions=True)
            assert {type(r) for r in results} == {StateLocked}
        await db.write(put("a"))
        assert await db.read(names) == ["a"]


async def test_a_database_at_its_limit_refuses_and_then_goes_on(opened):
    async with opened() as db:
        await db.write(put("a"))
        pages = await db.write(lambda conn: conn.execute("PRAGMA page_count").fetchone()[0])
        await db.write(lambda conn: conn.execute(f"PRAGMA max_page_count={pages}").fetchall())
        with pytest.raises(StateFull):
            await db.write(lambda conn: conn.execute("INSERT INTO blob VALUES (zeroblob(100000))"))
        assert await db.read(names) == ["a"]
        await db.write(put("b"))
        await db.write(lambda conn: conn.execute("PRAGMA max_page_count=10000").fetchall())
        await db.write(lambda conn: conn.execute("INSERT INTO blob VALUES (zeroblob(100000))"))


FULL_DISK = """
import asyncio, os, sys
from caso_mesh.database import Database
from caso_mesh.model.errors import StateFull

async def main(folder, same_thread):
    path = os.path.join(folder, "test.db")
    async with Database.open(path, ["CREATE TABLE t (n, data BLOB)"], durable=True, same_thread=same_thread) as db:
        written = 0
        def put(conn):
            conn.execute("INSERT INTO t VALUES (?, randomblob(20000))", (written,))
        try:
            while True:
                await db.write(put)
                written += 1
        except StateFull as error:
            assert error.fields["state"] == folder, error
        def count(conn):
            return conn.execute("SELECT count(*) FROM t").fetchone()[0]
        assert written > 10
        assert await db.read(count) == written
        os.unlink(os.path.join(folder, "ballast"))
        await db.write(put)
        assert await db.read(count) == written + 1
    filler = os.open(os.path.join(folder, "filler"), os.O_CREAT | os.O_WRONLY)
    for size in (65536, 1024, 1):
        try:
            while True:
                os.write(filler, bytes(size))
        except OSError:
            pass
    try:
        async with Database.open(os.path.join(folder, "new.db"), ["CREATE TABLE t (n)"], durable=True, same_thread=same_thread):
            raise SystemExit("opened on a full disk")
    except StateFull:
        pass
    try:
        async with Database.open(path, ["CREATE TABLE t (n, data BLOB)"], durable=True, same_thread=same_thread) as db:
            assert await db.read(count) == written + 1
            await db.write(put)
            raise SystemExit("wrote to a full disk")
    except StateFull:
        pass
    os.close(filler)
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    async with Database.open(path, ["CREATE TABLE t (n)"], durable=True, same_thread=same_thread):
        pass
    assert os.listdir(folder) == ["test.db"]
    try:
        for n in range(1000):
            os.close(os.open(os.path.join(folder, str(n)), os.O_CREAT))
    except OSError:
        pass
    try:
        async with Database.open(path, ["CREATE TABLE t (n)"], durable=True, same_thread=same_thread):
            raise SystemExit("opened without a place for its log")
    except StateFull:
        print("refused as it should")

asyncio.run(main(sys.argv[1], sys.argv[2] == "same-thread"))
"""


@pytest.mark.parametrize("form", ["threaded", "same-thread"])
def test_a_full_disk_loses_nothing_and_is_named(form, tmp_path):
    """On a real tmpfs of 3 MB and 50 files, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = (
        f"mount -t tmpfs -o size=3m,nr_inodes=50 none {disk} && dd if=/dev/zero of={disk}/ballast bs=1k count=1000 2>/dev/null"
        f' && exec "$0" -W error -c "$1" {disk} {form}'
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, sys.executable, FULL_DISK]
    if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces on this machine")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "refused as it should"), done.stderr


KILLED = """
import asyncio, sys
from caso_mesh.database import Database

async def main(path):
    async with Database.open(path, ["CREATE TABLE t (n INTEGER PRIMARY KEY)"], durable=True) as db:
        async def one(n):
            await db.write(lambda conn: conn.execute("INSERT INTO t VALUES (?)", (n,)))
            print(n, flush=True)
        n = 0
        while True:
            await asyncio.gather(*(one(n + i) for i in range(10)))
            n += 10

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_acknowledged_survives_kill_9(opened, tmp_path):
    path = tmp_path / "killed.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = {int(process.stdout.readline()) for _ in range(200)}
        process.send_signal(signal.SIGKILL)
        acknowledged |= {int(line) for line in process.stdout.read().split()}
    async with opened(["CREATE TABLE t (n INTEGER PRIMARY KEY)"], path=path) as db:
        kept = {row[0] for row in await db.read(lambda conn: conn.execute("SELECT n FROM t").fetchall())}
    assert acknowledged <= kept
    assert kept == set(range(len(kept)))


async def test_a_number_that_is_too_large_is_refused_as_wrong_input_and_costs_nobody_else_his_write(opened):
    """What a peer asks may name any number that msgpack can hold: it was an internal error before."""
    async with opened() as database:
        with pytest.raises(InvalidValue):
            await database.read(lambda c: c.execute("SELECT 1 FROM item WHERE size = ?", (1 << 64,)).fetchone())
        too_large, good = await asyncio.gather(
            database.write(put("a", 1 << 64)), database.write(put("b", 1)), return_exceptions=True
        )
        assert isinstance(too_large, InvalidValue)
        assert good
        assert await database.read(names) == ["b"]
