"""What making a plan costs: 10,000 ready runs on 1,000 servers, all at once and after one event."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import msgspec

from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.states import DeviceState, JobKind, Priority, ServerState
from caso_mesh.planning.placement import Busy, DeviceRow, Plan, PoolRow, Problem, ReadyPart, ServerRow, place
from caso_mesh.planning.planner import Planner

NOW = 1_750_000_000 * 10**9
SERVERS, RUNS = 1000, 10_000
_EVENTS = 9

TARGETS = {
    "any": [Target(TargetKind.ANY)],
    "50 pools": [Target(TargetKind.POOL, f"p{number}") for number in range(50)],
    "each its server": [Target(TargetKind.SERVER, f"server-{number:04}") for number in range(SERVERS)],
}


@dataclass(frozen=True)
class Cost:
    """Seconds: of a plan from nothing, of every reason in it, and of a plan after one slot was freed and one run more."""

    full_s: float
    reasons_s: float
    again_s: float
    placed: int


def problem(targets: list[Target], *, shared: bool, seed: int = 1) -> Problem:
    """A busy evening: most is predicted, priorities differ, every source has sets somewhere."""
    rng = random.Random(seed)
    names = [f"server-{number:04}" for number in range(SERVERS)]
    servers = tuple(
        ServerRow(name, name, ServerState.ENABLED, connected=True, running=rng.randrange(3)) for name in names
    )
    if shared:
        devices = tuple(
            DeviceRow(f"d{number}", f"d{number}", DeviceState.ONLINE, tuple(names), concurrency=2000)
            for number in range(3)
        )
    else:
        devices = tuple(
            DeviceRow(f"d-{name}", f"d-{name}", DeviceState.ONLINE, (name,), free_bytes=rng.randrange(10**12))
            for name in names
        )
    parts = tuple(
        ReadyPart(
            f"run-{number:05}",
            f"job-{number}",
            f"job-{number}",
            rng.choice(names),
            JobKind.BACKUP,
            rng.choice(list(Priority)),
            NOW - rng.randrange(10**12),
            target=rng.choice(targets),
            predicted_s=rng.choice([None, rng.random() * 1000]),
        )
        for number in range(RUNS)
    )
    pools = tuple(PoolRow(f"p{number}", tuple(names[number::50])) for number in range(50))
    holdings = tuple((name, rng.choice(devices).id) for name in names for _ in range(2))
    return Problem(servers, devices, parts, pools, holdings=holdings)


def measure(targets: list[Target], *, shared: bool) -> Cost:
    """Medians of three plans from nothing, and of one after each of some events."""
    table = problem(targets, shared=shared)
    plans: list[Plan] = []
    full = [_timed(lambda: plans.append(place(table, NOW))) for _ in range(3)]
    reasons = _timed(lambda: dict(plans[-1].waiting))
    planner, rng, again = Planner(), random.Random(2), []
    table, _ = settled(table, planner)
    for number in range(_EVENTS):
        table = event(table, rng, number)
        found: list[Plan] = []
        again.append(_timed(lambda table=table, found=found: found.append(planner.plan(table, NOW))))
        assert found[0].assignments == place(table, NOW).assignments
        table = _begun(table, found[0])
    return Cost(median(full), reasons, median(again), len(plans[0].assignments))


def settled(table: Problem, planner: Planner) -> tuple[Problem, Plan]:
    """The tables when all slots are taken that can be."""
    plan = planner.plan(table, NOW)
    return _begun(table, plan), plan


def _begun(table: Problem, plan: Plan) -> Problem:
    """Every assignment of a plan is active."""
    if not plan.assignments:
        return table
    placed = {(one.run, one.source) for one in plan.assignments}
    running, writing, reading = {}, {}, {}
    for one in plan.assignments:
        for counts, key in ((running, one.server), (writing, one.device), (reading, one.source)):
            counts[key] = counts.get(key, 0) + 1
    return msgspec.structs.replace(
        table,
        servers=tuple(
            msgspec.structs.replace(
                row, running=row.running + running.get(row.id, 0), reading=row.reading + reading.get(row.id, 0)
            )
            if row.id in running or row.id in reading
            else row
            for row in table.servers
        ),
        devices=tuple(
            msgspec.structs.replace(row, running=row.running + writing[row.id]) if row.id in writing else row
            for row in table.devices
        ),
        parts=tuple(part for part in table.parts if (part.run, part.source) not in placed),
        busy=(
            *table.busy,
            *(Busy(one.run, one.source, one.run, one.server, one.device, NOW + 10**11) for one in plan.assignments),
        ),
    )


def event(table: Problem, rng: random.Random, number: int) -> Problem:
    """One attempt has ended, one run is new."""
    gone = rng.choice(table.busy)
    new = msgspec.structs.replace(rng.choice(table.parts), run=f"run-x{number}", job=f"job-x{number}")

    def less(row, name: str, id: str):
        return msgspec.structs.replace(row, **{name: getattr(row, name) - 1}) if row.id == id else row

    return msgspec.structs.replace(
        table,
        servers=tuple(less(less(row, "running", gone.server), "reading", gone.source) for row in table.servers),
        devices=tuple(less(row, "running", gone.device) for row in table.devices),
        parts=(*table.parts, new),
        busy=tuple(each for each in table.busy if each is not gone),
    )


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
