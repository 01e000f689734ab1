"""How long records are kept: the journals of servers and the voters' copies of them stay bounded.

A server may prune a fact when a majority of the voters holds it durably; with a single voter when it is older than the
history that is kept, since what counts for longer (sets, locks, tombstones) lies in the devices. A voter may prune a
record when every voter that was heard of lately has taken it into its tables. One that was away for longer, or is new,
takes over the tables of another one, and so does one whose tables were lost or put back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import Struct

from caso_mesh.admin.tables import Tables
from caso_mesh.admin.telling import kept_since
from caso_mesh.consensus.port import Consensus
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import telling as t
from caso_mesh.model.clock import Clock
from caso_mesh.model.settings import number

log = logging.getLogger(__name__)

#: How often it is looked what may go.
LOOK_S = 30.0


class _Heard(Struct, frozen=True):
    arrival: int
    at_s: float


class Followers:
    """Up to which arrival of these tables each voter that follows them holds everything durably. In memory: who follows
    says it again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: dict[str, _Heard] = {}

    def said(self, node: str, arrival: int) -> None:
        self._heard[node] = _Heard(arrival, self._clock.monotonic_s())

    def began(self, node: str) -> None:
        """It follows, and has said nothing yet."""
        self._heard.pop(node, None)

    def of(self, node: str) -> int:
        heard = self._heard.get(node)
        return heard.arrival if heard is not None else 0

    def heard_s(self, node: str) -> float | None:
        heard = self._heard.get(node)
        return heard.at_s if heard is not None else None


class Keeping:
    """The duty of the office. ``followers`` is of the same tables."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        consensus: Consensus,
        tables: Tables,
        followers: Followers,
        own: str,
        clock: Clock,
        doubtful: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._consensus = consensus
        self._tables = tables
        self._followers = followers
        self._own = own
        self._clock = clock
        self._doubtful = doubtful
        self._began_s = clock.monotonic_s()
        self._held: dict[str, list[tuple[str, int]]] = {}

    def held(self, server: str) -> tuple[t.JournalPlace, ...]:
        """What a server need not keep in its journal."""
        return tuple(t.JournalPlace(*each) for each in self._held.get(server, ()))

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One round."""
        state = self._keeper.state
        settings = state.settings_of_mesh()
        now_ns = self._clock.now_ns()
        history_ns = kept_since(state, now_ns)
        own = await self._tables.settle()
        voters = self._consensus.leadership().voters
        arrivals = sorted((own if node == self._own else self._followers.of(node) for node in voters), reverse=True)
        safe = arrivals[len(voters) // 2]
        alone = len(voters) == 1
        if not (alone and self._doubtful()):
            self._held = await self._tables.held_upto(safe, history_ns if alone else now_ns)
        folded = min([own, *self._waited_for(number(settings, "replica-wait-s"))])
        if folded:
            gone = await self._tables.prune_records(folded, history_ns)
            if gone:
                log.info("%d records that all voters have taken in are kept no longer", gone)

    def _waited_for(self, wait_s: float) -> list[int]:
        """What the other voters hold, learners too, but for those that were not heard of for long."""
        now_s = self._clock.monotonic_s()
        found: list[int] = []
        for voter in self._keeper.state.voters():
            if voter.id == self._own:
                continue
            heard_s = self._followers.heard_s(voter.id)
            if now_s - (heard_s if heard_s is not None else self._began_s) < wait_s:
                found.append(self._followers.of(voter.id))
        return found
