"""One run: a seed decides what people ask, what breaks and when; at the end every promise is looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mesh.simulation import checks
from mesh.simulation.aimed import Aim, AimedStorm
from mesh.simulation.faults import Storm
from mesh.simulation.loop import SimulationLoop
from mesh.simulation.people import People
from mesh.simulation.stage import BEGAN_S, NAMES, VOTERS, Stage, simulated
from mesh.simulation.watching import Violation, Watcher
from mesh.simulation.world import World
from msgspec import Struct

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError, Misuse
from caso_mesh.model.states import RunState, ServerState

_STORM_S = 150.0
_REST_S = 420.0
_LONGEST_S = 3600.0


class Outcome(Struct, frozen=True):
    """``violation`` is ``None`` if every promise was kept. ``digest`` is of all that happened."""

    seed: int
    violation: str | None
    promise: str | None
    digest: str
    virtual_s: float
    runs: int
    sets: int
    lives: int
    trace: list[str]


def run_seed(
    stage: Stage,
    seed: int,
    broken: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    *,
    aim: Aim | None = None,
    trace: bool = False,
) -> Outcome:
    """Whatever the seed says, with what ``broken`` breaks, in a storm that is aimed if there is an ``aim``. The same seed
    gives the same run, to the last message."""
    folder = stage.set()
    with asyncio.Runner(loop_factory=SimulationLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SimulationLoop)
        world = World(seed, folder, loop, began_s=BEGAN_S, trace=trace)
        for name in NAMES:
            world.add(name)
        stage.remembered(world)
        world.use_operator(world.servers[NAMES[0]].state)
        watcher = Watcher(world)
        violation: Violation | None = None
        with broken(), simulated(world), watcher.watching():
            try:
                runner.run(_bounded(world, watcher, aim))
            except Violation as found:
                violation = found
            except Misuse as found:
                violation = Violation("runs are sound", str(found))
            if violation is None or watcher.first is not None:
                violation = watcher.first or violation
    return Outcome(
        seed=seed,
        violation=str(violation) if violation else None,
        promise=violation.promise if violation else None,
        digest=world.digest,
        virtual_s=loop.time(),
        runs=world.closed_runs,
        sets=len(world.hub.published),
        lives=sum(server.number for server in world.servers.values()),
        trace=world.trace,
    )


async def _bounded(world: World, watcher: Watcher, aim: Aim | None) -> None:
    """What never ends is a violation too; then nothing can be taken down in good order."""
    running = asyncio.create_task(_run(world, watcher, aim))
    await asyncio.wait([running], timeout=_LONGEST_S)
    if not running.done():
        busy = sorted(world.busy())
        raise Violation("everything ends that is to end", f"{', '.join(busy)}, {_LONGEST_S:.0f} s after the beginning")
    await running


async def _run(world: World, watcher: Watcher, aim: Aim | None) -> None:
    async with world.closing():
        for name in NAMES:
            world.start(name)
        await _until_up(world)
        watching = asyncio.create_task(watcher.look())
        storm = Storm(world, _STORM_S) if aim is None else AimedStorm(world, _STORM_S, aim)
        people = People(world, _STORM_S)
        for name, value in aim.settings.items() if aim is not None else ():
            await world.ask("settings.set", q.SettingSet(name, value), v.SettingList)
        storm.on_put_back = watcher.put_back
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(people.run())
                await asyncio.sleep(3.0)
                group.create_task(storm.run())
            world.note("calm")
            await _settle(world, people)
            await checks.wait_for_rest(world, _REST_S)
            world.closed_runs = len(checks.office_state(world).runs)
            await checks.check_all(world, storm, people, watcher)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _until_up(world: World) -> None:
    for _ in range(60):
        await asyncio.sleep(0.5)
        if any(server.node is not None and server.node.in_office for server in world.servers.values()):
            return
        if world.problems:
            raise Violation("no daemon fails", "; ".join(world.problems))
    raise Violation("it comes to rest", "nobody is in office at the beginning")


async def _settle(world: World, people: People) -> None:
    """All that is broken is mended, as people would do it."""
    world.network.heal_ways()
    world.network.all_well()
    for name, server in world.servers.items():
        server.crash_after, server.disk_s, server.clock.wall_offset_s = None, 0.0, 0.0
        server.log_s = server.tables_s = 0.0
        world.start(name)
    await asyncio.sleep(10.0)
    for name in NAMES:
        enabled = q.ServerSetState(name, ServerState.ENABLED)
        await _insist(world, "server.set-state", enabled, v.ServerView)
    await _seats(world)
    for job, promise in people.recurring.items():
        promise.held.append([world.loop.time(), float("inf")])
        await _insist(world, "job.hold", q.JobName(job), v.Done)
    await asyncio.sleep(60.0)
    for run in checks.office_state(world).open_runs():
        if run.state is RunState.ON_HOLD:
            await _insist(world, "job.release", q.JobName(run.id), v.Done)
    await asyncio.sleep(30.0)
    for run in checks.office_state(world).open_runs():
        with contextlib.suppress(CasoError):
            await people.cancel(run.id)


async def _seats(world: World) -> None:
    """A voter whose disk was put back is removed and added, and there are three again."""
    for name in NAMES:
        node = world.servers[name].node
        if node is not None and node.seat._lost:
            await _insist(world, "voter.remove", q.ServerName(name), v.ServerView)
            await _insist(world, "voter.add", q.ServerName(name), v.ServerView)
    for name in NAMES:
        if len(checks.office_state(world).voters()) >= len(VOTERS):
            return
        await _insist(world, "voter.add", q.ServerName(name), v.ServerView)


async def _insist(world: World, call: str, request: Struct, reply: type[Struct]) -> None:
    try:
        await world.ask(call, request, reply, tries=30)
    except CasoError as error:
        raise Violation("a mended mesh does what it is asked", f"{call} {request}: {error}") from error
