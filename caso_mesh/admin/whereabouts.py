"""Where the catalogs of sets are: by what servers told of those that they keep, and by the modes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from caso_mesh.admin import kept_catalogs
from caso_mesh.admin.live import Live
from caso_mesh.admin.on_device import readers_of
from caso_mesh.admin.ports import Links
from caso_mesh.admin.present import device_name
from caso_mesh.admin.tables import Tables
from caso_mesh.control import catalogs
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.catalogs import CatalogMode
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CatalogAway, DeviceAway
from caso_mesh.model.mesh import Server
from caso_mesh.model.states import DeviceState, Liveness, ServerState
from caso_mesh.model.storage import BackupSet, DevicePath
from caso_mesh.model.units import format_instant

#: So many servers are named in one sentence.
_MOST_NAMED = 5


class Whereabouts:
    """Looks into the control state and the tables of this voter each time."""

    def __init__(self, keeper: ControlKeeper, tables: Tables) -> None:
        self._keeper = keeper
        self._tables = tables

    def distributed(self) -> dict[str, str]:
        """See ``control.catalogs.distributed``."""
        return catalogs.distributed(self._keeper.state)

    async def not_fetched(self) -> set[str]:
        """Those who make sets (node ids) whose catalogs voters do not fetch: they keep them by themselves, and have begun
        to. Until then voters fetch, whatever the mode says: an older server never begins."""
        wanted = self.distributed()
        if not wanted:
            return set()
        begun = await self._tables.ask(kept_catalogs.keepers)
        return {maker for maker, keeper in wanted.items() if keeper in begun}

    async def to_drop(self, limit: int) -> list[tuple[str, str]]:
        """Sets whose catalogs are here and need not be any more, each with the server that has said that it keeps it."""
        wanted = self.distributed()
        if not wanted:
            return []
        return await self._tables.ask(partial(kept_catalogs.to_drop, keeper_of=wanted, limit=limit))

    def keeper_of(self, backup: BackupSet) -> Server | None:
        """Who keeps the catalog of a set if it is not here."""
        return catalogs.keeper_of(self._keeper.state, backup.server)

    def mode_of(self, backup: BackupSet) -> CatalogMode:
        return catalogs.mode_of(self._keeper.state, backup.server)

    async def is_kept(self, backup: BackupSet) -> bool:
        """Whether the server of a set has said that it has its catalog."""
        server = self.keeper_of(backup)
        return server is not None and server.id in await self._tables.ask(
            partial(kept_catalogs.keepers_of, set_id=backup.id)
        )

    async def kept(self, backups: Sequence[BackupSet]) -> set[str]:
        """Of some sets those whose catalogs their servers have."""
        keepers = {each.id: server.id for each in backups if (server := self.keeper_of(each)) is not None}
        return await self._tables.ask(partial(kept_catalogs.kept_of, keepers=keepers))


class Away:
    """Since when servers that keep catalogs cannot be asked."""

    def __init__(self, *, keeper: ControlKeeper, live: Live, links: Links, clock: Clock) -> None:
        self._keeper = keeper
        self._live = live
        self._links = links
        self._clock = clock

    def linked(self, server: str) -> bool:
        return self._links.linked(server)

    def since(self, server: str) -> str:
        """When a server (node id) was last heard of."""
        return format_instant(self._since_ns(server)) or ""

    def _since_ns(self, server: str) -> int:
        row, now_ns = self._keeper.state.servers.get(server), self._clock.now_ns()
        if row is not None and row.silent_since_ns is not None:
            return row.silent_since_ns
        heard_s = self._live.heard_at_s.get(server)
        return now_ns if heard_s is None else now_ns - round((self._clock.monotonic_s() - heard_s) * 1e9)

    def error(self, server: str, backup: BackupSet) -> CatalogAway:
        """What is said of a set whose catalog is on a server (node id) that does not answer."""
        state = self._keeper.state
        device = device_name(state, backup.device)
        if readers_of(state, self._live, self._links, backup.device):
            way = f"""The set can be restored whole meanwhile. "caso-mesh catalog ls {backup.id} --from-device {device}" """
            way += "reads it out of its device"
        else:
            why = self.why_unreached(backup.device)
            way = f"Its device {device} cannot be reached either, and the set not be restored: {why}"
        return CatalogAway(
            server=state.name_of(server),
            since=self.since(server),
            set=backup.id,
            device=device,
            way=way,
        )

    def device(self, device: str) -> DeviceAway:
        """What is said of a device (its id) that no server can be asked about."""
        return DeviceAway(device=device_name(self._keeper.state, device), why=self.why_unreached(device))

    def why_unreached(self, device: str) -> str:
        """Which servers would reach a device (its id), and what each of them waits for."""
        row = self._keeper.state.devices.get(device)
        if row is None:
            return "it is not in the mesh"
        if row.state in {DeviceState.OFFLINE, DeviceState.PAUSED}:
            return f"it is {row.state.value}"
        places = [place for place in row.paths if place.enabled]
        if not places:
            return "no server uses it"
        said = [self._why(device, place) for place in places[:_MOST_NAMED]]
        more = [f"{len(places) - _MOST_NAMED} more servers"] if len(places) > _MOST_NAMED else []
        return "; ".join([*said, *more])

    def _why(self, device: str, place: DevicePath) -> str:
        name, server = self._keeper.state.name_of(place.server), self._keeper.state.servers.get(place.server)
        report = self._live.report_of(device, place.server)
        if server is None or not self.linked(place.server) or server.liveness is Liveness.NO_COMMUNICATION:
            return f"{name} is not connected since {self.since(place.server)}"
        if server.set_state is not ServerState.ENABLED:
            return f"{name} is {server.set_state.value}"
        return f"{name} says {report.problem}" if report is not None and report.problem else f"{name} did not answer"
