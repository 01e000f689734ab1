"""Days and hours as people write them: ``mon-fri 20:00-06:00; sat,sun``.

Pieces are separated by ``;``. Each is days, hours or both: without days it holds on all of them, without hours all day;
hours that end before they begin go on into the next day. ``zone Europe/Berlin`` as the first piece says whose time of
day is meant.
"""

from __future__ import annotations

import functools
import re

from msgspec import Struct

from caso_mesh.model.errors import InvalidValue

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
_HOURS = re.compile(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)\Z")
_ZONE = re.compile(r"zone\s+([A-Za-z0-9+_/-]{1,64})\Z")
_LONGEST = 500
_EXPECTED = "Use days and hours, as in zone Europe/Berlin; mon-fri 20:00-06:00; sat,sun"


class Hours(Struct, frozen=True):
    """``days`` count from Monday = 0; from ``start_min`` to before ``end_min`` (minutes of the day; into the next day if
    that is not later)."""

    days: frozenset[int]
    start_min: int
    end_min: int

    def holds(self, weekday: int, minute: int) -> bool:
        if self.start_min < self.end_min:
            return weekday in self.days and self.start_min <= minute < self.end_min
        early = minute < self.end_min and (weekday - 1) % 7 in self.days
        return early or (minute >= self.start_min and weekday in self.days)


class Window(Struct, frozen=True):
    """When something may begin. ``zone`` is a name of the IANA data base."""

    spans: tuple[Hours, ...]
    zone: str = "UTC"

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether a minute of a day (Monday = 0) lies in it."""
        return any(span.holds(weekday, minute) for span in self.spans)


@functools.lru_cache(maxsize=1000)
def parse_window(text: str) -> Window:
    """Raises ``InvalidValue``. Whether the zone exists is not looked at."""
    invalid = InvalidValue(value=text[:_LONGEST], what="window", expected=_EXPECTED)
    pieces = [piece.strip() for piece in text.split(";")]
    named = _ZONE.match(pieces[0])
    if named is not None:
        del pieces[0]
    if len(text) > _LONGEST or not pieces or not all(pieces):
        raise invalid
    spans = []
    for piece in pieces:
        when, (days, start, end) = piece.lower().split(), (frozenset(range(7)), 0, DAY_MIN)
        if ":" in when[-1]:
            hours = parse_hours(when.pop())
            if hours is None:
                raise invalid
            start, end = hours
        if when:
            found = parse_days(when.pop())
            if found is None or when:
                raise invalid
            days = found
        spans.append(Hours(days, start, end))
    return Window(tuple(spans), named[1] if named else "UTC")


def parse_days(word: str) -> frozenset[int] | None:
    """The days of ``mon-fri`` or ``sat,sun``; ``None`` if they are none. ``sat-mon`` goes over the end of the week."""
    found: set[int] = set()
    for part in word.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            return None
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return frozenset(found)


def parse_hours(word: str) -> tuple[int, int] | None:
    """First minute of the day and the one after the last of ``08:00-18:00``; ``None`` if it is no such thing."""
    match = _HOURS.match(word)
    if match is None or int(match[2]) > 59 or int(match[4]) > 59:
        return None
    start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    return None if start >= DAY_MIN or end > DAY_MIN else (start, end)
