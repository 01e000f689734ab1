"""The event loop of a simulated mesh: virtual time, one thread, and nothing that depends on addresses in memory.

What the product gives to threads is done in place. Tasks and futures are numbered and hash by that number: where asyncio
keeps them in sets (task groups, ``asyncio.wait``) they come out in an order that is the same in each run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import selectors
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import Any, Self, TypeVar

from mesh.clock import Stuck

T = TypeVar("T")


class _Numbered:
    _numbers = itertools.count(1)
    _number: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        new = super().__new__(cls)
        new._number = next(_Numbered._numbers)
        return new

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Future(_Numbered, asyncio.Future[Any]):
    pass


class _Task(_Numbered, asyncio.Task[Any]):
    pass


class _NoSelector(selectors.SelectSelector):
    """Nothing outside ever happens: asked to wait, it lets time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        if timeout > 0:
            self.passed_s += timeout
        return []


class InPlace(Executor):
    """Calls at once, in the caller's thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class SimulationLoop(asyncio.SelectorEventLoop):
    """Begins at 0 and advances only when nothing is ready, by exactly what the next timer asks for."""

    def __init__(self) -> None:
        self._none = _NoSelector()
        super().__init__(self._none)
        _Numbered._numbers = itertools.count(1)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self._none.passed_s

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(loop=self)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **more: Any
) -> asyncio.Task[Any]:
    return _Task(coro, loop=loop, **more)
