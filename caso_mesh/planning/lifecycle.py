"""What becomes of a run and its parts when attempts are delegated, end, are recovered or canceled.

A part is ``ready`` (waits), ``delegated`` (has an active attempt) or has ended. The first committed success closes a
part, the last part closes the run, once, with the worst state of its parts. Pure: records in, records out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from caso_mesh.model.device_jobs import CatalogSpec, EraseSpec, InventorySpec
from caso_mesh.model.errors import Misuse
from caso_mesh.model.ids import attempt_id
from caso_mesh.model.jobs import (
    Attempt,
    BackupSpec,
    DrillSpec,
    DuplicateSpec,
    Failure,
    Job,
    JobSpec,
    Part,
    RestoreSpec,
    Run,
    SyntheticSpec,
    TestRunSpec,
    VerifySetsSpec,
    VerifySpec,
)
from caso_mesh.model.rules import Again
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD, RUN_ENDS, AttemptState, RunState
from caso_mesh.model.units import format_duration

#: A part that is recovered more often than this is held, until a server returns.
FREE_RECOVERIES = 2
_OPEN = (RunState.READY, RunState.DELEGATED)
_RUN_OPEN = (RunState.READY, RunState.DELEGATED, RunState.ON_HOLD)


class Closed(Struct, frozen=True):
    """What closing an attempt made of it and of its run. ``changed``: whether it had any effect."""

    run: Run
    attempt: Attempt
    changed: bool


def sources_of(spec: JobSpec) -> tuple[str, ...]:
    """The source of each part that a run of ``spec`` has: a node id, or of work about devices that of the device."""
    match spec:
        case (BackupSpec() as backup) | TestRunSpec(backup=backup):
            return tuple(source.server for source in backup.sources)
        case RestoreSpec() | DrillSpec():
            return (spec.server,)
        case VerifySpec():
            return (spec.source,)
        case VerifySetsSpec() | DuplicateSpec() | SyntheticSpec():
            return spec.sources
        case InventorySpec() | CatalogSpec() | EraseSpec():
            return spec.devices


def begin_run(job: Job, *, id: str, due_at_ns: int, at_ns: int, who: str) -> Run:
    """A new run of ``job``, with one part per source server, all ready."""
    return Run(
        id=id,
        job=job.id,
        name=job.name,
        spec=job.spec,
        priority=job.priority,
        due_at_ns=due_at_ns,
        created_at_ns=at_ns,
        created_by=who,
        parts=tuple(Part(source) for source in sources_of(job.spec)),
    )


def is_open(run: Run) -> bool:
    return run.closed_at_ns is None


def part_is_open(part: Part) -> bool:
    return part.state in _OPEN


def part_of(run: Run, source: str) -> Part | None:
    return next((part for part in run.parts if part.source == source), None)


def next_number(run: Run) -> int:
    """The number of the run's next attempt. Attempts of all parts are counted together, from 1."""
    return sum(part.attempts for part in run.parts) + 1


def delegate(run: Run, source: str) -> Run:
    """The run after an attempt at the part of ``source`` was handed to a media server."""
    part = _part(run, source)
    if part.state is not RunState.READY:
        raise Misuse(f"the part {source} of {run.id} is {part.state}, not ready")
    return _with(
        run,
        msgspec.structs.replace(part, state=RunState.DELEGATED, attempts=part.attempts + 1, not_before_ns=0),
        at_ns=run.created_at_ns,
    )


