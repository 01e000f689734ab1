"""Recipients are told of what the rules say. What is still to be told is worked out of what is committed and recorded, at
each look anew (``planning.notices``): a change of administrator loses and doubles nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from caso_mesh.admin import alert_hints
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.hiding import shown
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.mailing import one_line
from caso_mesh.admin.notice_text import message_of
from caso_mesh.admin.outbox import FAILED, Outbox
from caso_mesh.admin.scoping import of_alert
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.consensus.port import Consensus
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model.clock import Calendar, Clock
from caso_mesh.model.jobs import Job, Run
from caso_mesh.model.notices import Message
from caso_mesh.model.settings import text
from caso_mesh.model.states import AlertKind, RunState
from caso_mesh.planning.mornings import morning
from caso_mesh.planning.notices import HORIZON_NS, HOUR_NS, Occurrence, Sort, Told, due, end_key, nobody, notice_key

log = logging.getLogger(__name__)

NOBODY = "nobody-notified"
_LOOK_S = 1.0
_SUMMARY = "summary"
#: Characters of what an alert says, and of what it is about.
_LONGEST, _LONGEST_NAME = 1000, 300
#: Alerts about the end of a run.
_OF_END = frozenset({"job-failed", "job-timed-out", "job-missed", "job-completed-with-exceptions"})

#: Makes the morning summary of what was from one instant to another; the message has no key and no recipients yet.
Summary = Callable[[int, int], Awaitable[Message]]


class Notifying:
    """A duty of the office. ``followers``: what the other voters hold of these tables."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        consensus: Consensus,
        tables: Tables,
        followers: Followers,
        outbox: Outbox,
        alarms: Alarms,
        summary: Summary,
        own: str,
        clock: Clock,
        calendar: Calendar,
    ) -> None:
        self._keeper = keeper
        self._consensus = consensus
        self._tables = tables
        self._followers = followers
        self._outbox = outbox
        self._alarms = alarms
        self._summary = summary
        self._own = own
        self._clock = clock
        self._calendar = calendar
        #: The arrival in the tables by which each alert was there at the latest.
        self._arrivals: dict[str, int] = {}
        self._safe = 0
        self._seen: tuple[int, int] | None = None
        self._again_ns: int | None = None
        self._ways: tuple[object, ...] = ()

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """One round."""
        state = self._keeper.state
        ways = (state.mail_server, *state.recipients.values())
        if ways != self._ways:
            self._ways = ways
            self._outbox.retry()
        await self._tell_nobody(state)
        if not state.recipients:
            return
        now_ns, seen = self._clock.now_ns(), (self._tables.generation, state.authority.index)
        waits = self._again_ns is not None and now_ns >= self._again_ns
        if seen != self._seen or waits or self._unsafe():
            self._seen = seen
            await self._post(state, now_ns)
        await self._post_summaries(state)

    # --- what happened ---

    async def _post(self, state: ControlState, now_ns: int) -> None:
        told = await self._told(now_ns)
        happened = due(self._outbox.book(), await self._happened(state, now_ns - HORIZON_NS), told, now_ns)
        self._again_ns = happened.again_ns
        for notice in happened.notices:
            await self._outbox.post(message_of(notice), notice.keys)

    async def _told(self, now_ns: int) -> list[Told]:
        return [*await self._tables.notices_sent(now_ns - HORIZON_NS - HOUR_NS), *self._outbox.told()]

    async def _happened(self, state: ControlState, since_ns: int) -> list[Occurrence]:
        arrival = await self._tables.arrival()
        found: list[Occurrence] = []
        rows = await self._tables.alerts_since(since_ns)
        for row in shown(state, rows):
            found += _of_alert(state, row)
        self._arrivals = {each.key: self._arrivals.get(each.key, arrival) for each in found}
        await self._look_what_is_safe()
        found = [each for each in found if self._arrivals[each.key] <= self._safe]
        if any(rule.ends for rule in state.notice_rules.values()):
            runs = [run for run in state.runs.values() if (run.closed_at_ns or 0) >= since_ns]
            found += [_of_run(run, state.jobs.get(run.job), state) for run in runs if run.terms.second_of is None]
            for _, fact in await self._tables.local_runs(ended=True):
                if (fact.run.closed_at_ns or 0) >= since_ns:
                    found.append(_of_run(fact.run, None, state, listed=fact.list))
        return found

    def _unsafe(self) -> bool:
        return any(arrival > self._safe for arrival in self._arrivals.values())

    async def _look_what_is_safe(self) -> None:
        """Nothing is told of that a change of administrator could forget: a majority of the voters holds it durably."""
        if not self._unsafe():
            return
        own = await self._tables.settle()
        voters = self._consensus.leadership().voters
        held = sorted((own if node == self._own else self._followers.of(node) for node in voters), reverse=True)
        self._safe = max(self._safe, held[len(voters) // 2])

    # --- the morning ---

    async def _post_summaries(self, state: ControlState) -> None:
        """One for each recipient that wants it, of the last day."""
        span = morning(text(state.settings_of_mesh(), "summary-at"), self._calendar.now_ns())
        if span is None:
            return
        wants = [each for each in state.recipients.values() if each.summary and each.since_ns < span.until_ns]
        keys = {each.name: notice_key(each.name, _SUMMARY, str(span.until_ns)) for each in wants}
        known = {(row.recipient, row.key) for row in await self._told(self._clock.now_ns())}
        waiting = [name for name, key in sorted(keys.items()) if (name, key) not in known]
        if not waiting:
            return
        message = await self._summary(span.since_ns, span.until_ns)
        for name in waiting:
            made = Message(
                keys[name], message.subject, message.text, message.html, message.attachments, (name,),
                message.data, "notice.summary",
            )  # fmt: skip
            await self._outbox.post(made, (keys[name],))

    # --- whether anybody is told ---

    async def _tell_nobody(self, state: ControlState) -> None:
        for name in self._alarms.standing(FAILED):
            if name not in state.recipients:
                await self._alarms.ends(FAILED, name)
        mesh = state.info().name
        why = nobody(self._outbox.book(), state.mail_server, self._outbox.failing())
        if why is None:
            await self._alarms.ends(NOBODY, mesh)
            return
        text = f"Nobody would be told of an alert of {mesh}: {why}"
        await self._alarms.begins(AlertKind.WARNING, NOBODY, text, object=mesh)


def _of_alert(state: ControlState, row: AlertRow) -> list[Occurrence]:
    """An alert, and its end."""
    servers = of_alert(state, row)
    run = state.runs.get(row.object)
    job = state.jobs.get(run.job) if run is not None else None
    raised = Occurrence(
        key=end_key(row.object) if row.category in _OF_END else row.id,
        at_ns=row.raised_at_ns,
        sort=Sort.ALERT,
        # a server may tell anything: it writes no lines of its own below ours
        text=one_line(row.text, _LONGEST),
        type=row.alert,
        category=one_line(row.category, _LONGEST_NAME),
        object=one_line(row.object, _LONGEST_NAME),
        where=_where(state, servers),
        servers=servers,
        job=run.job if run is not None else "",
        policy=job.origin.policy if job is not None and job.origin is not None else "",
        list=job.origin.list if job is not None and job.origin is not None else "",
        over_at_ns=row.cleared_at_ns,
        alert=row.id,
        do=alert_hints.of_alert(state, row.category, row.object),
    )
    if row.cleared_at_ns is None:
        return [raised]
    over = Occurrence(
        key=f"{row.id}/over",
        at_ns=row.cleared_at_ns,
        sort=Sort.OVER,
        text=raised.text,
        type=raised.type,
        category=raised.category,
        object=raised.object,
        where=raised.where,
        servers=servers,
        job=raised.job,
        policy=raised.policy,
        list=raised.list,
        alert=row.id,
    )
    return [raised, over]


def _of_run(run: Run, job: Job | None, state: ControlState, listed: str = "") -> Occurrence:
    servers = frozenset(part.source for part in run.parts)
    origin = job.origin if job is not None else None
    failures = (part.failure for part in run.parts if part.state is RunState.FAILED)
    code = next((failure.code for failure in failures if failure is not None), None)
    return Occurrence(
        key=end_key(run.id),
        at_ns=run.closed_at_ns or 0,
        sort=Sort.END,
        text=run.name if code is None else f"{run.name}: {code}",
        object=run.id,
        where=_where(state, servers),
        servers=servers,
        end=run.state.value,
        job=run.job,
        policy=origin.policy if origin is not None else "",
        list=origin.list if origin is not None else listed,
        do=alert_hints.of_end(state, run.id, run.state),
    )


def _where(state: ControlState, servers: frozenset[str]) -> str:
    """The servers that something is about, as a subject has room for."""
    names = sorted(map(state.name_of, servers))
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"
