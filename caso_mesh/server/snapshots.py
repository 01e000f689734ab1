"""Removes the snapshots that killed workers of this server left: at its start, and when a backup that reads from
snapshots is over."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from caso_mesh.model.errors import CasoError
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.model.states import SnapshotMode
from caso_mesh.server.patience import bounded
from caso_mesh.server.queue import LocalAttempt
from caso_mesh.sources.snapshots import SnapshotPlace, snapshot_place, sweep

log = logging.getLogger(__name__)

#: A program that a killed worker had started may still be at work, so it is looked again after a while.
_AGAIN_S = (0.0, 5.0, 60.0)
_LIMIT_S = 600.0


class SnapshotKeeper:
    """``folder`` holds the records; ``allowed``: whether this server's own file lets backups take snapshots."""

    def __init__(self, *, folder: Path, mesh: Callable[[], str], node: str, allowed: bool) -> None:
        self._folder = folder
        self._mesh = mesh
        self._node = node
        self._allowed = allowed
        self._wake = asyncio.Event()

    def place(self) -> SnapshotPlace | None:
        """Where workers record what they take; ``None`` if they may take none."""
        return self._place() if self._allowed else None

    def _place(self) -> SnapshotPlace:
        return snapshot_place(str(self._folder), self._mesh(), self._node)

    def over(self, local: LocalAttempt) -> None:
        """The worker of an attempt has ended, however."""
        spec = local.order.spec
        if isinstance(spec, BackupSpec) and spec.snapshot is not SnapshotMode.NEVER:
            self._wake.set()

    async def run(self) -> None:
        """Returns only for who is not root: he takes none, and could remove none."""
        if os.geteuid() != 0:
            return
        while True:
            for pause_s in _AGAIN_S:
                await asyncio.sleep(pause_s)
                try:
                    await bounded(self._sweep, what="snapshots of file systems", seconds=_LIMIT_S)
                except (CasoError, OSError) as error:
                    log.warning("old snapshots could not be looked for: %s", error)
            await self._wake.wait()
            self._wake.clear()

    def _sweep(self) -> None:
        sweep(self._place(), _log)


def _log(level: Literal["info", "warning"], text: str) -> None:
    log.log(logging.WARNING if level == "warning" else logging.INFO, "%s", text)
