"""What is due in the next days, by the same rules that open runs."""

from __future__ import annotations

from collections.abc import Mapping

from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.control.dues import next_due_of, verdict_of
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Calendar
from caso_mesh.model.errors import InvalidValue, NotFound
from caso_mesh.model.jobs import Job, backup_of, kind_of
from caso_mesh.model.policies import STARTING, Policy
from caso_mesh.model.states import JobState
from caso_mesh.model.units import format_instant
from caso_mesh.planning.lifecycle import sources_of
from caso_mesh.planning.schedule import preview

_DAY_NS = 86400 * 1_000_000_000
_MOST_DAYS, _MOST_ROWS = 400, 10_000


class Preview:
    """Answers of the administrator."""

    def __init__(self, *, keeper: ControlKeeper, calendar: Calendar) -> None:
        self._keeper = keeper
        self._calendar = calendar

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"schedule.preview": self._preview}

    async def _preview(self, caller: Caller, request: q.SchedulePreview) -> v.PreviewList:
        """Raises ``NotFound``, ``InvalidValue``."""
        if not 0 < request.days <= _MOST_DAYS:
            raise InvalidValue(
                value=f"{request.days:g}", what="number of days", expected="It is more than 0 and at most 400"
            )
        state, now_ns = self._keeper.state, self._calendar.now_ns()
        until_ns, limit = now_ns + round(request.days * _DAY_NS), max(1, min(request.limit, _MOST_ROWS))
        dues: list[tuple[int, Job]] = []
        limits = caller.limits()
        for job in jobs_named(state, request.name):
            mine = limits is None or not limits.isdisjoint(sources_of(job.spec))
            if job.schedule is not None and mine:
                from_ns = max(now_ns, (job.last_due_at_ns or 0) + 1)
                dues += [(due, job) for due in preview(job.schedule, from_ns, until_ns, limit + 1)]
        dues.sort(key=lambda each: (each[0], each[1].name))
        rows = tuple(_row(state, job, due) for due, job in dues[:limit])
        return v.PreviewList(rows, more=len(dues) > limit)


def jobs_named(state: ControlState, name: str | None) -> list[Job]:
    """The jobs that were made of a selection list or a policy of that name, or the one of that name; all for ``None``.
    Raises ``NotFound``."""
    if name is None:
        return state.job_list()
    rows = [row for row in state.selection_lists() if row.name == name]
    policies = [row for row in state.policy_list() if row.name == name]
    if not rows and not policies:
        try:
            return [state.job_named(name)]
        except NotFound:
            raise NotFound(kind="selection list, policy or job", name=name) from None
    jobs = [job for row in rows for job in state.jobs_made_of(selection=row.id)]
    jobs += [job for policy in policies for job in state.jobs_made_of(policy=policy.id)]
    return list({job.id: job for job in jobs}.values())


def _row(state: ControlState, job: Job, due_ns: int) -> v.PreviewRow:
    backup, origin = backup_of(job.spec), job.origin
    policy = state.policies.get(origin.policy) if origin is not None else None
    row = state.lists.get(origin.list) if origin is not None else None
    held = job.state is JobState.ON_HOLD
    verdict = verdict_of(state, job, due_ns)
    by, after = verdict.superseded_by, verdict.after
    names = _siblings(state, job)
    shown = "on-hold" if held else "scheduled" if by is None else "superseded"
    return v.PreviewRow(
        due=format_instant(due_ns) or "",
        job=job.name,
        type=backup.type.value if backup is not None else kind_of(job.spec).value,
        selection=row.name if row is not None else None,
        policy=policy.name if policy is not None else None,
        template=origin.template if origin is not None else None,
        state=shown,
        by=names.get(by.template) if by is not None and not held else None,
        by_due=format_instant(by.due_ns) if by is not None and not held else None,
        after=names.get(after.template) if after is not None and not held else None,
        starts=_starts(policy, origin.template) if policy and origin and shown == "scheduled" else (),
        first=_first(state, job, due_ns) if shown == "scheduled" else None,
    )


def _first(state: ControlState, job: Job, due_ns: int) -> str | None:
    """The job that must complete once before, as long as it has not, and is due later if at all."""
    first = state.jobs.get(job.first) if job.first is not None else None
    if first is None or first.completed_at_ns is not None:
        return None
    comes_ns = next_due_of(first)
    return first.name if comes_ns is None or comes_ns > due_ns else None


def _siblings(state: ControlState, job: Job) -> Mapping[str, str]:
    """Names of the jobs of the same association by template."""
    if job.origin is None:
        return {}
    made = state.jobs_made_of(policy=job.origin.policy, selection=job.origin.list)
    return {other.origin.template: other.name for other in made if other.origin is not None}


def _starts(policy: Policy, template: str) -> tuple[str, ...]:
    """What it will start: the rules as they are written."""
    return tuple(str(rule) for rule in policy.rules if rule.kind in STARTING and rule.a == template)
