"""Taking over a device that another mesh wrote. Whoever has the recovery kit of that mesh opens what is needed, and seals it to
the server that has the folder; that one says whether it can read the vault, and then it is a device of this mesh.

Its sets are told as they are found in its vault, by whoever is in office, until they are in the records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from caso_mesh.admin import set_rows
from caso_mesh.admin.devices import Devices, clean_folder
from caso_mesh.admin.ports import Answer, Caller, Facts, Links, Submit, done_before
from caso_mesh.admin.tables import Tables
from caso_mesh.control.importing import label_of
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.reducer import validate
from caso_mesh.model import browsing as b
from caso_mesh.model import facts
from caso_mesh.model import importing as i
from caso_mesh.model import views as v
from caso_mesh.model.commands import RemoveDevice
from caso_mesh.model.errors import (
    CasoError,
    DeviceNotForeign,
    InUse,
    NoKey,
    NotFound,
    Unavailable,
)
from caso_mesh.model.ids import NAME, IdSource, check_name
from caso_mesh.model.imported import Imported, distinct
from caso_mesh.model.jobs import set_read
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import BackupSet, Device, DeviceKind, DevicePath
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_ASK_S, _OPEN_S = 60.0, 120.0
#: How often it is looked whether sets of an imported device are not in the records yet.
_LOOK_S = 10.0
#: How often its server is asked for its sets until it knows the device, and what is between two of these.
_TRIES, _PAUSE_S = 50, 0.1
#: Sets that are forgotten at once, and how long that may take.
_AT_ONCE, _FORGOTTEN_S = 1000, 60.0
#: Who forgets the sets of an imported device that is removed.
_WHO = "device remove"

#: Finds the sets of the device of a name, and tells them.
List = Callable[[str], Awaitable[b.CatalogRebuilt]]


class Importing:
    """Answers of the administrator, and a duty of the office. ``view`` shows a device, with warnings."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        submit: Submit,
        links: Links,
        journal: Facts,
        devices: Devices,
        new_id: IdSource,
        list_sets: List,
        view: Callable[[Device, tuple[str, ...]], Awaitable[v.DeviceView]],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._submit = submit
        self._links = links
        self._journal = journal
        self._devices = devices
        self._new_id = new_id
        self._list_sets = list_sets
        self._view = view
        self._at_work = asyncio.Lock()

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"device.look": self._look, "device.read": self._read, "device.import": self._import}

    # --- people ---

    async def _look(self, caller: Caller, request: i.DeviceLook) -> i.ForeignVault:
        """Raises ``NotFound``, ``ServerNotLinked``, ``InUse`` for the folder or the vault of a device, ``DeviceNotForeign``, and what
        the folder does."""
        server, path = self._place(request.server, request.path)
        self._devices.refuse_taken([(server, path)])
        found = await ask(
            self._links.get(server.id), "foreign.look", i.FolderLook(path), i.ForeignVault, timeout_s=_ASK_S
        )
        self._refuse(server, path, found.vault, found.mesh)
        return i.ForeignVault(
            found.vault,
            found.mesh,
            found.keys,
            found.copies,
            node=server.id,
            encryption_key=server.encryption_key,
        )

    async def _read(self, caller: Caller, request: i.DeviceRead) -> i.ForeignObjects:
        server, path = self._place(request.server, request.path)
        read = i.FolderRead(path, request.vault, request.names, request.offset)
        return await ask(self._links.get(server.id), "foreign.read", read, i.ForeignObjects, timeout_s=_ASK_S)

    async def _import(self, caller: Caller, request: i.DeviceImport) -> v.DeviceView:
        """As ``device.look``; ``AlreadyExists`` for the name, ``NoKey`` where what was sealed does not open the vault,
        ``FeatureLevelTooLow``. That its sets cannot be listed at once is a warning: it is tried again."""
        check_name(request.name, "device")
        async with self._at_work:
            before = done_before(self._keeper, caller)
            device, warnings = (
                (self._keeper.state.device(before.result["device"]), ())
                if before is not None
                else await self._take_over(caller, request)
            )
            return await self._view(self._keeper.state.device(device.id), (*warnings, *await self._list(device)))

    async def _take_over(self, caller: Caller, request: i.DeviceImport) -> tuple[Device, tuple[str, ...]]:
        state = self._keeper.state
        server, path = self._place(request.server, request.path)
        self._refuse(server, path, request.vault, request.mesh)
        name = request.mesh_name if NAME.match(request.mesh_name) else request.mesh[:13]
        label = label_of(state.device_list(), request.mesh, name)
        imported = Imported(request.mesh, label, {}, {}, {server.id: request.copies.get(server.id, b"")})
        device = Device(
            name=request.name,
            id=self._new_id(),
            kind=DeviceKind.DISK,
            vault=request.vault,
            paths=(DevicePath(server.id, path),),
            concurrency=request.concurrency,
            imported=imported,
        )
        # all that can be known beforehand is, before anything is read
        validate(state, i.ImportDevice(device), who=caller.who, at_ns=0)
        wanted = i.FolderOpen(request.name, path, request.vault, request.mesh, request.copies, request.signers)
        link = self._links.get(server.id)
        opened = await ask(link, "foreign.open", wanted, i.FolderOpened, timeout_s=_OPEN_S)
        signers = {node: request.signers.get(node, b"") for node in opened.signed}
        imported = Imported(
            request.mesh, label, distinct(opened.names), signers, {server.id: request.copies[server.id]}
        )
        device = replace(device, imported=imported)
        await self._submit(i.ImportDevice(device), who=caller.who, request_id=caller.request_id)
        unknown = sorted(opened.names.get(node, node[:13]) for node, key in signers.items() if not key)
        warnings = [
            f"signatures of {name} cannot be checked: no copy of the mesh that the kit opens knows that server"
            for name in unknown
        ]
        return self._keeper.state.device(device.id), (*warnings, *opened.problems)

    def _place(self, server: str, path: str) -> tuple[Server, str]:
        return self._keeper.state.server_named(server), clean_folder(path)

    def _refuse(self, server: Server, path: str, vault: str, mesh: str) -> None:
        state = self._keeper.state
        other = next((each for each in state.device_list() if each.vault == vault), None)
        if other is not None and (mesh != state.info().id or other.imported is not None):
            raise InUse(kind="vault", name=f"{server.name}:{path}", by=f"the device {other.name}")
        if mesh == state.info().id:
            raise DeviceNotForeign(path=path, server=server.name)
        self._devices.refuse_taken([(server, path)])

    # --- its sets ---

    async def run(self) -> None:
        """Never returns."""
        while True:
            for device in self._keeper.state.device_list():
                if device.imported is not None and not device.imported.listed:
                    async with self._at_work:
                        for warning in await self._list(device):
                            log.info("the imported device %s: %s", device.name, warning)
            await asyncio.sleep(_LOOK_S)

    async def _list(self, device: Device) -> tuple[str, ...]:
        """Has its sets in the records; what stands in the way. Repeated, nothing happens."""
        now = self._keeper.state.devices.get(device.id)
        if now is None or now.imported is None or now.imported.listed:
            return ()
        try:
            found = await self._listed(now)
        except CasoError as error:
            return (f"its sets are not listed yet, which is tried again: {error.message}",)
        await self._submit(i.NoteImported(now.id), request_id=f"imported-{now.id}")
        return found.warnings

    async def _listed(self, device: Device) -> b.CatalogRebuilt:
        """Its server may not have its orders yet."""
        for left in reversed(range(_TRIES)):
            try:
                return await self._list_sets(device.name)
            except NotFound as error:
                if not left or error.fields["name"] != device.id:
                    raise
            await asyncio.sleep(_PAUSE_S)
        raise NotFound(kind="device", name=device.name)

    async def remove(self, caller: Caller, device: Device) -> None:
        """An imported device leaves the mesh, and its sets the records; nothing on it is touched. Raises ``InUse`` while work is
        about it or its sets."""
        if done_before(self._keeper, caller) is not None:
            return
        async with self._at_work:
            command = RemoveDevice(device.id)
            validate(self._keeper.state, command, who=caller.who, at_ns=0)
            await self._refuse_read(device)
            while there := [each.id for each in await self._sets_on(device.id)]:
                await self._journal.append(*(facts.SetDeleted(each, device.id, _WHO) for each in there))
                await self._until_gone(device.id, there)
            await self._submit(command, who=caller.who, request_id=caller.request_id)

    async def _refuse_read(self, device: Device) -> None:
        """Raises ``InUse`` while a run that is open reads a set on it."""
        for run in self._keeper.state.open_runs():
            for read in [read for part in run.parts if (read := set_read(run.spec, part.source)) is not None]:
                backup = await self._tables.set(read)
                if backup is not None and backup.device == device.id:
                    raise InUse(kind="device", name=device.name, by=f"the run {run.id}")

    async def _sets_on(self, device: str) -> list[BackupSet]:
        return await self._tables.ask(lambda c: set_rows.on_device(c, device, limit=_AT_ONCE))

    async def _until_gone(self, device: str, sets: list[str]) -> None:
        try:
            async with asyncio.timeout(_FORGOTTEN_S):
                while True:
                    generation = self._tables.generation
                    left = {each.id for each in await self._sets_on(device)}
                    if left.isdisjoint(sets):
                        return
                    await self._tables.wait_for_change(generation)
        except TimeoutError:
            raise Unavailable(what="the journal of the administrator") from None


async def sealed_to(links: Links, device: Device, servers: tuple[str, ...]) -> dict[str, bytes]:
    """What opens an imported device, sealed to servers (node ids) by one that has it. Raises ``NoKey`` if none of those is
    there."""
    assert device.imported is not None
    for holder in sorted(device.imported.copies):
        if not links.linked(holder):
            continue
        request = i.ForeignSeal(device.id, servers)
        try:
            reply = await ask(links.get(holder), "foreign.seal", request, i.ForeignSealed, timeout_s=_ASK_S)
        except CasoError as error:
            log.info("what opens %s is not sealed anew by %s: %s", device.name, holder, error)
            continue
        return {node: reply.copies[node] for node in servers if node in reply.copies}
    raise NoKey(device=device.name)
