"""What leaves for people: messages to recipients, each by its own queue, so that a slow or dead one holds up no other.

``post`` is for every part of the office that tells people something. What was sent is a fact in the journal of whoever is
in office, so that the next one there knows; what is in a queue is in memory alone: after a change of administrator
whoever posted it posts it again, with the same key.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from caso_mesh.admin import hooks, mailing
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.duties import end_if_cancelled
from caso_mesh.admin.ports import Facts
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import CasoError, MessageRefused, NotDelivered
from caso_mesh.model.logons import Credentials
from caso_mesh.model.notices import Message, Recipient
from caso_mesh.model.states import AlertKind
from caso_mesh.planning.notices import HORIZON_NS, Book, Told

log = logging.getLogger(__name__)

FAILED = "notification-failed"
#: A recipient is said to be out of reach after so many failures in a row: once may be a restart, or greylisting.
_FAILURES_TOLD = 3
#: A message that is not taken is given up after so many tries.
_REFUSED_TRIES = 3
#: Messages in one queue. What is to be sent beyond them is posted again.
_MOST_QUEUED = 200
#: Mails under way at once.
_MAILS = 8
#: What was sent a moment ago may not be in the tables yet.
_MOST_RECENT = 2000
_SECOND = 1_000_000_000


class Pauses(Struct, frozen=True):
    """Between two tries: the first, twice as long each time, at most the longest; a part of each is by chance."""

    first_s: float = 5.0
    longest_s: float = 1800.0

    def after(self, failures: int, chance: float) -> float:
        """``chance`` lies between 0 and 1."""
        pause_s: float = min(self.longest_s, self.first_s * 2 ** min(failures - 1, 30))
        return pause_s * (0.5 + chance / 2)


class _Entry:
    def __init__(self, message: Message, keys: tuple[str, ...], posted_at_ns: int) -> None:
        self.message = message
        self.keys = keys
        self.posted_at_ns = posted_at_ns
        self.tries = 0


class _Queue:
    """What waits for one recipient, and how it went lately."""

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}
        self.failures = 0
        self.problem = ""
        self.changed = asyncio.Event()
        self.working = False


class Outbox:
    """A duty of the office, and the port of others. ``credentials`` opens a logon on this server; ``mesh`` and ``server`` are
    names for people."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        facts: Facts,
        alarms: Alarms,
        credentials: Callable[[str], Credentials],
        server: str,
        clock: Clock,
        randomness: Randomness,
        pauses: Pauses | None = None,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._facts = facts
        self._alarms = alarms
        self._credentials = credentials
        self._server = server
        self._clock = clock
        self._randomness = randomness
        self._pauses = pauses or Pauses()
        self._queues: dict[str, _Queue] = {}
        self._recent: deque[Told] = deque(maxlen=_MOST_RECENT)
        self._news = asyncio.Event()
        self._mails = asyncio.Semaphore(_MAILS)

    # --- the port ---

    async def post(self, message: Message, keys: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Queues a message for those of its recipients (and members of groups) to whom it was not sent yet, and returns their
        names: empty means that everybody was sent it, or that it was given up. Posted again it is not doubled; who has to
        know that it arrived posts it until nobody is left, also after a change of administrator. Names that are not
        there are left out. ``keys``: what it tells of, which is told of with it."""
        names = self.book().resolved(message.recipients)
        done = {*await self._tables.told_of(message.key)}
        done |= {row.recipient for row in self._recent if message.key == row.key}
        waiting = [name for name in names if name not in done]
        for name in waiting:
            queue = self._queues.setdefault(name, _Queue())
            if message.key not in queue.entries and len(queue.entries) < _MOST_QUEUED:
                queue.entries[message.key] = _Entry(message, keys, self._clock.now_ns())
                self._news.set()
        return tuple(waiting)

    def book(self) -> Book:
        """Whom there is, and the rules."""
        state = self._keeper.state
        pools = {name: frozenset(pool.servers) for name, pool in state.pools.items()}
        return Book(state.recipients, state.recipient_groups, state.notice_rules, pools)

    def told(self) -> list[Told]:
        """What was sent a moment ago or is under way, and may not be in the tables."""
        now_ns = self._clock.now_ns()
        queued = [
            Told(name, key, entry.message.key, now_ns)
            for name, queue in self._queues.items()
            for entry in queue.entries.values()
            for key in entry.keys
        ]
        return [*self._recent, *queued]

    def failing(self) -> frozenset[str]:
        """Recipients whom nothing reaches."""
        found = {name for name, queue in self._queues.items() if queue.failures >= _FAILURES_TOLD}
        return frozenset(found | set(self._alarms.standing(FAILED)))

    def problem(self, name: str) -> str:
        """Why the last message to a recipient did not arrive; empty if it did."""
        queue = self._queues.get(name)
        return queue.problem if queue is not None else ""

    def waiting(self, name: str) -> int:
        """How many messages wait for a recipient."""
        queue = self._queues.get(name)
        return len(queue.entries) if queue is not None else 0

    async def test(self, name: str, message: Message) -> str:
        """Sends a message now, past the queue; what the receiving server answered. Raises ``NotDelivered``."""
        answer = await self._deliver(self._keeper.state.recipients[name], message)
        await self._arrived(name)
        self._retry(name)
        return answer

    def retry(self) -> None:
        """Whoever changed a recipient or the mail server wants to know at once whether it works now."""
        for name in self._queues:
            self._retry(name)

    def _retry(self, name: str) -> None:
        queue = self._queues.get(name)
        if queue is not None:
            queue.changed.set()

    # --- the duty ---

    async def run(self) -> None:
        """Sends what is queued. Never returns."""
        for queue in self._queues.values():
            queue.working = False
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                for name, queue in list(self._queues.items()):
                    if queue.entries and not queue.working:
                        queue.working = True
                        group.create_task(self._work(name, queue))
                await self._news.wait()

    async def _work(self, name: str, queue: _Queue) -> None:
        """Until the queue of a recipient is empty, or there is no such recipient any more."""
        try:
            while queue.entries:
                end_if_cancelled()
                recipient = self._keeper.state.recipients.get(name)
                if recipient is None:
                    queue.entries.clear()
                    break
                entry = next(iter(queue.entries.values()))
                if self._clock.now_ns() - entry.posted_at_ns > HORIZON_NS:
                    await self._done(name, queue, entry, given_up="too-old")
                    continue
                await self._try(recipient, queue, entry)
        finally:
            queue.working = False

    async def _try(self, recipient: Recipient, queue: _Queue, entry: _Entry) -> None:
        queue.changed.clear()
        entry.tries += 1
        try:
            await self._deliver(recipient, entry.message)
        except NotDelivered as error:
            # a library that waits with asyncio.wait_for of Python 3.11 may swallow the end of the office
            end_if_cancelled()
            await self._failed(recipient, queue, entry, error)
            return
        await self._arrived(recipient.name)
        await self._done(recipient.name, queue, entry)

    async def _failed(self, recipient: Recipient, queue: _Queue, entry: _Entry, error: NotDelivered) -> None:
        queue.failures += 1
        queue.problem = error.message
        log.warning("%s", error.message)
        refused = isinstance(error, MessageRefused)
        if queue.failures >= _FAILURES_TOLD or error.gone:
            await self._alarms.attempt_begins(AlertKind.ERROR, FAILED, error.message, object=recipient.name)
        if refused and entry.tries >= _REFUSED_TRIES:
            await self._done(recipient.name, queue, entry, given_up="refused")
        elif refused:
            # the others need not wait for this one
            queue.entries[entry.message.key] = queue.entries.pop(entry.message.key)
        chance = int.from_bytes(self._randomness(2)) / 0xFFFF
        pause_s = max(self._pauses.after(queue.failures, chance), min(error.after_s, self._pauses.longest_s))
        await self._wait(queue, None if error.gone else pause_s)

    async def _wait(self, queue: _Queue, pause_s: float | None) -> None:
        """Until a try is worth it; ``None``: until a person has changed something."""
        try:
            async with asyncio.timeout(pause_s):
                await queue.changed.wait()
        except TimeoutError:
            pass

    async def _arrived(self, name: str) -> None:
        queue = self._queues.get(name)
        if queue is not None:
            queue.failures, queue.problem = 0, ""
        await self._alarms.attempt_ends(FAILED, name)

    async def _done(self, name: str, queue: _Queue, entry: _Entry, *, given_up: str = "") -> None:
        """Recorded until it is: what was sent must not be sent again because the disk is full for a while."""
        key, now_ns, failures = entry.message.key, self._clock.now_ns(), 0
        self._recent.extend(Told(name, each, key, now_ns) for each in dict.fromkeys((key, *entry.keys)))
        queue.entries.pop(key, None)
        while True:
            try:
                await self._facts.append(facts.NoticesSent(name, key, entry.keys, given_up))
                return
            except CasoError as error:
                failures += 1
                log.error("that %s was told cannot be recorded yet: %s", name, error)
                end_if_cancelled()
                await asyncio.sleep(self._pauses.after(failures, 1.0))

    # --- one message ---

    async def _deliver(self, recipient: Recipient, message: Message) -> str:
        """Raises ``NotDelivered``."""
        now_ns, mesh = self._clock.now_ns(), self._keeper.state.info()
        if recipient.url:
            secret = self._secret(recipient.name, recipient.logon)
            body = await asyncio.to_thread(hooks.body_of, message, mesh=mesh.name, at_ns=now_ns)
            return await hooks.send(
                recipient.url,
                secret.secret if secret is not None else None,
                body,
                recipient=recipient.name,
                key=message.key,
                at_s=now_ns // _SECOND,
            )
        server = self._keeper.state.mail_server
        if server is None:
            raise NotDelivered(recipient=recipient.name, detail="there is no mail server: caso-mesh notify smtp set")
        credentials = self._secret(recipient.name, server.logon)
        mail = await asyncio.to_thread(
            mailing.composed,
            message,
            sender=server.sender,
            to=recipient.mail,
            mesh=mesh.name,
            mesh_id=mesh.id,
            server=self._server,
            at_s=now_ns / _SECOND,
        )
        async with self._mails:
            return await mailing.send(server, credentials, mail, recipient=recipient.name, to=recipient.mail)

    def _secret(self, recipient: str, logon: str | None) -> Credentials | None:
        if logon is None:
            return None
        try:
            return self._credentials(logon)
        except CasoError as error:
            raise NotDelivered(recipient=recipient, detail=error.message) from None
