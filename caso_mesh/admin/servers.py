"""The calls of people about servers, pools and settings."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from caso_mesh.admin import present
from caso_mesh.admin.enrolment import Enrolment
from caso_mesh.admin.paging import page
from caso_mesh.admin.ports import Answer, Caller, Links, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.commands import (
    CreatePool,
    DeletePool,
    RemoveServer,
    SetDataLocation,
    SetPool,
    SetServerState,
    SetSetting,
)
from caso_mesh.model.errors import Conflict, InvalidValue, UsageError
from caso_mesh.model.listing import check_state
from caso_mesh.model.mesh import Pool
from caso_mesh.model.settings import BY_NAME, SETTINGS, Value, number, parse_setting
from caso_mesh.model.states import Role, ServerState
from caso_mesh.planning.forwarding import check_zone

_ON_HOLD = "queue-on-hold"
_SETTABLE = {ServerState.ENABLED, ServerState.PAUSED, ServerState.DISABLED}


class Servers:
    """Answers of the administrator."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        links: Links,
        submit: Submit,
        enrolment: Enrolment,
        own: str,
        votes: Callable[[str], bool],
        silent_s: Callable[[str], float | None],
    ) -> None:
        self._keeper = keeper
        self._links = links
        self._submit = submit
        self._enrolment = enrolment
        self._own = own
        self._votes = votes
        self._silent_s = silent_s

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "server.list": self._server_list,
            "server.set-state": self._server_set_state,
            "server.set": self._server_set,
            "queue.hold": self._queue_hold,
            "server.remove": self._server_remove,
            "pool.create": self._pool_create,
            "pool.set": self._pool_set,
            "pool.delete": self._pool_delete,
            "pool.list": self._pool_list,
            "settings.list": self._settings_list,
            "settings.set": self._settings_set,
        }

    def _running(self) -> dict[str, int]:
        running: dict[str, int] = {}
        for attempt in self._keeper.state.active_attempts():
            running[attempt.server] = running.get(attempt.server, 0) + 1
        return running

    def _on_hold(self, server_id: str) -> bool:
        return number(self._keeper.state.settings_of(server_id), _ON_HOLD) >= 1.0

    def view(self, server_id: str, running: dict[str, int] | None = None) -> v.ServerView:
        """A server, by its id, as people see it."""
        state = self._keeper.state
        if running is None:
            running = self._running()
        return present.server_view(
            state,
            state.server(server_id),
            connected=self._links.linked(server_id),
            admin=server_id == self._own,
            voter=self._votes(server_id),
            silent_s=self._silent_s(server_id),
            running=running.get(server_id, 0),
            queue_on_hold=self._on_hold(server_id),
        )

    async def _server_list(self, caller: Caller, request: q.ServerListRequest) -> v.ServerList:
        limits = caller.limits()
        if request.discovered:
            return v.ServerList(self._enrolment.discovered() if limits is None else ())
        state = self._keeper.state
        check_state(request.state, ServerState)
        only = present.restricted_to(state, request.server, request.pool, limits)
        fits = (
            server
            for server in state.server_list()
            if (only is None or server.id in only) and request.state in {None, server.state.value}
        )
        shown, more = page(fits, request, lambda server: server.name)
        running = self._running()
        return v.ServerList(tuple(self.view(server.id, running) for server in shown), more)

    async def _server_set_state(self, caller: Caller, request: q.ServerSetState) -> v.ServerView:
        if request.state not in _SETTABLE:
            raise InvalidValue(value=request.state, what="state", expected="Use enabled, paused or disabled")
        server = self._keeper.state.server_named(request.name)
        await self._submit(SetServerState(server.id, request.state), who=caller.who, request_id=caller.request_id)
        return self.view(server.id)

    async def _server_set(self, caller: Caller, request: q.ServerSet) -> v.ServerView:
        server = self._keeper.state.server_named(request.name)
        command = SetDataLocation(server.id, request.data_location)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self.view(server.id)

    async def _queue_hold(self, caller: Caller, request: q.QueueHold) -> v.ServerList:
        """A release lets go of the narrower holds as well: what was released runs."""
        if request.server is not None and request.pool is not None:
            raise UsageError(detail="Hold the queue of one server, of one pool, or of all")
        state = self._keeper.state
        changes: list[SetSetting] = []
        if request.server is not None:
            server = state.server_named(request.server)
            changes.append(SetSetting(_ON_HOLD, 1.0 if request.held else None, server=server.id))
        else:
            servers = state.servers_of_pool(request.pool) if request.pool is not None else state.server_list()
            changes.append(SetSetting(_ON_HOLD, 1.0 if request.held else None, pool=request.pool))
            if request.pool is None and not request.held:
                held = [name for name, values in sorted(state.pool_settings.items()) if _ON_HOLD in values]
                changes += [SetSetting(_ON_HOLD, None, pool=name) for name in held]
            own = [server for server in servers if _ON_HOLD in server.settings]
            changes += [SetSetting(_ON_HOLD, None, server=server.id) for server in own]
        for serial, change in enumerate(changes):
            await self._submit(change, who=caller.who, request_id=f"{caller.request_id}/{serial}")
        if request.server is not None and not request.held:
            server = state.server_named(request.server)
            if self._on_hold(server.id):  # its pool, or all, are on hold: this one is not
                released = SetSetting(_ON_HOLD, 0.0, server=server.id)
                await self._submit(released, who=caller.who, request_id=f"{caller.request_id}/released")
        return await self._server_list(caller, q.ServerListRequest(pool=request.pool))

    async def _server_remove(self, caller: Caller, request: q.ServerName) -> v.Done:
        if done_before(self._keeper, caller) is not None:
            return v.Done()
        server = self._keeper.state.server_named(request.name)
        admins = [each for each in self._keeper.state.operator_list() if each.role is Role.ADMIN]
        if server.id != self._own and admins and all(each.home == server.id for each in admins):
            who = ", ".join(each.name for each in admins)
            detail = f"With {server.name} would go {who}, and nobody could administer the mesh any more"
            raise Conflict(detail=f'{detail}; "caso-mesh server disable {server.name}" uses it for nothing')
        await self._submit(RemoveServer(server.id, admin=self._own), who=caller.who, request_id=caller.request_id)
        return v.Done()

    def _pool(self, request: q.PoolEdit) -> Pool:
        state = self._keeper.state
        servers = tuple(dict.fromkeys(state.server_named(name).id for name in request.servers))
        return Pool(request.name, servers)

    def _pool_view(self, pool: Pool) -> v.PoolView:
        return v.PoolView(pool.name, tuple(self._keeper.state.name_of(server) for server in pool.servers))

    async def _pool_create(self, caller: Caller, request: q.PoolEdit) -> v.PoolView:
        await self._submit(CreatePool(self._pool(request)), who=caller.who, request_id=caller.request_id)
        return self._pool_view(self._keeper.state.pool_named(request.name))

    async def _pool_set(self, caller: Caller, request: q.PoolEdit) -> v.PoolView:
        await self._submit(SetPool(self._pool(request)), who=caller.who, request_id=caller.request_id)
        return self._pool_view(self._keeper.state.pool_named(request.name))

    async def _pool_delete(self, caller: Caller, request: q.PoolName) -> v.Done:
        await self._submit(DeletePool(request.name), who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _pool_list(self, caller: Caller, request: q.Nothing) -> v.PoolList:
        limits, pools = caller.limits(), self._keeper.state.pool_list()
        if limits is not None:
            found = (
                structs.replace(pool, servers=tuple(each for each in pool.servers if each in limits)) for pool in pools
            )
            pools = [pool for pool in found if pool.servers]
        return v.PoolList(tuple(self._pool_view(pool) for pool in pools))

    async def _settings_list(self, caller: Caller, request: q.SettingsListRequest) -> v.SettingList:
        state = self._keeper.state
        own = state.servers.get(self._own)
        preset = own.preset if own else "lan"
        values: dict[str, tuple[Value, str]] = {}
        if request.server is not None:
            row = state.server_named(request.server)
            preset = row.preset
            for name, (value, origin) in state.settings_with_origin(row.id).items():
                values[name] = (value, f"server:{row.name}" if origin == "server" else origin)
        else:
            layers = [("mesh", state.mesh_settings)]
            if request.pool is not None:
                state.pool_named(request.pool)
                layers.append((f"pool:{request.pool}", state.pool_settings.get(request.pool, {})))
            for setting in SETTINGS:
                values[setting.name] = (setting.default_for(preset), "default")
                for origin, layer in layers:
                    if setting.name in layer:
                        values[setting.name] = (layer[setting.name], origin)
        return v.SettingList(
            tuple(
                v.SettingView(name, value, origin, BY_NAME[name].default_for(preset), BY_NAME[name].text)
                for name, (value, origin) in values.items()
            )
        )

    async def _settings_set(self, caller: Caller, request: q.SettingSet) -> v.SettingList:
        state = self._keeper.state
        value = parse_setting(request.name, request.value) if request.value is not None else None
        check_zone(request.name, value)
        server = state.server_named(request.server).id if request.server else None
        if request.pool is not None:
            state.pool_named(request.pool)
        command = SetSetting(request.name, value, server=server, pool=request.pool)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return await self._settings_list(caller, q.SettingsListRequest(server=request.server, pool=request.pool))
