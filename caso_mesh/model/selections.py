"""Paths by the thousand in few bytes: what a restore selects travels and is kept like this, in the replicated log, too."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import DataDamaged, UsageError

#: A selection is one command of the replicated log, which has a bound of its own.
MOST_BYTES = 384 * 1024
#: Paths that are cheap enough to be listed one by one.
LISTED = 256
_MOST_UNPACKED = 64 << 20


def pack(paths: Iterable[bytes]) -> bytes:
    """Paths without their leading slash, in any order, each once. Raises ``UsageError`` for more than fit."""
    ordered = sorted(set(paths), key=path_key)
    text = b"\x00".join(ordered)
    packed = zlib.compress(text, 9)
    if len(packed) > MOST_BYTES or len(text) > _MOST_UNPACKED:
        detail = (
            f"The paths to restore take {len(packed)} bytes when they are packed, {MOST_BYTES} are allowed: name folders,"
            " or restore in parts"
        )
        raise UsageError(detail=detail)
    return packed


def unpack(packed: bytes) -> tuple[bytes, ...]:
    """The paths, in path order. Raises ``DataDamaged``, before memory is spent on what is too much."""
    if len(packed) > MOST_BYTES:
        raise DataDamaged(object="a selection of paths", detail=f"{len(packed)} bytes are too many")
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(packed, _MOST_UNPACKED)
    except zlib.error as error:
        raise DataDamaged(object="a selection of paths", detail=error) from None
    if not stream.eof or stream.unused_data:
        raise DataDamaged(object="a selection of paths", detail="it is too long or cut short")
    return tuple(text.split(b"\x00"))


def spread(paths: Sequence[bytes]) -> tuple[tuple[bytes, ...], bytes]:
    """Paths one by one, or, if they are many, packed. Raises as ``pack`` does."""
    return (tuple(paths), b"") if len(paths) <= LISTED else ((), pack(paths))
