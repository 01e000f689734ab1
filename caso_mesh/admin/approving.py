"""Destructive acts that need two operators: the first one's call waits for a second one, who asks for the very same.

The audit log of the servers in office is the only memory: the first call stands there as refused, ``awaiting-approval``,
whoever is in office meanwhile. It is good for one act, and for a day, unless somebody says no by answering its alert. The alert
is over when that is decided, and its answer says by whom.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from caso_mesh.admin import audit_rows
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.audit_rows import AuditRow, Wanted
from caso_mesh.admin.ports import Answer, Caller, Facts, Submit
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import browsing as b
from caso_mesh.model import requests as q
from caso_mesh.model.alerts import AUTOMATIC
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import AnswerAlert
from caso_mesh.model.errors import AwaitingApproval, CasoError, InvalidValue
from caso_mesh.model.facts import Audit, audited
from caso_mesh.model.ids import base32
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind, Role
from caso_mesh.wire.codec import to_wire

log = logging.getLogger(__name__)

SETTING = "second-operator"
_DAY_NS = 86400 * 1_000_000_000
#: What deletes, or lets sets go earlier, and what would let one operator make himself a second one.
GUARDED = (
    "set.delete",
    "device.remove",
    "device.erase",
    "mediaset.set",
    "config.apply",
    "operator.create",
    "settings.set",
    "audit.trim",
)
#: Settings that hold deletion up.
_SETTINGS = frozenset({SETTING, "ransomware-brake", "clock-steady-s", "audit-keep-s"})
#: Beyond so many newer acts of one kind the first call has to be made again.
_ROWS = 1000
#: While something waits, it is looked so often whether that is decided.
_LOOK_S = 1.0
_LAPSED = "lapsed: nobody else asked for it within a day"


class _Waits(Struct, frozen=True):
    """``server``: the node id of the one that raised its alert."""

    alert: str
    server: str
    asked_ns: int


class _Decision(Struct, frozen=True):
    who: str
    response: str
    at_ns: int


def _mark(name: str, wanted: Mapping[str, Any]) -> str:
    """Of one act, whoever asks for it: the ids of its alerts end so."""
    return base32(hashlib.sha256(msgspec.json.encode((name, wanted), order="deterministic")).digest())[:13]


def _waiting(c: sqlite3.Connection, servers: Collection[str]) -> list[_Waits]:
    query = "SELECT id, server, raised_at_ns FROM alert WHERE category = ? AND cleared_at_ns IS NULL"
    return [_Waits(*row) for row in c.execute(query, (AwaitingApproval.code,)) if row[1] in servers]


def _done(c: sqlite3.Connection, servers: Collection[str], since_ns: int) -> list[AuditRow]:
    wanted = [Wanted(what=name, servers=servers, since_ns=since_ns, outcome="done") for name in GUARDED]
    return [row for each in wanted for row in audit_rows.find(c, each, _ROWS)[0]]


def _about(request: Struct, wanted: Mapping[str, Any]) -> str:
    """What a second operator has to know of a call to give the same."""
    match request:
        case q.SettingSet(name=name, value=value):
            return f"{name} {'unset' if value is None else value}"
        case q.ConfigApply(text=text):
            return f"a file of {len(text.splitlines())} lines"
    return next((str(value) for value in wanted.values() if isinstance(value, str)), "")


class Approving:
    """``check_set`` raises for a set that is not there, or not only one. ``doubtful``: whether the clock is, by which nothing
    lapses then."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        alarms: Alarms,
        facts: Facts,
        submit: Submit,
        check_set: Callable[[str], Awaitable[Any]],
        own: str,
        clock: Clock,
        doubtful: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._alarms = alarms
        self._facts = facts
        self._submit = submit
        self._check_set = check_set
        self._own = own
        self._clock = clock
        self._doubtful = doubtful
        self._waits: dict[str, _Waits] = {}

    def guarded(self, handlers: Mapping[str, Answer]) -> dict[str, Answer]:
        """The same calls, of which those that need two operators ask for the second."""
        return {name: self._guard(name, answer) if name in GUARDED else answer for name, answer in handlers.items()}

    def _guard(self, name: str, answer: Answer) -> Answer:
        async def ask(caller: Caller, request: Any) -> Any:
            if not self._concerns(name, request) or await self._was_done(caller):
                return await answer(caller, request)
            wanted = audited(to_wire(request))
            await self._check(name, wanted, caller, request)
            reply = await answer(caller, request)
            await self._use_up(_mark(name, wanted), caller.who)
            return reply

        return ask

    def _concerns(self, name: str, request: Struct) -> bool:
        is_on = bool(number(self._keeper.state.settings_of_mesh(), SETTING))
        if isinstance(request, q.SettingSet):
            if request.name == SETTING and not is_on and request.value is not None:
                self._check_operators()
            return is_on and request.name in _SETTINGS
        return is_on and not (isinstance(request, q.ConfigApply) and request.dry_run)

    def _check_operators(self) -> None:
        """Whoever is alone could never take it back. Raises ``InvalidValue``."""
        able = [each for each in self._keeper.state.operator_list() if each.role is Role.ADMIN]
        if len(able) < 2:
            raise InvalidValue(
                value=len(able), what="number of operators who may do everything", expected="It takes two"
            )

    async def _was_done(self, caller: Caller) -> bool:
        """Who asks again learns it."""
        return caller.request_id in self._keeper.state.requests or await self._tables.deleted_by(caller.request_id)

    async def _use_up(self, mark: str, who: str) -> None:
        """What the first one asked for counts once. That it was done is in the tables a moment later, and at the next one in
        office perhaps later yet: as an answer it is committed before the second one hears of it."""
        decision = _Decision(who, "done", self._clock.now_ns())
        for each in [each for each in self._waits.values() if each.alert.endswith(mark)]:
            try:
                await self._tell(each, decision)
            except CasoError as error:
                log.warning("that %s waits no more is told later: %s", each.alert, error)

    async def _check(self, name: str, wanted: Mapping[str, Any], caller: Caller, request: Struct) -> None:
        """Raises ``AwaitingApproval`` until another operator has asked for the same."""
        state, now_ns = self._keeper.state, self._clock.now_ns()
        offices = self._offices()
        operators = {each.name for each in state.operator_list()}
        mark = _mark(name, wanted)
        decided_ns = max((each.at_ns for each in self._decisions(mark)), default=0)
        asked = Wanted(what=name, servers=offices, since_ns=now_ns - _DAY_NS)
        rows, _ = await self._tables.ask(lambda c: audit_rows.find(c, asked, _ROWS))
        for row in rows:  # newest first
            if row.fields != wanted:
                continue
            if row.outcome == "done" or row.at_ns <= decided_ns:
                break  # what was asked before that is used up, or somebody said no
            if row.outcome == AwaitingApproval.code and row.who != caller.who and row.who in operators:
                return
        if isinstance(request, b.SetName):
            await self._check_set(request.set)
        waits = AwaitingApproval(call=name, who=caller.who)
        about = _about(request, wanted)
        text = f"{waits.message} It is about {about}." if about else waits.message
        try:
            alert = await self._alarms.once(
                caller.request_id, AlertKind.ATTENTION, waits.code, text, object=about, ending=mark
            )
            self._waits[alert] = _Waits(alert, self._own, now_ns)
        except CasoError as error:
            log.error("no alert could be raised (%s): %s", error, text)
        raise waits

    def _offices(self) -> set[str]:
        return {self._own, *(voter.id for voter in self._keeper.state.voters())}

    def _decisions(self, mark: str) -> list[_Decision]:
        """What people said about an act by answering its alerts, or by doing it."""
        answers = self._keeper.state.answers.values()
        return [
            _Decision(each.who, each.response, each.at_ns)
            for each in answers
            if each.alert.endswith(mark) and each.who != AUTOMATIC
        ]

    # --- the alerts of what is decided ---

    async def run(self) -> None:
        """A duty: alerts of what is decided are over. Never returns."""
        offices = self._offices()
        for each in await self._tables.ask(lambda c: _waiting(c, offices)):
            self._waits.setdefault(each.alert, each)
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """One round."""
        if not self._waits:
            return
        offices, since_ns = self._offices(), min(each.asked_ns for each in self._waits.values())
        done: dict[str, _Decision] = {}
        for row in await self._tables.ask(lambda c: _done(c, offices, since_ns)):
            mark = _mark(row.what, row.fields)
            if mark not in done or done[mark].at_ns < row.at_ns:
                done[mark] = _Decision(row.who, "done", row.at_ns)
        for each in list(self._waits.values()):
            decision = self._decision(each, done)
            if decision is not None:
                await self._tell(each, decision)
                await self._alarms.over(each.alert, each.server)
                del self._waits[each.alert]

    def _decision(self, waits: _Waits, done: Mapping[str, _Decision]) -> _Decision | None:
        mark, now_ns = waits.alert[-13:], self._clock.now_ns()
        found = [each for each in (*self._decisions(mark), done.get(mark)) if each and each.at_ns >= waits.asked_ns]
        if found:
            return min(found, key=lambda each: each.at_ns)
        if now_ns - waits.asked_ns > _DAY_NS and not self._doubtful():
            return _Decision(AUTOMATIC, _LAPSED, now_ns)
        return None

    async def _tell(self, waits: _Waits, decision: _Decision) -> None:
        """Who decided is the answer of its alert, if nobody gave one."""
        command = AnswerAlert(waits.alert, decision.response, decision.at_ns)
        result = await self._submit(command, who=decision.who, request_id=f"decided-{waits.alert}")
        if result["first"] and decision.who == AUTOMATIC:
            fields = {"id": waits.alert, "category": AwaitingApproval.code, "response": decision.response}
            await self._facts.append(Audit(AUTOMATIC, "alert.answer", "alert", fields=fields))
