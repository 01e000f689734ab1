"""Which runs a site must have, worked out without anything of the product: by going through the minutes of the day and
looking at the clock on the wall."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from mesh.day.site import BY_NAME, EXCEPTING, FAILING, LISTS, Listed, Made, Plan, Site, When
from msgspec import Struct

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)


class Due(Struct, frozen=True, order=True):
    """A due time of one template of one list."""

    at: datetime
    list: str
    template: str


class Away(Struct, frozen=True):
    """When a server was not there."""

    since: datetime
    until: datetime

    def covers(self, since: datetime, until: datetime) -> bool:
        return self.since <= since and until <= self.until


@functools.cache
def due_times(when: When, since: datetime, until: datetime) -> tuple[datetime, ...]:
    """After ``since``, before ``until``. What is due at a time of day is due in the first minute of that day in which the
    clock shows this time or a later one: what is skipped comes right after the gap, what is repeated comes once."""
    return tuple(_due_times(when, since, until))


def _due_times(when: When, since: datetime, until: datetime) -> Iterator[datetime]:
    zone, done = ZoneInfo(when.zone), set[date]()
    minute = since.replace(second=0, microsecond=0) - 2 * _DAY  # a day of the wall is looked at from its beginning
    while minute < until:
        wall = minute.astimezone(zone)
        if when.every == "half-hour":
            comes = wall.minute % 30 == when.minute
        else:
            comes = _is_day(when.every, wall.date()) and wall.date() not in done
            comes = comes and (wall.hour, wall.minute) >= (when.hour, when.minute)
        if comes:
            done.add(wall.date())
            if minute > since:
                yield minute
        minute += _MINUTE


def _is_day(every: str, day: date) -> bool:
    sunday = day.weekday() == 6
    return {"day": True, "sunday": sunday, "last-sunday": sunday and (day + 7 * _DAY).month != day.month}[every]


def due_runs(here: Site, since: datetime, until: datetime) -> dict[Due, str | None]:
    """Every run that is due, each with the template that supersedes it."""
    found: dict[Due, str | None] = {}
    for row in LISTS:
        found |= _of_list(row, here.plans[row.plan], since, until)
    return found


def _of_list(row: Listed, plan: Plan, since: datetime, until: datetime) -> dict[Due, str | None]:
    at: dict[datetime, list[Made]] = {}
    for made in plan.templates:
        for due in due_times(made.when, since, until) if made.when is not None else ():
            at.setdefault(due, []).append(made)
    return {
        Due(due, row.name, made.name): together[0].name if plan.supersedes and made is not together[0] else None
        for due, together in at.items()
        for made in together
    }


def end_of(here: Site, due: Due, away: Mapping[str, Away], sets_away: Mapping[Due, Away]) -> str:
    """The state in which a run that is not superseded ends. ``sets_away``: of a copy, when nobody reached a set."""
    row, made = BY_NAME[due.list], here.made(due.list, due.template)
    if row.name == FAILING and made.type != "duplicate":
        return "failed"
    if made.cancel_after_s is not None:
        return "timed-out"
    lacking = [away[server] for server in row.servers if server in away] if made.type != "duplicate" else []
    lacking += [sets_away[due]] if due in sets_away else []
    last = due.at + timedelta(seconds=made.window_s)
    if not made.catch_up and any(each.covers(due.at, last) for each in lacking):
        return "missed"
    return "succeeded-with-exceptions" if row.name == EXCEPTING else "succeeded"


def instant(at_ns: int) -> datetime:
    """Whole seconds of it."""
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC)
