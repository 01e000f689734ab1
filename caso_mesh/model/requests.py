"""What the calls ask: one frozen record for each. Names are as people give them; prefixes of ids are accepted."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from caso_mesh.model import listing
from caso_mesh.model.documents import CalendarDoc, DevicePoolDoc, LogonDoc, MediaSetDoc, PolicyDoc, SelectionDoc
from caso_mesh.model.entries import EntryType, SourceException
from caso_mesh.model.facts import LogLine
from caso_mesh.model.host_commands import CommandKind
from caso_mesh.model.jobs import Progress
from caso_mesh.model.mesh import Anchor, Claim, Roster
from caso_mesh.model.orders import Authority, Orders
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
from caso_mesh.model.storage import DEFAULT_MEDIA_SET, BackupSet

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


# --- joining ---------------------------------------------------------------------------------------------------------


class AnchorsReply(Struct, frozen=True):
    """Who is asked: its mesh, and the certificates that its peers trust (DER)."""

    mesh: str
    mesh_name: str
    node: str
    root: bytes
    anchors: tuple[Anchor, ...]


class JoinRequest(Struct, frozen=True):
    """A newcomer shows the secret of a join link. ``addresses`` are where it may be reached. ``replaces``: the name of the
    server whose place it takes."""

    secret: bytes
    name: str
    public_key: bytes
    encryption_key: bytes
    operator_public_key: bytes
    addresses: tuple[str, ...]
    version: str
    signature: bytes
    preset: str = "lan"
    never_admin: bool = False
    replaces: str = ""


class OperatorRequest(Struct, frozen=True):
    """Somebody who was invited shows the secret of the link, and the key (DER) that he made. ``signature`` is by that key,
    over the mesh and the digest of the secret."""

    secret: bytes
    public_key: bytes
    signature: bytes


class OperatorReply(Struct, frozen=True):
    """An operator's certificate, then what is above it; the anchors of the mesh, the root first (DER). ``addresses``: where
    the mesh is asked, those first that may be in office. ``proof``: that the mesh of the link vouches for the anchors."""

    name: str
    certificate: tuple[bytes, ...]
    anchors: tuple[bytes, ...]
    addresses: tuple[str, ...]
    proof: bytes


class JoinReply(Struct, frozen=True):
    """All that a newcomer needs to be a member. Certificates are DER, the leaf's issuer follows it. ``proof`` shows that
    the mesh of the join link vouches for the anchors in ``orders`` (empty when a person approved)."""

    certificate: tuple[bytes, ...]
    operator_certificate: tuple[bytes, ...]
    wrapped_id_key: bytes
    orders: Orders
    proof: bytes = b""


class AdoptCommit(Struct, frozen=True):
    """The administrator dials a discovered server: H(nonce, key) of its own, with its mesh and name."""

    commitment: bytes
    mesh_name: str
    admin_name: str


class AdoptCommitReply(Struct, frozen=True):
    commitment: bytes


class AdoptReveal(Struct, frozen=True):
    nonce: bytes
    key: bytes


class AdoptRevealReply(Struct, frozen=True):
    """The newcomer's nonce and key, and what it wants to be."""

    nonce: bytes
    key: bytes
    name: str
    encryption_key: bytes
    operator_public_key: bytes
    addresses: tuple[str, ...]
    version: str
    signature: bytes
    preset: str
    never_admin: bool


class AdoptAccept(Struct, frozen=True):
    """A person compared the codes. ``signature`` is by the key that was revealed, over the root."""

    root: bytes
    signature: bytes
    reply: JoinReply


# --- between nodes ---------------------------------------------------------------------------------------------------


class HelloRequest(Struct, frozen=True):
    """First on every link. ``admin`` is whom the caller takes for the administrator in office; ``claim``: who took the mesh
    over by hand last, as far as the caller knows; ``feature_level``: what its software understands; ``bulk_newest`` and
    ``bulk_oldest``: the versions of the bulk dialogue that it speaks (``model/dialects.py``)."""

    name: str
    version: str
    addresses: tuple[str, ...]
    authority: Authority | None
    admin: str | None
    now_ns: int
    claim: Claim | None = None
    feature_level: int = 1
    bulk_newest: int = 0
    bulk_oldest: int = 0


