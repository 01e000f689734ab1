"""The ransomware brake: each new set is looked at, and of a selection list with a suspicious one the last good sets are
locked. Nothing in the mesh expires until somebody has answered the alert."""

from __future__ import annotations

import asyncio
import logging

from caso_mesh.admin.alarms import Alarms, occasion_id
from caso_mesh.admin.holding import Holding
from caso_mesh.admin.ports import Facts
from caso_mesh.admin.retaining import Retaining, line_of
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.telling import kept_since
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_instant
from caso_mesh.planning.brake import Suspicion, suspicion

log = logging.getLogger(__name__)

CATEGORY, WHO = "mass-change", "brake"
_EACH_S = 10.0
_SECOND = 1_000_000_000
#: Sets that ended earlier are not looked at: whoever was away for longer has more urgent things to hear.
_BACK_NS = 7 * 86400 * _SECOND
#: So many of the newest sets may be new since the last look; more of a source are not needed to compare with.
_NEWEST, _OF_SOURCE = 500, 2000


class Brake:
    """``own``: the node id of the server in office."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        retaining: Retaining,
        holding: Holding,
        alarms: Alarms,
        facts: Facts,
        own: str,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._retaining = retaining
        self._holding = holding
        self._alarms = alarms
        self._facts = facts
        self._own = own
        self._clock = clock
        self._done: set[str] = set()
        self._raised: set[str] = set()
        self._unlocked: set[str] = set()
        self._standing: set[str] | None = None
        self._at_work = asyncio.Lock()

    def paused(self) -> str | None:
        """Why nothing expires now."""
        if self._standing is None:
            return "the newest sets are still looked at"
        if self._standing:
            return f"somebody has to answer the alert {CATEGORY} first: {', '.join(sorted(self._standing))}"
        return None

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.look()
            await asyncio.sleep(_EACH_S)

    async def look(self) -> None:
        """Looks at sets that are new, and whether alerts were answered."""
        async with self._at_work:
            if number(self._keeper.state.settings_of_mesh(), "ransomware-brake"):
                await self._look_at_sets()
            await self._look_at_answers()

    async def _look_at_sets(self) -> None:
        now_ns = self._clock.now_ns()
        since_ns = max(now_ns - _BACK_NS, kept_since(self._keeper.state, now_ns))
        newest = await self._tables.sets(limit=_NEWEST)
        redundant = self._retaining.redundant()
        self._done &= {each.id for each in newest}
        of_source: dict[str, list[BackupSet]] = {}
        for each in reversed(newest):
            if each.id in self._done:
                continue
            if each.ended_at_ns >= since_ns and each.id not in redundant:
                if each.source not in of_source:
                    of_source[each.source] = await self._tables.sets(source=each.source, limit=_OF_SOURCE)
                if not await self._is_dealt_with(each, of_source[each.source]):
                    continue
            self._done.add(each.id)

    async def _is_dealt_with(self, backup: BackupSet, known: list[BackupSet]) -> bool:
        """Whether nothing more is to be done about a set; ``known`` are those of its source."""
        line = line_of(self._keeper.state)
        key = line(backup).key
        found = suspicion(backup, [each for each in known if line(each).key == key and each.device == backup.device])
        alert = occasion_id(CATEGORY, backup.id)
        if found is None or alert in self._keeper.state.answers:
            return True
        lock_s = number(self._keeper.state.settings_of_mesh(), "ransomware-lock-s")
        until_ns = backup.ended_at_ns + round(lock_s * _SECOND)
        # nothing may expire from here on, also when the rest fails
        self._standing = {*(self._standing or ()), alert}
        self._raised.add(alert)
        text = self._text(backup, found, until_ns)
        await self._alarms.once(backup.id, AlertKind.ATTENTION, CATEGORY, text, object=backup.id)
        return await self._lock(backup, until_ns)

    async def _lock(self, suspicious: BackupSet, until_ns: int) -> bool:
        """Locks the last good sets of all servers of its list that ended before it, on each device; whether all are."""
        line, locks = line_of(self._keeper.state), await self._tables.locks()
        flaws, all_locked = await self._retaining.flaws(), True
        key = line(suspicious).key
        seen: set[tuple[tuple[str, ...], str]] = set()
        # of a line that has nothing else the last damaged one is what can be restored at all
        for each in sorted(await self._tables.sets(limit=-1), key=lambda each: each.id in flaws.damaged):
            theirs = line(each).key
            same = theirs[:2] == key[:2] if key[0] == "list" else theirs == key
            place = (theirs, each.device)
            if not same or each.ended_at_ns >= suspicious.ended_at_ns or place in seen:
                continue
            if each.id in flaws.missing or each.id in flaws.redundant:
                continue
            if occasion_id(CATEGORY, each.id) in (self._standing or ()):
                continue  # suspicious itself
            seen.add(place)
            end_ns = locks.get(each.id, 0)
            if end_ns is None or end_ns >= until_ns:
                continue
            try:
                await self._holding.lock(each, WHO, f"{WHO}/{suspicious.id}/{each.id}", until_ns)
            except CasoError as error:
                if each.id not in self._unlocked:
                    log.warning("set %s is not locked yet: %s", each.id, error)
                self._unlocked.add(each.id)
                all_locked = False
                continue
            fields = {"set": each.id, "because_of": suspicious.id, "until": format_instant(until_ns)}
            await self._facts.append(facts.Audit(WHO, "set.lock", "set", fields=fields))
        return all_locked

    async def _look_at_answers(self) -> None:
        """An answered alert is over: the answer is not kept for ever, and the alert must not come back when it goes."""
        servers = {self._own, *(voter.id for voter in self._keeper.state.voters())}
        answers = self._keeper.state.answers
        standing: set[str] = set()
        for (category, _), (alert, server) in (await self._tables.standing_alerts(servers)).items():
            if category != CATEGORY:
                continue
            standing.add(alert)
            if alert in answers:
                await self._facts.append(facts.AlertCleared(alert, of="" if server == self._own else server))
        self._standing = {alert for alert in standing | self._raised if alert not in answers}
        self._raised &= self._standing

    def _text(self, backup: BackupSet, found: Suspicion, until_ns: int) -> str:
        state = self._keeper.state
        job = state.jobs.get(backup.job)
        listed = state.lists.get(job.origin.list) if job is not None and job.origin is not None else None
        what = f"the selection list {listed.name}" if listed is not None else "what was backed up"
        return (
            f"{found.changed:.0%} of {what} on {state.name_of(backup.source)} changed in one go, and of what was read "
            f"{found.ratio:.0%} had to be stored, usually {found.usual:.0%} (set {backup.id}): somebody may have "
            f"encrypted it. The last good sets are locked until {format_instant(until_ns)}; nothing expires until this "
            "alert is answered"
        )
