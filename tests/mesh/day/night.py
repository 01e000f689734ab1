"""What happens on that day, minute by minute, in the mesh simulator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mesh.clock import EPOCH_NS
from mesh.day.expected import Away
from mesh.day.site import DEVICES, EXCEPTING, FAILING, LISTS, SERVERS, VOTERS, Pace, Site, path_of, written
from mesh.simulation import checks
from mesh.simulation.faults import Storm
from mesh.simulation.loop import SimulationLoop
from mesh.simulation.operations import Operators
from mesh.simulation.people import People
from mesh.simulation.script import Script
from mesh.simulation.stage import simulated
from mesh.simulation.vaults import Vaults
from mesh.simulation.watching import Watcher
from mesh.simulation.world import World
from msgspec import Struct, structs
from waiting import wait_for_async

from caso_mesh.founding import init_mesh, join_mesh
from caso_mesh.jobs.task import Task
from caso_mesh.machine import Ports
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.jobs import BackupSpec

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
#: How long it may take until all that is to end has ended.
_REST_S = 1200.0


class Times(Struct, frozen=True):
    """When what happens, in UTC. ``due``: when the nightly backups of both cities are. ``alpha``, in office, dies three
    seconds before hourly ones are."""

    begins: datetime
    due: datetime
    iota: Away
    zeta: Away
    eta: Away
    alpha: Away
    transfer: datetime
    ends: datetime


def real_night(due: datetime) -> Times:
    """A day and its night. ``due``: of the nightly backups, at the hour or half an hour later."""
    dies = due + timedelta(minutes=14, seconds=57)
    return Times(
        begins=due - 1.2 * HOUR,
        due=due,
        iota=Away(due - 50 * MINUTE, due + 4 * HOUR + 2 * MINUTE),
        zeta=Away(due + 4 * MINUTE, due + 4 * HOUR),
        eta=Away(due + 6 * MINUTE, due + 6 * MINUTE + 2 * HOUR),
        alpha=Away(dies, dies + 40 * MINUTE),
        transfer=due + 3.6 * HOUR,
        ends=due + 22.8 * HOUR,
    )


def quick_night(due: datetime) -> Times:
    """At the pace ``QUICK``."""
    dies = due + timedelta(minutes=2, seconds=57)
    return Times(
        begins=due - 8 * MINUTE,
        due=due,
        iota=Away(due - 3 * MINUTE, due + 26 * MINUTE),
        zeta=Away(due + timedelta(seconds=40), due + 24 * MINUTE),
        eta=Away(due + timedelta(seconds=60), due + 13 * MINUTE),
        alpha=Away(dies, dies + 3 * MINUTE),
        transfer=due + 22 * MINUTE,
        ends=due + 36 * MINUTE,
    )


class Story(Struct):
    """What was, for those who judge it. ``on_zeta``, ``on_eta``: attempts that wrote there when it was lost;
    ``of_alpha``: those that others wrote of its files."""

    site: Site
    world: World
    watcher: Watcher
    times: Times
    made: datetime
    by_hand: dict[str, str]
    on_zeta: frozenset[str] = frozenset()
    on_eta: frozenset[str] = frozenset()
    of_alpha: frozenset[str] = frozenset()
    offices: list[str] = []


@contextlib.contextmanager
def simulated_day(here: Site, times: Times, *, trace: bool = False) -> Iterator[tuple[asyncio.Runner, Story]]:
    """A fresh world at ``times.begins``; what is run in it meanwhile sees its time."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="caso-mesh-day-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        with asyncio.Runner(loop_factory=SimulationLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, SimulationLoop)
            began_s = (times.begins - datetime.fromtimestamp(EPOCH_NS / 1e9, UTC)).total_seconds()
            world = World(0, folder, loop, began_s=began_s, trace=trace)
            world.hub.directed = lambda task, script: _directed(
                here.pace, task, script, before=now(world) < times.alpha.until
            )
            watcher = Watcher(world)
            with simulated(world), watcher.watching():
                yield runner, Story(here, world, watcher, times, times.begins, {})
    finally:
        shutil.rmtree(folder)


