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


class Randomness(Protocol):
    """Unpredictable bytes (``os.urandom``), or a seeded source in tests."""

    def __call__(self, size: int, /) -> bytes: ...
