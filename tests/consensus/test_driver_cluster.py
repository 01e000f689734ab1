"""The replicated log of several voters: elections, cuts, restarts, growth, with real disks."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
from contextlib import aclosing

import pytest
from consensus_cluster import Cluster, cluster, until

from caso_mesh.consensus import Entry, Replicated, Snapshot
from caso_mesh.model.errors import LogUnavailable, Misuse, NotLeader, StateRolledBack

pytestmark = pytest.mark.jumping


async def applied(log: Replicated, count: int) -> list[bytes]:
    """The first commands that a member hands out, once there are as many."""
    found: list[bytes] = []
    async with asyncio.timeout(30), aclosing(log.committed(0)) as entries:
        async for item in entries:
            if isinstance(item, Entry) and item.kind == "command":
                found.append(item.data)
            if len(found) >= count:
                return found
    raise AssertionError("closed")


async def test_all_members_hand_out_the_same_in_the_same_order(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        await asyncio.gather(*(c.nodes["a"].propose(b"%d" % n) for n in range(300)))
        logs = [await applied(log, 300) for log in c.nodes.values()]
        assert logs[0] == logs[1] == logs[2]
        assert sorted(logs[0]) == sorted(b"%d" % n for n in range(300))
        assert c.nodes["b"].leadership().voters == ("a", "b", "c")
        with pytest.raises(NotLeader):
            await c.nodes["b"].propose(b"not here")
        with pytest.raises(NotLeader):
            await c.nodes["b"].read_index()


async def test_the_death_of_the_leader_loses_nothing_that_was_acknowledged(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        for round_ in range(3):
            leader = await c.leader()
            for n in range(20):
                await c.nodes[leader].propose(b"%d.%d" % (round_, n))
            await c.stop(leader)
            assert await c.leader() != leader
            await c.start(leader)
        await c.propose(b"end")
        for log in c.nodes.values():
            found = await applied(log, 61)
            assert found[:60] == [b"%d.%d" % (round_, n) for round_ in range(3) for n in range(20)]


async def test_a_leader_that_is_cut_off_steps_down_and_answers_nothing(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        await c.propose(b"before")
        old = await c.leader()
        c.isolate(old)
        waiting = asyncio.create_task(c.nodes[old].propose(b"lost"))
        reading = asyncio.create_task(c.nodes[old].read_index())
        new = await c.leader(other_than=old)
        with pytest.raises(LogUnavailable):
            await asyncio.wait_for(waiting, 30)
        with pytest.raises(LogUnavailable):
            await asyncio.wait_for(reading, 30)
        assert not c.nodes[old].leadership().in_office
        await c.nodes[new].propose(b"after")
        c.cuts.clear()
        for log in c.nodes.values():
            assert await applied(log, 2) == [b"before", b"after"]
        # it deposed nobody on its return
        assert await c.leader() == new


async def test_without_a_majority_nothing_is_decided(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        leader = await c.leader()
        for other in [name for name in c.nodes if name != leader]:
            await c.stop(other)
        await until(lambda: not c.nodes[leader].leadership().in_office)
        with pytest.raises(NotLeader):
            await c.nodes[leader].propose(b"x")


async def test_a_member_that_was_away_for_long_gets_a_snapshot(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        leader = await c.leader()
        away = next(name for name in c.nodes if name != leader)
        await c.stop(away)
        log = c.nodes[leader]
        for _ in range(8):
            await asyncio.gather(*(log.propose(b"x") for _ in range(200)))
        index = await log.read_index()
        term = log.leadership().term
        await log.compact(Snapshot(index, term, b"state"))
        back = await c.start(away)
        await log.propose(b"goes on")
        await until(lambda: log.lacks(away) == 0)
        async with asyncio.timeout(30), aclosing(back.committed(0)) as entries:
            first = await anext(entries)
        assert first == Snapshot(index, term, b"state")
        # and it has it still after its own restart
        await c.stop(away)
        back = await c.start(away)
        async with asyncio.timeout(30), aclosing(back.committed(0)) as entries:
            assert await anext(entries) == first


async def test_the_lead_is_handed_over(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        await c.propose(b"x")
        leader = await c.leader()
        other = next(name for name in c.nodes if name != leader)
        await c.nodes[leader].transfer(other)
        assert await c.leader() == other
        with pytest.raises(Misuse, match="no voter"):
            await c.nodes[other].transfer("nobody")
        with pytest.raises(NotLeader):
            await c.nodes[leader].transfer(other)


async def test_members_are_removed_and_demoted(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        leader = await c.leader()
        one, other = (name for name in c.nodes if name != leader)
        await c.nodes[leader].set_member(one, "none")
        await c.nodes[leader].set_member(other, "learner")
        assert c.nodes[leader].leadership().voters == (leader,)
        assert c.nodes[leader].leadership().learners == (other,)
        await c.stop(one)
        await c.stop(other)
        await c.nodes[leader].propose(b"alone")
        with pytest.raises(Misuse):
            await c.nodes[leader].set_member(leader, "none")


async def test_what_is_of_another_lineage_or_forged_is_dropped(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        leader = await c.leader()
        follower = next(name for name in c.nodes if name != leader)
        before = c.nodes[follower].leadership()
        log = c.nodes[follower]
        log.receive(leader, 2, b"")
        log.receive(leader, 1, b"garbage")
        log.receive("stranger", 1, b"\xc1")
        await c.propose(b"still at work")
        assert c.nodes[follower].leadership().term == before.term


async def test_each_start_of_all_voters_ends_with_one_in_office(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        await c.propose(b"kept")
        for name in list(c.nodes):
            await c.stop(name)
        again = Cluster(tmp_path)
        try:
            for name in ("a", "b", "c"):
                await again.start(name)
            await again.propose(b"later")
            for log in again.nodes.values():
                assert (await applied(log, 2))[:2] == [b"kept", b"later"]
        finally:
            await again.close()


async def test_a_disk_that_was_put_back_takes_part_in_nothing(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        await c.propose(b"one")
        leader = await c.leader()
        victim = next(name for name in c.nodes if name != leader)
        await c.stop(victim)
        shutil.copy(c.path(victim), tmp_path / "old")
        await c.start(victim)
        await c.propose(b"two")
        await until(lambda: c.nodes[leader].lacks(victim) == 0)
        await c.stop(victim)
        shutil.copy(tmp_path / "old", c.path(victim))
        with pytest.raises(BaseExceptionGroup) as found:
            async with c.opened(victim) as log:
                await asyncio.wait_for(log.run(), 30)
        assert found.group_contains(StateRolledBack, match=r"older copy")
        await c.propose(b"goes on with two")


async def test_the_founder_that_left_and_came_back_with_an_empty_log_does_not_elect_itself(
    tmp_path: pathlib.Path,
) -> None:
    """Found by the mesh simulator: the first server of a mesh was removed from the voters and added again. Its new, empty
    log began with the voters of the first day: itself alone. So it elected itself, and was in office of a mesh of its own
    with nothing in it, until the others reached it. A restart in between must not make it forget that it waits."""
    async with cluster(tmp_path, "a", "b", "c") as c:
        await c.propose(b"before")
        await c.nodes[await c.leader()].transfer("b")
        first = c.nodes["b"]
        await until(lambda: first.leadership().in_office)
        await first.set_member("a", "none")
        await c.stop("a")
        for left in tmp_path.glob("a.db*"):
            left.unlink()
        founders = first.founders
        assert founders == ("a",)
        c.cuts = {(one, other) for one in "abc" for other in "abc" if "a" in {one, other}}
        for joins in (founders, ()):
            blank = await c.start("a", joins=joins)
            await asyncio.sleep(1.0)  # several times what an election takes
            assert not blank.leadership().in_office
            assert blank.leadership().term == 0
            if joins:
                await c.stop("a")
        c.cuts.clear()
        await first.set_member("a", "learner")
        await until(lambda: first.lacks("a") == 0)
        await first.set_member("a", "voter")
        assert await applied(c.nodes["a"], 1) == [b"before"]
