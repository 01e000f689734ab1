"""The attempts of this server: what its orders ask for is started, what they no longer name is ended, and everything
that happens becomes facts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import structs

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk import bulk_token
from caso_mesh.jobs.runner import Runner, Worker
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError, InternalError
from caso_mesh.model.ids import IdSource
from caso_mesh.model.jobs import Counts, Failure, Progress
from caso_mesh.model.orders import AttemptOrder, Orders
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import BackupSet
from caso_mesh.planning.media import after_write
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.queue import LocalAttempt, Queue
from caso_mesh.server.tasks import TaskMaker

log = logging.getLogger(__name__)


class _Running:
    """An attempt with a task of its own."""

    def __init__(self, local: LocalAttempt) -> None:
        self.local = local
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.cancel = False
        self.fenced = False
        self.progress: Progress | None = None


class Attempts:
    """Keeps the workers in step with the orders."""

    def __init__(
        self,
        *,
        queue: Queue,
        facts: FactWriter,
        runner: Runner,
        tasks: TaskMaker,
        clock: Clock,
        new_id: IdSource,
        report: Callable[[tuple[Progress, ...]], Awaitable[None]],
    ) -> None:
        self._queue = queue
        self._facts = facts
        self._runner = runner
        self._tasks = tasks
        self._clock = clock
        self._new_id = new_id
        self._report = report
        self._held: dict[str, LocalAttempt] = {}
        self._running: dict[str, _Running] = {}
        self._orders: Orders | None = None
        self._changed = asyncio.Event()

    # --- what others ask ---

    def running(self) -> tuple[str, ...]:
        """Attempts with a worker now."""
        return tuple(sorted(id_ for id_, each in self._running.items() if each.worker is not None))

    def holding(self) -> tuple[str, ...]:
        """Attempts of this server's orders that have not ended yet."""
        return tuple(sorted(id_ for id_, local in self._held.items() if not local.ended))

    def bulk_channel(self, token: str) -> socket.socket | None:
        """Where the bulk connection that names ``token`` belongs (``wire.demux``)."""
        for each in self._running.values():
            if each.worker is not None and bulk_token(each.local.order.secret) == token:
                return each.worker.bulk_channel
        return None

    async def watch(self, attempts: tuple[str, ...], for_s: float) -> None:
        """Somebody watches these: their workers report twice a second for a while."""
        for id_ in attempts:
            each = self._running.get(id_)
            if each is not None and each.worker is not None:
                await each.worker.send(say.Watch(interval_s=0.5, for_s=for_s))

    def use(self, orders: Orders) -> None:
        """Takes new orders; ``run`` acts on them."""
        self._orders = orders
        self._changed.set()

    # --- at start ---

    async def recover(self) -> None:
        """Closes what the last daemon left open. Its workers are gone: the runner made sure of that.

        An attempt whose set may be in the vault is looked up there; every other is interrupted.
        """
        self._held = await self._queue.attempts()
        for local in list(self._held.values()):
            if local.ended or local.began_at_ns is None:
                continue
            found = await self._published(local) if local.publishing else None
            if found is None:
                await self._end(
                    local,
                    facts.AttemptEnded(local.order.attempt, AttemptState.INTERRUPTED, Counts(), 0.0),
                )
                continue
            digest, size = await asyncio.to_thread(_digest, self._tasks.segment_path(local.set))
            state = AttemptState.SUCCEEDED_WITH_EXCEPTIONS if found.exceptions else AttemptState.SUCCEEDED
            counts = Counts(
                files=found.files,
                entries=found.entries,
                bytes=found.bytes,
                bytes_read=found.bytes_read,
                bytes_stored=found.bytes_stored,
                exceptions=found.exceptions,
            )
            seconds = (found.ended_at_ns - found.started_at_ns) / 1e9
            local = await self._wrote(local, found, digest, size)
            await self._end(
                local,
                facts.AttemptEnded(local.order.attempt, state, counts, seconds, set=found.id, type=found.type),
            )

    async def _published(self, local: LocalAttempt) -> BackupSet | None:
        try:
            return await self._tasks.find_set(local.order, local.set)
        except CasoError as error:
            # the device is away: the set may be there, but nobody can tell; it is found when its catalog is rebuilt
            log.warning("attempt %s: cannot look for its set: %s", local.order.attempt, error)
            return None

    # --- keeping in step ---

    async def run(self) -> None:
        """Acts on each new set of orders; never returns. Workers are ended with it."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    if self._orders is not None:
                        await self._reconcile(self._orders, group)
        finally:
            for each in self._running.values():
                if each.worker is not None:
                    await each.worker.kill()

    async def _reconcile(self, orders: Orders, group: asyncio.TaskGroup) -> None:
        wanted = {order.attempt: order for order in orders.attempts}
        for id_, local in list(self._held.items()):
            if id_ in wanted:
                continue
            each = self._running.get(id_)
            if each is not None:
                await self._ask_to_end(each)
            elif local.ended or local.began_at_ns is None:
                del self._held[id_]
                await self._queue.forget_attempt(id_)
        for id_, order in wanted.items():
            known = self._held.get(id_)
            if known is None:
                known = LocalAttempt(order=order, session=self._new_id(), set=self._new_id())
                self._held[id_] = known
                await self._queue.save_attempt(known)
            each = self._running.get(id_)
            if each is not None:
                if order.cancel:
                    await self._ask_to_end(each)
                continue
            if known.ended:
                continue
            if order.cancel:
                await self._end(known, facts.AttemptEnded(id_, AttemptState.CANCELED, Counts(), 0.0))
                continue
            running = _Running(known)
            self._running[id_] = running
            running.task = group.create_task(self._execute(running))

    async def _ask_to_end(self, each: _Running) -> None:
        each.cancel = True
        if each.worker is not None:
            await each.worker.send(say.Cancel())

    async def _fence(self, order: AttemptOrder) -> None:
        """Ends earlier attempts of the same part here, and waits until they have."""
        for other in list(self._running.values()):
            earlier = other.local.order
            if earlier.run == order.run and earlier.source == order.source and earlier.number < order.number:
                other.fenced = other.cancel = True
                if other.worker is not None:
                    await other.worker.kill()
                if other.task is not None:
                    await asyncio.wait([other.task])

    # --- one attempt ---

    async def _execute(self, running: _Running) -> None:
        order = running.local.order
        try:
            await self._fence(order)
            if not running.cancel:
                await self._work(running)
            else:
                await self._end(running.local, facts.AttemptEnded(order.attempt, AttemptState.CANCELED, Counts(), 0.0))
        finally:
            del self._running[order.attempt]
            self._changed.set()

    async def _work(self, running: _Running) -> None:
        local, order = running.local, running.local.order
        try:
            local = await self._save(running, structs.replace(local, began_at_ns=self._clock.now_ns()))
            task, medium, warnings = await self._tasks.make(local)
            local = await self._save(running, structs.replace(local, medium=medium))
            await self._log(order, *(("warning", text) for text in warnings))
            worker = await self._runner.start(task)
        except CasoError as error:
            await self._refused(local, error)
            return
        except Exception as error:
            log.exception("attempt %s could not start", order.attempt)
            await self._refused(local, InternalError(detail=f"{type(error).__name__}: {error}"))
            return
        running.worker = worker
        if running.cancel:
            await worker.send(say.Cancel())
        try:
            async for message in worker.messages():
                await self._hear(running, worker, message)
        finally:
            running.worker = None
            await worker.kill()

    async def _refused(self, local: LocalAttempt, error: CasoError) -> None:
        await self._log(local.order, ("error", error.message))
        await self._end(
            local,
            facts.AttemptEnded(
                local.order.attempt,
                AttemptState.FAILED,
                Counts(),
                0.0,
                failure=Failure(code=error.code, fields=error.fields),
            ),
        )

    async def _hear(self, running: _Running, worker: Worker, message: say.FromWorker) -> None:
        order = running.local.order
        tells = order.end != "source"
        match message:
            case say.Began(type=type_):
                if tells:
                    await self._facts.append(facts.AttemptStarted(order.attempt, order.media, order.device, type=type_))
            case say.Progressed(progress=progress):
                running.progress = progress
                if tells:
                    await self._report((progress,))
            case say.Logged(lines=lines):
                await self._facts.append(facts.JobLog(order.attempt, lines))
            case say.Excepted(exceptions=exceptions):
                if tells:
                    await self._facts.append(facts.AttemptExceptions(order.attempt, exceptions))
            case say.Verifying():
                await self._facts.append(facts.AttemptVerifying(order.attempt))
            case say.MayPublish(set=set_):
                await self._save(running, structs.replace(running.local, publishing=True))
                await self._facts.append(facts.Publishing(order.attempt, set_, order.device))
                await worker.send(say.Publish())
            case say.Published(set=set_, segment_digest=digest, segment_size=size):
                running.local = await self._wrote(running.local, set_, digest, size)
            case say.Ended():
                await self._ended(running, message)

    async def _ended(self, running: _Running, ended: say.Ended) -> None:
        order = running.local.order
        state = ended.state
        if running.cancel and state is AttemptState.INTERRUPTED:
            state = AttemptState.CANCELED
        fact = facts.AttemptEnded(
            order.attempt, state, ended.counts, ended.seconds, set=ended.set, type=ended.type, failure=ended.failure
        )
        # The device's end tells how an attempt ended. The other end only tells that it died: then the device's end
        # would wait for it in vain.
        await self._end(running.local, fact, tell=order.end != "source" or state is AttemptState.INTERRUPTED)

    async def _wrote(self, local: LocalAttempt, backup: BackupSet, digest: bytes, size: int) -> LocalAttempt:
        new: list[facts.Fact] = [facts.SetPublished(backup)]
        if size:
            new.append(facts.CatalogDetail(backup.id, digest, size))
        if local.medium is not None:
            medium = after_write(local.medium, backup.bytes_stored, backup.ended_at_ns)
            await self._queue.save_medium(medium)
            new.append(facts.MediumChanged(medium))
            local = structs.replace(local, medium=medium)
        await self._facts.append(*new)
        return local

    async def _end(self, local: LocalAttempt, fact: facts.AttemptEnded, *, tell: bool = True) -> None:
        if tell:
            await self._facts.append(fact)
        local = structs.replace(local, ended=True)
        self._held[local.order.attempt] = local
        await self._queue.save_attempt(local)

    async def _save(self, running: _Running, local: LocalAttempt) -> LocalAttempt:
        running.local = local
        self._held[local.order.attempt] = local
        await self._queue.save_attempt(local)
        return local

    async def _log(self, order: AttemptOrder, *lines: tuple[str, str]) -> None:
        if lines:
            at_ns = self._clock.now_ns()
            log_lines = tuple(facts.LogLine(at_ns, level, text) for level, text in lines)  # type: ignore[arg-type]
            await self._facts.append(facts.JobLog(order.attempt, log_lines))


def _digest(path: Path) -> tuple[bytes, int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b"", 0
    return hashlib.sha256(data).digest(), len(data)
