"""How attempts end for good: exactly one end in the journal, and never "interrupted" for a set that is in the vault.

A daemon may die between any two steps, a device may be away when it is asked, the disk of the state folder may be full.
So an end is settled from what is durable: the journal since the attempt began, then the vault. What cannot be told yet
stays open and is looked at again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import structs

from caso_mesh.jobs.task import Task
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError, NotFound
from caso_mesh.model.jobs import Counts, kind_of
from caso_mesh.model.orders import AttemptOrder
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import BackupSet
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.queue import LocalAttempt, Queue

log = logging.getLogger(__name__)

End = facts.AttemptEnded

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


class TaskPort(Protocol):
    """What attempts need of ``server.tasks``."""

    async def make(self, local: LocalAttempt) -> tuple[Task, list[str]]: ...

    async def find_set(self, order: AttemptOrder, set_id: str) -> BackupSet | None: ...

    def segment_path(self, set_id: str) -> Path: ...


class Endings:
    """``ended`` is told of each attempt that was settled by itself, ``told`` of each set that is in the journal."""

    def __init__(
        self,
        *,
        queue: Queue,
        facts: FactWriter,
        tasks: TaskPort,
        clock: Clock,
        ended: Callable[[LocalAttempt], None],
        told: Callable[[BackupSet], None] = lambda backup: None,
    ) -> None:
        self._told = told
        self._queue = queue
        self._facts = facts
        self._tasks = tasks
        self._clock = clock
        self._ended = ended
        self._open: dict[str, tuple[LocalAttempt, End | None]] = {}
        self._added = asyncio.Event()

    def add(self, local: LocalAttempt, otherwise: End | None = None) -> None:
        """To be settled. ``otherwise``: how it ended if no set was published; without it, it was interrupted."""
        self._open[local.order.attempt] = (local, otherwise)
        self._added.set()

    async def end(self, local: LocalAttempt, otherwise: End | None) -> None:
        """Settles it now if that is possible, else later."""
        self.add(local, otherwise)
        await self._try(local.order.attempt)

    async def run(self) -> None:
        """Looks again at what could not be settled, with pauses that grow. Never returns."""
        pause_s = _FIRST_PAUSE_S
        while True:
            if not self._open:
                pause_s = _FIRST_PAUSE_S
                self._added.clear()
                await self._added.wait()
            await asyncio.sleep(pause_s)
            await self.try_all()
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)

    async def try_all(self) -> None:
        """Looks at each open one, once."""
        async with asyncio.TaskGroup() as group:
            for attempt in list(self._open):
                group.create_task(self._try(attempt))

    async def _try(self, attempt: str) -> None:
        local, otherwise = self._open[attempt]
        try:
            local = await self._settle(local, otherwise)
        except CasoError as error:
            log.warning("how attempt %s ended cannot be told yet: %s", attempt, error)
            return
        except Exception:
            # one attempt that cannot be settled ends neither others nor the daemon
            log.exception("how attempt %s ended cannot be told", attempt)
            return
        self._open.pop(attempt, None)
        self._ended(local)

    async def _settle(self, local: LocalAttempt, otherwise: End | None) -> LocalAttempt:
        order = local.order
        backup: BackupSet | None = None
        async for fact in self._facts.since(local.mark):
            match fact:
                case facts.AttemptEnded(attempt=order.attempt):
                    return await self._close(local)
                case facts.SetPublished(set=published) if published.attempt == order.attempt:
                    backup = published
        if backup is None and local.publishing:
            backup = await self._look(local)
            if backup is not None:
                digest, size = await asyncio.to_thread(_digest, self._tasks.segment_path(local.set))
                await self.wrote(backup, digest, size)
        if backup is not None:
            return await self.finish(local, _success(order, backup), tell=True)
        end = otherwise or facts.AttemptEnded(order.attempt, AttemptState.INTERRUPTED, Counts(), 0.0)
        tell = order.end != "source" or end.state is not AttemptState.CANCELED
        return await self.finish(local, end, tell=tell)

    async def _look(self, local: LocalAttempt) -> BackupSet | None:
        """Raises while the device cannot be asked: the set may be there, and "interrupted" would be a lie then."""
        try:
            return await self._tasks.find_set(local.order, local.set)
        except NotFound as error:
            log.warning("attempt %s: its device has left the mesh (%s)", local.order.attempt, error)
            return None

    async def wrote(self, backup: BackupSet, digest: bytes, size: int, *, before: tuple[facts.Fact, ...] = ()) -> None:
        """A set is in the vault; its catalog detail is ``size`` bytes with that SHA-256, or was lost with the power (0):
        then it is made out of the tree. ``before``: facts that are written in the same step."""
        new: list[facts.Fact] = [*before, facts.SetPublished(backup), facts.CatalogDetail(backup.id, digest, size)]
        written_ns = backup.ended_at_ns
        if backup.copy_of is not None or backup.made_of is not None:
            # its times are those of another set: it is protected from now on, not since then
            written_ns = max(written_ns, self._clock.now_ns())
        medium = await self._queue.count_set(backup.medium, backup.id, backup.bytes_stored, written_ns)
        if medium is not None:
            new.append(facts.MediumChanged(medium))
        await self._facts.append(*new)
        self._told(backup)

    async def finish(
        self, local: LocalAttempt, fact: End, *, tell: bool, before: tuple[facts.Fact, ...] = ()
    ) -> LocalAttempt:
        """The end, in the journal if ``tell``, then in the queue. ``before``: facts that are written in any case."""
        new = (*before, structs.replace(fact, kind=kind_of(local.order.spec))) if tell else before
        if new:
            await self._facts.append(*new)
        return await self._close(local)

    async def _close(self, local: LocalAttempt) -> LocalAttempt:
        await self._facts.over(local.order.attempt)
        local = structs.replace(local, ended=True)
        await self._queue.save_attempt(local)
        return local


def _success(order: AttemptOrder, backup: BackupSet) -> facts.AttemptEnded:
    return facts.AttemptEnded(
        order.attempt,
        AttemptState.SUCCEEDED_WITH_EXCEPTIONS if backup.exceptions else AttemptState.SUCCEEDED,
        Counts(
            files=backup.files,
            entries=backup.entries,
            bytes=backup.bytes,
            bytes_read=backup.bytes_read,
            bytes_stored=backup.bytes_stored,
            exceptions=backup.exceptions,
        ),
        (backup.ended_at_ns - backup.started_at_ns) / 1e9,
        set=backup.id,
        type=backup.type,
    )


def _digest(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            return digest, file.tell()
    except FileNotFoundError:
        return b"", 0
