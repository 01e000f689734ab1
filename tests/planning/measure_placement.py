"""Measures placement of 10,000 parts on 1,000 servers (goal: under 1 s). Run by hand: python tests/planning/measure_placement.py"""

from __future__ import annotations

import random
import time

from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.states import DeviceState, JobKind, Priority, ServerState
from caso_mesh.planning.placement import DeviceRow, PoolRow, Problem, ReadyPart, ServerRow, place

NOW = 1_750_000_000 * 10**9


def problem(targets: list[Target], *, shared: bool, recovered: bool, seed: int = 1) -> Problem:
    rng = random.Random(seed)
    names = [f"server-{number:04}" for number in range(1000)]
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
            recovered_on=tuple(rng.sample(names, 2)) if recovered else (),
        )
        for number in range(10_000)
    )
    pools = tuple(PoolRow(f"p{number}", tuple(names[number::50])) for number in range(50))
    holdings = tuple((name, rng.choice(devices).id) for name in names for _ in range(2))
    return Problem(servers, devices, parts, pools, holdings=holdings)


def main() -> None:
    cases = {
        "any": [Target(TargetKind.ANY)],
        "50 pools": [Target(TargetKind.POOL, f"p{number}") for number in range(50)],
        "each its server": [Target(TargetKind.SERVER, f"server-{number:04}") for number in range(1000)],
    }
    for shared in (False, True):
        for recovered in (False, True):
            for name, targets in cases.items():
                table = problem(targets, shared=shared, recovered=recovered)
                seconds = []
                for _ in range(3):
                    start = time.perf_counter()
                    plan = place(table, NOW)
                    seconds.append(time.perf_counter() - start)
                devices = "shared" if shared else "own"
                print(
                    f"{name:16} {devices:7} recovered={recovered!s:5}: {sorted(seconds)[1]:.3f} s, {len(plan.assignments)} placed"
                )


if __name__ == "__main__":
    main()
