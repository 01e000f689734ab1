"""Deletions of sets that are begun here: whoever dies between the tombstone in a device and the word of it in the journal
says it when it is back, or the set would be shown for ever.

Each is noted in the state folder before the tombstone is written, and forgotten when the fact is in the journal. What is
noted still, at the start or after a device or a disk failed in between, is settled by looking into the device.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

from caso_mesh.model.errors import CasoError, NotFound
from caso_mesh.model.facts import SetDeleted
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.patience import bounded
from caso_mesh.server.queue import Queue
from caso_mesh.server.vaults import Vaults

log = logging.getLogger(__name__)

#: How long a device may take.
_SECONDS = 50.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


class Deletions:
    """``deleted`` is told of each set (id) that has a tombstone."""

    def __init__(
        self, *, queue: Queue, vaults: Vaults, facts: FactWriter, deleted: Callable[[str], Awaitable[None]]
    ) -> None:
        self._queue = queue
        self._vaults = vaults
        self._facts = facts
        self._deleted = deleted
        self._open: dict[tuple[str, str], SetDeleted] = {}
        #: Whose threads are in a device, also such as nobody waits for any more.
        self._at_work: list[tuple[str, str]] = []
        self._added = asyncio.Event()

    async def delete(self, fact: SetDeleted, write: Callable[[Callable[[], None]], None]) -> None:
        """``write`` blocks, and writes the tombstone of the set, or raises; it calls what it is given before it writes. Tells it
        when that is done."""
        key = (fact.device, fact.set)
        wrote = threading.Event()

        def work() -> None:
            self._at_work.append(key)
            try:
                write(wrote.set)
            finally:
                self._at_work.remove(key)

        await self._queue.note_deletion(fact)
        try:
            await bounded(work, what="the device of the set", seconds=_SECONDS)
            await self._tell(fact)
        except CasoError:
            if wrote.is_set() or key in self._at_work:
                self._doubt(fact)
            else:
                await self._queue.forget_deletion(fact)
            raise
        except BaseException:
            self._doubt(fact)
            raise

    def _doubt(self, fact: SetDeleted) -> None:
        """Whether the tombstone is there is for the device to say, when its thread has come back."""
        self._open[fact.device, fact.set] = fact
        self._added.set()

    async def _tell(self, fact: SetDeleted) -> None:
        await self._facts.append(fact)
        await self._deleted(fact.set)
        await self._queue.forget_deletion(fact)

    async def run(self) -> None:
        """Settles what the daemon before has left, and what fails from now on, with pauses that grow. Never returns."""
        for fact in await self._queue.deletions():
            self._open.setdefault((fact.device, fact.set), fact)
        pause_s = 0.0
        while True:
            if not self._open:
                pause_s = _FIRST_PAUSE_S
                self._added.clear()
                await self._added.wait()
            await asyncio.sleep(pause_s)
            for key in self._open.keys() - {*self._at_work}:
                await self._try(key)
            pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, pause_s * 2))

    async def _try(self, key: tuple[str, str]) -> None:
        fact = self._open[key]
        try:
            if await self._is_gone(fact):
                await self._tell(fact)
                log.info("the set %s was deleted, which is told now", fact.set)
            else:
                await self._queue.forget_deletion(fact)
        except CasoError as error:
            log.warning("whether the set %s is deleted cannot be told yet: %s", fact.set, error)
            return
        if self._open.get(key) is fact:
            del self._open[key]

    async def _is_gone(self, fact: SetDeleted) -> bool:
        """Raises what opening the device raises."""
        try:
            self._vaults.device(fact.device)
        except NotFound:
            # whoever reaches it now tells it, with the next pass of expiry or an inventory
            return False
        access = await self._vaults.access(fact.device)

        def look() -> bool:
            with self._vaults.opened(access) as vault:
                vault.holds.refresh(fact.set)
                return vault.holds.is_gone(fact.set)

        return await bounded(look, what=f"the device {access.name}", seconds=_SECONDS)
