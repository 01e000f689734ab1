"""What the calls ask: one frozen record for each. Names are as people give them; prefixes of ids are accepted."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from caso_mesh.model import listing
from caso_mesh.model.documents import CalendarDoc, DevicePoolDoc, LogonDoc, MediaSetDoc, PolicyDoc, SelectionDoc
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.states import (
    BackupType,
    DataLocation,
    DeviceState,
    Overwrite,
    Priority,
    Role,
    ServerState,
    SnapshotMode,
)
from caso_mesh.model.storage import DEFAULT_MEDIA_SET

#: What lists are asked.
ServerListRequest = listing.ServerListRequest
DeviceListRequest = listing.DeviceListRequest
MediumListRequest = listing.MediumListRequest
SelectionListRequest = listing.SelectionListRequest
JobListRequest = listing.JobListRequest
JobLogRequest = listing.JobLogRequest
SetListRequest = listing.SetListRequest


class Nothing(Struct, frozen=True):
    """No parameters."""


class CaRotate(Struct, frozen=True):
    """``overlap_s``: how long everybody has to learn of the new certification authority before it signs. ``urgent``: it signs
    at once, and the old one is believed only until everybody has renewed."""

    overlap_s: float = 8 * 86400.0
    urgent: bool = False


class OperatorCreate(Struct, frozen=True):
    """``role`` on ``servers`` and on the members of ``pools``; without both in the whole mesh. The link lasts ``ttl_s``."""

    name: str
    role: Role
    servers: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    ttl_s: float = 3600.0


class OperatorName(Struct, frozen=True):
    name: str


class ServerApprove(Struct, frozen=True):
    name: str
    code: str


class ServerSetState(Struct, frozen=True):
    name: str
    state: ServerState


class ServerSet(Struct, frozen=True):
    """``data_location``: where the device and media data of the server shall lie."""

    name: str
    data_location: DataLocation


class ServerName(Struct, frozen=True):
    name: str


class QueueHold(Struct, frozen=True):
    """Hold (or release) the queue of one server, of the servers of a pool, or with neither of all."""

    held: bool
    server: str | None = None
    pool: str | None = None


class TokenCreate(Struct, frozen=True):
    ttl_s: float = 3600.0


class PeerAdd(Struct, frozen=True):
    address: str


class AdminTransfer(Struct, frozen=True):
    """To the voter of that name; without one, to the voter that is furthest with the log."""

    to: str | None = None


class PoolEdit(Struct, frozen=True):
    name: str
    servers: tuple[str, ...] = ()


class PoolName(Struct, frozen=True):
    name: str


class DeviceAdd(Struct, frozen=True):
    """``on`` maps server names to folders."""

    name: str
    kind: Literal["disk", "shared"]
    on: dict[str, str]
    concurrency: int = 1
    low_space_bytes: int = 0


class DeviceSet(Struct, frozen=True):
    """``quotas``: server -> how many bytes its sets may take on the device, ``None`` = as many as there are. ``enabled``:
    server -> whether it may use the device."""

    name: str
    state: DeviceState | None = None
    concurrency: int | None = None
    low_space_bytes: int | None = None
    quotas: dict[str, int | None] = {}
    enabled: dict[str, bool] = {}


class DeviceMove(Struct, frozen=True):
    """``to``: server -> folder, all places that the device has from now on."""

    name: str
    to: dict[str, str]


class DeviceShare(Struct, frozen=True):
    """One more server sees the device, in ``path``; without it, one sees it no more."""

    name: str
    server: str
    path: str | None = None


class DeviceName(Struct, frozen=True):
    name: str


class MediumLabel(Struct, frozen=True):
    label: str


class KitCreate(Struct, frozen=True):
    """A recovery kit is being made where the caller is. ``id`` and ``public_key`` (raw X25519) are the kit's own.
    ``with_root_key`` false: the root key is there already, out of an earlier kit."""

    id: str
    public_key: bytes
    with_root_key: bool = True


class KitMaterial(Struct, frozen=True):
    """What goes into a recovery kit. ``root`` is DER; ``sealed`` are the secrets, for the kit's private key alone.
    ``missing`` are devices that could not be reached: they are completed when they return."""

    mesh: str
    mesh_name: str
    root: bytes
    sealed: bytes
    devices: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class KitConfirm(Struct, frozen=True):
    """The file of a kit opens. ``check`` is a digest of what it holds (``identity.kit.check_of``), the root key included
    if it was handed over: nobody on the way can have put something else into it."""

    id: str
    check: bytes
    with_root_key: bool = True


class BackupRequest(Struct, frozen=True):
    """``sources`` are (server name, path bytes as given, absolute). ``target`` as in ``pool:P``. ``schedule`` is a cron line,
    or as in ``daily 22:00``; ``exclude_days`` to ``catch_up`` belong to it, as in ``TemplateDoc``. ``logon``: what all of its
    commands are given. ``second``: where a second device is, as ``target``; the source is read once."""

    sources: tuple[tuple[str, bytes], ...]
    target: str
    type: BackupType | None = None
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
    test_run: bool = False
    priority: Priority = Priority.MEDIUM
    name: str | None = None
    schedule: str | None = None
    zone: str | None = None
    exclude_days: tuple[str, ...] = ()
    start_window_s: float | None = None
    cancel_after_s: float | None = None
    catch_up: bool = False
    logon: str | None = None
    second: str | None = None


class RestoreRequest(Struct, frozen=True):
    """``to`` is (server name, folder); ``None`` = where it came from. ``into_command`` is (server name, its command).
    ``from_device``: the set is looked for on that device, whatever the administrator knows of it. ``logon``: what the command is
    given."""

    set: str
    paths: tuple[bytes, ...] = ()
    to: tuple[str, bytes] | None = None
    strip: bool = False
    into_command: tuple[str, str] | None = None
    overwrite: Overwrite = Overwrite.ALWAYS
    ownership: bool = True
    priority: Priority = Priority.MEDIUM
    from_device: str | None = None
    logon: str | None = None
    selection: bytes = b""


class VerifyRequest(Struct, frozen=True):
    set: str
    priority: Priority = Priority.MEDIUM


class DuplicateRequest(Struct, frozen=True):
    """``set`` is copied to ``target``. ``media_set``: that of the set, without."""

    set: str
    target: str = "any"
    media_set: str | None = None
    verify: bool = False
    priority: Priority = Priority.MEDIUM


class SyntheticRequest(Struct, frozen=True):
    """A full set is made of the newest one of ``sources`` (server, path), of each server that one with exactly these
    paths, or of each server of a ``selection`` list. ``media_set``: that of the set, without."""

    sources: tuple[tuple[str, bytes], ...] = ()
    selection: str | None = None
    media_set: str | None = None
    verify: bool = False
    priority: Priority = Priority.MEDIUM


class DrillRequest(Struct, frozen=True):
    """``set``: a set, or the name of a server whose newest set is meant. ``server``: where it is restored to scratch (its
    own, without). ``entries`` or ``percent`` is the size of the sample, at most ``max_bytes`` bytes of it."""

    set: str
    server: str | None = None
    entries: int | None = None
    percent: float | None = None
    max_bytes: int = 1_000_000_000
    priority: Priority = Priority.MEDIUM


class JobName(Struct, frozen=True):
    """A job, run or attempt by its id, a unique prefix of it, or a job's name."""

    name: str


