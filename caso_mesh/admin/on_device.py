"""What lies on a device, asked of a server that reaches it: sets and folders in them, whatever the catalog knows."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import DeviceAway, NotFound
from caso_mesh.model.ids import resolve_prefix
from caso_mesh.model.states import DeviceState, Liveness, ServerState
from caso_mesh.model.storage import BackupSet, Device
from caso_mesh.wire.typed import Callee, ask

_PAGE_S = 150.0

#: What is said of a device (its id) that no server reaches.
Unreached = Callable[[str], DeviceAway]


def readers_of(state: ControlState, live: Live, links: Links, device_id: str) -> list[str]:
    """The servers (node ids) that reach a device now and may work, those first that see no problem with it."""
    device = state.devices.get(device_id)
    if device is None or device.state in {DeviceState.OFFLINE, DeviceState.PAUSED}:
        return []
    found: list[str] = []
    for place in device.paths:
        server = state.servers.get(place.server)
        if server is None or not place.enabled or not links.linked(place.server):
            continue
        if server.set_state is not ServerState.ENABLED or server.liveness is Liveness.NO_COMMUNICATION:
            continue
        report = live.report_of(device_id, place.server)
        if report is None or report.problem is None:
            found.append(place.server)
    return found


class OnDevice:
    """Nothing is remembered: each question goes to the device."""

    def __init__(self, *, keeper: ControlKeeper, live: Live, links: Links, unreached: Unreached) -> None:
        self._keeper = keeper
        self._live = live
        self._links = links
        self._unreached = unreached

    async def sets(self, name: str) -> list[BackupSet]:
        """The sets on the device of that name that are not deleted. Raises ``NotFound``, ``DeviceAway`` while no server
        reaches it."""
        return (await self.look(name))[0]

    async def look(self, name: str) -> tuple[list[BackupSet], list[str]]:
        """As ``sets``, and the ids of those that have a tombstone there."""
        device, link = self._reader(name)
        found, deleted = list[BackupSet](), list[str]()
        after, more = "", True
        while more:
            page = await ask(link, "vault.sets", n.VaultSets(device.id, after), n.VaultSetsReply, timeout_s=_PAGE_S)
            gone = set(page.deleted)
            mine = [each for each in page.sets if each.vault == device.vault]
            found += [each for each in mine if each.id not in gone]
            deleted += [each.id for each in mine if each.id in gone]
            more = page.more and bool(page.sets)
            after = page.sets[-1].id if page.sets else after
        return found, deleted

    async def find(self, name: str, text: str) -> BackupSet:
        """The set on the device ``name`` by its id or a unique beginning of it. Raises ``NotFound``, ``Ambiguous``."""
        sets = {each.id: each for each in await self.sets(name)}
        if not any(each.startswith(text) for each in sets):
            # it may well be in the list of sets, on another device
            raise NotFound(kind="set", name=f"{text} on the device {name}")
        return sets[resolve_prefix(text, list(sets), "set")]

    async def folder(
        self, name: str, backup: BackupSet, path: bytes, *, after: bytes | None, limit: int
    ) -> tuple[list[CatalogEntry], bool]:
        """What is right below ``path`` in a set on the device ``name``, and whether there is more."""
        device, link = self._reader(name)
        request = n.SetFolder(device.id, backup.id, path, after, limit)
        reply = await ask(link, "set.folder", request, n.SetFolderReply, timeout_s=_PAGE_S)
        entries = [CatalogEntry(each.path, each.type, each.size, each.modified, each.mode) for each in reply.entries]
        return entries, reply.more

    def _reader(self, name: str) -> tuple[Device, Callee]:
        state = self._keeper.state
        device = state.device_named(name)
        for server in readers_of(state, self._live, self._links, device.id):
            return device, self._links.get(server)
        raise self._unreached(device.id)
