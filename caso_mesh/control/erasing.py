"""A device that is emptied: who may begin, that nobody else is at work there, and what the device is after it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from caso_mesh.control.importing import refuse_imported
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import BeginErase
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.errors import Conflict, InUse, WrongState
from caso_mesh.model.jobs import Attempt, Run
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD, AttemptState, DeviceState
from caso_mesh.planning.lifecycle import Closed


def erasures(state: ControlState) -> dict[str, Run]:
    """The open runs that erase a device, by its id. Of several the first."""
    found: dict[str, Run] = {}
    for run in state.open_apart():
        if isinstance(run.spec, EraseSpec):
            found.setdefault(run.spec.device, run)
    return found


def begin_erase(state: ControlState, command: BeginErase, context: Context) -> Effect:
    """From now on the device is one that is being erased, whatever becomes of the attempt, until one that erases it has ended
    well. Repeated, nothing happens. ``NotFound``, ``WrongState``, ``InUse`` while anybody else works there."""
    attempt = state.attempt(command.attempt)
    spec = state.run(attempt.run).spec
    if attempt.state not in ATTEMPT_ACTIVE or attempt.cancel or not isinstance(spec, EraseSpec):
        raise WrongState(kind="attempt", name=attempt.id, state="canceled" if attempt.cancel else attempt.state)
    device = state.device(spec.device)
    if device.erasing == spec.becomes:
        return Effect()
    if device.erasing or device.vault == spec.becomes:
        raise Conflict(detail=f"The device {device.name} has been erased by another run meanwhile")
    refuse_imported(device, "it is not erased from here")
    if device.state is not DeviceState.ONLINE:
        raise WrongState(kind="device", name=device.name, state=device.state)
    users = [each for each in users_of(state, device.id) if each != attempt.id]
    if users:
        raise InUse(kind="device", name=device.name, by=", ".join(users))
    return Effect(None, (Put("devices", device.id, msgspec.structs.replace(device, erasing=spec.becomes)),))


def users_of(state: ControlState, device: str) -> Iterator[str]:
    """The active attempts (ids) that write to a device, or read there."""
    for attempt in state.active_attempts():
        if device in {attempt.device, attempt.from_device}:
            yield attempt.id


def check_alone(state: ControlState, run: Run, attempts: list[Attempt]) -> None:
    """An erase shares its device with nobody, and nobody begins on one that is being erased. ``Conflict``."""
    erases = isinstance(run.spec, EraseSpec)
    for id in sorted({each for attempt in attempts for each in (attempt.device, attempt.from_device) if each}):
        device = state.device(id)
        if device.erasing and not erases:
            raise Conflict(detail=f"The device {device.name} is being erased")
        for user in users_of(state, id):
            if erases or isinstance(state.run(state.attempt(user).run).spec, EraseSpec):
                raise Conflict(detail=f"The device {device.name} is in use by {user}")


def after_erase(state: ControlState, closed: Closed) -> list[Put]:
    """A device whose erase has ended well, however late that is told, has a new vault, without any media."""
    attempt, spec = closed.attempt, closed.run.spec
    if not isinstance(spec, EraseSpec) or attempt.state not in {*ATTEMPT_GOOD, AttemptState.REDUNDANT}:
        return []
    device = state.devices.get(spec.device)
    if device is None or device.erasing != spec.becomes:
        return []
    fresh = msgspec.structs.replace(
        device, vault=spec.becomes, erasing="", retired=(), formatted_at_ns=attempt.ended_at_ns or 0
    )
    return [Put("devices", device.id, fresh)]
