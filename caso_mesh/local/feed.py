"""The journal of this server, read into its own tables as the administrator reads it: ends of attempts close their runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from caso_mesh.admin.tables import Tables
from caso_mesh.identity.roster import Peer
from caso_mesh.journal import Head, Journal
from caso_mesh.model import telling as t
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import StateRolledBack

_SECOND = 1_000_000_000
_PRUNE_EACH_S = 3600.0


class Feed:
    """``take`` takes a push as ``journal.push`` does."""

    def __init__(
        self,
        *,
        journal: Journal,
        tables: Tables,
        own: Peer,
        take: Callable[[Peer, Any, Any], Awaitable[Any]],
        clock: Clock,
        kept_s: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._tables = tables
        self._own = own
        self._take = take
        self._clock = clock
        self._kept_s = kept_s

    async def catch_up(self) -> Head:
        """Takes all that there is; the head of the journal then. Raises ``StateRolledBack`` when these tables tell of facts
        that the journal does not hold (it was put back, or has begun anew): they can be made again of it."""
        while True:
            head, plan, records = await self._journal.survey(await self._tables.cursors(self._own.id))
            if plan.rolled_back is not None:
                raise StateRolledBack(path="the tables of this server's own work", detail="its journal is another one")
            for pruned in plan.pruned:
                await self._tables.skip(self._own.id, pruned, self._clock.now_ns())
            if records:
                push = tuple(t.JournalRecord(r.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash) for r in records)
                await self._take(self._own, t.JournalPush(push), None)
            elif not plan.pruned:
                return head

    async def run(self) -> None:
        """Never returns. Raises as ``catch_up``."""
        while True:
            await self._journal.wait_beyond(await self.catch_up())

    async def prune(self) -> None:
        """Forgets records whose meaning is in the tables. Never returns."""
        while True:
            since_ns = self._clock.now_ns() - round(self._kept_s() * _SECOND)
            await self._tables.prune_records(await self._tables.settle(), since_ns)
            await asyncio.sleep(_PRUNE_EACH_S)
