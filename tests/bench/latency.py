"""What a job costs that has next to nothing to do: from the command to its start and its end, and of its parts."""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.metering import Measured, Meter, cpu_s
from bench.products import Ours

from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import Common
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.states import BackupType

#: Jobs that one client submits before it waits for any.
MANY = 100
_DEVICE_JOBS = 4


@dataclass(frozen=True)
class Sample:
    """One command: all of it, and the CPU seconds of the command alone."""

    wall_s: float
    cpu_s: float
    command_cpu_s: float


def main(chosen: argparse.Namespace) -> int:
    """Runs small jobs one after the other and prints medians; then many at once."""
    with tempfile.TemporaryDirectory(prefix="caso-mesh-bench-", dir=chosen.folder) as name:
        folder = pathlib.Path(name)
        source = folder / "source"
        source.mkdir()
        for number in range(8):
            (source / f"file{number}").write_bytes(b"some bytes\n" * 200)
        ours = Ours(folder / "ours")
        ours.start()
        try:
            print(f"{Ours.version()}; {chosen.jobs} of each")
            target = folder / "target"
            target.mkdir()
            _show("status (a command alone)", chosen.jobs, ours, ours.status)
            _show("first backup", chosen.jobs, ours, lambda meter: ours.backup(meter, source, 1))
            _show("backup without changes", chosen.jobs, ours, lambda meter: ours.backup(meter, source, 2))
            _show("restore", chosen.jobs, ours, lambda meter: ours.restore(meter, source, target))
            _show("verify", chosen.jobs, ours, ours.verify)
            with connect(Common(state=ours.state, timeout="120s")) as client:
                _show_steps(client, ours, source, chosen.jobs)
                _show_many(client, ours, source)
        finally:
            ours.stop()
    return 0


def _show(what: str, count: int, ours: Ours, do: Callable[[Meter], object]) -> None:
    samples = []
    for _ in range(count):
        with Meter(ours.daemons(), sample_memory=False) as meter:
            do(meter)
        done: Measured = meter.measured
        samples.append(Sample(done.wall_s, done.cpu_s, meter.commands_cpu_s))
        time.sleep(0.05)  # what the daemon does after the answer is not the next one's
    print(
        f"{what:28} {_ms(sample.wall_s for sample in samples)}   CPU {median(s.cpu_s for s in samples) * 1000:4.0f} ms, "
        f"of the command {median(s.command_cpu_s for s in samples) * 1000:4.0f} ms"
    )


def _show_steps(client: Client, ours: Ours, source: pathlib.Path, count: int) -> None:
    """Submit to running and to done, without the start of a command: as one client sees them."""
    running, done = [], []
    for _ in range(count):
        began = time.monotonic()
        run = _submit(client, ours, source)
        state = ""
        while state not in {"running", "verifying"}:
            progress = client.call("run.follow", q.RunFollow(run, 5.0), o.RunProgress)
            state = progress.state
            if progress.result is not None:
                break  # it was over before anybody could look
        running.append(time.monotonic() - began)
        _finish(client, run)
        done.append(time.monotonic() - began)
        time.sleep(0.05)
    print(f"{'submit to running':28} {_ms(running)}")
    print(f"{'submit to done':28} {_ms(done)}")


def _show_many(client: Client, ours: Ours, source: pathlib.Path) -> None:
    client.call("device.set", q.DeviceSet("disk", None, _DEVICE_JOBS), v.DeviceView)
    before_s, began = cpu_s(ours.daemons()), time.monotonic()
    runs = [_submit(client, ours, source) for _ in range(MANY)]
    submitted = time.monotonic() - began
    for run in runs:
        _finish(client, run)
    seconds, spent = time.monotonic() - began, cpu_s(ours.daemons()) - before_s
    print(
        f"{f'{MANY} jobs of one client':28} {60 * MANY / seconds:5.0f} a minute ({_DEVICE_JOBS} at once; submitted in "
        f"{submitted:.1f} s); CPU of daemon and workers {spent * 1000 / MANY:.0f} ms a job"
    )


def _submit(client: Client, ours: Ours, source: pathlib.Path) -> str:
    place = (ours.name_of_source, str(source).encode())
    request = q.BackupRequest((place,), "device:disk", BackupType.INCREMENTAL)
    run = client.call("backup", request, o.Submitted).run
    assert run is not None
    return run


def _finish(client: Client, run: str) -> None:
    result: o.RunResult | None = None
    while result is None:
        result = client.call("run.follow", q.RunFollow(run, 10.0, until_end=True), o.RunProgress).result
    assert result.state == "succeeded", json.dumps(_plain(result))


def _plain(result: o.RunResult) -> Any:
    return {"run": result.run, "state": result.state, "error": result.error}


def _ms(samples: Any) -> str:
    """p50, p99 and the longest."""
    found: Sequence[float] = sorted(samples)
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    return f"p50 {median(found) * 1000:5.0f} ms, p99 {p99 * 1000:5.0f} ms"
