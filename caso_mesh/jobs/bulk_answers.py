"""The end of a bulk channel that answers: each call once, whatever connection it came over."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from caso_mesh.jobs.bulk import SPAN, Answering
from caso_mesh.model.errors import CasoError, InternalError, PeerFault, UnknownCall
from caso_mesh.wire.link import Link
from caso_mesh.wire.stream import Stream

log = logging.getLogger(__name__)

#: Threads that answer when order does not matter.
_ANSWERING_THREADS = 2


class Call(Struct, frozen=True):
    """``number`` rises by one; answers below ``low`` have arrived and need not be kept."""

    number: int
    low: int
    params: Any = None


class Answers:
    """Each call of the far end once, whatever connection it came over, and its answer as often as it is asked for."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._pool = concurrent.futures.ThreadPoolExecutor(
            1 if answering.ordered else _ANSWERING_THREADS, thread_name_prefix="answering"
        )
        self._quick = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="quick")
        self._kept: dict[int, asyncio.Future[Any]] = {}
        self._held: dict[int, tuple[str, Any]] = {}
        self._next = 1
        self._low = 1

    async def answer(self, call: Call, method: str) -> Any:
        """Raises what the engine answers with."""
        kept = self._kept.get(call.number)
        if kept is None:
            # what is below ``low`` has its answer, so it was here; and nobody is further ahead than ``SPAN``
            if (
                call.number < self._low
                or not call.low <= min(call.number, self._next)
                or call.number - call.low >= SPAN
            ):
                raise PeerFault(peer="the other end", detail="it does not keep to the window of calls")
            kept = self._kept[call.number] = asyncio.get_running_loop().create_future()
            self._held[call.number] = (method, call.params)
            self._submit()
        for number in [number for number in self._kept if number < call.low]:
            del self._kept[number]
        self._low = max(self._low, call.low)
        # the link may go, the work goes on
        return await asyncio.shield(kept)

    def close(self) -> None:
        for pool in (self._pool, self._quick):
            pool.shutdown(wait=False, cancel_futures=True)
        for future in self._kept.values():
            future.cancel()

    def _submit(self) -> None:
        while self._next in self._held:
            method, params = self._held.pop(self._next)
            future = self._kept[self._next]
            self._next += 1
            pool = self._quick if method in self._answering.quick else self._pool
            work = asyncio.get_running_loop().run_in_executor(pool, self._answering.handle, method, params)
            work.add_done_callback(lambda done, future=future: _pass_on(done, future))  # type: ignore[misc]


def _pass_on(done: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
    if done.cancelled() or future.done():
        future.cancel()
        return
    error = done.exception()
    if error is None:
        future.set_result(done.result())
        return
    if not isinstance(error, CasoError):
        log.error("answering failed", exc_info=error)
        error = InternalError(detail=f"{type(error).__name__}: {error}")
    future.set_exception(error)
    future.exception()  # nobody may be waiting any more


class OnlyCalls:
    """What the links of a channel serve."""

    def __init__(self, asked: Callable[[Link, str, Any], Awaitable[Any]]) -> None:
        self._asked = asked

    async def call(self, link: Link, method: str, params: Any) -> Any:
        return await self._asked(link, method, params)

    async def notify(self, link: Link, method: str, params: Any) -> None:
        raise UnknownCall(peer=link.remote_address, call=method)

    async def stream(self, link: Link, method: str, params: Any, stream: Stream) -> None:
        raise UnknownCall(peer=link.remote_address, call=method)
