"""Scratch folders of drills: workers remove their own; what a killed one left goes when it is over, or at the start."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from caso_mesh.model.jobs import DrillSpec
from caso_mesh.server.patience import bounded
from caso_mesh.server.queue import LocalAttempt
from caso_mesh.sources.removal import remove_tree

log = logging.getLogger(__name__)

_LIMIT_S = 3600.0


class Scratch:
    """``folder`` has one folder for each drill at work, by its session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over: asyncio.Queue[str] = asyncio.Queue()
        self._left: list[str] = []

    def over(self, local: LocalAttempt) -> None:
        """The worker of an attempt has ended, however."""
        if isinstance(local.order.spec, DrillSpec):
            self._over.put_nowait(local.session)

    async def prepare(self) -> None:
        """Before any attempt begins: what is there now is of the dead."""
        self._left = await asyncio.to_thread(self._names)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []

    async def run(self) -> None:
        """Never returns."""
        for name in self._left:
            await self._remove(name)
        while True:
            await self._remove(await self._over.get())

    async def _remove(self, name: str) -> None:
        path = str(self._folder / name)
        try:
            await bounded(lambda: remove_tree(path), what=path, seconds=_LIMIT_S)
        except Exception as error:
            # it lies in the way of nothing, and is tried again at the next start
            log.warning("the scratch folder %s could not be removed: %s", path, error)
