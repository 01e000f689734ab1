"""The storage devices as this server sees them: preparing one, proving a shared one, its keys, its space."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from caso_mesh.devices.checks import check_folder, existing_vault_header, inside, is_unfinished, mount_of
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.devices.shared import NONCE_LIMIT, read_nonces, remove_nonces, write_nonce
from caso_mesh.identity.imported import open_foreign
from caso_mesh.jobs.task import DeviceAccess, ForeignAccess
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import (
    CasoError,
    DeviceError,
    DeviceForeign,
    DevicePathInvalid,
    DeviceVanished,
    EraseUnfinished,
    InvalidValue,
    NoKey,
    SealBroken,
)
from caso_mesh.model.ids import IdSource
from caso_mesh.model.nodes import DevicePrepare, DevicePrepareReply, DeviceProof, DeviceProofReply, DeviceReport
from caso_mesh.model.storage import Device, DevicePath
from caso_mesh.server.patience import begin, bounded
from caso_mesh.server.vault_folder import vault_folder
from caso_mesh.vault.chunking import ID_KEY_SIZE, ChunkerParameters
from caso_mesh.vault.header import create_vault, read_header
from caso_mesh.vault.keys import add_recipients, create_content_key, load_keys
from caso_mesh.vault.names import FORMAT
from caso_mesh.vault.objects import VaultKeys

Unwrap = Callable[[bytes, bytes], bytes]

#: How long a heartbeat waits for the figures of all devices together.
REPORTS_S = 2.0
#: How long a device may take when it is added, and when an attempt begins.
_PREPARE_S, _ACCESS_S = 50.0, 30.0
_OF_ANOTHER = (
    "it holds a device of this mesh already, and this server has no key for that. If it was carried here: caso-mesh device "
    "move DEVICE --to SERVER=FOLDER; if both servers see it: caso-mesh device share DEVICE --on SERVER=FOLDER"
)


class Storage:
    """What this server does with its device folders. File work happens in threads."""

    def __init__(
        self, *, node: str, name: str, unwrap: Unwrap, id_key: Callable[[], bytes], new_id: IdSource,
        randomness: Randomness, cache: Path,
    ) -> None:  # fmt: skip
        self._node = node
        self._name = name
        self._unwrap = unwrap
        self._load_id_key = id_key
        self._id_key_loaded: bytes | None = None
        self._new_id = new_id
        self._randomness = randomness
        self._cache = cache
        self._asked: dict[str, asyncio.Future[DeviceReport]] = {}
        self._opens: set[str] = set()

    def id_key(self) -> bytes:
        """The mesh's chunk-id key; read from its file once."""
        if self._id_key_loaded is None:
            self._id_key_loaded = self._load_id_key()
        return self._id_key_loaded

    async def prepare(
        self, request: DevicePrepare, state_folder: Path, mesh: str, check: Callable[[str], None]
    ) -> DevicePrepareReply:
        """Makes the vault of a new device, or recognises it where another server made it. ``mesh`` is this server's own;
        ``check`` raises if a device may not be in that folder.

        Raises ``DevicePathInvalid``, ``DeviceForeign``, ``DeviceVanished``, ``NoKey``, ``TimedOut`` and what the folder
        does.
        """

        def work() -> DevicePrepareReply:
            check(request.path)
            return self._prepare(request, state_folder, mesh)

        return await bounded(work, what=f"{request.path} on {self._name}", seconds=_PREPARE_S)

    def _prepare(self, request: DevicePrepare, state_folder: Path, mesh: str) -> DevicePrepareReply:
        check_folder(request.path, server=self._name)
        warnings: list[str] = []
        if inside(request.path, str(state_folder)):
            raise DevicePathInvalid(
                path=request.path, server=self._name, detail="it lies inside the state folder of the daemon"
            )
        present = existing_vault_header(request.path, server=self._name) is not None
        backend = FolderBackend(request.path, request.name, marker=FORMAT if present else None)
        try:
            header = read_header(backend)
            if request.mesh != mesh:
                raise DeviceForeign(path=request.path, mesh=request.mesh)
            if header is not None and header.mesh != mesh:
                raise DeviceForeign(path=request.path, mesh=header.mesh)
            if header is None and not request.create:
                raise DeviceVanished(device=request.name, detail=f"{request.path} on {self._name} holds no vault")
            created = header is None
            if header is None:
                if any(not name.startswith(".") for name in os.listdir(request.path)):
                    warnings.append(f"{request.path} on {self._name} is not empty; foreign files there are left alone")
                header = create_vault(
                    backend,
                    vault=request.vault,
                    mesh=request.mesh,
                    chunker=ChunkerParameters(seed=request.chunker_seed),
                )
            if request.create and not any(True for _ in backend.list("keys/")):
                # a new vault, or one whose making was cut off before it had a key: nothing can lie in it yet
                create_content_key(
                    backend,
                    request.recipients,
                    key_id=self._new_id(),
                    randomness=self._randomness,
                    id_key=self.id_key(),
                )
            else:
                try:
                    keys = self._keys(backend, request.name)
                except NoKey:
                    if not request.create or header.vault == request.vault:
                        raise
                    raise DevicePathInvalid(path=request.path, server=self._name, detail=_OF_ANOTHER) from None
                if request.create:
                    add_recipients(backend, keys, request.recipients, randomness=self._randomness)
            free, total = backend.space()
            mount = mount_of(request.path)
            return DevicePrepareReply(
                vault=header.vault,
                created=created,
                free_bytes=free,
                total_bytes=total,
                mount=f"{mount.point} ({mount.fs_type})",
                warnings=tuple(warnings),
            )
        finally:
            backend.close()

    def _keys(self, backend: FolderBackend, name: str) -> VaultKeys:
        try:
            return load_keys(backend, self._node, self._unwrap, self.id_key())
        except NoKey:
            raise NoKey(device=name) from None

    def _keys_of(self, backend: FolderBackend, device: Device) -> VaultKeys:
        """Of an imported one they lie in no vault but with its record."""
        if device.imported is None:
            return self._keys(backend, device.name)
        copy = device.imported.copies.get(self._node)
        if copy is None:
            raise NoKey(device=device.name)
        return self.foreign_keys(copy, device.vault)

    def foreign_keys(self, copy: bytes, vault: str) -> VaultKeys:
        """What opens a vault of another mesh, out of this server's own copy. Raises ``SealBroken``."""
        found = open_foreign(self._unwrap, copy, vault=vault, node=self._node)
        if not found.content_keys or len(found.id_key) != ID_KEY_SIZE:
            raise SealBroken(object=f"what opens the vault {vault}")
        return VaultKeys(found.id_key, found.content_keys, max(found.content_keys))

    async def proof(self, request: DeviceProof, check: Callable[[str], None]) -> DeviceProofReply:
        """One step of proving that several servers see one folder. ``check`` as in ``prepare``."""

        def work() -> DeviceProofReply:
            check(request.path)
            return self._proof(request)

        return await bounded(work, what=f"{request.path} on {self._name}", seconds=_PREPARE_S)

    def _proof(self, request: DeviceProof) -> DeviceProofReply:
        match request.step:
            case "write":
                check_folder(request.path, server=self._name)
                if not 0 < len(request.nonce) <= NONCE_LIMIT:
                    raise InvalidValue(value=len(request.nonce), what="length of a nonce", expected="Use 1 to 256")
                write_nonce(request.path, self._node, request.nonce)
                return DeviceProofReply()
            case "read":
                return DeviceProofReply(nonces=read_nonces(request.path))
            case "remove":
                remove_nonces(request.path)
                return DeviceProofReply()

    async def access(self, device: Device, writer: str, mesh: str) -> DeviceAccess:
        """What a worker needs to use a device here. Raises ``DeviceVanished``, ``NoKey``, ``TimedOut`` and what the
        folder does."""
        what = f"the device {device.name} on {self._name}"
        return await bounded(lambda: self._access(device, writer, mesh), what=what, seconds=_ACCESS_S)

    async def access_to_erase(self, device: Device, writer: str, mesh: str) -> DeviceAccess:
        """As ``access``; where the vault cannot be opened any more since an erase was cut off, without keys. What lies there is
        for the worker to look at."""

        def work() -> DeviceAccess:
            try:
                return self._access(device, writer, mesh, erases=True)
            except (DeviceVanished, EraseUnfinished, NoKey):
                place = self._place(device)
                if not device.erasing and not is_unfinished(place.path):
                    raise
                return self._accessed(device, place.path, VaultKeys(self.id_key(), {}, ""), writer, mesh)

        return await bounded(work, what=f"the device {device.name} on {self._name}", seconds=_ACCESS_S)

    def _place(self, device: Device) -> DevicePath:
        place = device.path_on(self._node)
        if place is None or not place.enabled:
            raise DeviceVanished(device=device.name, detail=f"{self._name} has no path to it")
        return place

    def _access(self, device: Device, writer: str, mesh: str, *, erases: bool = False) -> DeviceAccess:
        place = self._place(device)
        if device.erasing and not erases:
            raise EraseUnfinished(device=device.name)
        with vault_folder(place.path, device=device.name, vault=device.vault) as backend:
            keys = self._keys_of(backend, device)
        return self._accessed(device, place.path, keys, writer, mesh)

    def _accessed(self, device: Device, path: str, keys: VaultKeys, writer: str, mesh: str) -> DeviceAccess:
        return DeviceAccess(
            device=device.id,
            name=device.name,
            path=path,
            vault=device.vault,
            mesh=mesh,
            content_keys=keys.content_keys,
            write_key=keys.write_key,
            cache_folder=str(self._cache / device.vault),
            writer=writer,
            foreign=None if device.imported is None else ForeignAccess(keys.id_key, device),
        )

    async def forget(self, before: Iterable[Device], now: Iterable[Device]) -> None:
        """What was remembered of vaults that were erased, by the devices of orders. Repeated, nothing happens."""
        vaults = {device.id: device.vault for device in now}
        for device in before:
            if vaults.get(device.id, device.vault) != device.vault:
                self._opens.discard(device.vault)
                await asyncio.to_thread(shutil.rmtree, self._cache / device.vault, ignore_errors=True)

    async def reports(self, devices: Iterable[Device]) -> tuple[DeviceReport, ...]:
        """Space and problems of every device with a path here, after ``REPORTS_S`` at the latest: one that hangs is
        reported as such, has one thread that waits for it, and keeps nobody else waiting."""
        wanted = {device.id: device for device in devices}
        for id_, device in wanted.items():
            if id_ not in self._asked:
                self._asked[id_] = begin(lambda device=device: self._report(device))  # type: ignore[misc]
        asked = {id_: self._asked[id_] for id_ in wanted}
        if asked:
            await asyncio.wait(asked.values(), timeout=REPORTS_S)
        found = []
        for id_, device in wanted.items():
            if asked[id_].done():
                found.append(asked[id_].result())
                del self._asked[id_]
            else:
                hangs = DeviceVanished(device=device.name, detail=f"its file system on {self._name} does not answer")
                found.append(DeviceReport(id_, 0, 0, 0, problem=hangs.code, detail=hangs.message))
        for id_ in [id_ for id_, future in self._asked.items() if id_ not in wanted and future.done()]:
            del self._asked[id_]
        return tuple(found)

    def _look_for_key(self, backend: FolderBackend, device: Device) -> None:
        """Once it opens it is not looked at again. Raises ``NoKey``."""
        if device.vault not in self._opens:
            self._keys_of(backend, device)
            self._opens.add(device.vault)

    def _report(self, device: Device) -> DeviceReport:
        place = device.path_on(self._node)
        try:
            if place is None:
                raise DeviceVanished(device=device.name, detail=f"{self._name} has no path to it")
            with vault_folder(place.path, device=device.name, vault=device.vault) as backend:
                self._look_for_key(backend, device)
                free, total = backend.space()
        except CasoError as error:
            return DeviceReport(device.id, 0, 0, 0, problem=error.code, detail=error.message)
        except Exception as error:
            # whatever a file system does, the heartbeat tells it and goes on
            wrong = DeviceError(device=device.name, detail=f"{type(error).__name__}: {error}")
            return DeviceReport(device.id, 0, 0, 0, problem=wrong.code, detail=wrong.message)
        return DeviceReport(device.id, free, total, 0)
