"""Jobs, runs, their parts and attempts.

A *job* is a definition. A *run* is one due time (or "run now") of it. A run has one *part* per source server; each
*attempt* belongs to one part. The first committed success closes a part, the last part closes the run.

What there are hundreds of thousands of cannot be part of a circle, so the collector of garbage need not look at it: with
a hundred thousand runs each of its full looks stopped everything for 200 ms.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.model.device_jobs import CatalogSpec, EraseSpec, InventorySpec, OfDevices
from caso_mesh.model.selections import unpack
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
    DEVICES = "devices"
    SERVER = "server"
    POOL = "pool"


class Target(Struct, frozen=True, gc=False):
    """Where a backup may go. ``name`` is the device's, device pool's, server's or pool's name; ``None`` for any."""

    kind: TargetKind
    name: str | None = None

    def __str__(self) -> str:
        return self.kind.value if self.name is None else f"{self.kind.value}:{self.name}"


class SourceRoots(Struct, frozen=True, gc=False):
    """What is read on one server (node id): absolute paths without the leading slash, in path order. ``excludes`` are
    patterns of this server alone; ``only``, for a root, patterns of which a file below it must match one. ``logons``: a dump
    and the logon that it is given."""

    server: str
    roots: tuple[bytes, ...]
    excludes: tuple[str, ...] = ()
    only: tuple[tuple[bytes, tuple[str, ...]], ...] = ()
    logons: tuple[tuple[str, str], ...] = ()


class BackupSpec(Struct, frozen=True, gc=False, tag="backup", tag_field="kind"):
    """Back up ``sources`` to ``target``. A root ``@dumps/NAME`` is what the command NAME of that server writes. ``pre``
    and ``post`` are names of its commands, too. Files of more than ``larger_than`` bytes are left out; of folders that
    are marked as caches (CACHEDIR.TAG) are kept empty with ``exclude_caches``. ``snapshot``: whether files are read from
    a snapshot of their file system. ``allow_shrink``: it may find over 90 % less than last time. ``within``: a server or
    pool that alone may write it, whatever the target says. ``logon``: what ``pre`` and ``post`` are given. ``second``: where
    another device is for the same, which is read once for both."""

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
    within: Target | None = None
    logon: str | None = None
    second: Target | None = None


class RestoreSpec(Struct, frozen=True, tag="restore", tag_field="kind"):
    """Restore ``paths`` (all if empty) of ``set`` to ``server`` (node id).

    ``base`` ``None`` = where it came from; otherwise below that folder by its whole path, or with ``strip`` without
    the path of its root. ``device`` (id): where the set lies if the administrator does not know. ``into_command``: the one file in ``paths`` becomes the input of that command of the server, which
    is given ``logon``. ``selection``: paths that are too many to be listed (``selections.pack``). ``foreign``: the set is of
    another mesh, on a device that came from there.
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
    logon: str | None = None
    selection: bytes = b""
    foreign: bool = False

    def chosen(self) -> tuple[bytes, ...]:
        """All paths that are to be restored; none: everything. Raises ``DataDamaged``."""
        return self.paths + (unpack(self.selection) if self.selection else ())


class VerifySpec(Struct, frozen=True, tag="verify", tag_field="kind"):
    """Read back and check every byte that ``set`` promises. ``source`` is the node id of the server whose set it is
    (empty if it is not known any more)."""

    set: str
    source: str = ""


class VerifySetsSpec(Struct, frozen=True, tag="verify-sets", tag_field="kind"):
    """Read back one set of each of ``sources`` (node ids). A run knows them, as ``sets`` beside the sources; its job does
    not, since it is about the newest ones."""

    sources: tuple[str, ...]
    sets: tuple[str, ...] = ()

    def set_of(self, source: str) -> str:
        """The set of a source; empty while it is not known."""
        return dict(zip(self.sources, self.sets, strict=False)).get(source, "")


class DuplicateSpec(Struct, frozen=True, tag="duplicate", tag_field="kind"):
    """Copy one set of each of ``sources`` (node ids) to another device. A run knows them, as ``sets`` beside the sources;
    the job of a policy does not, since it is about the newest ones. ``within``: as of a backup. ``foreign``: the sets are of another mesh, so
    that all that is in them gets other ids."""

    sources: tuple[str, ...]
    target: Target
    sets: tuple[str, ...] = ()
    media_set: str = DEFAULT_MEDIA_SET
    verify: bool = False
    within: Target | None = None
    foreign: bool = False

    def set_of(self, source: str) -> str:
        """The set of a source; empty while it is not known."""
        return dict(zip(self.sources, self.sets, strict=False)).get(source, "")


