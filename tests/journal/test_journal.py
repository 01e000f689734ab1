"""A server's own journal."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import signal
import struct
import subprocess
import sys

import pytest

from caso_mesh.journal import Head, Journal, Record
from caso_mesh.model.errors import Misuse, StateFull, StateNotEmpty


class TickingClock:
    """One nanosecond later at each look."""

    def __init__(self, start_ns: int = 1000) -> None:
        self._ticks = itertools.count(start_ns)

    def now_ns(self) -> int:
        return next(self._ticks)

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture(params=["threaded", "same-thread"])
def opened(request, tmp_path):
    numbers = itertools.count(1)

    def make(server="alpha"):
        return Journal.open(
            tmp_path / "journal.db",
            server,
            clock=TickingClock(),
            new_id=lambda: f"inc{next(numbers)}",
            same_thread=request.param == "same-thread",
        )

    return make


def expected_hash(previous: bytes, record: Record) -> bytes:
    """The chain, written down a second time."""
    inc, kind = record.incarnation.encode(), record.kind.encode()
    text = previous + struct.pack(">Q", len(inc)) + inc + struct.pack(">Qq", record.seq, record.at_ns)
    text += struct.pack(">Q", len(kind)) + kind + struct.pack(">Q", len(record.data)) + record.data
    return hashlib.sha256(text).digest()


def expected_first_hash(server: bytes, incarnation: bytes) -> bytes:
    framed = b"".join(struct.pack(">Q", len(part)) + part for part in (server, incarnation))
    return hashlib.sha256(b"caso-mesh journal 1\x00" + framed).digest()


async def test_records_come_back_in_order_with_a_chain_of_hashes(opened):
    async with opened() as journal:
        first = await journal.head()
        assert first == Head("inc1", 0, expected_first_hash(b"alpha", b"inc1"))
        head = await journal.append([("log", b"one"), ("log", b""), ("set", b"\x00\xff")])
        head = await journal.append([("log", b"four")])
        assert head == await journal.head()
        records = await journal.records("inc1", 0)
        assert [(r.seq, r.at_ns, r.kind, r.data) for r in records] == [
            (1, 1000, "log", b"one"),
            (2, 1000, "log", b""),
            (3, 1000, "set", b"\x00\xff"),
            (4, 1001, "log", b"four"),
        ]
        previous = first.hash
        for record in records:
            assert record.hash == expected_hash(previous, record) == await journal.hash_at("inc1", record.seq)
            previous = record.hash
        assert head == Head("inc1", 4, previous)


async def test_what_was_appended_is_there_after_reopening_in_the_same_incarnation(opened):
    async with opened() as journal:
        head = await journal.append([("a", b"1")])
    async with opened() as journal:
        assert await journal.head() == head
        assert (await journal.append([("a", b"2")])).seq == 2
        assert [r.data for r in await journal.records("inc1", 0)] == [b"1", b"2"]
        assert [h.seq for h in await journal.incarnations()] == [2]


async def test_an_empty_append_changes_nothing(opened):
    async with opened() as journal:
        assert await journal.append([]) == await journal.head()
        assert (await journal.head()).seq == 0


async def test_concurrent_appends_keep_the_order_of_the_calls_and_stay_whole(opened):
    async with opened() as journal:
        heads = await asyncio.gather(*(journal.append([("x", b"%d-%d" % (n, i)) for i in range(3)]) for n in range(40)))
        assert [head.seq for head in heads] == list(range(3, 121, 3))
        records = await journal.records("inc1", 0)
        assert [r.data for r in records] == [b"%d-%d" % (n, i) for n in range(40) for i in range(3)]


async def test_reading_is_bounded_by_count_and_bytes_but_never_stuck(opened):
    async with opened() as journal:
        await journal.append([("x", bytes(1000))] * 10)
        assert len(await journal.records("inc1", 0, limit=3)) == 3
        assert 1 < len(await journal.records("inc1", 0, max_bytes=5000)) < 5
        assert [r.seq for r in await journal.records("inc1", 4, max_bytes=1)] == [5]
        assert await journal.records("inc1", 10) == []
        assert await journal.records("other", 0) == []


async def test_hashes_of_what_is_not_there_are_none(opened):
    async with opened() as journal:
        assert await journal.hash_at("inc1", 0) == (await journal.head()).hash
        assert await journal.hash_at("inc1", 1) is None
        assert await journal.hash_at("other", 0) is None


async def test_a_new_incarnation_counts_from_one_and_keeps_the_old(opened):
    async with opened() as journal:
        old = await journal.append([("a", b"1"), ("a", b"2")])
        begun = await journal.begin_incarnation()
        assert begun == Head("inc2", 0, expected_first_hash(b"alpha", b"inc2"))
        new = await journal.append([("b", b"3")])
        assert (new.incarnation, new.seq) == ("inc2", 1)
        assert await journal.incarnations() == [old, new]
        assert [r.data for r in await journal.records("inc1", 0)] == [b"1", b"2"]
    async with opened() as journal:
        assert await journal.head() == new


async def test_records_move_into_a_new_incarnation_with_their_times(opened):
    async with opened() as journal:
        await journal.append([("a", b"1"), ("a", b"2")])
        await journal.append([("a", b"3"), ("b", bytes(2 << 20)), ("a", b"5")])
        second = await journal.hash_at("inc1", 2)
        head = await journal.begin_incarnation(moving=("inc1", 2))
        assert await journal.incarnations() == [Head("inc1", 2, second), head]
        moved = await journal.records("inc2", 0, max_bytes=8 << 20)
        assert [(r.seq, r.at_ns, r.kind, len(r.data)) for r in moved] == [
            (1, 1001, "a", 1),
            (2, 1001, "b", 2 << 20),
            (3, 1001, "a", 1),
        ]
        assert [r.data for r in await journal.records("inc1", 0)] == [b"1", b"2"]
        with pytest.raises(Misuse):
            await journal.begin_incarnation(moving=("inc1", 3))
        assert (await journal.head()) == head


async def test_what_is_to_be_sent_is_found_in_one_look(opened):
    async with opened() as journal:
        first = await journal.append([("a", b"1"), ("a", b"2")])
        for cursors in ([], [first], [Head("inc1", 1, await journal.hash_at("inc1", 1))]):
            head, plan, records = await journal.survey(cursors)
            assert (head, plan) == (first, await journal.plan(cursors))
            after = plan.send[0].after if plan.send else 2
            assert records == await journal.records("inc1", after)
        head, plan, records = await journal.survey([Head("inc1", 3, b"unknown")])
        assert plan.rolled_back is not None
        assert records == []


async def test_waiting_ends_with_the_next_record_and_not_before(opened):
    async with opened() as journal:
        head = await journal.append([("a", b"1")])
        waiting = asyncio.ensure_future(journal.wait_beyond(head))
        await journal.begin_incarnation()
        await journal.records("inc1", 0)
        assert not waiting.done()
        await journal.append([("a", b"2")])
        await asyncio.wait_for(waiting, 30)
        await asyncio.wait_for(journal.wait_beyond(head), 30)
        with pytest.raises(Misuse):
            await journal.wait_beyond(Head("other", 1, b""))


async def test_a_cancelled_append_is_noticed_by_those_who_wait(opened):
    async with opened() as journal:
        head = await journal.head()
        waiting = asyncio.ensure_future(journal.wait_beyond(head))
        task = asyncio.ensure_future(journal.append([("a", b"1")]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await journal.append([("a", b"2")])
        await asyncio.wait_for(waiting, 30)


async def test_another_servers_journal_is_refused(opened):
    async with opened("alpha"):
        pass
    with pytest.raises(StateNotEmpty, match="alpha"):
        async with opened("beta"):
            raise AssertionError("not reached")


async def test_a_full_disk_refuses_and_the_journal_goes_on_afterwards(opened):
    async with opened() as journal:
        head = await journal.append([("a", b"1")])
        await journal._database.write(lambda conn: conn.execute("PRAGMA max_page_count=30").fetchall())
        with pytest.raises(StateFull):
            await journal.append([("a", b"small"), ("a", bytes(1 << 20))])
        assert await journal.head() == head
        await journal._database.write(lambda conn: conn.execute("PRAGMA max_page_count=100000").fetchall())
        assert (await journal.append([("a", bytes(1 << 20))])).seq == 2


KILLED = """
import asyncio, itertools, sys, time
from caso_mesh.journal import Journal

