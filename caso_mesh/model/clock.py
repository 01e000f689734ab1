"""Time and randomness as they are passed in. Nothing in ``model``, ``planning`` or ``control`` calls a real clock."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970 in UTC. May jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some start; never goes back. For timeouts only."""
        ...


class Calendar(Protocol):
    """The wall clock as schedules go by it, and how long to wait for an instant of it. Tests of long runs let it run
    fast, while everything else (timeouts, tickets, certificates, facts) keeps the time of the ``Clock``."""

    def now_ns(self) -> int:
        """As ``Clock.now_ns``."""
        ...

    def wait_s(self, until_ns: int) -> float:
        """Seconds of real time from now until ``now_ns()`` is ``until_ns``; below zero if that is past."""
        ...


class WallCalendar:
    """Days as long as the clock's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def wait_s(self, until_ns: int) -> float:
        return (until_ns - self._clock.now_ns()) / 1_000_000_000


class Randomness(Protocol):
    """Unpredictable bytes (``os.urandom``), or a seeded source in tests."""

    def __call__(self, size: int, /) -> bytes: ...
