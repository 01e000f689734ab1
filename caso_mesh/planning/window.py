"""The start window, in which a scheduled run has to start or is missed, and the window of a selection list, outside of
which none may."""

from __future__ import annotations

import datetime
import functools

from caso_mesh.model.bandwidth import CLOSED, parse_bandwidth
from caso_mesh.model.errors import ScheduleOutsideWindow, UnknownZone
from caso_mesh.model.hours import DAY_MIN, Window, parse_window
from caso_mesh.model.ids import run_id
from caso_mesh.model.jobs import CronSchedule, Run
from caso_mesh.model.states import RunState
from caso_mesh.planning.schedule import clock_times, preview, zone

_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
#: How many due times, of how long a time, are looked at where two zones are compared.
_LOOKED_AT, _LOOK_NS = 20_000, 366 * 86400 * _SECOND


def is_scheduled(run: Run) -> bool:
    """Whether a run came by its job's schedule, or was started by one that did. One that a person started ("run now") is
    never missed."""
    return run.terms.fired_by is not None or run.id == run_id(run.job, run.due_at_ns)


def window_ends_ns(run: Run, start_window_s: float, follows: Run | None = None) -> int | None:
    """The last instant at which a part of the run may start for the first time. It counts from its due time, or from the
    end of the run that it ``follows``; ``None`` while that is open."""
    begins_ns = run.due_at_ns
    if follows is not None:
        if follows.closed_at_ns is None:
            return None
        begins_ns = max(begins_ns, follows.closed_at_ns)
    own_s = run.terms.start_window_s
    return begins_ns + round((start_window_s if own_s is None else own_s) * _SECOND)


def missed_sources(run: Run, start_window_s: float, now_ns: int, follows: Run | None = None) -> tuple[str, ...]:
    """The parts (by source) of a run that never started and will not: ``CloseRun`` with ``missed`` closes them.

    A part that started once and waits for another try is not missed, however long that takes.
    """
    if run.closed_at_ns is not None or not is_scheduled(run):
        return ()
    ends_ns = window_ends_ns(run, start_window_s, follows)
    if ends_ns is None or now_ns <= ends_ns:
        return ()
    return tuple(part.source for part in run.parts if part.state is RunState.READY and part.attempts == 0)


def opens_ns(text: str, now_ns: int) -> int | None:
    """When a window (``model.hours``) opens next; ``None`` while it is open. ``InvalidValue``, ``UnknownZone``."""
    return None if not text or _is_open(parse_window(text), now_ns) else _opening(text, now_ns // _MINUTE)


def shut_until_ns(limit: str, now_ns: int) -> int | None:
    """When a server sends again whose limit of bandwidth (``model.bandwidth``) is closed now; ``None`` while it is not. A zone
    that nobody knows closes nothing: the worker that is to keep to it says so. ``InvalidValue``."""
    return _sending(limit, now_ns // _MINUTE) if CLOSED in limit.lower() else None


def check_inside(schedule: CronSchedule, text: str, from_ns: int) -> None:
    """Raises ``ScheduleOutsideWindow`` if the schedule can start outside of a window; ``InvalidValue``, ``UnknownZone``.

    In one zone all times of the week that the schedule has are looked at; in two, its due times of the next year.
    """
    window = parse_window(text)
    zone(window.zone)
    if schedule.at_ns is None and schedule.zone == window.zone:
        outside = next((each for each in clock_times(schedule) if not window.holds(*each)), None)
        when = None if outside is None else f"{_DAYS[outside[0]]} {outside[1] // 60:02d}:{outside[1] % 60:02d}"
    else:
        dues = [schedule.at_ns] if schedule.at_ns is not None else _dues(schedule, from_ns)
        due = next((each for each in dues if not _is_open(window, each)), None)
        when = None if due is None else f"{_EPOCH + datetime.timedelta(seconds=due // _SECOND):%Y-%m-%dT%H:%M}Z"
    if when is not None:
        written = schedule.text or schedule.cron
        raise ScheduleOutsideWindow(cron=written, detail=f"{when} is outside the window {text} of the selection list")


def check_window(text: str) -> None:
    """Raises ``InvalidValue``, ``UnknownZone``."""
    if text:
        zone(parse_window(text).zone)


def _dues(schedule: CronSchedule, from_ns: int) -> list[int]:
    return preview(schedule, from_ns, from_ns + _LOOK_NS, _LOOKED_AT)


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _is_open(window: Window, at_ns: int) -> bool:
    local = (_EPOCH + datetime.timedelta(seconds=at_ns // _SECOND)).astimezone(zone(window.zone))
    return window.holds(local.weekday(), local.hour * 60 + local.minute)


@functools.lru_cache(maxsize=1000)
def _opening(text: str, minute: int) -> int:
    """Asked each second for each run that waits: looked for once a minute."""
    window = parse_window(text)
    for ahead in range(1, 8 * DAY_MIN):
        if _is_open(window, (minute + ahead) * _MINUTE):
            return (minute + ahead) * _MINUTE
    return (minute + 8 * DAY_MIN) * _MINUTE


@functools.lru_cache(maxsize=1000)
def _sending(limit: str, minute: int) -> int | None:
    """One that never opens is looked at again after a week."""
    bandwidth = parse_bandwidth(limit)
    try:
        local = zone(bandwidth.zone)
    except UnknownZone:
        return None
    for ahead in range(8 * DAY_MIN):
        at = (_EPOCH + datetime.timedelta(minutes=minute + ahead)).astimezone(local)
        if not bandwidth.is_closed(at.weekday(), at.hour * 60 + at.minute):
            return (minute + ahead) * _MINUTE if ahead else None
    return (minute + 8 * DAY_MIN) * _MINUTE
