"""What a job costs that has next to nothing to do: the time from the command to its end, and of its parts."""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time
from collections.abc import Callable
from statistics import median

from bench.metering import Meter
from bench.products import Ours


def main(chosen: argparse.Namespace) -> int:
    """Runs small jobs one after the other and prints medians."""
    with tempfile.TemporaryDirectory(prefix="caso-mesh-bench-", dir=chosen.folder) as name:
        folder = pathlib.Path(name)
        source = folder / "source"
        source.mkdir()
        (source / "file").write_bytes(b"one\n")
        ours = Ours(folder / "ours")
        ours.start()
        try:
            print(f"{Ours.version()}; medians of {chosen.jobs}")
            target = folder / "target"
            target.mkdir()
            _show("status (a command alone)", chosen.jobs, ours, ours.status)
            _show("first backup", chosen.jobs, ours, lambda meter: ours.backup(meter, source, 1))
            _show("backup without changes", chosen.jobs, ours, lambda meter: ours.backup(meter, source, 2))
            _show("restore", chosen.jobs, ours, lambda meter: ours.restore(meter, source, target))
            _show("verify", chosen.jobs, ours, ours.verify)
        finally:
            ours.stop()
    return 0


def _show(what: str, count: int, ours: Ours, do: Callable[[Meter], object]) -> None:
    walls, cpus = [], []
    for _ in range(count):
        with Meter(ours.daemons(), sample_memory=False) as meter:
            do(meter)
        walls.append(meter.measured.wall_s)
        cpus.append(meter.measured.cpu_s)
        time.sleep(0.05)  # what the daemon does after the answer is not the next one's
    print(
        f"{what:28} {median(walls) * 1000:6.0f} ms  {median(cpus) * 1000:6.0f} CPU ms  (max {max(walls) * 1000:.0f} ms)"
    )