class JobCancel(Struct, frozen=True):
    """A job, run or attempt. ``by_force``: its workers are killed, and it ends though its server does not answer."""

    name: str
    by_force: bool = False


class JobSet(Struct, frozen=True):
    """A new priority of a job and what waits of it, or of one run."""

    name: str
    priority: Priority


class RunFollow(Struct, frozen=True):
    """Where a run is; tells its servers that somebody watches. With ``wait_s`` (at most 10 s) it answers when the run has
    come further, at the latest after that; without it at once. ``until_end``: only the end counts, nobody watches."""

    run: str
    wait_s: float = 0.0
    until_end: bool = False


class SettingsListRequest(Struct, frozen=True):
    server: str | None = None
    pool: str | None = None


class SettingSet(Struct, frozen=True):
    """``value`` as a person writes it; ``None`` returns to what the wider scope says."""

    name: str
    value: str | None
    server: str | None = None
    pool: str | None = None


class AlertListRequest(Struct, frozen=True):
    all: bool = False
    server: str | None = None
    pool: str | None = None
    limit: int = 500
    types: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None


class AlertAnswer(Struct, frozen=True):
    id: str
    response: str = "ok"


class LogonUsers(Struct, frozen=True):
    """Who may use a logon: servers, and the members of pools, by their names; ``voters``: all voters."""

    servers: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    voters: bool = False


