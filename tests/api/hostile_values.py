"""What a hostile peer may put into a call: right in shape, with values that nobody sane sends; and wrong in shape."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, inspect

_HUGE = (1 << 64) - 1
_STRINGS = (
    "", "\x00", "a" * 300, "x" * 70_000, "../../etc/passwd", "..", "/", "~local", "\u202e\n\r\t\x1b[2J", "'; DROP TABLE journal; --",
    "%s%n{}{0.__class__}", "*", "[", "a:b:c", ":", "server:", "-", "--help", "JOB@", "@", "#", "a/b@20250101T020000Z#1", "9" * 30, "nan",
    "9999-12-31T23:59:59Z", "0001-01-01", "-5s", "99999999999d", "0 0 30 2 *", "device:", "any", "\U0001f4a9",
)  # fmt: skip
_INTEGERS = (0, 1, -1, 255, 1 << 31, (1 << 63) - 1, -(1 << 63), _HUGE, 86400 * 10**9)
_FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324)
_BYTES = (
    b"",
    b"\0",
    b"/",
    b"/etc/shadow",
    b"/../..",
    b"relative",
    b"\xff\xfe" * 10,
    b"x" * 70_000,
    b"\0" * 32,
    b"\xdd\xff\xff\xff\xff",
)
_ANYTHING: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    "x",
    b"x",
    [],
    {},
    [[[]]],
    {"a": 1},
    _HUGE,
    float("nan"),
    ["x"] * 1000,
)
#: So deep values are made, and so many of a list that is long.
_DEEPEST, _MANY = 4, 400


class Hostile:
    """``names`` are ids and names that there are: what is asked for is often found. ``wrong``: how often a value is of another
    type."""

    def __init__(self, chance: random.Random, names: Sequence[str], *, wrong: float = 0.0) -> None:
        self._chance = chance
        self._names = tuple(names)
        self._wrong = wrong

    def request(self, of: type[Struct]) -> Any:
        """Something like a request of this type, ready to be packed."""
        return self._of(inspect.type_info(of), 0)

    def _of(self, type_: Any, depth: int) -> Any:
        chance = self._chance
        if chance.random() < self._wrong:
            return chance.choice(_ANYTHING)
        match type_:
            case inspect.StrType():
                return chance.choice(self._names if chance.random() < 0.6 else _STRINGS)
            case inspect.IntType():
                return chance.choice(_INTEGERS)
            case inspect.FloatType():
                return chance.choice(_FLOATS)
            case inspect.BoolType():
                return chance.random() < 0.5
            case inspect.BytesType():
                return chance.choice(_BYTES)
            case inspect.NoneType():
                return None
            case inspect.EnumType(cls=cls):
                return chance.choice([each.value for each in cls])
            case inspect.LiteralType(values=values):
                return chance.choice(list(values))
            case inspect.UnionType(types=types):
                return self._of(chance.choice(types), depth)
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
                many = _MANY if depth < 2 and chance.random() < 0.02 else chance.choice((0, 1, 1, 2, 3))
                return [self._of(item, depth + 1) for _ in range(many if depth < _DEEPEST else 0)]
            case inspect.TupleType(item_types=items):
                return [self._of(item, depth + 1) for item in items]
            case inspect.DictType(key_type=key, value_type=value):
                keys = [self._of(key, depth + 1) for _ in range(chance.choice((0, 1, 2)))]
                return {each if isinstance(each, str | int) else "x": self._of(value, depth + 1) for each in keys}
            case inspect.StructType():
                return self._struct(type_, depth)
            case inspect.AnyType():
                return chance.choice(_ANYTHING)
        raise NotImplementedError(f"the table of calls holds a {type_}")

    def _struct(self, type_: inspect.StructType, depth: int) -> dict[str, Any]:
        chance = self._chance
        made: dict[str, Any] = {type_.tag_field: type_.tag} if type_.tag_field else {}
        for field in type_.fields:
            if field.required or chance.random() < 0.6:
                made[field.encode_name] = self._of(field.type, depth + 1)
        if made and chance.random() < self._wrong:
            del made[chance.choice(list(made))]
        if chance.random() < 0.02:
            made["of a later version"] = chance.choice(_ANYTHING)
        return made
