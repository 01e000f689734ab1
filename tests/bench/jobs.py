"""Many tiny jobs through a real mesh of three servers on one machine: each a process, sources and devices on all of them.

First one after the other, as somebody sees them who waits: from the submission until the run is running, and until it
is done. Then all at once: how many are done in a minute, and what that costs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench import report
from bench.metering import cpu_s
from bench.products import Ours
from mesh.process import ProcessMesh

from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import Common
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.states import BackupType

#: Who submit jobs at the same time.
_CLIENTS = 4
_FILES, _DEVICE_JOBS, _SERVER_JOBS = 8, 8, 8
#: How many of the jobs are made one after the other.
_ALONE = 0.2
#: What is to be reached: seconds until half of the runs are running, and jobs in a minute.
_RUNNING_S, _A_MINUTE = 0.1, 1650


class Site:
    """Three servers, each with a folder to be backed up and a device. Jobs go where the mesh has them go (which is the
    device of their own server while that is free), or, ``remote``, to the device of the next server."""

    def __init__(self, folder: pathlib.Path, *, remote: bool) -> None:
        self._folder = folder
        self._remote = remote
        self.mesh = ProcessMesh(folder / "mesh")

    def start(self) -> None:
        self.mesh.start(3)
        for name in self.mesh.names:
            source, disk = self._source(name), self._folder / f"disk-{name}"
            source.mkdir()
            disk.mkdir()
            for number in range(_FILES):
                (source / f"file{number}").write_bytes(b"some bytes\n" * 200)
            self.mesh.ok("alpha", "device", "add", f"disk-{name}", "--server", name, "--path", str(disk))

    def _source(self, name: str) -> pathlib.Path:
        return self._folder / f"source-{name}"

    def submit(self, client: Client, number: int, *, change: bool = True) -> str:
        """One tiny job: an incremental of eight files, of which one has changed or none. (None while others read them.)"""
        names = self.mesh.names
        source, target = names[number % 3], f"device:disk-{names[(number + 1) % 3]}" if self._remote else "any"
        if change:
            (self._source(source) / "file0").write_bytes(b"%d\n" % number)
        request = q.BackupRequest(((source, bytes(self._source(source))),), target, BackupType.INCREMENTAL)
        run = client.call("backup", request, o.Submitted).run
        assert run is not None
        return run

    def pids(self) -> list[int]:
        return [self.mesh.pid(name) for name in self.mesh.names]


def measure(site: Site, jobs: int) -> bool:
    """Prints the figures; whether the goals were reached."""
    site.start()
    alone = max(3, round(jobs * _ALONE))
    with connect(Common(state=site.mesh.state("alpha"), timeout="120s")) as client:
        for name in site.mesh.names:
            client.call("device.set", q.DeviceSet(f"disk-{name}", None, _DEVICE_JOBS), v.DeviceView)
        for setting in ("server-concurrency", "source-concurrency"):
            client.call("settings.set", q.SettingSet(setting, str(_SERVER_JOBS)), v.SettingList)
        for number in range(9):  # the first ones from each server to each device are full
            _finish(client, site.submit(client, number))
        running, done = [], []
        for number in range(alone):
            began = time.monotonic()
            run, state = site.submit(client, number), ""
            while state not in {"running", "verifying"}:
                progress = client.call("run.follow", q.RunFollow(run, 5.0), o.RunProgress)
                state = progress.state
                if progress.result is not None:
                    break  # it was over before anybody could look
            running.append(time.monotonic() - began)
            _finish(client, run)
            done.append(time.monotonic() - began)
            time.sleep(0.05)
        print(f"{alone} jobs one after the other: submit to running {_ms(running)}; to done {_ms(done)}", flush=True)
        return _many(client, site, jobs - alone) and median(running) <= _RUNNING_S


def _many(client: Client, site: Site, jobs: int) -> bool:
    pids, admin = site.pids(), site.mesh.pid("alpha")
    before_s, own_s, admin_s, began = cpu_s(pids), _own_cpu_s(*pids), _own_cpu_s(admin), time.monotonic()

    def submit(first: int) -> list[str]:
        with connect(Common(state=site.mesh.state("alpha"), timeout="120s")) as one:
            return [site.submit(one, number, change=False) for number in range(first, jobs, _CLIENTS)]

    with ThreadPoolExecutor(_CLIENTS) as clients:
        runs = [run for found in clients.map(submit, range(_CLIENTS)) for run in found]
    submitted = time.monotonic() - began
    for run in runs:
        _finish(client, run)
    seconds, spent = time.monotonic() - began, cpu_s(pids) - before_s
    own_s, admin_s = _own_cpu_s(*pids) - own_s, _own_cpu_s(admin) - admin_s
    rate = 60 * jobs / seconds
    print(
        f"{jobs} jobs at once: {rate:.0f} a minute (submitted in {submitted:.1f} s); CPU of all {1000 * spent / jobs:.0f} ms"
        f" a job, of the workers {1000 * (spent - own_s) / jobs:.0f} ms, of the administrator's daemon"
        f" {1000 * admin_s / jobs:.0f} ms ({100 * admin_s / seconds:.0f} % of a core)"
    )
    return rate >= _A_MINUTE


def _own_cpu_s(*pids: int) -> float:
    """CPU seconds of some processes, without those below them."""
    fields = [pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def _finish(client: Client, run: str) -> None:
    result: o.RunResult | None = None
    while result is None:
        result = client.call("run.follow", q.RunFollow(run, 10.0, until_end=True), o.RunProgress).result
    assert result.state == "succeeded", json.dumps({"run": run, "state": result.state, "error": result.error})


def _ms(samples: list[float]) -> str:
    found = sorted(samples)
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    return f"p50 {median(found) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"


def main(chosen: argparse.Namespace) -> int:
    """Runs it; 1 if a goal was missed."""
    with tempfile.TemporaryDirectory(prefix="caso-mesh-bench-", dir=chosen.folder) as name:
        site = Site(pathlib.Path(name), remote=chosen.remote)
        try:
            print(Ours.version())
            good = measure(site, chosen.jobs)
        finally:
            site.mesh.stop()
    print(report.machine())
    return 0 if good else 1
