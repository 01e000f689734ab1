"""Destructive acts that need two operators: the first one's call waits for a second one, who asks for the very same.

The audit log of the servers in office is the only memory: the first call stands there as refused, ``awaiting-approval``,
whoever is in office meanwhile. It is good for one act, and for a day.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from caso_mesh.admin import audit_rows
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.audit_rows import Wanted
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import AwaitingApproval, InvalidValue
from caso_mesh.model.facts import audited
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind, Role
from caso_mesh.wire.codec import to_wire

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


def _about(request: Struct, wanted: Mapping[str, Any]) -> str:
    """What a second operator has to know of a call to give the same."""
    match request:
        case q.SettingSet(name=name, value=value):
            return f"{name} {'unset' if value is None else value}"
        case q.ConfigApply(text=text):
            return f"a file of {len(text.splitlines())} lines"
    return next((str(value) for value in wanted.values() if isinstance(value, str)), "")


class Approving:
    """``check_set`` raises for a set that is not there, or not only one."""

    def __init__(
        self,
        keeper: ControlKeeper,
        tables: Tables,
        alarms: Alarms,
        check_set: Callable[[str], Awaitable[Any]],
        own: str,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._alarms = alarms
        self._check_set = check_set
        self._own = own
        self._clock = clock

    def guarded(self, handlers: Mapping[str, Answer]) -> dict[str, Answer]:
        """The same calls, of which those that need two operators ask for the second."""
        return {name: self._guard(name, answer) if name in GUARDED else answer for name, answer in handlers.items()}

    def _guard(self, name: str, answer: Answer) -> Answer:
        async def ask(caller: Caller, request: Any) -> Any:
            if self._concerns(name, request):
                await self._check(name, caller, request)
            return await answer(caller, request)

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

    async def _check(self, name: str, caller: Caller, request: Struct) -> None:
        """Raises ``AwaitingApproval`` until another operator has asked for the same."""
        if caller.request_id in self._keeper.state.requests or await self._tables.deleted_by(caller.request_id):
            return  # it was done: who asks again learns it
        state, now_ns = self._keeper.state, self._clock.now_ns()
        offices = {self._own, *(voter.id for voter in state.voters())}
        operators = {each.name for each in state.operator_list()}
        wanted = audited(to_wire(request))
        asked = Wanted(what=name, servers=offices, since_ns=now_ns - _DAY_NS)
        rows, _ = await self._tables.ask(lambda c: audit_rows.find(c, asked, _ROWS))
        for row in rows:  # newest first
            if row.fields != wanted:
                continue
            if row.outcome == "done":
                break  # what was asked before that is used up
            if row.outcome == AwaitingApproval.code and row.who != caller.who and row.who in operators:
                return
        if isinstance(request, q.SetName):
            await self._check_set(request.set)
        waits = AwaitingApproval(call=name, who=caller.who)
        about = _about(request, wanted)
        text = f"{waits.message} It is about {about}." if about else waits.message
        await self._alarms.attempt(caller.request_id, AlertKind.ATTENTION, waits.code, text, object=about)
        raise waits
