"""Commands about pools, devices and settings."""

from __future__ import annotations

import msgspec

from caso_mesh.control.importing import check_imported, label_of, placed
from caso_mesh.control.policies import users_of_target
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import (
    AddDevice,
    CreatePool,
    DeletePool,
    RemoveDevice,
    RetireMedium,
    SetDevice,
    SetDevicePaths,
    SetPool,
    SetSetting,
)
from caso_mesh.model.errors import (
    AlreadyExists,
    DataLocationRefused,
    DeviceNotSeen,
    InUse,
    InvalidValue,
    UnknownSetting,
    UsageError,
)
from caso_mesh.model.ids import check_name
from caso_mesh.model.importing import ImportDevice
from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.mesh import Pool
from caso_mesh.model.settings import BY_NAME, Value, check_setting
from caso_mesh.model.states import DeviceState
from caso_mesh.model.storage import Device, DeviceKind


def create_pool(state: ControlState, command: CreatePool, context: Context) -> Effect:
    pool = _checked_pool(state, command.pool)
    if pool.name in state.pools:
        raise AlreadyExists(kind="pool", name=pool.name)
    return Effect({"pool": pool.name}, (Put("pools", pool.name, pool),))


def set_pool(state: ControlState, command: SetPool, context: Context) -> Effect:
    state.pool_named(command.pool.name)
    pool = _checked_pool(state, command.pool)
    return Effect({"pool": pool.name}, (Put("pools", pool.name, pool),))


def delete_pool(state: ControlState, command: DeletePool, context: Context) -> Effect:
    """``InUse`` while a template, a list, a recurring job or an open run is targeted at it. Its settings go with it, and
    what operators might do on its servers."""
    pool = state.pool_named(command.name)
    users = users_of_target(state, Target(TargetKind.POOL, pool.name))
    if users:
        raise InUse(kind="pool", name=pool.name, by=users)
    scopes = []
    for operator in state.operator_list():
        left = tuple((name, role) for name, role in operator.pool_roles if name != pool.name)
        if left != operator.pool_roles:
            scopes.append(Put("operators", operator.id, msgspec.structs.replace(operator, pool_roles=left)))
    return Effect(None, (Put("pools", pool.name, None), Put("pool_settings", pool.name, None), *scopes))


def add_device(state: ControlState, command: AddDevice, context: Context) -> Effect:
    """``AlreadyExists`` for a name, a vault or a place that another device has."""
    return _new_device(state, command.device)


def import_device(state: ControlState, command: ImportDevice, context: Context) -> Effect:
    """As ``add_device``; ``InvalidValue`` for one of this very mesh."""
    device = command.device
    check_imported(state, device)
    came = device.imported
    assert came is not None
    label = label_of(state.device_list(), came.mesh, came.mesh_name)
    device = placed(
        msgspec.structs.replace(device, imported=msgspec.structs.replace(came, mesh_name=label)), device.paths
    )
    return _new_device(state, device)


def _new_device(state: ControlState, device: Device) -> Effect:
    check_name(device.name, "device")
    _check_device(device)
    for other in state.device_list():
        if other.name == device.name or other.id == device.id:
            raise AlreadyExists(kind="device", name=device.name)
        if other.vault == device.vault:
            raise AlreadyExists(kind="device", name=other.name)
    _check_places(state, device)
    return Effect({"device": device.id}, (Put("devices", device.id, device),))


def set_device(state: ControlState, command: SetDevice, context: Context) -> Effect:
    device = state.device(command.device)
    if command.state is DeviceState.IMPORTED:
        raise InvalidValue(value=command.state, what="state", expected="No device is set to that")
    quotas = dict(command.quotas)
    for server in quotas:
        if device.path_on(server) is None:
            raise DeviceNotSeen(server=state.name_of(server), device=device.name)
    changed = msgspec.structs.replace(
        device,
        paths=tuple(
            msgspec.structs.replace(path, quota_bytes=quotas[path.server]) if path.server in quotas else path
            for path in device.paths
        ),
        state=device.state if command.state is None else command.state,
        concurrency=device.concurrency if command.concurrency is None else command.concurrency,
        low_space_bytes=device.low_space_bytes if command.low_space_bytes is None else command.low_space_bytes,
    )
    _check_device(changed)
    return Effect(None, () if changed == device else (Put("devices", device.id, changed),))


