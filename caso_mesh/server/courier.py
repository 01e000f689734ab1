"""Carrying this server's facts to the administrator in office: from its cursor on, in order, again after each break."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from caso_mesh.journal import Head, Journal, Record, RolledBack, find_fork
from caso_mesh.model.errors import CasoError, NoAdmin, PeerFault, StateDamaged
from caso_mesh.model.requests import Nothing
from caso_mesh.model.telling import (
    JournalCursors,
    JournalHashAt,
    JournalHashReply,
    JournalHead,
    JournalPush,
    JournalRecord,
)
from caso_mesh.server.queue import Queue
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 15.0
#: How often it is looked whether the administrator is still the one that is served.
_LOOK_S = 0.5
#: How often facts that the voters hold are pruned here.
_PRUNE_EACH_S = 30.0


class Courier:
    """``held(upto)`` is told up to where in each incarnation enough voters hold the facts. ``rolled_back(what)`` is told before a new journal begins, since this state folder turned out to be an older copy;
    ``compared()`` whenever both journals were found to agree, ``told()`` when one administrator has all that was there."""

    def __init__(
        self,
        journal: Journal,
        admin: Callable[[], Callee],
        wait_admin: Callable[[], Awaitable[None]],
        *,
        rolled_back: Callable[[RolledBack], Awaitable[None]],
        compared: Callable[[], Awaitable[None]],
        held: Callable[[Mapping[str, int]], Awaitable[None]],
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._admin = admin
        self._wait_admin = wait_admin
        self._rolled_back = rolled_back
        self._compared = compared
        self._held = held
        self._told = told
        #: The link to the administrator that has been told all.
        self._told_over: Callee | None = None
        self._prune_at_s = 0.0
        self._pause_s = _FIRST_PAUSE_S
        #: By incarnation, up to where the administrator has taken the journal in.
        self.taken: dict[str, int] = {}

    @property
    def telling(self) -> bool:
        """Whether the one in office has not been told yet what was there when it was met."""
        return self._told_over is None or not self._serves(self._told_over)

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._wait_admin()
            try:
                await self._carry(self._admin())
            except StateDamaged as error:
                if error.fields["path"] == self._journal.path:
                    raise  # it is mended when it is opened again
                log.warning("facts wait: %s", error)
            except CasoError as error:
                log.log(logging.WARNING if isinstance(error, PeerFault) else logging.DEBUG, "facts wait: %s", error)
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)

    async def _carry(self, link: Callee) -> None:
        """Serves one administrator over one link, until that is not the one any more."""
        reply = await ask(link, "journal.cursors", Nothing(), JournalCursors)
        began_anew = False
        while True:
            self.taken = {each.incarnation: each.seq for each in reply.cursors}
            cursors = [Head(each.incarnation, each.seq, each.hash) for each in reply.cursors]
            self.taken = {each.incarnation: each.seq for each in cursors}
            head, plan, records = await self._journal.survey(cursors)
            if plan.rolled_back is not None:
                if began_anew:
                    raise PeerFault(peer="the administrator", detail="it knows journals that this server never wrote")
                began_anew = True
                await self._begin_anew(link, plan.rolled_back)
                continue
            if plan.pruned:
                # it is taken from another voter, or is lost; until that is known this is refused
                pruned = tuple(JournalHead(each.incarnation, each.seq, each.hash) for each in plan.pruned)
                reply = await ask(link, "journal.push", JournalPush((), pruned), JournalCursors)
                continue
            await self._compared()
            if not plan.send:
                self._pause_s = _FIRST_PAUSE_S
                if self._told_over is not link:
                    self._told_over = link
                    self._told()
                if not await self._wait_for_more(link, head):
                    return
                continue
            reply = await ask(link, "journal.push", _push(records), JournalCursors, timeout_s=120.0)
            await self._prune(reply)
            self._pause_s = _FIRST_PAUSE_S

    async def _prune(self, reply: JournalCursors) -> None:
        now_s = asyncio.get_running_loop().time()
        if reply.held and now_s >= self._prune_at_s:
            self._prune_at_s = now_s + _PRUNE_EACH_S
            await self._held({each.incarnation: each.seq for each in reply.held})

    async def _wait_for_more(self, link: Callee, head: Head) -> bool:
        """Waits for a fact after ``head``. ``False``: another administrator, or another link, which may know less."""
        waiting = asyncio.create_task(self._journal.wait_beyond(head))
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=_LOOK_S)
                if done:
                    await waiting
                    return True
                if not self._serves(link):
                    return False
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    def _serves(self, link: Callee) -> bool:
        try:
            return self._admin() is link
        except NoAdmin:
            return False

    async def _begin_anew(self, link: Callee, found: RolledBack) -> None:
        """The disk was put back to an older state: what was written since goes into a new incarnation."""
        incarnation = found.head.incarnation

        async def theirs(seq: int) -> bytes | None:
            return (await ask(link, "journal.hash", JournalHashAt(incarnation, seq), JournalHashReply)).hash

        async def ours(seq: int) -> bytes | None:
            return await self._journal.hash_at(incarnation, seq)

        fork = await find_fork(found.common_at_most, ours, theirs)
        await self._rolled_back(found)
        await self._journal.begin_incarnation(moving=(incarnation, fork))


def _push(records: list[Record]) -> JournalPush:
    return JournalPush(tuple(JournalRecord(r.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash) for r in records))


async def prune_journal(
    journal: Journal, queue: Queue, upto: Mapping[str, int], now_ns: int, *, kept_s: float, traced_s: float
) -> None:
    """Forgets facts up to the numbers in ``upto`` (by incarnation) that are older than ``kept_s``, but for those that open
    attempts are settled by; their hashes stay for ``traced_s``."""
    upto = dict(upto)
    for local in (await queue.attempts()).values():
        if not local.ended and local.mark is not None and local.mark[0] in upto:
            upto[local.mark[0]] = min(upto[local.mark[0]], local.mark[1])
    await journal.prune(upto, before_ns=now_ns - round(kept_s * 1e9), trace_since_ns=now_ns - round(traced_s * 1e9))
