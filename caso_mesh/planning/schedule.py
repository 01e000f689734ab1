"""When a schedule is due: a cron expression of five fields in a time zone.

A local time that daylight saving skips is due at the next instant that exists, a repeated one is due once, the first
time. Only a schedule of every hour follows elapsed time through a change: whoever says "every hour" means a distance,
not a time of day.
"""

from __future__ import annotations

import datetime
import functools
import importlib.resources
import re
import zoneinfo
from collections.abc import Iterator

from cronsim import CronSim, CronSimError

from caso_mesh.model.errors import InvalidSchedule, InvalidValue, UnknownZone
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.model.units import format_number

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECOND = 1_000_000_000
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}\Z")
_LONGEST = 200
#: Days without a run, all together, and the longest start window and time for a run.
_MOST_DAYS, _LONGEST_S = 4000, 7 * 86400.0
#: Nothing is due after this: the calendar of ``datetime`` ends soon after it.
_END_NS = (datetime.datetime(9900, 1, 1, tzinfo=datetime.UTC) - _EPOCH) // datetime.timedelta(seconds=1) * _SECOND
_NEVER = "no such date ever comes"


def check_schedule(schedule: CronSchedule) -> None:
    """Raises ``InvalidSchedule`` (also for a date that never comes), ``InvalidValue`` for its days and durations, or
    ``UnknownZone``."""
    zone(schedule.zone)
    _days(schedule.excludes)
    for seconds, what in (
        (schedule.start_window_s, "start window"),
        (schedule.cancel_after_s, "time after which a run is canceled"),
    ):
        if seconds is not None and not 1 <= seconds <= _LONGEST_S:
            raise InvalidValue(value=format_number(seconds), what=what, expected="It lies between 1 second and 7 days")
    if next_due_ns(schedule, 0 if schedule.at_ns is None else schedule.at_ns - 1) is None:
        raise InvalidSchedule(cron=schedule.cron or schedule.text, detail=_NEVER)


