"""The heartbeat of a server: it tells the administrator in office that it is there, more rarely the more servers there
are, and at once whenever there is another administrator or another link to it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from caso_mesh.model import nodes as n
from caso_mesh.model.errors import CasoError, NoAdmin
from caso_mesh.planning.liveness import heartbeat_interval_s
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

#: Around the interval, so that servers that were started together do not beat together for ever.
_EARLIEST, _LATEST = 0.9, 1.1
#: What part of a device must have been filled or freed to be told before the next heartbeat.
_MUCH_SPACE = 0.01


class Heart:
    """``interval_s`` is what the setting says, ``servers`` how many others there are; ``refused`` is told that the one
    that was asked is not in office, ``heard`` what the one in office says of alerts."""

    def __init__(
        self,
        *,
        admin: Callable[[], Callee],
        wait_admin: Callable[[], Awaitable[None]],
        beat: Callable[[], n.Heartbeat],
        heard: Callable[[tuple[n.AlertNews, ...]], Awaitable[None]],
        interval_s: Callable[[], float],
        servers: Callable[[], int],
        refused: Callable[[], Awaitable[None]],
        jitter: random.Random,
    ) -> None:
        self._admin = admin
        self._wait_admin = wait_admin
        self._beat = beat
        self._heard = heard
        self._interval_s = interval_s
        self._servers = servers
        self._refused = refused
        self._jitter = jitter
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """There is something that the administrator does not know yet, or somebody else may be it."""
        self._soon.set()

    async def run(self) -> None:
        """Never returns."""
        told: Callee | None = None
        while True:
            await self._wait_admin()
            self._soon.clear()
            try:
                link = self._admin()
                reply = await ask(link, "server.heartbeat", self._beat(), n.HeartbeatReply)
                await self._heard(reply.alerts)
                first, told = link is not told, link
            except NoAdmin:
                first, told = False, None
                await self._refused()
            except CasoError as error:
                first, told = False, None
                log.debug("heartbeat: %s", error)
            pause_s = heartbeat_interval_s(self._interval_s(), self._servers())
            # all came back at once to a new administrator: their second beats are spread over the whole interval
            pause_s *= self._jitter.uniform(0.0 if first else _EARLIEST, _LATEST)
            await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        """The interval, or less by ``soon``."""
        try:
            async with asyncio.timeout(seconds):
                await self._soon.wait()
        except TimeoutError:
            return


def is_news(before: tuple[n.DeviceReport, ...], now: tuple[n.DeviceReport, ...]) -> bool:
    """Whether devices changed so much that a rare heartbeat would tell it too late."""
    old = {report.device: report for report in before}
    return old.keys() != {report.device for report in now} or any(
        report.problem != old[report.device].problem
        or abs(report.free_bytes - old[report.device].free_bytes) > report.total_bytes * _MUCH_SPACE
        for report in now
    )
