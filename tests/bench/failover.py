"""What the death of the administrator costs: killed again and again, until another one accepts an operation."""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from typing import TypeVar

from bench import report
from mesh.process import ProcessMesh
from msgspec import Struct
from waiting import wait_for

from caso_mesh.cli.client import Access, Client
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

T = TypeVar("T", bound=Struct)

#: A file that is backed up while the administrator is killed, each time.
_DATA_BYTES = 20_000_000


@dataclass
class Outcome:
    """Seconds from each kill until an operation was accepted; runs that were under way, and how each was closed."""

    accepted_s: list[float] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        good = sum(state == "succeeded" for state in self.runs.values())
        again = sum(len(each) > 1 for each in self.attempts.values())
        return (
            f"{len(self.accepted_s)} kills: an operation was accepted after {statistics.median(self.accepted_s):.2f} s"
            f" (median), {max(self.accepted_s):.2f} s (worst); of {len(self.accepted_s)} acknowledged operations"
            f" {len(self.missing)} were lost; {good} of {len(self.runs)} backups under way succeeded, {again} of them"
            " in a second attempt"
        )


class _Operator:
    """The operator of the first server, asking at a member that is never killed."""

    def __init__(self, mesh: ProcessMesh, via: str) -> None:
        identity = IdentityStore(mesh.state("alpha") / "identity")
        self._mesh, self._via = mesh, via
        self._mesh_id, self._operator = identity.load_mesh_id(), identity.load_operator()

    def client(self, timeout_s: float = 30.0) -> Client:
        anchors = IdentityStore(self._mesh.state(self._via) / "identity").load_anchors()
        access = Access(self._mesh_id, anchors, self._operator, addresses=(self._mesh.endpoint(self._via),))
        return Client(access, timeout_s)

    def ask(self, call: str, request: Struct, reply: type[T], timeout_s: float = 30.0) -> T:
        client = self.client(timeout_s)
        try:
            return client.call(call, request, reply)
        finally:
            client.close()


def measure(mesh: ProcessMesh, kills: int) -> Outcome:
    """``mesh`` has no server yet. Three voters and two members; a backup of a member to a member runs at each kill."""
    mesh.start(5, voters=True)
    boss, outcome = _Operator(mesh, "delta"), Outcome()

    def status() -> v.StatusView:
        return boss.ask("status", q.Nothing(), v.StatusView)

    wait_for(lambda: len(status().voters) == 3, 30.0, what="three servers vote")
    data, disk = mesh.folder / "data", mesh.folder / "disk"
    data.mkdir()
    disk.mkdir()
    boss.ask("device.add", q.DeviceAdd("disk", "disk", {"epsilon": str(disk)}, concurrency=4), v.DeviceView)
    for number in range(kills):
        (data / "file").write_bytes(os.urandom(_DATA_BYTES))
        backup = q.BackupRequest(sources=(("epsilon", bytes(data)),), target="device:disk")
        run = boss.ask("backup", backup, v.Submitted).run
        admin = status().admin
        assert admin is not None
        mesh.kill(admin)
        began = time.monotonic()
        boss.ask("pool.create", q.PoolEdit(f"after-{number}", ("delta",)), v.PoolView)
        outcome.accepted_s.append(time.monotonic() - began)
        outcome.runs[run] = ""
        mesh.run(admin)
        wait_for(lambda: _connected(boss), 60.0, what="all servers are connected")
    for run in outcome.runs:
        wait_for(lambda run=run: _closed(boss, run), 120.0, what=f"{run} is closed")
        shown = boss.ask("job.show", q.JobName(run), v.JobDetail).runs
        mine = next(each for each in shown if each.run == run)
        outcome.runs[run], outcome.attempts[run] = mine.state, [each.state for each in mine.attempts]
    pools = {pool.name for pool in boss.ask("pool.list", q.Nothing(), v.PoolList).pools}
    outcome.missing = [name for name in (f"after-{number}" for number in range(kills)) if name not in pools]
    return outcome


def _connected(boss: _Operator) -> bool:
    return all(row.connected for row in boss.ask("server.list", q.ServerListRequest(), v.ServerList).servers)


def _closed(boss: _Operator, run: str) -> bool:
    return boss.ask("run.follow", q.RunFollow(run), v.RunProgress).result is not None


def main(chosen: argparse.Namespace) -> int:
    """Prints the figures; 1 if something was lost or failed."""
    with tempfile.TemporaryDirectory(prefix="caso-mesh-bench-", dir=chosen.folder) as name:
        mesh = ProcessMesh(pathlib.Path(name) / "mesh")
        try:
            outcome = measure(mesh, chosen.kills)
        finally:
            mesh.stop()
    print(outcome)
    print(report.machine())
    return 1 if outcome.missing or set(outcome.runs.values()) != {"succeeded"} else 0
