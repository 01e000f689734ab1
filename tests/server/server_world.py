"""Stand-ins for what stands below and beside a server's attempts: a vault in a dictionary, workers that follow a
script, a state folder in memory of which a copy outlives its daemon."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import structs

from caso_mesh.database import Database
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.task import Task
from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model.errors import DeviceVanished
from caso_mesh.model.jobs import BackupSpec, Counts, Failure, Progress, SourceRoots, Target, TargetKind
from caso_mesh.model.mesh import MeshInfo, Roster, Server
from caso_mesh.model.orders import AttemptOrder, Authority, Orders
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet, Medium
from caso_mesh.server.attempts import Attempts
from caso_mesh.server.facts import FactWriter, Forwarding
from caso_mesh.server.queue import MIGRATIONS, LocalAttempt, Queue

NODE, SOURCE, ADMIN = "node", "source", "admin"


class Clock:
    """Wall time moves by hand, monotonic time with the loop."""

    def __init__(self) -> None:
        self.ns = 1_800_000_000 * 10**9

    def now_ns(self) -> int:
        return self.ns

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


def ids() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"id{next(numbers):04d}"


def order(attempt: str = "j@1#1", *, end: str = "both", number: int = 1, **changes: Any) -> AttemptOrder:
    run = attempt.rpartition("#")[0]
    return AttemptOrder(
        attempt=attempt,
        run=run,
        job="j",
        job_name="job",
        source=NODE if end == "both" else SOURCE,
        media=NODE,
        end=end,  # type: ignore[arg-type]
        device="dev",
        spec=BackupSpec((SourceRoots(NODE, (b"srv",)),), Target(TargetKind.ANY)),
        number=number,
        secret=attempt.encode(),
        **changes,
    )


def orders(*attempts: AttemptOrder, index: int = 1) -> Orders:
    server = Server(name="alpha", id=NODE, public_key=b"", encryption_key=b"", wrapped_id_key=b"", joined_at_ns=0)
    roster = Roster(MeshInfo("mesh", "m", 0), (), ())
    return Orders(Authority(1, 1, index), ADMIN, server, roster, (), {}, (), (), attempts)


def backup_set(id_: str, attempt: AttemptOrder, medium: str = "ALPHA-000001") -> BackupSet:
    return BackupSet(
        id=id_, mesh="mesh", vault="v", source=attempt.source, source_name="s", server=NODE, server_name="alpha",
        device=attempt.device, device_name="d", medium=medium, media_set="keep-4-weeks", type=BackupType.FULL,
        job=attempt.job, run=attempt.run, attempt=attempt.attempt, started_at_ns=0, ended_at_ns=10**9, roots=(b"srv",),
        filters=b"", root=b"r", parent=None, files=3, entries=4, bytes=30, bytes_read=30, bytes_stored=20, exceptions=0,
    )  # fmt: skip


class World:
    """What outlives a daemon: the vault, segments, and whether the device answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault: dict[str, BackupSet] = {}
        self.device_away = False
        self.make_fails: Exception | None = None
        self.medium = True

    # TaskPort

    def tasks(self, queue: Queue) -> _Tasks:
        return _Tasks(self, queue)


class _Tasks:
    def __init__(self, world: World, queue: Queue) -> None:
        self._world = world
        self._queue = queue

    async def make(self, local: LocalAttempt) -> tuple[Task, list[str]]:
        if self._world.make_fails is not None:
            raise self._world.make_fails
        medium = await self._queue.take_medium(
            lambda known: known[0] if known else Medium("ALPHA-000001", "dev", "keep-4-weeks", NODE, 0, 0, None)
        )
        task = Task(
            order=local.order, server=NODE, server_name="alpha", source_name="s", id_key=b"", chunker_seed=0,
            identity_folder="", public_keys={}, session=local.session, set=local.set, medium=medium.label,
        )  # fmt: skip
        return task, ["something is left out"]

    async def find_set(self, order: AttemptOrder, set_id: str) -> BackupSet | None:
        if self._world.device_away:
            raise DeviceVanished(device="d", detail="away")
        return self._world.vault.get(set_id)

    def segment_path(self, set_id: str) -> Path:
        return self._world.folder / f"{set_id}.segment"


class ScriptedWorker:
    """Says what its script says; ``step`` in the script may be a message, or a callable that is awaited."""

    bulk_channel = None

    def __init__(self, task: Task, script: Callable[[ScriptedWorker], AsyncIterator[say.FromWorker]]) -> None:
        self.task = task
        self.attempt = task.order.attempt
        self.heard: list[say.ToWorker] = []
        self.told = asyncio.Event()
        self.dead = asyncio.Event()
        #: Cleared, something of it hangs although it was killed.
        self.left = asyncio.Event()
        self.left.set()
        self.asked_whether_gone = False
        self._script = script

    async def messages(self) -> AsyncIterator[say.FromWorker]:
        steps = self._script(self)
        while True:
            step = asyncio.ensure_future(anext(steps, None))  # type: ignore[arg-type]
            dead = asyncio.ensure_future(self.dead.wait())
            try:
                await asyncio.wait([step, dead], return_when=asyncio.FIRST_COMPLETED)
                if step.done() and not step.cancelled():
                    message = step.result()
                    if message is None:
                        break
                    yield message
                    if isinstance(message, say.Ended):
                        return
                    continue
                break
            finally:
                step.cancel()
                dead.cancel()
                await asyncio.gather(step, dead, return_exceptions=True)
        yield say.Ended(AttemptState.INTERRUPTED, Counts(), 0.0, failure=Failure("worker-died", {}))

    async def send(self, message: say.ToWorker) -> None:
        self.heard.append(message)
        self.told.set()

    async def kill(self) -> None:
        self.dead.set()

    async def gone(self) -> None:
        self.asked_whether_gone = True
        await self.left.wait()

    async def wait_for(self, kind: type) -> None:
        while not any(isinstance(each, kind) for each in self.heard):
            self.told.clear()
            await self.told.wait()


