"""When the morning summary is due, and of which time it is."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.jobs import CronSchedule
from caso_mesh.model.settings import NEVER, parse_time_of_day
from caso_mesh.planning.schedule import preview

_HOUR_NS = 3600 * 1_000_000_000
#: One that could not be made by then is left out: the next one tells of that time as well.
_LATE_NS = 12 * _HOUR_NS
_DAY_NS = 24 * _HOUR_NS


class Morning(Struct, frozen=True):
    since_ns: int
    until_ns: int


def morning(setting: str, now_ns: int) -> Morning | None:
    """The day of which the summary is due by the setting ``summary-at``, or ``None`` while none is. ``InvalidValue``,
    ``UnknownZone``."""
    if setting == NEVER:
        return None
    zone, minute = parse_time_of_day(setting)
    schedule = CronSchedule(f"{minute % 60} {minute // 60} * * *", zone)
    past = preview(schedule, now_ns - _LATE_NS, now_ns + 1, 2)
    if not past:
        return None
    before = preview(schedule, past[-1] - _DAY_NS - 3 * _HOUR_NS, past[-1], 2)
    return Morning(before[-1] if before else past[-1] - _DAY_NS, past[-1])
