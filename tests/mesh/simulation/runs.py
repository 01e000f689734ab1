"""One run: a seed decides what people ask, what breaks and when; at the end every promise is looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mesh.simulation import checks, settled
from mesh.simulation.aimed import Aim, AimedStorm
from mesh.simulation.faults import Storm
from mesh.simulation.loop import SimulationLoop
from mesh.simulation.operations import Operators
from mesh.simulation.people import People
from mesh.simulation.script import Script
from mesh.simulation.stage import BEGAN_S, DEVICES, NAMES, VOTERS, Stage, simulated
from mesh.simulation.vaults import Vaults
from mesh.simulation.watching import Violation, Watcher
from mesh.simulation.world import World
from msgspec import Struct, structs

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.errors import CasoError, Misuse
from caso_mesh.model.inventories import DeviceInventory
from caso_mesh.model.states import DeviceState, RunState, ServerState

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
    operations: tuple[str, ...] | None = None,
    trace: bool = False,
) -> Outcome:
    """Whatever the seed says, with what ``broken`` breaks, in a storm that is aimed if there is an ``aim``; ``operations``:
    operators do these, not what the seed says. The same seed gives the same run, to the last message."""
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
        vaults = Vaults(world, watcher)
        violation: Violation | None = None
        with broken(), simulated(world), watcher.watching(), vaults.watching():
            try:
                runner.run(_bounded(world, watcher, vaults, aim, operations if aim is None else aim.operations))
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


async def _bounded(
    world: World, watcher: Watcher, vaults: Vaults, aim: Aim | None, operations: tuple[str, ...] | None
) -> None:
    """What never ends is a violation too; then nothing can be taken down in good order."""
    running = asyncio.create_task(_run(world, watcher, vaults, aim, operations))
    await asyncio.wait([running], timeout=_LONGEST_S)
    if not running.done():
        busy = sorted(world.busy())
        raise Violation("everything ends that is to end", f"{', '.join(busy)}, {_LONGEST_S:.0f} s after the beginning")
    await running


async def _run(
    world: World, watcher: Watcher, vaults: Vaults, aim: Aim | None, operations: tuple[str, ...] | None
) -> None:
    async with world.closing():
        for name in NAMES:
            world.start(name)
        await _until_up(world)
        watching = asyncio.create_task(watcher.look())
        storm = Storm(world, _STORM_S) if aim is None else AimedStorm(world, _STORM_S, aim)
        people = People(world, _STORM_S)
        operators = Operators(world, people, vaults, storm, _STORM_S, operations)
        if aim is not None:
            await _set_up(world, aim)
        await operators.prepare()
        storm.on_put_back = watcher.put_back
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(people.run())
                group.create_task(operators.run())
                await asyncio.sleep(3.0)
                group.create_task(storm.run())
            world.note("calm")
            await _settle(world, people)
            await checks.wait_for_rest(world, operators, _REST_S)
            await _finish_erases(world, operators)
            world.closed_runs = len(checks.office_state(world).runs)
            await checks.check_all(world, storm, people, watcher, operators)
            if {"inventory", "lose"} & set(operators.chosen):
                await _take_stock(world, operators)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _set_up(world: World, aim: Aim) -> None:
    for name, value in aim.settings.items():
        await world.ask("settings.set", q.SettingSet(name, value), v.SettingList)
    for device in DEVICES if aim.concurrency > 1 else ():
        await world.ask("device.set", q.DeviceSet(device, concurrency=aim.concurrency), v.DeviceView)


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
    for device in DEVICES:
        await _insist(world, "device.set", q.DeviceSet(device, DeviceState.ONLINE), v.DeviceView)
    for made in checks.office_state(world).job_list():
        if made.origin is not None and made.schedule is not None:
            await _insist(world, "job.hold", q.JobName(made.id), v.Done)
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


async def _finish_erases(world: World, operators: Operators) -> None:
    """What is unfinished is an alert; half of the seeds leave it, the others ask for it again, as that says."""
    left = [device.name for device in checks.office_state(world).device_list() if device.erasing]
    await settled.check_unfinished(world, checks.office_state(world), checks.voters(world))
    if left and world.seed % 2:
        world.hub.scripts = _well
        for name in left:
            await _insist(world, "device.erase", DeviceErase(name, True), o.Submitted)
        await checks.wait_for_rest(world, operators, _REST_S)
        again = [device.name for device in checks.office_state(world).device_list() if device.erasing]
        if again:
            raise Violation("a mended mesh does what it is asked", f"the erase of {again} is still unfinished")


def _well(script: Script) -> Script:
    return structs.replace(script, course="well")


async def _take_stock(world: World, operators: Operators) -> None:
    """An inventory of all devices, by which everything is known that can be; then all promises of tables hold again."""
    names = [device.name for device in checks.office_state(world).device_list() if not device.erasing]
    if names:
        world.hub.scripts = _well
        await _insist(world, "device.inventory", DeviceInventory(tuple(names)), o.Submitted)
        await checks.wait_for_rest(world, operators, _REST_S)
        await settled.check_missing(world, operators.vaults, checks.voters(world))
        await checks.check_tables(world, checks.voters(world))


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
