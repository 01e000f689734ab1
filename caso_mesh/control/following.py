"""A server's own control state follows its orders: it knows one server, itself, with the devices that it reaches."""

from __future__ import annotations

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.copies import FollowOrders
from caso_mesh.model.errors import Conflict
from caso_mesh.model.logons import Logon, LogonOrder


def follow_orders(state: ControlState, command: FollowOrders, context: Context) -> Effect:
    """What is not in the orders any more goes, but for a device with an active attempt, which stays until that has ended.
    ``Conflict`` for the state of a whole mesh."""
    if state.servers.keys() - {command.server.id}:
        raise Conflict(detail="These are the orders of one server, and this is the state of a mesh")
    changes: list[Put] = []
    if command.mesh != state.mesh:
        changes.append(Put("mesh", "", command.mesh))
    if state.servers.get(command.server.id) != command.server:
        changes.append(Put("servers", command.server.id, command.server))
    devices = {device.id: device for device in command.devices}
    busy = {attempt.device for attempt in state.active_attempts()}
    changes += [Put("devices", id, device) for id, device in devices.items() if state.devices.get(id) != device]
    gone = state.devices.keys() - devices.keys() - busy
    changes += [Put("devices", id, None) for id in sorted(gone)]
    for name, pool in sorted(state.device_pools.items()):
        members = tuple(member for member in pool.members if member.device not in gone)
        if members != pool.members:
            changes.append(Put("device_pools", name, msgspec.structs.replace(pool, members=members)))
    media_sets = {row.name: row for row in command.media_sets}
    changes += [Put("media_sets", name, row) for name, row in media_sets.items() if state.media_sets.get(name) != row]
    changes += [Put("media_sets", name, None) for name in sorted(state.media_sets.keys() - media_sets.keys())]
    settings = state.mesh_settings
    changes += [Put("mesh_settings", k, value) for k, value in command.settings.items() if settings.get(k) != value]
    changes += [Put("mesh_settings", name, None) for name in sorted(settings.keys() - command.settings.keys())]
    logons = {order.name: _logon(order, command.server.id) for order in command.logons}
    changes += [Put("logons", name, row) for name, row in logons.items() if state.logons.get(name) != row]
    changes += [Put("logons", name, None) for name in sorted(state.logons.keys() - logons.keys())]
    return Effect({"changes": len(changes)}, tuple(changes))


def _logon(order: LogonOrder, own: str) -> Logon:
    """What a server knows of a logon: that it may use it itself, and whether it has the secret."""
    copies = {own: order.sealed} if order.sealed else {}
    return Logon(order.name, order.user, (own,), (), order.version, 1, copies, "", 0)
