"""``caso-mesh device inventory`` and ``erase``: jobs that are about a device as a whole."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_WAITING, Common, Waiting, interactive
from caso_mesh.cli.scheduling import NOW, Scheduling
from caso_mesh.cli.waiting import submit
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.errors import UsageError
from caso_mesh.model.inventories import DeviceInventory
from caso_mesh.model.states import Priority


def add_to(devices: Group) -> None:
    """Adds the commands to those of devices."""
    devices.command(inventory)
    devices.command(erase)


def inventory(
    *names: Annotated[str, Parameter(name="NAME", help="Name of a device; may be repeated.")],
    all: Annotated[bool, Parameter(negative=(), help="Every device that takes work when it is due.")] = False,
    scheduling: Scheduling = NOW,
    priority: PriorityOption = "medium",
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Look what lies in devices, and compare it with what is believed to be there. Reads names and heads, no content.

    A set that should be there and is not raises an alert, is marked as missing, and is no backup to rely on any more; one
    that nobody knew of is catalogued.
    """
    if bool(names) is all:
        raise UsageError(detail="Name devices, or give --all")
    when = scheduling.words(waiting)
    request = DeviceInventory(tuple(names), Priority(priority), scheduling.name, when)
    return submit(common, waiting, "device.inventory", request)


def erase(
    name: Annotated[str, Parameter(name="NAME", help="Name of the device.")],
    /,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="Do not ask for its name once more.")] = False,
    even_last_good: Annotated[
        bool,
        Parameter(negative=(), help="Also if it holds the last good set of a list. Locked and protected ones stay."),
    ] = False,
    priority: PriorityOption = "medium",
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Erase all that lies in a device, for ever, and begin a new, empty vault in it.

    It is refused while a set on it is locked or protected, is the last good one of a list, or while anything is at work there.
    One that was cut off goes on when the command is given again.
    """
    if not yes:
        if not interactive():
            raise UsageError(detail=f"Say --yes to erase all that lies on the device {name}")
        if (
            input(f"All backup sets on the device {name} will be gone for ever. Type its name to go on: ").strip()
            != name
        ):
            raise UsageError(detail="Nothing was erased")
    request = DeviceErase(name, even_last_good, Priority(priority))
    return submit(common, waiting, "device.erase", request)
