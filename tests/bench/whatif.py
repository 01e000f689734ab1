"""What a ``what-if`` costs: a night of 10,000 runs on 1,000 servers, lived through in virtual time."""

from __future__ import annotations

import argparse
import asyncio
import random
import time

from caso_mesh.admin.what_if import beside_the_loop
from caso_mesh.control.forecast import forecast
from caso_mesh.control.foretold import Away, Forecast, Known
from caso_mesh.control.growth import daily_bytes
from caso_mesh.control.placing import Seen
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job, Origin, SourceRoots, Target, TargetKind
from caso_mesh.model.mesh import MeshInfo, Pool, Server
from caso_mesh.model.policies import Association, ListEntry, Policy, SelectionList, Template, TemplateType
from caso_mesh.model.states import BackupType, Liveness
from caso_mesh.model.storage import Device, DeviceKind, DevicePath
from caso_mesh.planning.history import History, Sample

SECOND, HOUR = 1_000_000_000, 3600 * 1_000_000_000
#: Noon of a Monday.
NOON = 1_736_164_800 * SECOND
#: Media servers, one of ten; each has a disk. Each pool has ten of them.
_OF_TEN, _POOL = 10, 10


def site(servers: int, runs: int, seed: int = 1) -> tuple[ControlState, Known]:
    """Servers with as many lists as make ``runs`` nightly runs, of one of twenty policies, due between 20:00 and midnight; a
    tenth of the servers have disks, in pools. History knows of each run how long it takes: 30 seconds to two hours, most
    of them minutes."""
    rng, puts = random.Random(seed), [Put("mesh", "", MeshInfo("m", "m", 0))]
    names = [f"s{number:04}" for number in range(servers)]
    puts += [
        Put(
            "servers", name, Server(name, name, name.encode(), b"x", b"w", 0, liveness=Liveness.ALIVE, ever_linked=True)
        )
        for name in names
    ]
    media = names[::_OF_TEN]
    for name in media:
        device = Device(f"d-{name}", f"d-{name}", DeviceKind.DISK, name, (DevicePath(name, "/d"),), concurrency=4)
        puts.append(Put("devices", device.id, device))
    pools = [media[start : start + _POOL] for start in range(0, len(media), _POOL)]
    puts += [Put("pools", f"p{number}", Pool(f"p{number}", tuple(of))) for number, of in enumerate(pools)]
    policies = []
    for number in range(20):
        target = Target(TargetKind.POOL, f"p{number % len(pools)}")
        minute = rng.randrange(0, 240, 15)
        at = f"{minute % 60} {20 + minute // 60}"
        templates = (
            Template("full", TemplateType.FULL, target, CronSchedule(f"{at} * * 0", "Europe/Berlin")),
            Template("inc", TemplateType.INCREMENTAL, target, CronSchedule(f"{at} * * *", "Europe/Berlin")),
        )
        policies.append(Policy(f"policy-{number}", f"policy-{number}", templates, (), "ann", 0))
    puts += [Put("policies", each.id, each) for each in policies]
    samples = []
    for number in range(runs):
        policy, source, id = rng.choice(policies), names[number % servers], f"list-{number:05}"
        row = SelectionList(id, id, (ListEntry(source, b"srv"),), "ann", 0)
        puts += [Put("lists", id, row), Put("associations", f"{policy.id}/{id}", Association(policy.id, id, "ann", 0))]
        for template in policy.templates:
            spec = BackupSpec((SourceRoots(source, (b"srv",)),), template.target, BackupType(template.type.value))
            name, origin = f"{id}.{template.name}", Origin(policy.id, id, template.name)
            job = Job(name, name, spec, "ann", NOON, schedule=template.schedule, origin=origin)
            puts.append(Put("jobs", job.id, job))
            seconds = min(7200.0, 30.0 * rng.paretovariate(0.9)) * (5 if template.name == "full" else 1)
            place = rng.choice(pools[int(template.target.name[1:])])
            size = int(seconds * 10_000_000)
            samples += [Sample(job.id, source, spec.type, place, f"d-{place}", seconds, size)] * 2
    state = ControlState()
    state.write(puts)
    holdings = tuple(sorted({(each.source, each.device) for each in samples}))
    free = {f"d-{name}": 10**14 for name in media}
    seen = Seen(connected=set(names), device_of_set={}.get, holdings=holdings, free_bytes=free)
    return state, Known(seen=seen, history=History(samples))


def main(words: list[str]) -> int:
    """Prints what the night costs, how late an event loop beside it is, and what comes out."""
    parser = argparse.ArgumentParser(prog="scripts/bench what-if", description=__doc__)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--without", type=int, default=5, help="so many media servers are away (default: 5)")
    chosen = parser.parse_args(words)
    state, known = site(chosen.servers, chosen.runs)
    began = time.process_time()
    state.draft()
    print(f"a draft of the control state: {1000 * (time.process_time() - began):.0f} ms of the office's loop")
    gone = frozenset(sorted(state.devices[id].paths[0].server for id in state.devices)[: chosen.without])
    for title, away in (("with everything there", Away()), (f"without {len(gone)} media servers", Away(gone))):
        found, took_s, late_s = asyncio.run(lived_through(state, known, away))
        states = [part.state.value for part in found.parts]
        counts = ", ".join(f"{states.count(each)} {each}" for each in sorted(set(states)))
        ends = (found.ends_at_ns() or NOON) - NOON
        print(f"{title}: {took_s:.1f} s of CPU, {found.rounds} rounds; {counts}; ends after {ends / HOUR:.2f} h")
        middle, most, worst = (1000 * late_s[int(share * (len(late_s) - 1))] for share in (0.5, 0.99, 1.0))
        print(f"    the loop beside it is late by {middle:.1f} ms (p50), {most:.1f} ms (p99), {worst:.1f} ms at worst")
    began = time.process_time()
    placed = {(part.job, part.source): part.device for part in found.parts if part.device}
    daily_bytes(state, known, placed, NOON)
    print(f"how devices grow: {time.process_time() - began:.1f} s of CPU")
    return 0


async def lived_through(state: ControlState, known: Known, away: Away) -> tuple[Forecast, float, list[float]]:
    """A night as the office has it lived through, in a thread: what comes out, CPU seconds, and how many seconds late a
    loop was that wanted to go on after a hundredth of one, again and again, the least first."""
    late_s = [0.0]

    async def beat() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            late_s.append(time.perf_counter() - began - 0.01)

    def live() -> tuple[Forecast, float]:
        began = time.thread_time()
        found = forecast(state, known, away, now_ns=NOON, from_ns=NOON, until_ns=NOON + 20 * HOUR)
        return found, time.thread_time() - began

    beats = asyncio.create_task(beat())
    with beside_the_loop():
        found, took_s = await asyncio.to_thread(live)
    beats.cancel()
    await asyncio.gather(beats, return_exceptions=True)
    return found, took_s, sorted(late_s)
