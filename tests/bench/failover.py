"""What the loss of the administrator costs: killed, stopped, cut off, or gone with its disk, again and again, until another
one accepts an operation."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import netns
from bench import report
from mesh.process import ProcessMesh
from mesh.site import SiteMesh
from msgspec import Struct
from waiting import wait_for

from caso_mesh.cli.client import Access, Client
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import audit as audit_log
from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.listing import CatalogFind

T = TypeVar("T", bound=Struct)

#: A file that is backed up while the administrator is lost, each time.
_DATA_BYTES = 20_000_000
#: What can happen to it, and how that is called in the figures.
WAYS = {"kill": "kills", "pause": "pauses", "cut": "cuts", "lose-disk": "lost disks"}


@dataclass
class Outcome:
    """Seconds from each loss until an operation was accepted, and until all of the past was browsable; runs that were
    under way, and how each was closed."""

    way: str = "kill"
    accepted_s: list[float] = field(default_factory=list)
    browsable_s: list[float] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        good = sum(state == "succeeded" for state in self.runs.values())
        again = sum(len(each) > 1 for each in self.attempts.values())
        browsable = f"; all of the past browsable after {_figures(self.browsable_s)}" if self.browsable_s else ""
        return (
            f"{len(self.accepted_s)} {WAYS[self.way]}: an operation was accepted after {_figures(self.accepted_s)}{browsable};"
            f" of {len(self.accepted_s)} acknowledged operations {len(self.missing)} were lost; {good} of"
            f" {len(self.runs)} backups under way succeeded, {again} of them in a second attempt"
            + "".join(f"\n  {each}" for each in [*self.wrong, *self._others()])
        )

    def _others(self) -> list[str]:
        return [f"{run} is {state}" for run, state in self.runs.items() if state != "succeeded"]

    @property
    def good(self) -> bool:
        once = all(states.count("succeeded") == 1 for states in self.attempts.values())
        return not self.missing and not self.wrong and once and set(self.runs.values()) <= {"succeeded"}


def _figures(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s (worst)"


class _Operator:
    """The operator of the first server, asking at a member that is never lost, from this program: of a mesh on several
    machines by a way into the network of that member."""

    def __init__(self, mesh: ProcessMesh, via: str) -> None:
        # its key lies on a machine of its own, too
        own = mesh.folder / "operator"
        shutil.copytree(mesh.state("alpha") / "identity", own)
        identity = IdentityStore(own)
        self._mesh, self._via = mesh, via
        self._mesh_id, self._operator = identity.load_mesh_id(), identity.load_operator()

    def client(self, timeout_s: float = 30.0) -> Client:
        anchors = IdentityStore(self._mesh.state(self._via) / "identity").load_anchors()
        access = Access(self._mesh_id, anchors, self._operator, addresses=(self._mesh.endpoint(self._via),))
        return Client(access, timeout_s)

    def ask(self, call: str, request: Struct, reply: type[T], timeout_s: float = 30.0) -> T:
        with self._mesh.inside(self._via):
            client = self.client(timeout_s)
            try:
                return client.call(call, request, reply)
            finally:
                client.close()

    def status(self) -> v.StatusView:
        return self.ask("status", q.Nothing(), v.StatusView)


def measure(mesh: ProcessMesh, times: int, way: str = "kill") -> Outcome:
    """``mesh`` has no server yet. Three voters and two members; a backup of a member to a member runs at each loss. One
    that was cut off or stopped comes back when another one is in office."""
    mesh.start(5, voters=True)
    boss, outcome = _Operator(mesh, "delta"), Outcome(way)
    data = _prepare(mesh, boss)
    for number in range(times):
        # one of its own: the backup before may still be reading
        (folder := data / str(number)).mkdir()
        (folder / "file").write_bytes(os.urandom(_DATA_BYTES))
        backup = q.BackupRequest(sources=(("epsilon", bytes(folder)),), target="device:disk")
        run = boss.ask("backup", backup, o.Submitted).run
        admin = boss.status().admin
        assert admin is not None
        with _lost(mesh, admin, way):
            began = time.monotonic()
            boss.ask("pool.create", q.PoolEdit(f"after-{number}", ("delta",)), v.PoolView)
            outcome.accepted_s.append(time.monotonic() - began)
            outcome.runs[run] = ""
            if boss.status().admin == admin:
                outcome.wrong.append(f"{admin} was in office still after loss {number + 1}")
        wait_for(lambda: _connected(boss), 60.0, what="all servers are connected")
    _settle(boss, outcome)
    pools = {pool.name for pool in boss.ask("pool.list", q.Nothing(), v.PoolList).pools}
    outcome.missing = [name for name in (f"after-{number}" for number in range(times)) if name not in pools]
    return outcome


def measure_lost_disk(mesh: ProcessMesh, outcome: Outcome, *, sets: int = 5, files: int = 2000) -> None:
    """As ``measure``, once: the administrator's disk goes with it. What was told of the past is compared."""
    mesh.start(5, voters=True)
    boss = _Operator(mesh, "delta")
    data = _prepare(mesh, boss)
    for number in range(files):
        (data / f"note-{number}").write_text(str(number))
    backup = q.BackupRequest(sources=(("epsilon", bytes(data)),), target="device:disk")
    for number in range(sets):
        (data / "file").write_bytes(os.urandom(1000 + number))
        run = boss.ask("backup", backup, o.Submitted).run
        wait_for(lambda run=run: _closed(boss, run), 60.0, what="a backup is closed")
    # that there is no recovery kit, for example
    wait_for(lambda: _past(boss)["alerts"], 30.0, what="there is an alert")
    wait_for(lambda: all(row.catalog for row in _past(boss)["sets"]), 60.0, what="the catalogs are there")
    before = _past(boss)
    follows = time.monotonic() + 2.0
    wait_for(lambda: time.monotonic() > follows, 5.0, what="the voters have followed")
    admin = boss.status().admin
    assert admin is not None
    mesh.kill(admin)
    began = time.monotonic()
    mesh.wipe(admin)
    boss.ask("pool.create", q.PoolEdit("after", ("delta",)), v.PoolView)
    outcome.accepted_s.append(time.monotonic() - began)
    unequal: list[str] = []

    def equal() -> bool:
        now = _past(boss)
        # there is more of these with every day
        for grows in ("alerts", "audit"):
            now[grows] = [row for row in now[grows] if row in before[grows]]
        unequal[:] = [name for name in before if now[name] != before[name]]
        return not unequal

    with contextlib.suppress(AssertionError):
        wait_for(equal, 30.0, what="the past is browsable", every_s=0.01)
        outcome.browsable_s.append(time.monotonic() - began)
    outcome.wrong += [f"{name} is another one at the next administrator" for name in unequal]


