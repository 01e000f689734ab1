"""What runs that begin or end start by the rules of their policy. It belongs to the command that begins or ends them: it
happens with that one, once, on every voter, whoever is in office."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from caso_mesh.control.opening import after_the_end, begin
from caso_mesh.control.seconds import is_second
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.ids import fired_run_id
from caso_mesh.model.jobs import Job, Run, VerifySetsSpec
from caso_mesh.model.policies import READING, Policy
from caso_mesh.model.states import JobState, RunState
from caso_mesh.planning import rules

_COMPLETED = frozenset({RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS})


def fired(state: ControlState, changes: Iterable[Put], at_ns: int) -> list[Put]:
    """The changes that follow from ``changes`` of runs: jobs that have completed once, runs that rules start, and what
    runs are about that followed those."""
    found: list[Put] = []
    pending = [(state.runs.get(change.key), change.record) for change in changes if change.table == "runs"]
    while pending:
        old, run = pending.pop(0)
        job = state.jobs.get(run.job) if run is not None else None
        if run is None or job is None or job.origin is None or is_second(run):
            continue  # rules are about what a template does, not about where else its sets are taken
        ended = run.closed_at_ns is not None and (old is None or old.closed_at_ns is None)
        if ended and run.state in _COMPLETED and job.completed_at_ns is None:
            changed = next((put.record for put in changes if put.table == "jobs" and put.key == job.id), job)
            found.append(Put("jobs", job.id, msgspec.structs.replace(changed, completed_at_ns=run.closed_at_ns)))
        policy = state.policies.get(job.origin.policy)
        if policy is None:
            continue
        for follower in _followers(state, policy, run) if ended else ():
            told = after_the_end(state, follower, sets_of(run), at_ns)
            if told != follower:
                found.append(Put("runs", told.id, told))
                pending.append((follower, told))
        for next_job in _started(state, policy, job, old, run, ended=ended):
            id = fired_run_id(next_job.id, job.origin.template, run.id)
            if id in state.runs or next_job.state is JobState.ON_HOLD or any(put.key == id for put in found):
                continue
            opened = begin(state, next_job, id, at_ns, at_ns, "admin", sets=sets_of(run), fired_by=run.id)
            found.append(Put("runs", id, opened))
            pending.append((None, opened))
    return found


def _followers(state: ControlState, policy: Policy, run: Run) -> list[Run]:
    """The open runs about sets that wait for the end of one, by the rules of its policy."""
    if all(template.type in READING for template in policy.templates):
        return []
    return [
        each
        for each in state.open_runs()
        if each.agreed is not None and each.agreed.after == run.id and not is_second(each)
    ]


def sets_of(run: Run) -> dict[str, str]:
    """The sets that a run made or was about, by source."""
    if isinstance(run.spec, VerifySetsSpec):  # others have made sets of their own
        return {source: run.spec.set_of(source) for source in run.spec.sources if run.spec.set_of(source)}
    return {part.source: part.set for part in run.parts if part.set is not None}


def _started(state: ControlState, policy: Policy, job: Job, old: Run | None, run: Run, *, ended: bool) -> list[Job]:
    """The jobs that a run starts now."""
    assert job.origin is not None
    names: list[str] = []
    begun = any(part.attempts for part in run.parts) and not any(part.attempts for part in (old.parts if old else ()))
    if begun:
        names += rules.started_by_start(policy, job.origin.template)
    if ended:
        names += rules.started_by_end(policy, job.origin.template, run.state)
    origin = job.origin
    return [
        made
        for name in names
        for made in state.jobs_made_of(policy=origin.policy, selection=origin.list, template=name)
    ]
