"""Sets that nothing keeps any more go: once an hour, by order of the administrator in office, at a server that reaches
the device and looks at protection and locks itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable

from msgspec import Struct

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.brake import Brake
from caso_mesh.admin.due import DueRuns
from caso_mesh.admin.holding import Holding
from caso_mesh.admin.on_device import OnDevice
from caso_mesh.admin.ports import Answer, Caller, Facts
from caso_mesh.admin.retaining import Retaining, line_of
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import browsing as b
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Calendar
from caso_mesh.model.errors import CasoError, InUse, NotFound, Protected
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind, DeviceState
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_instant
from caso_mesh.planning.retention import Verdict

log = logging.getLogger(__name__)

_HOUR_NS = 3600 * 1_000_000_000
_LOOK_S = 30.0
#: Who deletes, in the audit log and in the tombstones.
WHO = "expiry"
WAITS, FAILED = "expiry-waits", "expiry-failed"


class Judged(Struct, frozen=True):
    """All sets, newest first, with a verdict each; ``away``: the devices (ids) that nobody reaches."""

    sets: tuple[BackupSet, ...]
    verdicts: dict[str, Verdict]
    away: frozenset[str]

    def going(self) -> list[BackupSet]:
        """What goes, oldest first, wherever it lies."""
        return [each for each in reversed(self.sets) if self.verdicts[each.id].goes]


class Expiry:
    """``due`` and ``clocks_differ`` say whether the clock is to be believed."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        retaining: Retaining,
        holding: Holding,
        on_device: OnDevice,
        alarms: Alarms,
        facts: Facts,
        calendar: Calendar,
        brake: Brake,
        due: DueRuns,
        clocks_differ: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._retaining = retaining
        self._holding = holding
        self._on_device = on_device
        self._alarms = alarms
        self._facts = facts
        self._calendar = calendar
        self._brake = brake
        self._due = due
        self._clocks_differ = clocks_differ
        self._failed: dict[str, str] = {}
        self._at_work = asyncio.Lock()

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"set.expiry": self._show, "set.expire": self._expire}

    async def run(self) -> None:
        """One pass an hour. Never returns."""
        due_ns = self._next_hour_ns()
        while True:
            await asyncio.sleep(max(0.01, min(_LOOK_S, self._calendar.wait_s(due_ns))))
            # a clock that was set back must not make the next hour a far one
            due_ns = min(due_ns, self._next_hour_ns() if self._calendar.now_ns() < due_ns else due_ns)
            if self._calendar.now_ns() >= due_ns and self._paused() is None:
                await self.look()
                due_ns = self._next_hour_ns()

    def _next_hour_ns(self) -> int:
        return (self._calendar.now_ns() // _HOUR_NS + 1) * _HOUR_NS

    def _paused(self) -> str | None:
        """Why nothing expires now, for people."""
        if self._clocks_differ():
            return "clocks of servers differ: see the alert clock-differs"
        steady_s = number(self._keeper.state.settings_of_mesh(), "clock-steady-s")
        if not self._due.has_steady_clock(steady_s):
            return "the clock of the administrator was set, or it took office, a short while ago"
        return self._brake.paused()

    async def look(self) -> int:
        """One pass; how many sets went. What cannot go now waits for the next one, with an alert."""
        async with self._at_work:
            await self._brake.look()
            judged = await self._judged()
            judged = await self._seen(judged) if judged.going() else judged
            self._failed = {}
            gone = 0
            for each in judged.going():
                if each.device not in judged.away and not self._is_read_only(each) and self._paused() is None:
                    gone += await self._remove(each)
            await self._tell(judged)
            return gone

    async def _judged(self, sets: Collection[BackupSet] | None = None, away: Iterable[str] = ()) -> Judged:
        found = await self._tables.sets(limit=-1) if sets is None else sets
        gone = self._retaining.away(found) | set(away)
        return Judged(tuple(found), await self._retaining.verdicts(found, gone), frozenset(gone))

    async def _seen(self, judged: Judged) -> Judged:
        """Judged again by what lies on the devices now: a set that is only believed to be there is no reason for an older
        one of its line to go."""
        line, going = line_of(self._keeper.state), judged.going()
        lines = {line(each).key for each in going}
        concerned = {each.device for each in judged.sets if line(each).key in lines} - judged.away
        there: dict[str, set[str]] = {}
        away: set[str] = set()
        names = {device.id: device.name for device in self._keeper.state.device_list()}
        for device in sorted(concerned):
            try:
                found, deleted = await self._on_device.look(names[device])
                there[device] = {each.id for each in found}
                await self._tell_gone(
                    device, {each.id for each in judged.sets if each.device == device}.intersection(deleted)
                )
            except CasoError as error:
                log.info("sets on %s do not expire now: %s", names[device], error)
                away.add(device)
        sets = [each for each in judged.sets if each.device not in there or each.id in there[each.device]]
        return await self._judged(sets, away | judged.away)

    async def _tell_gone(self, device: str, sets: Collection[str]) -> None:
        """Sets that are shown have a tombstone: whoever wrote it did not come to tell it. Told twice it does no harm."""
        if sets:
            await self._facts.append(*(facts.SetDeleted(each, device, WHO, f"{WHO}/{each}") for each in sorted(sets)))

    def _is_read_only(self, backup: BackupSet) -> bool:
        device = self._keeper.state.devices.get(backup.device)
        return device is not None and device.state is DeviceState.READ_ONLY

    async def _remove(self, backup: BackupSet) -> int:
        # whoever was deposed learns it here, and deletes nothing by what he knew
        await self._keeper.barrier()
        request = f"{WHO}/{backup.id}"
        try:
            await self._holding.remove(backup, WHO, request)
        except (InUse, Protected, NotFound) as error:
            # it is in use, was locked meanwhile, or went: the next pass looks again
            self._failed[backup.id] = error.message
            log.info("set %s does not expire now: %s", backup.id, error)
            return 0
        except CasoError as error:
            self._failed[backup.id] = error.message
            name = self._device_name(backup)
            text = f"Expired sets on {name} cannot be deleted; it is tried again every hour: {error.message}"
            await self._alarms.begins(AlertKind.WARNING, FAILED, text, object=name)
            return 0
        fields = {
            "set": backup.id,
            "source": backup.source_name,
            "device": self._device_name(backup),
            "media_set": backup.media_set,
            "ended": format_instant(backup.ended_at_ns),
        }
        await self._facts.append(facts.Audit(WHO, "set.expire", "set", fields=fields))
        return 1

    async def _tell(self, judged: Judged) -> None:
        """Alerts for devices that are away and have sets that should go; and the end of those that are over."""
        waiting: dict[str, int] = {}
        for each in judged.going():
            if each.device in judged.away:
                name = self._device_name(each)
                waiting[name] = waiting.get(name, 0) + 1
        for name, count in waiting.items():
            text = f"{count} expired sets wait on the device {name}, which is paused, or which no server reaches now"
            await self._alarms.begins(AlertKind.WARNING, WAITS, text, object=name)
        for name in set(self._alarms.standing(WAITS)) - waiting.keys():
            await self._alarms.ends(WAITS, name)
        failing = {self._device_name(each) for each in judged.sets if each.id in self._failed}
        for name in set(self._alarms.standing(FAILED)) - failing - waiting.keys():
            await self._alarms.ends(FAILED, name)

    def _device_name(self, backup: BackupSet) -> str:
        device = self._keeper.state.devices.get(backup.device)
        return backup.device_name if device is None else device.name

    async def _show(self, caller: Caller, request: q.Nothing) -> b.ExpiryView:
        await self._brake.look()
        judged, limits = await self._judged(), caller.limits()
        shown = [each for each in judged.sets if limits is None or each.source in limits or each.server in limits]
        state = self._keeper.state
        return b.ExpiryView(
            self._paused(),
            tuple(
                b.ExpiryRow(
                    set=each.id,
                    source=state.name_of(each.source),
                    device=self._device_name(each),
                    media_set=each.media_set,
                    ended=format_instant(each.ended_at_ns) or "",
                    goes=judged.verdicts[each.id].goes
                    and each.device not in judged.away
                    and not self._is_read_only(each),
                    expires=format_instant(judged.verdicts[each.id].expires_at_ns),
                    why=self._why(each, judged),
                )
                for each in shown
            ),
        )

    def _why(self, backup: BackupSet, judged: Judged) -> tuple[str, ...]:
        verdict = judged.verdicts[backup.id]
        if not verdict.goes:
            return tuple(reason.value for reason in verdict.kept_by)
        if backup.device in judged.away:
            return ("device-away",)
        if self._is_read_only(backup):
            return ("device-read-only",)
        return (self._failed[backup.id],) if backup.id in self._failed else ()

    async def _expire(self, caller: Caller, request: q.Nothing) -> b.Expired:
        await self._brake.look()
        paused = self._paused()
        return b.Expired(0 if paused is not None else await self.look(), paused)