class HelloReply(Struct, frozen=True):
    name: str
    version: str
    addresses: tuple[str, ...]
    authority: Authority | None
    admin: str | None
    admin_addresses: tuple[str, ...]
    now_ns: int
    claim: Claim | None = None
    feature_level: int = 1
    bulk_newest: int = 0
    bulk_oldest: int = 0


class RosterNow(Struct, frozen=True):
    """The roster as the answering server was ordered it, on what that stands, and who ordered it."""

    authority: Authority
    admin: str
    admin_addresses: tuple[str, ...]
    roster: Roster


class OrdersTaken(Struct, frozen=True):
    """``taken`` is false if the orders that were changed are not those which this server holds: it wants them whole."""

    taken: bool


class ServerSeen(Struct, frozen=True):
    """A server that looks for the administrator, and where it says to be."""

    server: str
    addresses: tuple[str, ...]


class RenewReply(Struct, frozen=True):
    """New certificates, DER: the server's, and that of the operator of its state folder (empty if there is none)."""

    certificate: tuple[bytes, ...]
    operator_certificate: tuple[bytes, ...]


class OperatorRenewReply(Struct, frozen=True):
    """A new certificate for the operator who asked, then what is above it, DER."""

    certificate: tuple[bytes, ...]


class DeviceReport(Struct, frozen=True):
    """What a server sees of a device: ``problem`` is an error code if it cannot use it."""

    device: str
    free_bytes: int
    total_bytes: int
    used_bytes: int
    problem: str | None = None
    detail: str = ""


class DeviceLoad(Struct, frozen=True):
    """So many jobs use a device of a server that whoever places jobs there has not placed."""

    device: str
    jobs: int


class Heartbeat(Struct, frozen=True):
    """A server is there. ``running`` are attempts with a worker, ``holding`` all that it has not ended yet. ``own_work``:
    what it runs by itself. ``alerts``: those of its own of which it does not know that they are answered or over. ``telling``:
    facts of before it met this administrator are still on their way."""

    now_ns: int
    authority: Authority | None
    running: tuple[str, ...]
    holding: tuple[str, ...]
    devices: tuple[DeviceReport, ...] = ()
    own_work: tuple[DeviceLoad, ...] = ()
    alerts: tuple[str, ...] = ()
    telling: bool = False


class AlertNews(Struct, frozen=True):
    """An alert is answered (``answered_ns``, by ``who``), or over."""

    id: str
    answered_ns: int | None = None
    who: str = ""
    response: str = ""
    over_ns: int | None = None


class HeartbeatReply(Struct, frozen=True):
    """``alerts``: of those that the heartbeat named."""

    now_ns: int
    authority: Authority
    alerts: tuple[AlertNews, ...] = ()


class JournalHead(Struct, frozen=True):
    incarnation: str
    seq: int
    hash: bytes


class JournalPlace(Struct, frozen=True):
    incarnation: str
    seq: int


class JournalCursors(Struct, frozen=True):
    """How far the administrator holds each incarnation of the asking server's journal; up to ``held`` enough voters hold it
    durably, so that it need not be kept there."""

    cursors: tuple[JournalHead, ...]
    held: tuple[JournalPlace, ...] = ()


class JournalRecord(Struct, frozen=True):
    incarnation: str
    seq: int
    at_ns: int
    kind: str
    data: bytes
    hash: bytes


class JournalPush(Struct, frozen=True):
    """``pruned``: what the administrator lacks up to there is not at the sending server any more."""

    records: tuple[JournalRecord, ...]
    pruned: tuple[JournalHead, ...] = ()


class ReplicaHead(Struct, frozen=True):
    """How far a voter holds the journal of a server."""

    server: str
    incarnation: str
    seq: int


class ReplicaBegin(Struct, frozen=True):
    """A voter wants to follow the tables of another one, and holds this much already. ``schema``: the version of its tables;
    those of a later one cannot be taken over (0: it does not tell)."""

    heads: tuple[ReplicaHead, ...]
    schema: int = 0


class ReplicaPlace(Struct, frozen=True):
    """A place in the tables of one voter: ``life`` names them, ``arrival`` counts the records in the order in which they
    came. ``pruned``: what came before is not all there as records: the tables are to be taken over first."""

    life: str
    arrival: int
    pruned: bool = False


