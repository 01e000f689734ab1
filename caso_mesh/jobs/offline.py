"""Life without a mesh: a device, a recovery kit, and nothing else. No daemon, no database, no network.

What a server's signature proves cannot be asked of a roster that is gone. The newest copy of the mesh in the device
serves for one, if the kit opens it; a set of a server that is not in it is restored all the same, and told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.kit import Kit
from caso_mesh.identity.mesh_copy import Attested, check
from caso_mesh.jobs import copies_believed
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Excepted, FromWorker, Logged
from caso_mesh.jobs.restore import places, run_restore
from caso_mesh.jobs.target import FolderTarget
from caso_mesh.jobs.task import Task
from caso_mesh.model.clock import Clock
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import (
    DataDamaged,
    DeviceForeign,
    DeviceVanished,
    KitForeign,
    KitIncomplete,
    NoKey,
    NotFound,
    ObjectMissing,
    TargetInvalid,
)
from caso_mesh.model.ids import resolve_prefix
from caso_mesh.model.jobs import Counts, RestoreSpec
from caso_mesh.model.orders import AttemptOrder
from caso_mesh.model.states import Overwrite
from caso_mesh.model.storage import BackupSet
from caso_mesh.sealing.signing import verify
from caso_mesh.vault.backend import Backend, Readable
from caso_mesh.vault.header import VaultHeader, read_header
from caso_mesh.vault.keys import add_missing_recipients, load_keys
from caso_mesh.vault.mesh_copies import copy_names, open_copy
from caso_mesh.vault.vault import Vault


class OfflineVault:
    """A vault opened with a kit; for reading only."""

    def __init__(self, path: str, backend: Backend, header: VaultHeader, kit: Kit) -> None:
        self.path = path
        self.header = header
        #: What a person should know of the vault itself, one line each.
        self.notes: list[str] = []
        self._known = roster_of(backend, kit, self.notes)
        self._unknown: set[str] = set()
        try:
            keys = load_keys(backend, kit.id, kit.unwrap, kit.id_key)
        except NoKey:
            raise KitIncomplete(kit=kit.id, path=path) from None
        self.vault = Vault(backend, header, keys, verify=self._verify, cache_folder=None)
        # segments of the index may be lost too: what the packs say of themselves serves as well
        self.vault.rebuild_index()

    def sets(self) -> list[BackupSet]:
        """All sound sets, oldest first."""
        return sorted(self.vault.sets(), key=lambda each: (each.ended_at_ns, each.id))

    def set(self, name: str) -> BackupSet:
        """A set by its id, or a unique beginning of it. Raises ``NotFound``, ``Ambiguous``; ``DataDamaged`` if it may
        be one of those that cannot be read."""
        found = {each.id: each for each in self.vault.sets()}
        try:
            return found[resolve_prefix(name, found, "set")]
        except NotFound:
            broken = [line for line in self.vault.problems() if line.startswith("sets/")]
            if broken:
                raise DataDamaged(object=f"the set {name}", detail=f"it is not readable here: {broken[0]}") from None
            raise

    def problems(self) -> list[str]:
        """What was found damaged and passed over, and whose signatures could not be checked."""
        unchecked = [f"signatures of the server {server[:13]} could not be checked" for server in sorted(self._unknown)]
        return [*self.notes, *self.vault.problems(), *unchecked]

    def _verify(self, server: str, domain: str, message: bytes, signature: bytes) -> bool:
        key = self._known.get(server)
        if key is None:
            self._unknown.add(server)
            return True
        return verify(key, domain, message, signature)


@contextmanager
def open_offline(path: str, kit: Kit) -> Iterator[OfflineVault]:
    """The vault in the folder ``path``, opened with a kit.

    Raises ``DeviceVanished`` (no vault there), ``KitForeign``, ``KitIncomplete``, ``VaultTooNew``, ``DataDamaged``,
    ``DeviceError``.
    """
    with opened_folder(path, kit) as (backend, header):
        yield OfflineVault(path, backend, header, kit)


def grant(path: str, kit: Kit, recipient: str, encryption_key: bytes) -> int:
    """Wraps the content keys of the device in the folder ``path`` to a server (node id, raw X25519 public key) too; how many
    were lacking. Raises as ``open_offline``."""
    with opened_folder(path, kit) as (backend, _):
        try:
            keys = load_keys(backend, kit.id, kit.unwrap, kit.id_key)
        except NoKey:
            raise KitIncomplete(kit=kit.id, path=path) from None
        return add_missing_recipients(backend, keys, {recipient: encryption_key})


def grant_from(path: str, former: NodeKeys, mesh: str, id_key: bytes, recipient: str, encryption_key: bytes) -> int:
    """As ``grant``, with the keys of a machine that could open the device. Raises ``DeviceVanished``, ``DeviceForeign``, ``NoKey``,
    ``VaultTooNew``, ``DataDamaged``, ``DeviceError``."""
    with _vault_at(path) as (backend, header):
        if header.mesh != mesh:
            raise DeviceForeign(path=path, mesh=header.mesh)
        keys = load_keys(backend, former.id, former.unwrap, id_key)
        return add_missing_recipients(backend, keys, {recipient: encryption_key})


@contextmanager
def opened_folder(path: str, kit: Kit) -> Iterator[tuple[Backend, VaultHeader]]:
    """The device in the folder ``path``, which must be of the kit's mesh. Raises as ``open_offline``."""
    with _vault_at(path) as (backend, header):
        if header.mesh != kit.mesh:
            raise KitForeign(kit=kit.mesh, path=path, vault=header.mesh)
        yield backend, header


