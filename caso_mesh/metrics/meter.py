"""Takes the readings of one server, one scrape at a time, and how long its event loop keeps others waiting."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from caso_mesh.admin.measures import MeshReadings
from caso_mesh.metrics.exposition import Seat, exposition
from caso_mesh.model.metrics import Exposition
from caso_mesh.server import measures
from caso_mesh.server.node import ServerNode

#: What was taken within this time is given again: however many ask, it is taken once.
_FRESH_S = 1.0
_PROBE_EACH_S, _PROBE_S = 1.0, 0.01
#: Delays are remembered for a minute.
_PROBES = 60


class MeshMeasures(Protocol):
    async def take(self) -> MeshReadings: ...


class Meter:
    """``office`` gives the figures of the mesh while this server is in office, ``seat`` what it is."""

    def __init__(
        self, node: ServerNode, *, office: Callable[[], MeshMeasures | None], seat: Callable[[], Seat]
    ) -> None:
        self._node = node
        self._office = office
        self._seat = seat
        self._taking = asyncio.Lock()
        self._last: tuple[float, Exposition] | None = None
        self._delays: deque[float] = deque(maxlen=_PROBES)

    def handlers(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
        """The call that every server answers for itself."""

        async def answer(peer: Any, request: Any, link: Any) -> Exposition:
            return await self.take()

        return {"metrics": answer}

    @property
    def delay_s(self) -> float:
        """The longest of the last minute, while ``run`` probes."""
        return max(self._delays, default=0.0)

    async def run(self) -> None:
        """Probes the event loop; never returns."""
        while True:
            self._delays.append(await _delay(_PROBE_EACH_S))

    async def take(self) -> Exposition:
        """The figures as of now. Raises what the databases raise."""
        async with self._taking:
            now_s = time.monotonic()
            if self._last is None or now_s - self._last[0] >= _FRESH_S:
                self._last = (now_s, await self._take())
            return self._last[1]

    async def _take(self) -> Exposition:
        delay_s = self.delay_s if self._delays else await _delay(_PROBE_S)
        office = self._office()
        mesh = await office.take() if office is not None else None
        node = await measures.take(self._node)
        text = await asyncio.to_thread(exposition, node, self._seat(), delay_s, mesh)
        return Exposition(text, mesh is not None)


async def _delay(seconds: float) -> float:
    """How much later than ``seconds`` from now the event loop comes back."""
    began_s = time.monotonic()
    await asyncio.sleep(seconds)
    return max(0.0, time.monotonic() - began_s - seconds)
