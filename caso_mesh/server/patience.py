"""Asking file systems that may not answer: a mount that hangs costs a thread, never the daemon."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, TypeVar

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
