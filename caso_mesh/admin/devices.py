"""Adding a storage device: every server that shall use it looks at its folder, one makes the vault, and a shared folder
is proved to be one."""

from __future__ import annotations

import asyncio
from typing import Any

from caso_mesh.admin.ports import Caller, Links, Submit
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Randomness
from caso_mesh.model.commands import AddDevice, RemoveDevice, SetDevice
from caso_mesh.model.errors import AlreadyExists, DeviceNotShared, InUse, InvalidValue
from caso_mesh.model.ids import IdSource, check_name
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import Device, DeviceKind, DevicePath
from caso_mesh.wire.typed import ask

_TIMEOUT_S = 60.0


class Devices:
    """The dialogue with the servers; what comes out of it is one command."""

    def __init__(
        self, *, keeper: ControlKeeper, submit: Submit, links: Links, new_id: IdSource, randomness: Randomness
    ) -> None:
        self._keeper = keeper
        self._submit = submit
        self._links = links
        self._new_id = new_id
        self._randomness = randomness
        self._lock = asyncio.Lock()

    async def add(self, caller: Caller, request: q.DeviceAdd) -> tuple[Device, tuple[str, ...]]:
        """The device and warnings. Raises ``AlreadyExists``, ``NotFound``, ``ServerNotLinked``,
        ``DevicePathInvalid``, ``DeviceForeign``, ``DeviceNotShared`` and what the folders do."""
        check_name(request.name, "device")
        kind = DeviceKind(request.kind)
        if not request.on or (kind is DeviceKind.DISK and len(request.on) != 1):
            raise InvalidValue(
                value=", ".join(sorted(request.on)) or "no server",
                what="place of a device",
                expected="A disk has one server and folder; a shared folder has one for each server",
            )
        state = self._keeper.state
        places = [(state.server_named(name), path) for name, path in sorted(request.on.items())]
        async with self._lock:
            if any(device.name == request.name for device in state.device_list()):
                raise AlreadyExists(kind="device", name=request.name)
            for device in state.device_list():
                for server, path in places:
                    place = device.path_on(server.id)
                    if place is not None and place.path.rstrip("/") == path.rstrip("/"):
                        raise InUse(kind="folder", name=path, by=f"the device {device.name}")
            links = {server.id: self._links.get(server.id) for server, _ in places}
            if kind is DeviceKind.SHARED:
                await self._prove(places)
            recipients = {server.id: server.encryption_key for server, _ in places}
            vault = self._new_id()
            warnings: list[str] = []
            for number, (server, path) in enumerate(places):
                prepare = q.DevicePrepare(
                    name=request.name,
                    path=path,
                    vault=vault,
                    mesh=state.info().id,
                    chunker_seed=state.info().chunker_seed,
                    recipients=recipients,
                    create=number == 0,
                )
                reply = await ask(
                    links[server.id], "device.prepare", prepare, q.DevicePrepareReply, timeout_s=_TIMEOUT_S
                )
                if number and reply.vault != vault:
                    raise DeviceNotShared(first=f"{places[0][0].name}:{places[0][1]}", second=f"{server.name}:{path}")
                vault = reply.vault
                warnings += reply.warnings
            if any(device.vault == vault for device in state.device_list()):
                raise InUse(kind="folder", name=places[0][1], by="another device of this mesh holds that vault")
            device = Device(
                name=request.name,
                id=self._new_id(),
                kind=kind,
                vault=vault,
                paths=tuple(DevicePath(server.id, path) for server, path in places),
                concurrency=request.concurrency,
                low_space_bytes=request.low_space_bytes,
            )
            await self._submit(AddDevice(device), who=caller.who, request_id=caller.request_id)
        return device, tuple(warnings)

    async def _prove(self, places: list[tuple[Server, str]]) -> None:
        """Each server leaves a nonce; each must find those of all others."""
        nonces = {server.id: self._randomness(16) for server, _ in places}
        try:
            for server, path in places:
                await self._proof(server, q.DeviceProof(path, "write", nonces[server.id]))
            for server, path in places:
                found = (await self._proof(server, q.DeviceProof(path, "read"))).nonces
                for other, other_path in places:
                    if found.get(other.id) != nonces[other.id]:
                        raise DeviceNotShared(first=f"{other.name}:{other_path}", second=f"{server.name}:{path}")
        finally:
            for server, path in places:
                if self._links.linked(server.id):
                    await self._proof(server, q.DeviceProof(path, "remove"))

    async def _proof(self, server: Server, proof: q.DeviceProof) -> q.DeviceProofReply:
        return await ask(self._links.get(server.id), "device.proof", proof, q.DeviceProofReply, timeout_s=_TIMEOUT_S)

    async def change(self, caller: Caller, request: q.DeviceSet) -> Device:
        device = self._keeper.state.device_named(request.name)
        command = SetDevice(device.id, request.state, request.concurrency, request.low_space_bytes)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._keeper.state.device(device.id)

    async def remove(self, caller: Caller, request: q.DeviceName, sets: int) -> Any:
        """``sets`` is how many live sets lie on it: with any, it stays."""
        device = self._keeper.state.device_named(request.name)
        if sets:
            raise InUse(kind="device", name=device.name, by=f"it holds {sets} backup sets")
        return await self._submit(RemoveDevice(device.id), who=caller.who, request_id=caller.request_id)