def close_attempt(
    run: Run,
    attempt: Attempt,
    state: AttemptState,
    *,
    at_ns: int,
    set: str | None = None,
    failure: Failure | None = None,
    retry_not_before_ns: int = 0,
    taken_back: bool = False,
    again: Again | None = None,
    interrupted_retries: int = 5,
) -> Closed:
    """An attempt ended in ``state``, or is given up (``recovered``).

    ``interrupted`` makes the part ready again at once, more than ``interrupted_retries`` times fail it. ``recovered``
    makes it ready again at once the first time, from ``retry_not_before_ns`` the second time, and then strands the run
    until a server returns; with ``taken_back`` it is not counted. ``failed`` ends it, unless a rule wants it ``again``. What was asked to cancel is not tried again. A late
    success of a closed attempt closes its part if that is open, and is ``redundant`` if it is not.
    """
    if state in ATTEMPT_ACTIVE or state is AttemptState.REDUNDANT:
        raise Misuse(f"{state} is not an end that an attempt can have by itself")
    part = _part(run, attempt.source)
    if attempt.state not in ATTEMPT_ACTIVE:
        return _late(run, part, attempt, state, at_ns=at_ns, set=set)
    if state in ATTEMPT_GOOD and not part_is_open(part):
        state = AttemptState.REDUNDANT
    ended = msgspec.structs.replace(attempt, state=state, ended_at_ns=at_ns, failure=failure)
    canceled, why = RunState.CANCELED, failure
    if run.terms.timed_out:
        canceled, why = RunState.TIMED_OUT, too_long(run)
    if not part_is_open(part):
        return Closed(run, ended, changed=True)
    match state:
        case AttemptState.SUCCEEDED | AttemptState.SUCCEEDED_WITH_EXCEPTIONS:
            part = _end(part, RunState(state.value), set=set, failure=failure)
        case AttemptState.INTERRUPTED | AttemptState.RECOVERED if attempt.cancel:
            part = _end(part, canceled, failure=why)
        case AttemptState.CANCELED:
            part = _end(part, canceled, failure=why)
        case AttemptState.INTERRUPTED:
            part = msgspec.structs.replace(part, interrupted=part.interrupted + 1, state=RunState.READY)
            if part.interrupted > interrupted_retries:
                part = _end(part, RunState.FAILED, failure=failure or _interrupted_too_often(attempt, part))
        case AttemptState.RECOVERED if taken_back:
            part = msgspec.structs.replace(part, state=RunState.READY)
        case AttemptState.RECOVERED:
            count = part.recovered + 1
            part = msgspec.structs.replace(
                part,
                recovered=count,
                state=RunState.READY,
                not_before_ns=retry_not_before_ns if count == FREE_RECOVERIES else 0,
            )
            if count > FREE_RECOVERIES and not run.held:
                run = msgspec.structs.replace(run, held=True, stranded=True)
        case AttemptState.FAILED if again is not None and not attempt.cancel:
            part = msgspec.structs.replace(
                part,
                state=RunState.READY,
                failure=failure,
                retried=part.retried if again.held else part.retried + 1,
                not_before_ns=again.not_before_ns,
                any_time=again.any_time,
                held_by=again.rule if again.held else "",
            )
        case _:
            part = _end(part, RunState(state.value), failure=failure)
    return Closed(_with(run, part, at_ns=at_ns), ended, changed=True)


def release(run: Run) -> Run:
    """The run after the job was released that a rule had put on hold: its retries count anew."""
    parts = (msgspec.structs.replace(part, held_by="", retried=0) if part.held_by else part for part in run.parts)
    return msgspec.structs.replace(run, parts=tuple(parts))


def too_long(run: Run) -> Failure:
    """Why a run is ended that has timed out."""
    return Failure("run-too-long", {"limit": format_duration(run.terms.cancel_after_s or 0.0)})


def time_out(run: Run) -> Run:
    """The run after it took too long: what is active is asked to end and then ends as timed out, not as canceled."""
    return msgspec.structs.replace(run, agreed=msgspec.structs.replace(run.terms, timed_out=True))


def cancel(run: Run, at_ns: int, *, state: RunState = RunState.CANCELED, failure: Failure | None = None) -> Run:
    """The run after its end was asked for: what waits ends in ``state``; the caller asks active attempts to end."""
    for part in run.parts:
        if part.state is RunState.READY:
            run = _with(run, _end(part, state, failure=failure), at_ns=at_ns)
    return run


def miss(run: Run, at_ns: int, *, failure: Failure | None = None) -> Run:
    """The run after its start window: parts that never started are missed; others go on."""
    for part in run.parts:
        if part.state is RunState.READY and part.attempts == 0:
            run = _with(run, _end(part, RunState.MISSED, failure=failure), at_ns=at_ns)
    return run


def supersede(run: Run, at_ns: int, by: str) -> Run:
    """The run after it turned out, before anything of it began, that the run ``by`` takes its place."""
    failure = Failure("superseded", {"by": by})
    for part in run.parts:
        run = _with(run, _end(part, RunState.SUPERSEDED, failure=failure), at_ns=at_ns)
    return run


def fail_part(run: Run, source: str, at_ns: int, failure: Failure) -> Run:
    """The run after a waiting part became impossible, as when its source left the mesh."""
    part = part_of(run, source)
    if part is None or part.state is not RunState.READY:
        return run
    return _with(run, _end(part, RunState.FAILED, failure=failure), at_ns=at_ns)


def hold(run: Run, held: bool) -> Run:
    """The run held or released by a person, or (released) because a server has returned."""
    run = msgspec.structs.replace(run, held=held, stranded=False)
    return _settled(run, at_ns=run.created_at_ns)


