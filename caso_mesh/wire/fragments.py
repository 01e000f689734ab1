"""Messages longer than one frame: announced, cut, joined under a bound.

A frame whose first byte is 0xC1, which msgpack never uses, announces a long message: its size in four bytes, big
endian. The frames after it are the raw bytes of that message, ``FRAGMENT_BYTES`` each but the last. Pieces are views
of the message, so that nothing is copied to send it. Fragments of two messages never mix.
"""

from __future__ import annotations

from collections.abc import Iterator

from caso_mesh.model.errors import PeerMalformed, PeerOversized
from caso_mesh.wire.limits import FRAGMENT_BYTES

_ANNOUNCE = 0xC1
#: Length of an announcement.
_HEADER = 5


def split(message: bytes) -> Iterator[bytes | memoryview]:
    """The frames that carry ``message``, in order."""
    if len(message) <= FRAGMENT_BYTES:
        yield message
        return
    yield bytes([_ANNOUNCE]) + len(message).to_bytes(4, "big")
    view = memoryview(message)
    for start in range(0, len(message), FRAGMENT_BYTES):
        yield view[start : start + FRAGMENT_BYTES]


class Joiner:
    """Frames in, messages out. ``max_message_bytes`` is checked before any of the message is kept."""

    def __init__(self, *, max_message_bytes: int, peer: str) -> None:
        self._max = max_message_bytes
        self._peer = peer
        self._missing = 0
        self._parts: list[bytes] = []

    def feed(self, frame: bytes) -> bytes | None:
        """The message that ``frame`` completes, if any. Raises ``PeerOversized`` or ``PeerMalformed``."""
        if self._missing:
            return self._fragment(frame)
        if frame[:1] == b"\xc1":
            if len(frame) != _HEADER:
                raise PeerMalformed(peer=self._peer, detail="a malformed announcement of a long message")
            self._missing = int.from_bytes(frame[1:], "big")
            if self._missing > self._max:
                raise PeerOversized(peer=self._peer, size=self._missing, limit=self._max)
            if self._missing <= FRAGMENT_BYTES:
                raise PeerMalformed(peer=self._peer, detail="a short message came in fragments")
            return None
        if len(frame) > self._max:
            raise PeerOversized(peer=self._peer, size=len(frame), limit=self._max)
        return frame

    def _fragment(self, frame: bytes) -> bytes | None:
        if len(frame) != min(self._missing, FRAGMENT_BYTES):
            raise PeerMalformed(peer=self._peer, detail=f"a fragment of {len(frame)} bytes, {self._missing} missing")
        self._parts.append(frame)
        self._missing -= len(frame)
        if self._missing:
            return None
        parts, self._parts = self._parts, []
        return b"".join(parts)
