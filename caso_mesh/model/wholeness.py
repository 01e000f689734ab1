"""Whether a record was understood whole: what a later version has added to one is dropped silently where it is decoded.

On the wire that is what lets versions work together. In the replicated log it would make another state of the same log, so
there it is looked at. A field whose value is empty (none, false, zero, nothing in it) may be missed: a later version that
adds one whose absence means the same as its empty value needs no level of its own (``features.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class NotUnderstood(msgspec.ValidationError):
    """There is something in a record that this version does not know."""


def decode_whole(decoder: msgspec.msgpack.Decoder[T], encode: Callable[[T], bytes], data: bytes) -> T:
    """The record in ``data``. Raises ``NotUnderstood``, and what ``decoder`` raises."""
    record = decoder.decode(data)
    again = encode(record)
    if again != data:
        # another version wrote it: an earlier one knew less, of a later one all that counts must have been understood
        where = not_understood(msgspec.msgpack.decode(data), msgspec.msgpack.decode(again))
        if where is not None:
            raise NotUnderstood(f"this version does not understand {where}")
    return record


def not_understood(given: Any, understood: Any, at: str = "") -> str | None:
    """Where in ``given``, plain data as it came, there is something that is not in ``understood``, the same as it was decoded
    and encoded again; ``None`` if it is whole."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            place = f"{at}.{key}" if at else str(key)
            if key not in understood:
                if value:
                    return place
            elif (found := not_understood(value, understood[key], place)) is not None:
                return found
    elif isinstance(given, list) and isinstance(understood, list):
        for number, (one, other) in enumerate(zip(given, understood, strict=False)):
            if (found := not_understood(one, other, f"{at}[{number}]")) is not None:
                return found
    return None
