"""A server that tells without end: what of it means nothing here, and the alert that names it."""

from __future__ import annotations

import logging

from caso_mesh.admin.alarms import Alarms
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.journal import Record
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import Unavailable
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind
from caso_mesh.planning.floods import ALERTS, Floods, Weight

log = logging.getLogger(__name__)

CATEGORY = "server-floods"
#: Why a fact means nothing; it is not written down anew each time.
TOO_MUCH = "more log lines and exceptions than the server may tell in a day"
TOO_MANY = f"more than {ALERTS} alerts of one category in an hour"
REASONS = frozenset({TOO_MUCH, TOO_MANY})
#: What is around each record.
_AROUND = 300
_DETAIL = frozenset({"debug", "info"})


class Flooding:
    """Of this office. A voter is let be: in office it tells of all others."""

    def __init__(self, *, keeper: ControlKeeper, alarms: Alarms, clock: Clock) -> None:
        self._keeper = keeper
        self._alarms = alarms
        self._clock = clock
        self._floods = Floods()

    async def admit(self, server: str) -> None:
        """Raises ``Unavailable`` while a server has told all that it may: it comes again."""
        if self._is_let_be(server) or not self._floods.must_wait(server, self._allowance(server), self._now_s()):
            return
        await self._tell(server)
        raise Unavailable(what="The administrator, of whom this server asks too much,")

    def weigh(self, server: str, record: Record, fact: facts.Fact | facts.UnknownFact) -> str | None:
        """Why a fact of a server means nothing, if it is too much."""
        if self._is_let_be(server):
            return None
        size = len(record.data) + _AROUND
        if self._floods.is_left_out(server, _weight(fact), size, self._allowance(server), self._now_s()):
            return TOO_MUCH
        if isinstance(fact, facts.AlertRaised) and self._floods.is_one_too_many(server, fact.category, self._now_s()):
            return TOO_MANY
        return None

    async def look(self, server: str | None = None) -> None:
        """Tells of ``server``, if something of it was left out, and which floods are over."""
        if server in self._floods.flooding:
            await self._tell(server)
        if not self._floods.flooding:
            return
        allowances = {each: self._allowance(each) for each in self._floods.flooding}
        left_out = dict(self._floods.flooding)
        for each in self._floods.over(allowances, self._now_s()):
            log.warning("%s told too much: %d facts of it mean nothing", self._name(each), left_out[each])
            await self._alarms.attempt_ends(CATEGORY, self._name(each))

    async def _tell(self, server: str) -> None:
        name = self._name(server)
        text = (
            f"{name} tells more than the {self._allowance(server) / 1e6:.0f} MB that it may in a day (twice journal-limit-mb), or more than "
            f"{ALERTS} alerts of one category in an hour. Of what is too much log lines come to nothing first, then exceptions; alerts "
            "beyond that are not listed; in the end it has to wait"
        )
        await self._alarms.attempt_begins(AlertKind.WARNING, CATEGORY, text, object=name)

    def _is_let_be(self, server: str) -> bool:
        row = self._keeper.state.servers.get(server)
        return row is not None and row.voter

    def _allowance(self, server: str) -> float:
        state = self._keeper.state
        settings = state.settings_of(server) if server in state.servers else state.settings_of_mesh()
        return 2e6 * number(settings, "journal-limit-mb")

    def _name(self, server: str) -> str:
        return self._keeper.state.name_of(server)

    def _now_s(self) -> float:
        return self._clock.monotonic_s()


def _weight(fact: facts.Fact | facts.UnknownFact) -> Weight:
    match fact:
        case facts.JobLog(lines=lines):
            return Weight.DETAIL if all(line.level in _DETAIL for line in lines) else Weight.LOG
        case facts.AttemptExceptions():
            return Weight.LOG
        case _:
            return Weight.NEEDED