def validate_run(run: Run, attempts: Iterable[Attempt]) -> None:
    """Invariants of a run with all its attempts. Raises ``Misuse``; called after every command in tests."""
    attempts = sorted(attempts, key=lambda attempt: attempt.number)
    _require([attempt.number for attempt in attempts] == list(range(1, next_number(run))), run, "attempts are counted")
    _require(len({part.source for part in run.parts}) == len(run.parts), run, "one part per source")
    for attempt in attempts:
        _require(attempt.id == attempt_id(run.id, attempt.number), run, "attempts are named after their run")
        _require(attempt.run == run.id and attempt.job == run.job, run, "attempts belong to their run")
        active = attempt.state in ATTEMPT_ACTIVE
        _require(active == (attempt.ended_at_ns is None), run, "an ended attempt has an end")
    for part in run.parts:
        mine = [attempt for attempt in attempts if attempt.source == part.source]
        active_now = [attempt for attempt in mine if attempt.state in ATTEMPT_ACTIVE]
        good = [attempt for attempt in mine if attempt.state in ATTEMPT_GOOD]
        _require(part.attempts == len(mine), run, "a part counts its attempts")
        _require(part.state in _OPEN or part.state in RUN_ENDS, run, "a part is ready, delegated or ended")
        if part_is_open(part):
            _require(len(active_now) == (1 if part.state is RunState.DELEGATED else 0), run, "one attempt at a time")
            _require(not good, run, "a success closes its part")
        else:
            _require(all(attempt.cancel for attempt in active_now), run, "what runs on after the end is canceled")
        _require(len(good) <= 1, run, "one success counts")
    open_parts = [part for part in run.parts if part_is_open(part)]
    _require((run.closed_at_ns is None) == bool(open_parts), run, "the last part closes the run")
    if open_parts:
        _require(run.state in _RUN_OPEN, run, "an open run is ready, delegated or on hold")
    else:
        _require(run.state is _worst(run.parts), run, "a run ends in the worst state of its parts")
    _require(run.held or not run.stranded, run, "a stranded run is held")


def _late(run: Run, part: Part, attempt: Attempt, state: AttemptState, *, at_ns: int, set: str | None) -> Closed:
    given_up = attempt.state not in ATTEMPT_GOOD and attempt.state is not AttemptState.REDUNDANT
    if state not in ATTEMPT_GOOD or not given_up:
        return Closed(run, attempt, changed=False)
    if not part_is_open(part):
        return Closed(run, msgspec.structs.replace(attempt, state=AttemptState.REDUNDANT), changed=True)
    late = msgspec.structs.replace(attempt, state=state, failure=None, ended_at_ns=at_ns)
    return Closed(_with(run, _end(part, RunState(state.value), set=set), at_ns=at_ns), late, changed=True)


def _interrupted_too_often(attempt: Attempt, part: Part) -> Failure:
    detail = f"it was interrupted {part.interrupted} times"
    return Failure("attempt-failed", {"attempt": attempt.id, "detail": detail})


def _part(run: Run, source: str) -> Part:
    part = part_of(run, source)
    if part is None:
        raise Misuse(f"{run.id} has no part {source}")
    return part


def _end(part: Part, state: RunState, *, set: str | None = None, failure: Failure | None = None) -> Part:
    return msgspec.structs.replace(part, state=state, set=set, failure=failure, not_before_ns=0, held_by="")


def _with(run: Run, part: Part, *, at_ns: int) -> Run:
    parts = tuple(part if old.source == part.source else old for old in run.parts)
    return _settled(msgspec.structs.replace(run, parts=parts), at_ns=at_ns)


def _settled(run: Run, *, at_ns: int) -> Run:
    if not any(part_is_open(part) for part in run.parts):
        return msgspec.structs.replace(
            run, state=_worst(run.parts), held=False, stranded=False, closed_at_ns=run.closed_at_ns or at_ns
        )
    if any(part.state is RunState.DELEGATED for part in run.parts):
        state = RunState.DELEGATED
    else:
        state = RunState.ON_HOLD if run.held else RunState.READY
    return msgspec.structs.replace(run, state=state)


def _worst(parts: tuple[Part, ...]) -> RunState:
    return max((part.state for part in parts), key=RUN_ENDS.index)


def _require(holds: bool, run: Run, rule: str) -> None:
    if not holds:
        raise Misuse(f"run {run.id}: {rule}, but {run.parts} is {run.state}")
