"""A day of a small site on real daemons whose calendar runs fast: one server sleeps through a night, one is killed at work,
one is cut off, and the administrator is killed in the next night."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from long import fast_daemon
from long.day_plan import DEVICES, LISTS, MAIL_HOUR, NIGHTS, NOON_HOUR, SERVERS, STOPS_HOUR, Listed, path_of, written
from long.schedule_rounds import below
from mesh.process import Frozen, ProcessMesh
from mesh.site import SiteMesh
from msgspec import Struct
from waiting import wait_for

#: An hour of the day takes nine seconds.
FACTOR = 400.0
#: From the end of the preparations to the first night.
_BEFORE_HOURS = 2.5
_FILES = 30


class Away(Struct, frozen=True):
    """When a server was not there, in hours."""

    server: str
    since: float
    until: float


class Day:
    """``live`` is all of it. ``at_work``: runs that were on ``beta`` when it was killed; ``unseen``: the one that went on
    while ``gamma`` was cut off; ``of_alpha``: the one that read files of ``alpha`` when that was killed."""

    def __init__(self, mesh: ProcessMesh, seed: int) -> None:
        self.mesh = mesh
        self.rng = random.Random(seed)
        self.away: list[Away] = []
        self.at_work: set[str] = set()
        self.unseen = ""
        self.of_alpha = ""
        self.offices: list[str] = []
        self.trees = {
            (row.name, server): path_of(mesh.folder, row.name, server) for row in LISTS for server in row.servers
        }
        self.disks = {device: mesh.folder / device for device in DEVICES}
        self._calendar: fast_daemon.FastCalendar | None = None
        self._night = datetime.max.replace(tzinfo=UTC)

    def live(self) -> None:
        self._prepare()
        self._gamma_sleeps()
        self._beta_is_killed_at_work()
        self._gamma_is_cut_off()
        self._administrator_is_killed_in_the_night()
        self._end()

    # --- time ---

    def at(self, hour: float) -> datetime:
        return self._night + timedelta(hours=hour)

    def hour(self) -> float:
        """What hour it is."""
        assert self._calendar is not None
        now = datetime.fromtimestamp(self._calendar.now_ns() / 1e9, UTC)
        return (now - self._night).total_seconds() / 3600

    def _until(self, hour: float) -> None:
        assert self._calendar is not None
        left_s = self._calendar.wait_s(round(self.at(hour).timestamp()) * 1_000_000_000)
        assert left_s > -4, f"this machine is too slow for this day: it is {-left_s:.0f} s late"
        wait_for(lambda: self.hour() >= hour, 300.0, what=f"hour {hour}", every_s=0.05)

    # --- what is there ---

    def _prepare(self) -> None:
        """All of it is made in the time that everybody has; then the daemons begin anew, and the calendar is fast."""
        mesh = self.mesh
        mesh.start(len(SERVERS), voters=True)
        for row in LISTS:
            for server in row.servers:
                self._fill(row, server)
        for device, server in DEVICES.items():
            self.disks[device].mkdir()
            mesh.ok("alpha", "device", "add", device, "--server", server, "--path", str(self.disks[device]))
        wait_for(lambda: len(mesh.ok("alpha", "status")["voters"]) == 3, 30.0, what="three servers vote", every_s=0.2)
        for name in reversed(SERVERS):
            assert mesh.terminate(name) == 0
        origin_ns = time.time_ns()
        self._calendar = fast_daemon.FastCalendar(FACTOR, origin_ns)
        soon = datetime.fromtimestamp(origin_ns / 1e9, UTC) + timedelta(hours=_BEFORE_HOURS)
        self._night = soon.replace(second=0, microsecond=0)
        mesh.variables[fast_daemon.VARIABLE] = f"{FACTOR}@{origin_ns}"
        mesh.program = (fast_daemon.__file__,)
        mesh.run_all(*SERVERS)
        mesh.wait_connected(*SERVERS)
        if self._admin("alpha") != "alpha":
            mesh.ok("alpha", "admin", "transfer", "--to", "alpha")
            wait_for(lambda: self._admin("alpha") == "alpha", 30.0, what="alpha is in office", every_s=0.2)
        file = mesh.folder / "mesh.toml"
        file.write_text(written(mesh.folder, self._night), "utf-8")
        mesh.ok("alpha", "apply", "-f", str(file))
        self.offices.append(self._admin("alpha"))
        assert self.offices == ["alpha"]

    def _fill(self, row: Listed, server: str) -> None:
        tree = self.trees[row.name, server]
        tree.mkdir(parents=True)
        for number in range(_FILES):
            (tree / f"{number}").write_bytes(self.rng.randbytes(self.rng.randrange(6000)))
        self._grow(tree, row.megabytes)

    def _grow(self, tree: pathlib.Path, megabytes: int) -> None:
        for number in range(megabytes // 3):
            (tree / f"large-{number}").write_bytes(self.rng.randbytes(3_000_000))

    def _admin(self, at: str) -> str:
        def found() -> Any:
            return self.mesh.ok(at, "status")["admin"]

        return str(wait_for(found, 30.0, what="somebody is in office", every_s=0.2))

    def _running(self, at: str, server: str) -> dict[str, str]:
        """The runs that are at work on a server, by the name of their job."""
        rows = self.mesh.jobs(at)
        return {row["name"]: row["run"] for row in rows if row["attempt"] and row["server"] == server}

    # --- what goes wrong ---

    @contextlib.contextmanager
    def _while_away(self, server: str) -> Iterator[None]:
        since = self.hour()
        yield
        self.away.append(Away(server, since, self.hour()))
        self.mesh.wait_connected(*SERVERS, at="beta", timeout_s=30.0)

    def _gamma_sleeps(self) -> None:
        """The whole machine, through all that is due there in the first night."""
        self._until(-0.7)
        with self._while_away("gamma"):
            pid = self.mesh.pid("gamma")
            asleep = [pid, *below(pid)]
            for each in asleep:
                os.kill(each, signal.SIGSTOP)
            self._until(6.8)
            for each in reversed(asleep):
                with contextlib.suppress(ProcessLookupError):  # a worker of the administrator's that was waited for
                    os.kill(each, signal.SIGCONT)

    def _die(self, server: str) -> None:
        """Nothing of that machine goes on."""
        children = below(self.mesh.pid(server))
        self.mesh.kill(server)
        for each in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def _frozen(self, server: str, device: str, hour: float) -> Frozen:
        self._until(hour - 0.1)
        return self.mesh.freeze(server, self.disks[device])

    def _beta_is_killed_at_work(self) -> None:
        frozen = self._frozen("beta", "first-beta", MAIL_HOUR)
        running = self._running("alpha", "beta")
        assert "alpha-mail.mail.full" in running, running
        self.at_work = set(running.values())
        with self._while_away("beta"):
            self._die("beta")
            frozen.thaw()
            self._until(10.4)
            self.mesh.run("beta")

    def _gamma_is_cut_off(self) -> None:
        """What it has begun goes on meanwhile, told to nobody. (Without network namespaces it stands still.)"""
        mesh = self.mesh
        with self._frozen("gamma", "disk-gamma", NOON_HOUR) as frozen:
            running = self._running("alpha", "gamma")
            assert "gamma-noon.noon.full" in running, running
            self.unseen = running["gamma-noon.noon.full"]
            with self._while_away("gamma"):
                if isinstance(mesh, SiteMesh):
                    mesh.cut({"gamma"})
                else:
                    mesh.signal("gamma", signal.SIGSTOP)
                frozen.thaw()
                self._until(18.8)
                if isinstance(mesh, SiteMesh):
                    mesh.heal()
                else:
                    mesh.signal("gamma", signal.SIGCONT)

    def _administrator_is_killed_in_the_night(self) -> None:
        """While its own files are read."""
        # more than is on its way at any time
        self._grow(self.trees["alpha-docs", "alpha"], 72)
        with self._frozen("beta", "first-beta", NIGHTS[1]) as frozen:
            running = self._running("beta", "beta")
            assert "alpha-docs.office.daily" in running, running
            self.of_alpha = running["alpha-docs.office.daily"]
            with self._while_away("alpha"):
                self._die("alpha")
                frozen.thaw()
                self.offices.append(self._admin("beta"))
                self._until(25.6)
                self.mesh.run("alpha")

    def _end(self) -> None:
        """The calendar stands still, and what is open ends."""
        self._until(STOPS_HOUR)
        for name in SERVERS:
            self.mesh.signal(name, signal.SIGUSR2)
        wait_for(lambda: not self._open(), 90.0, what="every run has ended", every_s=0.5)
        self.offices.append(self._admin("beta"))

    def _open(self) -> set[str]:
        return {row["name"] for row in self.mesh.jobs("beta") if row["run"]}
