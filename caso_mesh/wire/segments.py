"""Paths that drop large packets without telling anybody (RFC 4821, section 1: a path MTU black hole).

TCP sends packets as large as the next hop takes. Where a tunnel further on takes less, and what it says of that (ICMP
"fragmentation needed") is filtered, small packets pass and large ones never do: a connection opens, and hangs with the
first long message. So each hello is filled up to a packet of full size, in both directions; and where a connection opens
and the other end is not heard from, the next one to that address has smaller segments in both directions, since TCP
announces the size that it takes when it connects.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Self

#: Bytes of a segment, one step after the other: as the kernel has it; what every path of IPv6 takes, some bytes of a tunnel
#: left free; what every path of IPv4 takes.
STEPS: tuple[int | None, ...] = (None, 1200, 536)
#: Longer segments than those of jumbo frames are those of this machine itself, which loses none.
_LONGEST_BYTES = 9_000
#: Whoever hangs up sooner has heard what was sent, and an orderly refusal is no silence.
SILENT_S = 2.5
#: After so long the way is tried with large packets again.
_NARROW_S = 3600.0


class Segments:
    """What is known of the ways from here, by address; the monotonic clock is passed in."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, float]] = {}

    def of(self, address: str, now_s: float) -> int | None:
        """Bytes of a segment to dial with; ``None``: as the kernel has it."""
        step, since_s = self._steps.get(address, (0, now_s))
        return STEPS[step] if now_s - since_s < _NARROW_S else None

    def silent(self, address: str, used: int | None, now_s: float) -> None:
        """The end at ``address`` was not heard from, though a connection with segments of ``used`` bytes opened: the next
        one has smaller ones, or if these are the smallest, large ones again."""
        for known in [each for each, (_, since_s) in self._steps.items() if now_s - since_s >= _NARROW_S]:
            del self._steps[known]
        step = (STEPS.index(used) + 1) % len(STEPS)
        if step:
            self._steps[address] = (step, now_s)
        else:
            self._steps.pop(address, None)

    def whole(self, address: str) -> None:
        """Large packets have come through."""
        self._steps.pop(address, None)


class Sockets:
    """Makes the sockets of one dial, with segments of ``segment_bytes``, and keeps hold of the last one, to tell afterwards
    whether it was connected. A context manager."""

    def __init__(self, segment_bytes: int | None) -> None:
        self._segment_bytes = segment_bytes
        self._spare: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._spare is not None:
            self._spare.close()

    def make(self, where: tuple[Any, ...]) -> socket.socket:
        """A socket for an entry of ``getaddrinfo``."""
        family, kind, protocol, _, _ = where
        made = socket.socket(family, kind, protocol)
        try:
            if self._segment_bytes is not None:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, self._segment_bytes)
            if self._spare is not None:
                self._spare.close()
            self._spare = made.dup()
        except BaseException:
            made.close()
            raise
        return made

    def hang_up(self) -> None:
        """Ends the connection: asyncio lets one go, and does not close it, whose TLS is given up half way."""
        if self._spare is not None:
            with contextlib.suppress(OSError):
                self._spare.shutdown(socket.SHUT_RDWR)

    def packets_matter(self) -> bool:
        """Whether it was connected, and over a way that has packets to be lost for their size."""
        if self._spare is None:
            return False
        with contextlib.suppress(OSError):
            self._spare.getpeername()
            return bool(filling_bytes(self._spare))
        return False


def filling_bytes(sock: socket.socket) -> int:
    """How many bytes fill a packet of full size; 0 where that proves nothing. Of a socket that is connected."""
    with contextlib.suppress(OSError):
        size = int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        return size if size <= _LONGEST_BYTES else 0
    return 0