class ReplicaPull(Struct, frozen=True):
    """What came behind ``place``. Waits up to ``wait_s`` seconds for something to come. ``settled``: up to this arrival
    the asking voter holds everything durably."""

    place: ReplicaPlace
    wait_s: float = 0.0
    settled: int = 0


class ReplicaRecord(Struct, frozen=True):
    """A record of the journal of ``server``; ``refused``: why it means nothing."""

    server: str
    record: JournalRecord
    refused: str | None = None


class ReplicaPiece(Struct, frozen=True):
    """Records in the order in which they came, and the place behind the last of them. ``applied``: how far the log is
    applied at the voter that answers, if it is in office (else 0): up to there all runs are made of which they tell."""

    place: ReplicaPlace
    records: tuple[ReplicaRecord, ...]
    applied: int = 0


class ReplicaFloors(Struct, frozen=True):
    """Up to where a voter has pruned records, as all others hold them."""

    floors: tuple[ReplicaHead, ...]


class ReplicaCopy(Struct, frozen=True):
    """A piece of a copy of a voter's tables, from ``offset``; at 0 the copy is made."""

    offset: int


class ReplicaCopyPiece(Struct, frozen=True):
    """``size`` and ``digest`` (SHA-256) are those of the whole copy."""

    size: int
    digest: bytes
    data: bytes


class VoterPrepare(Struct, frozen=True):
    """A server is to become a voter: it makes the key of its issuing certificate, the same when it is asked again."""


class VoterPrepared(Struct, frozen=True):
    """The public key (DER) of the issuing certificate that it needs."""

    public_key: bytes


class VoterBecome(Struct, frozen=True):
    """The issuing certificate (DER) of a server that becomes a voter; the root above it. It begins an empty log of
    ``lineage`` and waits to be sent all of it. ``preset``: the pace of the voters; ``founders``: those at
    the beginning of the log. ``authority``: the server is listed as
    a voter from there on."""

    root: bytes
    issuing: bytes
    lineage: int
    preset: str
    founders: tuple[str, ...]
    authority: Authority


class ConsensusMessage(Struct, frozen=True):
    """A message of the replicated log to another member of it, in the log's own encoding."""

    lineage: int
    data: bytes


class VoterRelay(Struct, frozen=True):
    """A voter that is not in office asks a server something by way of the administrator, who has links with all.
    ``params`` is packed."""

    server: str
    call: str
    params: bytes


class VoterRelayed(Struct, frozen=True):
    """What the server answered, packed."""

    answer: bytes


class JournalHashAt(Struct, frozen=True):
    """One place in the administrator's copy of the asking server's journal."""

    incarnation: str
    seq: int


class JournalHashReply(Struct, frozen=True):
    hash: bytes | None = None


class CatalogRead(Struct, frozen=True):
    """A piece of the catalog segment of a set, from ``offset``: of the one with that ``digest`` (SHA-256), if there are
    several of the set."""

    set: str
    offset: int
    length: int = 1 << 20
    digest: bytes = b""


class CatalogPiece(Struct, frozen=True):
    data: bytes
    size: int


class SetPiece(Struct, frozen=True):
    """A piece of a regular file (path without its leading slash) as it was in a set on a device (id) of the server that
    is asked. ``length`` 0 only asks for the size."""

    device: str
    set: str
    path: bytes
    offset: int
    length: int = 1 << 20


class SetPieceReply(Struct, frozen=True):
    """``size`` is that of the whole file."""

    data: bytes
    size: int


class SetFolder(Struct, frozen=True):
    """What is right below a folder (path without its leading slash) in a set on a device (id) of the server that is
    asked, in path order, after the path ``after``."""

    device: str
    set: str
    path: bytes = b""
    after: bytes | None = None
    limit: int = 10000


class FolderEntry(Struct, frozen=True):
    """One name. ``modified`` is (seconds, nanoseconds)."""

    path: bytes
    type: EntryType
    size: int
    modified: tuple[int, int]
    mode: int


class SetFolderReply(Struct, frozen=True):
    entries: tuple[FolderEntry, ...]
    more: bool = False


