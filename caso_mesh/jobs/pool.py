"""Threads that read: a bounded queue of jobs, each with its place in the order in which results are wanted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

S = TypeVar("S")
C_contra = TypeVar("C_contra", contravariant=True)

_MEANWHILE_S = 0.25


class Job(Protocol[C_contra]):
    """``run`` does the work with what its thread owns; ``done`` is set when it has ended, well or not."""

    done: bool

    def run(self, own: C_contra) -> None: ...


class Pool(Generic[S]):
    """``threads`` of them, each with its own ``make_own()``; with 0, jobs run where they are submitted.

    The first failure is raised by the next ``submit`` or ``wait``; from then on nothing more is run. Leaving the
    context ends the threads, after what they are at.
    """

    def __init__(self, threads: int, make_own: Callable[[], S]) -> None:
        self._count = threads
        self._make_own = make_own
        self._own: S | None = None
        self._queue: queue.Queue[Job[S] | None] = queue.Queue(maxsize=2 * threads)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        for number in range(self._count):
            thread = threading.Thread(target=self._work, name=f"reader-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._failure is None:
            self._failure = error
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, job: Job[S], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Waits while enough jobs are queued, and calls ``meanwhile`` now and then."""
        self._check()
        if self._threads:
            while True:
                try:
                    self._queue.put(job, timeout=_MEANWHILE_S)
                    return
                except queue.Full:
                    meanwhile()
        if self._own is None:
            self._own = self._make_own()
        job.run(self._own)
        job.done = True

    def wait(self, job: Job[S], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until the job is done; ``meanwhile`` is called now and then."""
        while not job.done and self._failure is None:
            with self._changed:
                if self._changed.wait_for(lambda: job.done or self._failure is not None, _MEANWHILE_S):
                    break
            meanwhile()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        own: S | None = None
        while (job := self._queue.get()) is not None:
            try:
                if self._failure is None:
                    if own is None:
                        own = self._make_own()
                    job.run(own)
            except BaseException as error:  # it is raised where somebody waits for the job
                if self._failure is None:
                    self._failure = error
            with self._changed:
                job.done = True
                self._changed.notify_all()
