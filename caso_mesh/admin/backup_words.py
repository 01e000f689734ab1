"""What a person says of a backup: checked, and the job that it comes to."""

from __future__ import annotations

from msgspec import Struct, structs

from caso_mesh.admin.bases import root_of
from caso_mesh.control.documents import parse_target
from caso_mesh.control.logons import with_logon
from caso_mesh.control.policies import check_second, check_target
from caso_mesh.control.state import ControlState
from caso_mesh.model import requests as q
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import InvalidSchedule, InvalidValue, UsageError
from caso_mesh.model.host_commands import CommandKind
from caso_mesh.model.inventories import ScheduleWords
from caso_mesh.model.jobs import BackupSpec, CronSchedule, SourceRoots, Target
from caso_mesh.model.states import BackupType
from caso_mesh.planning.presets import parse_schedule
from caso_mesh.planning.schedule import check_schedule


class Said(Struct, frozen=True):
    """``roots``: the paths to back up of each server (node id); ``commands``: those that its server is to know."""

    target: Target
    roots: tuple[tuple[str, frozenset[bytes]], ...]
    commands: tuple[tuple[str, CommandKind], ...]


def checked(state: ControlState, request: q.BackupRequest) -> Said:
    """What can be said without asking a server. Raises ``UsageError``, ``NotFound``, ``InvalidValue``."""
    if not request.sources:
        raise UsageError(detail="Nothing to back up: give SERVER:PATH")
    belonging = {
        "--zone": request.zone,
        "--exclude-day": request.exclude_days,
        "--start-window": request.start_window_s,
        "--cancel-after": request.cancel_after_s,
        "--catch-up": request.catch_up,
    }
    lost = next((option for option, value in belonging.items() if value not in (None, (), False)), None)
    if lost is not None and request.schedule is None:
        raise UsageError(detail=f"{lost} belongs to --schedule")
    if request.test_run and request.schedule is not None:
        raise UsageError(detail="A test run is made now: leave --schedule away")
    target = parse_target(request.target)
    check_target(state, target)
    state.media_set_named(request.media_set)
    roots: dict[str, set[bytes]] = {}
    for name, path in request.sources:
        roots.setdefault(state.server_named(name).id, set()).add(root_of(path))
    if request.larger_than is not None and request.larger_than < 0:
        raise InvalidValue(value=request.larger_than, what="size", expected="Use 0 or more bytes")
    if request.post is None and request.post_always:
        raise UsageError(detail="--post-always belongs to --post")
    commands = ((request.pre, CommandKind.PRE), (request.post, CommandKind.POST))
    return Said(
        target,
        tuple((server, frozenset(paths)) for server, paths in sorted(roots.items())),
        tuple((name, kind) for name, kind in commands if name is not None),
    )


def spec_of(state: ControlState, request: q.BackupRequest, said: Said) -> BackupSpec:
    """The backup itself. Raises ``UsageError``, ``NotFound``, ``LogonNotPermitted``, ``InvalidValue``."""
    if request.test_run and request.second is not None:
        raise UsageError(detail="A test run tries one device: leave --second-to away, or try the other one with --to")
    second = None if request.second is None else parse_target(request.second)
    if second is not None:
        check_second(state, said.target, second)
    spec = BackupSpec(
        sources=tuple(SourceRoots(server, tuple(sorted(paths, key=path_key))) for server, paths in said.roots),
        target=said.target,
        type=request.type or (BackupType.FULL if request.schedule is None else BackupType.INCREMENTAL),
        excludes=request.excludes,
        one_file_system=request.one_file_system,
        exclude_caches=request.exclude_caches,
        larger_than=request.larger_than,
        default_excludes=request.default_excludes,
        media_set=request.media_set,
        verify=request.verify,
        pre=request.pre,
        post=request.post,
        post_always=request.post_always,
        ignore_exit_codes=request.ignore_exit_codes,
        snapshot=request.snapshot,
        allow_shrink=request.allow_shrink,
        second=second,
    )
    return with_logon(spec, request.logon)


def schedule_of(when: ScheduleWords | q.BackupRequest, now_ns: int) -> CronSchedule:
    """As a person said it. Raises ``InvalidSchedule``."""
    schedule = structs.replace(
        parse_schedule(when.schedule or "", when.zone or "UTC"),
        excludes=tuple(sorted(set(when.exclude_days))),
        start_window_s=when.start_window_s,
        cancel_after_s=when.cancel_after_s,
        catch_up=when.catch_up,
    )
    check_schedule(schedule)
    if schedule.at_ns is not None and schedule.at_ns <= now_ns:
        raise InvalidSchedule(cron=schedule.text, detail="that time is over")
    return schedule
