"""What lies in a record on its way, as rows of fixed width in one value: of a record of a thousand small files there is
as little to unpack and to bound as of one of a large file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from caso_mesh.model.errors import PeerMalformed
from caso_mesh.vault.packs import Member

#: Id, offset and length in the raw bytes of the record.
_MEMBER = struct.Struct("<32sII")
#: The same, and in how many places it goes.
_PART = struct.Struct("<32sIII")
_OFFSET = struct.Struct("<Q")

#: A chunk of a record: id, offset and length in its raw bytes, and where it goes: (path, offset).
Part = tuple[bytes, int, int, tuple[tuple[bytes, int], ...]]


def pack_members(members: Iterable[Member]) -> bytes:
    return b"".join([_MEMBER.pack(*member) for member in members])


def members_of(packed: bytes, peer: str) -> list[Member]:
    """Raises ``PeerMalformed``."""
    if len(packed) % _MEMBER.size:
        raise PeerMalformed(peer=peer, detail="what lies in a record is cut off")
    return list(_MEMBER.iter_unpack(packed))


def pack_parts(parts: Sequence[Part]) -> tuple[bytes, tuple[bytes, ...], bytes]:
    """The chunks, and the paths and offsets of all of their places, one after the other."""
    places = [place for part in parts for place in part[3]]
    return (
        b"".join([_PART.pack(chunk, offset, length, len(where)) for chunk, offset, length, where in parts]),
        tuple([path for path, _ in places]),
        b"".join([_OFFSET.pack(at) for _, at in places]),
    )


def parts_of(packed: bytes, paths: Sequence[bytes], offsets: bytes, peer: str) -> list[Part]:
    """Raises ``PeerMalformed``."""
    if len(packed) % _PART.size or len(offsets) != len(paths) * _OFFSET.size:
        raise PeerMalformed(peer=peer, detail="what lies in a record is cut off")
    places = list(zip(paths, [at for (at,) in _OFFSET.iter_unpack(offsets)], strict=True))
    parts: list[Part] = []
    first = 0
    for chunk, offset, length, count in _PART.iter_unpack(packed):
        parts.append((chunk, offset, length, tuple(places[first : first + count])))
        first += count
    if first != len(places):
        raise PeerMalformed(peer=peer, detail="a record has other places than its parts")
    return parts
