"""Taking in what servers report: facts, heartbeats, progress.

The cursor over a journal moves only after everything that a fact decides is committed: closing an attempt is a command,
and comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from caso_mesh.admin.live import Heard, Live
from caso_mesh.admin.ports import Submit
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.roster import Peer
from caso_mesh.journal import Record
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import CloseAttempt
from caso_mesh.model.errors import NotFound
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState, Liveness
from caso_mesh.model.views import Done

log = logging.getLogger(__name__)


class Intake:
    """``changed`` is called after facts were taken: catalogs may have to be fetched, watchers may want to look."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        submit: Submit,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._submit = submit
        self._clock = clock
        self._changed = changed

    def handlers(self) -> dict[str, Any]:
        return {
            "journal.cursors": self._cursors,
            "journal.push": self._push,
            "journal.hash": self._hash,
            "server.heartbeat": self._heartbeat,
            "attempt.progress": self._progress,
        }

    async def _cursors(self, peer: Peer, request: q.Nothing, link: Any) -> q.JournalCursors:
        heads = await self._tables.cursors(peer.id)
        return q.JournalCursors(tuple(q.JournalHead(each.incarnation, each.seq, each.hash) for each in heads))

    async def _hash(self, peer: Peer, request: q.JournalHashAt, link: Any) -> q.JournalHashReply:
        return q.JournalHashReply(await self._tables.hash_at(peer.id, request.incarnation, request.seq))

    async def _push(self, peer: Peer, request: q.JournalPush, link: Any) -> q.JournalCursors:
        known = {each.incarnation: each.seq for each in await self._tables.cursors(peer.id)}
        records = [Record(r.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash) for r in request.records]
        for record in records:
            if record.seq <= known.get(record.incarnation, 0):
                continue
            fact = facts.decode(record.kind, record.data)
            if isinstance(fact, facts.AttemptEnded):
                await self._close(peer.id, record.at_ns, fact)
        heads = await self._tables.accept(peer.id, records)
        self._changed()
        return q.JournalCursors(tuple(q.JournalHead(each.incarnation, each.seq, each.hash) for each in heads))

    async def _close(self, server: str, at_ns: int, fact: facts.AttemptEnded) -> None:
        attempt = self._keeper.state.attempts.get(fact.attempt)
        if attempt is None:
            log.info("the end of attempt %s is of an earlier time", fact.attempt)
            return
        if server not in {attempt.server, attempt.source} or fact.state in ATTEMPT_ACTIVE:
            log.warning("%s reports the end of attempt %s, which is not its own", server[:13], fact.attempt)
            return
        command = CloseAttempt(fact.attempt, fact.state, at_ns, set=fact.set, failure=fact.failure)
        try:
            await self._submit(command, request_id=f"close-{fact.attempt}-{fact.state}")
        except NotFound:
            return
        self._live.progress.pop(fact.attempt, None)
        closed = self._keeper.state.attempts.get(fact.attempt)
        if closed is not None and closed.state is AttemptState.REDUNDANT and fact.set is not None:
            known = self._live.redundant.get(closed.source, ())
            self._live.redundant[closed.source] = (*known, fact.set)

    async def load_redundant(self) -> None:
        """Which sets must not be a base, from what is committed and recorded."""
        self._live.redundant.clear()
        for attempt in self._keeper.state.attempts.values():
            if attempt.state is AttemptState.REDUNDANT:
                sets = await self._tables.sets(attempt=attempt.id)
                known = self._live.redundant.get(attempt.source, ())
                self._live.redundant[attempt.source] = (*known, *(each.id for each in sets))

    async def _heartbeat(self, peer: Peer, beat: q.Heartbeat, link: Any) -> q.HeartbeatReply:
        self._live.heard[peer.id] = Heard(self._clock.monotonic_s(), beat)
        server = self._keeper.state.servers.get(peer.id)
        if server is not None and server.liveness is not Liveness.ALIVE:
            self._live.returned.set()
        return q.HeartbeatReply(self._clock.now_ns(), self._keeper.authority)

    async def _progress(self, peer: Peer, request: q.ProgressReport, link: Any) -> Done:
        for progress in request.progress:
            attempt = self._keeper.state.attempts.get(progress.attempt)
            if attempt is not None and attempt.server == peer.id and attempt.state in ATTEMPT_ACTIVE:
                self._live.progress[progress.attempt] = progress
        return Done()
