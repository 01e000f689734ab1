"""Jobs, runs, their parts and attempts.

A *job* is a definition. A *run* is one due time (or "run now") of it. A run has one *part* per source server; each
*attempt* belongs to one part. The first committed success closes a part, the last part closes the run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from caso_mesh.model.states import (
    AttemptState,
    BackupType,
    JobKind,
    JobState,
    Overwrite,
    Priority,
    RunState,
    SnapshotMode,
    WaitReason,
)
from caso_mesh.model.storage import DEFAULT_MEDIA_SET


class TargetKind(StrEnum):
    ANY = "any"
    DEVICE = "device"
    SERVER = "server"
    POOL = "pool"


class Target(Struct, frozen=True):
    """Where a backup may go. ``name`` is the device's, server's or pool's name; ``None`` for any."""

    kind: TargetKind
    name: str | None = None

    def __str__(self) -> str:
        return self.kind.value if self.name is None else f"{self.kind.value}:{self.name}"


class SourceRoots(Struct, frozen=True):
    """What is read on one server (node id): absolute paths without the leading slash, in path order."""

    server: str
    roots: tuple[bytes, ...]


class BackupSpec(Struct, frozen=True, tag="backup", tag_field="kind"):
    """Back up ``sources`` to ``target``. A root ``@dumps/NAME`` is what the command NAME of that server writes. ``pre``
    and ``post`` are names of its commands, too. Files of more than ``larger_than`` bytes are left out; of folders that
    are marked as caches (CACHEDIR.TAG) are kept empty with ``exclude_caches``. ``snapshot``: whether files are read from
    a snapshot of their file system. ``allow_shrink``: it may find over 90 % less than last time."""

    sources: tuple[SourceRoots, ...]
    target: Target
    type: BackupType = BackupType.FULL
    excludes: tuple[str, ...] = ()
    one_file_system: bool = False
    exclude_caches: bool = False
    larger_than: int | None = None
    default_excludes: bool = True
    media_set: str = DEFAULT_MEDIA_SET
    verify: bool = False
    pre: str | None = None
    post: str | None = None
    post_always: bool = False
    ignore_exit_codes: bool = False
    snapshot: SnapshotMode = SnapshotMode.NEVER
    allow_shrink: bool = False


class RestoreSpec(Struct, frozen=True, tag="restore", tag_field="kind"):
    """Restore ``paths`` (all if empty) of ``set`` to ``server`` (node id).

    ``base`` ``None`` = where it came from; otherwise below that folder by its whole path, or with ``strip`` without
    the path of its root. ``device`` (id): where the set lies if the administrator does not know. ``into_command``: the one file in ``paths`` becomes the input of that command of the server.
    """

    set: str
    server: str
    paths: tuple[bytes, ...] = ()
    base: bytes | None = None
    strip: bool = False
    into_command: str | None = None
    overwrite: Overwrite = Overwrite.ALWAYS
    ownership: bool = True
    device: str | None = None


class VerifySpec(Struct, frozen=True, tag="verify", tag_field="kind"):
    """Read back and check every byte that ``set`` promises. ``source`` is the node id of the server whose set it is
    (empty if it is not known any more)."""

    set: str
    source: str = ""


class DrillSpec(Struct, frozen=True, tag="drill", tag_field="kind"):
    """Restore a random sample of ``set`` to a scratch folder of ``server`` (node id) and compare it with what the set
    promises. The sample has ``entries`` entries, or each with a chance of ``percent``; of at most ``max_bytes`` bytes."""

    set: str
    server: str
    entries: int | None = 100
    percent: float | None = None
    max_bytes: int = 1_000_000_000


class TestRunSpec(Struct, frozen=True, tag="test-run", tag_field="kind"):
    """Find out whether ``backup`` could run and what it would come to; nothing is moved, nothing written."""

    backup: BackupSpec


JobSpec = BackupSpec | RestoreSpec | VerifySpec | DrillSpec | TestRunSpec


def kind_of(spec: JobSpec) -> JobKind:
    match spec:
        case BackupSpec():
            return JobKind.BACKUP
        case RestoreSpec():
            return JobKind.RESTORE
        case VerifySpec():
            return JobKind.VERIFY
        case DrillSpec():
            return JobKind.DRILL
        case TestRunSpec():
            return JobKind.TEST_RUN


