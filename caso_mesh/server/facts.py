"""This server's journal, in the words of ``model.facts``; and what of job logs and history is held back beside it, as the
settings of forwarding say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from typing import Any, Self

from msgspec import Struct

from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model.clock import Clock
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import IdSource, local_id
from caso_mesh.model.settings import AT_END, AT_ONCE, Value, categories_off, text
from caso_mesh.model.states import AlertKind
from caso_mesh.planning.forwarding import may_leave
from caso_mesh.server.own_alerts import OwnAlert, OwnAlerts

log = logging.getLogger(__name__)

#: How often it is looked whether what is held back may leave.
_LOOK_S = 5.0
#: Of what is held back: how much of a job log goes at once, and how many exceptions at all.
_PIECE_CHARACTERS, _MOST_EXCEPTIONS = 200_000, 1000
#: What goes first when there is too much.
_FIRST_TO_GO = (("debug",), ("info",), ("warning", "error"))
#: How a log says that something is missing.
_LEFT_OUT = "of this log were left out"
#: A place in the journal: an incarnation, and the number of a record in it.
Mark = tuple[str, int]


class Forwarding(Struct, frozen=True):
    """When job logs and history are told (``planning.forwarding``), and which categories of alerts are not."""

    joblogs: str = AT_ONCE
    history: str = AT_END
    alerts_off: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Mapping[str, Value], *, in_office: bool = False) -> Self:
        """In office a server keeps no alert to itself: that one decides what is shown."""
        off = frozenset[str]() if in_office else categories_off(settings, "alerts-off")
        return cls(text(settings, "joblog-forwarding"), text(settings, "history-forwarding"), off)

    def rules(self, attempt: str) -> Iterator[tuple[str, str]]:
        """Under which key what an attempt left is held back, and by which rule."""
        yield f"log/{attempt}", self.joblogs
        yield f"history/{attempt}", self.history


class FactWriter:
    """Appends facts of the server ``node`` (id); they are durable when a method returns. Those that are not to be told yet, or
    never, are held back."""

    def __init__(
        self,
        journal: Journal,
        new_id: IdSource,
        clock: Clock,
        forwarding: Callable[[], Forwarding] = Forwarding,
        *,
        node: str,
    ) -> None:
        self._journal = journal
        self._new_id = new_id
        self._clock = clock
        self._forwarding = forwarding
        self._node = node
        self._held: set[str] = set()
        self._alerts: OwnAlerts | None = None
        #: There is little room left for facts that wait: logs and history are held back, whatever the settings say.
        self.crowded = False

    async def append(self, *new: facts.Fact) -> None:
        ended = {fact.attempt for fact in new if isinstance(fact, facts.AttemptEnded)}
        told, held = [], list[tuple[str, str, bytes]]()
        changed, kept = await self._of_alerts(new)
        for number, fact in enumerate(new):
            if number in kept:
                continue
            key, leaves = self._leaves(fact, ended)
            if leaves:
                told.append(facts.encode(fact))
            else:
                held.append((key, *facts.encode(fact)))
        if held:
            self._held.update(key for key, _, _ in held)
            await self._journal.hold(held)
        release = [key for attempt in sorted(ended) for key in self._free(attempt, ended=True)]
        await self._tell(told, release, changed)

    async def _of_alerts(self, new: Collection[facts.Fact]) -> tuple[list[OwnAlert], set[int]]:
        """What becomes of alerts of this server, and the places of the facts that are not told."""
        changed, kept = list[OwnAlert](), set[int]()
        for number, fact in enumerate(new):
            if isinstance(fact, facts.AlertRaised | facts.AlertCleared | facts.AlertAnswered):
                after = (await self.alerts()).after(fact, self._clock.now_ns(), self._forwarding().alerts_off)
                if after is not None:
                    changed.append(after)
                    if not after.told:
                        kept.add(number)
        return changed, kept

    def _leaves(self, fact: facts.Fact, ended: Collection[str]) -> tuple[str, bool]:
        """Under which key a fact is held back, and whether it may leave now."""
        if not isinstance(fact, facts.JobLog | facts.AttemptExceptions):
            return "", True
        joblog, history = self._forwarding().rules(fact.attempt)
        key, rule = joblog if isinstance(fact, facts.JobLog) else history
        if self.crowded:
            return key, False
        return key, may_leave(rule, ended=fact.attempt in ended, now_ns=self._clock.now_ns())

    def _free(self, attempt: str, *, ended: bool) -> list[str]:
        """The keys under which something of an attempt is held back that may leave now."""
        if self.crowded:
            return []
        now_ns = self._clock.now_ns()
        return [
            key
            for key, rule in self._forwarding().rules(attempt)
            if key in self._held and may_leave(rule, ended=ended, now_ns=now_ns)
        ]

    async def _tell(
        self, told: list[tuple[str, bytes]], release: list[str], changed: Collection[OwnAlert] = ()
    ) -> None:
        notes = (await self.alerts()).notes(changed) if changed else {}
        if told or release or notes:
            await self._journal.append(told, release=release, notes=notes)
            self._held.difference_update(release)
        if notes:
            (await self.alerts()).put(notes)

    # --- what is held back ---

    async def load(self) -> None:
        """Finds out what is held back; once, before anything is written."""
        self._held = set(await self._journal.held_keys())
        await self.alerts()

    async def over(self, attempt: str) -> None:
        """An attempt has ended here, told or not."""
        await self._tell([], self._free(attempt, ended=True))

    async def run(self, active: Callable[[], Collection[str]]) -> None:
        """Looks again and again; never returns."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look(active())
            except CasoError as error:
                log.warning("what is held back stays here for now: %s", error)

    async def look(self, active: Collection[str]) -> None:
        """Tells what may leave by now: settings have changed, or it is another hour. ``active``: attempts that have not
        ended."""
        for attempt in sorted({key.partition("/")[2] for key in self._held}):
            await self._tell([], self._free(attempt, ended=attempt not in active))

    async def held(self, attempt: str) -> tuple[list[facts.LogLine], list[SourceException]]:
        """What of the job log and the exceptions of an attempt is held back."""
        lines, exceptions = list[facts.LogLine](), list[SourceException]()
        for key, _ in self._forwarding().rules(attempt):
            for _, kind, data in await self._journal.held(key) if key in self._held else ():
                match facts.decode(kind, data):
                    case facts.JobLog(lines=more):
                        lines += more
                    case facts.AttemptExceptions(exceptions=more):
                        exceptions += more
        return lines, exceptions

    async def forget_held(self, before_ns: int) -> None:
        """Forgets what is held back of attempts of which nothing came since."""
        if self._held and await self._journal.forget_held(before_ns):
            await self.load()

    # --- too much of it ---

    async def held_bytes(self) -> int:
        """About how much is held back."""
        return sum((await self._journal.held_sizes()).values()) if self._held else 0

    async def thin(self, bytes: int, server: str) -> int:
        """Leaves lines of job logs out that are held back, until about so many bytes are free: those of the oldest attempts
        first, and all of a lower level before any of a higher one. How many bytes became free."""
        free = 0
        for levels in _FIRST_TO_GO:
            for key, size in (await self._journal.held_sizes()).items():
                if free >= bytes:
                    return free
                if key.startswith("log/"):
                    await self._thin(key, levels, server)
                    free += size - (await self._journal.held_sizes()).get(key, 0)
        return free

    async def _thin(self, key: str, levels: Collection[str], server: str) -> None:
        rows, out, first_ns = await self._journal.held(key), 0, 0
        kept: list[tuple[int, str, bytes]] = []
        for at_ns, kind, data in rows:
            fact = facts.decode(kind, data)
            if isinstance(fact, facts.JobLog):
                first_ns = first_ns or at_ns
                left = tuple(line for line in fact.lines if line.level not in levels or _LEFT_OUT in line.text)
                out += len(fact.lines) - len(left)
                if not left:
                    continue
                kind, data = facts.encode(facts.JobLog(fact.attempt, left))
            kept.append((at_ns, kind, data))
        if out:
            text = (
                f"{out} lines ({', '.join(levels)}) {_LEFT_OUT}: too many facts waited on {server} for an administrator"
            )
            note = facts.JobLog(key.partition("/")[2], (facts.LogLine(self._clock.now_ns(), "warning", text),))
            await self._journal.hold_instead(key, [*kept, (first_ns, *facts.encode(note))])

    # --- all of it ---

    async def mark(self) -> Mark:
        """Where the journal is now."""
        head = await self._journal.head()
        return head.incarnation, head.seq

    async def since(self, mark: Mark | None) -> AsyncIterator[facts.Fact | facts.UnknownFact]:
        """All facts appended after ``mark``, oldest first; everything for ``None`` or a place that is not known."""
        heads, floors = await self._journal.incarnations(), await self._journal.floors()
        places = [head.incarnation for head in heads]
        first = places.index(mark[0]) if mark is not None and mark[0] in places else 0
        for number, head in enumerate(heads[first:]):
            after = mark[1] if mark is not None and number == 0 and head.incarnation == mark[0] else 0
            after = max(after, floors.get(head.incarnation, 0))
            while after < head.seq:
                records = await self._journal.records(head.incarnation, after)
                if not records:
                    break
                for record in records:
                    yield facts.decode(record.kind, record.data)
                after = records[-1].seq

    async def alert(
        self, alert: AlertKind, category: str, text: str, *, object: str = "", fields: dict[str, Any] | None = None
    ) -> str:
        """Raises an alert; returns its id. Of what stands and is kept back here nobody else can tell that it was raised before."""
        known = (await self.alerts()).kept_back(category, object)
        if known is not None and category in self._forwarding().alerts_off:
            return known
        id_ = local_id(self._new_id(), self._node)
        await self.append(facts.AlertRaised(id_, alert, category, text, object=object, fields=fields or {}))
        return id_

    async def alerts(self) -> OwnAlerts:
        """Those of this server."""
        if self._alerts is None:
            found = OwnAlerts(self._node)
            found.load(await self._journal.notes())
            self._alerts = self._alerts or found
        return self._alerts

    def unsettled_alerts(self) -> tuple[str, ...]:
        """Those of which the administrator may know more than this server, by their ids."""
        return self._alerts.unsettled() if self._alerts is not None else ()

    async def alerts_heard(self, news: Collection[n.AlertNews]) -> None:
        """The administrator tells what became of alerts of this server."""
        await self._tell([], [], (await self.alerts()).heard(news))


async def held_piece(writer: FactWriter, request: n.AttemptHeld) -> n.HeldPiece:
    """A piece of what is held back of an attempt; exceptions come with the first one."""
    lines, exceptions = await writer.held(request.attempt)
    after = max(0, request.after)
    piece, size = list[facts.LogLine](), 0
    for line in lines[after:]:
        piece.append(line)
        size += len(line.text)
        if size >= _PIECE_CHARACTERS:
            break
    more = after + len(piece) < len(lines)
    return n.HeldPiece(tuple(piece), tuple(exceptions[:_MOST_EXCEPTIONS]) if after == 0 else (), more)