def set_device_paths(state: ControlState, command: SetDevicePaths, context: Context) -> Effect:
    """``InUse`` while attempts use a place that it would have no more; else as ``add_device``."""
    device = state.device(command.device)
    changed = placed(msgspec.structs.replace(device, kind=command.kind), command.paths, command.copies)
    _check_device(changed)
    _check_places(state, changed)
    stay = {(path.server, path.path) for path in changed.paths}
    lost = {path.server for path in device.paths if (path.server, path.path) not in stay}
    users = [
        attempt.id
        for attempt in state.active_attempts()
        if (attempt.device == device.id and attempt.server in lost)
        or (attempt.from_device == device.id and attempt.reader in lost)
    ]
    if users:
        raise InUse(kind="device", name=device.name, by=users)
    return Effect(None, () if changed == device else (Put("devices", device.id, changed),))


def retire_medium(state: ControlState, command: RetireMedium, context: Context) -> Effect:
    """That there is such a medium is for the administrator to check."""
    device = state.device(command.device)
    if command.label in device.retired:
        return Effect()
    retired = tuple(sorted((*device.retired, command.label)))
    return Effect(None, (Put("devices", device.id, msgspec.structs.replace(device, retired=retired)),))


def remove_device(state: ControlState, command: RemoveDevice, context: Context) -> Effect:
    """``InUse`` while attempts are active on it, or a template or a recurring job is targeted at it or a device pool has
    it. That no live set is on it is for the administrator to check."""
    device = state.device(command.device)
    users = [each.id for each in state.active_attempts() if device.id in {each.device, each.from_device}]
    users += [
        f"device pool {pool.name}"
        for _, pool in sorted(state.device_pools.items())
        if any(member.device == device.id for member in pool.members)
    ]
    users += users_of_target(state, Target(TargetKind.DEVICE, device.name))
    if users:
        raise InUse(kind="device", name=device.name, by=users)
    return Effect(None, (Put("devices", device.id, None),))


def set_setting(state: ControlState, command: SetSetting, context: Context) -> Effect:
    """``DataLocationRefused`` for a catalog mode that the data location of the server does not leave."""
    if command.server is not None and command.pool is not None:
        raise UsageError(detail="A setting is for the mesh, for one server or for one pool")
    if command.server is not None:
        server = state.server(command.server)
        own = _with_setting(server.settings, command)
        if command.value is not None and server.imposed.get(command.name, command.value) != command.value:
            raise DataLocationRefused(server=server.name, mode=command.value)
        return Effect(None, (Put("servers", server.id, msgspec.structs.replace(server, settings=own)),))
    if command.pool is not None:
        pool = state.pool_named(command.pool)
        values = _with_setting(state.pool_settings.get(pool.name, {}), command)
        return Effect(None, (Put("pool_settings", pool.name, values or None),))
    _with_setting(state.mesh_settings, command)
    return Effect(None, (Put("mesh_settings", command.name, command.value),))


def _with_setting(old: dict[str, Value], command: SetSetting) -> dict[str, Value]:
    values = {name: value for name, value in old.items() if name != command.name}
    if command.value is None:
        if command.name not in BY_NAME:
            raise UnknownSetting(name=command.name)
    else:
        values[command.name] = check_setting(command.name, command.value)
    return values


def _checked_pool(state: ControlState, pool: Pool) -> Pool:
    check_name(pool.name, "pool")
    for server in pool.servers:
        state.server(server)
    return msgspec.structs.replace(pool, servers=tuple(dict.fromkeys(pool.servers)))


def _check_places(state: ControlState, device: Device) -> None:
    """``AlreadyExists`` for a place that another device has, ``NotFound``, ``UsageError``."""
    if not device.paths or (device.kind is DeviceKind.DISK and len(device.paths) > 1):
        raise UsageError(detail="A disk is on one server, a shared device on one or more")
    if len({path.server for path in device.paths}) < len(device.paths):
        raise UsageError(detail="A shared device has one path on each server")
    for path in device.paths:
        state.server(path.server)
    for other in state.device_list():
        places = {(path.server, path.path) for path in other.paths} if other.id != device.id else set()
        if any((path.server, path.path) in places for path in device.paths):
            raise AlreadyExists(kind="device", name=other.name)


def _check_device(device: Device) -> None:
    if not 1 <= device.concurrency <= 256:
        raise InvalidValue(value=device.concurrency, what="concurrency", expected="It lies between 1 and 256")
    if any(path.quota_bytes is not None and path.quota_bytes < 0 for path in device.paths):
        quota = min(path.quota_bytes for path in device.paths if path.quota_bytes is not None)
        raise InvalidValue(value=quota, what="quota", expected="It is not negative")
    if device.low_space_bytes < 0:
        raise InvalidValue(value=device.low_space_bytes, what="low space", expected="It is not negative")
