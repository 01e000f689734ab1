"""Members of one replicated log in this process: real disks, links in memory that can be cut. In virtual time: a machine or a
disk that stands still for a second elects nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from caso_mesh.consensus import Replicated, Timing, elected, open_replicated
from caso_mesh.model.errors import CasoError

#: Quick enough for a test of one voter in real time.
QUICK = Timing(tick_s=0.02, election_ticks=10, heartbeat_ticks=2)


@contextlib.asynccontextmanager
async def running(
    path: str | os.PathLike[str], node: str, *, wait: bool = True, **more: Any
) -> AsyncIterator[Replicated]:
    """The log of a node, open and at work; in office unless it is not waited for."""
    async with open_replicated(path, node, **{"timing": QUICK, **more}) as log:
        task = asyncio.create_task(log.run())
        try:
            if wait:
                await asyncio.wait_for(elected(log), 30)
            yield log
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]  # it is one


class Cluster:
    """``start`` and ``stop`` members; ``cut`` and ``mend`` the way between two of them, in one direction."""

    def __init__(self, folder: pathlib.Path, timing: Timing = QUICK) -> None:
        self.folder, self.timing = folder, timing
        self.nodes: dict[str, Replicated] = {}
        self.cuts: set[tuple[str, str]] = set()
        #: A longer message is refused by the way.
        self.most_bytes: int | None = None
        #: Bytes that a way carries in a second; what is said next waits behind them.
        self.bytes_per_s: float | None = None
        #: What is to happen to a message on its way.
        self.touch: Callable[[str, str, bytes], bytes] = lambda sender, to, data: data
        self._free_at: dict[tuple[str, str], float] = {}
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}

    def path(self, node: str) -> pathlib.Path:
        return self.folder / f"{node}.db"

    def _ways(self, node: str) -> dict[str, Any]:
        async def transport(to: str, lineage: int, data: bytes) -> bool:
            other = self.nodes.get(to)
            if other is None or (node, to) in self.cuts or len(data) > (self.most_bytes or len(data)):
                return False
            data = self.touch(node, to, data)
            loop = asyncio.get_running_loop()
            at = loop.time()
            if self.bytes_per_s is not None:
                at = max(at, self._free_at.get((node, to), 0.0)) + len(data) / self.bytes_per_s
                self._free_at[node, to] = at
            await asyncio.sleep(0)
            loop.call_at(at, arrive, to, lineage, data)
            return True

        def arrive(to: str, lineage: int, data: bytes) -> None:
            other = self.nodes.get(to)
            if other is not None and (node, to) not in self.cuts:
                other.receive(node, lineage, data)

        return {"transport": transport, "jitter": random.Random(node), "same_thread": True}

    @contextlib.asynccontextmanager
    async def opened(self, node: str) -> AsyncIterator[Replicated]:
        """The log of a member that is reached by the others, and that nobody runs yet."""
        async with open_replicated(self.path(node), node, timing=self.timing, **self._ways(node)) as log:
            self.nodes[node] = log
            try:
                yield log
            finally:
                del self.nodes[node]

    async def start(self, node: str, *, joins: tuple[str, ...] = ()) -> Replicated:
        stack = contextlib.AsyncExitStack()
        log = await stack.enter_async_context(
            running(self.path(node), node, wait=False, joins=joins, timing=self.timing, **self._ways(node))
        )
        self._stacks[node], self.nodes[node] = stack, log
        return log

    async def stop(self, node: str) -> None:
        """As a daemon that ends; what it has in memory only is lost."""
        del self.nodes[node]
        await self._stacks.pop(node).aclose()

    async def grow(self, *names: str) -> None:
        """The first alone, then each of the others: a learner first, then a voter."""
        await self.start(names[0])
        first = self.nodes[names[0]]
        await elected(first)
        for name in names[1:]:
            await self.start(name, joins=first.founders)
            await first.set_member(name, "learner")
        for name in names[1:]:
            await until(lambda name=name: first.lacks(name) == 0)
            await first.set_member(name, "voter")

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        self.cuts |= {(one, other), (other, one)} if both else {(one, other)}

    def isolate(self, node: str) -> None:
        for other in self.nodes:
            if other != node:
                self.cut(node, other)

    async def leader(self, *, other_than: str | None = None, timeout_s: float = 20.0) -> str:
        """Who is in office, once somebody is."""

        def found() -> str | None:
            for name, log in self.nodes.items():
                if name != other_than and log.leadership().in_office:
                    return name
            return None

        await until(found, timeout_s)
        name = found()
        assert name is not None
        return name

    async def propose(self, data: bytes) -> None:
        """At whoever is in office, again and again until it is committed: so it may be there twice."""
        while True:
            try:
                await asyncio.wait_for(self.nodes[await self.leader()].propose(data), 2.0)
                return
            except (CasoError, TimeoutError):
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for node in list(self.nodes):
            await self.stop(node)


async def until(predicate: Any, timeout_s: float = 20.0) -> None:
    """Waits for something that is so soon."""
    async with asyncio.timeout(timeout_s):
        while not predicate():  # noqa: ASYNC110 - looks at many members
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def cluster(folder: pathlib.Path, *names: str, timing: Timing = QUICK) -> AsyncIterator[Cluster]:
    found = Cluster(folder, timing)
    try:
        await found.grow(*names)
        yield found
    finally:
        await found.close()