class SealedLogon(Struct, frozen=True):
    """A secret as it was sealed where it was typed: a copy for each server (node id), each bound to the mesh, to the name of
    the logon, to this ``version`` and to the server."""

    version: str
    copies: dict[str, bytes]


class LogonCreate(Struct, frozen=True):
    name: str
    user: str
    users: LogonUsers
    sealed: SealedLogon


class LogonSet(Struct, frozen=True):
    """The logon as it shall be. Without ``sealed`` the secret stays; ``before``: how it is, as far as the caller knows."""

    name: str
    user: str
    users: LogonUsers
    sealed: SealedLogon | None = None
    before: LogonDoc | None = None


class ErrorRuleCreate(Struct, frozen=True):
    rule: ErrorRule


class Named(Struct, frozen=True):
    """Something by its name."""

    name: str


class Renamed(Struct, frozen=True):
    """Something by its name, and the name that it or its copy shall have."""

    name: str
    to: str


class SelectionCreate(Struct, frozen=True):
    name: str
    definition: SelectionDoc


class SelectionSet(Struct, frozen=True):
    """``before``: the definition that was changed; if it is another one meanwhile, nothing is done."""

    name: str
    definition: SelectionDoc
    before: SelectionDoc | None = None


class PolicyCreate(Struct, frozen=True):
    name: str
    definition: PolicyDoc


class PolicySet(Struct, frozen=True):
    """``before`` as for selection lists."""

    name: str
    definition: PolicyDoc
    before: PolicyDoc | None = None


class AssociationEdit(Struct, frozen=True):
    """A selection list and a policy, by name."""

    selection: str
    policy: str


class MediaSetEdit(Struct, frozen=True):
    name: str
    definition: MediaSetDoc


class DevicePoolEdit(Struct, frozen=True):
    name: str
    definition: DevicePoolDoc


class CalendarEdit(Struct, frozen=True):
    name: str
    definition: CalendarDoc


class SchedulePreview(Struct, frozen=True):
    """What is due in the next ``days`` days (at most 400) of a selection list, a policy or a job; without a name of
    all."""

    name: str | None = None
    days: float = 7.0
    limit: int = 1000


class Why(Struct, frozen=True):
    """``name``: a run, a selection list, a server or a job; ``list:NAME``, ``server:NAME`` or ``job:NAME`` if it could be
    several. ``night``: the date of its evening, as in ``2025-01-31``; the newest one without."""

    name: str
    night: str | None = None


class ConfigApply(Struct, frozen=True):
    """The text of a file (TOML). With ``dry_run`` it is only told what would change."""

    text: str
    dry_run: bool = False


Params = dict[str, Any]


class CopyTo(Struct, frozen=True):
    """``target`` is ``server:NAME`` or ``pool:NAME``; the others are names. A policy brings its selection lists, and is
    associated there with those that are named beside it. What has a
    name that is taken at the server is skipped, or takes its place with ``overwrite``. ``settings``: those of the mesh become
    the server's own."""

    target: str
    policies: tuple[str, ...] = ()
    selections: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    error_rules: bool = False
    settings: bool = False
    overwrite: bool = False


class CopyListRequest(Struct, frozen=True):
    server: str | None = None
    limit: int = 200
