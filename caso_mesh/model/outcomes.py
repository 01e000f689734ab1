"""What is shown of jobs, runs and attempts: how they go on, what came of them, and why."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from caso_mesh.model.cataloguing import CatalogView
from caso_mesh.model.inventories import InventoryView


class Submitted(Struct, frozen=True):
    """A job was made; ``run`` is its first run, ``None`` if it only runs by its schedule."""

    job: str
    run: str | None
    name: str
    next_due: str | None = None
    warnings: tuple[str, ...] = ()


class ExceptionView(Struct, frozen=True):
    path: str
    reason: str


class SetOutcome(Struct, frozen=True):
    """What became of one source server in a run."""

    source: str
    set: str | None
    state: str


class SecondOutcome(Struct, frozen=True):
    """What became of the second device of what was read of one server: ``run`` is that of taking it there. ``error`` is an
    error as it crosses the wire."""

    run: str
    source: str
    state: str
    set: str | None
    server: str | None
    device: str | None
    error: dict[str, Any] | None = None


class PredictedView(Struct, frozen=True):
    """What a backup would come to, by a test run. ``bytes_new`` of ``bytes`` are new or changed since the last set of
    the same paths, and what is stored at most. ``seconds`` is ``None`` where no earlier set tells how fast the device is filled."""

    files: int
    bytes: int
    bytes_new: int
    seconds: float | None


class Destination(Struct, frozen=True):
    """``source_path`` of ``source`` (a server) goes to ``path`` of ``server``; a path that begins with ``@`` is the input of that
    command. Without its root's path (``--strip``) a root goes to the folder itself, and one that is a file into it. ``source_path``
    is ``None`` where it is not known any more what was in the set."""

    source: str
    source_path: str | None
    server: str
    path: str


class RunResult(Struct, frozen=True):
    """A run as ``--wait`` prints it. ``state`` is the run's; ``set`` is filled if there is just one; ``attempt``,
    ``server``, ``device`` are ``None`` if there are several; ``seconds`` without waiting and verifying.
    ``predicted`` is what a test run says of all sources together, ``None`` for any other job. ``second``: of a backup to two
    devices what became of the second one, for each source. ``inventories``: what was found in each device, ``catalogs``: what making
    that of each anew came to. ``destinations``: where a restore put what it brought back, the first hundred of what was chosen."""

    job: str
    run: str
    attempt: str | None
    state: str
    type: str | None
    server: str | None
    device: str | None
    set: str | None
    sets: tuple[SetOutcome, ...]
    files: int
    bytes: int
    bytes_read: int
    bytes_stored: int
    seconds: float
    exceptions: tuple[ExceptionView, ...]
    error: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    predicted: PredictedView | None = None
    second: tuple[SecondOutcome, ...] = ()
    inventories: tuple[InventoryView, ...] = ()
    catalogs: tuple[CatalogView, ...] = ()
    destinations: tuple[Destination, ...] = ()


class JobView(Struct, frozen=True):
    """A run (or a job that waits for its next due time) as lists show it; ``reason`` tells why it waits, ``reason_ends``
    what would end that, ``reason_since`` since when it is that one. ``local``: its server runs it by itself."""

    job: str
    name: str
    kind: str
    run: str | None
    attempt: str | None
    state: str
    type: str | None
    priority: str
    source: str | None
    server: str | None
    device: str | None
    reason: str | None
    reason_fields: dict[str, Any]
    reason_text: str | None
    percent: float | None
    files: int
    bytes: int
    bytes_read: int
    bytes_stored: int
    rate: float
    path: str | None
    due: str | None
    started: str | None
    ended: str | None
    schedule: str | None = None
    zone: str | None = None
    policy: str | None = None
    selection: str | None = None
    reason_ends: str | None = None
    local: bool = False
    reason_since: str | None = None


class JobList(Struct, frozen=True):
    jobs: tuple[JobView, ...]
    more: bool = False


class AttemptView(Struct, frozen=True):
    attempt: str
    number: int
    state: str
    type: str | None
    source: str
    server: str
    device: str
    delegated: str
    started: str | None
    ended: str | None
    seconds: float | None
    files: int
    bytes: int
    bytes_read: int
    bytes_stored: int
    set: str | None
    error: dict[str, Any] | None
    redundant: bool = False
    predicted: PredictedView | None = None
    inventory: InventoryView | None = None
    catalog: CatalogView | None = None


class RunWait(Struct, frozen=True):
    """Why the part of a run for the files of ``source`` waits: as in ``JobView``."""

    source: str
    reason: str
    reason_fields: dict[str, Any]
    reason_text: str
    reason_ends: str
    reason_since: str | None = None


class RunView(Struct, frozen=True):
    """``note``: what superseded or started it, in words. ``second``: as of ``RunResult``. ``waits``: why parts of it wait
    now."""

    run: str
    state: str
    due: str
    closed: str | None
    sets: tuple[SetOutcome, ...]
    attempts: tuple[AttemptView, ...]
    note: str | None = None
    second: tuple[SecondOutcome, ...] = ()
    waits: tuple[RunWait, ...] = ()


class OriginView(Struct, frozen=True):
    """What a job was made of: there it is edited."""

    policy: str
    selection: str
    template: str


class JobDetail(Struct, frozen=True):
    """``origin`` is ``None`` for a job that a person made. ``start_window_s``, ``cancel_after_s``, ``catch_up`` and
    ``exclude_days`` (those of its calendars, too) belong to the schedule. ``destinations``: as of ``RunResult``."""

    job: str
    name: str
    kind: str
    state: str
    priority: str
    created: str
    created_by: str
    schedule: str | None
    zone: str | None
    next_due: str | None
    spec: dict[str, Any]
    runs: tuple[RunView, ...]
    origin: OriginView | None = None
    start_window_s: float | None = None
    cancel_after_s: float | None = None
    catch_up: bool = False
    exclude_days: tuple[str, ...] = ()
    destinations: tuple[Destination, ...] = ()


class RunProgress(Struct, frozen=True):
    """How far a run is; ``result`` is filled once it is closed and its facts, set and catalog have arrived."""

    run: str
    state: str
    parts: tuple[JobView, ...]
    result: RunResult | None = None


class LogLineView(Struct, frozen=True):
    at: str
    level: str
    text: str


class AttemptLog(Struct, frozen=True):
    attempt: str
    lines: tuple[LogLineView, ...]


class JobLogView(Struct, frozen=True):
    """``away``: servers that keep more of it, by the setting joblog-forwarding, and cannot be asked now."""

    attempts: tuple[AttemptLog, ...]
    away: tuple[str, ...] = ()


class StoryLine(Struct, frozen=True):
    """One thing that happened, in words. ``what``: ``due``, ``asked``, ``fired``, ``follows``, ``superseded``, ``waited``,
    ``delegated``, ``started``, ``ended``, ``set``, ``no-set``, ``done``, ``alert``, ``alert-over``. Of a wait ``reason``,
    ``seconds``, and ``until`` when it is over; of the end of an attempt ``state`` and ``error``; ``name``: the job's."""

    at: str
    what: str
    text: str
    run: str | None = None
    name: str | None = None
    source: str | None = None
    attempt: str | None = None
    server: str | None = None
    device: str | None = None
    state: str | None = None
    set: str | None = None
    reason: str | None = None
    seconds: float | None = None
    until: str | None = None
    error: dict[str, Any] | None = None


class StoryRun(Struct, frozen=True):
    """What came of a run."""

    run: str
    name: str
    state: str
    due: str
    closed: str | None
    sets: tuple[SetOutcome, ...]


class Story(Struct, frozen=True):
    """``kind`` of ``about``: ``run``, ``list``, ``server`` or ``job``. ``night``: from noon of that day to the next noon in
    ``zone``; ``None`` for a run. ``notes``: why there is nothing, or not all."""

    about: str
    kind: str
    night: str | None
    zone: str
    runs: tuple[StoryRun, ...]
    lines: tuple[StoryLine, ...]
    notes: tuple[str, ...] = ()
