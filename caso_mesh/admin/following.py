"""The tables of one voter follow those of another: the one in office is followed by all, and asks all when it begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from caso_mesh.admin.tables import Tables
from caso_mesh.identity.roster import Peer
from caso_mesh.journal import Record
from caso_mesh.journal.replica import Arrived
from caso_mesh.model import requests as q
from caso_mesh.model.errors import CasoError, JournalChainBroken, JournalGap, Refused
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

#: How long one question may wait for something new, and how much longer its answer may take.
_WAIT_S, _SLACK_S = 20.0, 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class Followed:
    """Answers voters that follow the tables of this one."""

    def __init__(self, tables: Tables, may: Callable[[Peer], bool]) -> None:
        self._tables = tables
        self._may = may

    def handlers(self) -> dict[str, Callable[[Peer, Any, Any], Awaitable[Any]]]:
        return {"replica.begin": self._begin, "replica.pull": self._pull}

    async def _begin(self, peer: Peer, request: q.ReplicaBegin, link: Any) -> q.ReplicaPlace:
        self._check(peer)
        place = await self._tables.place_behind((each.server, each.incarnation, each.seq) for each in request.heads)
        return q.ReplicaPlace(place.life, place.arrival)

    async def _pull(self, peer: Peer, request: q.ReplicaPull, link: Any) -> q.ReplicaPiece:
        self._check(peer)
        deadline = asyncio.get_running_loop().time() + min(max(request.wait_s, 0.0), _WAIT_S)
        while True:
            generation = self._tables.generation
            life, found = await self._tables.arrived(request.place.arrival)
            if life != request.place.life:
                # not the tables that were followed: whoever asks begins anew
                return q.ReplicaPiece(q.ReplicaPlace(life, 0), ())
            left = deadline - asyncio.get_running_loop().time()
            if found or left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self._tables.wait_for_change(generation)
            except TimeoutError:
                break
        records = tuple(q.ReplicaRecord(each.server, _sent(each.record), each.refused) for each in found)
        last = found[-1].arrival if found else request.place.arrival
        return q.ReplicaPiece(q.ReplicaPlace(life, last), records)

    def _check(self, peer: Peer) -> None:
        if not self._may(peer):
            raise Refused(detail=f"{peer.name} is no voter: the tables are not for it")


class Following:
    """``link()`` is the one to the voter that is followed; it raises ``NoAdmin`` while there is none. ``changed()`` is
    called when something came."""

    def __init__(self, tables: Tables, changed: Callable[[], None]) -> None:
        self._tables = tables
        self._changed = changed

    async def run(self, link: Callable[[], Callee], wait: Callable[[], Awaitable[None]]) -> None:
        """Follows whoever ``link`` leads to. Never returns."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await wait()
            try:
                callee = link()
                place = await self._begin(callee)
                life = place.life
                while link() is callee and place.life == life:
                    place = await self._step(callee, place, _WAIT_S)
                    pause_s = _FIRST_PAUSE_S
            except CasoError as error:
                log.debug("following: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def catch_up(self, callee: Callee) -> None:
        """Takes what another voter has now. Raises what the link raises."""
        place = await self._begin(callee)
        while True:
            after = await self._step(callee, place, 0.0)
            if after == place or after.life != place.life:
                return
            place = after

    async def _begin(self, callee: Callee) -> q.ReplicaPlace:
        heads = tuple(q.ReplicaHead(*each) for each in await self._tables.heads())
        return await ask(callee, "replica.begin", q.ReplicaBegin(heads), q.ReplicaPlace)

    async def _step(self, callee: Callee, place: q.ReplicaPlace, wait_s: float) -> q.ReplicaPlace:
        request = q.ReplicaPull(place, wait_s)
        piece = await ask(callee, "replica.pull", request, q.ReplicaPiece, timeout_s=wait_s + _SLACK_S)
        if piece.records:
            arrived = [Arrived(0, each.server, _held(each.record), each.refused) for each in piece.records]
            try:
                await self._tables.follow(arrived)
            except (JournalGap, JournalChainBroken) as error:
                log.warning("what another voter holds does not continue what is held here: %s", error)
                raise
            self._changed()
        return piece.place


def _sent(record: Record) -> q.JournalRecord:
    return q.JournalRecord(record.incarnation, record.seq, record.at_ns, record.kind, record.data, record.hash)


def _held(record: q.JournalRecord) -> Record:
    return Record(record.incarnation, record.seq, record.at_ns, record.kind, record.data, record.hash)
