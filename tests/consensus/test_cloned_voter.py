"""A voter's state folder that runs on two machines: what the log can hold against it, and where its promise ends.

Nobody can tell a copy from the same server, started again, as long as nobody sees both: where a mesh is cut so that each half
sees one of them, each half has a majority. What is promised is that this is noticed when the halves meet, and that neither half
goes on to change what the other one has committed.
"""

from __future__ import annotations

import asyncio
import pathlib
import shutil

import pytest
from consensus_cluster import Cluster, cluster, until

from caso_mesh.model.errors import CasoError, LogContradicted

pytestmark = pytest.mark.jumping


async def founded(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The folders of two halves of a mesh of three, whose voters have stopped; each has a copy of all of them."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    async with cluster(one, "a", "b", "c") as c:
        await c.propose(b"before")
        await until(lambda: all(c.nodes["a"].lacks(name) == 0 for name in "bc"))
    shutil.copytree(one, other)
    return one, other


async def halves(tmp_path: pathlib.Path) -> tuple[Cluster, Cluster]:
    """a sees c, b sees the copy of c."""
    one, other = await founded(tmp_path)
    left, right = Cluster(one), Cluster(other)
    for half, names in ((left, "ac"), (right, "bc")):
        for name in names:
            await half.start(name)
    await asyncio.gather(left.propose(b"left"), right.propose(b"right"))
    return left, right


def meet(left: Cluster, right: Cluster) -> None:
    """a and b see each other, and so do they and both of c."""
    left.nodes["b"], right.nodes["a"] = right.nodes["b"], left.nodes["a"]


async def stop(half: Cluster, name: str, *foreign: str) -> BaseException | None:
    """What ended a member, if not this."""
    try:
        await half.stop(name)
    except ExceptionGroup as ended:
        (error,) = ended.exceptions
        assert isinstance(error, LogContradicted)
        return error
    finally:
        for each in foreign:
            half.nodes.pop(each, None)
    return None


async def goes_on(half: Cluster, name: str) -> bool:
    """Whether a leader still commits what it is given."""
    try:
        await asyncio.wait_for(half.nodes[name].propose(b"more"), 5.0)
    except (CasoError, TimeoutError):
        return False
    return True


async def test_halves_that_were_led_in_one_term_stop_when_they_meet(tmp_path: pathlib.Path) -> None:
    """Their entries have the same places and terms, so that they were taken for one log: who followed the other half from then on had
    another past than its leader, unnoticed."""
    left, right = await halves(tmp_path)
    a, b = left.nodes["a"].leadership(), right.nodes["b"].leadership()
    assert (a.leader, b.leader) == ("a", "b") and a.term == b.term, "this is the limit that the threat model tells of"
    meet(left, right)
    async with asyncio.timeout(60.0):
        while await goes_on(left, "a") and await goes_on(right, "b"):  # noqa: ASYNC110 - looks at both
            await asyncio.sleep(0.1)  # virtual time, in which heartbeats are sent
    told = [str(await stop(left, "a", "b")), str(await stop(right, "b", "a"))]
    assert any("both lead in term" in error for error in told), told
    for half in (left, right):
        await stop(half, "c")
