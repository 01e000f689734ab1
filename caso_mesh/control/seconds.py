"""The second device of a backup: what its source is read for once.

Taking it there is a run of its own, opened with the attempt that reads, whose attempt is *beside* that one. It has its own
end: if it fails, the first set is good all the same. It is a duplicate by its nature: when it is tried again, the first set
is copied, which is known by then.
"""

from __future__ import annotations

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.errors import Conflict
from caso_mesh.model.ids import attempt_id, run_of_attempt, second_run_id
from caso_mesh.model.jobs import Attempt, BackupSpec, DuplicateSpec, Failure, Part, Run, Terms
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD
from caso_mesh.planning import lifecycle


def begin_second(state: ControlState, run: Run, first: Attempt, second: Attempt | None) -> list[Put]:
    """The run of a second device, delegated at once. ``Conflict`` if it does not fit the first attempt, or one is wanted
    and not there."""
    spec = run.spec
    target = spec.second if isinstance(spec, BackupSpec) else None
    if second is None:
        if target is not None:
            raise Conflict(detail=f"{run.id} goes to two devices; the second one is not said")
        return []
    if not isinstance(spec, BackupSpec) or target is None:
        raise Conflict(detail=f"{run.id} goes to one device")
    device = state.device(second.device)
    id = second_run_id(first.id)
    fits = (
        (first.second, second.beside) == (second.id, first.id)
        and (second.id, second.run, second.number) == (attempt_id(id, 1), id, 1)
        and (second.job, second.source) == (first.job, first.source)
        and second.device != first.device
        and device.path_on(second.server) is not None
        and id not in state.runs
    )
    if not fits:
        raise Conflict(detail=f"{second.id} does not fit {first.id}")
    state.server(second.server)
    made = Run(
        id=id,
        job=run.job,
        name=f"{run.name}.second",
        spec=DuplicateSpec((first.source,), target, media_set=spec.media_set, verify=spec.verify, within=spec.within),
        priority=run.priority,
        due_at_ns=run.due_at_ns,
        created_at_ns=first.delegated_at_ns,
        created_by=run.created_by,
        parts=(Part(first.source),),
        agreed=Terms(after=run.id, after_due_at_ns=run.due_at_ns, second_of=run.id),
    )
    return [Put("runs", id, lifecycle.delegate(made, first.source)), Put("attempts", second.id, second)]


def settle_seconds(state: ControlState, closed: lifecycle.Closed, at_ns: int) -> list[Put]:
    """What the end of a first attempt means for the second device: the set that a later try copies, or, if there is none,
    the end of it all."""
    first = closed.attempt
    if not first.second:
        return []
    run = state.runs.get(run_of_attempt(first.second))
    if run is None or not lifecycle.is_open(run) or not isinstance(run.spec, DuplicateSpec):
        return []
    part = lifecycle.part_of(closed.run, first.source)
    if first.state in ATTEMPT_GOOD and part is not None and part.set is not None:
        named = msgspec.structs.replace(run, spec=msgspec.structs.replace(run.spec, sets=(part.set,)))
        return [Put("runs", run.id, named)]
    failure = closed.attempt.failure or Failure("canceled", {"who": f"the end of {first.id}"})
    changes = [Put("runs", run.id, lifecycle.cancel(run, at_ns, failure=failure))]
    changes += [
        Put("attempts", each.id, msgspec.structs.replace(each, cancel=True))
        for each in state.attempts_of(run.id)
        if each.state in ATTEMPT_ACTIVE and not each.cancel
    ]
    return changes


def seconds_of(state: ControlState, run: Run) -> list[Run]:
    """The runs that take what a run reads to second devices."""
    found = (state.runs.get(run_of_attempt(each.second)) for each in state.attempts_of(run.id) if each.second)
    return [each for each in found if each is not None]


def is_second(run: Run) -> bool:
    return run.agreed is not None and run.agreed.second_of is not None