def backup_of(spec: JobSpec) -> BackupSpec | None:
    """The backup that is made, or only tried: what it reads, and where it goes to."""
    match spec:
        case BackupSpec():
            return spec
        case TestRunSpec(backup=backup):
            return backup
        case _:
            return None


class CronSchedule(Struct, frozen=True):
    """Due times by a cron expression (five fields) in a time zone of the IANA data base."""

    cron: str
    zone: str


class Job(Struct, frozen=True):
    """A definition of work. Without ``schedule`` it runs when asked. ``serial`` counts its "run now"s."""

    id: str
    name: str
    spec: JobSpec
    created_by: str
    created_at_ns: int
    priority: Priority = Priority.MEDIUM
    schedule: CronSchedule | None = None
    state: JobState = JobState.ACTIVE
    serial: int = 0
    last_due_at_ns: int | None = None


class Failure(Struct, frozen=True):
    """An error as a record: its code and fields (``model.errors.from_wire`` makes it readable)."""

    code: str
    fields: dict[str, Any] = {}


class Part(Struct, frozen=True):
    """What one source server contributes to a run. ``source`` is its node id (for restore and verify: the server
    that is written to, or whose set it is). ``not_before_ns`` holds the next attempt back."""

    source: str
    state: RunState = RunState.READY
    attempts: int = 0
    recovered: int = 0
    interrupted: int = 0
    set: str | None = None
    not_before_ns: int = 0
    failure: Failure | None = None


class Run(Struct, frozen=True):
    """One run of a job, as the control state keeps it until and after it is closed.

    ``held``: nothing of it is delegated. ``stranded``: it is held because it was recovered too often, and is released
    by itself when a server of its target returns; a run that a person holds is not.
    """

    id: str
    job: str
    name: str
    spec: JobSpec
    priority: Priority
    due_at_ns: int
    created_at_ns: int
    created_by: str
    parts: tuple[Part, ...]
    state: RunState = RunState.READY
    held: bool = False
    stranded: bool = False
    closed_at_ns: int | None = None


class Attempt(Struct, frozen=True):
    """One try at one part of a run, handed to a media server. ``server`` and ``source`` are node ids, ``device`` an id.

    It stays here while it is active; what it did is in the journals.
    """

    id: str
    run: str
    job: str
    source: str
    server: str
    device: str
    number: int
    delegated_at_ns: int
    state: AttemptState = AttemptState.QUEUED
    cancel: bool = False
    secret: bytes = b""
    ended_at_ns: int | None = None
    failure: Failure | None = None


class Waiting(Struct, frozen=True):
    """Why a part of a run waits: a reason with the fields of its text in ``states.REASON_TEXT``."""

    reason: WaitReason
    fields: dict[str, Any] = {}


class Counts(Struct, frozen=True):
    """What an attempt did so far. ``files`` counts regular files, ``entries`` everything."""

    files: int = 0
    entries: int = 0
    bytes: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    exceptions: int = 0


class Predicted(Struct, frozen=True):
    """What a backup would come to. ``bytes_new`` of ``bytes`` are new or changed, and what is stored at most. ``seconds``
    ``None``: nothing was ever read to that device that tells how fast it is."""

    files: int
    bytes: int
    bytes_new: int
    seconds: float | None


class Progress(Struct, frozen=True):
    """What a running attempt reports. ``total_bytes`` and ``total_files`` are estimates; ``None`` = not known yet."""

    attempt: str
    state: AttemptState
    counts: Counts
    at_ns: int
    elapsed_s: float
    path: str = ""
    total_bytes: int | None = None
    total_files: int | None = None

    @property
    def percent(self) -> float | None:
        if self.state not in {AttemptState.RUNNING, AttemptState.VERIFYING} or not self.total_bytes:
            return None
        return min(99.9, 100.0 * self.counts.bytes / self.total_bytes)

    @property
    def rate(self) -> float:
        """Bytes read per second so far."""
        return self.counts.bytes_read / self.elapsed_s if self.elapsed_s > 0 else 0.0
