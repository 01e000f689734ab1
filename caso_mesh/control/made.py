"""Jobs that policies make: one for each template of each association. They follow when a policy or a list is edited,
keep their id and history, and go with the association. An open run keeps what it began with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Put
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import CasoError, EmptyTarget, InUse, MadeByPolicy
from caso_mesh.model.host_commands import dump_name
from caso_mesh.model.ids import derived_id
from caso_mesh.model.jobs import (
    BackupSpec,
    CronSchedule,
    DuplicateSpec,
    Job,
    JobSpec,
    Origin,
    SourceRoots,
    SyntheticSpec,
    Target,
    TargetKind,
    VerifySetsSpec,
)
from caso_mesh.model.policies import Association, Policy, SelectionList, Template, TemplateType
from caso_mesh.model.storage import Device
from caso_mesh.planning import lifecycle, rules
from caso_mesh.planning.patterns import anchored
from caso_mesh.planning.schedule import check_schedule
from caso_mesh.planning.window import check_inside, check_window

#: Tables from which jobs are made.
MADE_OF = frozenset({"lists", "policies", "associations", "calendars"})
_LONGEST_NAME = 63
#: Kinds of targets that name devices, which may be written by any server that reaches them.
_OF_DEVICES = frozenset({TargetKind.ANY, TargetKind.DEVICE, TargetKind.DEVICES})


class Problem(Struct, frozen=True):
    """Why a template of a policy cannot make a job for a list (names)."""

    policy: str
    list: str
    template: str
    error: CasoError


def remade(state: ControlState, seed: str, context: Context) -> list[Put]:
    """What changes in the table of jobs so that it is as policies, lists and associations say. Raises ``InUse`` for a job
    that has to go and has an open run."""
    wanted: dict[str, Job] = {}
    for association in state.association_list():
        wanted.update({job.id: job for job in _jobs_of(state, association, seed, context)})
    changes: list[Put] = []
    for job in state.jobs_made_of():
        if job.id not in wanted:
            check_no_open_run(state, job)
            changes.append(Put("jobs", job.id, None))
    taken = {job.name for job in state.jobs.values() if job.origin is None}
    for job in wanted.values():
        named = msgspec.structs.replace(job, name=_free_name(job, taken))
        taken.add(named.name)
        if named != state.jobs.get(job.id):
            changes.append(Put("jobs", job.id, named))
    return changes


def still_running(state: ControlState) -> Iterator[Problem]:
    """Jobs that have to go, since what they were made of has gone, and cannot while they have an open run."""
    for job in state.jobs_made_of():
        if job.origin is None:
            continue
        policy, row = state.policies.get(job.origin.policy), state.lists.get(job.origin.list)
        if policy is None or row is None:
            continue  # neither goes while they are associated
        associated = Association(policy.id, row.id, "", 0).key in state.associations
        if not associated or policy.template(job.origin.template) is None:
            try:
                check_no_open_run(state, job)
            except InUse as error:
                yield Problem(policy.name, row.name, job.origin.template, error)


def empty_targets(state: ControlState, changes: Iterable[Put]) -> Iterator[Problem]:
    """Templates that no device could take, as things stand: their jobs would wait for ever. Only those of policies,
    lists and associations that were changed: what became of the others is nobody's mistake now."""
    touched = {(change.table, change.key) for change in changes}
    for association in state.association_list():
        named = {("policies", association.policy), ("lists", association.list), ("associations", association.key)}
        if not named & touched:
            continue
        policy, row = state.policy(association.policy), state.selection(association.list)
        for template in policy.templates:
            for target in (template.target, template.second):
                if target is not None and not _devices_of(state, target, row.within):
                    shown = str(target) if row.within is None else f"{target} within {row.within}"
                    error = EmptyTarget(target=shown, template=template.name, list=row.name)
                    yield Problem(policy.name, row.name, template.name, error)


def _devices_of(state: ControlState, target: Target, within: Target | None) -> list[Device]:
    """The devices that a server may write for ``target``, ``within`` the restriction of a list, whatever their state."""
    servers = frozenset(state.servers) if target.kind in _OF_DEVICES else state.target_servers(target)
    if within is not None:
        servers &= state.target_servers(within)
    named = state.named_devices(target)
    return [
        device
        for device in state.device_list()
        if (named is None or device.id in named)
        and device.imported is None
        and any(path.enabled and path.server in servers for path in device.paths)
    ]


def outside_windows(state: ControlState, jobs: Iterable[Put], now_ns: int) -> Iterator[Problem]:
    """Made jobs whose schedule can start outside of the window of their list."""
    for change in jobs:
        job = change.record
        if not isinstance(job, Job) or job.origin is None:
            continue
        try:
            check_times(state, [change], now_ns)
        except CasoError as error:
            policy, row = state.policy(job.origin.policy), state.selection(job.origin.list)
            yield Problem(policy.name, row.name, job.origin.template, error)


def check_times(state: ControlState, changes: Iterable[Put], now_ns: int) -> None:
    """Schedules, zones and windows of changed rows. Raises ``InvalidSchedule``, ``UnknownZone``, ``InvalidValue``.

    Not while commands are applied: voters with different time zone data must not come to different outcomes.
    """
    for change in changes:
        match change.record:
            case SelectionList(window=window):
                check_window(window)
            case Policy() as policy:
                old = state.policies.get(policy.id)
                for template in policy.templates:
                    before = old.template(template.name) if old is not None else None
                    if template.schedule is not None and (before is None or before.schedule != template.schedule):
                        check_schedule(template.schedule)
            case Job(schedule=CronSchedule() as schedule) as job:
                known = state.jobs.get(job.id)
                if known is None or (known.schedule, known.window) != (schedule, job.window):
                    check_schedule(schedule)
                    if job.window:
                        check_inside(schedule, job.window, now_ns)
            case _:
                pass


