"""A journal that is damaged on its disk: what is as it was written goes on to whoever copies it, what is not is left out."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest

from caso_mesh.journal import Journal, Record, replica
from caso_mesh.journal.journal import Mended

MANY = 400
Open = Callable[[], AbstractAsyncContextManager[Journal]]


class Ticks:
    def __init__(self) -> None:
        self._ticks = itertools.count(1)

    def now_ns(self) -> int:
        return next(self._ticks)

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    numbers, clock = itertools.count(1), Ticks()

    def make() -> AbstractAsyncContextManager[Journal]:
        path = tmp_path / "journal.db"
        return Journal.open(path, "alpha", clock=clock, new_id=lambda: f"inc{next(numbers)}", same_thread=True)

    return make


class Copy:
    """An administrator's: all that ever arrived, each once."""

    def __init__(self) -> None:
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        for migration in replica.MIGRATIONS:
            self.conn.executescript(migration)
        self.arrived: list[bytes] = []

    def take(self, records: list[Record]) -> None:
        self.arrived += [record.data for record in replica.accept(self.conn, "alpha", records)]

    async def follow(self, journal: Journal) -> int:
        """As the courier does, until nothing is left to send; how many records nobody has."""
        missing = 0
        for _ in range(50):
            _, plan, records = await journal.survey(replica.cursors(self.conn, "alpha"))
            assert plan.rolled_back is None
            for head in plan.pruned:
                missing += replica.skip(self.conn, "alpha", head, 1)
            if plan.pruned:
                continue
            if not plan.send:
                return missing
            assert records, "there is something to send"
            self.take(records)
        raise AssertionError("it never comes to an end")


@pytest.fixture
def held() -> Copy:
    return Copy()


async def fill(journal: Journal, count: int = 10) -> None:
    await journal.append([("a", b"%03d" % number) for number in range(1, count + 1)])


def harm(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(sql)
        conn.commit()


def numbers(*wanted: int) -> list[bytes]:
    return [b"%03d" % number for number in wanted]


#: What is done to the file, and which of ten records are lost by that.
HARMS: list[tuple[str, set[int]]] = [
    ("UPDATE journal_record SET data = x'00' WHERE seq = 5", {5}),
    ("UPDATE journal_record SET at_ns = 0 WHERE seq = 5", {5}),
    ("UPDATE journal_record SET kind = 'b' WHERE seq IN (5, 6)", {5, 6}),
    ("UPDATE journal_record SET hash = x'00' WHERE seq = 5", set()),
    ("UPDATE journal_record SET hash = x'00' WHERE seq IN (5, 6)", {5, 6, 7}),
    ("UPDATE journal_record SET data = x'00' WHERE seq IN (2, 5, 8)", {2, 5, 8}),
    ("DELETE FROM journal_record WHERE seq = 5", {5, 6}),
    ("UPDATE journal_record SET data = x'00' WHERE seq = 1", {1}),
    ("UPDATE journal_record SET data = x'00' WHERE seq = 10", {10}),
    ("UPDATE journal_record SET hash = x'00' WHERE seq = 10", set()),
    ("DELETE FROM journal_record WHERE seq > 7", {8, 9, 10}),
    ("DELETE FROM journal_record", set(range(1, 11))),
    ("UPDATE journal_incarnation SET hash = x'00'", set()),
    ("UPDATE journal_incarnation SET seq = 4", set()),
]


@pytest.mark.parametrize(("sql", "lost"), HARMS)
@pytest.mark.parametrize("before", [0, 5])
async def test_records_that_are_not_what_was_written_are_left_out_and_all_others_arrive_once(
    opened: Open, held: Copy, tmp_path: Path, sql: str, lost: set[int], before: int
) -> None:
    """``before``: so many were at the administrator already."""
    async with opened() as journal:
        await fill(journal)
        held.take(await journal.records("inc1", 0, limit=before) if before else [])
    harm(tmp_path / "journal.db", sql)
    async with opened() as journal:
        await journal.append([("a", b"011")])
        await held.follow(journal)
        expected = [number for number in range(1, 12) if number not in lost or number <= before]
        assert sorted(held.arrived) == numbers(*expected)
        await journal.append([("a", b"012")])
        await held.follow(journal)
        assert held.arrived[-1] == b"012"
    async with opened() as journal:
        assert await held.follow(journal) == 0, "nothing is left out twice"


async def test_what_was_lost_is_said_once(opened: Open, tmp_path: Path) -> None:
    async with opened() as journal:
        await fill(journal)
    harm(tmp_path / "journal.db", "UPDATE journal_record SET data = x'00' WHERE seq IN (2, 5)")
    async with opened() as journal:
        assert [record.seq for record in await journal.records("inc1", 0)] == [1]
        assert [record.seq for record in await journal.records("inc1", 1)] == [3, 4]
        mended = await asyncio.wait_for(journal.next_mended(), 30)
        assert (mended.lost, mended.aside) == (2, None)
        assert "record 2 of inc1" in mended.detail
        assert [record.seq for record in await journal.records("inc1", 4)] == [6, 7, 8, 9, 10]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(journal.next_mended(), 0.01)


async def reopened(opened: Open, held: Copy) -> Mended:
    async with opened() as journal:
        mended = await asyncio.wait_for(journal.next_mended(), 30)
        await journal.append([("a", b"new")])
        await held.follow(journal)
    return mended


async def test_a_file_that_is_cut_in_half_is_put_aside_and_what_can_be_read_of_it_goes_on(
    opened: Open, held: Copy, tmp_path: Path
) -> None:
    async with opened() as journal:
        await fill(journal, MANY)
    path = tmp_path / "journal.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    mended = await reopened(opened, held)
    assert mended.aside is not None
    assert Path(mended.aside).exists()
    assert held.arrived[-1] == b"new"
    assert mended.lost is None or len(held.arrived) == MANY - mended.lost + 1


@pytest.mark.parametrize("page", range(1, 12, 3))
async def test_pages_of_nonsense_cost_what_lay_in_them_and_no_more(
    opened: Open, held: Copy, tmp_path: Path, page: int
) -> None:
    async with opened() as journal:
        await fill(journal, MANY)
    path = tmp_path / "journal.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(min(page * 4096, size - 4096))
        file.write(b"\xa5" * 4096)
    async with opened() as journal:
        await journal.append([("a", b"new")])
        for _ in range(2):  # what is found only now may need another start
            try:
                await held.follow(journal)
                break
            except Exception as error:
                assert type(error).__name__ == "StateDamaged"
                await journal._database.read(lambda c: None)
    arrived = held.arrived
    assert len(arrived) == len(set(arrived))
    assert arrived == sorted(arrived)


async def test_a_file_that_is_none_is_put_aside_and_the_journal_begins_anew(
    opened: Open, held: Copy, tmp_path: Path
) -> None:
    async with opened() as journal:
        await fill(journal)
    (tmp_path / "journal.db").write_bytes(b"no database at all" * 1000)
    mended = await reopened(opened, held)
    assert (mended.lost, mended.aside) == (None, str(tmp_path / "journal.db.damaged"))
    assert held.arrived == [b"new"]
