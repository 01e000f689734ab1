"""What reports are made of: rows with names instead of ids, as the office gathers them.

Instants are nanoseconds UTC. A row concerns the servers whose names it holds, so that whoever may see only some servers is
given only their rows. None of them can be part of a circle, so the collector of garbage need not look at them: a hundred
thousand rows made it stop everything for a third of a second.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Part(StrEnum):
    """What a report may ask for; each is a field of ``Gathered``."""

    RUNS = "runs"
    SETS = "sets"
    AGES = "ages"
    DEVICES = "devices"
    MEDIA = "media"
    MEDIA_SETS = "media_sets"
    SERVERS = "servers"
    ALERTS = "alerts"
    AUDIT = "audit"
    RESOURCES = "resources"
    WORKLOAD = "workload"


class RunRow(Struct, frozen=True, gc=False):
    """One source's part of a run. ``kind`` as in ``states.JobKind``. ``ended_ns`` ``None``: it is open. ``own``: its server
    runs it by itself. ``set`` is the set that it made, or is about. ``predicted_*`` are of a test run; ``target`` is where a
    restore writes to. ``sound_since_ns``: when the same job last succeeded for this source after this end."""

    run: str
    job: str
    kind: str
    state: str
    source: str
    due_ns: int
    type: str = ""
    selection: str = ""
    policy: str = ""
    server: str = ""
    device: str = ""
    by: str = ""
    started_ns: int | None = None
    ended_ns: int | None = None
    seconds: float | None = None
    attempts: int = 0
    files: int = 0
    bytes: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    exceptions: int = 0
    set: str = ""
    target: str = ""
    error: str = ""
    error_text: str = ""
    error_hint: str = ""
    waits: str = ""
    note: str = ""
    own: bool = False
    predicted_files: int | None = None
    predicted_bytes: int | None = None
    predicted_new: int | None = None
    predicted_s: float | None = None
    sound_since_ns: int | None = None


class SetRow(Struct, frozen=True, gc=False):
    """One backup set. ``missing``: an inventory did not find it, ``damaged``: it was when it was last checked. ``kept_by`` are the reasons why it stays, as ``set expire`` names them."""

    id: str
    source: str
    server: str
    device: str
    medium: str
    media_set: str
    type: str
    started_ns: int
    ended_ns: int
    selection: str = ""
    policy: str = ""
    roots: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    exceptions: int = 0
    redundant: bool = False
    missing: bool = False
    damaged: bool = False
    copy: bool = False
    made: bool = False
    locked: bool = False
    expires_ns: int | None = None
    protected_ns: int | None = None
    expired: bool = False
    kept_by: tuple[str, ...] = ()


class AgeRow(Struct, frozen=True, gc=False):
    """The newest good backup of one server of a selection list. ``allowed_s`` ``None``: any age is allowed, ``origin`` says
    why it is that. ``since_ns``: when the list began to ask for it. Of one that has none: ``first_due_ns`` is when the first
    was or is due (``None``: nothing is due by itself, or need be), ``under_way``: a run that may bring it is open, ``had``: there has been
    one, which does not count any more."""

    selection: str
    source: str
    since_ns: int
    newest_ns: int | None = None
    set: str = ""
    device: str = ""
    allowed_s: float | None = None
    origin: str = ""
    overdue: bool = False
    first_due_ns: int | None = None
    under_way: bool = False
    had: bool = False

    def unprotected(self, now_ns: int) -> bool:
        """Whether there is no good backup though the first one was due. One that is under way is still to come, unless that
        has taken longer than is allowed."""
        if self.newest_ns is not None:
            return False
        was_due = self.first_due_ns is not None and self.first_due_ns <= now_ns and not self.under_way
        return self.overdue or was_due


class PlaceRow(Struct, frozen=True, gc=False):
    """Where one server sees a device. ``there``: it is linked, may use it, and reports no problem."""

    server: str
    path: str
    there: bool
    problem: str = ""


class DeviceRow(Struct, frozen=True, gc=False):
    """A device. ``kits``: so many confirmed recovery kits open it. ``mesh``: the mesh that an imported one came from."""

    name: str
    kind: str
    state: str
    places: tuple[PlaceRow, ...]
    concurrency: int
    low_space_bytes: int
    pools: tuple[str, ...] = ()
    free_bytes: int | None = None
    total_bytes: int | None = None
    running: int = 0
    kits: int = 0
    mesh: str = ""


class MediumRow(Struct, frozen=True, gc=False):
    label: str
    device: str
    media_set: str
    server: str
    state: str
    opened_ns: int
    last_write_ns: int


class MediaSetRow(Struct, frozen=True, gc=False):
    """``None`` = without end. ``counts``: numbers of sets that are kept beyond that, as in ``7 daily``."""

    name: str
    append_s: float | None
    protection_s: float | None
    keep_s: float | None
    counts: tuple[str, ...] = ()


class ServerRow(Struct, frozen=True, gc=False):
    name: str
    state: str
    connected: bool
    admin: bool
    voter: bool
    version: str
    pools: tuple[str, ...]
    devices: tuple[str, ...]
    joined_ns: int
    selections: tuple[str, ...] = ()
    running: int = 0
    silent_since_ns: int | None = None
    queue_on_hold: bool = False
    data_location: str = "admin"


class AlertRow(Struct, frozen=True, gc=False):
    id: str
    alert: str
    category: str
    server: str
    object: str
    text: str
    raised_ns: int
    answered_ns: int | None = None
    answered_by: str = ""
    response: str = ""
    cleared_ns: int | None = None


class AuditRow(Struct, frozen=True, gc=False):
    at_ns: int
    who: str
    what: str
    category: str
    outcome: str
    server: str
    source: str
    fields: str


class Cover(StrEnum):
    """How much of a place selection lists name."""

    COVERED = "covered"
    PARTLY = "partly-covered"
    UNPROTECTED = "unprotected"
    UNKNOWN = "unknown"


class ResourceRow(Struct, frozen=True, gc=False):
    """A file system of a server. ``path`` empty: the server has not told what it has."""

    server: str
    path: str
    file_system: str
    cover: Cover
    selections: tuple[str, ...] = ()
    total_bytes: int | None = None
    used_bytes: int | None = None
    told_ns: int | None = None


class WorkRow(Struct, frozen=True, gc=False):
    """One run to come, as a forecast has it. ``begins_ns`` ``None``: it never starts."""

    job: str
    source: str
    state: str
    due_ns: int
    server: str = ""
    device: str = ""
    begins_ns: int | None = None
    ends_ns: int | None = None
    stored_bytes: int = 0
    guessed: bool = False
    waits: str = ""


class Gathered(Struct, frozen=True, kw_only=True):
    """All that a report may be made of: the ``Part``s that it asked for, of the time ``begins_ns`` until ``until_ns``.
    ``left_out``: of which parts only the newest rows are here, and how many older ones are not."""

    mesh: str
    now_ns: int
    begins_ns: int
    until_ns: int
    zone: str
    limits: tuple[str, ...] = ()
    limit: int = 1000
    runs: tuple[RunRow, ...] = ()
    sets: tuple[SetRow, ...] = ()
    ages: tuple[AgeRow, ...] = ()
    devices: tuple[DeviceRow, ...] = ()
    media: tuple[MediumRow, ...] = ()
    media_sets: tuple[MediaSetRow, ...] = ()
    servers: tuple[ServerRow, ...] = ()
    alerts: tuple[AlertRow, ...] = ()
    audit: tuple[AuditRow, ...] = ()
    resources: tuple[ResourceRow, ...] = ()
    workload: tuple[WorkRow, ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()
