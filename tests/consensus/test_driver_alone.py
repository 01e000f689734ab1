"""The replicated log of one voter, with its disk."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from consensus_cluster import running
from consensus_conformance import check_consensus, commands, history, in_office

from caso_mesh.consensus import Entry, Leadership, Snapshot
from caso_mesh.consensus.port import KEPT_ENTRIES
from caso_mesh.model.errors import LogUnavailable, StateDamaged, StateFull, StateNotEmpty


@pytest.fixture(params=["threaded", "same-thread"])
def opened(request, tmp_path):
    def make(node="node", **more):
        return running(tmp_path / "consensus.db", node, same_thread=request.param == "same-thread", **more)

    return make


async def test_it_conforms(opened):
    await check_consensus(opened)


async def test_it_is_in_office_at_once_and_its_term_rises_at_each_start(opened):
    for term in (1, 2, 3):
        async with opened() as log:
            assert log.leadership() == Leadership(1, term, "node", in_office=True, voters=("node",))
            assert await history(log) == [Entry(n, n, "noop", b"") for n in range(1, term + 1)]


async def test_a_lineage_belongs_to_its_log(opened):
    for given in (2, 1, 5):
        async with opened(lineage=given) as log:
            assert log.leadership().lineage == 2


async def test_a_new_log_can_continue_from_a_recovered_state(opened):
    start = Snapshot(100, 7, b"recovered")
    for term in (8, 9):
        async with opened(start=start, lineage=3) as log:
            assert log.leadership().term == term
            assert await log.read_index() == 100 + term - 7
            assert (await history(log))[:2] == [start, Entry(101, 8, "noop", b"")]


async def test_concurrent_proposals_share_commits(tmp_path):
    async with running(tmp_path / "consensus.db", "node", same_thread=True) as log:
        before = log._database.generation
        await asyncio.gather(*(log.propose(b"x") for _ in range(200)))
        assert log._database.generation - before <= 2


async def test_compaction_keeps_the_last_thousand_entries_up_to_the_snapshot(opened):
    async with opened() as log:
        await asyncio.gather(*(log.propose(b"x") for _ in range(2999)))
        await log.compact(Snapshot(2500, 1, b"state"))
        first = 2501 - KEPT_ENTRIES
        assert (await history(log, first - 1))[0].index == first
        assert (await history(log, first - 2))[0] == Snapshot(2500, 1, b"state")


async def test_another_nodes_log_is_refused(opened):
    async with opened("alpha"):
        pass
    with pytest.raises(StateNotEmpty, match="alpha"):
        async with opened("beta"):
            raise AssertionError("not reached")


async def test_a_state_that_is_ahead_of_the_log_is_noticed(opened):
    async with opened() as log:
        with pytest.raises(StateDamaged, match="ends at 1, but the state made from it is at 9"):
            await anext(log.committed(9))


async def test_a_closed_log_refuses_commands(opened):
    async with opened() as log:
        pass
    with pytest.raises(LogUnavailable):
        await log.propose(b"x")
    with pytest.raises(LogUnavailable):
        await log.read_index()
    assert [item async for item in log.committed(0)] == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entry SET data = x'00' WHERE \"index\" = 3",
        'UPDATE entry SET term = 2 WHERE "index" = 3',
        "UPDATE entry SET kind = 'noop' WHERE \"index\" = 3",
        'DELETE FROM entry WHERE "index" = 3',
        'DELETE FROM entry WHERE "index" = 1',
        "DELETE FROM entry",
        "UPDATE standing SET term = 0",
        "UPDATE standing SET lineage = 9",
        "UPDATE standing SET vote = NULL",
        "UPDATE base SET term = 1",
        "DELETE FROM base",
        "DELETE FROM standing",
        "UPDATE snapshot SET data = x'00'",
    ],
)
async def test_damage_is_found_at_the_start_and_nothing_is_appended(opened, tmp_path, damage):
    async with opened() as log:
        for n in range(9):
            await log.propose(b"%d" % n)
        if "snapshot" in damage:
            await log.compact(Snapshot(5, 1, b"state"))
    with closing(sqlite3.connect(tmp_path / "consensus.db")) as conn:
        conn.execute(damage)
        conn.commit()
        before = list(conn.iterdump())
    with pytest.raises(StateDamaged):
        async with opened():
            raise AssertionError("not reached")
    with closing(sqlite3.connect(tmp_path / "consensus.db")) as conn:
        assert list(conn.iterdump()) == before


async def test_a_full_disk_refuses_cleanly_and_the_log_goes_on_afterwards(opened):
    async with opened() as log:
        await log._database.write(lambda conn: conn.execute("PRAGMA max_page_count=60").fetchall())
        taken = []
        with pytest.raises(StateFull):
            for n in range(100):
                await log.propose(b"%02d" % n * 5000)
                taken.append(n)
        assert taken
        with pytest.raises(StateFull):
            await log.propose(b"while it is full")
        await log._database.write(lambda conn: conn.execute("PRAGMA max_page_count=100000").fetchall())
        await asyncio.wait_for(in_office(log), 30)
        await log.propose(b"after")
        assert commands(await history(log)) == [b"%02d" % n * 5000 for n in taken] + [b"after"]


KILLED = """
import asyncio, sys
from consensus_cluster import running

async def main(path):
    async with running(path, "node") as log:
        async def one(n):
            position = await log.propose(b"%d" % n)
            print(position.index, n, flush=True)
        n = 0
        while True:
            await asyncio.gather(*(one(n + i) for i in range(10)))
            n += 10

asyncio.run(main(sys.argv[1]))
"""


async def test_acknowledged_commands_survive_kill_9_at_their_place(tmp_path):
    path = tmp_path / "consensus.db"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, cwd=pathlib.Path(__file__).parent
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
    async with running(path, "node") as log:
        entries = {item.index: item.data for item in await history(log)}
        assert log.leadership().term == 2
    for line in lines:
        index, n = line.split()
        assert entries[int(index)] == n