def _directed(pace: Pace, task: Task, script: Script, *, before: bool) -> Script:
    """All goes well in minutes, but for the lists that are there to fail; what is read of the servers that are lost takes
    longer than they are there, as long as it was not told that they were (``before``)."""
    order = task.order
    row, _, template = order.job_name.split(".")
    rng = random.Random(f"{row}/{template}/{order.number}")
    script = Script(
        seconds=rng.uniform(*pace.run_s), course="well", write_s=0.2, tell_s=0.3, rejoin_s=task.rejoin_s, outlives=False
    )
    if order.run.endswith("@1"):
        script = structs.replace(script, seconds=10.0)
    elif template == "often":
        script = structs.replace(script, seconds=rng.uniform(5, 40))
    elif not isinstance(order.spec, BackupSpec):
        script = structs.replace(script, seconds=rng.uniform(*pace.copy_s))
    elif before and row.startswith(("alpha", "zeta", "eta", "theta")):
        script = structs.replace(script, seconds=rng.uniform(*pace.long_run_s))
    if isinstance(order.spec, BackupSpec):
        course = {FAILING: "fails", EXCEPTING: "excepts", "epsilon-dump": "hangs"}.get(row, "well")
        script = structs.replace(script, course=course)
    return script


async def live(story: Story, judge: Callable[[Story], Awaitable[None]]) -> None:
    """All of it, to the rest after it; what every simulated mesh promises is looked at then, and what ``judge`` does."""
    world, times = story.world, story.times
    async with world.closing():
        await _found(world)
        watching = asyncio.create_task(story.watcher.look())
        try:
            await _make(story)
            async with asyncio.TaskGroup() as group:
                for scene in (
                    _iota_sleeps,
                    _zeta_dies,
                    _eta_is_cut_off,
                    _the_administrator_dies,
                    _office_is_handed_over,
                ):
                    group.create_task(scene(story))
                group.create_task(_until(world, times.ends))
            storm, people = Storm(world, 0.0), People(world, 0.0)
            operators = Operators(world, people, Vaults(world, story.watcher, DEVICES), storm, 0.0, ())
            await checks.wait_for_rest(world, operators, _REST_S)
            await checks.check_all(world, storm, people, story.watcher, operators)
            story.offices.append(_office(world))
            await judge(story)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def now(world: World) -> datetime:
    return datetime.fromtimestamp(next(iter(world.servers.values())).clock.now_ns() / 1e9, UTC)


async def _until(world: World, when: datetime) -> None:
    await asyncio.sleep((when - now(world)).total_seconds())


def _office(world: World) -> str:
    return next(name for name, server in world.servers.items() if server.node is not None and server.node.in_office)


# --- what is there at the beginning ---


async def _found(world: World) -> None:
    first = world.add(SERVERS[0])
    ports = _newcomer(world, first.name)
    await init_mesh(
        mesh="meadow", server=first.name, state=first.state, listen=f"{first.name}:7300", preset="wan", ports=ports
    )
    world.use_operator(first.state)
    world.start(first.name)
    await wait_for_async(lambda: first.node is not None and first.node.in_office, 60.0, every_s=0.05)
    for name in SERVERS[1:]:
        link = (await world.call(first.name, "token.create", q.TokenCreate(), v.TokenView)).link
        server = world.add(name)
        await join_mesh(
            link=link, server=name, state=server.state, listen=f"{name}:7300", preset="wan",
            never_admin=name not in VOTERS, ports=_newcomer(world, name),
        )  # fmt: skip
        world.start(name)

    async def connected() -> bool:
        rows = (await world.call(first.name, "server.list", q.ServerListRequest(), v.ServerList)).servers
        return len(rows) == len(SERVERS) and all(row.connected for row in rows)

    await wait_for_async(connected, 120.0, every_s=0.5)
    for name in VOTERS[1:]:
        await world.ask("voter.add", q.ServerName(name), v.ServerView, at=lambda: first.name)
    node = first.node
    assert node is not None
    seat = node.seat.voter
    assert seat is not None
    await wait_for_async(lambda: len(seat.consensus.leadership().voters) == len(VOTERS), 60.0, every_s=0.5)


