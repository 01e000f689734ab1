"""What happened in a run, line by line: a pure function of the control state and of what the journals tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from caso_mesh.admin import present
from caso_mesh.admin.attempts import AttemptRow, AttemptRows
from caso_mesh.admin.tables import AlertRow
from caso_mesh.admin.waits import WaitRow
from caso_mesh.control.state import ControlState
from caso_mesh.model import outcomes as o
from caso_mesh.model.jobs import Attempt, Counts, Failure, Part, Run, kind_of
from caso_mesh.model.policies import STARTING
from caso_mesh.model.settings import number
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD, AttemptState, JobKind, RunState
from caso_mesh.model.units import format_duration, format_instant, format_size
from caso_mesh.planning import presets
from caso_mesh.planning.window import is_scheduled

_SECOND = 1_000_000_000
#: Ranks. Those of attempts lie between, by their numbers.
_FIRST, _CAME, _WAITED, _ATTEMPT, _CLOSED, _LAST = 0, 1, 3, 10, 1_000_000, 1_000_001
#: An office that nothing hinders opens a run within so long of its due time.
_LATE_S = 60.0
_ENDED = {
    AttemptState.CANCELED: "was canceled",
    AttemptState.TIMED_OUT: "took too long and was ended",
    AttemptState.INTERRUPTED: "was interrupted, and is tried again",
    AttemptState.RECOVERED: "was recovered: {server} did not answer any more, and another try is made",
    AttemptState.REDUNDANT: "ended well after it had been recovered: its set is kept, and is redundant",
}
_NO_SET = {
    RunState.FAILED: "failed",
    RunState.CANCELED: "was canceled",
    RunState.TIMED_OUT: "was not finished in time",
}


class Told(Struct, frozen=True):
    """``rank`` orders what happened at the same instant: causes first."""

    at_ns: int
    rank: int
    line: o.StoryLine


def of_run(state: ControlState, run: Run, rows: AttemptRows, waits: Sequence[WaitRow], now_ns: int) -> list[Told]:
    """The story of a run: how it came about, what each part waited for, each attempt, and what came of it. ``waits`` are
    those of the run, oldest first."""
    attempts = state.attempts_of(run.id)
    told = _beginning(state, run)
    for part in run.parts:
        own = [each for each in attempts if each.source == part.source]
        told += _waits(state, run, part, own, [each for each in waits if each.source == part.source], now_ns)
        for attempt in own:
            told += _attempt(state, run, attempt, rows.of(attempt))
        told += _outcome(state, run, part, own, [each for each in waits if each.source == part.source])
    return told


def of_alerts(state: ControlState, alerts: Iterable[AlertRow]) -> list[Told]:
    """Alerts, and the ends of those whose condition is over."""
    told = []
    for row in alerts:
        server, rank = state.name_of(row.server), _LAST if row.object in state.runs else _FIRST
        told.append(_told(row.raised_at_ns, rank, "alert", f"{row.alert} {row.category}: {row.text}", server=server))
        if row.cleared_at_ns is not None:
            text = f"over: {row.category} of {row.object}"
            told.append(_told(row.cleared_at_ns, _FIRST, "alert-over", text, server=server))
    return told


def _told(at_ns: int, rank: int, what: str, text: str, run: Run | None = None, **fields: Any) -> Told:
    id_, name = (run.id, run.name) if run is not None else (None, None)
    return Told(at_ns, rank, o.StoryLine(format_instant(at_ns) or "", what, text, run=id_, name=name, **fields))


def _name(state: ControlState, run: str) -> str:
    known = state.runs.get(run)
    return f"{known.name} ({run})" if known is not None else run


def _beginning(state: ControlState, run: Run) -> list[Told]:
    job, terms, told = state.jobs.get(run.job), run.terms, []
    if terms.second_of is not None:
        text = f"takes what {_name(state, terms.second_of)} reads to a second device"
        return [_told(run.created_at_ns, _CAME, "fired", text, run)]
    if terms.fired_by is not None:
        rule = _rule(state, run, terms.fired_by)
        text = f"started by {_name(state, terms.fired_by)}" + (f', as its policy says: "{rule}"' if rule else "")
        told.append(_told(run.created_at_ns, _CAME, "fired", text, run))
    elif is_scheduled(run):
        schedule = job.schedule if job is not None else None
        by = f" by its schedule: {presets.shown(schedule)} ({schedule.zone})" if schedule is not None else ""
        told.append(_told(run.due_at_ns, _CAME, "due", f"due{by}", run))
        late_s = (run.created_at_ns - run.due_at_ns) / _SECOND
        if late_s > _LATE_S:
            text = f"opened {format_duration(late_s)} late: nobody was in office, or its clock was in doubt"
            told.append(_told(run.created_at_ns, _CAME, "due", text, run))
    else:
        told.append(_told(run.created_at_ns, _CAME, "asked", f"asked for by {run.created_by}", run))
    if terms.after is not None:
        told.append(_told(run.created_at_ns, _CAME + 1, "follows", f"runs after {_name(state, terms.after)}", run))
    return told


def _rule(state: ControlState, run: Run, fired_by: str) -> str | None:
    """The rule of the policy as it is now by which one run started another."""
    job, first = state.jobs.get(run.job), state.runs.get(fired_by)
    cause = state.jobs.get(first.job) if first is not None else None
    if job is None or cause is None or job.origin is None or cause.origin is None:
        return None
    policy, a, b = state.policies.get(job.origin.policy), cause.origin.template, job.origin.template
    rules = policy.rules if policy is not None else ()
    return next((str(each) for each in rules if each.kind in STARTING and (each.a, each.b) == (a, b)), None)


def _waits(
    state: ControlState, run: Run, part: Part, attempts: Sequence[Attempt], waits: Sequence[WaitRow], now_ns: int
) -> list[Told]:
    told, of = [], f" for {state.name_of(part.source)}" if len(run.parts) > 1 else ""
    for number_, wait in enumerate(waits):
        ends = [each.since_ns for each in waits[number_ + 1 : number_ + 2]]
        ends += [each.delegated_at_ns for each in attempts if each.delegated_at_ns >= wait.since_ns]
        ends += [] if run.closed_at_ns is None else [run.closed_at_ns]
        until_ns = min(ends, default=None)
        seconds = max(0.0, ((until_ns or now_ns) - wait.since_ns) / _SECOND)
        why = present.reason_text(wait.waiting)
        if until_ns is None:
            why += f"; {present.reason_ends(wait.waiting)}"
        verb = "waits until now," if until_ns is None else "waited"
        told.append(
            _told(
                wait.since_ns,
                _WAITED,
                "waited",
                f"{verb} {format_duration(seconds)}{of}: {why}",
                run,
                source=state.name_of(part.source),
                reason=wait.waiting.reason.value,
                seconds=seconds,
                until=format_instant(until_ns),
            )
        )
    return told


def _attempt(state: ControlState, run: Run, attempt: Attempt, row: AttemptRow | None) -> list[Told]:
    server, device = state.name_of(attempt.server), present.device_name(state, attempt.device)
    source = state.name_of(attempt.source)
    fields = {"attempt": attempt.id, "source": source, "server": server, "device": device}
    text = f"attempt {attempt.number} of {source} is handed to {server}, device {device}"
    rank = _ATTEMPT + 10 * attempt.number
    told = [_told(attempt.delegated_at_ns, rank, "delegated", text, run, **fields)]
    if row is not None and row.started_at_ns is not None:
        started = f"attempt {attempt.number} starts" + (f" as {row.type.value}" if row.type else "")
        told.append(_told(row.started_at_ns, rank + 1, "started", started, run, **fields))
    if attempt.state in ATTEMPT_ACTIVE or attempt.ended_at_ns is None:
        return told
    failure = attempt.failure or (row.failure if row is not None else None)
    told.append(
        _told(
            attempt.ended_at_ns,
            rank + 2,
            "ended",
            f"attempt {attempt.number} {_end(attempt, row, server, failure)}",
            run,
            **fields,
            state=attempt.state.value,
            seconds=row.seconds if row is not None else None,
            set=row.set if row is not None and attempt.state in {*ATTEMPT_GOOD, AttemptState.REDUNDANT} else None,
            error=present.failure_view(failure),
        )
    )
    return told


def _end(attempt: Attempt, row: AttemptRow | None, server: str, failure: Failure | None) -> str:
    if attempt.state in ATTEMPT_GOOD:
        counts = row.counts if row is not None else Counts()
        took = f" after {format_duration(row.seconds)}" if row is not None and row.seconds is not None else ""
        text = f"succeeded{took}: {counts.files} files, {format_size(counts.bytes_read)} read, "
        text += f"{format_size(counts.bytes_stored)} stored"
        return text + (f", {counts.exceptions} exceptions" if counts.exceptions else "")
    text = _ENDED.get(attempt.state, "failed").format(server=server)
    return f"{text}: {_error(failure)}" if failure is not None else text


def _error(failure: Failure) -> str:
    """What happened, and what to do."""
    shown = present.failure_view(failure) or {}
    return " ".join(f"{shown['message']} {shown['hint']}".split())


def _outcome(
    state: ControlState, run: Run, part: Part, attempts: Sequence[Attempt], waits: Sequence[WaitRow]
) -> list[Told]:
    source, backup = state.name_of(part.source), kind_of(run.spec) is JobKind.BACKUP
    good = next((each for each in attempts if each.state in ATTEMPT_GOOD and each.ended_at_ns is not None), None)
    if good is not None and good.ended_at_ns is not None:
        text = f"the set {part.set} of {source} is there" if part.set is not None else f"done for {source}"
        what = "set" if part.set is not None else "done"
        return [_told(good.ended_at_ns, _CLOSED, what, text, run, source=source, set=part.set, state=part.state.value)]
    if run.closed_at_ns is None or part.state is RunState.READY:
        return []
    if part.state is RunState.SUPERSEDED:
        if part.source != run.parts[0].source:
            return []  # told once: it is the run that gives way
        by = part.failure.fields.get("by") if part.failure is not None else None
        text = f"gives way to {_name(state, by) if isinstance(by, str) else 'another run'}, which takes its place"
        return [_told(run.closed_at_ns, _CAME + 1, "superseded", text, run, source=source, state=part.state.value)]
    why = _NO_SET.get(part.state, part.state.value)
    if part.state is RunState.MISSED:
        window_s = run.terms.start_window_s
        if window_s is None:
            window_s = number(state.settings_of_mesh(), "start-window-s")
        why = f"could not start within {format_duration(window_s)}"
        if waits:
            why += f"; it waited because: {present.reason_text(waits[-1].waiting)}"
    elif part.failure is not None:
        why += f": {_error(part.failure)}"
    nothing = f"no set of {source}" if backup else f"nothing done for {source}"
    error = present.failure_view(part.failure)
    return [
        _told(
            run.closed_at_ns,
            _CLOSED,
            "no-set",
            f"{nothing}: {run.name} {why}",
            run,
            source=source,
            state=part.state.value,
            error=error,
        )
    ]
