"""Commands about work: jobs, runs, attempts; answers to alerts; forgetting what is old."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from caso_mesh.control.anchors import without
from caso_mesh.control.erasing import after_erase, check_alone
from caso_mesh.control.faults import Fault, raise_first, refused
from caso_mesh.control.logons import check_logons, logons_of
from caso_mesh.control.made import check_by_hand, check_no_open_run
from caso_mesh.control.opening import begin
from caso_mesh.control.policies import check_second, check_target
from caso_mesh.control.seconds import begin_second, is_second, settle_seconds
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import AlertAnswer, Context, Effect, Put
from caso_mesh.model.commands import (
    AnswerAlert,
    CancelRun,
    CloseAttempt,
    CloseRun,
    CreateJob,
    Delegate,
    DeleteJob,
    EditJob,
    HoldRun,
    OpenRun,
    Prune,
    RunNow,
    SetJob,
    SetRunPriority,
)
from caso_mesh.model.device_jobs import EraseSpec, OfDevices
from caso_mesh.model.errors import AlreadyExists, Conflict, InvalidValue, NotFound, UsageError, WrongState
from caso_mesh.model.ids import attempt_id, check_name, run_id, run_now_id
from caso_mesh.model.jobs import (
    BackupSpec,
    DrillSpec,
    Failure,
    Job,
    JobSpec,
    RestoreSpec,
    Run,
    SyntheticSpec,
    placed_by,
)
from caso_mesh.model.settings import number
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState, JobState, RunState
from caso_mesh.planning import lifecycle

_CLOSABLE = (RunState.MISSED, RunState.CANCELED, RunState.TIMED_OUT, RunState.FAILED)


def create_job(state: ControlState, command: CreateJob, context: Context) -> Effect:
    """With ``run_now`` the run ``JOB@1`` is opened in the same step. ``AlreadyExists`` for a name in use."""
    job = command.job
    check_name(job.name, "job")
    if job.id in state.jobs or any(other.name == job.name for other in state.jobs.values()):
        raise AlreadyExists(kind="job", name=job.name)
    check_spec(state, job.spec)
    if isinstance(job.spec, EraseSpec) and not command.run_now:
        raise UsageError(detail="A device is erased now or not at all: it is no work for a schedule")
    job = msgspec.structs.replace(job, serial=0, last_due_at_ns=None)
    if not command.run_now:
        return Effect({"job": job.id, "run": None}, (Put("jobs", job.id, job),))
    job, run = _run_now(state, job, command.at_ns, context.who)
    return Effect({"job": job.id, "run": run.id}, (Put("jobs", job.id, job), Put("runs", run.id, run)))


def run_now(state: ControlState, command: RunNow, context: Context) -> Effect:
    job, run = _run_now(state, state.job(command.job), command.at_ns, context.who, command.sets)
    return Effect({"job": job.id, "run": run.id}, (Put("jobs", job.id, job), Put("runs", run.id, run)))


def set_job(state: ControlState, command: SetJob, context: Context) -> Effect:
    """A new priority holds for the job's waiting runs as well. Due times that passed on hold are not made up for.
    ``MadeByPolicy`` for the priority of a job that was made."""
    job = state.job(command.job)
    if command.priority is not None:
        check_by_hand(state, job)
    freed = job.state is JobState.ON_HOLD and command.state is JobState.ACTIVE
    released = job.state is JobState.ON_HOLD and command.state is JobState.ACTIVE and job.schedule is not None
    changed = msgspec.structs.replace(
        job,
        state=job.state if command.state is None else command.state,
        priority=job.priority if command.priority is None else command.priority,
        last_due_at_ns=max(job.last_due_at_ns or job.created_at_ns, context.at_ns) if released else job.last_due_at_ns,
    )
    if changed == job:
        return Effect()
    moved = [Put("jobs", job.id, changed)]
    for run in (run for run in state.runs_of(job.id) if lifecycle.is_open(run)):
        after = msgspec.structs.replace(lifecycle.release(run) if freed else run, priority=changed.priority)
        moved += [Put("runs", run.id, after)] if after != run else []
    return Effect(None, tuple(moved))


def edit_job(state: ControlState, command: EditJob, context: Context) -> Effect:
    """Due times that passed under another schedule are not made up for. ``MadeByPolicy``, ``NotFound``."""
    job = state.job(command.job)
    check_by_hand(state, job)
    check_spec(state, command.spec)
    moved = command.schedule is not None and command.schedule != job.schedule
    changed = msgspec.structs.replace(
        job,
        spec=command.spec,
        schedule=command.schedule,
        priority=command.priority,
        last_due_at_ns=max(job.last_due_at_ns or job.created_at_ns, context.at_ns) if moved else job.last_due_at_ns,
    )
    return Effect({"job": job.id}, () if changed == job else (Put("jobs", job.id, changed),))


def set_run_priority(state: ControlState, command: SetRunPriority, context: Context) -> Effect:
    """``WrongState`` for a run that has ended."""
    run = state.run(command.run)
    if not lifecycle.is_open(run):
        raise WrongState(kind="run", name=run.id, state=run.state)
    after = msgspec.structs.replace(run, priority=command.priority)
    return Effect(None, () if after == run else (Put("runs", run.id, after),))


def delete_job(state: ControlState, command: DeleteJob, context: Context) -> Effect:
    """``InUse`` while a run of it is open, ``MadeByPolicy``. Its history stays, and its backup sets do."""
    job = state.job(command.job)
    check_by_hand(state, job)
    check_no_open_run(state, job)
    return Effect(None, (Put("jobs", job.id, None),))


def open_run(state: ControlState, command: OpenRun, context: Context) -> Effect:
    """Opens the run of one due time once; again, or for an earlier due time than the last, it has no effect. One that is
    superseded is closed at once."""
    job = state.job(command.job)
    id = run_id(job.id, command.due_at_ns)
    if id in state.runs or (job.last_due_at_ns is not None and command.due_at_ns <= job.last_due_at_ns):
        return Effect({"run": id})
    run = begin(
        state,
        job,
        id,
        command.due_at_ns,
        command.at_ns,
        context.who,
        sets=command.sets,
        after=command.after,
        after_due_at_ns=command.after_due_at_ns,
    )
    if command.superseded_by is not None:
        run = lifecycle.supersede(run, command.at_ns, command.superseded_by)
    job = msgspec.structs.replace(job, last_due_at_ns=command.due_at_ns)
    return Effect({"run": id}, (Put("jobs", job.id, job), Put("runs", id, run)))


def delegate(state: ControlState, command: Delegate, context: Context) -> Effect:
    """``Conflict`` if the part has no place for this attempt (any more): it ran, was canceled, held or delegated."""
    attempt = command.attempt
    if state.attempts.get(attempt.id) == attempt:
        return Effect({"attempt": attempt.id})
    run = state.run(attempt.run)
    part = lifecycle.part_of(run, attempt.source)
    if part is None:
        raise NotFound(kind="source", name=state.name_of(attempt.source))
    state.server(attempt.server)
    state.server(attempt.reader or attempt.server)
    device = state.device(attempt.device)
    if device.path_on(attempt.server) is None:
        raise Conflict(detail=f"{state.name_of(attempt.server)} does not reach the device {device.name}")
    if run.held or part.state is not RunState.READY:
        raise WrongState(kind="run", name=run.id, state="held" if run.held else part.state)
    number = lifecycle.next_number(run)
    if attempt.number != number or attempt.id != attempt_id(run.id, number) or attempt.job != run.job:
        raise Conflict(detail=f"The next attempt of {run.id} has the number {number}, not {attempt.number}")
    if attempt.state is not AttemptState.QUEUED or attempt.cancel or attempt.ended_at_ns is not None:
        raise WrongState(kind="attempt", name=attempt.id, state=attempt.state)
    after = lifecycle.delegate(run, part.source)
    check_alone(state, run, [attempt] if command.second is None else [attempt, command.second])
    second = begin_second(state, run, attempt, command.second)
    return Effect({"attempt": attempt.id}, (Put("runs", run.id, after), Put("attempts", attempt.id, attempt), *second))


def close_attempt(state: ControlState, command: CloseAttempt, context: Context) -> Effect:
    """What became of the attempt and of its run, as ``{"attempt", "run", "changed"}``: both states after it."""
    attempt = state.attempt(command.attempt)
    if command.state in ATTEMPT_ACTIVE or command.state is AttemptState.REDUNDANT:
        raise InvalidValue(value=command.state, what="end of an attempt", expected="It has not ended")
    run, again = state.run(attempt.run), command.again
    if again is not None and again.held and is_second(run):
        again = None  # the backup is not held because the second set is not there
    closed = lifecycle.close_attempt(
        run,
        attempt,
        command.state,
        at_ns=command.at_ns,
        set=command.set,
        failure=command.failure,
        retry_not_before_ns=command.retry_not_before_ns,
        taken_back=command.taken_back,
        again=again,
        interrupted_retries=_interrupted_retries(state, attempt.server),
    )
    result = {"attempt": closed.attempt.state.value, "run": closed.run.state.value, "changed": closed.changed}
    if not closed.changed:
        return Effect(result)
    changes = [Put("attempts", attempt.id, closed.attempt), Put("runs", closed.run.id, closed.run)]
    part = lifecycle.part_of(closed.run, attempt.source)
    if part is not None and part.held_by:
        job = msgspec.structs.replace(state.job(attempt.job), state=JobState.ON_HOLD)
        changes.append(Put("jobs", job.id, job))
    if part is not None and not lifecycle.part_is_open(part):
        changes += _cancel_active(state, closed.run, except_for=attempt.id, source=attempt.source)
    changes += settle_seconds(state, closed, command.at_ns)
    changes += after_erase(state, closed)
    return Effect(result, tuple(changes))


def close_run(state: ControlState, command: CloseRun, context: Context) -> Effect:
    """A run that is closed already stays as it is."""
    run = state.run(command.run)
    if command.state not in _CLOSABLE:
        raise InvalidValue(
            value=command.state, what="end of a run", expected="Use missed, canceled, timed-out or failed"
        )
    if not lifecycle.is_open(run):
        return Effect({"run": run.state.value})
    if command.state is RunState.MISSED:
        after = lifecycle.miss(run, command.at_ns, failure=command.failure)
        return Effect({"run": after.state.value}, () if after == run else (Put("runs", run.id, after),))
    if command.state is RunState.TIMED_OUT:
        run = lifecycle.time_out(run)
    after = lifecycle.cancel(run, command.at_ns, state=command.state, failure=command.failure)
    if command.state is RunState.FAILED:
        return Effect({"run": after.state.value}, () if after == run else (Put("runs", run.id, after),))
    return Effect({"run": after.state.value}, (Put("runs", run.id, after), *_cancel_active(state, run)))


def cancel_run(state: ControlState, command: CancelRun, context: Context) -> Effect:
    """Repeated it has no effect. ``WrongState`` for a run that ended otherwise."""
    run = state.run(command.run)
    if not lifecycle.is_open(run):
        if run.state is not RunState.CANCELED:
            raise WrongState(kind="run", name=run.id, state=run.state)
        return Effect({"run": run.state.value})
    failure = Failure("canceled", {"who": context.who})
    after = lifecycle.cancel(run, command.at_ns, failure=failure)
    active = _cancel_active(state, run, by_force=command.by_force)
    return Effect({"run": after.state.value}, (Put("runs", run.id, after), *active))


def hold_run(state: ControlState, command: HoldRun, context: Context) -> Effect:
    """Nothing of a held run is delegated; what runs goes on."""
    run = state.run(command.run)
    if not lifecycle.is_open(run):
        raise WrongState(kind="run", name=run.id, state=run.state)
    after = lifecycle.hold(run, command.held)
    return Effect({"run": after.state.value}, () if after == run else (Put("runs", run.id, after),))


def answer_alert(state: ControlState, command: AnswerAlert, context: Context) -> Effect:
    """The first answer wins; a later one gets it back."""
    answer = state.answers.get(command.alert)
    if answer is not None:
        return Effect({"response": answer.response, "who": answer.who, "first": False})
    answer = AlertAnswer(command.alert, context.who, command.response, command.at_ns)
    return Effect(
        {"response": answer.response, "who": answer.who, "first": True}, (Put("answers", answer.alert, answer),)
    )


def prune(state: ControlState, command: Prune, context: Context) -> Effect:
    """What is open, active, or still valid stays, however old."""
    before = command.before_ns
    runs_before = max(before, command.runs_before_ns or before)
    changes: list[Put] = []
    for id in sorted(state.runs):
        run = state.runs[id]
        if run.closed_at_ns is None or run.closed_at_ns >= runs_before:
            continue
        attempts = state.attempts_of(id)
        if not any(attempt.state in ATTEMPT_ACTIVE for attempt in attempts):
            changes.append(Put("runs", id, None))
            changes += [Put("attempts", attempt.id, None) for attempt in attempts]
    # A used token goes with its expiry too: until then the same key must get the same answer.
    changes += [Put("tokens", key, None) for key in sorted(state.tokens) if state.tokens[key].expires_at_ns < before]
    changes += [Put("answers", key, None) for key in sorted(state.answers) if state.answers[key].at_ns < before]
    changes += [Put("requests", key, None) for key in sorted(state.requests) if state.requests[key].at_ns < before]
    changes += [Put("copies", copy.id, None) for copy in state.copy_list() if (copy.taken_at_ns or before) < before]
    anchors = without(state, lambda anchor: anchor.until_ns is not None and anchor.until_ns <= context.at_ns)
    changes += [Put("anchors", "", anchors)] if anchors != state.anchors else []
    return Effect({"pruned": len(changes)}, tuple(changes))


def check_spec(state: ControlState, spec: JobSpec) -> None:
    """That everything a job names is there. ``NotFound``, ``UsageError``, ``LogonNotPermitted``."""
    raise_first(spec_faults(state, spec))


def spec_faults(state: ControlState, spec: JobSpec) -> Iterator[Fault]:
    """All that ``check_spec`` would refuse; places are the keys of ``JobDoc``."""
    if isinstance(spec, RestoreSpec | DrillSpec):
        yield from refused((), state.server, spec.server)
    if isinstance(spec, OfDevices):
        for device in spec.devices:
            yield from refused((), state.device, device)
    if isinstance(spec, SyntheticSpec):
        yield from refused(("media_set",), state.media_set_named, spec.media_set)
    for wanted in logons_of(spec):
        yield from refused(("logon",), check_logons, state, [wanted])
    placed = placed_by(spec)
    if placed is None:
        return
    if isinstance(placed, BackupSpec):
        if not placed.sources or not all(source.roots for source in placed.sources):
            yield Fault(UsageError(detail="A backup needs at least one SERVER:PATH"), ("paths",))
        if len({source.server for source in placed.sources}) < len(placed.sources):
            detail = "A backup names each of its servers once, with all its paths"
            yield Fault(UsageError(detail=detail), ("paths",))
        for source in placed.sources:
            yield from refused(("paths",), state.server, source.server)
        if placed.second is not None:
            yield from refused(("second_to",), check_second, state, placed.target, placed.second)
    yield from refused(("to",), check_target, state, placed.target)
    yield from refused(("media_set",), state.media_set_named, placed.media_set)


def _run_now(
    state: ControlState, job: Job, at_ns: int, who: str, sets: dict[str, str] | None = None
) -> tuple[Job, Run]:
    if job.state is JobState.ON_HOLD:
        raise WrongState(kind="job", name=job.name, state=job.state)
    job = msgspec.structs.replace(job, serial=job.serial + 1)
    return job, begin(state, job, run_now_id(job.id, job.serial), at_ns, at_ns, who, sets=sets, by_hand=True)


def _cancel_active(
    state: ControlState, run: Run, *, except_for: str = "", source: str | None = None, by_force: bool = False
) -> list[Put]:
    return [
        Put(
            "attempts", attempt.id, msgspec.structs.replace(attempt, cancel=True, by_force=attempt.by_force or by_force)
        )
        for attempt in state.attempts_of(run.id)
        if attempt.state in ATTEMPT_ACTIVE
        and attempt.id != except_for
        and (not attempt.cancel or (by_force and not attempt.by_force))
        and source in {None, attempt.source}
    ]


def _interrupted_retries(state: ControlState, server: str) -> int:
    if server in state.servers:
        return int(state.settings_of(server)["interrupted-retries"])
    return int(number({}, "interrupted-retries"))
