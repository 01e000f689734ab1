"""What this server has that could be backed up is told at its start, and when it has become something else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from caso_mesh.model import facts
from caso_mesh.model.errors import CasoError
from caso_mesh.model.resources import FileSystem
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.patience import bounded

log = logging.getLogger(__name__)

_EACH_S = 3600.0
#: So long is waited for the disks.
_WAIT_S = 30.0
#: A file system that has grown or shrunk by this part of its size is told of anew.
_PART = 0.05


class Resources:
    """``look`` lists the file systems of this machine; it may block, and raise ``OSError``."""

    def __init__(self, facts: FactWriter, look: Callable[[], tuple[FileSystem, ...]]) -> None:
        self._facts = facts
        self._look = look
        self._told: tuple[FileSystem, ...] | None = None

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                await self.tell()
            except (OSError, CasoError) as error:
                log.info("which file systems there are cannot be said now: %s", error)
            await asyncio.sleep(_EACH_S)

    async def tell(self) -> None:
        """Looks, and tells what is news. Raises ``TimedOut``, ``OSError``, and what writing a fact raises."""
        found = await bounded(self._look, what="looking at the file systems of this machine", seconds=_WAIT_S)
        if self._told is None or is_news(self._told, found):
            await self._facts.append(facts.FileSystems(found))
            self._told = found


def is_news(before: tuple[FileSystem, ...], now: tuple[FileSystem, ...]) -> bool:
    """Whether others are there, or one has another size, or is much fuller or emptier."""
    if [(each.path, each.kind, each.total_bytes) for each in before] != [
        (each.path, each.kind, each.total_bytes) for each in now
    ]:
        return True
    return any(
        abs(new.used_bytes - old.used_bytes) > _PART * new.total_bytes for old, new in zip(before, now, strict=True)
    )
