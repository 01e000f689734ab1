"""What must hold at rest of sets, devices and whatever else operators were told was done."""

from __future__ import annotations

import asyncio

from mesh.simulation.faults import Storm
from mesh.simulation.operations import Operators
from mesh.simulation.vaults import Lying, Vaults
from mesh.simulation.watching import Violation
from mesh.simulation.world import World

from caso_mesh.admin import missing_sets
from caso_mesh.admin.tables import Tables
from caso_mesh.control.state import ControlState
from caso_mesh.model.errors import CasoError
from caso_mesh.model.jobs import RestoreSpec
from caso_mesh.model.states import ATTEMPT_GOOD, RunState
from caso_mesh.seat import Voter

_UNFINISHED, _INSIDE = "erase-unfinished", "internal-error"
#: An administrator looks for unfinished erases every five seconds, and the other voters hear of it.
_LOOKS_WITHIN_S = 20.0


async def lying(vaults: Vaults) -> dict[str, Lying]:
    """By device (name). Raises ``Violation`` where a device is not what it is believed to be."""
    try:
        return await vaults.lying()
    except CasoError as error:
        raise Violation("a device is what it is believed to be", str(error)) from error


async def check_sets(world: World, storm: Storm, vaults: Vaults, state: ControlState, seated: dict[str, Voter]) -> None:
    """What lies in a vault is known, and what is known lies there; what has gone, went for a reason."""
    found = await lying(vaults)
    there = {each for device in found.values() for each in device.alive}
    for set_id, backup in world.hub.published.items():
        if set_id not in there and vaults.is_there(backup):
            raise Violation("nothing goes by itself", f"{set_id} of {backup.attempt} lies in no vault")
        if set_id in there and (backup.vault in vaults.erased or set_id in vaults.deleted):
            raise Violation("what is gone stays gone", f"{set_id} of {backup.attempt} lies in its vault again")
    for name, voter in seated.items():
        known = set(await voter.tables.set_ids())
        for set_id in there - known:
            backup = world.hub.published[set_id]
            # what was lost for a while may have been looked for in vain by who was to tell of it
            if world.ids[backup.server] not in storm.put_back and set_id not in vaults.lost:
                raise Violation("no set is forgotten", f"{set_id} of {backup.attempt} is unknown at {name}")
        for set_id in sorted(known - there):
            backup_ = world.hub.published.get(set_id)
            if backup_ is None:
                raise Violation("every set is there", f"{set_id} lies in no vault, and never did")
            if backup_.vault in vaults.erased or (
                set_id in vaults.deleted and not _untold(world, storm, found, set_id)
            ):
                raise Violation("what is gone counts nowhere", f"{set_id} of {backup_.attempt} is known at {name}")
    good = {attempt.id for attempt in state.attempts.values() if attempt.state in ATTEMPT_GOOD}
    for run in state.runs.values():
        for part in run.parts:
            if part.set is not None:
                counted = world.hub.published.get(part.set)
                if counted is None or counted.attempt not in good:
                    raise Violation("every set is there", f"{run.id} counts {part.set}")


def _untold(world: World, storm: Storm, found: dict[str, Lying], set_id: str) -> bool:
    """Whether the disk of the server that deleted a set was put back, with what it had to tell of that."""
    holds = [device.gone[set_id] for device in found.values() if set_id in device.gone]
    return any(world.ids[hold.server] in storm.put_back for hold in holds)


async def check_operations(world: World, state: ControlState, seated: dict[str, Voter], operators: Operators) -> None:
    """Raises ``Violation``."""
    for id_ in sorted(operators.canceled):
        # of several parts one may have failed before, which is worse
        if state.runs[id_].state in {RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS}:
            raise Violation("what is canceled stays so", f"{id_} is {state.runs[id_].state}")
    _check_restores(world, state)
    if operators.plans is not None:
        await operators.plans.check(state)
    inside = [each for each in state.attempts.values() if each.failure is not None and each.failure.code == _INSIDE]
    if inside:
        raise Violation("nothing fails inside", f"{inside[0].id}: {inside[0].failure}")
    for medium, before in operators.retired.items():
        for backup in world.hub.published.values():
            if backup.medium == medium and backup.attempt not in before:
                raise Violation("a retired medium takes nothing", f"{backup.attempt} wrote on {medium}")
    names = {each.name for each in state.media_set_list()}
    if names & operators.deleted_media_sets:
        raise Violation("nothing acknowledged is lost", f"{names & operators.deleted_media_sets} are there again")
    for name, voter in seated.items():
        for set_id in await voter.tables.set_ids():
            if world.hub.published[set_id].media_set not in names:
                raise Violation("what is used is not deleted", f"the media set of {set_id} is unknown ({name})")
    await check_unfinished(world, state, seated)


def _check_restores(world: World, state: ControlState) -> None:
    """A restore that succeeded came to its end where it was to."""
    for run in state.runs.values():
        if not isinstance(run.spec, RestoreSpec):
            continue
        for attempt in state.attempts_of(run.id):
            done = world.hub.restored.get(attempt.id)
            if attempt.state in ATTEMPT_GOOD and done != (run.spec.set, run.spec.server):
                raise Violation("what succeeded was done", f"{attempt.id} restored {done}, not {run.spec.set}")


async def check_unfinished(world: World, state: ControlState, seated: dict[str, Voter]) -> None:
    """An erase that nobody goes on with is an alert, and only such a one is, as soon as the administrator has looked."""
    left = {device.name for device in state.device_list() if device.erasing}
    tables = next(iter(seated.values())).tables
    end_s = world.loop.time() + _LOOKS_WITHIN_S
    while (standing := await _unfinished(tables)) != left:
        if world.loop.time() >= end_s:
            raise Violation(
                "an unfinished erase is an alert", f"there are {sorted(left)}, and alerts for {sorted(standing)}"
            )
        await asyncio.sleep(1.0)


async def _unfinished(tables: Tables) -> set[str]:
    rows = await tables._rows(f"SELECT object FROM alert WHERE category = '{_UNFINISHED}' AND cleared_at_ns IS NULL")
    return {str(row[0]) for row in rows}


async def check_missing(world: World, vaults: Vaults, seated: dict[str, Voter]) -> None:
    """After an inventory of all devices: what is marked as missing is what is known and not there."""
    there = {each for device in (await lying(vaults)).values() for each in device.alive}
    for name, voter in seated.items():
        known = set(await voter.tables.set_ids())
        marked = {each for sets in (await voter.tables.ask(missing_sets.read)).values() for each in sets}
        if marked != known - there:
            differ = sorted(marked ^ (known - there))[:3]
            raise Violation("what is called missing is", f"{name} is wrong about {differ}: {len(marked)} are marked")
        if not there <= known:
            raise Violation("what an inventory finds is known", f"{sorted(there - known)[:3]} at {name}")
