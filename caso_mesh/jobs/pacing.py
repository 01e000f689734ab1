"""The limit of bandwidth of this server, kept by each of its workers for what it sends to other servers."""

from __future__ import annotations

import asyncio
import datetime
import fcntl
import logging
import os
import struct
from collections.abc import Callable

from caso_mesh.model.bandwidth import Bandwidth, parse_bandwidth
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError
from caso_mesh.planning.pacing import portion, reserve
from caso_mesh.planning.schedule import zone

log = logging.getLogger(__name__)

#: Messages up to so many bytes are counted, but wait for nobody: they are what keeps an attempt together.
_SMALL = 4096
_FREE_AT = struct.Struct("<d")


class Shared:
    """When the next bytes may go, for all workers of a server: eight bytes of a file, on the machine's clock. Without a
    path it is this worker's own."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if path else -1
        self._own_s = 0.0

    def reserve(self, now_s: float, size: int, rate: int) -> float:
        """As ``planning.pacing.reserve``."""
        if self._fd < 0:
            self._own_s = reserve(self._own_s, now_s, size, rate)
            return self._own_s
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            kept = os.pread(self._fd, _FREE_AT.size, 0)
            free_at_s = _FREE_AT.unpack(kept)[0] if len(kept) == _FREE_AT.size else 0.0
            free_at_s = reserve(free_at_s, now_s, size, rate)
            os.pwrite(self._fd, _FREE_AT.pack(free_at_s), 0)
            return free_at_s
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Pacer:
    """Waits before bytes are sent. ``limit`` is asked for the setting each time: it may change; what cannot be read
    changes nothing. Raises ``InvalidValue``, ``UnknownZone`` for the first one."""

    def __init__(
        self,
        limit: Callable[[], str],
        shared: Shared,
        clock: Clock,
    ) -> None:
        self._limit = limit
        self._shared = shared
        self._clock = clock
        self._text = limit()
        self._bandwidth, self._zone = _read(self._text)

    async def wait(self, size: int) -> None:
        """Until ``size`` bytes may go."""
        waits = size > _SMALL
        while size > 0 and (rate := self.rate()) is not None:
            now_s = self._clock.monotonic_s()
            paid = portion(size, rate)
            until_s = self._shared.reserve(now_s, paid, rate)
            size -= paid
            if waits:
                await asyncio.sleep(until_s - now_s)

    def rate(self) -> int | None:
        """Bytes per second now, ``None`` for no limit."""
        text = self._limit()
        if text != self._text:
            self._text = text
            try:
                self._bandwidth, self._zone = _read(text)
            except CasoError as error:
                log.warning("the limit of bandwidth stays as it was: %s", error)
        if not self._bandwidth.limits:
            return None
        wall = datetime.datetime.fromtimestamp(self._clock.now_ns() // 1_000_000_000, self._zone)
        return self._bandwidth.rate(wall.weekday(), wall.hour * 60 + wall.minute)


def _read(text: str) -> tuple[Bandwidth, datetime.tzinfo | None]:
    """The limit and its zone, ``None`` for the machine's own. Raises ``InvalidValue``, ``UnknownZone``."""
    bandwidth = parse_bandwidth(text)
    return bandwidth, zone(bandwidth.zone) if bandwidth.zone else None
