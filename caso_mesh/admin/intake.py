"""Taking in what servers report: facts, heartbeats, progress.

The cursor over a journal moves only after everything that a fact decides is committed: closing an attempt is a command,
and comes first. A server is believed about its own attempts only, by what the control state says of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from caso_mesh.admin.error_rules import category_of
from caso_mesh.admin.flooding import REASONS, Flooding
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Facts, NodeAnswer, Submit
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.roster import Peer
from caso_mesh.journal import Head, Record
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import AnswerAlert, CloseAttempt
from caso_mesh.model.copies import NoteCopy
from caso_mesh.model.errors import LinkLost, NoDataPath, NotFound, PeerMalformed, Unavailable
from caso_mesh.model.fates import Fate, FateAsked
from caso_mesh.model.ids import SET_ID, is_local, is_of_place
from caso_mesh.model.jobs import Attempt, Failure, makes_sets
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD, AlertKind, AttemptState, Liveness
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.views import Done
from caso_mesh.planning.lifecycle import part_of
from caso_mesh.planning.retrying import again_after

log = logging.getLogger(__name__)

#: Ends that a server may report. That an attempt is recovered or redundant is the administrator's finding.
_REPORTED = frozenset(
    {
        AttemptState.SUCCEEDED,
        AttemptState.SUCCEEDED_WITH_EXCEPTIONS,
        AttemptState.FAILED,
        AttemptState.CANCELED,
        AttemptState.TIMED_OUT,
        AttemptState.INTERRUPTED,
    }
)
#: Those that the end without the device may report.
_REPORTED_BY_OTHER_END = frozenset({AttemptState.FAILED, AttemptState.CANCELED, AttemptState.INTERRUPTED})
_INSTANTS = range(1 << 63)
#: Kinds of facts that change nothing about sets and their catalogs.
_OF_NO_SET = frozenset(
    kind.__struct_config__.tag
    for kind in (
        facts.AttemptStarted,
        facts.AttemptVerifying,
        facts.AttemptExceptions,
        facts.Publishing,
        facts.JobLog,
        facts.RunWaits,
        facts.CopyTaken,
        facts.LocalRun,
        facts.NoticesSent,
        facts.Audit,
        facts.AuditTrimmed,
        facts.AlertAnswered,
    )
)
#: So many facts are what happens now; more are what has piled up while a server was away.
_FEW, _LITTLE = 32, 1 << 20
#: Pushes of one server at once: one, and those that a link which broke has left behind.
_PUSHES = 3
#: Of servers with what has piled up so many are heard at once; and how much of theirs may wait in memory, with what is around
#: each record.
_AT_ONCE, MOST_PILED_BYTES, _AROUND = 2, 64 << 20, 300
#: Refusals of one push that are written out one by one.
_MOST_REASONS = 10
#: Of a server's own alerts: how many one heartbeat may name, and characters of who answered, and what.
_MOST_ALERTS, _LONGEST_WHO, _LONGEST_ANSWER = 200, 64, 1000


class Intake:
    """``changed(sets)`` is called after facts were taken: watchers may want to look, and if ``sets``, catalogs may have to
    be fetched.
    ``no_data_path(source, server)`` is told when two servers could not reach each other. ``linked(server)``: whether one
    is linked with this one."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        facts: Facts,
        submit: Submit,
        clock: Clock,
        changed: Callable[[bool], None],
        no_data_path: Callable[[str, str], None],
        linked: Callable[[str], bool],
        held: Callable[[str], tuple[t.JournalPlace, ...]],
        asked_enough: Callable[[], bool],
        flooding: Flooding,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._facts = facts
        self._submit = submit
        self._clock = clock
        self._changed = changed
        self._no_data_path = no_data_path
        self._linked = linked
        self._held = held
        self._asked_enough = asked_enough
        self._flooding = flooding
        self._piled_bytes = 0
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._pushing: dict[str, int] = {}

    def handlers(self) -> dict[str, NodeAnswer]:
        answers: dict[str, NodeAnswer] = {
            "journal.cursors": self._cursors,
            "journal.push": self._push,
            "journal.hash": self._hash,
            "server.heartbeat": self._heartbeat,
            "attempt.progress": self._progress,
            "attempt.fate": self._fate,
        }
        return {call: self._heard(answer) for call, answer in answers.items()}

    def _heard(self, answer: NodeAnswer) -> NodeAnswer:
        """Whatever a server says, it is there: a heartbeat may wait behind a long report on a slow line."""

        async def heard(peer: Peer, request: Any, link: Any) -> Any:
            server = self._keeper.state.servers.get(peer.id)
            if server is not None:
                now_s = self._live.heard_at_s[peer.id] = self._clock.monotonic_s()
                if server.liveness is not Liveness.ALIVE:
                    self._live.returns(peer.id, now_s)
            return await answer(peer, request, link)

        return heard

    async def _cursors(self, peer: Peer, request: q.Nothing, link: Any) -> t.JournalCursors:
        return self._cursors_of(peer, await self._tables.cursors(peer.id))

    def _cursors_of(self, peer: Peer, heads: list[Head]) -> t.JournalCursors:
        cursors = tuple(t.JournalHead(each.incarnation, each.seq, each.hash) for each in heads)
        return t.JournalCursors(cursors, self._held(peer.id))

    async def _hash(self, peer: Peer, request: t.JournalHashAt, link: Any) -> t.JournalHashReply:
        return t.JournalHashReply(await self._tables.hash_at(peer.id, request.incarnation, request.seq))

    async def _push(self, peer: Peer, request: t.JournalPush, link: Any) -> t.JournalCursors:
        """What piled up at many servers is taken by few at a time, so that what happens now elsewhere does not wait behind it;
        whoever would wait for long comes again later, with what it has then. So does one that has told too much, or calls
        again and again without waiting for an answer."""
        if self._pushing.get(peer.id, 0) >= _PUSHES:
            raise Unavailable(what="The administrator, which has not taken the facts before these,")
        await self._flooding.admit(peer.id)
        self._pushing[peer.id] = self._pushing.get(peer.id, 0) + 1
        try:
            taken = await self._in_turn(peer, request, link)
        finally:
            self._pushing[peer.id] -= 1
            if not self._pushing[peer.id]:
                del self._pushing[peer.id]
        await self._flooding.look(peer.id)
        return taken

    async def _in_turn(self, peer: Peer, request: t.JournalPush, link: Any) -> t.JournalCursors:
        size = sum(len(record.data) + _AROUND for record in request.records)
        if len(request.records) <= _FEW and size <= _LITTLE:
            return await self._take(peer, request, link)
        if self._piled_bytes + size > MOST_PILED_BYTES:
            raise Unavailable(what="Room for more facts")
        self._piled_bytes += size
        try:
            async with self._turn:
                return await self._take(peer, request, link)
        finally:
            self._piled_bytes -= size

    async def _take(self, peer: Peer, request: t.JournalPush, link: Any) -> t.JournalCursors:
        records = [Record(r.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash) for r in request.records]
        if not all(record.at_ns in _INSTANTS and record.seq in _INSTANTS for record in records):
            raise PeerMalformed(peer=peer.name, detail="a record of its journal has no proper number or time")
        if request.pruned:
            await self._skip(peer, request.pruned)
        refused: dict[tuple[str, int], str] = {}
        published: dict[str, BackupSet] = {}
        raised: set[str] = set()
        for record in await self._tables.fresh(peer.id, records):
            try:
                fact = facts.decode(record.kind, record.data)
            except PeerMalformed:
                continue  # it is kept and means nothing: the tables say so
            reason = self._not_its_own(peer.id, fact)
            if reason is None and isinstance(fact, facts.SetPublished):
                known = published.setdefault(fact.set.id, await self._tables.set(fact.set.id) or fact.set)
                if known != fact.set:
                    reason = f"the set {fact.set.id}, which is known with another content"
            if isinstance(fact, facts.AlertRaised):
                raised.add(fact.id)
            if reason is None and isinstance(fact, facts.AlertAnswered):
                await self._alert_answered(peer, record.at_ns, fact, fact.id in raised)
            if reason is None and isinstance(fact, facts.CopyTaken):
                await self._submit(NoteCopy(fact.copy, fact.outcomes, record.at_ns), request_id=f"copied-{fact.copy}")
            if reason is None and isinstance(fact, facts.AttemptEnded):
                reason = await self._close(peer.id, record.at_ns, fact, published)
            too_much = self._flooding.weigh(peer.id, record, fact)
            reason = reason or too_much
            if reason is not None:
                refused[record.incarnation, record.seq] = reason
        taken = await self._tables.accept(peer.id, records, refused)
        if reasons := [each for each in taken.refused if each not in REASONS]:
            await self._tell(peer, reasons, str(getattr(link, "remote_address", "")))
        self._changed(not {record.kind for record in records} <= _OF_NO_SET)
        return self._cursors_of(peer, taken.heads)

    async def _skip(self, peer: Peer, heads: tuple[t.JournalHead, ...]) -> None:
        """What a server has pruned and no voter holds is lost with their disks: what follows is taken all the same."""
        if not self._asked_enough():
            raise Unavailable(what="What other voters hold of this journal")
        for head in heads:
            if head.seq not in _INSTANTS:
                raise PeerMalformed(peer=peer.name, detail="a record of its journal has no proper number")
            at = Head(head.incarnation, head.seq, head.hash)
            missing = await self._tables.skip(peer.id, at, self._clock.now_ns())
            if missing:
                log.warning("%d facts of %s are lost: it had pruned them, and no voter holds them", missing, peer.name)
                fields = {"incarnation": head.incarnation, "upto": head.seq, "missing": missing}
                await self._facts.append(facts.Audit(peer.name, "journal.skip", "mesh", outcome="lost", fields=fields))
                text = (
                    f"{missing} facts of {peer.name} are lost: it does not have them any more, and no voter holds them. Sets "
                    "that they told of are found by caso-mesh catalog rebuild DEVICE"
                )
                await self._facts.alert(AlertKind.ERROR, "facts-lost", text, object=peer.name)

    async def _tell(self, peer: Peer, reasons: list[str], source: str) -> None:
        log.warning("%s reported what is not its to report: %s", peer.name, "; ".join(reasons[:_MOST_REASONS]))
        fields = {"reasons": reasons[:_MOST_REASONS], "count": len(reasons)}
        audit = facts.Audit(peer.name, "journal.push", "security", outcome="refused", source=source, fields=fields)
        await self._facts.append(audit)

    def _not_its_own(self, server: str, fact: facts.Fact | facts.UnknownFact) -> str | None:
        """Why a fact is not this server's to tell."""
        match fact:
            case facts.SetPublished(set=backup):
                return self._foreign_set(server, backup)
            case facts.AlertCleared(id=id_, of=of) if of and of != server:
                return None if self._votes(server) else f"the end of the alert {id_[:64]} of another server"
            case facts.AlertAnswered(id=id_):
                own = is_local(id_) and is_of_place(id_, server)
                return None if own else f"the answer to the alert {id_[:64]} of another server"
            case facts.SetFound(set=backup):
                return None if self._votes(server) else f"the set {backup.id[:64]}, found for an administrator"
            case facts.SetsMissing():
                return None if self._votes(server) else "which sets are missing"
            case facts.VaultErased():
                return None if self._votes(server) else "that a device was erased"
            case facts.NoticesSent(recipient=recipient):
                return None if self._votes(server) else f"what the recipient {recipient[:64]} was told"
            case facts.AuditTrimmed():
                return None if self._votes(server) else "that the audit log was trimmed"
            case facts.RunWaits(run=run):
                own = is_local(run) and is_of_place(run, server)
                return None if own or self._votes(server) else f"why the run {run[:100]} waits"
            case facts.SetDeleted(set=set_id, device=device_id) | facts.SetLocked(set=set_id, device=device_id):
                device = self._keeper.state.devices.get(device_id)
                # of a device that left the mesh nobody can tell; its sets are compared with what is known of them
                reaches = device is None or device.path_on(server) is not None or self._votes(server)
                return None if reaches else f"the set {set_id[:64]} on a device that it does not reach"
            case facts.CopyTaken(copy=id_):
                copy = self._keeper.state.copies.get(id_)
                return None if copy is None or copy.server == server else f"the copy {id_[:64]} to another server"
            case facts.AttemptStarted(attempt=id_) | facts.AttemptVerifying(attempt=id_):
                attempt = self._keeper.state.attempts.get(id_)
                known = is_of_place(id_, server) if attempt is None else server == attempt.server
                return None if known else f"the work of attempt {id_[:100]}"
            case facts.AttemptExceptions(attempt=id_) | facts.JobLog(attempt=id_) | facts.AttemptEnded(attempt=id_):
                attempt = self._keeper.state.attempts.get(id_)
                if is_of_place(id_, server) if attempt is None else server in {attempt.server, attempt.other}:
                    return None
                return f"attempt {id_[:100]}, in which it has no part"
            case _:
                return None

    async def _alert_answered(self, peer: Peer, at_ns: int, fact: facts.AlertAnswered, is_raised: bool) -> None:
        """An answer that was given at the server is an answer from here on, unless there was one before."""
        if not is_raised and not await self._tables.has_alert(fact.id, {peer.id}):
            log.info("the answer to alert %s of %s is of an earlier time", fact.id[:64], peer.name)
            return
        command = AnswerAlert(fact.id, fact.response[:_LONGEST_ANSWER], min(at_ns, self._clock.now_ns()))
        who = f"{fact.who[:_LONGEST_WHO]} at {peer.name}"
        result = await self._submit(command, who=who, request_id=f"answered-{fact.id}")
        if result["first"]:
            fields = {"id": fact.id, "response": command.response}
            await self._facts.append(facts.Audit(who, "alert.answer", "alert", source=peer.name, fields=fields))

    def _votes(self, server: str) -> bool:
        """Whether it is, or was, in office as far as this one knows: such a server tells of others."""
        row = self._keeper.state.servers.get(server)
        return row is not None and row.voter

    def _foreign_set(self, server: str, backup: BackupSet) -> str | None:
        if backup.server != server:
            return f"the set {backup.id[:64]} of another server"
        if not SET_ID.match(backup.id):
            return "a set without a proper id"
        attempt = self._keeper.state.attempts.get(backup.attempt)
        if attempt is None:
            # of a run that is forgotten: it may speak of its own files, nobody can tell about those of others
            return (
                None
                if is_of_place(backup.attempt, server) and backup.source == self._keeper.state.origin_of(server)
                else f"the set {backup.id[:64]} of an unknown attempt"
            )
        origin = self._keeper.state.origin_of(attempt.source)
        ordered = (attempt.server, origin, attempt.device, attempt.run, attempt.job)
        if ordered != (server, backup.source, backup.device, backup.run, backup.job):
            return f"the set {backup.id[:64]}, which does not fit attempt {attempt.id}"
        if not makes_sets(self._keeper.state.run(attempt.run).spec):
            return f"the set {backup.id[:64]} of attempt {attempt.id}, which makes none"
        return None

    async def _close(
        self, server: str, at_ns: int, fact: facts.AttemptEnded, published: dict[str, BackupSet]
    ) -> str | None:
        """Closes an attempt, or says why this end of it does not count."""
        attempt = self._keeper.state.attempts.get(fact.attempt)
        if attempt is None:
            log.info("the end of attempt %s is of an earlier time", fact.attempt)
            return None
        if fact.state not in (_REPORTED if server == attempt.server else _REPORTED_BY_OTHER_END):
            return f"that attempt {attempt.id} is {fact.state}"
        state, set_id, failure = fact.state, fact.set, fact.failure
        if makes_sets(self._keeper.state.run(attempt.run).spec):
            if state in ATTEMPT_GOOD and not await self._is_its_set(attempt, set_id, published):
                detail = "it reported success without a set of its own"
                state, set_id, failure = AttemptState.FAILED, None, _failed(attempt, detail)
        else:
            set_id = None
        if state is AttemptState.FAILED and failure is not None and failure.code == NoDataPath.code:
            # another server may reach the source: that is for the placement to find out
            self._no_data_path(attempt.other, attempt.server)
            state = AttemptState.INTERRUPTED
        if state is AttemptState.FAILED and failure is not None and failure.code == LinkLost.code:
            # an end that waits in vain for the other one gives up sooner than a silent server is given up
            gone = {attempt.server, attempt.other} - {server}
            # and a second set is made up for as a copy of the first one
            if attempt.beside or not all(self._linked(end) for end in gone):
                state = AttemptState.INTERRUPTED
        # a wrong clock over there must neither keep the run for ever nor have it forgotten at once
        ended_ns = max(attempt.delegated_at_ns, min(at_ns, self._clock.now_ns()))
        again = None
        if state is AttemptState.FAILED:
            control = self._keeper.state
            rules = control.error_rules.values()
            again = again_after(rules, control.run(attempt.run), attempt, failure, category_of, self._clock.now_ns())
        command = CloseAttempt(
            attempt.id, state, ended_ns, set=set_id if state in ATTEMPT_GOOD else None, failure=failure, again=again
        )
        try:
            await self._submit(command, request_id=f"close-{attempt.id}-{state}")
        except NotFound:
            return None  # the run was forgotten meanwhile
        self._live.progress.pop(attempt.id, None)
        await self._find_redundant(attempt, published.values())
        return None

    async def _is_its_set(self, attempt: Attempt, set_id: str | None, published: dict[str, BackupSet]) -> bool:
        if set_id is None:
            return False
        backup = published.get(set_id) or await self._tables.set(set_id)
        return backup is not None and (backup.attempt, backup.server) == (attempt.id, attempt.server)

    async def load_redundant(self) -> None:
        """Which sets must not be a base, from what is committed and recorded."""
        self._live.redundant.clear()
        for attempt in list(self._keeper.state.attempts.values()):
            if attempt.state not in {*ATTEMPT_ACTIVE, *ATTEMPT_GOOD}:
                await self._find_redundant(attempt)

    async def _find_redundant(self, attempt: Attempt, published: Iterable[BackupSet] = ()) -> None:
        """What the part of ``attempt`` was not closed by: also a set that was whole when its attempt was given up, or ended
        before it was verified. ``published``: sets that are not in the tables yet."""
        state = self._keeper.state
        run = state.runs.get(attempt.run)
        part = None if run is None else part_of(run, attempt.source)
        if part is None or part.set is None:
            return
        found: set[str] = set()
        for each in state.attempts_of(attempt.run):
            if each.source == attempt.source and each.state not in {*ATTEMPT_ACTIVE, *ATTEMPT_GOOD}:
                found |= {backup.id for backup in await self._tables.sets(attempt=each.id)}
                found |= {backup.id for backup in published if backup.attempt == each.id}
        if found := found - {part.set}:
            origin = state.origin_of(attempt.source)
            known = self._live.redundant.get(origin, ())
            self._live.redundant[origin] = tuple(sorted({*known, *found}))

    async def _heartbeat(self, peer: Peer, beat: n.Heartbeat, link: Any) -> n.HeartbeatReply:
        await self._flooding.look()
        if peer.id in self._keeper.state.servers:
            self._live.hear(peer.id, beat, self._clock.monotonic_s())
        news = await self._news(peer.id, beat.alerts[:_MOST_ALERTS]) if beat.alerts else ()
        return n.HeartbeatReply(self._clock.now_ns(), self._keeper.authority, news)

    async def _news(self, server: str, alerts: tuple[str, ...]) -> tuple[n.AlertNews, ...]:
        """What became of alerts of a server."""
        news, answers = list[n.AlertNews](), self._keeper.state.answers
        for id_, over_ns in await self._tables.alerts_of(server, alerts):
            answer = answers.get(id_)
            if answer is not None:
                news.append(n.AlertNews(id_, answer.at_ns, answer.who, answer.response, over_ns))
            elif over_ns is not None:
                news.append(n.AlertNews(id_, over_ns=over_ns))
        return tuple(news)

    async def _progress(self, peer: Peer, request: n.ProgressReport, link: Any) -> Done:
        for progress in request.progress:
            attempt = self._keeper.state.attempts.get(progress.attempt)
            if attempt is not None and attempt.server == peer.id and attempt.state in ATTEMPT_ACTIVE:
                self._live.progress[progress.attempt] = progress
        return Done()

    async def _fate(self, peer: Peer, request: FateAsked, link: Any) -> Fate:
        """Raises ``NotFound`` for an attempt in which the server has no part."""
        state = self._keeper.state
        attempt = state.attempts.get(request.attempt)
        ends = () if attempt is None else (attempt.server, attempt.other)
        if attempt is None or peer.id not in ends:
            raise NotFound(kind="attempt", name=request.attempt[:100])
        other = next((each for each in ends if each != peer.id), "")
        ended = "" if attempt.state in ATTEMPT_ACTIVE else attempt.state.value
        return Fate(ended, attempt.failure, state.name_of(other) if other else "")


def _failed(attempt: Attempt, detail: str) -> Failure:
    return Failure("attempt-failed", {"attempt": attempt.id, "detail": detail})
