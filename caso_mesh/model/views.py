"""What the calls of people answer: records whose keys are the documented, versioned JSON contract.

Instants are RFC 3339 strings in UTC, names are names and ids are ids as ``docs/calls.md`` says. ``path`` is escaped,
``path_b64`` exact (base64).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from caso_mesh.model.catalogs import CatalogAway
from caso_mesh.model.documents import CalendarDoc, DevicePoolDoc, LogonDoc, MediaSetDoc, PolicyDoc, SelectionDoc
from caso_mesh.model.inventories import InventoryView
from caso_mesh.model.rules import ErrorRule


class Done(Struct, frozen=True):
    """The call did what it should; nothing more to say."""


class StatusView(Struct, frozen=True):
    """``admin`` is never a remembered one: ``None`` unless this server is in office or linked to the one that is."""

    mesh: str
    server: str
    admin: str | None
    term: int
    voters: tuple[str, ...]
    servers: int
    running: int
    alerts: int
    version: str = ""


class ServerView(Struct, frozen=True):
    name: str
    id: str
    state: str
    connected: bool
    admin: bool
    voter: bool
    pools: tuple[str, ...]
    address: str
    version: str
    silent_since: str | None = None
    silent_s: float | None = None
    running: int = 0
    code: str | None = None
    queue_on_hold: bool = False
    data_location: str = "admin"


class ServerList(Struct, frozen=True):
    servers: tuple[ServerView, ...]
    more: bool = False


class TokenView(Struct, frozen=True):
    """``link`` is secret until it is used."""

    link: str
    expires: str


class CaView(Struct, frozen=True):
    """The certification authority of the mesh: the SHA-256 of its ``root``. ``rotation`` is ``never``, ``announced`` (it signs
    nothing yet), ``switched`` (the old one is believed ``until``) or ``finished``. ``lacking``: who does not know the new
    one yet, after the switch: who has no certificate of it."""

    root: str
    rotation: str
    announced: str | None
    switch_at: str | None
    until: str | None
    finished: str | None
    lacking: tuple[str, ...]


class OperatorInvited(Struct, frozen=True):
    """``link`` is secret until it is used."""

    name: str
    role: str
    servers: tuple[str, ...]
    pools: tuple[str, ...]
    link: str
    expires: str


class OperatorView(Struct, frozen=True):
    """``role`` holds in the whole mesh; ``on`` has the roles on single servers, by their names, ``on_pools`` those on the
    members of pools. ``state`` is ``active``, or ``invited`` until ``expires``. ``home``: the server that keeps the key."""

    name: str
    id: str | None
    state: str
    role: str | None
    on: dict[str, str]
    on_pools: dict[str, str]
    created: str | None = None
    expires: str | None = None
    home: str | None = None


class OperatorList(Struct, frozen=True):
    operators: tuple[OperatorView, ...]


class PeerView(Struct, frozen=True):
    address: str
    source: str


class PeerList(Struct, frozen=True):
    peers: tuple[PeerView, ...]


class PoolView(Struct, frozen=True):
    name: str
    servers: tuple[str, ...]


class PoolList(Struct, frozen=True):
    pools: tuple[PoolView, ...]


class KitView(Struct, frozen=True):
    """A recovery kit. ``confirmed`` is null until its file was known to open; ``missing`` are devices that it cannot
    open yet."""

    id: str
    created: str
    created_by: str
    confirmed: str | None
    devices: tuple[str, ...]
    missing: tuple[str, ...]


class KitList(Struct, frozen=True):
    kits: tuple[KitView, ...]


class DeviceView(Struct, frozen=True):
    """``free_bytes`` and ``used_bytes`` are what its servers reported last; ``used_bytes`` is the vault's own size.
    ``quotas``: server -> how many bytes its sets may take, for those that may not take all. ``disabled``: servers that
    see it and may not use it. ``mesh``: that from which an imported device came."""

    name: str
    id: str
    kind: str
    servers: tuple[str, ...]
    paths: dict[str, str]
    state: str
    free_bytes: int | None
    used_bytes: int | None
    sets: int
    running: int
    concurrency: int
    low_space_bytes: int
    warnings: tuple[str, ...] = ()
    quotas: dict[str, int] = {}
    disabled: tuple[str, ...] = ()
    mesh: str | None = None


class DeviceList(Struct, frozen=True):
    devices: tuple[DeviceView, ...]
    more: bool = False


class LogonRecipients(Struct, frozen=True):
    """The mesh's id, and the keys (raw X25519, by node id) of the servers to which a secret is to be sealed."""

    mesh: str
    keys: dict[str, bytes]


class LogonView(Struct, frozen=True):
    """Logon information without its secret. ``there`` are the servers that have a copy of the secret, ``lacking`` those that
    may use it and have none yet."""

    name: str
    definition: LogonDoc
    there: tuple[str, ...]
    lacking: tuple[str, ...]
    changed: str
    changed_by: str