class SyntheticSpec(Struct, frozen=True, tag="synthetic", tag_field="kind"):
    """Make a full set out of one set of each of ``sources`` (node ids), where that lies, without reading the source. A run
    knows them, as ``sets`` beside the sources; the job of a policy does not, since it is about the newest ones. ``list``:
    the selection list (id) that they were made for, if a person named it."""

    sources: tuple[str, ...]
    sets: tuple[str, ...] = ()
    media_set: str = DEFAULT_MEDIA_SET
    verify: bool = False
    list: str = ""

    def set_of(self, source: str) -> str:
        """The set of a source; empty while it is not known."""
        return dict(zip(self.sources, self.sets, strict=False)).get(source, "")


class DrillSpec(Struct, frozen=True, tag="drill", tag_field="kind"):
    """Restore a random sample of ``set`` to a scratch folder of ``server`` (node id) and compare it with what the set
    promises. The sample has ``entries`` entries, or each with a chance of ``percent``; of at most ``max_bytes`` bytes.
    ``foreign``: as of a restore."""

    set: str
    server: str
    entries: int | None = 100
    percent: float | None = None
    max_bytes: int = 1_000_000_000
    foreign: bool = False


class TestRunSpec(Struct, frozen=True, tag="test-run", tag_field="kind"):
    """Find out whether ``backup`` could run and what it would come to; nothing is moved, nothing written."""

    backup: BackupSpec


JobSpec = (
    BackupSpec
    | RestoreSpec
    | VerifySpec
    | VerifySetsSpec
    | DuplicateSpec
    | SyntheticSpec
    | DrillSpec
    | TestRunSpec
    | OfDevices
)
#: What one attempt is about.
PartSpec = BackupSpec | RestoreSpec | VerifySpec | DuplicateSpec | SyntheticSpec | DrillSpec | TestRunSpec | OfDevices
#: What is about one set of each source: the newest ones, until a run knows them.
OfSetsSpec = VerifySetsSpec | DuplicateSpec | SyntheticSpec


def kind_of(spec: JobSpec) -> JobKind:
    match spec:
        case BackupSpec():
            return JobKind.BACKUP
        case RestoreSpec():
            return JobKind.RESTORE
        case VerifySpec() | VerifySetsSpec():
            return JobKind.VERIFY
        case DuplicateSpec():
            return JobKind.DUPLICATE
        case SyntheticSpec():
            return JobKind.SYNTHETIC
        case DrillSpec():
            return JobKind.DRILL
        case TestRunSpec():
            return JobKind.TEST_RUN
        case InventorySpec() | CatalogSpec() | EraseSpec():
            return JobKind(str(spec.__struct_config__.tag))


def backup_of(spec: JobSpec) -> BackupSpec | None:
    """The backup that is made, or only tried: what it reads, and where it goes to."""
    match spec:
        case BackupSpec():
            return spec
        case TestRunSpec(backup=backup):
            return backup
        case _:
            return None


def placed_by(spec: JobSpec) -> BackupSpec | DuplicateSpec | None:
    """What has a target of its own: a backup that is made, or only tried, or a copy of a set."""
    return spec if isinstance(spec, DuplicateSpec) else backup_of(spec)


def makes_sets(spec: JobSpec) -> bool:
    """Whether an attempt that succeeds has made a set."""
    return isinstance(spec, BackupSpec | DuplicateSpec | SyntheticSpec)


def media_set_of(spec: JobSpec | PartSpec) -> str | None:
    """The media set of the sets that it makes, or would make."""
    match spec:
        case (BackupSpec() as made) | TestRunSpec(backup=made):
            return made.media_set
        case DuplicateSpec() | SyntheticSpec():
            return spec.media_set
        case _:
            return None


def part_of_spec(spec: JobSpec, source: str) -> PartSpec:
    """What a run of ``spec`` has to do with one source: a backup's with the paths of that source alone."""
    match spec:
        case VerifySetsSpec():
            return VerifySpec(spec.set_of(source), source)
        case DuplicateSpec() | SyntheticSpec():
            return replace(spec, sources=(source,), sets=(spec.set_of(source),))
        case BackupSpec():
            return replace(spec, sources=tuple(part for part in spec.sources if part.server == source))
        case TestRunSpec(backup=backup):
            return TestRunSpec(replace(backup, sources=tuple(part for part in backup.sources if part.server == source)))
        case InventorySpec() | CatalogSpec():
            return replace(spec, devices=(source,))
        case _:
            return spec


def set_read(spec: JobSpec, source: str) -> str | None:
    """The set that a run of ``spec`` reads for one source; ``None`` if it reads none, or none is known."""
    match spec:
        case RestoreSpec() | VerifySpec() | DrillSpec():
            return spec.set
        case VerifySetsSpec() | DuplicateSpec() | SyntheticSpec():
            return spec.set_of(source) or None
        case _:
            return None


