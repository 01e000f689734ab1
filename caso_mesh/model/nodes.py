"""What servers ask each other, beside journals: who is there, orders, devices, attempts, pieces of sets and catalogs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from caso_mesh.model.entries import EntryType, SourceException
from caso_mesh.model.facts import LogLine
from caso_mesh.model.host_commands import CommandKind
from caso_mesh.model.jobs import Progress
from caso_mesh.model.mesh import Claim, Roster
from caso_mesh.model.orders import Authority
from caso_mesh.model.storage import BackupSet


class HelloRequest(Struct, frozen=True):
    """First on every link. ``admin`` is whom the caller takes for the administrator in office; ``claim``: who took the mesh
    over by hand last, as far as the caller knows; ``feature_level``: what its software understands; ``bulk_newest`` and
    ``bulk_oldest``: the versions of the bulk dialogue that it speaks (``model/dialects.py``); ``instance``: the name that the
    daemon gave itself when it started. ``now_ns`` is for earlier software, which goes by it; whoever wants to know a clock greets,
    and reads that of the answer."""

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
    instance: str = ""


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
    instance: str = ""


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


class Twin(Struct, frozen=True):
    """A second daemon with the key of ``node`` was turned away; ``address`` is where it came from, or was found."""

    node: str
    address: str


class Heartbeat(Struct, frozen=True):
    """A server is there. ``running`` are attempts with a worker, ``holding`` all that it has not ended yet. ``own_work``:
    what it runs by itself. ``alerts``: those of its own of which it does not know that they are answered or over. ``telling``:
    facts of before it met this administrator are still on their way. ``twins``: of whom it has met a second daemon."""

    now_ns: int
    authority: Authority | None
    running: tuple[str, ...]
    holding: tuple[str, ...]
    devices: tuple[DeviceReport, ...] = ()
    own_work: tuple[DeviceLoad, ...] = ()
    alerts: tuple[str, ...] = ()
    telling: bool = False
    twins: tuple[Twin, ...] = ()


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
    """The catalog detail of a set is to be made, as changes against the set ``base``, or whole without one: out of a catalog
    that the asked server has, or else out of its tree on ``device`` (id), unless that is empty."""

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


class LogonGrant(Struct, frozen=True):
    """The secret of a logon, of that version, is to be sealed to these servers (node ids) as well."""

    name: str
    version: str
    servers: tuple[str, ...]


class LogonGranted(Struct, frozen=True):
    copies: dict[str, bytes]
