"""Recurring jobs on real daemons whose calendar runs fast (``fast_daemon.py``): what they hold as jobs go by, and that
every due time had its run, once."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import pathlib
import random
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from long import fast_daemon
from mesh.process import ProcessMesh
from mesh.trees import assert_equal
from waiting import wait_for

SERVERS = ("alpha", "beta", "gamma")
#: Sources and device of each job: on one server, between two, and of several sources.
JOBS = {
    "here": (("beta",), "disk-beta"),
    "far": (("gamma",), "disk-beta"),
    "admin": (("alpha",), "disk-gamma"),
    "from-admin": (("gamma",), "disk-alpha"),
    "both": (("alpha", "beta"), "disk-gamma"),
}
SETS_EACH_MINUTE = sum(len(sources) for sources, _ in JOBS.values())
#: So that history is cut in the middle: a long run shows what a longer one costs.
RUNS_KEPT = 200
MINUTE = timedelta(minutes=1)
_FILES = 40


class FastMesh(ProcessMesh):
    """Its daemons' schedules see ``factor`` times the time that passes."""

    program = (fast_daemon.__file__,)

    def __init__(self, folder: pathlib.Path, factor: float) -> None:
        super().__init__(folder)
        origin_ns = time.time_ns()
        self.variables[fast_daemon.VARIABLE] = f"{factor}@{origin_ns}"
        self.calendar = fast_daemon.FastCalendar(factor, origin_ns)


@dataclass(frozen=True)
class Sample:
    """What the daemon of one server holds, and the processes below it."""

    server: str
    jobs: int
    rss_bytes: int
    held_bytes: int
    sqlite_bytes: int
    files: int
    tasks: int
    threads: int
    objects: int
    below: int
    below_pss_bytes: int
    below_files: int
    state_bytes: int
    kinds: dict[str, int]
    task_names: dict[str, int]

    def __str__(self) -> str:
        return (
            f"{self.server:6} after {self.jobs:5} jobs: {self.rss_bytes / 1e6:6.1f} MB resident "
            f"({self.held_bytes / 1e6:.1f} MB held, {self.sqlite_bytes / 1e6:.1f} MB by databases), {self.files} files, "
            f"{self.tasks} tasks, {self.threads} threads, {self.objects} objects; {self.below} processes below with "
            f"{self.below_pss_bytes / 1e6:.1f} MB, {self.below_files} files; state folder {self.state_bytes / 1e6:.1f} MB"
        )


