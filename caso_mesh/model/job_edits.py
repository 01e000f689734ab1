"""Changes of jobs that a person made."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.states import BackupType, Priority, SnapshotMode


class JobEdit(Struct, frozen=True):
    """Change what is given of the job ``name``, as in ``BackupRequest``; ``None`` stays as it is. ``devices`` (names; none: all
    that take work when it is due) are those of an inventory, or of a catalog that is made anew. ``clear``: fields that are to
    have no value any more, of ``CLEARED``; without ``schedule`` a job runs when it is asked to."""

    name: str
    sources: tuple[tuple[str, bytes], ...] | None = None
    target: str | None = None
    second: str | None = None
    type: BackupType | None = None
    excludes: tuple[str, ...] | None = None
    one_file_system: bool | None = None
    exclude_caches: bool | None = None
    larger_than: int | None = None
    default_excludes: bool | None = None
    media_set: str | None = None
    verify: bool | None = None
    pre: str | None = None
    post: str | None = None
    post_always: bool | None = None
    ignore_exit_codes: bool | None = None
    snapshot: SnapshotMode | None = None
    allow_shrink: bool | None = None
    logon: str | None = None
    devices: tuple[str, ...] | None = None
    priority: Priority | None = None
    schedule: str | None = None
    zone: str | None = None
    exclude_days: tuple[str, ...] | None = None
    start_window_s: float | None = None
    cancel_after_s: float | None = None
    catch_up: bool | None = None
    clear: tuple[str, ...] = ()


#: What a job may do without.
CLEARED = (
    "second", "larger_than", "pre", "post", "logon", "schedule", "start_window_s", "cancel_after_s",
)  # fmt: skip
#: What belongs to a schedule.
OF_SCHEDULE = ("zone", "exclude_days", "start_window_s", "cancel_after_s", "catch_up")


class JobCopy(Struct, frozen=True):
    """A job ``new`` that does what ``name`` does."""

    name: str
    new: str


class JobEdited(Struct, frozen=True):
    """A job as it is now; ``next_due`` is when it runs by its schedule."""

    job: str
    name: str
    schedule: str | None = None
    zone: str | None = None
    next_due: str | None = None
    warnings: tuple[str, ...] = ()
