"""A limit of bandwidth by time of day, as people write it: ``mon-fri 08:00-18:00 20MB; 50MB``.

Pieces are separated by ``;``, and the first that fits the time of day holds. A piece is days, hours and a rate; without
days it holds on all of them, without hours all day. Hours that end before they begin go on into the next day. A rate is
a size per second, ``none`` no limit, ``closed`` that no job begins for which something would be sent; what runs already goes
on as slowly as can be. Where no piece fits there is no limit either. ``zone Europe/Berlin`` as the first piece
says whose time of day is meant; without it, it is that of each server, which only that server knows: ``closed`` needs one.
"""

from __future__ import annotations

import re
from typing import NoReturn

from msgspec import Struct

from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.hours import DAY_MIN, Hours, parse_days, parse_hours
from caso_mesh.model.units import parse_size

#: What means that there is no limit.
NONE = "none"
#: What means that nothing is to be sent.
CLOSED = "closed"
#: Slower than this (bytes a second) nothing would ever end, and the other server would be taken for lost.
SLOWEST = 1000

_ZONE = re.compile(r"zone\s+([A-Za-z0-9+_/-]{1,64})\Z")
_EXPECTED = "Use days, hours and a size per second, as in mon-fri 08:00-18:00 20MB; 50MB"


class Span(Hours, frozen=True):
    """``rate`` in bytes per second in these hours, ``None`` = no limit. ``closed``: nothing begins that needs to send."""

    rate: int | None
    closed: bool = False


class Bandwidth(Struct, frozen=True):
    """``zone`` is a name of the IANA data base; empty: the time of day of the server that sends."""

    spans: tuple[Span, ...] = ()
    zone: str = ""

    @property
    def limits(self) -> bool:
        """Whether there is a limit at any time."""
        return any(span.rate is not None for span in self.spans)

    def rate(self, weekday: int, minute: int) -> int | None:
        """Bytes per second at a minute of a day (Monday = 0), ``None`` for no limit."""
        return next((span.rate for span in self.spans if span.holds(weekday, minute)), None)

    def is_closed(self, weekday: int, minute: int) -> bool:
        """Whether nothing begins at a minute of a day (Monday = 0) that needs to send."""
        return next((span.closed for span in self.spans if span.holds(weekday, minute)), False)


def parse_bandwidth(text: str) -> Bandwidth:
    """Raises ``InvalidValue``. Whether the zone exists is not looked at."""
    pieces = [piece.strip() for piece in text.lower().split(";")]
    zone = ""
    named = _ZONE.match(text.split(";", maxsplit=1)[0].strip())
    if named is not None:
        zone = named[1]
        del pieces[0]
    if not pieces or not all(pieces):
        raise _invalid(text)
    spans = tuple(_span(piece, text) for piece in pieces)
    if not zone and any(span.closed for span in spans):
        raise InvalidValue(value=text, what="bandwidth", expected="Hours that are closed need a zone: zone NAME; ...")
    return Bandwidth(spans, zone)


def _span(piece: str, text: str) -> Span:
    *when, rate = piece.split()
    days, hours = frozenset(range(7)), (0, DAY_MIN)
    if when and ":" in when[-1]:
        hours = parse_hours(when.pop()) or _refuse(text)
    if when:
        days = parse_days(when.pop()) or _refuse(text)
    if when:
        raise _invalid(text)
    start, end = hours
    return Span(days, start, end, SLOWEST if rate == CLOSED else _rate(rate, text), closed=rate == CLOSED)


def _rate(word: str, text: str) -> int | None:
    if word == NONE:
        return None
    try:
        rate = parse_size(word.removesuffix("/s"))
    except InvalidValue:
        raise _invalid(text) from None
    if 0 < rate < SLOWEST:
        raise InvalidValue(value=text, what="bandwidth", expected="A limit is at least 1kB a second; none is no limit")
    return rate or None


def _refuse(text: str) -> NoReturn:
    raise _invalid(text)


def _invalid(text: str) -> InvalidValue:
    return InvalidValue(value=text, what="bandwidth", expected=_EXPECTED)
