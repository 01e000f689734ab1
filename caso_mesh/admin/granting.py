"""A machine that took the place of another has a key of its own: content keys of the devices that it took over are wrapped to
it, by whichever server opens them."""

from __future__ import annotations

import asyncio
import logging

from caso_mesh.admin.importing import sealed_to
from caso_mesh.admin.live import Live
from caso_mesh.admin.on_device import readers_of
from caso_mesh.admin.ports import Links, Submit
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import nodes as n
from caso_mesh.model.commands import SetDevicePaths
from caso_mesh.model.errors import CasoError
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import Device
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_GRANT_S = 60.0


class Granting:
    """A duty of the office. What nobody else opens needs a recovery kit (``caso-mesh vault grant``)."""

    def __init__(self, *, keeper: ControlKeeper, live: Live, links: Links, submit: Submit) -> None:
        self._keeper = keeper
        self._submit = submit
        self._live = live
        self._links = links
        self._done: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            for server in self._keeper.state.server_list():
                for device in self._keeper.state.devices_of(server.id) if server.succeeds else ():
                    if (device.id, server.id) not in self._done:
                        await self._grant(device, server)
            await asyncio.sleep(_LOOK_S)

    async def _grant(self, device: Device, server: Server) -> None:
        """Repeated, nothing happens."""
        if device.imported is not None:
            await self._hand_on(device, server)
            return
        for reader in readers_of(self._keeper.state, self._live, self._links, device.id):
            if reader == server.id:
                continue
            request = n.DeviceGrant(device.id, {server.id: server.encryption_key})
            try:
                await ask(self._links.get(reader), "device.grant", request, n.DeviceGrantReply, timeout_s=_GRANT_S)
            except CasoError as error:
                log.info("the keys of %s for %s: %s", device.name, server.name, error)
                continue
            self._done.add((device.id, server.id))
            return

    async def _hand_on(self, device: Device, server: Server) -> None:
        """What opens an imported device lies with its record, and nothing is written to it."""
        assert device.imported is not None
        try:
            if server.id not in device.imported.copies:
                copies = await sealed_to(self._links, device, (server.id,))
                await self._submit(SetDevicePaths(device.id, device.kind, device.paths, copies))
        except CasoError as error:
            log.info("what opens %s for %s: %s", device.name, server.name, error)
            return
        self._done.add((device.id, server.id))