class LogonList(Struct, frozen=True):
    logons: tuple[LogonView, ...]


class ErrorRuleList(Struct, frozen=True):
    rules: tuple[ErrorRule, ...]


class MediaSetView(Struct, frozen=True):
    """Durations in seconds; ``None`` = without end."""

    name: str
    append_s: float | None
    protection_s: float | None
    keep_s: float | None
    factory: bool
    definition: MediaSetDoc = MediaSetDoc()


class MediaSetList(Struct, frozen=True):
    media_sets: tuple[MediaSetView, ...]


class SelectionView(Struct, frozen=True):
    """A selection list, the policies associated with it, and the jobs that were made of that."""

    name: str
    id: str
    definition: SelectionDoc
    policies: tuple[str, ...]
    jobs: tuple[str, ...]
    created: str
    created_by: str
    warnings: tuple[str, ...] = ()


class SelectionViews(Struct, frozen=True):
    selections: tuple[SelectionView, ...]
    more: bool = False


class PolicyView(Struct, frozen=True):
    """A policy, the selection lists associated with it, and the jobs that were made of that."""

    name: str
    id: str
    definition: PolicyDoc
    selections: tuple[str, ...]
    jobs: tuple[str, ...]
    created: str
    created_by: str
    warnings: tuple[str, ...] = ()


class PolicyViews(Struct, frozen=True):
    policies: tuple[PolicyView, ...]


class DevicePoolView(Struct, frozen=True):
    name: str
    definition: DevicePoolDoc


class DevicePoolViews(Struct, frozen=True):
    device_pools: tuple[DevicePoolView, ...]


class CalendarView(Struct, frozen=True):
    name: str
    definition: CalendarDoc


class CalendarViews(Struct, frozen=True):
    calendars: tuple[CalendarView, ...]


class PreviewRow(Struct, frozen=True):
    """A due time of a job. ``state`` is ``scheduled``, ``superseded`` (``by`` another job, due at ``by_due``), or
    ``on-hold``. ``after``: it waits for the end of that job's run. ``first``: that job must complete once before, and is not
    due before it. ``starts``: what it starts by rules, and when."""

    due: str
    job: str
    type: str | None
    selection: str | None
    policy: str | None
    template: str | None
    state: str
    by: str | None = None
    by_due: str | None = None
    after: str | None = None
    starts: tuple[str, ...] = ()
    first: str | None = None


class PreviewList(Struct, frozen=True):
    """In the order of their due times; ``more``: there are more than were asked for."""

    runs: tuple[PreviewRow, ...]
    more: bool = False


class WhatIfRun(Struct, frozen=True):
    """What would become of a part of a run. ``state`` is the run's at its end; ``ready``: it would still wait when all else
    is over, ``delegated``: it would still run. ``begins``, ``ends``, ``server`` and ``device`` are those of its attempts;
    ``guessed``: nothing is known of how long it takes. ``reason``, ``reason_text``: why it would wait when it is ready, or
    why it would never start. ``usual_...``: the same with everything there; ``None`` if that is the question."""

    run: str
    job: str
    kind: str
    selection: str | None
    source: str
    due: str
    state: str
    begins: str | None
    ends: str | None
    server: str | None
    device: str | None
    bytes_stored: int
    guessed: bool
    reason: str | None
    reason_text: str | None
    usual_state: str | None = None
    usual_begins: str | None = None
    usual_ends: str | None = None


class WhatIfList(Struct, frozen=True):
    """What would become of a selection list (``kind`` ``list``), or of a job that was made of none (``job``): how many of
    its ``runs`` (parts of runs, superseded ones not counted) are ``done`` by the end, and how many are ``missed``,
    ``failed`` or ``late`` (later than that, or never). ``because``: why the first of those. ``away``: its sources that
    would not be there. ``usual``: whether all of it is done in time with everything there."""

    name: str
    kind: str
    runs: int
    done: int
    missed: int
    failed: int
    late: int
    ends: str | None
    because: str | None
    away: tuple[str, ...]
    usual: bool | None = None


class WhatIfServer(Struct, frozen=True):
    """``away``: it would not be there, or is not now. ``runs`` that it would write or read for others, ``seconds`` of them
    all together, and which part that is of what it may do at once (``load``, percent)."""

    name: str
    away: bool
    runs: int
    seconds: float
    load: float


class WhatIfDevice(Struct, frozen=True):
    """``runs``, ``seconds`` and ``load`` as of a server. ``free_bytes`` now and at the end, as predicted. ``full``: when it
    would take nothing more, being low on space. ``bytes_a_day``: what the schedules of four weeks will store on it;
    ``days_until_full`` after the end, if nothing is deleted."""

    name: str
    away: bool
    runs: int
    seconds: float
    load: float
    bytes_stored: int
    free_bytes: int | None
    free_bytes_then: int | None
    full: str | None
    bytes_a_day: int
    days_until_full: float | None
    usual_full: str | None = None


