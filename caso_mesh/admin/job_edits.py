"""Jobs that a person made, changed and copied: what is given is put over what they are, and looked at as if it were new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from caso_mesh.admin import backup_words
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.admin.work import Work
from caso_mesh.control.dues import is_about_newest, next_due_of
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.logons import logons_of
from caso_mesh.control.made import check_by_hand
from caso_mesh.control.state import ControlState
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import CreateJob, EditJob
from caso_mesh.model.device_jobs import CatalogSpec, InventorySpec, SurveySpec
from caso_mesh.model.errors import InvalidValue, OutsideScope, UsageError
from caso_mesh.model.ids import IdSource, check_name
from caso_mesh.model.inventories import ScheduleWords
from caso_mesh.model.job_edits import CLEARED, OF_SCHEDULE, JobCopy, JobEdit, JobEdited
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job, JobSpec, kind_of
from caso_mesh.model.states import JobState, Role
from caso_mesh.model.units import format_instant
from caso_mesh.planning.presets import shown

_OF_ALL = frozenset({"name", "clear", "priority", "schedule", *OF_SCHEDULE})
_OF_BACKUP = frozenset(JobEdit.__struct_fields__) - _OF_ALL - {"devices"}
_OPTIONS = {
    "sources": "--path", "target": "--to", "second": "--second-to", "excludes": "--exclude",
    "larger_than": "--exclude-larger-than", "devices": "--device", "exclude_days": "--exclude-day",
}  # fmt: skip


class JobEdits:
    """Answers of the administrator."""

    def __init__(self, *, keeper: ControlKeeper, work: Work, submit: Submit, clock: Clock, new_id: IdSource) -> None:
        self._keeper = keeper
        self._work = work
        self._submit = submit
        self._clock = clock
        self._new_id = new_id

    def handlers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {"job.edit": self._edit, "job.copy": self._copy}

    async def _edit(self, caller: Caller, request: JobEdit) -> JobEdited:
        """Runs that are open go on as they began. Raises ``MadeByPolicy``, ``UsageError`` for what cannot be changed, and what
        a new job of that kind is refused with."""
        job = self._job(request.name)
        if done_before(self._keeper, caller) is not None:
            return self._edited(job.id)
        check_by_hand(self._keeper.state, job)
        given = _given(request)
        if not given and not request.clear:
            raise UsageError(detail="Say what shall be different")
        warnings: list[str] = []
        changed: JobSpec
        match job.spec:
            case BackupSpec() as spec:
                changed = await self._backup(job, spec, request, given, warnings)
            case (InventorySpec() | CatalogSpec()) as spec:
                changed = self._survey(caller, job, spec, request, given)
            case _ if given.keys() <= {"priority"} and not request.clear:
                changed = job.spec
            case _:
                kind = kind_of(job.spec).value
                detail = (
                    f"The job {job.name} is a {kind}: of it only the priority can be changed, with caso-mesh job set"
                )
                raise UsageError(detail=f"{detail}; submit what is to be done instead anew")
        command = EditJob(job.id, changed, self._schedule(job, request, given), request.priority or job.priority)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._edited(job.id, tuple(warnings))

    async def _copy(self, caller: Caller, request: JobCopy) -> JobEdited:
        """Whose job it was does not matter: the copy is by hand, and edited by itself. Raises ``AlreadyExists``, ``UsageError``,
        and what such a job is refused with."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._edited(before.result["job"])
        job, now_ns = self._job(request.name), self._clock.now_ns()
        check_name(request.new, "job")
        if is_about_newest(job):
            detail = f"The job {job.name} is about the newest sets of a selection list: copy its policy, with"
            raise UsageError(detail=f"{detail} caso-mesh policy copy")
        schedule, warnings = job.schedule, list[str]()
        if schedule is not None and schedule.at_ns is not None and schedule.at_ns <= now_ns:
            warnings.append(f"the time of {job.name} is over: {request.new} runs when it is asked to")
            schedule = None
        copy = Job(self._new_id(), request.new, job.spec, caller.who, now_ns, job.priority, schedule)
        command = CreateJob(copy, run_now=False, at_ns=now_ns)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._edited(copy.id, tuple(warnings))

    def _job(self, name: str) -> Job:
        if "@" in name:
            raise UsageError(detail=f"{name} is a run, which goes on as it began: name its job")
        return self._work.find_job(name)

    def _edited(self, id_: str, warnings: tuple[str, ...] = ()) -> JobEdited:
        job = self._keeper.state.job(id_)
        schedule = job.schedule
        due = None if schedule is None or job.state is JobState.ON_HOLD else next_due_of(job)
        return JobEdited(
            job.id,
            job.name,
            None if schedule is None else shown(schedule),
            None if schedule is None else schedule.zone,
            format_instant(due),
            warnings,
        )

    async def _backup(
        self, job: Job, spec: BackupSpec, request: JobEdit, given: Mapping[str, Any], warnings: list[str]
    ) -> BackupSpec:
        """Looked at as a new one; its servers are asked only about what they are to do anew."""
        state = self._keeper.state
        _only(job, given, _OF_BACKUP)
        if _OF_BACKUP.isdisjoint({*given, *request.clear}):
            return spec
        if spec.within is not None or any(source.excludes or source.only for source in spec.sources):
            detail = f"The job {job.name} was copied from one of a policy, and has what only a selection list says"
            raise UsageError(detail=f"{detail}: patterns for one path, or who alone may write it")
        wanted = structs.replace(
            _as_asked(state, job, spec), **{each: given[each] for each in given if each in _OF_BACKUP}
        )
        wanted = structs.replace(wanted, **dict.fromkeys(each for each in request.clear if each in _OF_BACKUP))
        if "post" in request.clear and "post_always" not in given:
            wanted = structs.replace(wanted, post_always=False)
        said = backup_words.checked(state, wanted)
        if not {"sources", "pre", "post"}.isdisjoint(given):
            for server, paths in said.roots:
                warnings += await self._work.check_paths(server, sorted(paths), said.commands, must=False)
        return backup_words.spec_of(state, wanted, said)

    def _survey(
        self, caller: Caller, job: Job, spec: SurveySpec, request: JobEdit, given: Mapping[str, Any]
    ) -> JobSpec:
        _only(job, {**given, **dict.fromkeys(request.clear)}, frozenset({"devices"}))
        if request.devices is None:
            return spec
        if not request.devices and caller.limits(Role.OPERATOR) is not None:
            raise OutsideScope(who=caller.who, call="job.edit", role="operator")
        state = self._keeper.state
        return structs.replace(
            spec, devices=tuple(dict.fromkeys(state.device_named(each).id for each in request.devices))
        )

    def _schedule(self, job: Job, request: JobEdit, given: Mapping[str, Any]) -> CronSchedule | None:
        """Raises ``InvalidSchedule``, ``UsageError``."""
        said = [each for each in ("schedule", *OF_SCHEDULE) if each in given or each in request.clear]
        if not said:
            return job.schedule
        if "schedule" in request.clear:
            lost = next((each for each in OF_SCHEDULE if each in given), None)
            if lost is not None:
                raise UsageError(detail=f"{_option(lost)} belongs to --schedule")
            return None
        now = job.schedule
        if now is None and request.schedule is None:
            raise UsageError(detail=f"{_option(said[0])} belongs to --schedule, and the job {job.name} has none")
        words = ScheduleWords("") if now is None else _words(now)
        words = structs.replace(words, **{each: given[each] for each in said if each in given})
        words = structs.replace(words, **dict.fromkeys(each for each in said if each in request.clear))
        return backup_words.schedule_of(words, self._clock.now_ns())


