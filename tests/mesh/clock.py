"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it.

Tests marked ``jumping`` run in a ``JumpingLoop``; an hour of heartbeats takes as long as its work takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

#: 2025-01-06T00:00:00Z, a Monday: what a ``VirtualClock`` shows when its loop begins.
EPOCH_NS = 1_736_121_600 * 1_000_000_000


class Stuck(RuntimeError):
    """Nothing is ready, no timer is set, nothing real is in flight: the loop would wait for ever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Asked to wait, it lets time pass instead, unless something real is in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0
        self.in_flight = 0
        self.counting = threading.Lock()
        self.patience_s = 10.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.in_flight:
            # (Asked after looking for what is ready: whoever ends its work has told the loop before.)
            # Virtual time stands still for real work; the short wait only bounds a wake-up that never comes.
            return super().select(0.05)
        if timeout is None:
            # Only a signal or another thread could still wake this loop. Real seconds, since no other pass.
            end = time.monotonic() + self.patience_s
            while not ready and not self.in_flight and time.monotonic() < end:
                ready = super().select(0.05)
            if not ready and not self.in_flight:
                raise Stuck(f"nothing is ready, no timer is set, and nothing came for {self.patience_s:g} s")
            return ready
        self.passed_s += timeout
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. It begins at 0 and advances only when nothing is ready, by exactly what the next
    timer asks for.

    Real work (threads, sockets, processes) takes no virtual time: while it is in flight the clock stands still. Work
    given to an executor is counted by itself; for all else say ``busy(+1)`` before and ``busy(-1)`` after, or use
    ``real_work()``.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._own_executor: ThreadPoolExecutor | None = None
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed_s

    def busy(self, change: int) -> None:
        """Counts real work in flight; from any thread. Whoever ends its work tells the loop what came of it first."""
        with self._jumping.counting:
            if self._jumping.in_flight + change < 0:
                raise RuntimeError("more real work has ended than had begun")
            self._jumping.in_flight += change

    @contextlib.contextmanager
    def real_work(self) -> Iterator[None]:
        """The clock stands still while the block lasts."""
        self.busy(+1)
        try:
            yield
        finally:
            self.busy(-1)

    def patience(self, seconds: float) -> None:
        """For how many real seconds the loop waits, with no timer set, before it raises ``Stuck``."""
        self._jumping.patience_s = seconds

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:
        self._own_executor = executor
        super().set_default_executor(executor)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        if executor is None:
            if self._own_executor is None:
                self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="jumping"))
            executor = self._own_executor
            assert executor is not None
        work = executor.submit(func, *args)
        self.busy(+1)
        future = asyncio.wrap_future(work, loop=self)
        # By the work's own future, not the one handed out: that one may be cancelled while the thread still works.
        work.add_done_callback(lambda _: self._from_thread(self.busy, -1))
        return future

    def _from_thread(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self.call_soon_threadsafe(callback, *args)


class VirtualClock:
    """The clocks of a node (``caso_mesh.model.clock.Clock``) by the time of an event loop.

    ``wall_offset_s`` moves this clock's wall time against the other clocks of the same loop, as a wrong or set clock
    does; the monotonic time never jumps.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, epoch_ns: int = EPOCH_NS, wall_offset_s: float = 0.0
    ) -> None:
        self._loop = loop
        self._epoch_ns = epoch_ns
        self.wall_offset_s = wall_offset_s

    def now_ns(self) -> int:
        return self._epoch_ns + round((self._loop.time() + self.wall_offset_s) * 1_000_000_000)

    def monotonic_s(self) -> float:
        return self._loop.time()