class WhatIfView(Struct, frozen=True):
    """``verdict`` in words; ``good``: all is done in time, and no device is full. ``ends``: when the last run ends that
    ends at all; ``later_s`` than ``usual_ends``, with everything there. ``until`` is the end of the night in ``zone``.
    ``guessed``: so many runs of which nothing is known, which count as ``typical_s`` each. ``more``: not all runs are
    told. ``notes``: what it stands on."""

    verdict: str
    good: bool
    ends: str | None
    usual_ends: str | None
    later_s: float | None
    begins: str
    until: str
    zone: str
    without: tuple[str, ...]
    without_devices: tuple[str, ...]
    runs_total: int
    lists: tuple[WhatIfList, ...]
    servers: tuple[WhatIfServer, ...]
    devices: tuple[WhatIfDevice, ...]
    runs: tuple[WhatIfRun, ...]
    more: bool
    guessed: int
    typical_s: float
    notes: tuple[str, ...] = ()


class Mistake(Struct, frozen=True):
    """What is wrong in a file, at which line (from 1)."""

    line: int
    place: str
    message: str
    hint: str = ""


class Change(Struct, frozen=True):
    """What a file changes: ``create``, ``change`` or ``delete``. ``details``: one line for each value."""

    action: str
    kind: str
    name: str
    details: tuple[str, ...] = ()


class Applied(Struct, frozen=True):
    """``applied``: the changes were made; not with mistakes, and not in a dry run."""

    applied: bool
    changes: tuple[Change, ...]
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[str, ...] = ()


class Exported(Struct, frozen=True):
    """The text of a file that ``config.apply`` takes."""

    text: str


class MediumView(Struct, frozen=True):
    label: str
    device: str
    media_set: str
    server: str
    state: str
    opened: str
    last_write: str
    bytes: int
    sets: int


class MediumList(Struct, frozen=True):
    media: tuple[MediumView, ...]
    more: bool = False


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


class RunResult(Struct, frozen=True):
    """A run as ``--wait`` prints it. ``state`` is the run's; ``set`` is filled if there is just one; ``attempt``,
    ``server``, ``device`` are ``None`` if there are several; ``seconds`` without waiting and verifying.
    ``predicted`` is what a test run says of all sources together, ``None`` for any other job. ``second``: of a backup to two
    devices what became of the second one, for each source. ``inventories``: what was found in each device."""

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


class JobView(Struct, frozen=True):
    """A run (or a job that waits for its next due time) as lists show it; ``reason`` tells why it waits, ``reason_ends``
    what would end that. ``local``: its server runs it by itself."""

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


class RunView(Struct, frozen=True):
    """``note``: what superseded or started it, in words. ``second``: as of ``RunResult``."""

    run: str
    state: str
    due: str
    closed: str | None
    sets: tuple[SetOutcome, ...]
    attempts: tuple[AttemptView, ...]
    note: str | None = None
    second: tuple[SecondOutcome, ...] = ()


class OriginView(Struct, frozen=True):
    """What a job was made of: there it is edited."""

    policy: str
    selection: str
    template: str


class JobDetail(Struct, frozen=True):
    """``origin`` is ``None`` for a job that a person made. ``start_window_s``, ``cancel_after_s``, ``catch_up`` and
    ``exclude_days`` (those of its calendars, too) belong to the schedule."""

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


class SetView(Struct, frozen=True):
    """``kept_by``: what keeps it until newer sets come: ``last-good``, or numbers of its media set (``last``, ``daily`` ...);
    ``expires`` does not count then. ``expired``: nothing keeps it any more. ``copy_of``: the set of which it is a copy.
    ``made_of``: the set of which this full one was made without reading the source. ``missing``: an inventory did not find it
    on its device."""

    id: str
    source: str
    server: str
    device: str
    medium: str
    media_set: str
    type: str
    job: str
    run: str
    attempt: str
    started: str
    ended: str
    files: int
    bytes: int
    bytes_stored: int
    exceptions: int
    paths: tuple[str, ...]
    expires: str | None
    protected_until: str | None
    locked: bool
    redundant: bool = False
    catalog: bool = True
    kept_by: tuple[str, ...] = ()
    expired: bool = False
    copy_of: str | None = None
    made_of: str | None = None
    missing: bool = False


class SetList(Struct, frozen=True):
    sets: tuple[SetView, ...]
    more: bool = False