def check_no_open_run(state: ControlState, job: Job) -> None:
    """Raises ``InUse``."""
    open_runs = [run.id for run in state.runs_of(job.id) if lifecycle.is_open(run)]
    if open_runs:
        raise InUse(kind="job", name=job.name, by=open_runs)


def check_by_hand(state: ControlState, job: Job) -> None:
    """Raises ``MadeByPolicy`` for a job that no person made."""
    if job.origin is not None:
        policy, row = state.policies.get(job.origin.policy), state.lists.get(job.origin.list)
        names = {"policy": policy.name if policy else "", "list": row.name if row else ""}
        raise MadeByPolicy(name=job.name, **names)


def schedules_of(state: ControlState, association: Association, *, held: bool = False) -> dict[str, CronSchedule]:
    """The schedules in force of an association's jobs, by template; those on hold only with ``held``."""
    jobs = state.jobs_made_of(policy=association.policy, selection=association.list)
    return {
        job.origin.template: job.schedule
        for job in jobs
        if job.origin is not None and job.schedule is not None and (held or job.state.value == "active")
    }


def _jobs_of(state: ControlState, association: Association, seed: str, context: Context) -> Iterator[Job]:
    policy, row = state.policy(association.policy), state.selection(association.list)
    known = {
        job.origin.template: job
        for job in state.jobs_made_of(policy=policy.id, selection=row.id)
        if job.origin is not None
    }
    first = rules.first_of(policy)
    ids = {
        template.name: known[template.name].id
        if template.name in known
        else derived_id(seed, policy.id, row.id, template.name)
        for template in policy.templates
    }
    for template in policy.templates:
        schedule = _schedule(state, template)
        job = known.get(template.name) or Job(
            id=ids[template.name],
            name="",
            spec=_spec(row, template),
            created_by=context.who,
            created_at_ns=context.at_ns,
            origin=Origin(policy.id, row.id, template.name),
        )
        moved = template.name in known and schedule is not None and schedule != job.schedule
        yield msgspec.structs.replace(
            job,
            name=f"{row.name}.{policy.name}.{template.name}",
            spec=_spec(row, template),
            priority=template.priority or row.priority,
            schedule=schedule,
            # due times that passed under another schedule are not made up for
            last_due_at_ns=max(job.last_due_at_ns or job.created_at_ns, context.at_ns) if moved else job.last_due_at_ns,
            window=row.window,
            first=ids[first] if first is not None and first != template.name else None,
        )


def _schedule(state: ControlState, template: Template) -> CronSchedule | None:
    if template.schedule is None or not template.calendars:
        return template.schedule
    days = dict.fromkeys(template.schedule.excludes)
    for name in template.calendars:
        days.update(dict.fromkeys(state.calendar_named(name).days))
    return msgspec.structs.replace(template.schedule, excludes=tuple(sorted(days)))


def _spec(row: SelectionList, template: Template) -> JobSpec:
    type_ = template.backup_type
    if template.type is TemplateType.SYNTHETIC:
        return SyntheticSpec(row.servers(), media_set=template.media_set, verify=template.verify)
    if template.target is None:
        return VerifySetsSpec(row.servers())
    if type_ is None:
        return DuplicateSpec(
            row.servers(), template.target, media_set=template.media_set, verify=template.verify, within=row.within
        )
    return BackupSpec(
        sources=tuple(_source(row, server) for server in row.servers()),
        target=template.target,
        type=type_,
        excludes=row.excludes,
        one_file_system=row.one_file_system,
        exclude_caches=row.exclude_caches,
        larger_than=row.larger_than,
        default_excludes=row.default_excludes,
        media_set=template.media_set,
        verify=template.verify,
        pre=template.pre,
        post=template.post,
        post_always=template.post_always,
        ignore_exit_codes=template.ignore_exit_codes,
        snapshot=template.snapshot,
        allow_shrink=template.allow_shrink,
        within=row.within,
        logon=template.logon,
        second=template.second,
    )


def _source(row: SelectionList, server: str) -> SourceRoots:
    entries = [entry for entry in row.entries if entry.server == server]
    excludes = [pattern for entry in entries for each in entry.excludes for pattern in anchored(entry.root, each)]
    only = [
        (entry.root, tuple(pattern for each in entry.includes for pattern in anchored(entry.root, each)))
        for entry in entries
        if entry.includes
    ]
    roots = tuple(sorted((entry.root for entry in entries), key=path_key))
    if row.includes:
        only += [(root, row.includes) for root in roots]
    logons = [(name, entry.logon) for entry in entries if entry.logon and (name := dump_name(entry.root))]
    return SourceRoots(server, roots, tuple(sorted(set(excludes))), tuple(sorted(only)), tuple(sorted(logons)))


def _free_name(job: Job, taken: set[str]) -> str:
    """``LIST.POLICY.TEMPLATE``, with the end of its id where that is too long or taken."""
    if len(job.name) <= _LONGEST_NAME and job.name not in taken:
        return job.name
    return f"{job.name[: _LONGEST_NAME - 9]}-{job.id[-8:]}"
