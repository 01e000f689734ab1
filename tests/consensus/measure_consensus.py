"""Proposals per second, their latency, and how long nobody is in office: ``scripts/bench consensus``.

Real SQLite with ``synchronous=FULL``, links in memory, all members in one process and one event loop: three voters
share one disk and one core here, which is worse for them than three machines would be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from consensus_cluster import cluster

from caso_mesh.model.errors import CasoError
from caso_mesh.model.presets import TIMINGS

_COMMAND = b"x" * 200
_NAMES = ("a", "b", "c")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench consensus", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default: 3)")
    parser.add_argument("--failovers", type=int, default=10, help="how often the one in office dies (default: 10)")
    parser.add_argument("--folder", help="where the disks are; a real disk, not tmpfs (default: TMPDIR)")
    parser.add_argument("--json", metavar="FILE", help="write every number there")
    chosen = parser.parse_args()
    with _folder(chosen.folder) as folder:
        result = {"fsync_ms": _fsync_ms(folder), "rows": [], "failovers_s": []}
        print(f"one write and fsync of 4 KiB: {result['fsync_ms']:.2f} ms (median of 50)")
        for voters in (1, 3):
            result["rows"] += asyncio.run(_proposals(folder / str(voters), voters, chosen.seconds))
        result["failovers_s"] = asyncio.run(_failovers(folder / "failovers", chosen.failovers))
    if chosen.json:
        pathlib.Path(chosen.json).write_text(json.dumps(result, indent=1))


@contextmanager
def _folder(parent: str | None) -> Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="caso-mesh-consensus-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _fsync_ms(folder: pathlib.Path) -> float:
    taken = []
    with open(folder / "probe", "wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


async def _proposals(folder: pathlib.Path, voters: int, seconds: float) -> list[dict[str, float]]:
    """As many clients as the row says, each with one proposal after the other."""
    folder.mkdir()
    rows = []
    async with cluster(folder, *_NAMES[:voters]) as members:
        log = members.nodes[await members.leader()]
        for clients in (1, 16, 256):
            taken: list[float] = []
            began, cpu = time.perf_counter(), time.process_time()

            async def client(end: float = began + seconds, taken: list[float] = taken) -> None:
                while (now := time.perf_counter()) < end:
                    await log.propose(_COMMAND)
                    taken.append(time.perf_counter() - now)

            await asyncio.gather(*(client() for _ in range(clients)))
            elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
            taken.sort()
            p50, p99 = (taken[int(len(taken) * share)] * 1000 for share in (0.5, 0.99))
            row = {
                "voters": voters,
                "clients": clients,
                "per_second": len(taken) / elapsed,
                "p50_ms": p50,
                "p99_ms": p99,
                "cpu_us_each": cpu / len(taken) * 1e6,
            }
            rows.append(row)
            print(
                f"{voters} voters, {clients:3} clients: {row['per_second']:7.0f} proposals/s, p50 {p50:6.2f} ms,"
                f" p99 {p99:6.2f} ms, {row['cpu_us_each']:5.0f} us of CPU each"
            )
    return rows


async def _failovers(folder: pathlib.Path, times: int) -> list[float]:
    """From the death of the one in office until a command is committed elsewhere, at the pace of ``local``."""
    folder.mkdir()
    taken = []
    async with cluster(folder, *_NAMES, timing=TIMINGS["local"]) as members:
        for _ in range(times):
            old = await members.leader()
            await members.nodes[old].propose(_COMMAND)
            began = time.perf_counter()
            members.isolate(old)
            while True:
                new = await members.leader(other_than=old)
                try:
                    await members.nodes[new].propose(_COMMAND)
                    break
                except CasoError:
                    await asyncio.sleep(0.01)
            taken.append(time.perf_counter() - began)
            await members.stop(old)
            members.cuts.clear()
            await members.start(old)
            log = members.nodes[new]
            async with asyncio.timeout(20):
                while log.lacks(old) != 0:  # noqa: ASYNC110 - a measurement
                    await asyncio.sleep(0.05)
    print(
        f"preset local, {times} deaths: a command is committed again after {statistics.median(taken):.2f} s (median),"
        f" {max(taken):.2f} s (worst)"
    )
    return taken


if __name__ == "__main__":
    main()
