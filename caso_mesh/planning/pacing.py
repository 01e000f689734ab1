"""How long something waits so that no more than so many bytes go in a second: a bucket that holds nothing in reserve.

Its only state is the instant from which on the next bytes may go, which several processes can share. (The shape is that
of the virtual scheduling algorithm of ATM: ITU-T I.371, without tolerance.)
"""

from __future__ import annotations

#: What is paid for at once, as seconds of the rate: a change of the rate counts after this time at the latest.
STEP_S = 0.25
#: An instant further ahead than this is no promise of anybody alive, but of before the clock began anew.
_FURTHEST_S = 60.0


def portion(size: int, rate: int) -> int:
    """How many of ``size`` bytes are paid for next, at ``rate`` bytes per second."""
    return min(size, max(1, int(rate * STEP_S)))


def reserve(free_at_s: float, now_s: float, size: int, rate: int) -> float:
    """When ``size`` bytes may have gone, which is when the next ones may begin; both on the same monotonic clock."""
    if not now_s < free_at_s <= now_s + _FURTHEST_S:
        free_at_s = now_s
    return free_at_s + size / rate
