"""The calls of people that delete and lock sets. The media server that reaches the device does it, and looks again."""

from __future__ import annotations

import asyncio

from caso_mesh.admin.clocks import check_clock
from caso_mesh.admin.live import Live
from caso_mesh.admin.on_device import Unreached, readers_of
from caso_mesh.admin.ports import Answer, Caller, Links
from caso_mesh.admin.present import lock_in_force
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.control.importing import refuse_imported
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import browsing as b
from caso_mesh.model import nodes as n
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import InUse, InvalidValue, Protected
from caso_mesh.model.jobs import set_read
from caso_mesh.model.states import ATTEMPT_ACTIVE
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_instant
from caso_mesh.planning.media import may_delete_at, set_expiry
from caso_mesh.wire.typed import ask

#: How long the fact of a deletion may take to come from the server that made it, before the caller is answered.
_FACT_S = 10.0
_HOLD_S = 60.0
_END_OF_TIME = "the end of time"
_REFUSED = "its sets are neither deleted nor locked here"


class Holding:
    """Answers of the administrator."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        links: Links,
        unreached: Unreached,
        work: Work,
        name: str,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._unreached = unreached
        self._work = work
        self._name = name
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"set.delete": self._set_delete, "set.lock": self._set_lock}

    async def _set_delete(self, caller: Caller, request: b.SetName) -> v.Done:
        """Raises ``NotFound``, ``Ambiguous``, ``Protected``, ``InUse``, ``ClocksDiffer``, ``Unavailable``."""
        if await self._tables.deleted_by(caller.request_id):
            return v.Done()
        await self.remove(await self._work.find_set(request.set), caller.who, caller.request_id)
        return v.Done()

    async def remove(self, backup: BackupSet, who: str, request_id: str) -> None:
        """Deletes a set, as ``set.delete`` does."""
        state, now_ns = self._keeper.state, self._clock.now_ns()
        refuse_imported(state.devices.get(backup.device), _REFUSED)
        for run in state.open_runs():
            read = {set_read(run.spec, part.source) for part in run.parts}
            if backup.id in read.union(each.set for each in state.attempts_of(run.id) if each.state in ATTEMPT_ACTIVE):
                raise InUse(kind="set", name=backup.id, by=f"the run {run.id}")
        lock = lock_in_force(await self._tables.locks(), backup.id, now_ns)
        if lock is not None:
            raise Protected(set=backup.id, until=format_instant(lock[0]) or _END_OF_TIME)
        media = {(medium.server, medium.label): medium for medium in await self._tables.media()}
        medium = media.get((backup.server, backup.medium))
        until_ns = set_expiry(backup, medium, state.media_set_named(backup.media_set))[1]
        if not may_delete_at(until_ns, now_ns):
            raise Protected(set=backup.id, until=format_instant(until_ns) or _END_OF_TIME)
        hold = n.SetHold(
            device=backup.device,
            set=backup.id,
            hold="tombstone",
            who=who,
            request=request_id,
            now_ns=now_ns,
            last_write_ns=medium.last_write_at_ns if medium is not None else 0,
            active=tuple(attempt.id for attempt in state.active_attempts()),
        )
        await self._ask(backup, hold)
        await self._until_told(backup.id)

    async def _set_lock(self, caller: Caller, request: b.SetLock) -> v.Done:
        """Raises ``NotFound``, ``Ambiguous``, ``InvalidValue``, ``Unavailable``."""
        now_ns = self._clock.now_ns()
        if request.until_ns is not None and not now_ns < request.until_ns < 1 << 63:
            given = format_instant(request.until_ns) if request.until_ns < 1 << 63 else request.until_ns
            raise InvalidValue(value=given, what="end of a lock", expected="Use a time to come")
        backup = await self._work.find_set(request.set)
        await self.lock(backup, caller.who, caller.request_id, request.until_ns)
        return v.Done()

    async def lock(self, backup: BackupSet, who: str, request_id: str, until_ns: int | None) -> None:
        """Locks a set, as ``set.lock`` does."""
        now_ns = self._clock.now_ns()
        refuse_imported(self._keeper.state.devices.get(backup.device), _REFUSED)
        hold = n.SetHold(backup.device, backup.id, "lock", who, request_id, now_ns, until_ns=until_ns)
        await self._ask(backup, hold)

    async def _ask(self, backup: BackupSet, hold: n.SetHold) -> None:
        """The server that made the set does it if it reaches the device, else another one."""
        state = self._keeper.state
        readers = readers_of(state, self._live, self._links, backup.device)
        if not readers:
            raise self._unreached(backup.device)
        server = backup.server if backup.server in readers else readers[0]
        if hold.hold == "tombstone":
            await check_clock(self._links, server=server, name=state.name_of(server), admin=self._name)
        await ask(self._links.get(server), "set.hold", hold, v.Done, timeout_s=_HOLD_S)

    async def _until_told(self, set_id: str) -> None:
        """Returns when the deletion has arrived as a fact, or after a while: it is done all the same."""
        try:
            async with asyncio.timeout(_FACT_S):
                while True:
                    news = self._live.next_news()
                    if await self._tables.is_deleted(set_id):
                        return
                    await news.wait()
        except TimeoutError:
            return
