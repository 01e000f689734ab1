"""What every implementation of the ``Consensus`` port must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

import pytest

from caso_mesh.consensus import MAX_COMMAND, Consensus, Entry, Leadership, Position, Snapshot
from caso_mesh.model.errors import Misuse

#: Opens a node that is in office soon after. Called again after closing, it opens the same node again: its log is kept.
Factory = Callable[[], AbstractAsyncContextManager[Consensus]]


async def check_consensus(factory: Factory) -> None:
    """Run every check, one after the other, on one log that grows and is reopened in between."""
    await _check_office(factory)
    await _check_order_and_positions(factory)
    await _check_reading_in_parallel(factory)
    await _check_limits(factory)
    await _check_cancelled_proposals(factory)
    await _check_restart(factory)
    await _check_compaction(factory)
    await _check_closing(factory)


async def in_office(log: Consensus) -> Leadership:
    async with aclosing(log.leadership_changes()) as changes:
        async for leadership in changes:
            if leadership.in_office:
                return leadership
    raise AssertionError("closed before it was in office")


async def take(entries: AsyncIterator[Entry | Snapshot], until: int) -> list[Entry | Snapshot]:
    """All that comes until the index ``until`` is reached."""
    found: list[Entry | Snapshot] = []
    async for item in entries:
        found.append(item)
        if item.index >= until:
            break
    return found


async def history(log: Consensus, after: int = 0) -> list[Entry | Snapshot]:
    until = await log.read_index()
    if until <= after:
        return []
    async with aclosing(log.committed(after)) as entries:
        return await asyncio.wait_for(take(entries, until), 30)


def commands(items: list[Entry | Snapshot]) -> list[bytes]:
    return [item.data for item in items if isinstance(item, Entry) and item.kind == "command"]


async def _check_office(factory: Factory) -> None:
    async with factory() as log:
        leadership = await asyncio.wait_for(in_office(log), 30)
        assert leadership.leader in leadership.voters
        assert leadership.term >= 1
        assert leadership.lineage >= 1
        assert log.leadership() == leadership
        entries = await history(log)
        assert isinstance(entries[-1], Entry)
        assert (entries[-1].kind, entries[-1].term, entries[-1].data) == ("noop", leadership.term, b"")


async def _check_order_and_positions(factory: Factory) -> None:
    async with factory() as log:
        await in_office(log)
        start = await log.read_index()
        one_by_one = [await log.propose(b"%d" % n) for n in range(5)]
        assert one_by_one == sorted(set(one_by_one))
        assert await log.read_index() == one_by_one[-1].index
        at_once = await asyncio.gather(*(log.propose(b"c%d" % n) for n in range(50)))
        assert len(set(at_once)) == 50
        assert min(at_once) > one_by_one[-1]
        entries = await history(log, start)
        assert [entry.index for entry in entries] == list(range(start + 1, start + 56))
        by_position = {Position(entry.term, entry.index): entry.data for entry in entries}
        assert [by_position[position] for position in one_by_one] == [b"%d" % n for n in range(5)]
        assert [by_position[position] for position in at_once] == [b"c%d" % n for n in range(50)]


async def _check_reading_in_parallel(factory: Factory) -> None:
    async with factory() as log:
        await in_office(log)
        start = await log.read_index()

        async def follow(after: int) -> list[Entry | Snapshot]:
            async with aclosing(log.committed(after)) as entries:
                return await take(entries, start + 40)

        early = [asyncio.ensure_future(follow(start)) for _ in range(3)]
        for n in range(30):
            await log.propose(b"p%d" % n)
        late = asyncio.ensure_future(follow(start + 30))
        for n in range(30, 40):
            await log.propose(b"p%d" % n)
        results = await asyncio.wait_for(asyncio.gather(*early), 30)
        assert results[0] == results[1] == results[2]
        assert commands(results[0]) == [b"p%d" % n for n in range(40)]
        assert commands(await asyncio.wait_for(late, 30)) == [b"p%d" % n for n in range(30, 40)]


async def _check_limits(factory: Factory) -> None:
    async with factory() as log:
        await in_office(log)
        start = await log.read_index()
        await log.propose(b"")
        largest = bytes(range(256)) * (MAX_COMMAND // 256)
        await log.propose(largest)
        with pytest.raises(Misuse):
            await log.propose(largest + b"x")
        assert commands(await history(log, start)) == [b"", largest]


async def _check_cancelled_proposals(factory: Factory) -> None:
    """A cancelled proposal is committed once or never; followers notice it either way, and nothing is stuck."""
    async with factory() as log:
        await in_office(log)
        start = await log.read_index()
        for turns in range(6):
            task = asyncio.ensure_future(log.propose(b"cancelled%d" % turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await log.propose(b"last")
        found = commands(await history(log, start))
        assert found[-1] == b"last"
        assert len(found) == len(set(found))
        assert found == sorted(found)


async def _check_restart(factory: Factory) -> None:
    async with factory() as log:
        before = await in_office(log)
        position = await log.propose(b"kept")
        entries = await history(log)
    async with factory() as log:
        after = await asyncio.wait_for(in_office(log), 30)
        assert after.term > before.term
        assert after.lineage == before.lineage
        again = await history(log)
        assert again[: len(entries)] == entries
        new = again[len(entries) :]
        assert all(isinstance(entry, Entry) and entry.kind == "noop" for entry in new)
        assert new[-1].term == after.term
        assert await log.propose(b"later") > position


async def _check_compaction(factory: Factory) -> None:
    async with factory() as log:
        await in_office(log)
        for _ in range(30):
            await asyncio.gather(*(log.propose(b"bulk") for _ in range(100)))
        entries = [item for item in await history(log) if isinstance(item, Entry)]
        middle = entries[-1500]
        snapshot = Snapshot(middle.index, middle.term, b"the state")
        await log.compact(snapshot)
        assert await history(log, middle.index) == entries[-1499:]
        assert await history(log, middle.index - 900) == entries[-1500 - 899 :]
        assert await history(log) == [snapshot, *entries[-1499:]]
        await log.compact(Snapshot(middle.index - 1, entries[-1501].term, b"older"))
        assert (await history(log))[0] == snapshot
        with pytest.raises(Misuse):
            await log.compact(Snapshot(entries[-1].index + 100, entries[-1].term, b"beyond"))
        with pytest.raises(Misuse):
            await log.compact(Snapshot(entries[-1].index, entries[-1].term + 7, b"of another term"))
    async with factory() as log:
        await in_office(log)
        found = await history(log)
        assert found[0] == snapshot
        assert found[1:1500] == entries[-1499:]
        last = found[-1]
        newer = Snapshot(last.index, last.term, b"newer" * 300_000)
        async with aclosing(log.committed(0)) as slow:
            assert await anext(slow) == snapshot
            reached = (await anext(slow)).index
            assert reached == snapshot.index + 1
            await log.compact(newer)
            # Overtaken: entries go on without a gap, or the newer snapshot replaces those that went.
            for item in await asyncio.wait_for(take(slow, newer.index), 30):
                assert item == newer or item.index == reached + 1
                reached = item.index
        assert reached == newer.index
        assert await history(log) == [newer]
        position = await log.propose(b"after the snapshot")
        assert (await history(log, last.index))[0].index == position.index


async def _check_closing(factory: Factory) -> None:
    async with factory() as log:
        await in_office(log)
        start = await log.read_index()

        seen = asyncio.Event()

        async def follow() -> list[Entry | Snapshot]:
            found = []
            async for item in log.committed(start):
                found.append(item)
                seen.set()
            return found

        async def watch() -> int:
            return len([change async for change in log.leadership_changes()])

        following, watching = asyncio.ensure_future(follow()), asyncio.ensure_future(watch())
        await log.propose(b"seen")
        await asyncio.wait_for(seen.wait(), 30)
    assert commands(await asyncio.wait_for(following, 30)) == [b"seen"]
    assert await asyncio.wait_for(watching, 30) >= 1
