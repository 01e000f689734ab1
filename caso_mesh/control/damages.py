"""Which sets were found damaged, as far as the runs that found it are remembered."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import DrillSpec, Failure, RestoreSpec, makes_sets, set_read
from caso_mesh.model.states import AttemptState, RunState
from caso_mesh.model.units import escape_path
from caso_mesh.planning.choosing import Damage, is_damage

_GOOD = frozenset({RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS})
_NAMED = 5


class Look(Struct, frozen=True):
    """What a look at a set found; ``None``: it was read through and is whole."""

    set: str
    at_ns: int
    damage: Damage | None


class Questions(Struct, frozen=True):
    """Attempts of which the tables know more: those that made a set (``made``) and found it damaged at once, and those
    that read one (``read``, by set) and had exceptions, of which some may be damaged files."""

    made: dict[str, Damage]
    read: dict[str, tuple[str, str, int]]


def looks(state: ControlState) -> list[Look]:
    """What verifies and drills that came to an end say of their sets."""
    found = []
    for run in state.readings():
        at_ns = run.closed_at_ns or 0
        for part in run.parts:
            read = set_read(run.spec, part.source)
            if read is None or isinstance(run.spec, RestoreSpec):
                continue
            if part.state is RunState.FAILED and part.failure is not None and is_damage(part.failure):
                found.append(Look(read, at_ns, Damage(run.id, at_ns, part.failure)))
            elif part.state in _GOOD and not isinstance(run.spec, DrillSpec):
                # that a sample of it was whole says nothing of the rest
                found.append(Look(read, at_ns, None))
    return found


def questions(state: ControlState) -> Questions:
    """What the tables are to be asked."""
    made = {
        attempt.id: Damage(attempt.run, attempt.ended_at_ns or 0, attempt.failure)
        for attempt in state.found_damage()
        if attempt.failure is not None and attempt.run in state.runs and makes_sets(state.runs[attempt.run].spec)
    }
    read = {
        attempt.id: (attempt.set or run.spec.set, run.id, attempt.ended_at_ns or 0)
        for run in state.readings()
        if isinstance(run.spec, DrillSpec | RestoreSpec) and run.state is RunState.SUCCEEDED_WITH_EXCEPTIONS
        for attempt in state.attempts_of(run.id)
        if attempt.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    }
    return Questions(made, read)


def answered(asked: Questions, sets: Mapping[str, str], paths: Mapping[str, list[bytes]]) -> list[Look]:
    """``sets``: by id, which attempt made it. ``paths``: by attempt, the damaged files that it named."""
    found = [Look(set_id, asked.made[attempt].at_ns, asked.made[attempt]) for set_id, attempt in sets.items()]
    for attempt, named in paths.items():
        set_id, run, at_ns = asked.read[attempt]
        shown = ", ".join("/" + escape_path(path) for path in sorted(named)[:_NAMED])
        detail = f"{len(named)} places: {shown}{' ...' if len(named) > _NAMED else ''}"
        failure = Failure("data-damaged", {"object": f"the set {set_id}", "detail": detail})
        found.append(Look(set_id, at_ns, Damage(run, at_ns, failure)))
    return found


def damages(found: list[Look]) -> dict[str, Damage]:
    """By set, the damage that was seen last and that no later look denies."""
    known: dict[str, Damage] = {}
    for look in sorted(found, key=lambda each: each.at_ns):
        if look.damage is not None:
            known[look.set] = look.damage
        else:
            known.pop(look.set, None)
    return known
