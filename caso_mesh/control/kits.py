"""Commands about recovery kits."""

from __future__ import annotations

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import AddKit, ConfirmKit, NoteKitDevice
from caso_mesh.model.errors import AlreadyExists, InvalidValue, NotFound
from caso_mesh.model.ids import check_name
from caso_mesh.model.mesh import RecoveryKit


def add_kit(state: ControlState, command: AddKit, context: Context) -> Effect:
    """``AlreadyExists`` for an id with another key."""
    check_name(command.kit, "kit")
    if len(command.public_key) != 32:
        raise InvalidValue(value=command.public_key.hex(), what="public key of a kit", expected="It has 32 bytes")
    known = state.kits.get(command.kit)
    if known is not None:
        if known.public_key != command.public_key:
            raise AlreadyExists(kind="kit", name=command.kit)
        return Effect({"kit": known.id})
    kit = RecoveryKit(command.kit, command.public_key, command.at_ns, created_by=context.who)
    return Effect({"kit": kit.id}, (Put("kits", kit.id, kit),))


def confirm_kit(state: ControlState, command: ConfirmKit, context: Context) -> Effect:
    """Repeated it has no effect. ``NotFound``."""
    kit = state.kits.get(command.kit)
    if kit is None:
        raise NotFound(kind="kit", name=command.kit)
    if kit.confirmed_at_ns is not None:
        return Effect({"kit": kit.id})
    return Effect({"kit": kit.id}, (Put("kits", kit.id, msgspec.structs.replace(kit, confirmed_at_ns=command.at_ns)),))


def note_kit_device(state: ControlState, command: NoteKitDevice, context: Context) -> Effect:
    """Kits and devices that are gone meanwhile are passed over, and forgotten."""
    changes = []
    for id_ in command.kits:
        kit = state.kits.get(id_)
        if kit is None:
            continue
        complete = {device for device in kit.complete if device in state.devices} - {command.device}
        if command.complete and command.device in state.devices:
            complete.add(command.device)
        changed = msgspec.structs.replace(kit, complete=tuple(sorted(complete)))
        if changed != kit:
            changes.append(Put("kits", kit.id, changed))
    return Effect(None, tuple(changes))