class ExpiryRow(Struct, frozen=True):
    """``goes``: with the next pass. ``why``: what keeps it (``retention``, ``protection``, ``locked``, ``no-media-set``,
    ``last-good``, ``last``, ``daily`` ...), ``device-away``, ``device-read-only``, or what the last pass was told."""

    set: str
    source: str
    device: str
    media_set: str
    ended: str
    goes: bool
    expires: str | None
    why: tuple[str, ...]


class ExpiryView(Struct, frozen=True):
    """``paused``: why nothing expires now."""

    paused: str | None
    sets: tuple[ExpiryRow, ...]


class Expired(Struct, frozen=True):
    """How many sets went. ``paused``: why nothing expires now."""

    gone: int
    paused: str | None


class SetChoice(Struct, frozen=True):
    """The newest set that ended in time and covers what was asked for. ``servers`` reach its device now."""

    id: str
    source: str
    type: str
    started: str
    ended: str
    device: str
    servers: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class CatalogRebuilt(Struct, frozen=True):
    """What lies on a device. ``added`` sets were not known here, ``deleted`` ones were and are deleted there; the
    catalog of ``pending`` sets is made now, one after the other. ``server`` read the device."""

    device: str
    server: str
    sets: int
    added: int
    deleted: int
    pending: int
    warnings: tuple[str, ...] = ()


class FileOpened(Struct, frozen=True):
    """An open file. ``server`` is the one that reads it out of ``device``."""

    handle: str
    set: str
    path: str
    size: int
    device: str
    server: str


class EntryView(Struct, frozen=True):
    path: str
    path_b64: str
    type: str
    size: int
    mtime: str
    mtime_ns: str
    mode: str


class EntryList(Struct, frozen=True):
    entries: tuple[EntryView, ...]
    more: bool = False


class MatchView(Struct, frozen=True):
    server: str
    path: str
    path_b64: str
    set: str
    size: int
    mtime: str
    mtime_ns: str
    type: str


class MatchList(Struct, frozen=True):
    """``away``: servers that keep catalogs which could not be asked. ``cut_off``: the search took too long and was ended.
    ``only``: the servers that the caller's role is limited to, if no others were searched because of that. ``more``: there
    are others behind these; ``next``: what goes on there, and where a search goes on that was ended."""

    matches: tuple[MatchView, ...]
    more: bool = False
    away: tuple[CatalogAway, ...] = ()
    cut_off: bool = False
    only: tuple[str, ...] = ()
    next: str | None = None


class VersionView(Struct, frozen=True):
    """One version of a path: the sets from ``first_set`` to ``last_set`` hold it unchanged."""

    path: str
    type: str
    size: int
    mtime: str
    mtime_ns: str
    mode: str
    first_set: str
    last_set: str
    sets: int
    first_seen: str
    last_seen: str


class VersionList(Struct, frozen=True):
    """``away``: as in ``MatchList``."""

    versions: tuple[VersionView, ...]
    away: tuple[CatalogAway, ...] = ()


class SettingView(Struct, frozen=True):
    """``origin`` is where the value comes from: ``default``, ``mesh``, ``pool:NAME`` or ``server:NAME``."""

    name: str
    value: float | str
    origin: str
    default: float | str
    text: str


class SettingList(Struct, frozen=True):
    settings: tuple[SettingView, ...]


class AlertView(Struct, frozen=True):
    """``here``, where a server shows its own alerts: what of it is kept there, the answer until it is the one that counts, or all."""

    id: str
    alert: str
    category: str
    server: str
    object: str
    text: str
    raised: str
    answered: str | None
    answered_by: str | None
    response: str | None
    cleared: str | None
    here: str | None = None


class AlertList(Struct, frozen=True):
    """``more``: there are more than were asked for."""

    alerts: tuple[AlertView, ...]
    more: bool = False


class CopyOutcome(Struct, frozen=True):
    """What came of one thing that was copied: ``made``, ``overwritten``, ``skipped`` or ``refused``, with the reason."""

    kind: str
    name: str
    came: str
    reason: str = ""


class CopyView(Struct, frozen=True):
    """What was copied to a server at once. ``state`` is ``waiting`` until the server has told what came of it."""

    id: str
    number: int
    server: str
    state: str
    clash: str
    copied: str
    copied_by: str
    taken: str | None
    outcomes: tuple[CopyOutcome, ...]


class CopyRefused(Struct, frozen=True):
    """A server of the pool to which nothing is copied, and the error that says why."""

    server: str
    error: dict[str, Any]


class Copied(Struct, frozen=True):
    """``settings``: how many servers have the settings of the mesh as their own now."""

    copies: tuple[CopyView, ...]
    refused: tuple[CopyRefused, ...] = ()
    settings: int = 0


class CopyList(Struct, frozen=True):
    """``more``: there are more than were asked for."""

    copies: tuple[CopyView, ...]
    more: bool = False
