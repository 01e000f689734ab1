"""Which servers a call of people concerns: the table of calls says which fields name it, here they are looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from caso_mesh.admin.on_device import OnDevice
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.admin.work import Work
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model.calls import Call, Names
from caso_mesh.model.device_jobs import OfDevices
from caso_mesh.model.errors import NotFound
from caso_mesh.model.ids import is_local, resolve_prefix
from caso_mesh.model.jobs import Job, set_read
from caso_mesh.planning.lifecycle import sources_of


class Scoping:
    """Asked only for operators whose role does not hold in the whole mesh."""

    def __init__(self, *, keeper: ControlKeeper, tables: Tables, work: Work, on_device: OnDevice) -> None:
        self._keeper = keeper
        self._tables = tables
        self._work = work
        self._on_device = on_device

    async def concerned(self, call: Call, request: Struct) -> frozenset[str]:
        """The servers (node ids) that a call concerns; none: the whole mesh. Raises ``NotFound``, ``Ambiguous``, and
        ``Unavailable`` for a set that is looked for on a device."""
        found: set[str] = set()
        for field, names in call.scope:
            value = getattr(request, field)
            if value is not None:
                found.update(await self._of(names, value, request))
        return frozenset(found)

    async def _of(self, names: Names, value: Any, request: Struct) -> Iterable[str]:
        state = self._keeper.state
        match names:
            case "server":
                name = value if isinstance(value, str) else value[0]
                # without one it is that of the set, which has a field of its own
                return [state.server_named(name).id] if name else []
            case "servers":
                return [state.server_named(each if isinstance(each, str) else each[0]).id for each in value]
            case "pool":
                members = state.servers_of_pool(value)
                if not members:
                    raise NotFound(kind="server", name=f"any of the pool {value}")
                return [server.id for server in members]
            case "list":
                return state.list_named(value).servers()
            case "set" | "source":
                if names == "source" and any(server.name == value for server in state.servers.values()):
                    return [state.server_named(value).id]
                device = getattr(request, "from_device", None)
                backup = await (self._on_device.find(device, value) if device else self._work.find_set(value))
                return [backup.source]
            case "device":
                return [place.server for place in state.device_named(value).paths]
            case "devices":
                return [place.server for name in value for place in state.device_named(name).paths]
            case "job":
                told = await self._tables.local_runs(run=value.partition("#")[0], limit=1) if is_local(value) else []
                if told:
                    return [server for server, _ in told]
                return await self._of_job(self._work.find_job(value))
            case "alert":
                rows = await self._tables.alerts()
                id_ = resolve_prefix(value, [row.id for row in rows], "alert")
                return of_alert(state, next(row for row in rows if row.id == id_))

    async def _of_job(self, job: Job) -> frozenset[str]:
        """Whose files it is about, and where it puts them; of work about devices who reaches them."""
        if isinstance(job.spec, OfDevices):
            devices = [
                device for id_ in job.spec.devices if (device := self._keeper.state.devices.get(id_)) is not None
            ]
            return frozenset(place.server for device in devices for place in device.paths)
        found = set(sources_of(job.spec))
        for set_id in [read for source in tuple(found) if (read := set_read(job.spec, source)) is not None]:
            backup = await self._tables.set(set_id)
            if backup is None:
                raise NotFound(kind="set", name=set_id)
            found.add(backup.source)
        return frozenset(found)


class Places(Struct, frozen=True):
    """Where servers and devices of a name are (ids)."""

    servers: Mapping[str, frozenset[str]]
    devices: Mapping[str, frozenset[str]]


def places_of(state: ControlState) -> Places:
    """What ``of_alert`` asks, for many alerts at once."""
    return Places(
        {server.name: frozenset({server.id}) for server in state.servers.values()},
        {device.name: frozenset(place.server for place in device.paths) for device in state.devices.values()},
    )


def of_alert(state: ControlState, row: AlertRow, places: Places | None = None) -> frozenset[str]:
    """The servers that an alert is about; none: the mesh itself."""
    run = state.runs.get(row.object)
    if run is not None:
        return frozenset(part.source for part in run.parts)
    places = places_of(state) if places is None else places
    found = places.servers.get(row.object.partition(":")[0]) or places.devices.get(row.object)
    if found is not None:
        return found
    raised_at = state.servers.get(row.server)
    # one in office tells of the mesh; all others of themselves only
    return frozenset() if raised_at is None or raised_at.voter else frozenset({row.server})
