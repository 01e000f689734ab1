"""What a seed lets happen to a mesh: faults of network, disks, clocks and processes, and changes of who votes and who is
in office."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from mesh.simulation.stage import NAMES, VOTERS
from mesh.simulation.world import World

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError
from caso_mesh.model.states import ServerState
from caso_mesh.wire.memory import Conditions

Fault = Callable[[], Awaitable[None]]


class Storm:
    """Faults one after the other, some at the same time, for ``seconds``. ``put_back``: servers whose disk was."""

    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed}/faults")
        self._end_s = world.loop.time() + seconds
        self.put_back: dict[str, float] = {}
        self.on_put_back: Callable[[str], None] = lambda name: None
        self.jumps: list[tuple[float, str]] = []
        self._voters = set(VOTERS)
        self.ever_voted = set(VOTERS)
        self._copies: list[tuple[str, Path]] = []
        kinds: dict[str, Fault] = {
            "kill": self._kill,
            "kill-at": self._kill_at,
            "power": self._power,
            "cut": self._cut,
            "one-way": self._one_way,
            "partition": self._partition,
            "slow-way": self._slow_way,
            "reset": self._reset,
            "slow-disk": self._slow_disk,
            "clock": self._clock,
            "put-back": self._put_back,
            "transfer": self._transfer,
            "voters": self._change_voters,
            "pause": self._pause,
        }
        self.all_kinds = kinds
        self.paces = [4.0, 8.0, 15.0]
        chosen = self._random.sample(sorted(kinds), self._random.randint(3, 8))
        self.kinds = {name: kinds[name] for name in chosen}

    async def run(self) -> None:
        """Until it is over; what it has broken may still be broken."""
        pace = self._random.choice(self.paces)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_copies())
            while True:
                await asyncio.sleep(self._random.expovariate(1 / pace))
                if self._world.loop.time() >= self._end_s:
                    return
                name = self._random.choice(sorted(self.kinds))
                self._world.note("fault", name)
                group.create_task(self._one(self.kinds[name]))

    async def _one(self, fault: Fault) -> None:
        try:
            await fault()
        except CasoError as error:
            self._world.note("refused", error.code)

    def _some(self) -> str:
        return self._random.choice(NAMES)

    def _up(self) -> str | None:
        up = [name for name in NAMES if self._world.servers[name].node is not None]
        return self._random.choice(up) if up else None

    async def _for(self, longest_s: float) -> None:
        """A while, but not beyond the storm."""
        left_s = max(0.0, self._end_s - self._world.loop.time())
        await asyncio.sleep(min(left_s, self._random.uniform(0.2, longest_s)))

    def lose(self, name: str) -> None:
        """The machine of a server is gone, with what was to be put back on it."""
        self.put_back[name] = self._world.loop.time()
        self._copies = [each for each in self._copies if each[0] != name]
        self.on_put_back(name)

    # --- processes and disks ---

    async def _kill(self) -> None:
        name = self._up()
        if name is not None:
            self._world.crash(name)
            await self._for(self._random.choice([2.0, 10.0, 50.0]))
            self._world.start(name)

    async def _power(self) -> None:
        name = self._up()
        if name is not None:
            self._world.crash(name, power=True)
            await self._for(self._random.choice([2.0, 10.0, 50.0]))
            self._world.start(name)

    async def _kill_at(self) -> None:
        """Between a commit and what follows from it, or between a message and the commit behind it; often of the one in
        office, where most hangs on it."""
        office = [name for name in NAMES if (node := self._world.servers[name].node) is not None and node.in_office]
        name = office[0] if office and self._random.random() < 0.5 else self._up()
        if name is not None:
            event = self._random.choice(["commit", "commit", "message"])
            self._world.servers[name].crash_after = (event, self._random.randint(0, 40), self._random.random() < 0.3)

    async def _keep_copies(self) -> None:
        if "put-back" not in self.kinds:
            return
        while self._world.loop.time() < self._end_s - 10.0:
            name = self._up()
            if name is not None:
                self._copies.append((name, self._world.keep_copy(name)))
            await asyncio.sleep(self._random.uniform(5.0, 20.0))

    async def _put_back(self) -> None:
        """The disk is an older copy. Of one voter at most, and of three: more than that is outside the promise."""
        mine = [
            (name, copy)
            for name, copy in self._copies
            if self._world.servers[name].node is not None
            and name not in self.put_back
            and not (name in self.ever_voted and (self.ever_voted & set(self.put_back) or not self._enough_vote()))
        ]
        if not mine:
            return
        name, copy = self._random.choice(mine)
        self.put_back[name] = self._world.loop.time()
        self._world.crash(name, state=copy)
        self.on_put_back(name)
        await self._for(5.0)
        self._world.start(name)

    def _enough_vote(self) -> bool:
        """Whether one may be lost, by the logs themselves: a removal that was answered by an error may have been decided."""
        nodes = [server.node for server in self._world.servers.values() if server.node is not None]
        seats = [node.seat.voter for node in nodes if node.seat.voter is not None]
        return all(len(seat.consensus.leadership().voters) >= len(VOTERS) for seat in seats)

    async def _slow_disk(self) -> None:
        server = self._world.servers[self._some()]
        server.disk_s = self._random.choice([0.02, 0.1, 0.6])
        await self._for(40.0)
        server.disk_s = 0.0

    # --- network ---

    async def _cut_for(self, ways: list[tuple[str, str]]) -> None:
        self._world.network.cut_ways(ways)
        await self._for(self._random.choice([3.0, 15.0, 60.0]))
        self._world.network.heal_ways(ways)

    async def _cut(self) -> None:
        a, b = self._random.sample(NAMES, 2)
        await self._cut_for([(a, b), (b, a)])

    async def _one_way(self) -> None:
        a, b = self._random.sample(NAMES, 2)
        await self._cut_for([(a, b)])

    async def _partition(self) -> None:
        names = list(NAMES)
        self._random.shuffle(names)
        first = set(names[: self._random.randint(1, 2)])
        await self._cut_for([(a, b) for a in NAMES for b in NAMES if (a in first) != (b in first)])

    async def _slow_way(self) -> None:
        a, b = self._random.sample(NAMES, 2)
        conditions = Conditions(
            delay_s=self._random.choice([0.05, 0.3, 1.0]), jitter_s=self._random.choice([0.0, 0.1, 0.5]),
            loss=self._random.choice([0.0, 0.01, 0.05]), duplicate=self._random.choice([0.0, 0.3]),
        )  # fmt: skip
        self._world.network.slow_down(a, b, conditions)
        await self._for(60.0)
        self._world.network.slow_down(a, b, None)

    async def _reset(self) -> None:
        a, b = self._random.sample(NAMES, 2)
        self._world.network.reset_between(a, b)

    # --- clocks ---

    async def _clock(self) -> None:
        name = self._some()
        jump = self._random.choice([-90.0, -35.0, -5.0, 5.0, 35.0, 90.0])
        self.jumps.append((self._world.loop.time(), name))
        self._world.servers[name].clock.wall_offset_s += jump

    # --- who does what ---

    async def _transfer(self) -> None:
        to = self._random.choice([None, *sorted(self._voters)])
        await self._world.ask("admin.transfer", q.AdminTransfer(to), v.Done, tries=2)

    async def _change_voters(self) -> None:
        """A voter leaves and another server takes its seat: the one whose disk was put back, if there is such a one. That
        lacks a vote already, and without a second one nothing would be decided any more."""
        out, into = self._random.choice(sorted(self._voters)), self._random.choice(sorted(set(NAMES) - self._voters))
        lacking = sorted(self._voters & set(self.put_back))
        if lacking:
            out = lacking[0]
        if len(self._voters) < len(VOTERS):
            return
        self._voters.discard(out)
        try:
            await self._world.ask("voter.remove", q.ServerName(out), v.ServerView, tries=4)
        except CasoError:
            self._voters.add(out)  # it may vote no more all the same: the end of the storm looks
            raise
        self._voters.add(into)
        self.ever_voted.add(into)
        await self._world.ask("voter.add", q.ServerName(into), v.ServerView, tries=4)

    async def _pause(self) -> None:
        name = self._some()
        await self._world.ask("server.set-state", q.ServerSetState(name, ServerState.PAUSED), v.ServerView, tries=3)
        await self._for(30.0)
        await self._world.ask("server.set-state", q.ServerSetState(name, ServerState.ENABLED), v.ServerView, tries=12)
