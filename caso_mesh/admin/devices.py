"""Adding a storage device: every server that shall use it looks at its folder, one makes the vault, and a shared folder
is proved to be one."""

from __future__ import annotations

import asyncio
import logging
import posixpath
from collections.abc import Mapping

from msgspec import structs

from caso_mesh.admin.ports import Caller, Links, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.reducer import validate
from caso_mesh.control.state import ControlState
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Randomness
from caso_mesh.model.commands import AddDevice, Batch, Command, RemoveDevice, SetDevice, SetDevicePaths
from caso_mesh.model.errors import AlreadyExists, CasoError, DeviceNotSeen, DeviceNotShared, InUse, InvalidValue
from caso_mesh.model.ids import IdSource, check_name
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import Device, DeviceKind, DevicePath
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
#: Servers with the folder in which each sees a device.
Places = list[tuple[Server, str]]


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
        async with self._lock:
            before = done_before(self._keeper, caller)
            if before is not None:
                return self._keeper.state.device(before.result["device"]), ()
            return await self._add(caller, request, kind)

    async def _add(self, caller: Caller, request: q.DeviceAdd, kind: DeviceKind) -> tuple[Device, tuple[str, ...]]:
        state = self._keeper.state
        places = [(state.server_named(name), clean_folder(path)) for name, path in sorted(request.on.items())]
        if any(device.name == request.name for device in state.device_list()):
            raise AlreadyExists(kind="device", name=request.name)
        self.refuse_taken(places)
        device = Device(
            name=request.name,
            id=self._new_id(),
            kind=kind,
            vault=self._new_id(),
            paths=tuple(DevicePath(server.id, path) for server, path in places),
            concurrency=request.concurrency,
            low_space_bytes=request.low_space_bytes,
        )
        # all that can be known beforehand is, before anything is made in a folder
        validate(state, AddDevice(device), who=caller.who, at_ns=0)
        links = {server.id: self._links.get(server.id) for server, _ in places}
        if kind is DeviceKind.SHARED:
            await self.prove(places)
        recipients = {server.id: server.encryption_key for server, _ in places}
        recipients |= {kit.id: kit.public_key for kit in state.kit_list()}
        warnings: list[str] = []
        for number, (server, path) in enumerate(places):
            prepare = n.DevicePrepare(
                name=request.name,
                path=path,
                vault=device.vault,
                mesh=state.info().id,
                chunker_seed=state.info().chunker_seed,
                recipients=recipients,
                create=number == 0,
            )
            reply = await ask(links[server.id], "device.prepare", prepare, n.DevicePrepareReply, timeout_s=_TIMEOUT_S)
            if number and reply.vault != device.vault:
                raise DeviceNotShared(first=f"{places[0][0].name}:{places[0][1]}", second=f"{server.name}:{path}")
            # a vault that an earlier try left, or one that comes back, is taken as it is
            device = structs.replace(device, vault=reply.vault)
            warnings += reply.warnings
        other = next((each for each in state.device_list() if each.vault == device.vault), None)
        if other is not None:
            raise InUse(kind="folder", name=places[0][1], by=f"the device {other.name}")
        await self._submit(AddDevice(device), who=caller.who, request_id=caller.request_id)
        return self._keeper.state.device(device.id), tuple(warnings)

    def refuse_taken(self, places: Places, *, but: str = "") -> None:
        """Raises ``InUse`` for a folder that is in one of another device (than ``but``, an id), or has one in it."""
        for device in self._keeper.state.device_list():
            for server, path in places:
                place = device.path_on(server.id) if device.id != but else None
                if place is not None and (_within(path, place.path) or _within(place.path, path)):
                    raise InUse(kind="folder", name=path, by=f"the device {device.name}")

    async def prove(self, places: Places, device: str = "") -> None:
        """Each server leaves a nonce; each must find those of all others. ``device`` (id): what may be there already. Raises
        ``DeviceNotShared``."""
        nonces = {server.id: self._randomness(16) for server, _ in places}
        try:
            for server, path in places:
                await self._proof(server, n.DeviceProof(path, "write", nonces[server.id], device))
            for server, path in places:
                found = (await self._proof(server, n.DeviceProof(path, "read", device=device))).nonces
                for other, other_path in places:
                    if found.get(other.id) != nonces[other.id]:
                        raise DeviceNotShared(first=f"{other.name}:{other_path}", second=f"{server.name}:{path}")
        finally:
            for server, path in places:
                try:
                    await self._proof(server, n.DeviceProof(path, "remove", device=device))
                except CasoError as error:
                    # a nonce that stays behind harms nobody: the next proof replaces it
                    log.info("the nonce of %s stays in %s: %s", server.name, path, error)

    async def _proof(self, server: Server, proof: n.DeviceProof) -> n.DeviceProofReply:
        return await ask(self._links.get(server.id), "device.proof", proof, n.DeviceProofReply, timeout_s=_TIMEOUT_S)

    async def change(self, caller: Caller, request: q.DeviceSet) -> Device:
        device = self._keeper.state.device_named(request.name)
        named = {self._keeper.state.server_named(name).id: quota for name, quota in request.quotas.items()}
        quotas = tuple(sorted(named.items()))
        command: Command = SetDevice(device.id, request.state, request.concurrency, request.low_space_bytes, quotas)
        enabled = {self._keeper.state.server_named(name).id: on for name, on in request.enabled.items()}
        if enabled:
            changed = _with_quotas(device, named)
            command = Batch((command, _enabling(self._keeper.state, changed, enabled)), "")
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._keeper.state.device(device.id)

    async def remove(self, caller: Caller, request: q.DeviceName, sets: Mapping[str, int]) -> None:
        """``sets`` is how many live sets lie on each device: with any, it stays."""
        if done_before(self._keeper, caller) is not None:
            return
        device = self._keeper.state.device_named(request.name)
        if sets.get(device.id):
            raise InUse(kind="device", name=device.name, by=f"its {sets[device.id]} backup sets")
        await self._submit(RemoveDevice(device.id), who=caller.who, request_id=caller.request_id)


def _with_quotas(device: Device, quotas: Mapping[str, int | None]) -> Device:
    return structs.replace(
        device,
        paths=tuple(
            structs.replace(place, quota_bytes=quotas[place.server]) if place.server in quotas else place
            for place in device.paths
        ),
    )


def _enabling(state: ControlState, device: Device, enabled: Mapping[str, bool]) -> SetDevicePaths:
    """What lets servers (ids) use a device, or not. Raises ``DeviceNotSeen`` for one that does not see it."""
    for server in enabled:
        if device.path_on(server) is None:
            raise DeviceNotSeen(server=state.name_of(server), device=device.name)
    paths = tuple(structs.replace(place, enabled=enabled.get(place.server, place.enabled)) for place in device.paths)
    return SetDevicePaths(device.id, device.kind, paths)


def clean_folder(path: str) -> str:
    """An absolute folder in one spelling. Raises ``InvalidValue``."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidValue(value=path, what="folder", expected='Use an absolute path without ".."')
    return "/" + posixpath.normpath(path).lstrip("/")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
