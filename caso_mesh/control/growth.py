"""How fast devices fill up: what the schedules of four weeks will store on each, as history predicts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from caso_mesh.control.foretold import Known
from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job, TargetKind, kind_of, makes_sets, placed_by
from caso_mesh.model.policies import Policy
from caso_mesh.model.states import JobState, RunState
from caso_mesh.planning import lifecycle, rules
from caso_mesh.planning.schedule import preview

_DAY_NS = 86400 * 1_000_000_000
#: Long enough for what happens once a month.
_DAYS = 28
#: Of one schedule: every five minutes of all the days.
_MOST = 10_000


def daily_bytes(
    state: ControlState, known: Known, placed: Mapping[tuple[str, str], str], from_ns: int
) -> dict[str, float]:
    """Bytes a day by device (id), on average of four weeks from an instant on. ``placed``: the device of a job and source,
    as far as that is known; else it is where the newest set of it lies. What has never run and may go anywhere counts
    for nothing, and so does all that may be deleted meanwhile."""
    dues = _Dues(from_ns)
    sums: Counter[str] = Counter()
    for job in state.jobs.values():
        runs = dues.standalone(job) if job.origin is None else dues.of_policy(state, job)
        if not runs or not makes_sets(job.spec):
            continue
        for source in lifecycle.sources_of(job.spec):
            device = placed.get((job.id, source)) or _device_of(state, known, job, source)
            if device is not None:
                sums[device] += runs * _bytes(known, job, source)
    return {device: size / _DAYS for device, size in sums.items()}


def _bytes(known: Known, job: Job, source: str) -> int:
    if isinstance(job.spec, BackupSpec):
        return known.history.predict(job.id, source, job.spec.type).bytes
    return known.history.predict_of_set(kind_of(job.spec), job.id, source, "", 0).bytes


def _device_of(state: ControlState, known: Known, job: Job, source: str) -> str | None:
    newest = known.newest.get((job.id, source))
    if newest is not None:
        return newest.device
    placed = placed_by(job.spec)
    if placed is None or placed.target.kind is not TargetKind.DEVICE:
        return None
    return next(iter(state.named_devices(placed.target) or ()), None)


class _Dues:
    """How often jobs will run, worked out once for all lists of a policy."""

    def __init__(self, from_ns: int) -> None:
        self._from_ns = from_ns
        self._times: dict[CronSchedule, list[int]] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], Counter[str]] = {}

    def standalone(self, job: Job) -> int:
        if job.schedule is None or job.state is not JobState.ACTIVE:
            return 0
        return len(self._of(job.schedule))

    def of_policy(self, state: ControlState, job: Job) -> int:
        """As often as it is due and not superseded, and as others start it that succeed."""
        assert job.origin is not None
        policy = state.policies[job.origin.policy]
        made = state.jobs_made_of(policy=policy.id, selection=job.origin.list)
        active = tuple(each.origin.template for each in made if each.origin and each.state is JobState.ACTIVE)
        if job.origin.template not in active:
            return 0
        counts = self._counts.get((policy.id, active))
        if counts is None:
            schedules = {
                each.origin.template: each.schedule
                for each in made
                if each.origin and each.schedule is not None and each.origin.template in active
            }
            counts = self._counts[policy.id, active] = self._count(policy, active, schedules)
        return counts[job.origin.template]

    def _count(self, policy: Policy, active: tuple[str, ...], schedules: Mapping[str, CronSchedule]) -> Counter[str]:
        counts: Counter[str] = Counter()

        def start(template: str, times: int) -> None:
            counts[template] += times
            for other in (
                *rules.started_by_start(policy, template),
                *rules.started_by_end(policy, template, RunState.SUCCEEDED),
            ):
                if other in active:
                    start(other, times)

        for template, schedule in schedules.items():
            dues = (rules.Due(due_ns, template) for due_ns in self._of(schedule))
            start(template, sum(rules.judge(policy, schedules, due).superseded_by is None for due in dues))
        return counts

    def _of(self, schedule: CronSchedule) -> list[int]:
        if schedule not in self._times:
            until_ns = self._from_ns + _DAYS * _DAY_NS
            self._times[schedule] = preview(schedule, self._from_ns, until_ns, _MOST)
        return self._times[schedule]
