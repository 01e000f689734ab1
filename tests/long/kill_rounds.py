"""``kill -9`` at seeded random moments of backup, publish and restore on a mesh of real daemons, and what must hold after
each."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import pathlib
import random
import shutil
import signal
import time
from dataclasses import dataclass
from typing import Any

from long.verifying import verify_all
from mesh.process import Begun, ProcessMesh
from mesh.trees import assert_equal
from waiting import wait_for

from caso_mesh.journal.journal import Journal
from caso_mesh.machine import SystemClock
from caso_mesh.model import facts

#: Where the files lie; the device is at beta, and alpha is the administrator.
SOURCES = ("beta", "alpha")
MEGABYTE = 1_000_000
#: A success that comes after its attempt was given up for dead ends the next attempt: that one is canceled.
ENDS = {"succeeded", "interrupted", "canceled"}
#: Kills of one run: many, since the second costs a moment and the first a command, a changed tree, a comparison. After
#: six interruptions it would fail.
STRIKES = range(3, 6)
#: A daemon takes seconds to be back, a worker none.
VICTIMS = ("daemon", "worker", "worker", "worker")


@dataclass(frozen=True)
class Kill:
    """What was killed, during what, and when (seconds after its first worker was seen)."""

    round: int
    work: str
    source: str
    server: str
    victim: str
    at_s: float
    hit: bool

    def __str__(self) -> str:
        told = "" if self.hit else " (it had ended)"
        return f"round {self.round}: {self.work} of {self.source}, {self.victim} of {self.server} at {self.at_s:.3f} s{told}"


class Rounds:
    """Each round kills in a backup (or in the moment it publishes), and in a restore of what it made."""

    def __init__(self, mesh: ProcessMesh, seed: int) -> None:
        self.mesh = mesh
        self.rng = random.Random(seed)
        self.kills: list[Kill] = []
        self.trees = {source: mesh.folder / f"data-{source}" for source in SOURCES}
        self.disk = mesh.folder / "disk"
        self.runs: dict[str, str] = {}
        self._lasts: dict[tuple[str, str], float] = {}
        self._began = time.monotonic()

    def prepare(self, *, files: int = 150, large: int = 4) -> None:
        """Devices, and files to back up."""
        mesh, rng = self.mesh, self.rng
        self.disk.mkdir()
        mesh.ok("alpha", "device", "add", "disk", "--server", "beta", "--path", str(self.disk))
        for tree in self.trees.values():
            (tree / "small").mkdir(parents=True)
            for number in range(files):
                (tree / "small" / f"{number}").write_bytes(rng.randbytes(rng.randrange(9000)))
            for number in range(large):
                (tree / f"large-{number}").write_bytes(rng.randbytes(4 * MEGABYTE))
        for source in SOURCES:  # how long each kind of work lasts
            self._undisturbed(source)

    def _undisturbed(self, source: str) -> None:
        made = self._timed(("backup", source), "backup", f"{source}:{self.trees[source]}", "--to", "device:disk")
        back = self.mesh.folder / "back"
        self._timed(("restore", source), "restore", made["set"], "--to", f"{source}:{back}", "--strip")
        assert_equal(self.trees[source], back)
        shutil.rmtree(back)

    def _timed(self, what: tuple[str, str], *argv: str) -> dict[str, Any]:
        begun = self.mesh.begin("alpha", *argv, "--wait")
        self._wait_worker(begun)
        first = time.monotonic()
        answer = begun.end()
        assert answer.status == 0, str(answer)
        self._lasts[what] = time.monotonic() - first
        self._note(argv[0], answer.document["run"])
        return dict(answer.document)

    def _note(self, work: str, run: str) -> None:
        self.runs[run] = work

    # --- a round ---

    def one(self, number: int) -> None:
        """A changed tree, a backup that is killed, a restore that is killed."""
        source = SOURCES[number % 2]
        self._change(source, number)
        before = self._set_objects()
        made = self._killed(
            number, source, "backup", f"{source}:{self.trees[source]}", "--to", "device:disk",
            *("--type", self.rng.choice(["full", "incremental"])),
        )  # fmt: skip
        new = self._set_objects() - before
        assert len(new) == 1, f"a backup that was killed made {len(new)} sets: {self.kills[-1]}"
        set_id = made["set"]
        back = self.mesh.folder / "back"
        self._killed(number, source, "restore", set_id, "--to", f"{source}:{back}", "--strip")
        assert_equal(self.trees[source], back)
        shutil.rmtree(back)

    def _change(self, source: str, number: int) -> None:
        tree, rng = self.trees[source], self.rng
        (tree / f"large-{number % 4}").write_bytes(rng.randbytes(3 * MEGABYTE))
        for _ in range(20):
            (tree / "small" / f"{rng.randrange(150)}").write_bytes(rng.randbytes(rng.randrange(9000)))

    def _killed(self, number: int, source: str, work: str, *argv: str) -> dict[str, Any]:
        """Begins the work, kills, brings back what was killed, perhaps again, and waits for the end of the run. If the
        administrator died before it had taken the request, the work is asked for again."""
        begun = self.mesh.begin("alpha", work, *argv, "--wait")
        for _ in range(self.rng.choice(STRIKES)):
            server = "beta" if source == "beta" else self.rng.choice(["alpha", "beta"])
            victim = self.rng.choice(VICTIMS)
            publishes = work == "backup" and self.rng.random() < 0.4
            hit, at_s = self._strike(begun, work, source, server, victim, publishes=publishes)
            # a machine is busy at one time and idle at another: strike earlier after it was too late
            self._lasts[work, source] *= 1.1 if hit else 0.7
            self.kills.append(Kill(number, "publish" if publishes else work, source, server, victim, at_s, hit))
            print(f"{time.monotonic() - self._began:.1f} s: {self.kills[-1]}", flush=True)
            if victim == "daemon":
                self.mesh.run(server)
            if begun.process.poll() is not None:
                break
        answer = begun.end()
        if answer.status:  # who waited for it has lost the administrator
            self.mesh.wait_connected("beta")
            new = self._known() - set(self.runs)
            assert len(new) <= 1, f"one request made several runs: {new}"
            again = ("job", "watch", new.pop()) if new else (work, *argv, "--wait")
            answer = self.mesh.cli("alpha", *again)
        assert answer.status == 0, f"{self.kills[-1]}: {answer}"
        assert answer.document["state"] == "succeeded", f"{self.kills[-1]}: {answer}"
        run = answer.document["run"]
        self._note(work, run)
        self._check_attempts(run)
        return dict(answer.document)

    def _strike(
        self, begun: Begun, work: str, source: str, server: str, victim: str, *, publishes: bool
    ) -> tuple[bool, float]:
        """Waits for the moment and kills; whether the work was still under way, and the moment."""
        sets = self._set_objects()
        segments = self._segments()
        self._wait_worker(begun)
        first = time.monotonic()
        if publishes:
            while begun.process.poll() is None and self._segments() == segments and self._set_objects() == sets:
                time.sleep(0.001)
            time.sleep(self.rng.uniform(0.0, 0.03))
        else:
            time.sleep(self.rng.uniform(0.0, 0.8 * self._lasts[work, source]))
        hit = begun.process.poll() is None
        if victim == "daemon":
            self.mesh.kill(server)
        else:
            pids = self.mesh.workers(server)
            hit = bool(pids)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return hit, time.monotonic() - first

    def _wait_worker(self, begun: Begun) -> None:
        def works() -> bool:
            return begun.process.poll() is not None or bool(self.mesh.workers("beta"))

        wait_for(works, 30.0, what="a worker runs", every_s=0.002)

    # --- what must hold ---

    def _known(self) -> set[str]:
        rows = self.mesh.ok("alpha", "job", "list", "--state", "all", "--limit", "5000")["jobs"]
        return {row["run"] for row in rows if row["run"]}

    def _set_objects(self) -> set[pathlib.Path]:
        return set(self.disk.glob("sets/*/*"))

    def _segments(self) -> set[pathlib.Path]:
        return set(self.disk.glob("index/*/*"))

    def _check_attempts(self, run: str) -> None:
        def seen() -> list[dict[str, Any]]:
            rows = self.mesh.ok("alpha", "job", "show", run)["runs"]
            return list(next(row for row in rows if row["run"] == run)["attempts"])

        # the one that a late success has ended may have to be told yet
        wait_for(lambda: {row["state"] for row in seen()} <= ENDS, 120.0, what="all attempts have ended", every_s=0.2)
        attempts = seen()
        states = [row["state"] for row in attempts]
        assert states.count("succeeded") == 1, f"{self.kills[-1]}: {states}"
        assert set(states) <= ENDS, f"{self.kills[-1]}: {states}"
        assert [row["attempt"] for row in attempts] == [f"{run}#{n + 1}" for n in range(len(attempts))]
        assert not any(row["redundant"] for row in attempts), f"{self.kills[-1]}: {attempts}"

    def check_all(self) -> None:
        """Every set there is is sound and was published once; what the vault holds is what the mesh knows; nothing
        is open. Stops the daemons, and reads their journals: each attempt ended exactly once."""
        mesh = self.mesh
        wait_for(lambda: not mesh.jobs(), what="nothing is left open", every_s=0.1)
        sets = mesh.sets()
        backups = {run for run, work in self.runs.items() if work == "backup"}
        assert len(sets) == len(backups), f"{len(backups)} backups, {len(sets)} sets"
        assert len(self._set_objects()) == len(sets), "sets in the vault that the mesh does not know"
        verify_all(mesh, [row["id"] for row in sets])
        assert "Traceback" not in mesh.log("alpha", 100_000) + mesh.log("beta", 100_000)
        ids = {row["name"]: row["id"] for row in mesh.ok("alpha", "server", "list")["servers"]}
        for name in ("beta", "alpha"):
            assert mesh.terminate(name) == 0
        ended: collections.Counter[tuple[str, str]] = collections.Counter()
        published: collections.Counter[str] = collections.Counter()
        for name in SOURCES:
            for fact in asyncio.run(_facts(mesh.state(name) / "journal.db", ids[name])):
                if isinstance(fact, facts.AttemptEnded):
                    ended[name, fact.attempt] += 1  # both ends of one attempt may tell: each once
                elif isinstance(fact, facts.SetPublished):
                    published[fact.set.id] += 1
        twice = [attempt for attempt, count in ended.items() if count > 1]
        assert not twice, f"attempts with several ends: {twice}"
        assert published == {row["id"]: 1 for row in sets}

    def hits(self) -> int:
        """Kills of work that was under way."""
        return sum(kill.hit for kill in self.kills)

    def summary(self) -> str:
        counts = collections.Counter((kill.work, kill.victim, kill.hit) for kill in self.kills)
        told = [
            f"{work} {victim}: {counts[work, victim, True]} (too late: {counts[work, victim, False]})"
            for work, victim in sorted({(kill.work, kill.victim) for kill in self.kills})
        ]
        return f"{len(self.kills)} kills, {self.hits()} of them of work under way; " + "; ".join(told)


async def _facts(path: pathlib.Path, server: str) -> list[facts.Fact | facts.UnknownFact]:
    found: list[facts.Fact | facts.UnknownFact] = []

    def never() -> str:
        raise AssertionError("the journal is there already")

    async with Journal.open(path, server, clock=SystemClock(), new_id=never) as journal:
        for head in await journal.incarnations():
            after = 0
            while records := await journal.records(head.incarnation, after):
                found += [facts.decode(record.kind, record.data) for record in records]
                after = records[-1].seq
    return found
