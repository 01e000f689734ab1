"""``caso-mesh device inventory`` and ``erase``: jobs that are about a device as a whole."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli.backup import PriorityOption
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_WAITING, Common, Waiting, interactive
from caso_mesh.cli.waiting import submit
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.errors import UsageError
from caso_mesh.model.inventories import DeviceInventory, ScheduleWords
from caso_mesh.model.states import Priority
from caso_mesh.model.units import parse_duration_s


def add_to(devices: Group) -> None:
    """Adds the commands to those of devices."""
    devices.command(inventory)
    devices.command(erase)


def inventory(
    *names: Annotated[str, Parameter(name="NAME", help="Name of a device; may be repeated.")],
    all: Annotated[bool, Parameter(negative=(), help="Every device that takes work when it is due.")] = False,
    schedule: Annotated[
        str | None, Parameter(help='Make it a job that recurs: a cron line, or as in "sun 06:00", "daily 02:00".')
    ] = None,
    zone: Annotated[
        str | None, Parameter(help="Time zone of the schedule, as in Europe/Berlin (default: UTC).")
    ] = None,
    exclude_day: Annotated[
        tuple[str, ...],
        Parameter(
            name="--exclude-day",
            negative=(),
            help="A day without a run, as in 2025-12-24 or 2025-12-24..2026-01-01; may be repeated.",
        ),
    ] = (),
    start_window: Annotated[
        str | None, Parameter(help="A run has to start within this time of its due time, as in 2h, or is missed.")
    ] = None,
    cancel_after: Annotated[
        str | None, Parameter(help="A run ends if it is not done so long after it began, as in 8h.")
    ] = None,
    catch_up: Annotated[
        bool, Parameter(negative=(), help="What could not start in its window runs when it can.")
    ] = False,
    name: Annotated[str | None, Parameter(help="Name of the job.")] = None,
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
    belonging = {
        "--zone": zone,
        "--exclude-day": exclude_day,
        "--start-window": start_window,
        "--cancel-after": cancel_after,
        "--catch-up": catch_up,
    }
    lost = next((option for option, value in belonging.items() if value not in (None, (), False)), None)
    if lost is not None and schedule is None:
        raise UsageError(detail=f"{lost} belongs to --schedule")
    if schedule is not None and waiting.wait:
        raise UsageError(detail="A job with --schedule cannot be waited for; start it with: caso-mesh job run")
    when = None
    if schedule is not None:
        when = ScheduleWords(
            schedule=schedule,
            zone=zone,
            exclude_days=exclude_day,
            start_window_s=parse_duration_s(start_window) if start_window is not None else None,
            cancel_after_s=parse_duration_s(cancel_after) if cancel_after is not None else None,
            catch_up=catch_up,
        )
    request = DeviceInventory(tuple(names), Priority(priority), name, when)
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
