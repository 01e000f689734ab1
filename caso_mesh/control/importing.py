"""Commands about devices that came from another mesh, and the names of its servers here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.errors import Ambiguous, DeviceImported, InvalidValue, Misuse, NotFound
from caso_mesh.model.importing import NoteImported
from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.storage import Device, DevicePath


def label_of(devices: Iterable[Device], mesh: str, name: str) -> str:
    """The name by which another mesh (id) is known here: what devices of it say already, else its own, with a number if
    devices of a third mesh have that."""
    known = {each.imported.mesh: each.imported.mesh_name for each in devices if each.imported is not None}
    if mesh in known:
        return known[mesh]
    taken, number, label = {*known.values()}, 1, name
    while label in taken:
        number += 1
        label = f"{name}-{number}"
    return label


def note_imported(state: ControlState, command: NoteImported, context: Context) -> Effect:
    """Of a device that has left the mesh meanwhile it is nothing."""
    device = state.devices.get(command.device)
    if device is None or device.imported is None or device.imported.listed:
        return Effect()
    return Effect(None, (Put("devices", device.id, replace(device, imported=replace(device.imported, listed=True))),))


def check_imported(state: ControlState, device: Device) -> None:
    """A device as it is to be imported. Raises ``InvalidValue``."""
    came = device.imported
    if came is None:
        raise Misuse("an imported device says from where it came")
    if came.mesh == state.info().id:
        raise InvalidValue(value=came.mesh, what="mesh of an imported device", expected="It is another one than this")


def placed(device: Device, paths: tuple[DevicePath, ...], copies: Mapping[str, bytes] | None = None) -> Device:
    """A device at other places. Of an imported one what opens it stays with the servers that see it, and comes to those of
    ``copies``."""
    came = device.imported
    if came is not None:
        see = {path.server for path in paths}
        kept = {node: copy for node, copy in sorted({**came.copies, **(copies or {})}.items()) if node in see}
        came = replace(came, copies=kept)
    return replace(device, paths=paths, imported=came)


def check_written(state: ControlState, target: Target, what: str) -> None:
    """Raises ``DeviceImported`` for a target that is an imported device: ``what`` is refused."""
    if target.kind is TargetKind.DEVICE:
        refuse_imported(state.device_named(target.name or ""), what)


def refuse_imported(device: Device | None, what: str) -> None:
    """Raises ``DeviceImported``."""
    if device is not None and device.imported is not None:
        raise DeviceImported(device=device.name, mesh=device.imported.mesh_name, what=what)


def source_named(state: ControlState, name: str) -> str:
    """The id under which the sets of a server are kept: of this mesh, or ``NAME@MESH`` of another one whose devices were
    imported. Raises ``NotFound``, ``Ambiguous``."""
    if "@" not in name:
        return state.server_named(name).origin
    came = [each.imported for each in state.device_list() if each.imported is not None]
    found = sorted({node for each in came for node in each.names if each.shown(node, node) == name})
    if not found:
        raise NotFound(kind="server", name=name)
    if len(found) > 1:
        raise Ambiguous(kind="server", name=name, candidates=", ".join(found))
    return found[0]
