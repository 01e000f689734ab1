"""Schedules as people say them: ``daily 22:00``, ``2nd fri 22:00``, ``last day 02:00``, ``once 2025-01-31T02:00``.

Each is a cron expression with another face; a text of five fields is one already.
"""

from __future__ import annotations

import datetime
import re

from caso_mesh.model.errors import InvalidSchedule
from caso_mesh.model.hours import DAYS, parse_days
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.planning.schedule import zone

_TIME = re.compile(r"(\d{1,2}):(\d\d)\Z")
_NTH = {"1st": "1", "2nd": "2", "3rd": "3", "4th": "4", "5th": "5"}
_WEEKDAYS = "mon-fri"
_EXPECTED = (
    'it is neither a cron line nor one of "hourly :30", "daily 22:00", "weekdays 22:00", "mon,wed 22:00", '
    '"2nd fri 22:00", "last fri 22:00", "day 15 22:00", "last day 22:00", "once 2025-01-31T02:00"'
)


def parse_schedule(text: str, zone_name: str) -> CronSchedule:
    """The schedule of a text. Raises ``InvalidSchedule``, ``UnknownZone``. Whether a cron line is right is not looked
    at."""
    tz = zone(zone_name)
    words = text.lower().split()
    if len(words) == 5 and re.match(r"[\d*]", words[0]):
        return CronSchedule(text.strip(), zone_name)
    if words[:1] == ["once"] and len(words) == 2:
        return CronSchedule("", zone_name, at_ns=_instant_ns(text, words[1], tz), text=" ".join(text.split()))
    cron = _cron([word for word in words if word not in {"of", "month", "at", "the"}])
    if cron is None:
        raise InvalidSchedule(cron=text[:200], detail=_EXPECTED)
    return CronSchedule(cron, zone_name, text=" ".join(words))


def shown(schedule: CronSchedule) -> str:
    """A schedule as it was written."""
    return schedule.text or schedule.cron


def _instant_ns(text: str, word: str, tz: datetime.tzinfo) -> int:
    try:
        moment = datetime.datetime.fromisoformat(word.upper())
    except ValueError:
        raise InvalidSchedule(cron=text[:200], detail="once takes a time as in 2025-01-31T02:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=tz)
    delta = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (delta.days * 86400 + delta.seconds) * 1_000_000_000


def _cron(words: list[str]) -> str | None:
    match words:
        case ["hourly"]:
            return "0 * * * *"
        case ["hourly", minute] if re.fullmatch(r":[0-5]\d", minute):
            return f"{int(minute[1:])} * * * *"
        case ["daily", times]:
            return _line(times)
        case ["weekdays", times]:
            return _line(times, weekdays=_numbers(_WEEKDAYS))
        case ["day", day, times] if day.isdecimal() and 1 <= int(day) <= 31:
            return _line(times, days=str(int(day)))
        case ["last", "day", times]:
            return _line(times, days="L")
        case ["last", day, times] if day in DAYS:
            return _line(times, weekdays=f"{_number(day)}L")
        case [nth, day, times] if nth in _NTH and day in DAYS:
            return _line(times, weekdays=f"{_number(day)}#{_NTH[nth]}")
        case [days, times] if parse_days(days) is not None:
            return _line(times, weekdays=_numbers(days))
    return None


def _line(times: str, *, days: str = "*", weekdays: str = "*") -> str | None:
    """Several times on one line have their minute in common: cron would else run at each hour with each minute."""
    found = [_TIME.match(each) for each in times.split(",")]
    pairs = [(int(each[1]), int(each[2])) for each in found if each is not None]
    minutes = {minute for _, minute in pairs}
    if len(pairs) < len(found) or len(minutes) != 1 or any(hour > 23 or minute > 59 for hour, minute in pairs):
        return None
    return f"{minutes.pop()} {','.join(str(hour) for hour in sorted({hour for hour, _ in pairs}))} {days} * {weekdays}"


def _numbers(days: str) -> str:
    return ",".join(str((day + 1) % 7) for day in sorted(parse_days(days) or ()))


def _number(day: str) -> int:
    return (DAYS.index(day) + 1) % 7
