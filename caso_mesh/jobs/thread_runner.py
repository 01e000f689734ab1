"""Workers as threads of this process, for meshes in memory: the same engines, no processes, no sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator

from caso_mesh.jobs.bulk_memory import MemoryHub
from caso_mesh.jobs.desk import Desk, Killed
from caso_mesh.jobs.messages import Ended, FromWorker, Progressed, ToWorker, Watch
from caso_mesh.jobs.perform import Tools, perform, set_start_ns
from caso_mesh.jobs.storing import BackendFor, folder_backend
from caso_mesh.jobs.task import Task
from caso_mesh.jobs.waiting import Busy, no_clock
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import WorkerDied
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import BackupSet


class ThreadWorker:
    """One worker. See ``runner.Worker``."""

    def __init__(self, task: Task, clock: Clock, busy: Busy) -> None:
        self.attempt = task.order.attempt
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[FromWorker] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._busy = busy
        self.desk = Desk(self.attempt, self._say, clock, busy=busy)

    def start(self, task: Task, tools: Tools) -> None:
        self._busy(1)
        threading.Thread(target=self._run, args=(task, tools), name=f"worker {self.attempt}", daemon=True).start()

    @property
    def bulk_channel(self) -> socket.socket | None:
        return None

    async def messages(self) -> AsyncIterator[FromWorker]:
        """See ``runner.Worker``."""
        while True:
            message = await self._heard.get()
            yield message
            if isinstance(message, Ended):
                await self._gone.wait()
                return

    async def send(self, message: ToWorker) -> None:
        """See ``runner.Worker``. Somebody who watches gets one report at once."""
        if isinstance(message, Watch):
            if not self._gone.is_set():
                self._heard.put_nowait(Progressed(self.desk.progress()))
            return
        self.desk.hear(message)

    async def kill(self) -> None:
        """See ``runner.Worker``."""
        self.desk.kill()
        await self._gone.wait()

    async def gone(self) -> None:
        """See ``runner.Worker``."""
        await self._gone.wait()

    def _say(self, message: FromWorker) -> None:
        self._loop.call_soon_threadsafe(self._heard.put_nowait, message)

    def _run(self, task: Task, tools: Tools) -> None:
        try:
            try:
                perform(task, self.desk, tools)
            except Killed:
                error = WorkerDied(attempt=self.attempt, detail="it was ended")
                self._say(
                    Ended(
                        state=AttemptState.INTERRUPTED,
                        counts=self.desk.tally.counts(),
                        seconds=self.desk.seconds,
                        failure=Failure(code=error.code, fields=error.fields),
                    )
                )
            self._loop.call_soon_threadsafe(self._gone.set)
        finally:
            self._busy(-1)


class ThreadRunner:
    """Starts workers as threads. See ``runner.Runner``.

    All servers of one process share one runner, or at least one ``hub``, over which both ends of an attempt meet.
    ``busy`` is told +1 and -1, from any thread, as workers begin to work and end or wait: while the sum is above zero a
    virtual clock must not jump. ``backend_for`` opens devices. ``started_ns`` remembers, by set, when its reading began
    in the file system's own time, which ``clock`` need not follow.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        busy: Busy = no_clock,
        backend_for: BackendFor = folder_backend,
        hub: MemoryHub | None = None,
        started_ns: dict[str, int] | None = None,
    ) -> None:
        self._clock = clock
        self._busy = busy
        self._backend_for = backend_for
        self._hub = hub or MemoryHub()
        self._started_ns = {} if started_ns is None else started_ns

    async def start(self, task: Task) -> ThreadWorker:
        worker = ThreadWorker(task, self._clock, self._busy)
        began_ns = time.time_ns()

        def published(backup: BackupSet) -> None:
            self._started_ns[backup.id] = began_ns

        def start_of(backup: BackupSet) -> int:
            return self._started_ns.get(backup.id, set_start_ns(backup))

        tools = Tools(
            meet=self._hub.meet,
            backend_for=self._backend_for,
            start_of=start_of,
            on_published=published,
            threads=0,
        )
        worker.start(task, tools)
        return worker
