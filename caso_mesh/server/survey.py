"""What this server sees of its devices: looked at every few seconds, which takes a fraction of a millisecond for each, and at
once when it may have changed. What is new is told at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from caso_mesh.model.nodes import DeviceReport
from caso_mesh.model.orders import Orders
from caso_mesh.server.beating import is_news
from caso_mesh.server.storage import Storage

#: A disk that went, or lost its vault, is told within a heartbeat.
_EACH_S = 3.0


class Survey:
    """``news`` is told when the administrator should hear of it before the next heartbeat."""

    def __init__(self, *, storage: Storage, orders: Callable[[], Orders], node: str, news: Callable[[], None]) -> None:
        self._storage = storage
        self._orders = orders
        self._node = node
        self._news = news
        self._wake = asyncio.Event()
        self.reports: tuple[DeviceReport, ...] = ()

    def look(self) -> None:
        """How much is free, or which devices there are, may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            self._wake.clear()
            mine = [device for device in self._orders().devices if device.path_on(self._node)]
            before, self.reports = self.reports, await self._storage.reports(mine)
            if is_news(before, self.reports):
                self._news()
            try:
                async with asyncio.timeout(_EACH_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