class Schedule:
    """Runs the jobs of ``JOBS`` each minute of the calendar, and looks."""

    def __init__(self, mesh: FastMesh, seed: int) -> None:
        self.mesh = mesh
        self.rng = random.Random(seed)
        self.samples: list[Sample] = []
        #: When the calendar was stopped, by itself.
        self.until = datetime.max.replace(tzinfo=UTC)
        self.trees = {server: mesh.folder / f"data-{server}" for server in SERVERS}
        self.disks = {f"disk-{server}": mesh.folder / f"disk-{server}" for server in SERVERS}

    def prepare(self) -> None:
        """Devices, trees, and the first sample; then the jobs."""
        for server in SERVERS:
            disk = self.disks[f"disk-{server}"]
            disk.mkdir()
            self.mesh.ok("alpha", "device", "add", disk.name, "--server", server, "--path", str(disk))
            self.trees[server].mkdir()
            for number in range(_FILES):
                (self.trees[server] / f"{number}").write_bytes(self.rng.randbytes(self.rng.randrange(6000)))
        self.mesh.ok("alpha", "settings", "set", "runs-kept", str(RUNS_KEPT))
        self.sample(0)
        for name, (sources, device) in JOBS.items():
            places = [f"{source}:{self.trees[source]}" for source in sources]
            self.mesh.ok(
                "alpha", "backup", *places, "--to", f"device:{device}", "--schedule", "* * * * *", "--name", name
            )

    def published(self) -> int:
        """Sets in all vaults."""
        return sum(1 for disk in self.disks.values() for _ in disk.glob("sets/*/*"))

    def _done(self) -> int:
        return self.published() * len(JOBS) // SETS_EACH_MINUTE

    def work(self, jobs: int, *, sample_every: int) -> None:
        """Files change and jobs run until ``jobs`` runs have made their sets; now and then a set is verified."""
        due, began, last = sample_every, time.monotonic(), 0
        moved_s = time.monotonic()
        while True:
            done = self._done()
            if done > last:
                last, moved_s = done, time.monotonic()
            assert time.monotonic() - moved_s < 60, f"no job has ended for a minute, after {done}"
            if done >= due or done >= jobs:
                self.sample(done)
                due = done + sample_every
                self._verify_newest()
                print(f"{time.monotonic() - began:.0f} s: {done} jobs", flush=True)
            if done >= jobs:
                return
            self._change()
            time.sleep(0.1)  # the pace of the people who change files, nothing is waited for

    def _change(self) -> None:
        """A new version of a file, there at once."""
        tree = self.trees[self.rng.choice(SERVERS)]
        new = self.mesh.folder / "new"
        new.write_bytes(self.rng.randbytes(self.rng.randrange(6000)))
        new.replace(tree / f"{self.rng.randrange(_FILES)}")

    def _verify_newest(self) -> None:
        newest = self.mesh.sets()[0]
        assert self.mesh.ok("alpha", "verify", newest["id"], "--wait")["state"] == "succeeded"

    # --- looking ---

    def sample(self, jobs: int) -> None:
        for server in SERVERS:
            self.samples.append(self._sample(server, jobs))
            print(self.samples[-1], flush=True)

    def _sample(self, server: str, jobs: int) -> Sample:
        path = self.mesh.state(server) / "run" / "holds.json"
        path.unlink(missing_ok=True)
        pid = self.mesh.pid(server)
        os.kill(pid, signal.SIGUSR1)
        wait_for(path.exists, 30.0, what=f"the daemon of {server} writes what it holds")
        held: dict[str, Any] = json.loads(path.read_text("utf-8"))
        under = below(pid)
        return Sample(
            server=server,
            jobs=jobs,
            rss_bytes=held["rss_bytes"],
            held_bytes=held["held_bytes"],
            sqlite_bytes=held["sqlite_bytes"],
            files=held["files"],
            tasks=held["tasks"],
            threads=held["threads"],
            objects=held["objects"],
            below=len(under),
            below_pss_bytes=sum(map(_pss, under)),
            below_files=sum(map(_files, under)),
            state_bytes=_bytes_below(self.mesh.state(server)),
            kinds=held["object_kinds"],
            task_names=held["task_names"],
        )

    # --- the end ---

    def end(self) -> None:
        """The calendar stands still; what is open ends, and the last sample is taken."""
        self.until = datetime.fromtimestamp(self.mesh.calendar.now_ns() / 1e9, UTC)
        os.kill(self.mesh.pid("alpha"), signal.SIGUSR2)
        # a machine that is too slow for the pace has some to catch up with
        wait_for(lambda: not self._open(), 900.0, what="every run has ended", every_s=0.5)
        self.sample(self._done())

    def _open(self) -> set[str]:
        return {row["name"] for row in self.mesh.jobs() if row["run"]}

    def check_runs(self) -> int:
        """Each minute until then had one run of each job, each run one attempt and one set for each of its sources, and
        no other set lies in the vaults. The number of runs.

        Sets tell it: of the runs themselves only the newest are kept.
        """
        mesh = self.mesh
        names = {row["job"]: row["name"] for row in mesh.jobs("alpha", "--state", "scheduled")}
        attempts: dict[str, list[str]] = collections.defaultdict(list)
        sources: dict[str, list[str]] = collections.defaultdict(list)
        for row in mesh.sets():
            attempts[row["run"]].append(row["attempt"])
            sources[row["run"]].append(row["source"])
        dues: dict[str, list[datetime]] = collections.defaultdict(list)
        for run, made in attempts.items():
            job, _, due = run.partition("@")
            dues[names[job]].append(datetime.strptime(due, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
            assert sorted(sources[run]) == sorted(JOBS[names[job]][0]), f"sets of {run}"
            assert sorted(made) == [f"{run}#{number + 1}" for number in range(len(made))], f"attempts of {run}"
        assert set(dues) == set(JOBS)
        for name, times in dues.items():
            due = sorted(time for time in times if time < self.until)
            assert self.until - due[-1] < 2 * MINUTE, f"{name} was not run at the end"
            gaps = [f"{one} to {two}" for one, two in itertools.pairwise(due) if two - one != MINUTE]
            assert not gaps, f"{name} was not run from {', '.join(gaps)}"
        assert self.published() == sum(map(len, attempts.values()))
        kept = [row["state"] for row in mesh.jobs("alpha", "--state", "ended", "--limit", "1000000")]
        assert len(kept) <= 1.1 * RUNS_KEPT + 60 / 3 * SETS_EACH_MINUTE, "history is cut"
        told = {row["category"] for row in mesh.ok("alpha", "alert", "list")["alerts"]}
        # a file may be replaced in the moment it is read
        assert told <= {"no-recovery-kit", "nobody-notified", "job-completed-with-exceptions"}, told
        return len(attempts)

    def check_restores(self) -> None:
        """A last run of each job by hand; what it made is restored and compared."""
        for name, (sources, _) in JOBS.items():
            done = self.mesh.ok("alpha", "job", "run", name, "--wait")
            made = {each["source"]: each["set"] for each in done["sets"]}
            for source in sources:
                back = self.mesh.folder / f"back-{name}-{source}"
                result = self.mesh.ok("alpha", "restore", made[source], "--to", f"{source}:{back}", "--strip", "--wait")
                assert result["state"] == "succeeded", result
                assert_equal(self.trees[source], back)

    def of(self, server: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.server == server]


def below(pid: int) -> list[int]:
    """The processes below a process."""
    found, waiting = [], [pid]
    while waiting:
        with contextlib.suppress(OSError):
            each = waiting.pop()
            for task in os.listdir(f"/proc/{each}/task"):
                children = pathlib.Path(f"/proc/{each}/task/{task}/children").read_text("ascii").split()
                found += map(int, children)
                waiting += map(int, children)
    return found


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _files(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def _bytes_below(folder: pathlib.Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # what is on its way comes and goes
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
