"""Work about a device as a whole, in a simulated mesh: the product's own engine, step by step.

The engine blocks, so it has a thread of its own, of which only ever one runs: the loop waits while the engine works, and
the engine waits at each place where it looks whether it may go on. How long it waits there is up to the seed. So any seed
replays exactly, and a worker can end between any two objects that it deletes.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from mesh.simulation.script import Hub, Life, Script, Stage
from msgspec import structs

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.desk import Desk, Killed
from caso_mesh.jobs.perform import Tools, perform, set_start_ns
from caso_mesh.jobs.storing import folder_backend
from caso_mesh.jobs.task import Task
from caso_mesh.model.clock import Clock
from caso_mesh.model.device_jobs import InventorySpec
from caso_mesh.model.errors import AttemptFailed, WorkerDied
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AttemptState

#: So often a worker looks whether it may go on until its course shows.
_TURNS = 30
#: How long the worker of a dead daemon goes on at most.
_ORPHANED_S = 1.0


class _Turns:
    """The engine's thread and the loop's, one after the other. ``seconds``: how long the engine waits; ``None``: until it
    is told something."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self.over = False
        self.seconds: float | None = 0.0
        self._error: BaseException | None = None
        self._work = work
        self._engine, self._loop = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def take(self) -> None:
        """The engine's turn, until it waits or is over. Called by the loop."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._engine.release()
        self._loop.acquire()
        if self.over:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def wait(self, seconds: float | None) -> None:
        """The loop's turn. Called by the engine."""
        self.seconds = seconds
        self._loop.release()
        self._engine.acquire()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error
        self.over = True
        self._loop.release()


class _TurnsDesk(Desk):
    """A desk that lets the loop have its turn wherever the engine looks whether it may go on."""

    def __init__(self, attempt: str, send: Callable[[say.FromWorker], None], clock: Clock, script: Script) -> None:
        super().__init__(attempt, send, clock)
        self.turns: _Turns | None = None
        self._random = random.Random(f"{attempt}/{script.seconds}")
        self._script = script
        self._looks = 0
        self._turn = self._random.randint(1, _TURNS)

    def check(self) -> None:
        super().check()
        self._looks += 1
        if self._looks == self._turn:
            self._take_course()
        if self._random.random() < 0.3:
            self._let(self._random.uniform(0.0, self._script.pace_s))
            super().check()

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        while not predicate():
            super().check()
            self._let(None)
        return True

    def _let(self, seconds: float | None) -> None:
        assert self.turns is not None
        self.turns.wait(seconds)

    def _take_course(self) -> None:
        match self._script.course:
            case "fails":
                raise AttemptFailed(attempt=self.attempt, detail="as its script says")
            case "dies":
                raise Killed
            case "hangs":
                self.wait_for(lambda: False)
            case "deaf":
                while not self._killed:
                    self._let(None)
                raise Killed


class EngineWorker:
    """See ``runner.Worker``."""

    def __init__(self, task: Task, script: Script, hub: Hub, clock: Clock, life: Life) -> None:
        self.attempt = task.order.attempt
        self._hub = hub
        self._life = life
        self._heard: asyncio.Queue[say.FromWorker] = asyncio.Queue()
        self._said: list[say.FromWorker] = []
        self._told = asyncio.Event()
        self._ended: say.Ended | None = None
        self._desk = _TurnsDesk(self.attempt, self._said.append, clock, script)
        self._random = random.Random(f"{self.attempt}/orphan")
        # what a vault remembers beside itself lies in the state folder, which a crash moves
        device = None if task.device is None else structs.replace(task.device, cache_folder="")
        mine = structs.replace(task, device=device)
        self._turns = self._desk.turns = _Turns(lambda: self._perform(mine), f"engine of {self.attempt}")
        order = task.order
        self._stage = Stage(
            order.attempt, order.run, order.source, order.number, order.end, task.server, clock.monotonic_s()
        )
        hub.begin(self._stage, copies=isinstance(order.spec, InventorySpec))
        self._work = asyncio.get_running_loop().create_task(self._run(), name=f"worker {self.attempt}")
        life.workers[self._work] = self

    bulk_channel = None

    async def messages(self) -> AsyncIterator[say.FromWorker]:
        while True:
            message = await self._heard.get()
            yield message
            if isinstance(message, say.Ended):
                await asyncio.wait([self._work])
                return

    async def send(self, message: say.ToWorker) -> None:
        if not (isinstance(message, say.Cancel) and self._desk._script.course == "deaf"):
            self._desk.hear(message)
            self._told.set()

    async def kill(self) -> None:
        self._desk.kill()
        self._told.set()
        await asyncio.wait([self._work])

    async def gone(self) -> None:
        if not self._work.done():
            await asyncio.wait([self._work])

    def orphan(self) -> None:
        """Its daemon is dead: it ends within a second, and goes on until then."""
        asyncio.get_running_loop().call_later(self._random.uniform(0.0, _ORPHANED_S), self._end)

    def _end(self) -> None:
        self._desk.kill()
        self._told.set()

    async def _run(self) -> None:
        try:
            while True:
                self._told.clear()
                self._turns.take()
                for message in self._said:
                    if isinstance(message, say.Consults):
                        self._hub.on_consult(message)
                    self._heard.put_nowait(message)
                self._said.clear()
                if self._turns.over:
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._turns.seconds):
                        await self._told.wait()
        finally:
            self._hub.end(self._stage)
            self._life.workers.pop(self._work, None)

    def _perform(self, task: Task) -> None:
        tools = Tools(meet=_nobody, backend_for=folder_backend, start_of=set_start_ns, threads=0)
        try:
            perform(task, self._desk, tools)
        except Killed:
            died = WorkerDied(attempt=self.attempt, detail="it was ended")
            self._said.append(
                say.Ended(
                    state=AttemptState.INTERRUPTED, counts=self._desk.tally.counts(), seconds=self._desk.seconds,
                    failure=Failure(died.code, died.fields),
                )
            )  # fmt: skip


def _nobody(*given: object) -> None:
    raise AssertionError("work about a device has no other end")
