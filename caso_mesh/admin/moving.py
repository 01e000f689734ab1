"""A storage device that lies elsewhere now, or that more or fewer servers see: each place is looked at, and who has no key
for the device is handed one, before anything is written down."""

from __future__ import annotations

from msgspec import structs

from caso_mesh.admin.devices import Devices, Places, clean_folder
from caso_mesh.admin.handing import hand_keys
from caso_mesh.admin.importing import sealed_to
from caso_mesh.admin.ports import Caller, Links, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.reducer import validate
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.commands import SetDevicePaths
from caso_mesh.model.errors import AlreadyExists, DeviceVanished, InvalidValue, NoKey, NotFound, UsageError
from caso_mesh.model.imported import Imported
from caso_mesh.model.importing import FolderOpen, FolderOpened
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import Device, DeviceKind, DevicePath
from caso_mesh.wire.typed import ask

_TIMEOUT_S, _OPEN_S = 60.0, 120.0


class Moving:
    """The dialogue with the servers; what comes out of it is one command."""

    def __init__(self, *, keeper: ControlKeeper, submit: Submit, links: Links, devices: Devices) -> None:
        self._keeper = keeper
        self._submit = submit
        self._links = links
        self._devices = devices

    async def move(self, caller: Caller, request: q.DeviceMove) -> Device:
        """All places that a device has from now on. Raises ``NotFound``, ``ServerNotLinked``, ``DeviceVanished`` where its
        vault is not, ``DevicePathInvalid``, ``DeviceNotShared``, ``NoKey``, ``InUse``."""
        device = self._keeper.state.device_named(request.name)
        if not request.to or (device.kind is DeviceKind.DISK and len(request.to) != 1):
            raise InvalidValue(
                value=", ".join(sorted(request.to)) or "no server",
                what="place of a device",
                expected="A disk has one server and folder; a shared folder has one for each server",
            )
        return await self._put(caller, device, device.kind, self._places(request.to))

    async def share(self, caller: Caller, request: q.DeviceShare) -> Device:
        """One more server sees a device, which is a shared one from now on; without a path one sees it no more. Raises as
        ``move``, ``AlreadyExists`` for one that sees it, ``NotFound`` for one that does not."""
        state, device = self._keeper.state, self._keeper.state.device_named(request.name)
        done = done_before(self._keeper, caller)
        server = state.server_named(request.server)
        there: Places = [(state.server(place.server), place.path) for place in device.paths]
        if done is None and request.path is not None and device.path_on(server.id) is not None:
            raise AlreadyExists(kind="place", name=f"{device.name} on {server.name}")
        if request.path is not None:
            added = self._places({request.server: request.path})
            return await self._put(caller, device, DeviceKind.SHARED, [*there, *added])
        if done is None and device.path_on(server.id) is None:
            raise NotFound(kind="place", name=f"{device.name} on {server.name}")
        left = [place for place in there if place[0].id != server.id]
        if not left:
            raise UsageError(detail=f"{server.name} is the only server that sees the device {device.name}")
        return await self._put(caller, device, device.kind, left)

    def _places(self, to: dict[str, str]) -> Places:
        return [(self._keeper.state.server_named(name), clean_folder(path)) for name, path in sorted(to.items())]

    async def _put(self, caller: Caller, device: Device, kind: DeviceKind, places: Places) -> Device:
        if done_before(self._keeper, caller) is not None:
            return device
        self._devices.refuse_taken(places, but=device.id)
        paths = tuple(self._path(device, server, path) for server, path in places)
        command = SetDevicePaths(device.id, kind, paths)
        # all that can be known beforehand is, before anything is written into a folder
        validate(self._keeper.state, command, who=caller.who, at_ns=0)
        known = {(place.server, place.path) for place in device.paths}
        new = [(server, path) for server, path in places if (server.id, path) not in known]
        if device.imported is not None:
            command = structs.replace(command, copies=await self._seen(device, device.imported, new))
            new = []
        if new and len(places) > 1:
            await self._devices.prove(places, device.id)
        for server, path in new:
            await self._look(device, server, path)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._keeper.state.device(device.id)

    async def _seen(self, device: Device, came: Imported, new: Places) -> dict[str, bytes]:
        """What opens an imported device, for servers that had it not; each has looked whether the vault is in its folder, in
        which nothing is written. Raises ``DeviceVanished``, ``NoKey``."""
        lacking = tuple(sorted({server.id for server, _ in new} - came.copies.keys()))
        copies = await sealed_to(self._links, device, lacking) if lacking else {}
        for server, path in new:
            wanted = FolderOpen(device.name, path, device.vault, came.mesh, {**came.copies, **copies}, came.signers)
            try:
                await ask(self._links.get(server.id), "foreign.open", wanted, FolderOpened, timeout_s=_OPEN_S)
            except DeviceVanished:
                raise DeviceVanished(device=device.name, detail=f"{server.name}:{path} holds another vault") from None
        return copies

    def _path(self, device: Device, server: Server, path: str) -> DevicePath:
        """A server that saw the device keeps what was said of it."""
        before = device.path_on(server.id)
        return DevicePath(server.id, path) if before is None else structs.replace(before, path=path)

    async def _look(self, device: Device, server: Server, path: str) -> None:
        """That the vault is there, and that the server opens it."""
        info = self._keeper.state.info()
        prepare = n.DevicePrepare(
            name=device.name,
            path=path,
            vault=device.vault,
            mesh=info.id,
            chunker_seed=info.chunker_seed,
            recipients={},
            create=False,
        )
        link = self._links.get(server.id)
        try:
            reply = await ask(link, "device.prepare", prepare, n.DevicePrepareReply, timeout_s=_TIMEOUT_S)
        except NoKey:
            await hand_keys(self._keeper.state, self._links, device, server, path)
            reply = await ask(link, "device.prepare", prepare, n.DevicePrepareReply, timeout_s=_TIMEOUT_S)
        if reply.vault != device.vault:
            raise DeviceVanished(device=device.name, detail=f"{server.name}:{path} holds another vault")