@contextmanager
def _vault_at(path: str) -> Iterator[tuple[Backend, VaultHeader]]:
    backend = FolderBackend(os.path.abspath(path), os.path.basename(os.path.abspath(path)), marker=None)
    try:
        header = read_header(backend)
        if header is None:
            raise DeviceVanished(device=path, detail="no device of a mesh lies in this folder")
        yield backend, header
    finally:
        backend.close()


def mesh_copies(backend: Readable, kit: Kit, notes: list[str]) -> Iterator[Attested]:
    """The copies of the mesh that the kit opens and that a voter of the mesh attests, newest object first; what
    is wrong with others is added to ``notes``."""
    for name in copy_names(backend):
        try:
            content = open_copy(name, backend.get(name), kit.id, kit.unwrap, mesh=kit.mesh)
            yield check(content, mesh=kit.mesh, root=kit.root, name=name)
        except NoKey:
            continue  # made before this kit
        except (DataDamaged, ObjectMissing) as error:
            notes.append(f"{name}: {error.message}")


def roster_of(backend: Readable, kit: Kit, notes: list[str]) -> dict[str, bytes]:
    """Public keys of servers, by node id, as the newest copy of the mesh knows them."""
    return copies_believed.roster(copies_believed.read(mesh_copies(backend, kit, notes), notes), notes)


class Restored(Struct, frozen=True):
    """What a restore without a mesh came to."""

    set: BackupSet
    counts: Counts
    exceptions: tuple[SourceException, ...]
    seconds: float


def restore_offline(
    opened: OfflineVault,
    backup: BackupSet,
    to: str,
    *,
    paths: Sequence[bytes] = (),
    strip: bool = False,
    overwrite: Overwrite = Overwrite.OLDER,
    ownership: bool = True,
    clock: Clock,
    on_exception: Callable[[SourceException], None] = lambda found: None,
) -> Restored:
    """Restores a set, or ``paths`` of it, below the folder ``to``, as ``restore --to`` does: each root by its whole
    path, or with ``strip`` straight into it. Files with damaged chunks are left out and named; the rest is restored.

    Raises ``TargetInvalid`` (``to`` lies in the device), ``PathNotInSet``, ``DeviceVanished``, ``OSError``.
    """
    base, device = os.path.realpath(to), os.path.realpath(opened.path)
    if base == device or base.startswith(device.rstrip("/") + "/"):
        raise TargetInvalid(path=to, detail="it lies inside the device that is restored from")
    os.makedirs(base, exist_ok=True)
    found: list[SourceException] = []

    def hear(message: FromWorker) -> None:
        match message:
            case Excepted(exceptions=exceptions):
                for each in exceptions:
                    found.append(each)
                    on_exception(each)
            case Logged() | _:
                return

    desk = Desk("offline", hear, clock)
    spec = RestoreSpec(
        set=backup.id,
        server="",
        paths=tuple(path.strip(b"/") for path in paths),
        base=os.fsencode(base).lstrip(b"/"),
        strip=strip,
        overwrite=overwrite,
        ownership=ownership,
    )
    target = FolderTarget(_task(spec, device), desk)
    try:
        run_restore(desk, opened.vault, backup, target, places(backup, spec.paths, strip=strip))
    finally:
        target.close()
        desk.flush()
    return Restored(backup, desk.tally.counts(), tuple(found), desk.seconds)


def _task(spec: RestoreSpec, device: str) -> Task:
    """What the target of a restore looks at: where to, and where never."""
    order = AttemptOrder(
        attempt="offline", run="offline", job="offline", job_name="offline", source="", media="", end="both", device="",
        spec=spec, number=1,
    )  # fmt: skip
    return Task(
        order=order, server="", server_name="", source_name="", id_key=b"", chunker_seed=0, identity_folder="",
        public_keys={}, session="", set="", own_paths=(os.fsencode(device),),
    )  # fmt: skip
