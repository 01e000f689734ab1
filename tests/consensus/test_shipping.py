"""Snapshots that are larger than a message: in pieces, over narrow and broken ways."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
from contextlib import aclosing

import pytest
from consensus_cluster import Cluster, cluster, until

from caso_mesh.consensus import Replicated, Snapshot
from caso_mesh.consensus.membership import Membership
from caso_mesh.consensus.shipping import MOST_BYTES, Arriving, Piece

pytestmark = pytest.mark.jumping

#: More than 20 MB, of which no part is like another.
STATE = hashlib.shake_256(b"a state").digest(24 << 20)
#: What one message of the mesh may hold, and less.
MOST_MESSAGE = 3 << 19


async def away_for_long(c: Cluster) -> tuple[Replicated, str, Snapshot]:
    """The log of the leader, and a member that is down and lacks more than the log holds."""
    leader = await c.leader()
    away = next(name for name in c.nodes if name != leader)
    await c.stop(away)
    log = c.nodes[leader]
    for _ in range(6):
        await asyncio.gather(*(log.propose(b"x") for _ in range(200)))
    snapshot = Snapshot(await log.read_index(), log.leadership().term, STATE)
    await log.compact(snapshot)
    return log, away, snapshot


async def first_of(log: Replicated) -> object:
    async with asyncio.timeout(30), aclosing(log.committed(0)) as entries:
        return await anext(entries)


async def test_a_state_of_many_megabytes_arrives_where_messages_are_bounded(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        c.most_bytes = MOST_MESSAGE
        log, away, snapshot = await away_for_long(c)
        back = await c.start(away)
        await until(lambda: log.lacks(away) == 0)
        assert await first_of(back) == snapshot
        await c.stop(away)
        assert await first_of(await c.start(away)) == snapshot


async def test_a_slow_way_is_not_taken_for_a_dead_member(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        log, away, snapshot = await away_for_long(c)
        other = next(name for name, each in c.nodes.items() if each is not log)
        before = log.leadership()
        c.bytes_per_s = 8e6  # 3 s for all of it: fifteen election timeouts
        back = await c.start(away)
        await until(lambda: back.leadership().leader is not None)
        assert log.lacks(away)
        # without the one that receives there is no majority: were it not heard, the office would end
        await c.stop(other)
        await until(lambda: log.lacks(away) == 0)
        c.bytes_per_s = None
        assert await first_of(back) == snapshot
        assert log.leadership().term == back.leadership().term == before.term
        assert log.leadership().in_office


async def test_what_has_arrived_is_not_sent_again_when_the_way_breaks(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        log, away, snapshot = await away_for_long(c)
        leader = await c.leader()
        sent = 0

        def count(sender: str, to: str, data: bytes) -> bytes:
            nonlocal sent
            sent += len(data) if to == away else 0
            return data

        c.touch, c.bytes_per_s = count, 12e6
        back = await c.start(away)
        for part in (0.25, 0.5, 0.75):
            await until(lambda part=part: sent > part * len(STATE))
            c.cut(leader, away)
            await until(lambda: log.leadership().in_office and back.leadership().leader is None)
            c.cuts.clear()
        await until(lambda: log.lacks(away) == 0)
        assert await first_of(back) == snapshot
        assert sent < 1.4 * len(STATE)


async def test_a_piece_that_was_changed_on_its_way_does_not_become_a_state(tmp_path: pathlib.Path) -> None:
    async with cluster(tmp_path, "a", "b", "c") as c:
        log, away, snapshot = await away_for_long(c)
        middle = STATE[len(STATE) // 2 :][:32]
        spoilt = 0

        def spoil(sender: str, to: str, data: bytes) -> bytes:
            nonlocal spoilt
            if spoilt or middle not in data:
                return data
            spoilt += 1
            return data.replace(middle, bytes(32))

        c.touch = spoil
        back = await c.start(away)
        await until(lambda: log.lacks(away) == 0)
        assert spoilt == 1
        assert await first_of(back) == snapshot


def test_what_arrives_is_bounded_and_in_order() -> None:
    arriving, members = Arriving(), Membership(("a", "b"))
    data = bytes(range(200))
    digest = hashlib.sha256(data).digest()

    def piece(offset: int, size: int = 100, whole: int = len(data)) -> Piece:
        return Piece("b", "a", 1, 1, 7, 1, members, whole, digest, offset, data[offset : offset + size])

    assert arriving.take(piece(100), needed=True) == (0, None)  # what lies before it is not here
    assert arriving.take(piece(0), needed=True) == (100, None)
    assert arriving.take(piece(0), needed=True) == (100, None)  # twice
    assert arriving.take(piece(100, whole=150), needed=True) == (0, None)  # another snapshot
    assert arriving.take(piece(0, whole=MOST_BYTES + 1), needed=True) == (0, None)
    assert arriving.take(piece(0), needed=True) == (100, None)
    assert arriving.take(piece(100), needed=False) == (200, None)
    held, image = arriving.take(piece(100), needed=True)
    assert image is not None
    assert (held, image.index, image.data) == (200, 7, data)
    assert arriving.take(piece(100), needed=True) == (0, None)
