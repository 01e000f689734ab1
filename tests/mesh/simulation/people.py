"""What operators ask of a simulated mesh, and what they were promised."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from mesh.simulation.stage import NAMES
from mesh.simulation.world import World
from msgspec import Struct

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError
from caso_mesh.model.jobs import Run
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import DEFAULT_MEDIA_SET

#: What is backed up of each server: it is looked at, never read. (A path with chance in it would show in sizes.)
SOURCE = b"/usr"
TARGETS = ("pool:vaults", "pool:vaults", "device:disk-gamma", "device:shared", "server:beta", "any")


class Promise(Struct):
    """A recurring job, and when it was held (virtual seconds; pairs of begin and end)."""

    job: str
    cron: str
    made_s: float
    held: list[list[float]]


class People:
    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed}/people")
        self._end_s = world.loop.time() + seconds
        self.recurring: dict[str, Promise] = {}
        #: Runs that somebody was told of.
        self.runs: list[str] = []
        #: Run -> how many attempts it had when its end was confirmed.
        self.canceled: dict[str, int] = {}
        self.answered = 0
        #: The media set of a backup to some target.
        self.media_set_of: Callable[[str], str] = lambda target: DEFAULT_MEDIA_SET

    async def run(self) -> None:
        for cron in self._random.sample(["* * * * *", "* * * * *", "*/2 * * * *"], 2):
            await self._one(lambda cron=cron: self._schedule(cron))  # type: ignore[misc]
        async with asyncio.TaskGroup() as group:
            while self._world.loop.time() < self._end_s:
                await asyncio.sleep(self._random.expovariate(1 / 7.0))
                wish = self._random.choice(
                    [self._backup, self._backup, self._backup, self._again, self._cancel, self._hold, self._verify]
                )
                group.create_task(self._one(wish))

    async def _one(self, wish: Callable[[], Awaitable[None]]) -> None:
        try:
            await wish()
        except CasoError as error:
            self._world.note("people", f"{wish.__name__}: {error.code}")

    def _backup_request(self, **more: object) -> q.BackupRequest:
        sources = self._random.sample(NAMES, self._random.choice([1, 1, 1, 2]))
        target = self._random.choice(TARGETS)
        return q.BackupRequest(
            sources=tuple((name, SOURCE) for name in sources),
            target=target,
            media_set=self.media_set_of(target),
            type=BackupType.FULL,
            verify=self._random.random() < 0.2,
            **more,  # type: ignore[arg-type]
        )

    async def _schedule(self, cron: str) -> None:
        request = self._backup_request(schedule=cron, name=f"recurring-{len(self.recurring)}")
        made = await self._world.ask("backup", request, o.Submitted)
        self.recurring[made.job] = Promise(made.job, cron, self._world.loop.time(), [])
        self.answered += 1

    def _told(self, made: o.Submitted) -> None:
        assert made.run is not None
        self.runs.append(made.run)
        self.answered += 1
        self._world.note("told", made.run)

    async def _backup(self) -> None:
        self._told(await self._world.ask("backup", self._backup_request(), o.Submitted))

    async def _again(self) -> None:
        job = self._random.choice([*self.recurring, *(run.rpartition("@")[0] for run in self.runs)])
        self._told(await self._world.ask("job.run", q.JobName(job), o.Submitted))

    async def _verify(self) -> None:
        known = sorted(self._world.hub.published)
        if known:
            self._told(await self._world.ask("verify", q.VerifyRequest(self._random.choice(known)), o.Submitted))

    async def _cancel(self) -> None:
        if self.runs:
            await self.cancel(self._random.choice(self.runs[-6:]))

    async def cancel(self, run: str) -> None:
        await self._world.ask("job.cancel", q.JobName(run), v.Done)
        self.answered += 1
        found = known_run(self._world, run)
        if found is not None:
            self.canceled[run] = sum(part.attempts for part in found.parts)

    async def _hold(self) -> None:
        promise = self._random.choice(list(self.recurring.values()))
        begin_s = self._world.loop.time()
        promise.held.append([begin_s, float("inf")])
        await self._world.ask("job.hold", q.JobName(promise.job), v.Done)
        self.answered += 1
        await asyncio.sleep(self._random.uniform(1.0, 60.0))
        await self._world.ask("job.release", q.JobName(promise.job), v.Done, tries=20)
        promise.held[-1][1] = self._world.loop.time()
        self.answered += 1


def known_run(world: World, run: str) -> Run | None:
    """A run as the one in office knows it."""
    for server in world.servers.values():
        if server.node is not None and server.node.in_office:
            voter = server.node.seat.voter
            if voter is not None:
                return voter.keeper.state.runs.get(run)
    return None
