"""What a worker is told: everything it needs to run one end of one attempt, and nothing else.

A task holds secrets (content keys); it travels only over the worker's own socket pair.
"""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.bandwidth import NONE
from caso_mesh.model.host_commands import HostCommand
from caso_mesh.model.orders import AttemptOrder
from caso_mesh.model.storage import Device, MediaSet
from caso_mesh.sources.snapshots import SnapshotPlace


class ForeignAccess(Struct, frozen=True):
    """Of a vault of another mesh: the id key of that mesh, and the record of the device, which came from there."""

    id_key: bytes
    device: Device

    def __repr__(self) -> str:
        return f"<ForeignAccess {self.device.name}>"

    @property
    def signers(self) -> dict[str, bytes]:
        """The public keys of those who signed there, by node id; empty where it cannot be checked."""
        return {} if self.device.imported is None else self.device.imported.signers


class DeviceAccess(Struct, frozen=True):
    """A vault that this worker reads or writes. ``content_keys`` are key ids and 32-byte keys; new packs use
    ``write_key``. ``writer`` is this server's registration in the vault, ``label`` and ``media_set`` the medium. ``foreign``:
    it is one of another mesh, and only read."""

    device: str
    name: str
    path: str
    vault: str
    mesh: str
    content_keys: dict[str, bytes]
    write_key: str
    cache_folder: str
    writer: str
    foreign: ForeignAccess | None = None


class ErasePlan(Struct, frozen=True):
    """What decides whether a device may be erased here. ``begun``: the orders say that it was begun. ``last_writes``: of this
    server's own media, by label."""

    begun: bool
    media_sets: tuple[MediaSet, ...]
    last_writes: dict[str, int]


class FarEnd(Struct, frozen=True):
    """The other server of this attempt: who it must be, and where it may be reached."""

    node: str
    name: str
    addresses: tuple[str, ...]


class TlsFiles(Struct, frozen=True):
    """What a worker needs to speak mutual TLS as this server. ``anchors`` are DER certificates."""

    chain_path: str
    key_path: str
    anchors: tuple[bytes, ...]


class Task(Struct, frozen=True):
    """One end of one attempt.

    ``order.end``: ``device`` (the vault is here, the files elsewhere), ``source`` (the files are here, the vault
    elsewhere) or ``both``. ``public_keys`` are the roster's nodes (id -> SubjectPublicKeyInfo), to check signatures.
    ``identity_folder`` holds this server's keys, to sign. ``own_paths`` are never backed up nor
    written to: real paths, with ``own_identities`` (device and inode; None: they are looked at). ``session`` and ``set``
    are fresh ids. ``segment_path`` is where the catalog detail of the set is written. ``issuer_key`` checks the
    ticket, ``known_term`` is the (lineage, term) below which none counts (both: unless the desk was told of a later one). ``join_s`` is how long both ends try to meet at first, ``rejoin_s`` after a loss. ``may_write``: folders
    that a restore may write to here at all, whatever the set or the other end says (real paths; None: anywhere).
    ``commands``: those of this server's own file that the order names. ``snapshots``: where they are recorded (None: this
    server's own file allows none). ``nice``, ``ionice``, ``bandwidth``: the settings of these names; ``pace_path`` is the
    file by which the workers of this server keep the last one together. ``scratch``: a folder for a drill, of this
    attempt alone. ``may_read``: as ``may_write``. ``reads``: the vault of the set that is copied, where it is read here.
    ``second_far``: the server of the second device, where this end reads for it as well.
    """

    order: AttemptOrder
    server: str
    server_name: str
    source_name: str
    id_key: bytes
    chunker_seed: int
    identity_folder: str
    public_keys: dict[str, bytes]
    session: str
    set: str
    medium: str = ""
    media_set: str = ""
    device: DeviceAccess | None = None
    reads: DeviceAccess | None = None
    erase: ErasePlan | None = None
    far: FarEnd | None = None
    second_far: FarEnd | None = None
    tls: TlsFiles | None = None
    issuer_key: bytes = b""
    known_term: tuple[int, int] = (0, 0)
    own_paths: tuple[bytes, ...] = ()
    own_identities: tuple[tuple[int, int], ...] | None = None
    may_write: tuple[bytes, ...] | None = None
    segment_path: str = ""
    commands: dict[str, HostCommand] = {}
    snapshots: SnapshotPlace | None = None
    scratch: str = ""
    may_read: tuple[bytes, ...] | None = None
    threads: int = 2
    join_s: float = 60.0
    rejoin_s: float = 900.0
    status_interval_s: float = 10.0
    nice: int = 0
    ionice: str = NONE
    bandwidth: str = NONE
    pace_path: str = ""
