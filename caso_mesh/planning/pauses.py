"""How long what fails is left alone: each time about twice as long, so that what is away is not asked again and again, and not
all of it at the same moment.

(Exponential backoff with "equal jitter": half of each pause is certain, half by chance.)
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from caso_mesh.model.clock import Randomness

_STEPS = 1 << 16


class _Pause(Struct):
    length_s: float
    until_s: float


class Pauses:
    """By key. ``first_s``: the longest that the first pause of one may be; ``longest_s``: that any may be, in seconds."""

    def __init__(self, *, first_s: float, longest_s: float, randomness: Randomness) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._randomness = randomness
        self._pauses: dict[str, _Pause] = {}

    def failed(self, key: str, now_s: float) -> None:
        """It is left alone for a while."""
        known = self._pauses.get(key)
        length_s = self._first_s if known is None else min(2 * known.length_s, self._longest_s)
        chance = int.from_bytes(self._randomness(2), "big") / _STEPS
        self._pauses[key] = _Pause(length_s, now_s + length_s * (1 + chance) / 2)

    def is_due(self, key: str, now_s: float) -> bool:
        """Whether it may be tried."""
        known = self._pauses.get(key)
        return known is None or known.until_s <= now_s

    def over(self, key: str) -> None:
        """It may be tried at once, and the next pause is a first one: it has worked, or there is a reason why it may."""
        self._pauses.pop(key, None)

    def keep(self, keys: Iterable[str]) -> None:
        """Of all others nothing is remembered."""
        kept = frozenset(keys)
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in kept}

    def next_s(self, now_s: float) -> float | None:
        """Seconds until the next one is due; ``None``: nothing is left alone."""
        return min((max(0.0, pause.until_s - now_s) for pause in self._pauses.values()), default=None)
