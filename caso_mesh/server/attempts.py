"""The attempts of this server: what its orders ask for is started, what they no longer name is ended, and everything
that happens becomes facts."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
from collections.abc import Callable

from msgspec import structs

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk import bulk_token
from caso_mesh.jobs.runner import Runner, Worker
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.errors import (
    CasoError,
    InternalError,
    PeerFault,
    PeerMalformed,
    PeerOversized,
    StateFull,
    Unavailable,
    UnknownAttempt,
    UnknownCall,
)
from caso_mesh.model.ids import IdSource
from caso_mesh.model.jobs import Counts, Failure
from caso_mesh.model.orders import AttemptOrder, Orders
from caso_mesh.model.settings import text
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import BackupSet
from caso_mesh.server.consulting import AdminPort
from caso_mesh.server.endings import Endings, TaskPort
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.queue import LocalAttempt, Queue
from caso_mesh.server.running import Running

log = logging.getLogger(__name__)

#: How long a worker that was asked to end may take before it is killed, and longer than a command that it has to wait for.
CANCEL_GRACE_S = 30.0
#: Pause after the state folder could not be written, before work is begun again.
_TROUBLE_PAUSE_S = 2.0
#: Two servers get the orders of an attempt at nearly the same time: a bulk channel that is asked for is known by then.
_ORDERS_COME_S = 5.0
#: How an attempt ends whose other end broke the protocol.
_FAULTS = frozenset({PeerFault.code, PeerMalformed.code, PeerOversized.code, UnknownCall.code})


class Attempts:
    """Keeps the workers in step with the orders. ``wrote`` is told of each set that was made here.

    ``may_begin``: whether an attempt may be begun now; call ``look_again`` when that changes. ``consulting``: what the administrator is told and asked. ``over`` is
    told of each worker's end, ``ended_writing`` when one that wrote files here is not in the orders any more and nothing of it
    is left, ``refused`` of who was turned away or broke the protocol: at an attempt, with an error's code,
    where from, and more.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        facts: FactWriter,
        runner: Runner,
        tasks: TaskPort,
        clock: Clock,
        new_id: IdSource,
        consulting: AdminPort,
        may_begin: Callable[[AttemptOrder], bool] = lambda order: True,
        over: Callable[[LocalAttempt], None] = lambda local: None,
        ended_writing: Callable[[], None] = lambda: None,
        wrote: Callable[[BackupSet], None] = lambda backup: None,
        refused: Callable[[AttemptOrder | None, str, str, dict[str, str]], None] = lambda order, code, source, more: (
            None
        ),
    ) -> None:
        self._queue = queue
        self._facts = facts
        self._runner = runner
        self._tasks = tasks
        self._clock = clock
        self._new_id = new_id
        self._consulting = consulting
        self._may_begin = may_begin
        self._over = over
        self._refused_to = refused
        self._held: dict[str, LocalAttempt] = {}
        self._running: dict[str, Running] = {}
        self._orders: Orders | None = None
        #: Orders that are acted upon now: what they name may begin.
        self._acting: Orders | None = None
        #: Attempts that write files here and are in the orders, or have a process yet.
        self._writers: frozenset[str] = frozenset()
        self._ended_writing = ended_writing
        self._changed = asyncio.Event()
        self._begin_after_s = 0.0
        self._endings = Endings(queue=queue, facts=facts, tasks=tasks, clock=clock, ended=self._note_end, told=wrote)

    # --- what others ask ---

    def running(self) -> tuple[str, ...]:
        """Attempts with a worker now."""
        return tuple(sorted(id_ for id_, each in self._running.items() if each.worker is not None))

    def holding(self) -> tuple[str, ...]:
        """Attempts of this server's orders that have not ended yet, or may begin, and those of which a process is left
        that writes. Whoever is in none of these, by the orders that this server holds, does nothing here any more."""
        found = {id_ for id_, local in self._held.items() if not local.ended}
        found |= {id_ for id_, each in self._running.items() if each.local.order.writes_files}
        if self._acting is not None:
            found |= {order.attempt for order in self._acting.attempts} - self._held.keys()
        return tuple(sorted(found))

    def counts(self) -> list[Counts]:
        """What the attempts with a worker have done so far, as they last reported."""
        return [each.counts for each in self._running.values() if each.worker is not None]

    def sets(self) -> set[str]:
        """Ids of the sets that held attempts make or have made."""
        return {local.set for local in self._held.values()}

    def bulk_channel(self, token: str, source: str) -> socket.socket | None:
        """Where the bulk connection that names ``token`` belongs (``wire.demux``); ``source``: where it comes from."""
        for each in self._running.values():
            secret = each.local.order.secret
            if each.worker is not None and secret and hmac.compare_digest(bulk_token(secret), token):
                return each.worker.bulk_channel
        if not self._knows(token):
            # the other end may have its orders already: whoever asks for what never comes is told of later
            asyncio.get_running_loop().call_later(_ORDERS_COME_S, self._still_unknown, token, source)
        return None

    def _knows(self, token: str) -> bool:
        orders = self._orders.attempts if self._orders is not None else ()
        known = [*orders, *(local.order for local in self._held.values())]
        return any(each.secret and hmac.compare_digest(bulk_token(each.secret), token) for each in known)

    def _still_unknown(self, token: str, source: str) -> None:
        if not self._knows(token):
            self._refused_to(None, UnknownAttempt.code, source, {})

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

    def look_again(self) -> None:
        """``may_begin`` may have changed."""
        self._changed.set()

    # --- at start ---

    async def recover(self) -> None:
        """Closes what the last daemon left open, as far as it can be told now: an attempt whose set may lie in a device
        that is away stays open until the device is back. Its workers are gone: the runner made sure of that."""
        self._held = await self._queue.attempts()
        for local in self._held.values():
            if not local.ended and local.began_at_ns is not None:
                self._endings.add(local)
        await self._endings.try_all()

    def _note_end(self, local: LocalAttempt) -> None:
        self._held[local.order.attempt] = local
        self._changed.set()

    # --- keeping in step ---

    async def run(self) -> None:
        """Acts on each new set of orders; never returns. Workers are ended with it."""
        pause: float | None = None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._endings.run())
            while True:
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    log.debug("looking at the orders again")
                self._changed.clear()
                pause = None
                if self._orders is None:
                    continue
                try:
                    self._acting = self._orders
                    await self._reconcile(self._orders, group)
                    self._acting = None
                    self._tell_writers(self._orders)
                    left = self._begin_after_s - self._clock.monotonic_s()
                    pause = left if left > 0 else None
                except CasoError as error:
                    # the disk of the state folder: what runs goes on, nothing is begun
                    log.error("no new work is taken: %s", error)
                    pause = _TROUBLE_PAUSE_S

    async def _reconcile(self, orders: Orders, group: asyncio.TaskGroup) -> None:
        wanted = {order.attempt: order for order in orders.attempts}
        for id_, local in list(self._held.items()):
            if id_ in wanted:
                continue
            each = self._running.get(id_)
            if each is not None:
                self._ask_to_end(each, group, dropped=True)
            elif local.ended or local.began_at_ns is None:
                await self._queue.forget_attempt(local)
                del self._held[id_]
        for id_, order in wanted.items():
            known = self._held.get(id_)
            if known is None:
                known = LocalAttempt(order=order, session=self._new_id(), set=self._new_id())
                await self._queue.save_attempt(known)
                self._held[id_] = known
            each = self._running.get(id_)
            if each is not None:
                await self._tell_pace(each, text(orders.settings, "bandwidth-limit"))
                await self._tell_term(each, orders, order)
                await self._tell_alone(each, order)
                if order.cancel:
                    self._ask_to_end(each, group, by_force=order.by_force)
            elif known.ended or known.began_at_ns is not None:
                continue
            elif order.cancel:
                await self._cancel_unbegun(known)
            elif self._may_begin(order) and self._clock.monotonic_s() >= self._begin_after_s:
                running = self._running[id_] = Running(structs.replace(known, order=order))
                running.task = group.create_task(self._execute(running, group))

    def _tell_writers(self, orders: Orders) -> None:
        wanted = {order.attempt for order in orders.attempts if order.writes_files}
        running = {id_ for id_, each in self._running.items() if each.local.order.writes_files}
        before, self._writers = self._writers, frozenset(wanted | running)
        if before - self._writers:
            self._ended_writing()

    async def _tell_pace(self, each: Running, bandwidth: str) -> None:
        if each.worker is not None and each.bandwidth != bandwidth:
            each.bandwidth = bandwidth
            await each.worker.send(say.Pace(bandwidth))

    async def _tell_term(self, each: Running, orders: Orders, order: AttemptOrder) -> None:
        """Both ends are given the ticket of the term that their server knows: they may have begun in different ones."""
        tickets = order.tickets
        if each.worker is not None and tickets and each.tickets != tickets:
            each.tickets = tickets
            issuer = next((row.public_key for row in orders.roster.rows if row.id == orders.admin), b"")
            await each.worker.send(say.Term(tickets, issuer, orders.authority.of_term))

    async def _tell_alone(self, each: Running, order: AttemptOrder) -> None:
        """The attempt at the second device is over, whatever the way there says: the first set need not wait for it."""
        if each.worker is not None and not each.alone and each.local.order.second is not None and order.second is None:
            each.alone = True
            await each.worker.send(say.Alone())

    def _ask_to_end(
        self, each: Running, group: asyncio.TaskGroup, *, by_force: bool = False, dropped: bool = False
    ) -> None:
        """``dropped``: the orders do not name it any more, for whatever reason."""
        each.asked_to_end.set()
        if by_force and not each.by_force and each.worker is not None:
            each.cancel = each.by_force = True
            log.warning("the worker of %s is killed, as was asked for", each.local.order.attempt)
            group.create_task(each.worker.kill())
        elif not each.cancel:
            each.cancel = True
            group.create_task(self._end_worker(each, dropped=dropped))

    async def _end_worker(self, each: Running, *, dropped: bool) -> None:
        if each.worker is not None and dropped:
            each.why_over = await self._consulting.why_over(each.local.order)
        if each.worker is not None:
            await each.worker.send(say.Cancel(each.why_over))
        asked_s = self._clock.monotonic_s()
        while each.task is not None and not each.task.done():
            left_s = max(asked_s, each.cleans_up_until_s) + CANCEL_GRACE_S - self._clock.monotonic_s()
            if left_s <= 0:
                break
            await asyncio.wait([each.task], timeout=left_s)
        if each.worker is not None:
            log.warning("the worker of %s does not end by itself", each.local.order.attempt)
            await each.worker.kill()

    async def _fence(self, running: Running, group: asyncio.TaskGroup) -> None:
        """Ends earlier attempts of the same part here, and waits until they have: until they have left the source as it was,
        and of what writes files until no process is left. Returns sooner if this one is to end."""
        order = running.local.order
        earlier = [
            other
            for other in self._running.values()
            if (other.local.order.run, other.local.order.source) == (order.run, order.source)
            and other.local.order.number < order.number
        ]
        for other in earlier:
            self._ask_to_end(other, group)
        ends = [other.task for other in earlier if other.task is not None]
        if ends:
            asked = asyncio.ensure_future(running.asked_to_end.wait())
            ended = asyncio.ensure_future(asyncio.wait(ends))
            try:
                await asyncio.wait([asked, ended], return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                ended.cancel()

    # --- one attempt ---

    async def _execute(self, running: Running, group: asyncio.TaskGroup) -> None:
        order = running.local.order
        try:
            try:
                await self._fence(running, group)
                if running.cancel:
                    await self._cancel_unbegun(running.local)
                else:
                    await self._work(running)
            except Exception as error:
                # one attempt that fails in an unforeseen way, or a full state folder, ends neither others nor the daemon
                if not isinstance(error, CasoError):
                    log.exception("attempt %s", order.attempt)
                else:
                    log.error("attempt %s: %s", order.attempt, error)
                self._begin_after_s = self._clock.monotonic_s() + _TROUBLE_PAUSE_S
                if running.local.began_at_ns is not None:
                    self._endings.add(running.local, running.end)
            if order.writes_files and running.started is not None:
                # what hangs in a file system may still write there when that answers: until then nobody else does
                await running.started.gone()
        finally:
            del self._running[order.attempt]
            self._changed.set()

    async def _work(self, running: Running) -> None:
        order = running.local.order
        now_ns = self._clock.now_ns()
        local = structs.replace(running.local, began_at_ns=now_ns, mark=await self._facts.mark())
        await self._save(running, local)
        try:
            task, warnings = await self._tasks.make(local)
            if warnings:
                lines = tuple(facts.LogLine(now_ns, "warning", text) for text in warnings)
                await self._facts.append(facts.JobLog(order.attempt, lines))
            worker = await self._runner.start(task)
        except StateFull:
            raise
        except CasoError as error:
            await self._refused(running, error)
            return
        except Exception as error:
            log.exception("attempt %s could not start", order.attempt)
            await self._refused(running, InternalError(detail=f"{type(error).__name__}: {error}"))
            return
        running.worker = running.started = worker
        running.bandwidth, running.tickets = task.bandwidth, order.tickets
        self._changed.set()  # what it is told of may have changed while it started
        try:
            if running.cancel:
                await worker.send(say.Cancel(running.why_over))
            async for message in worker.messages():
                await self._hear(running, worker, message)
        finally:
            running.worker = None
            await worker.kill()
            self._over(running.local)
        if running.end is None:
            log.error("the worker of %s ended without a word", order.attempt)
        if not running.local.ended:
            await self._endings.end(running.local, running.end)

    async def _refused(self, running: Running, error: CasoError) -> None:
        """It could not even start. What may pass by itself is tried again, the rest has failed."""
        order = running.local.order
        running.end = facts.AttemptEnded(
            order.attempt,
            AttemptState.INTERRUPTED if isinstance(error, Unavailable) else AttemptState.FAILED,
            Counts(),
            0.0,
            failure=Failure(code=error.code, fields=error.fields),
        )
        line = facts.LogLine(self._clock.now_ns(), "error", error.message)
        await self._facts.append(facts.JobLog(order.attempt, (line,)))
        await self._finish(running.local, running.end)

    async def _hear(self, running: Running, worker: Worker, message: say.FromWorker) -> None:
        order = running.local.order
        tells = order.end != "source"
        log = _log(order, message.lines) if isinstance(message, say.WithLines) else ()
        match message:
            case say.Began(type=type_):
                began = facts.AttemptStarted(order.attempt, order.media, order.device, type=type_)
                await self._write(*log, *([began] if tells else []))
            case say.Progressed(progress=progress):
                running.counts = progress.counts
                if tells:
                    await self._consulting.report((progress,))
            case say.Logged(lines=lines):
                await self._write(*_log(order, lines))
            case say.Excepted(exceptions=exceptions):
                if tells:
                    await self._facts.append(facts.AttemptExceptions(order.attempt, exceptions))
            case say.Verifying():
                await self._write(*log, facts.AttemptVerifying(order.attempt))
            case say.MayPublish(set=set_):
                await self._save(running, structs.replace(running.local, publishing=True))
                await self._write(*log, facts.Publishing(order.attempt, set_, order.device))
                await worker.send(say.Publish())
            case say.Published(set=set_, segment_digest=digest, segment_size=size):
                running.published = True
                await self._endings.wrote(set_, digest, size, before=log)
            case say.Consults():
                await self._write(*log)
                await worker.send(await self._consulting.ask(order, message))
            case say.CleansUp(limit_s=limit_s):
                running.cleans_up_until_s = self._clock.monotonic_s() + limit_s
            case say.TurnedAway(code=code, source=source, detail=detail):
                running.turned_away.add(code)
                self._refused_to(order, code, source, {"attempt": order.attempt, "reason": detail[:500]})
            case say.Ended(failure=failure):
                if isinstance(order.spec, EraseSpec):
                    # once its end is told, another server may begin on that device
                    await worker.gone()
                if failure is not None and failure.code in _FAULTS - running.turned_away:
                    detail = str(failure.fields.get("detail", ""))[:500]
                    self._refused_to(
                        order, failure.code, self._other_end(order), {"attempt": order.attempt, "reason": detail}
                    )
                await self._ended(running, message, log)

    def _other_end(self, order: AttemptOrder) -> str:
        """Where the other end of an attempt is reached, by the orders."""
        nodes = self._orders.nodes if self._orders is not None else ()
        other = order.media if order.end == "source" else order.other
        return next((each.addresses[0] for each in nodes if each.node == other and each.addresses), "")

    async def _write(self, *new: facts.Fact) -> None:
        if new:
            await self._facts.append(*new)

    async def _ended(self, running: Running, ended: say.Ended, log: tuple[facts.Fact, ...]) -> None:
        order = running.local.order
        died = ended.state is AttemptState.INTERRUPTED
        state = AttemptState.CANCELED if died and running.cancel else ended.state
        running.end = facts.AttemptEnded(
            order.attempt,
            state,
            ended.counts,
            ended.seconds,
            set=ended.set,
            type=ended.type,
            failure=ended.failure,
            predicted=ended.predicted,
            found=ended.found,
            catalogued=ended.catalogued,
        )
        # Where a set may be in the vault of which the worker did not live to tell, the vault is asked.
        known = running.published or ended.set is not None
        if running.local.publishing and (died or not known):
            await self._write(*log)
            return
        # The device's end tells how an attempt ended. The other end only tells that it died: then the device's end
        # would wait for it in vain.
        tell = order.end != "source" or (died and not running.cancel)
        await self._finish(running.local, running.end, tell=tell, before=log)
        running.local = self._held[order.attempt]

    async def _cancel_unbegun(self, local: LocalAttempt) -> None:
        # the mark goes first: a daemon that dies in between finds the end in the journal, and writes no second one
        local = structs.replace(local, began_at_ns=self._clock.now_ns(), mark=await self._facts.mark())
        await self._queue.save_attempt(local)
        await self._finish(local, facts.AttemptEnded(local.order.attempt, AttemptState.CANCELED, Counts(), 0.0))

    async def _finish(
        self,
        local: LocalAttempt,
        fact: facts.AttemptEnded,
        *,
        tell: bool | None = None,
        before: tuple[facts.Fact, ...] = (),
    ) -> None:
        if tell is None:
            tell = local.order.end != "source" or fact.state is not AttemptState.CANCELED
        self._note_end(await self._endings.finish(local, fact, tell=tell, before=before))

    async def _save(self, running: Running, local: LocalAttempt) -> None:
        await self._queue.save_attempt(local)
        running.local = local
        self._held[local.order.attempt] = local


def _log(order: AttemptOrder, lines: tuple[facts.LogLine, ...]) -> tuple[facts.Fact, ...]:
    return (facts.JobLog(order.attempt, lines),) if lines else ()