def _as_asked(state: ControlState, job: Job, spec: BackupSpec) -> q.BackupRequest:
    """What a person would have said for it, but for the schedule."""
    return q.BackupRequest(
        sources=tuple((state.name_of(source.server), b"/" + root) for source in spec.sources for root in source.roots),
        target=str(spec.target),
        type=spec.type,
        excludes=spec.excludes,
        one_file_system=spec.one_file_system,
        exclude_caches=spec.exclude_caches,
        larger_than=spec.larger_than,
        default_excludes=spec.default_excludes,
        media_set=spec.media_set,
        verify=spec.verify,
        pre=spec.pre,
        post=spec.post,
        post_always=spec.post_always,
        ignore_exit_codes=spec.ignore_exit_codes,
        snapshot=spec.snapshot,
        allow_shrink=spec.allow_shrink,
        priority=job.priority,
        logon=next((name for _, name in logons_of(spec)), None),
        second=None if spec.second is None else str(spec.second),
    )


def _words(schedule: CronSchedule) -> ScheduleWords:
    return ScheduleWords(
        shown(schedule),
        schedule.zone,
        schedule.excludes,
        schedule.start_window_s,
        schedule.cancel_after_s,
        schedule.catch_up,
    )


def _given(request: JobEdit) -> dict[str, Any]:
    """What is said, by field. Raises ``InvalidValue`` for a field that cannot be cleared, ``UsageError`` for one that is set as well."""
    given = {
        field: value
        for field in JobEdit.__struct_fields__
        if field not in {"name", "clear"} and (value := getattr(request, field)) is not None
    }
    for each in request.clear:
        if each not in CLEARED:
            raise InvalidValue(value=each[:100], what="field", expected=f"Use one of {', '.join(CLEARED)}")
        if each in given:
            raise UsageError(detail=f"Give {_option(each)} once")
    return given


def _option(field: str) -> str:
    """As the command has it."""
    return _OPTIONS.get(field) or f"--{field.removesuffix('_s').replace('_', '-')}"


def _only(job: Job, given: Mapping[str, Any], fits: frozenset[str]) -> None:
    """Raises ``UsageError`` for what means nothing for this kind of job."""
    wrong = next((each for each in given if each not in _OF_ALL and each not in fits), None)
    if wrong is not None:
        raise UsageError(
            detail=f"{_option(wrong)} means nothing for the job {job.name}, which is a {kind_of(job.spec).value}"
        )
