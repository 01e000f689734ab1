"""Which version of the bulk dialogue a program speaks: what two workers say to each other (``docs/wire.md``).

Both ends tell the newest version that they speak and the oldest that they still do, and use the newest that both know.
Whoever has none in common with the other is told so before anything is sent; what needs such a pair of servers waits.
"""

from __future__ import annotations

from msgspec import Struct

#: The newest version that this program speaks. A change of a message that an end of the version before would not take as it
#: is meant needs the next number.
NEWEST = 2
#: The oldest that it still speaks.
OLDEST = 2
#: Who does not tell spoke the first at feature level 1, and the second later.
_FIRST, _SECOND = 1, 2


class Dialects(Struct, frozen=True):
    """From ``oldest`` to ``newest``, both spoken. ``told``: whether that was said, or is only known of its time."""

    newest: int
    oldest: int
    told: bool = True

    def __str__(self) -> str:
        numbers = str(self.newest) if self.newest == self.oldest else f"{self.oldest} to {self.newest}"
        return numbers if self.told else f"{numbers}, which it does not tell"


OWN = Dialects(NEWEST, OLDEST)


def heard(newest: int, oldest: int, feature_level: int | None = None) -> Dialects:
    """What a program speaks that says these numbers; 0 and 0 if it is of a time when nobody said. ``feature_level``: that
    of its program, if known."""
    if newest < 1:
        known = _FIRST if feature_level == 1 else _SECOND
        return Dialects(known, _FIRST, told=False)
    return Dialects(newest, min(max(oldest, 1), newest))


def in_common(one: Dialects, other: Dialects) -> int | None:
    """The version that two programs use with each other; ``None``: they have none in common."""
    newest = min(one.newest, other.newest)
    return newest if newest >= max(one.oldest, other.oldest) else None
