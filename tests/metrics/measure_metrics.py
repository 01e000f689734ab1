"""What a scrape costs the administrator, for a stated number of servers and runs: ``python -m metrics.measure_metrics``.

The control state and the tables are the real ones, filled by hand; the event loop is probed while figures are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import tempfile
import time
from typing import Any

import msgspec
from control.control_world import NOW, SECOND, backup, device, job, operator, server

from caso_mesh.admin.interpret import insert_set
from caso_mesh.admin.live import Live
from caso_mesh.admin.measures import Measures
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.database import Database
from caso_mesh.metrics.exposition import Seat, exposition
from caso_mesh.model.jobs import Origin, Part, Run, Waiting
from caso_mesh.model.policies import SelectionList
from caso_mesh.model.states import BackupType, Priority, WaitReason
from caso_mesh.model.storage import BackupSet
from caso_mesh.server.measures import NodeReadings

NODE = NodeReadings("meadow", "alpha", "1", "alpha", 1, 1, 999, 100, 0, 0, 0, 0, 0, takes_work=True)


class Keeper:
    def __init__(self, state: ControlState) -> None:
        self.state = state


class Linked:
    def linked(self, node: str) -> bool:
        return True


class At:
    def now_ns(self) -> int:
        return NOW + 3600 * SECOND


def state_of(servers: int, runs: int) -> ControlState:
    """A list, a policy's job and a device for each server, and runs of those jobs that wait."""
    state = ControlState()
    names = [f"s{number:05}" for number in range(servers)]
    state.write([Put("operators", "person-ann", operator("ann"))])
    for name in names:
        spec = backup(name)
        row = SelectionList(f"list-{name}", f"list-{name}", spec.sources, "ann", NOW, oldest_good_s=86400.0)
        made = job(name, spec, origin=Origin("policy", f"list-{name}", "full"))
        state.write([
            Put("servers", f"node-{name}", server(name)),
            Put("devices", f"device-{name}", device(name, name)),
            Put("lists", row.id, row),
            Put("jobs", made.id, made),
        ])  # fmt: skip
    for number in range(runs):
        name = names[number % servers]
        id_ = f"job-{name}@{number}"
        part = (Part(f"node-{name}"),)
        run = Run(id_, f"job-{name}", name, backup(name), Priority.MEDIUM, NOW, NOW, "ann", part)
        state.write([Put("runs", id_, run)])
    return state


def backup_set(number: int, servers: int) -> BackupSet:
    name = f"s{number % servers:05}"
    return BackupSet(
        f"set{number}", "mesh", "vault", f"node-{name}", name, f"node-{name}", name, f"device-{name}", name, "M-1",
        "keep-4-weeks", BackupType.FULL, f"job-{name}", "run", f"attempt{number}", NOW, NOW + number * SECOND, (b"srv",),
        b"f" * 32, b"r" * 32, None, 10, 10, 1000, 1000, 500, 0,
    )  # fmt: skip


async def measure(servers: int, runs: int, sets: int, folder: pathlib.Path) -> dict[str, Any]:
    state, live = state_of(servers, runs), Live()
    live.waiting = {
        (run.id, run.parts[0].source): Waiting(WaitReason.NO_IDLE_DEVICE, {"devices": []}) for run in state.open_runs()
    }
    async with Database.open(folder / "tables.db", MIGRATIONS, durable=False) as database:
        tables = Tables(database)

        def fill(c: Any) -> None:
            for number in range(sets):
                insert_set(c, backup_set(number, servers))

        await database.write(fill)
        parts: Any = (Keeper(state), tables, live, Linked(), At())
        keeper, _, _, links, clock = parts
        measures = Measures(keeper=keeper, tables=tables, live=live, links=links, own="node-s00000", clock=clock)
        longest, stop = [0.0], asyncio.Event()

        async def probe() -> None:
            while not stop.is_set():
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                longest[0] = max(longest[0], time.perf_counter() - began - 0.001)

        found: dict[str, Any] = {"servers": servers, "open runs": runs, "sets": sets}
        for which in ("first", "second", "third"):
            longest[0] = 0.0
            stop.clear()
            probing = asyncio.create_task(probe())
            await asyncio.sleep(0.02)
            began, cpu = time.perf_counter(), time.process_time()
            readings = await measures.take()
            taken = time.perf_counter()
            text = await asyncio.to_thread(
                exposition, NODE, Seat(in_office=True, voter=True, term=1, index=1), 0.0, readings
            )
            ended = time.perf_counter()
            stop.set()
            await probing
            found[which] = {
                "taking s": round(taken - began, 4),
                "text s": round(ended - taken, 4),
                "cpu s": round(time.process_time() - cpu, 4),
                "loop late s": round(longest[0], 4),
                "series": sum(not line.startswith("#") for line in text.splitlines()),
                "bytes": len(text),
            }
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--sets", type=int, default=30_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(given.servers, given.runs, given.sets, pathlib.Path(folder)))
    print(msgspec.json.format(msgspec.json.encode(found)).decode())


if __name__ == "__main__":
    main()
