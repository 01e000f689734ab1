"""The storage devices as this server sees them: preparing one, proving a shared one, its keys, its space."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from caso_mesh.devices.checks import check_folder, existing_vault_header, inside, mount_of
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.devices.shared import read_nonces, remove_nonces, write_nonce
from caso_mesh.jobs.task import DeviceAccess
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CasoError, DeviceForeign, DevicePathInvalid, DeviceVanished, NoKey
from caso_mesh.model.ids import IdSource
from caso_mesh.model.requests import (
    DevicePrepare,
    DevicePrepareReply,
    DeviceProof,
    DeviceProofReply,
    DeviceReport,
)
from caso_mesh.model.storage import Device
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import create_vault, read_header
from caso_mesh.vault.keys import add_recipients, create_content_key, load_keys
from caso_mesh.vault.names import FORMAT

Unwrap = Callable[[bytes, bytes], bytes]


class Storage:
    """What this server does with its device folders. File work happens in threads."""

    def __init__(
        self, *, node: str, name: str, unwrap: Unwrap, id_key: Callable[[], bytes], new_id: IdSource,
        randomness: Randomness, cache: Path,
    ) -> None:  # fmt: skip
        self._node = node
        self._name = name
        self._unwrap = unwrap
        self._id_key = id_key
        self._new_id = new_id
        self._randomness = randomness
        self._cache = cache

    async def prepare(self, request: DevicePrepare, state_folder: Path) -> DevicePrepareReply:
        """Makes the vault of a new device, or recognises it where another server made it.

        Raises ``DevicePathInvalid``, ``DeviceForeign``, ``DeviceVanished``, ``NoKey`` and what the folder does.
        """
        return await asyncio.to_thread(self._prepare, request, state_folder)

    def _prepare(self, request: DevicePrepare, state_folder: Path) -> DevicePrepareReply:
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
            if header is not None and header.mesh != request.mesh:
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
                create_content_key(
                    backend,
                    request.recipients,
                    key_id=self._new_id(),
                    randomness=self._randomness,
                    id_key=self._id_key(),
                )
            else:
                keys = load_keys(backend, self._node, self._unwrap, self._id_key())
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

    async def proof(self, request: DeviceProof) -> DeviceProofReply:
        """One step of proving that several servers see one folder."""
        return await asyncio.to_thread(self._proof, request)

    def _proof(self, request: DeviceProof) -> DeviceProofReply:
        match request.step:
            case "write":
                check_folder(request.path, server=self._name)
                write_nonce(request.path, self._node, request.nonce)
                return DeviceProofReply()
            case "read":
                return DeviceProofReply(nonces=read_nonces(request.path))
            case "remove":
                remove_nonces(request.path)
                return DeviceProofReply()

    async def access(self, device: Device, writer: str, mesh: str) -> DeviceAccess:
        """What a worker needs to use a device here. Raises ``DeviceVanished``, ``NoKey`` and what the folder does."""
        return await asyncio.to_thread(self._access, device, writer, mesh)

    def _access(self, device: Device, writer: str, mesh: str) -> DeviceAccess:
        place = device.path_on(self._node)
        if place is None or not place.enabled:
            raise DeviceVanished(device=device.name, detail=f"{self._name} has no path to it")
        backend = FolderBackend(place.path, device.name, marker=FORMAT)
        try:
            header = read_header(backend)
            if header is None or header.vault != device.vault:
                raise DeviceVanished(device=device.name, detail=f"{place.path} holds another vault or none")
            try:
                keys = load_keys(backend, self._node, self._unwrap, self._id_key())
            except NoKey:
                raise NoKey(device=device.name) from None
        finally:
            backend.close()
        return DeviceAccess(
            device=device.id,
            name=device.name,
            path=place.path,
            vault=device.vault,
            mesh=mesh,
            content_keys=keys.content_keys,
            write_key=keys.write_key,
            cache_folder=str(self._cache / device.vault),
            writer=writer,
        )

    async def reports(self, devices: Iterable[Device]) -> tuple[DeviceReport, ...]:
        """Space and problems of every device with a path here."""
        return await asyncio.to_thread(lambda: tuple(self._report(device) for device in devices))

    def _report(self, device: Device) -> DeviceReport:
        place = device.path_on(self._node)
        path = place.path if place else ""
        try:
            backend = FolderBackend(path, device.name, marker=FORMAT)
        except CasoError as error:
            return DeviceReport(device.id, 0, 0, 0, problem=error.code, detail=error.message)
        try:
            free, total = backend.space()
            return DeviceReport(device.id, free, total, 0)
        except CasoError as error:
            return DeviceReport(device.id, 0, 0, 0, problem=error.code, detail=error.message)
        finally:
            backend.close()