class VaultSets(Struct, frozen=True):
    """The sets that lie on a device (id) of the server that is asked, by id, after ``after``."""

    device: str
    after: str = ""
    limit: int = 1000


class VaultSetsReply(Struct, frozen=True):
    """``deleted`` are those of ``sets`` with a tombstone; ``locks`` the ends of locks (``None`` = without end).
    ``problems``: what in the vault could not be read."""

    sets: tuple[BackupSet, ...]
    deleted: tuple[str, ...]
    locks: dict[str, int | None]
    more: bool
    problems: tuple[str, ...] = ()


class CatalogMake(Struct, frozen=True):
    """The catalog detail of a set is to be made out of its tree on a device (id), as changes against the set ``base``,
    or whole without one."""

    device: str
    set: str
    base: str | None = None


class CatalogMade(Struct, frozen=True):
    """It can be read with ``catalog.read``."""

    digest: bytes
    size: int


class SetHold(Struct, frozen=True):
    """A set on a device (id) of the server that is asked is to be deleted or locked. ``now_ns`` is the administrator's
    clock, ``last_write_ns`` the last write to the set's medium as far as it knows, ``active`` the attempts that are not
    ended. ``until_ns``: the end of a lock, ``None`` = without end."""

    device: str
    set: str
    hold: Literal["tombstone", "lock"]
    who: str
    request: str
    now_ns: int
    last_write_ns: int = 0
    active: tuple[str, ...] = ()
    until_ns: int | None = None


class DevicePrepare(Struct, frozen=True):
    """Makes (or recognises) the vault of a device in a folder of this server. ``recipients`` are the servers that
    shall have its key, with their encryption keys. ``proofs``: nonces of the others, for a shared folder."""

    name: str
    path: str
    vault: str
    mesh: str
    chunker_seed: int
    recipients: dict[str, bytes]
    create: bool


class DevicePrepareReply(Struct, frozen=True):
    vault: str
    created: bool
    free_bytes: int
    total_bytes: int
    mount: str
    warnings: tuple[str, ...] = ()


class DeviceProof(Struct, frozen=True):
    """Step one writes this server's nonce, step two reads all, step three removes its own. ``device`` (id): which one may
    be there already."""

    path: str
    step: Literal["write", "read", "remove"]
    nonce: bytes = b""
    device: str = ""


class DeviceProofReply(Struct, frozen=True):
    nonces: dict[str, bytes] = {}


class PathCheck(Struct, frozen=True):
    """Whether a server has these paths and allows the action on them; and commands, as (name, kind)."""

    paths: tuple[bytes, ...]
    action: Literal["read", "write"]
    commands: tuple[tuple[str, CommandKind], ...] = ()


class PathCheckReply(Struct, frozen=True):
    """Warnings in plain words, such as an own device inside of what is backed up."""

    warnings: tuple[str, ...] = ()


class WatchAttempts(Struct, frozen=True):
    """Somebody watches: these attempts report twice a second for the next ``for_s`` seconds."""

    attempts: tuple[str, ...]
    for_s: float = 15.0


class AttemptHeld(Struct, frozen=True):
    """What a server has held back of an attempt, its job log from the line ``after`` on."""

    attempt: str
    after: int = 0


class HeldPiece(Struct, frozen=True):
    """Some lines, and with the first of them the exceptions. ``more``: there are lines beyond these."""

    lines: tuple[LogLine, ...]
    exceptions: tuple[SourceException, ...]
    more: bool


class ProgressReport(Struct, frozen=True):
    progress: tuple[Progress, ...]


class MeshSummary(Struct, frozen=True):
    """The numbers of ``status``, as the administrator in office has them."""

    servers: int
    running: int
    alerts: int
    term: int
    voters: tuple[str, ...]


class SignedCall(Struct, frozen=True):
    """A person's call. It is signed by the operator's key, so that a server that forwards it cannot change it.
    ``params`` are packed; the signature covers call, params, request id, operator, mesh and time."""

    call: str
    params: bytes
    request_id: str
    operator: str
    at_ns: int
    signature: bytes
    timeout_s: float = 15.0


# --- people ----------------------------------------------------------------------------------------------------------


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


class DeviceGrant(Struct, frozen=True):
    """The content keys of a device (id) are to be wrapped to more recipients: raw X25519 public keys by id."""

    device: str
    recipients: dict[str, bytes]


