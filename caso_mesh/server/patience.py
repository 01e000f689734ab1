"""Asking file systems that may not answer: a mount that hangs costs a thread, never the daemon."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from caso_mesh.model.errors import TimedOut

T = TypeVar("T")


class _OwnThread(concurrent.futures.Executor):
    """A thread for each call. They are daemons: one that hangs in the kernel does not keep the process from ending,
    and takes no place of the loop's few shared threads."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="file-work", daemon=True).start()
        return future


_THREADS = _OwnThread()


def begin(fn: Callable[[], T]) -> asyncio.Future[T]:
    """Starts ``fn`` in a thread of its own."""
    return asyncio.get_running_loop().run_in_executor(_THREADS, fn)


async def bounded(fn: Callable[[], T], *, what: str, seconds: float) -> T:
    """The result of ``fn``, which blocks. Raises ``TimedOut`` after ``seconds``, while its thread goes on alone."""
    try:
        async with asyncio.timeout(seconds):
            return await begin(fn)
    except TimeoutError:
        raise TimedOut(what=what, seconds=f"{seconds:g}") from None


#: So long a place is waited for that is only passed by, in seconds.
_WAIT_S = 1.0


class Place(Struct, frozen=True):
    """Where a path leads: ``real`` has no symbolic links; ``identity`` is (device, inode), None if nothing is there."""

    real: str
    identity: tuple[int, int] | None = None


class Places:
    """Where paths led when they last could be looked at: whoever only passes by one that hangs does not wait for it.
    Thread-safe; asking blocks, for a second at most."""

    def __init__(self, wait_s: float = _WAIT_S) -> None:
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[concurrent.futures.Future[Place], float]] = {}
        self._known: dict[str, Place] = {}

    def real(self, path: str) -> str:
        """The path without symbolic links."""
        return self.of(path).real

    def of(self, path: str) -> Place:
        """Where it leads; of one that hangs the last known, or the path as it is written."""
        with self._lock:
            asked = self._asked.get(path)
            if asked is None:
                asked = self._asked[path] = _THREADS.submit(_look, path), time.monotonic() + self._wait_s
        future, until_s = asked
        try:
            found = future.result(max(0.0, until_s - time.monotonic()))
        except TimeoutError:
            with self._lock:
                return self._known.get(path) or Place(os.path.normpath(path))
        with self._lock:
            if self._asked.get(path) is asked:
                del self._asked[path]
            self._known[path] = found
        return found


def _look(path: str) -> Place:
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError:
        return Place(real)
    return Place(real, (status.st_dev, status.st_ino))
