"""Where a connection's work is executed: on its own thread, or in place."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import aiosqlite

T = TypeVar("T")


class Runner(Protocol):
    """One connection and the place where it is used. Work is executed one at a time, in the order of the calls."""

    async def start(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Open the connection. Raises what ``connect`` raises."""
        ...

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``work``. Once called, the work is done even if the caller is cancelled, in order."""
        ...

    async def stop(self) -> None:
        """Finish what was asked before and close."""
        ...

    def tell(self, callback: Callable[[], None]) -> None:
        """Called by work: have ``callback`` run in the event loop, before the caller of that work goes on."""
        ...


class ThreadRunner:
    """A connection on a thread of its own, by aiosqlite.

    aiosqlite has no public way to execute one function on its thread; this class is the only place that uses the
    private one. Its thread is not a daemon: ``stop`` must be reached or the process never exits.
    """

    def __init__(self) -> None:
        self._connection: aiosqlite.Connection | None = None
        self._loop = asyncio.get_running_loop()

    async def start(self, connect: Callable[[], sqlite3.Connection]) -> None:
        connection = aiosqlite.Connection(connect, iter_chunk_size=64)
        try:
            self._connection = await connection
        except BaseException:
            connection._thread.join()  # told to end by aiosqlite; it has nothing left to do
            raise

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        assert self._connection is not None
        result: T = await self._connection._execute(work, self._connection._conn)
        return result

    async def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
            connection._thread.join()  # it has answered its last request

    def tell(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(callback)


class InPlaceRunner:
    """A connection used by the event loop's own thread: deterministic, for simulation.

    One turn of the loop passes before the work, so that calls made in one turn meet, as they do on a thread.
    """

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._loop = asyncio.get_running_loop()

    async def start(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connection = connect()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._loop.call_soon(self._execute, work, future)
        return await future

    def _execute(self, work: Callable[[sqlite3.Connection], T], future: asyncio.Future[T]) -> None:
        assert self._connection is not None
        try:
            result = work(self._connection)
        except BaseException as error:
            if future.done():
                return
            future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    async def stop(self) -> None:
        await asyncio.sleep(0)  # what was asked before is executed in this turn
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def tell(self, callback: Callable[[], None]) -> None:
        callback()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` although the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError from (None if task.cancelled() else task.exception())
    return task.result()