def _newcomer(world: World, name: str) -> Ports:
    rng = random.Random(f"newcomer {name}")
    return Ports(
        network=world.network.endpoint(None, name=f"{name} as a newcomer"),
        clock=world.servers[name].clock,
        randomness=rng.randbytes,
        jitter=rng,
        same_thread=True,
    )


async def _make(story: Story) -> None:
    """Devices, then settings and all lists and policies with one file; and a first backup of each list of the shops."""
    world = story.world
    for device, servers in DEVICES.items():
        folder = world.folder / device
        folder.mkdir()
        kind = "disk" if len(servers) == 1 else "shared"
        await world.ask("device.add", q.DeviceAdd(device, kind, dict.fromkeys(servers, str(folder))), v.DeviceView)
    for row in LISTS:
        path_of(world.folder, row.name).mkdir(parents=True)
    text = written(story.site, world.folder)
    applied = await world.ask("config.apply", q.ConfigApply(text), v.Applied)
    assert applied.applied, applied.mistakes
    story.made = now(world)
    again = await world.ask("config.apply", q.ConfigApply(text), v.Applied)
    assert again.changes == ()
    for row in LISTS:
        if row.plan == "shop":
            job = f"{row.name}.shop.full"
            run = (await world.ask("job.run", q.JobName(job), o.Submitted)).run
            assert run is not None
            story.by_hand[run] = row.name


# --- what goes wrong ---


async def _iota_sleeps(story: Story) -> None:
    """Before its backups are due, until long after."""
    await _until(story.world, story.times.iota.since)
    await story.world.stop("iota")
    await _until(story.world, story.times.iota.until)
    story.world.start("iota")


async def _zeta_dies(story: Story) -> None:
    """In the middle of what it reads and what it writes."""
    await _until(story.world, story.times.zeta.since)
    story.on_zeta = _active_on(story.world, "zeta")
    _check_at_work(story.world, "zeta", story.on_zeta)
    story.world.crash("zeta", power=True)
    await _until(story.world, story.times.zeta.until)
    story.world.start("zeta")


async def _eta_is_cut_off(story: Story) -> None:
    """Its backups go on meanwhile, as far as they need nobody else."""
    world = story.world
    await _until(world, story.times.eta.since)
    story.on_eta = _active_on(world, "eta")
    _check_at_work(world, "eta", story.on_eta)
    ways = [way for other in SERVERS if other != "eta" for way in (("eta", other), (other, "eta"))]
    world.network.cut_ways(ways)
    await _until(world, story.times.eta.until)
    world.network.heal_ways(ways)


async def _the_administrator_dies(story: Story) -> None:
    """Seconds before something is due."""
    await _until(story.world, story.times.alpha.since)
    story.offices.append(_office(story.world))
    assert story.offices == ["alpha"]
    story.of_alpha = _reading_of(story.world, "alpha")
    assert story.of_alpha, "nothing is read of alpha when it dies"
    story.world.crash("alpha", power=True)
    await _until(story.world, story.times.alpha.until)
    story.world.start("alpha")


async def _office_is_handed_over(story: Story) -> None:
    await _until(story.world, story.times.transfer)
    story.offices.append(_office(story.world))
    to = next(name for name in VOTERS if name not in story.offices)
    await story.world.ask("admin.transfer", q.AdminTransfer(to), v.Done)


def _check_at_work(world: World, name: str, attempts: frozenset[str]) -> None:
    """Else nothing is tried: it writes what it reads itself, and what theta does."""
    state = checks.office_state(world)
    sources = {world.ids[state.attempts[each].source] for each in attempts}
    assert {name, "theta"} <= sources, f"{name} writes what {sources} read"


def _active_on(world: World, name: str) -> frozenset[str]:
    """Attempts that write there."""
    active = checks.office_state(world).active_attempts()
    return frozenset(each.id for each in active if world.ids[each.server] == name)


def _reading_of(world: World, name: str) -> frozenset[str]:
    """Attempts that read files there and write elsewhere."""
    state = checks.office_state(world)
    active = (each for each in state.active_attempts() if isinstance(state.runs[each.run].spec, BackupSpec))
    return frozenset(each.id for each in active if world.ids[each.source] == name != world.ids[each.server])
