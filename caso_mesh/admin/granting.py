"""Who sees a device and opens none of its keys is handed them by whoever does: a machine that took the place of another has
a key of its own."""

from __future__ import annotations

import asyncio
import logging

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.handing import hand_keys
from caso_mesh.admin.importing import sealed_to
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links, Submit
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import nodes as n
from caso_mesh.model.commands import SetDevicePaths
from caso_mesh.model.errors import CasoError, NoKey, ServerNotLinked
from caso_mesh.model.mesh import Server
from caso_mesh.model.states import AlertKind, ServerState
from caso_mesh.model.storage import Device
from caso_mesh.planning.device_keys import KeyPlace, lacking, lost, opened, openers
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

KEYS_LOST = "device-keys-lost"
#: Pauses between two looks: after a change, and at most.
_SOON_S, _LATEST_S = 0.5, 2.0
_GRANT_S = 60.0


class Granting:
    """A duty of the office. What nobody opens any more needs a recovery kit, or the state folder of a lost machine
    (``caso-mesh vault grant``)."""

    def __init__(self, *, keeper: ControlKeeper, live: Live, links: Links, submit: Submit, alarms: Alarms) -> None:
        self._keeper = keeper
        self._submit = submit
        self._live = live
        self._links = links
        self._alarms = alarms
        #: Vault and server: handed over, before that server has said anything.
        self._done: set[tuple[str, str]] = set()
        self._at_work: dict[tuple[str, str], asyncio.Task[None]] = {}
        #: What was in the way of it last.
        self._said: dict[tuple[str, str], str] = {}

    async def run(self) -> None:
        """Never returns."""
        self._at_work.clear()
        async with asyncio.TaskGroup() as group:
            while True:
                seen = self._keeper.position.index
                self._begin(group)
                await self._found()
                await asyncio.sleep(_SOON_S)
                await self._change(seen)

    async def _change(self, seen: int) -> None:
        """A machine that takes a place is given its keys at once: who has them may be the next one that is lost."""
        try:
            async with asyncio.timeout(_LATEST_S - _SOON_S):
                await self._keeper.wait_change(seen)
        except TimeoutError:
            return

    def unopened(self, id_: str) -> tuple[str, ...]:
        """What is to be said of devices of a new machine (node id) whose keys nobody can hand to it now."""
        state = self._keeper.state
        return tuple(
            f"No other server that is connected has the keys of the device {device.name}. "
            f"{self._remedy(device, path.path)}. Keep the state folder of the machine that is replaced until then"
            for device in state.devices_of(id_)
            if (path := device.path_on(id_)) is not None
            and device.imported is None
            and not device.erasing
            and not openers(self._places(device), id_)
        )

    def _remedy(self, device: Device, path: str) -> str:
        by_kit = f"caso-mesh vault grant {path} --kit FILE, with a recovery kit"
        by_state = f"caso-mesh vault grant {path} --from-state FOLDER, with the state folder of a machine that had them"
        if any(device.id in kit.complete for kit in self._keeper.state.kit_list()):
            return f"They come back by {by_kit}, or {by_state}"
        return f"No recovery kit has them. They come back by {by_state}"

    def _begin(self, group: asyncio.TaskGroup) -> None:
        """One that hangs keeps nobody else waiting."""
        for device in self._concerned():
            if device.erasing:
                continue  # nobody opens it; what it becomes has other keys
            for place in lacking(self._places(device)):
                pair = (device.vault, place.server)
                if pair not in self._at_work and (place.lacks or pair not in self._done):
                    server = self._keeper.state.servers[place.server]
                    self._at_work[pair] = group.create_task(self._give(device, server))

    def _concerned(self) -> list[Device]:
        """Devices of new machines, and those to which somebody says that it has no key."""
        state = self._keeper.state
        found = {
            report.device
            for heard in self._live.heard.values()
            for report in heard.beat.devices
            if report.problem == NoKey.code
        }
        for server in state.servers.values():
            if server.succeeds:
                found.update(device.id for device in state.devices_of(server.id))
        return [state.devices[each] for each in sorted(found) if each in state.devices]

    def _places(self, device: Device) -> list[KeyPlace]:
        found = []
        for path in device.paths:
            server = self._keeper.state.servers.get(path.server)
            if server is None:
                continue
            report = self._live.report_of(device.id, server.id)
            well = report is not None and report.problem is None
            found.append(
                KeyPlace(
                    server.id,
                    linked=self._links.linked(server.id),
                    used=path.enabled and server.set_state is not ServerState.DISABLED,
                    lacks=True if report is not None and report.problem == NoKey.code else False if well else None,
                    well=well,
                    fresh=bool(server.succeeds),
                )
            )
        return found

    async def _give(self, device: Device, server: Server) -> None:
        pair = (device.vault, server.id)
        try:
            if device.imported is not None:
                await self._hand_on(device, server)
            else:
                await self._grant(device, server)
            self._done.add(pair)
            self._said.pop(pair, None)
        except CasoError as error:
            if self._said.get(pair) != error.message:
                self._said[pair] = error.message
                log.info("the keys of %s for %s: %s", device.name, server.name, error)
            if isinstance(error, NoKey) and device.imported is None:
                await self._tell(device)
            await asyncio.sleep(_LATEST_S)  # the same again at once would be no other
        finally:
            self._at_work.pop(pair, None)

    async def _grant(self, device: Device, server: Server) -> None:
        """Repeated, nothing happens. Raises the last error."""
        last: CasoError = ServerNotLinked(server=server.name)
        for opener in openers(self._places(device), server.id):
            request = n.DeviceGrant(device.id, {server.id: server.encryption_key})
            try:
                await ask(self._links.get(opener), "device.grant", request, n.DeviceGrantReply, timeout_s=_GRANT_S)
                return
            except CasoError as error:
                last = error
        path = device.path_on(server.id)
        if path is None or not self._links.linked(server.id):
            raise last
        # whoever has the keys may not see the folder: a disk that was carried, or taken away from it
        await hand_keys(self._keeper.state, self._links, device, server, path.path)

    async def _hand_on(self, device: Device, server: Server) -> None:
        """What opens an imported device lies with its record, and nothing is written to it."""
        assert device.imported is not None
        if server.id not in device.imported.copies:
            copies = await sealed_to(self._links, device, (server.id,))
            await self._submit(SetDevicePaths(device.id, device.kind, device.paths, copies))

    # --- what nobody opens ---

    async def _tell(self, device: Device) -> None:
        """If nobody is left of whom it might be handed."""
        device = self._keeper.state.devices.get(device.id, device)
        if not lost(self._places(device)):
            return
        place = device.paths[0]
        text = (
            f"No server has the keys of the device {device.name} any more: the machines that had them were replaced. "
            f"{self._remedy(device, place.path)}, on {self._keeper.state.name_of(place.server)}. The other servers that see it "
            "are handed them from there"
        )
        await self._alarms.attempt_begins(AlertKind.ERROR, KEYS_LOST, text, object=device.name)

    async def _found(self) -> None:
        devices = {device.name: device for device in self._keeper.state.devices.values()}
        for name in self._alarms.standing(KEYS_LOST):
            device = devices.get(name)
            if device is None or device.erasing or opened(self._places(device)):
                await self._alarms.attempt_ends(KEYS_LOST, name)
