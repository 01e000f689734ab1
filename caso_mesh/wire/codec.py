"""msgpack with every length bounded, and typed records in and out of it.

A decoder that trusts lengths is a way to spend the memory of another machine. Here no ext type is taken, strings,
binaries, arrays and maps are bounded by the size of the message that holds them, and the number of containers and
their nesting have bounds of their own (an empty map costs its sender one byte and its receiver 64).
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

import msgpack
import msgspec

from caso_mesh.model.errors import Misuse, PeerMalformed, PeerOversized

T = TypeVar("T")

#: Deepest nesting of arrays and maps in one message.
MAX_DEPTH = 32
#: Most arrays and maps in one message.
MAX_CONTAINERS = 262_144
#: Longest single array, most keys of a single map.
MAX_ITEMS = 1_048_576


def pack(obj: Any) -> bytes:
    """The msgpack of ``None``, bools, numbers, strings, binaries, lists and maps. Raises ``Misuse`` for all else."""
    try:
        packed: bytes = msgpack.packb(obj, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise Misuse(f"cannot be packed: {exc}") from exc
    return packed


def unpack(data: bytes | memoryview, *, max_bytes: int, peer: str = "the peer") -> Any:
    """What ``data`` holds, which is at most ``max_bytes`` long and from ``peer``.

    Raises ``PeerOversized``, or ``PeerMalformed`` for whatever is not exactly one bounded msgpack value.
    """
    size = len(data)
    if size > max_bytes:
        raise PeerOversized(peer=peer, size=size, limit=max_bytes)
    items = min(size, MAX_ITEMS)  # an array of n items takes n bytes at least: a longer one is a lie
    containers = 0

    def count(container: Any) -> Any:
        nonlocal containers
        containers += 1
        if containers > MAX_CONTAINERS:
            raise _BadValue(f"more than {MAX_CONTAINERS} arrays and maps")
        return container

    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_hook=count,
            list_hook=count,
            ext_hook=_no_ext,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=items,
            max_map_len=items,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError) as exc:
        # UnicodeDecodeError, ExtraData, FormatError and StackError are all ValueErrors; OutOfData is not.
        raise PeerMalformed(peer=peer, detail=str(exc) or type(exc).__name__) from exc
    if containers > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise PeerMalformed(peer=peer, detail=f"nested deeper than {MAX_DEPTH}")
    return value


def to_wire(record: Any) -> Any:
    """A record (or a list or map of them) as maps of plain values, ready for ``pack``. Bytes stay bytes."""
    return msgspec.to_builtins(record, builtin_types=(bytes,))


def from_wire(data: Any, type_: type[T], *, peer: str = "the peer") -> T:
    """The typed record in what ``unpack`` gave; unknown fields are ignored (mixed versions).

    Raises ``PeerMalformed`` naming the path of the offending field.
    """
    try:
        return msgspec.convert(data, type_, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, RecursionError) as exc:
        raise PeerMalformed(peer=peer, detail=str(exc)) from exc


class _BadValue(ValueError):
    pass


def _no_ext(code: int, data: bytes) -> NoReturn:
    raise _BadValue(f"ext type {code}")


def _is_deeper(value: Any, limit: int) -> bool:
    layer = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for container in layer:
            items = container.values() if type(container) is dict else container
            inner += [item for item in items if type(item) is list or type(item) is dict]
        if not inner:
            return False
        layer = inner
    return True