class Clock:
    now_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)

async def main(path):
    async with Journal.open(path, "alpha", clock=Clock(), new_id=lambda: "inc") as journal:
        for n in itertools.count():
            heads = await asyncio.gather(*(journal.append([("a", b"x" * n)]) for n in range(10)))
            print(heads[-1].seq, heads[-1].hash.hex(), flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_acknowledged_facts_survive_kill_9(opened, tmp_path):
    path = tmp_path / "journal.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
    async with opened() as journal:
        for line in lines:
            seq, digest = line.split()
            assert await journal.hash_at("inc", int(seq)) == bytes.fromhex(digest.decode())


# --- what is held back ---


async def test_what_is_held_back_is_in_no_journal_until_it_is_released_with_its_own_time(opened):
    async with opened() as journal:
        head = await journal.append([("fact", b"1")])
        await journal.hold([("log/a", "job-log", b"2"), ("log/b", "job-log", b"3"), ("log/a", "job-log", b"4")])
        assert await journal.head() == head
        assert await journal.held_keys() == ["log/a", "log/b"]
        held = await journal.held("log/a")
        assert [(kind, data) for _, kind, data in held] == [("job-log", b"2"), ("job-log", b"4")]
        after = await journal.append([("fact", b"5")], release=["log/a", "log/absent"])
        records = await journal.records(after.incarnation, head.seq)
        assert [(r.kind, r.data) for r in records] == [("job-log", b"2"), ("job-log", b"4"), ("fact", b"5")]
        assert [r.at_ns for r in records[:2]] == [at_ns for at_ns, _, _ in held]
        assert await journal.held_keys() == ["log/b"]
    async with opened() as journal:
        assert [data for _, _, data in await journal.held("log/b")] == [b"3"]
        last = await journal.append([], release=["log/b"])
        assert last.seq == after.seq + 1 and await journal.held_keys() == []
        assert await journal.append([], release=["log/b"]) == last


async def test_what_is_held_back_is_forgotten_when_nothing_came_for_long_and_not_by_halves(opened):
    async with opened() as journal:
        await journal.hold([("log/a", "job-log", b"1")])
        await journal.hold([("log/b", "job-log", b"2")])
        (at_ns, _, _), = await journal.held("log/b")  # fmt: skip
        await journal.hold([("log/a", "job-log", b"3")])
        assert await journal.forget_held(at_ns) == 0
        assert await journal.forget_held(at_ns + 1) == 1
        assert await journal.held_keys() == ["log/a"] and len(await journal.held("log/a")) == 2


async def test_the_file_of_a_journal_becomes_smaller_when_it_is_pruned(opened, tmp_path):
    """It kept the size of the worst night for ever."""
    path = tmp_path / "journal.db"
    async with opened() as journal:
        for _ in range(10):
            await journal.append([("fact", os.urandom(20_000)) for _ in range(50)])
        head = await journal.head()
    full = path.stat().st_size
    assert full > 10_000_000
    async with opened() as journal:
        await journal.prune({"inc1": head.seq - 5}, before_ns=1 << 62, trace_since_ns=0)
        assert len(await journal.records("inc1", head.seq - 5)) == 5
    assert path.stat().st_size < full // 4


async def test_how_much_waits_is_told_by_what_lies_behind_what_was_taken(opened):
    async with opened() as journal:
        await journal.append([("a", bytes(1000))] * 1000)
        everything = await journal.waiting_bytes({})
        assert 1_000_000 < everything < 1_500_000
        assert await journal.waiting_bytes({"inc1": 500}) == pytest.approx(everything / 2, rel=0.01)
        assert await journal.waiting_bytes({"inc1": 1000}) == await journal.waiting_bytes({"inc1": 2000}) == 0
        await journal.prune({"inc1": 900}, before_ns=1 << 62, trace_since_ns=1 << 62)
        assert await journal.waiting_bytes({}) < everything / 5