class ToldAdmin:
    """An administrator who is told, and answers what ``answer`` says."""

    def __init__(self) -> None:
        self.reported: list[Progress] = []
        self.asked: list[tuple[AttemptOrder, say.Consults]] = []
        self.answer = say.Answered()

    async def report(self, progress: tuple[Progress, ...]) -> None:
        self.reported.extend(progress)

    async def why_over(self, order: AttemptOrder) -> str:
        return "gamma ended it: there is nothing to read"

    async def ask(self, order: AttemptOrder, question: say.Consults) -> say.Answered:
        self.asked.append((order, question))
        return self.answer


class FakeRunner:
    def __init__(self, script: Callable[[ScriptedWorker], AsyncIterator[say.FromWorker]]) -> None:
        self.script = script
        self.workers: dict[str, ScriptedWorker] = {}
        self.started: list[str] = []

    async def start(self, task: Task) -> ScriptedWorker:
        self.started.append(task.order.attempt)
        worker = self.workers[task.order.attempt] = ScriptedWorker(task, self.script)
        return worker


def backs_up(world: World, **changes: Any) -> Callable[[ScriptedWorker], AsyncIterator[say.FromWorker]]:
    """The script of a backup that goes well; ``changes`` are fields of its set."""

    async def script(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        task = worker.task
        yield say.Began(BackupType.FULL)
        yield say.Progressed(Progress(task.order.attempt, AttemptState.RUNNING, Counts(files=1), 0, 1.0))
        yield say.MayPublish(task.set)
        await worker.wait_for(say.Publish)
        segment = world.folder / f"{task.set}.segment"
        segment.write_bytes(b"detail")
        made = structs.replace(backup_set(task.set, task.order, task.medium), **changes)
        world.vault[task.set] = made
        yield say.Published(made, hashlib.sha256(b"detail").digest(), 6)
        yield say.Ended(AttemptState.SUCCEEDED, Counts(files=3), 1.0, set=task.set, type=BackupType.FULL)

    return script


class Daemon:
    """The part of a daemon that has attempts, between its start and its death."""

    def __init__(self, attempts: Attempts, queue: Queue, journal: Journal, writer: FactWriter) -> None:
        self.attempts = attempts
        self.queue = queue
        self.journal = journal
        self.facts = writer
        self.reported: list[Progress] = []
        #: Once for each time that it told that a restore has left nothing.
        self.ended_writing: list[bool] = []

    async def all_facts(self) -> list[Any]:
        return [fact async for fact in self.facts.since(None)]

    async def ends(self, attempt: str = "j@1#1") -> list[facts.AttemptEnded]:
        return [f for f in await self.all_facts() if isinstance(f, facts.AttemptEnded) and f.attempt == attempt]

    async def of(self, kind: type) -> list[Any]:
        return [fact for fact in await self.all_facts() if isinstance(fact, kind)]


@asynccontextmanager
async def daemon(
    folder: Path, world: World, runner: FakeRunner, *, run: bool = True, may_begin: Callable[[Any], bool] = lambda order: True,
    wrap: Callable[[Database], Database] = lambda database: database, clock: Clock | None = None,
    forwarding: Callable[[], Forwarding] = Forwarding,
) -> AsyncIterator[Daemon]:  # fmt: skip
    new_id, clock = ids(), clock or Clock()
    numbered = folder / "starts"
    start = int(numbered.read_text()) + 1 if numbered.exists() else 1
    numbered.write_text(str(start))
    async with (
        Database.open(folder / "queue.db", MIGRATIONS, durable=False, same_thread=True) as database,
        Journal.open(
            folder / "journal.db", NODE, clock=clock, new_id=lambda: f"s{start}{new_id()}", same_thread=True
        ) as journal,
    ):
        queue = Queue(wrap(database))
        journal._database = wrap(journal._database)
        writer = FactWriter(journal, new_id, clock, forwarding, node=NODE)
        await writer.load()
        told = ToldAdmin()
        reported = told.reported

        ended_writing: list[bool] = []
        attempts = Attempts(
            queue=queue,
            facts=writer,
            runner=runner,
            tasks=world.tasks(queue),
            clock=clock,
            new_id=lambda: f"s{start}{new_id()}",
            consulting=told,
            may_begin=may_begin,
            ended_writing=lambda: ended_writing.append(True),
        )
        made = Daemon(attempts, queue, journal, writer)
        made.reported, made.ended_writing = reported, ended_writing
        await attempts.recover()
        task = asyncio.create_task(attempts.run()) if run else None
        try:
            yield made
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def changed(order: AttemptOrder, **changes: Any) -> AttemptOrder:
    return structs.replace(order, **changes)