class DeviceGrantReply(Struct, frozen=True):
    """``added``: how many keys were wrapped that were not before."""

    added: int


class DeviceKeys(Struct, frozen=True):
    """Of the device ``name`` that was carried to the folder ``path``: it must hold ``vault``."""

    name: str
    path: str
    vault: str


class DeviceKeysReply(Struct, frozen=True):
    """Content keys by their id, as wrapped to each recipient (node ids, or recovery kits)."""

    keys: dict[str, dict[str, bytes]]


class DeviceRewrap(Struct, frozen=True):
    """Content keys of ``vault`` that are wrapped to the server that is asked, to be wrapped to the raw X25519
    ``public_key`` of ``recipient`` (node id)."""

    vault: str
    keys: dict[str, bytes]
    recipient: str
    public_key: bytes


class DeviceTakeKeys(Struct, frozen=True):
    """Content keys that were wrapped to the server that is asked, to be laid down for ``recipients``: raw X25519 public
    keys by node id."""

    name: str
    path: str
    vault: str
    keys: dict[str, bytes]
    recipients: dict[str, bytes]


class MeshKeep(Struct, frozen=True):
    """A sealed copy of the mesh, to be laid down in a device (id)."""

    device: str
    copy: bytes


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


class SetName(Struct, frozen=True):
    """A set by its id or a unique beginning of it."""

    set: str


class SetLock(Struct, frozen=True):
    """``until_ns``: the end of the lock, ``None`` = without end."""

    set: str
    until_ns: int | None = None


class SetAsOf(Struct, frozen=True):
    """Which set has ``paths`` (absolute) of a server as they were at ``at_ns``; ``None`` = now. Of copies that can be read one
    on a device that the server ``near`` reaches is taken (itself, without)."""

    server: str
    paths: tuple[bytes, ...]
    at_ns: int | None = None
    near: str | None = None


class FileOpen(Struct, frozen=True):
    """A regular file as it was in a set; ``path`` is absolute."""

    set: str
    path: bytes


class FileRead(Struct, frozen=True):
    """A piece of a file that the caller opened, at most 4 MiB."""

    handle: str
    offset: int
    length: int = 1 << 20


class FilePiece(Struct, frozen=True):
    """Empty at the end of the file."""

    data: bytes


class CatalogList(Struct, frozen=True):
    """``from_device``: read out of the set as it lies on that device; the catalog is passed by."""

    set: str
    path: bytes = b""
    after: bytes | None = None
    limit: int = 10000
    from_device: str | None = None


class CatalogFind(Struct, frozen=True):
    """Paths that match ``glob``, each as it is in the newest set that has it as asked for. ``since_ns``, ``until_ns``: when
    the set ended; ``size_min``, ``size_max``: bytes; ``modified_since_ns``, ``modified_until_ns``: the time of the
    file; all bounds are included. ``after``: go on behind a page, by its ``next``."""

    glob: bytes
    server: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    limit: int = 1000
    size_min: int | None = None
    size_max: int | None = None
    modified_since_ns: int | None = None
    modified_until_ns: int | None = None
    type: EntryType | None = None
    ignore_case: bool = False
    after: str | None = None


class CatalogVersions(Struct, frozen=True):
    server: str
    path: bytes


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


class LogonGrant(Struct, frozen=True):
    """The secret of a logon, of that version, is to be sealed to these servers (node ids) as well."""

    name: str
    version: str
    servers: tuple[str, ...]


class LogonGranted(Struct, frozen=True):
    copies: dict[str, bytes]


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


class WhatIf(Struct, frozen=True):
    """What a night to come would be like ``without`` some servers, and ``without_devices``. It begins at ``from_ns``
    (without it: now) and ends at ``until_ns``, or without it when it is ``morning`` (``HH:MM`` in ``zone``, or without it
    in that of most schedules) for the ``days``-th time. ``limit``: at most so many runs are told one by one."""

    without: tuple[str, ...] = ()
    without_devices: tuple[str, ...] = ()
    from_ns: int | None = None
    until_ns: int | None = None
    morning: str = "08:00"
    zone: str | None = None
    days: int = 1
    limit: int = 1000


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
