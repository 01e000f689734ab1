"""Which runs are due, what opens them, and which of those that are open are too late: questions to the control state. The
administrator in office asks them of what is, a forecast (``forecast.py``) of what will be."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import OpenRun
from caso_mesh.model.ids import run_id
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job, OfSetsSpec, Run, SyntheticSpec, VerifySetsSpec
from caso_mesh.model.states import BackupType, JobState
from caso_mesh.planning import rules
from caso_mesh.planning.schedule import next_due_ns
from caso_mesh.planning.window import missed_sources

_SECOND = 1_000_000_000
_HOUR = 3600 * _SECOND
#: How far back the latest of many missed due times is looked for, nearest first.
_BACK = (_HOUR, 24 * _HOUR, 32 * 24 * _HOUR, 400 * 24 * _HOUR)


class Late(Enum):
    """What becomes of a scheduled run that did not start in its window."""

    MISSED = "missed"
    CAUGHT_UP_WITH = "caught-up-with"


def due_after_ns(job: Job) -> int:
    """What was due until then is over, or was before the job was there."""
    return job.last_due_at_ns or job.created_at_ns


def next_due_of(job: Job) -> int | None:
    """When a recurring, active job is due next; ``None`` for any other."""
    if job.schedule is None or job.state is not JobState.ACTIVE:
        return None
    return next_due_ns(job.schedule, due_after_ns(job))


def latest_due_ns(schedule: CronSchedule, after_ns: int, now_ns: int) -> int | None:
    """The last due time beyond ``after_ns`` that is not in the future, however many passed."""
    for back in (*_BACK, now_ns):
        start = max(after_ns, now_ns - back)
        found = None
        due = next_due_ns(schedule, start)
        while due is not None and due <= now_ns:
            found, due = due, next_due_ns(schedule, due)
        if found is not None or start == after_ns:
            return found
    return None


def verdict_of(state: ControlState, job: Job, due_ns: int) -> rules.Verdict:
    """What the rules of a job's policy say of one due time of it."""
    origin = job.origin
    policy = state.policies.get(origin.policy) if origin is not None else None
    if origin is None or policy is None:
        return rules.Verdict()
    siblings = {
        other.origin.template: other
        for other in state.jobs_made_of(policy=origin.policy, selection=origin.list)
        if other.origin is not None and other.schedule is not None and other.state is JobState.ACTIVE
    }
    schedules = {name: other.schedule for name, other in siblings.items() if other.schedule is not None}

    def happens(due: rules.Due) -> bool:
        other = siblings[due.template]
        return due.due_ns > due_after_ns(other) or run_id(other.id, due.due_ns) in state.runs

    return rules.judge(policy, schedules, rules.Due(due_ns, origin.template), happens)


def opening(state: ControlState, job: Job, due_ns: int, at_ns: int, sets: Mapping[str, str]) -> OpenRun:
    """The command that opens a run, with what the rules of its policy say of it. ``sets``: what it is about, by source, if
    it is about sets."""
    verdict = verdict_of(state, job, due_ns)
    by, after = verdict.superseded_by, verdict.after
    return OpenRun(
        job.id,
        due_ns,
        at_ns,
        superseded_by=None if by is None else _run_of(state, job, by),
        after=None if after is None else _run_of(state, job, after),
        after_due_at_ns=0 if after is None else after.due_ns,
        sets=dict(sets),
    )


def lateness(state: ControlState, run: Run, start_window_s: float, now_ns: int) -> Late | None:
    """What becomes of an open run, if some of it did not start in its window; ``None``: it may still start."""
    follows = state.runs.get(run.terms.after or "")
    if not missed_sources(run, start_window_s, now_ns, follows):
        return None
    return Late.CAUGHT_UP_WITH if run.terms.catch_up and not _is_overtaken(state, run) else Late.MISSED


def is_about_newest(job: Job) -> bool:
    """Whether a run of ``job`` that begins by itself is about the newest sets of a selection list."""
    return isinstance(job.spec, OfSetsSpec) and job.origin is not None


def makers_of(state: ControlState, job: Job) -> frozenset[str]:
    """The jobs (ids) whose newest sets a run of ``job`` is about; none of a job that is not about newest sets."""
    if not is_about_newest(job) or job.origin is None:
        return frozenset()
    # each policy sends its own sets off-site, and makes full ones of its own
    policy = None if isinstance(job.spec, VerifySetsSpec) else job.origin.policy
    jobs = backup_jobs(state, job.origin.list, policy)
    if isinstance(job.spec, SyntheticSpec):
        return frozenset(id for id in jobs if not _is_copy(state.job(id)))  # nothing builds on a copy
    return jobs | synthetic_jobs(state, job.origin.list, policy)


def backup_jobs(state: ControlState, selection: str, policy: str | None = None) -> frozenset[str]:
    """The ids of the jobs that back up a selection list (id), or only those of one policy (id)."""
    jobs = state.jobs_made_of(policy=policy, selection=selection)
    return frozenset(job.id for job in jobs if isinstance(job.spec, BackupSpec))


def synthetic_jobs(state: ControlState, selection: str, policy: str | None = None) -> frozenset[str]:
    """The ids of the jobs that make full sets out of those of a selection list (id), or only those of one policy (id)."""
    jobs = state.jobs_made_of(policy=policy, selection=selection)
    return frozenset(job.id for job in jobs if isinstance(job.spec, SyntheticSpec))


def _is_copy(job: Job) -> bool:
    return isinstance(job.spec, BackupSpec) and job.spec.type is BackupType.COPY


def _is_overtaken(state: ControlState, run: Run) -> bool:
    """Whether a later due time of the job has come: it makes up for both."""
    job = state.jobs.get(run.job)
    return job is None or (job.last_due_at_ns or 0) > run.due_at_ns


def _run_of(state: ControlState, job: Job, due: rules.Due) -> str:
    assert job.origin is not None
    others = state.jobs_made_of(policy=job.origin.policy, selection=job.origin.list, template=due.template)
    return run_id(others[0].id, due.due_ns)
