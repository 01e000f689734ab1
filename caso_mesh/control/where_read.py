"""Where a part of a run reads: the device of its set, or of a copy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from caso_mesh.control.state import ControlState
from caso_mesh.model.device_jobs import OfDevices
from caso_mesh.model.jobs import JobSpec, RestoreSpec, set_read
from caso_mesh.model.states import DataLocation, DeviceState, ServerState


class SeenSets(Protocol):
    """What is known of sets and of who could read them. As ``placing.Seen``."""

    @property
    def connected(self) -> Collection[str]: ...

    @property
    def device_of_set(self) -> Callable[[str], str | None]: ...

    @property
    def copies_of_set(self) -> Callable[[str], tuple[tuple[str, str], ...]]: ...

    @property
    def missing_sets(self) -> Collection[str]: ...

    @property
    def broken(self) -> Mapping[tuple[str, str], str]: ...


def device_of(state: ControlState, seen: SeenSets, spec: JobSpec, source: str) -> str | None:
    """The device that a part is about. A restore whose set nobody reaches now, or that an inventory did not find, reads the
    first copy that somebody reaches."""
    if isinstance(spec, RestoreSpec) and spec.device is not None:
        return spec.device
    if isinstance(spec, OfDevices):
        return source
    set_id = set_read(spec, source)
    device = None if set_id is None else seen.device_of_set(set_id)
    if device is None or not isinstance(spec, RestoreSpec) or spec.foreign:
        return device
    if spec.set not in seen.missing_sets and _is_read(state, seen, device):
        return device
    copies = (other for _, other in seen.copies_of_set(spec.set) if _is_read(state, seen, other))
    return next(copies, device)


def _is_read(state: ControlState, seen: SeenSets, id: str) -> bool:
    """Whether some server could read a set on a device now."""
    device = state.devices.get(id)
    if device is None or device.erasing or device.imported is not None:
        return False
    if device.state not in {DeviceState.ONLINE, DeviceState.READ_ONLY}:
        return False
    servers = (state.servers[path.server] for path in device.paths if path.enabled and path.server in state.servers)
    return any(
        each.id in seen.connected
        and each.state is ServerState.ENABLED
        and each.data_location is DataLocation.ADMIN
        and (id, each.id) not in seen.broken
        for each in servers
    )