class CronSchedule(Struct, frozen=True, gc=False):
    """Due times by a cron expression (five fields) in a time zone of the IANA data base, or (with an empty ``cron``)
    once, at ``at_ns``.

    ``text``: how a person wrote it, if that was no cron expression. ``excludes``: days without a run, by the calendar of
    the zone, as ``2025-12-24`` or ``2025-12-24..2026-01-01``. ``start_window_s``: within this time of the due time it
    has to start (``None``: as the setting says). ``cancel_after_s``: it ends if it is not done so long after it began.
    ``catch_up``: what could not start in its window runs when it can, until the next one is due.
    """

    cron: str
    zone: str
    at_ns: int | None = None
    text: str = ""
    excludes: tuple[str, ...] = ()
    start_window_s: float | None = None
    cancel_after_s: float | None = None
    catch_up: bool = False


class Origin(Struct, frozen=True, gc=False):
    """What a job was made of: ids of the policy and of the list, name of the template."""

    policy: str
    list: str
    template: str


class Job(Struct, frozen=True, gc=False):
    """A definition of work. Without ``schedule`` it runs when asked. ``serial`` counts its "run now"s. One that a policy
    made has an ``origin``, the ``window`` of its list, and ``completed_at_ns`` when it first succeeded; the job ``first``
    must have done so before it starts."""

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
    origin: Origin | None = None
    window: str = ""
    first: str | None = None
    completed_at_ns: int | None = None


class Failure(Struct, frozen=True, gc=False):
    """An error as a record: its code and fields (``model.errors.from_wire`` makes it readable)."""

    code: str
    fields: dict[str, Any] = {}


class Part(Struct, frozen=True, gc=False):
    """What one source server contributes to a run. ``source`` is its node id (for restore and verify: the server
    that is written to, or whose set it is). ``not_before_ns`` holds the next attempt back. ``retried``: how often it was
    tried again by an error-handling rule; ``any_time``: that rule lets it run outside its window, too; ``held_by``: the
    rule that has put the job on hold because of it."""

    source: str
    state: RunState = RunState.READY
    attempts: int = 0
    recovered: int = 0
    interrupted: int = 0
    set: str | None = None
    not_before_ns: int = 0
    failure: Failure | None = None
    retried: int = 0
    any_time: bool = False
    held_by: str = ""


class Terms(Struct, frozen=True, gc=False):
    """When a run may start and how long it may take, as its job said when it was opened (``CronSchedule``, ``Job``).
    ``after``: the run that it follows, due at ``after_due_at_ns``. ``fired_by``: the run that started it. ``timed_out``: it
    took longer than ``cancel_after_s``. ``second_of``: the run of whose set it makes the second one."""

    start_window_s: float | None = None
    cancel_after_s: float | None = None
    catch_up: bool = False
    window: str = ""
    first: str | None = None
    after: str | None = None
    after_due_at_ns: int = 0
    fired_by: str | None = None
    timed_out: bool = False
    second_of: str | None = None


_ORDINARY = Terms()


class Run(Struct, frozen=True, gc=False):
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
    agreed: Terms | None = None

    @property
    def terms(self) -> Terms:
        """What was agreed; most runs have nothing out of the ordinary."""
        return self.agreed or _ORDINARY


class Attempt(Struct, frozen=True, gc=False):
    """One try at one part of a run, handed to a media server. ``server`` and ``source`` are node ids, ``device`` an id.

    It stays here while it is active; what it did is in the journals. ``cancel``: its end was asked for, ``by_force``: at once.
    Of a duplicate ``reader`` (node id) reads the set on ``from_device`` that is copied to ``device``. ``second``: the attempt that
    takes what this one reads to another device, ``beside`` this one. ``set``: the copy that is restored in place of the job's."""

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
    by_force: bool = False
    secret: bytes = b""
    ended_at_ns: int | None = None
    failure: Failure | None = None
    reader: str = ""
    from_device: str = ""
    second: str = ""
    beside: str = ""
    set: str = ""

    @property
    def other(self) -> str:
        """The node id of the other end: whose files are touched, or who reads the set that is copied."""
        return self.reader or self.source


class Waiting(Struct, frozen=True):
    """Why a part of a run waits: a reason with the fields of its text in ``states.REASON_TEXT``."""

    reason: WaitReason
    fields: dict[str, Any] = {}


class Counts(Struct, frozen=True, gc=False):
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
        if self.state not in {AttemptState.RUNNING, AttemptState.VERIFYING}:
            return None
        if not self.total_bytes:  # what moves nothing is measured by files
            return min(99.9, 100.0 * self.counts.files / self.total_files) if self.total_files else None
        moved = self.counts.bytes
        if self.state is AttemptState.RUNNING:  # of a large file nothing is in the tree until all of it was read
            moved = max(moved, self.counts.bytes_read)
        return min(99.9, 100.0 * moved / self.total_bytes)

    @property
    def rate(self) -> float:
        """Bytes read per second so far."""
        return self.counts.bytes_read / self.elapsed_s if self.elapsed_s > 0 else 0.0
