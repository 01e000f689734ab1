"""What the workers of a simulated mesh have in mind, where both ends of an attempt meet, and the lives of daemons."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.jobs.messages import Consults
from caso_mesh.jobs.task import Task
from caso_mesh.model.storage import BackupSet


class Script(Struct, frozen=True):
    """What the seed has in mind for an attempt."""

    seconds: float
    #: ``well``, ``fails``, ``excepts``, ``dies``, ``hangs`` (until it is ended), or ``deaf``: it only ends by force.
    course: str
    write_s: float
    tell_s: float
    #: How long an end waits for the other one that it has lost.
    rejoin_s: float
    #: Its set is written though its daemon dies after it had agreed.
    outlives: bool
    #: How long work about a device pauses at most, at each object.
    pace_s: float = 0.0


def script_of(seed: int, attempt: str) -> Script:
    rng = random.Random(f"{seed}/{attempt}")
    courses = ["well"] * 14 + ["excepts"] * 2 + ["fails", "dies", "hangs", "deaf"]
    seconds = rng.choice([rng.uniform(0.1, 2.0), rng.uniform(2.0, 12.0), rng.uniform(10.0, 40.0)])
    return Script(
        seconds=seconds,
        course=rng.choice(courses),
        write_s=rng.uniform(0.0, 0.5),
        tell_s=rng.choice([0.0, 0.3, 3.0]),
        rejoin_s=rng.choice([5.0, 30.0, 200.0]),
        outlives=rng.random() < 0.5,
        pace_s=rng.choice([0.0, 0.02, 0.2, 2.0]),
    )


def name_of(attempt: str) -> bytes:
    """Of the one file in the set that an attempt makes."""
    return attempt.replace("/", "_").encode()


class Stage(Struct, frozen=True):
    """A worker that is at work. ``end`` as in its order."""

    attempt: str
    run: str
    source: str
    number: int
    end: str
    server: str
    began_s: float


class Hub:
    """Where both ends of an attempt meet, and what all workers of a mesh do. ``reaches(a, b)``: node ids."""

    def __init__(self, reaches: Callable[[str, str], bool], note: Callable[[str], None]) -> None:
        self.reaches = reaches
        self.note = note
        self.at_work: dict[tuple[str, str], Stage] = {}
        #: Starts of one end of an attempt, over the lives of its server.
        self.starts: dict[tuple[str, str], int] = {}
        #: What every vault was given: set id -> set.
        self.published: dict[str, BackupSet] = {}
        #: By session: which set the object is that it published.
        self.sessions: dict[str, str] = {}
        self.overlaps: list[str] = []
        #: What restores have read to their end: attempt -> (set, node id of where it went).
        self.restored: dict[str, tuple[str, str]] = {}
        #: Attempts whose device's end has ended, and told the source's end before.
        self.over: set[str] = set()
        #: By node id: workers sign what they publish.
        self.keys: dict[str, NodeKeys] = {}
        #: What becomes of each script.
        self.scripts: Callable[[Script], Script] = lambda script: script
        #: And then of that of each attempt.
        self.directed: Callable[[Task, Script], Script] = lambda task, script: script
        #: Told of the server of each set, as soon as it lies in the vault.
        self.on_published: Callable[[str], None] = lambda server: None
        #: Told of each question of a worker to the administrator.
        self.on_consult: Callable[[Consults], None] = lambda question: None

    def begin(self, stage: Stage, *, copies: bool = False) -> None:
        self.note(f"worker {stage.attempt} {stage.end} at {stage.server}")
        key = (stage.attempt, stage.server)
        self.starts[key] = self.starts.get(key, 0) + 1
        if stage.end != "device" and not copies:
            # the source's server lets one attempt at a part run at a time (a set may be read by several)
            self.overlaps.extend(
                f"{stage.attempt} began at its source while {other.attempt} ran there"
                for other in self.at_work.values()
                if (other.run, other.source) == (stage.run, stage.source) and other.end != "device"
            )
        self.at_work[key] = stage

    def reader_of(self, backup: BackupSet) -> str:
        """The attempt that read what lies in a set: of a copy that of its first set."""
        return self.published[backup.copy_of or backup.id].attempt

    def end(self, stage: Stage) -> None:
        self.at_work.pop((stage.attempt, stage.server), None)

    def partner(self, stage: Stage, far: str) -> Stage | None:
        """The other end, if it is at work and can be reached both ways."""
        other = self.at_work.get((stage.attempt, far))
        return (
            other if other is not None and self.reaches(stage.server, far) and self.reaches(far, stage.server) else None
        )


class Mortal(Protocol):
    """A worker that its daemon may leave behind."""

    def orphan(self) -> None: ...


class Life:
    """One life of a daemon, and the workers that it started."""

    def __init__(self) -> None:
        self.over = False
        self.workers: dict[asyncio.Task[None], Mortal] = {}

    def end(self) -> None:
        self.over = True
        for worker in list(self.workers.values()):
            worker.orphan()
