"""Room on the disk of the state folder, and for facts that wait for an administrator: while there is too little, no new work is
taken, and an alert leaves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from msgspec import structs

from caso_mesh.model import facts
from caso_mesh.model.errors import CasoError, JournalFull, StateFull
from caso_mesh.model.nodes import DeviceReport
from caso_mesh.model.states import AlertKind
from caso_mesh.model.units import format_size
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.patience import bounded

log = logging.getLogger(__name__)

#: Below this no new work is taken: ends and alerts of what runs still have to be written.
LOW_BYTES = 8 << 20
#: A little of the disk is held, to be given back when the last alert has to be written.
RESERVE_BYTES = 512 << 10
#: Of a limit that was passed: below this part of it there is room again.
_FREE_AGAIN = 0.8
_LOOK_EACH_S = 5.0
#: The categories of its alerts.
_CODES = (StateFull.code, JournalFull.code)
#: How much longer than it took it is not looked again how many facts wait.
_RESTS = 20
#: While there is too little.
_LOOK_AGAIN_S = 1.0


class Room:
    """``changed`` is called when new work may be taken, or may not any more. ``waiting()``: how many bytes of the journal wait for
    an administrator; ``setting(name)``: what holds here."""

    def __init__(
        self,
        folder: StateFolder,
        facts: FactWriter,
        server: str,
        changed: Callable[[], None],
        waiting: Callable[[], Awaitable[int]],
        setting: Callable[[str], float],
    ) -> None:
        self._folder = folder
        self._facts = facts
        self._server = server
        self._changed = changed
        self._waiting = waiting
        self._setting = setting
        self._full: CasoError | None = None
        self._rests_until_s = 0.0
        #: Whether new work may be taken.
        self.enough = True

    def told(self, reports: tuple[DeviceReport, ...]) -> tuple[DeviceReport, ...]:
        """What the administrator hears of devices here: while no new work is taken, work for them goes elsewhere."""
        if self.enough:
            return reports
        error = self._full or StateFull(state=self._folder.path)
        return tuple(
            each if each.problem else structs.replace(each, problem=error.code, detail=error.message)
            for each in reports
        )

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(_LOOK_EACH_S if self.enough else _LOOK_AGAIN_S)
            await self.look()

    async def look(self) -> None:
        """Looks once. An alert that cannot be written now is tried again the next time."""
        try:
            free = await bounded(self._free, what=f"the disk of {self._folder.path}", seconds=10.0)
        except (CasoError, OSError) as error:
            log.error("the state folder: %s", error)
            return
        full: CasoError | None = None
        if free < (LOW_BYTES if self.enough else 2 * LOW_BYTES):
            full = StateFull(state=self._folder.path)
        else:
            full = await self._look_at_facts()
        self._full = full
        if self.enough is (full is not None):
            self.enough = full is None
            self._changed()
        try:
            await self._tell()
        except StateFull:
            await asyncio.to_thread(self._release)
            log.error("the disk of the state folder %s is full", self._folder.path)

    async def _look_at_facts(self) -> CasoError | None:
        """What becomes too much is thinned out first; what is left is too much, or is not."""
        limit = round(self._setting("journal-limit-mb") * 1e6)
        began_s = asyncio.get_running_loop().time()
        if began_s < self._rests_until_s:
            return self._full if isinstance(self._full, JournalFull) else None
        try:
            told, held = await self._waiting(), await self._facts.held_bytes()
            self._facts.crowded = told + held > limit * (_FREE_AGAIN if self._facts.crowded else 1.0) / 4
            over = told + held - limit / 2
            if over > 0 and held:
                held -= await self._facts.thin(round(over + limit / 50), self._server)
        except CasoError as error:
            log.error("how many facts wait: %s", error)
            return None
        took_s = asyncio.get_running_loop().time() - began_s
        self._rests_until_s = began_s + _RESTS * took_s
        if told + held <= limit * (1.0 if self.enough else _FREE_AGAIN):
            return None
        return JournalFull(waiting=format_size(told + held), server=self._server, limit=format_size(limit))

    async def _tell(self) -> None:
        alerts = await self._facts.alerts()
        standing = {code: alerts.standing(code, self._server, AlertKind.ERROR) for code in _CODES}
        for code, id_ in standing.items():
            if id_ is not None and (self._full is None or self._full.code != code):
                await self._facts.append(facts.AlertCleared(id_))
        if self._full is None:
            await asyncio.to_thread(self._reserve)
        elif standing[self._full.code] is None:
            text = f"{self._server}: {self._full.message} {self._full.hint}"
            await self._facts.alert(AlertKind.ERROR, self._full.code, text, object=self._server)

    def _free(self) -> int:
        stat = os.statvfs(self._folder.path)
        return stat.f_bavail * stat.f_frsize

    def _reserve(self) -> None:
        path = self._folder.reserve
        if path.exists():
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(RESERVE_BYTES))
        except OSError as error:
            log.warning("no room is held in the state folder: %s", error)
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _release(self) -> None:
        self._folder.reserve.unlink(missing_ok=True)
