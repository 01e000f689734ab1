"""Carrying this server's facts to the administrator in office: from its cursor on, in order, again after each break."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from caso_mesh.journal import Head, Journal, Record, RolledBack, find_fork
from caso_mesh.model.errors import CasoError
from caso_mesh.model.requests import (
    JournalCursors,
    JournalHashAt,
    JournalHashReply,
    JournalPush,
    JournalRecord,
    Nothing,
)
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)


class Courier:
    """``rolled_back(what)`` is told when this state folder turns out to be an older copy."""

    def __init__(
        self,
        journal: Journal,
        admin: Callable[[], Callee],
        wait_admin: Callable[[], Awaitable[None]],
        rolled_back: Callable[[RolledBack], Awaitable[None]],
    ) -> None:
        self._journal = journal
        self._admin = admin
        self._wait_admin = wait_admin
        self._rolled_back = rolled_back

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._wait_admin()
            try:
                await self._carry(self._admin())
            except CasoError as error:
                log.debug("facts wait: %s", error)
            await asyncio.sleep(0.3)

    async def _carry(self, link: Callee) -> None:
        reply = await ask(link, "journal.cursors", Nothing(), JournalCursors)
        while True:
            head = await self._journal.head()
            plan = await self._journal.plan([Head(each.incarnation, each.seq, each.hash) for each in reply.cursors])
            if plan.rolled_back is not None:
                await self._begin_anew(link, plan.rolled_back)
                continue
            if not plan.send:
                await self._journal.wait_beyond(head)
                continue
            first = plan.send[0]
            records = await self._journal.records(first.incarnation, first.after)
            reply = await ask(link, "journal.push", _push(records), JournalCursors, timeout_s=120.0)

    async def _begin_anew(self, link: Callee, found: RolledBack) -> None:
        """The disk was put back to an older state: what was written since goes into a new incarnation."""
        incarnation = found.head.incarnation

        async def theirs(seq: int) -> bytes | None:
            return (await ask(link, "journal.hash", JournalHashAt(incarnation, seq), JournalHashReply)).hash

        async def ours(seq: int) -> bytes | None:
            return await self._journal.hash_at(incarnation, seq)

        fork = await find_fork(found.common_at_most, ours, theirs)
        await self._journal.begin_incarnation(moving=(incarnation, fork))
        await self._rolled_back(found)


def _push(records: list[Record]) -> JournalPush:
    return JournalPush(tuple(JournalRecord(r.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash) for r in records))