def local_day(at_ns: int, zone_name: str) -> datetime.date:
    """The day that a calendar on the wall of a zone shows. ``UnknownZone``."""
    return (_EPOCH + datetime.timedelta(seconds=at_ns // _SECOND)).astimezone(zone(zone_name)).date()


@functools.lru_cache(maxsize=1000)
def _days(days: tuple[str, ...]) -> frozenset[datetime.date]:
    """Every day of ``2025-12-24`` and ``2025-12-24..2026-01-01``. Raises ``InvalidValue``."""
    found: set[datetime.date] = set()
    for text in days:
        first, dots, last = text.partition("..")
        try:
            begin = datetime.date.fromisoformat(first.strip())
            end = datetime.date.fromisoformat(last.strip()) if dots else begin
        except ValueError:
            begin, end = datetime.date.max, datetime.date.min
        if not 0 <= (end - begin).days < _MOST_DAYS or len(found) > _MOST_DAYS:
            raise InvalidValue(value=text, what="day", expected="Use 2025-12-24, or 2025-12-24..2026-01-01")
        found.update(begin + datetime.timedelta(days=day) for day in range((end - begin).days + 1))
    return frozenset(found)


def check_days(days: tuple[str, ...]) -> None:
    """Raises ``InvalidValue``."""
    _days(days)


def next_due_ns(schedule: CronSchedule, after_ns: int) -> int | None:
    """The first due instant later than ``after_ns``, or ``None``. ``InvalidSchedule``, ``UnknownZone``."""
    return next(_dues(schedule, after_ns), None)


def preview(schedule: CronSchedule, from_ns: int, until_ns: int, limit: int) -> list[int]:
    """Due instants from ``from_ns`` on and before ``until_ns``, at most ``limit``. Raises as ``next_due_ns``."""
    found: list[int] = []
    for due in _dues(schedule, from_ns - 1):
        if due >= until_ns or len(found) >= limit:
            break
        found.append(due)
    return found


@functools.cache
def zone(name: str) -> zoneinfo.ZoneInfo:
    """A zone of the IANA data base as the package ``tzdata`` has it, the same on every server whatever its system
    has. Raises ``UnknownZone``."""
    if not _ZONE.match(name):
        raise UnknownZone(zone=name)
    try:
        with importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, key=name)
    except (OSError, ValueError, ImportError):
        raise UnknownZone(zone=name) from None


def _dues(schedule: CronSchedule, after_ns: int) -> Iterator[int]:
    tz, excluded = zone(schedule.zone), _days(schedule.excludes)
    if schedule.at_ns is not None:
        if schedule.at_ns > after_ns and local_day(schedule.at_ns, schedule.zone) not in excluded:
            yield schedule.at_ns
        return
    if after_ns >= _END_NS:
        return
    # Whole seconds, rounded down: cron has no finer ones, and what is due lies later.
    after = _EPOCH + datetime.timedelta(seconds=max(after_ns, 0) // _SECOND)
    local = after.astimezone(tz)
    last = after_ns
    if _every_hour(schedule):
        ticks = _ticks(schedule, local)
    else:
        # A due time is never after a later one, so starting from the local time misses none.
        ticks = (_instant(wall, tz) for wall in _ticks(schedule, local.replace(tzinfo=None)))
    for tick in ticks:
        due = (tick - _EPOCH) // datetime.timedelta(seconds=1) * _SECOND
        if due > last:
            last = due
            if not excluded or tick.astimezone(tz).date() not in excluded:
                yield due


def _ticks(schedule: CronSchedule, start: datetime.datetime) -> Iterator[datetime.datetime]:
    try:
        yield from _cron(schedule, start)
    except OverflowError:
        return  # the calendar ends


def _cron(schedule: CronSchedule, start: datetime.datetime) -> CronSim:
    if len(schedule.cron) > _LONGEST:
        raise InvalidSchedule(cron=schedule.cron[:20] + "...", detail=f"it is longer than {_LONGEST} characters")
    fields = schedule.cron.split()
    if len(fields) != 5:
        raise InvalidSchedule(cron=schedule.cron, detail=f"it has {len(fields)} fields, not five")
    try:
        cron = CronSim(" ".join(fields), start)
        if len(cron.hours) == 24:
            # Written as a star, so that no hour is treated as a time of day.
            fields[1] = "*"
            cron = CronSim(" ".join(fields), start)
    except (CronSimError, ValueError, AssertionError) as error:
        detail = _NEVER if _is_good_in_some_month(fields) else str(error) or "it cannot be read"
        raise InvalidSchedule(cron=schedule.cron, detail=detail) from None
    return cron


def _is_good_in_some_month(fields: list[str]) -> bool:
    """Whether a line that was refused is wrong by its days not being in its months only."""
    try:
        CronSim(" ".join([*fields[:3], "*", fields[4]]), datetime.datetime(2000, 1, 1))
        CronSim(" ".join([*fields[:2], "*", *fields[3:]]), datetime.datetime(2000, 1, 1))
    except (CronSimError, ValueError, AssertionError):
        return False
    return True


def clock_times(schedule: CronSchedule) -> Iterator[tuple[int, int]]:
    """Each weekday (Monday = 0) and minute of the day at which a cron expression may be due. Raises
    ``InvalidSchedule``."""
    cron = _cron(schedule, datetime.datetime(2000, 1, 1))
    weekdays = {each[0] if isinstance(each, tuple) else each for each in cron.weekdays}
    whole_week = range(7)
    # Of two fields for days that are both given, either one makes a day (crontab(5)).
    days = whole_week if len(cron.days) < 31 else sorted({(day - 1) % 7 for day in weekdays})
    yield from (
        (day, hour * 60 + minute) for day in days for hour in sorted(cron.hours) for minute in sorted(cron.minutes)
    )


def _every_hour(schedule: CronSchedule) -> bool:
    return len(_cron(schedule, datetime.datetime(2000, 1, 1)).hours) == 24


def _instant(wall: datetime.datetime, tz: zoneinfo.ZoneInfo) -> datetime.datetime:
    """The first instant at which a clock on the wall shows ``wall`` or, if that is skipped, later (PEP 495)."""
    first = wall.replace(tzinfo=tz, fold=0).astimezone(datetime.UTC)
    if first.astimezone(tz).replace(tzinfo=None) == wall:
        return first
    # In a gap, fold 0 counts from the offset before it and lies behind the change; fold 1 lies before it.
    low, high = wall.replace(tzinfo=tz, fold=1).astimezone(datetime.UTC), first
    before = low.astimezone(tz).utcoffset()
    while high - low > datetime.timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle -= datetime.timedelta(microseconds=middle.microsecond)
        if middle.astimezone(tz).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