def _past(boss: _Operator) -> dict[str, Any]:
    """What people see of history, alerts, audit and catalogs."""
    alerts = boss.ask("alert.list", q.AlertListRequest(all=True), v.AlertList).alerts
    audit = boss.ask("audit.list", audit_log.AuditListRequest(limit=10_000), audit_log.AuditList).entries
    sets = boss.ask("set.list", q.SetListRequest(), b.SetList).sets
    jobs = boss.ask("job.list", q.JobListRequest(None), o.JobList).jobs
    return {
        "history": [boss.ask("job.show", q.JobName(row.job), o.JobDetail).runs for row in jobs],
        "logs": [boss.ask("job.log", q.JobLogRequest(row.run), o.JobLogView) for row in jobs if row.run is not None],
        "alerts": sorted(alerts, key=lambda row: row.id),
        "audit": list(audit),
        "sets": sets,
        "catalog": boss.ask("catalog.find", CatalogFind(b"note-1*"), b.MatchList),
    }


def _prepare(mesh: ProcessMesh, boss: _Operator) -> pathlib.Path:
    wait_for(lambda: len(boss.status().voters) == 3, 30.0, what="three servers vote")
    data, disk = mesh.folder / "data", mesh.folder / "disk"
    data.mkdir()
    disk.mkdir()
    boss.ask("device.add", q.DeviceAdd("disk", "disk", {"epsilon": str(disk)}, concurrency=4), v.DeviceView)
    return data


@contextlib.contextmanager
def _lost(mesh: ProcessMesh, admin: str, way: str) -> Iterator[None]:
    """The administrator is lost, and comes back in the end."""
    if way == "kill":
        mesh.kill(admin)
        yield
        mesh.run(admin)
    elif way == "pause":
        mesh.signal(admin, signal.SIGSTOP)
        try:
            yield
        finally:
            mesh.signal(admin, signal.SIGCONT)
    else:
        assert isinstance(mesh, SiteMesh)
        mesh.cut({admin})
        try:
            yield
        finally:
            mesh.heal()


def _settle(boss: _Operator, outcome: Outcome) -> None:
    for run in outcome.runs:
        wait_for(lambda run=run: _closed(boss, run), 120.0, what=f"{run} is closed")
        shown = boss.ask("job.show", q.JobName(run), o.JobDetail).runs
        mine = next(each for each in shown if each.run == run)
        outcome.runs[run], outcome.attempts[run] = mine.state, [each.state for each in mine.attempts]


def _connected(boss: _Operator) -> bool:
    return all(row.connected for row in boss.ask("server.list", q.ServerListRequest(), v.ServerList).servers)


def _closed(boss: _Operator, run: str) -> bool:
    return boss.ask("run.follow", q.RunFollow(run), o.RunProgress).result is not None


@contextlib.contextmanager
def _mesh(folder: pathlib.Path, *, machines: int = 0) -> Iterator[ProcessMesh]:
    with contextlib.ExitStack() as stack:
        if machines:
            site = stack.enter_context(netns.Site(machines))
            mesh: ProcessMesh = SiteMesh(folder, site)
        else:
            mesh = ProcessMesh(folder)
        stack.callback(mesh.stop)
        yield mesh


def main(chosen: argparse.Namespace) -> int:
    """Prints the figures; 1 if something was lost or failed."""
    wanted = {"kill": chosen.kills, "pause": chosen.pause, "cut": chosen.cut, "lose-disk": chosen.lose_disk}
    if not any(wanted.values()):
        wanted["kill"] = 30
    failed = False
    for way, times in wanted.items():
        if not times:
            continue
        reason = netns.unavailable() if way == "cut" else None
        if reason is None and way == "cut" and not netns.Site.can_drop():
            reason = "cuts need nftables"
        if reason is not None:
            print(f"{way}: skipped, {reason}")
            continue
        with tempfile.TemporaryDirectory(prefix="caso-mesh-bench-", dir=chosen.folder) as name:
            folder = pathlib.Path(name)
            if way == "lose-disk":
                outcome = Outcome(way)
                for number in range(times):
                    with _mesh(folder / f"mesh-{number}") as mesh:
                        measure_lost_disk(mesh, outcome)
            else:
                with _mesh(folder / "mesh", machines=5 if way == "cut" else 0) as mesh:
                    outcome = measure(mesh, times, way)
        print(outcome, flush=True)
        failed = failed or not outcome.good
    print(report.machine())
    return 1 if failed else 0
