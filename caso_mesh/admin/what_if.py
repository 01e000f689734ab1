"""``what-if``: what the coming night will be like, or would be without some servers or devices."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import re
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from caso_mesh.admin.outlook import Question, view_of
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.control.forecast import forecast
from caso_mesh.control.foretold import Away, Forecast, Known
from caso_mesh.control.growth import daily_bytes
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model import what_if as w
from caso_mesh.model.clock import Calendar
from caso_mesh.model.errors import InvalidValue, NotReady
from caso_mesh.planning.schedule import zone as zone_named

_SECOND = 1_000_000_000
_MOST_DAYS, _MOST_RUNS = 31, 10_000
#: For so long a thread that computes keeps the loop of this process waiting, each time that it wants to go on; and usually.
_SWITCH_S, _USUAL_S = 0.0005, sys.getswitchinterval()
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z")


class WhatIf:
    """Answers of the administrator. A night is worked out in a thread, on a copy, one at a time: the office goes on."""

    def __init__(self, *, keeper: ControlKeeper, known: Callable[[], Awaitable[Known]], calendar: Calendar) -> None:
        self._keeper = keeper
        self._known = known
        self._calendar = calendar
        self._one = asyncio.Lock()

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"what-if": self._answer}

    async def _answer(self, caller: Caller, request: w.WhatIf) -> w.WhatIfView:
        """Raises ``NotFound``, ``InvalidValue``, ``UnknownZone``."""
        async with self._one:
            state = self._keeper.state
            away = Away(
                frozenset(state.server_named(name).id for name in request.without),
                frozenset(state.device_named(name).id for name in request.without_devices),
            )
            now_ns = self._calendar.now_ns()
            question = _question(state, request, away, now_ns)
            known = await self._known()
            draft, ended = self._keeper.state.draft(), threading.Event()
            try:
                with beside_the_loop():
                    return await asyncio.to_thread(_worked_out, draft, known, question, ended)
            except asyncio.CancelledError:
                ended.set()
                raise


@contextlib.contextmanager
def beside_the_loop() -> Iterator[None]:
    """While a thread computes for seconds, the loop of this process goes on: with a site of a thousand servers it was
    late by 5 ms in the middle and by 120 ms at worst, so it is by 1 ms and 10 ms. Garbage is left until afterwards: to
    look for it among the rows of such a site takes as long as that. The interval is one of the whole process for want of a
    better: a thread that gives way by itself between two steps of a night made the loop late by twice as much at worst, and
    another process would need the whole state packed first. Nights that overlap, in two offices, leave the usual one."""
    collects = gc.isenabled()
    sys.setswitchinterval(_SWITCH_S)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_S)
        if collects:
            # What the thread has left counts as old without being looked at: else the loop would look at all of it now, for a
            # second and more.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def _worked_out(state: ControlState, known: Known, question: Question, ended: threading.Event) -> w.WhatIfView:
    def look(away: Away) -> Forecast:
        times = {"now_ns": question.now_ns, "from_ns": question.from_ns, "until_ns": question.until_ns}
        return forecast(state, known, away, go_on=lambda: not ended.is_set(), **times)

    found = look(question.away)
    usual = look(Away()) if question.away != Away() else None
    if ended.is_set():
        raise NotReady(reason="nobody waits for the answer any more")
    placed = {(part.job, part.source): part.device for part in found.parts if part.device}
    return view_of(state, known, question, found, usual, daily_bytes(state, known, placed, question.until_ns))


def _question(state: ControlState, request: w.WhatIf, away: Away, now_ns: int) -> Question:
    if not 1 <= request.days <= _MOST_DAYS:
        raise InvalidValue(value=request.days, what="number of days", expected="It lies between 1 and 31")
    from_ns = now_ns if request.from_ns is None else request.from_ns
    zone = zone_named(request.zone or usual_zone(state))
    until_ns = request.until_ns
    if until_ns is None:
        until_ns = _morning_ns(request.morning, zone, from_ns, request.days)
    longest_ns = _MOST_DAYS * 86400 * _SECOND
    if not now_ns <= from_ns < until_ns <= now_ns + 2 * longest_ns or until_ns - from_ns > longest_ns + 86400 * _SECOND:
        expected = "It begins now or later, and ends after that, within 31 days"
        raise InvalidValue(value=f"{until_ns // _SECOND}", what="end of the time", expected=expected)
    limit = max(0, min(request.limit, _MOST_RUNS))
    return Question(away, now_ns, from_ns, until_ns, zone, limit)


def usual_zone(state: ControlState) -> str:
    """The zone of most schedules."""
    zones = Counter(job.schedule.zone for job in state.job_list() if job.schedule is not None)
    return max(sorted(zones), key=lambda name: zones[name], default="UTC")


def _morning_ns(text: str, zone: datetime.tzinfo, from_ns: int, days: int) -> int:
    """The ``days``-th time after ``from_ns`` that a clock on the wall shows ``text``."""
    found = _TIME.match(text)
    if found is None:
        raise InvalidValue(value=text, what="time of day", expected="Use HH:MM, as in 06:30")
    at = datetime.time(int(found[1]), int(found[2]))
    begins = datetime.datetime.fromtimestamp(from_ns // _SECOND, zone)
    first = datetime.datetime.combine(begins.date(), at, zone)
    if round(first.timestamp()) * _SECOND <= from_ns:
        days += 1
    last = datetime.datetime.combine(begins.date() + datetime.timedelta(days=days - 1), at, zone)
    return round(last.timestamp()) * _SECOND
