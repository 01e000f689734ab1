"""Whether this server can do its work now: what ``/readyz`` answers."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from caso_mesh.server.node import ServerNode
from caso_mesh.server.patience import begin

#: What was found holds so long: asking often must not cost the disk anything.
_HOLDS_S = 2.0
_DISK_S = 3.0


class Readiness:
    """Looks at most every two seconds."""

    def __init__(self, node: ServerNode) -> None:
        self._node = node
        self._looking = asyncio.Lock()
        self._last: tuple[float, dict[str, str]] | None = None
        #: A write that hangs is waited for again: it costs one thread, however often somebody asks.
        self._write: asyncio.Future[None] | None = None

    async def problems(self) -> dict[str, str]:
        """What hinders it, by what it is about: ``administrator``, ``state``; empty if nothing does."""
        async with self._looking:
            now_s = time.monotonic()
            if self._last is None or now_s - self._last[0] >= _HOLDS_S:
                self._last = (now_s, await self._look())
            return self._last[1]

    async def _look(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self._node.linked_admin() is None:
            found["administrator"] = "nobody in office is linked with this server"
        if not self._node.room.enough:
            found["state"] = "the disk of the state folder is full: no new work is taken"
        else:
            why = await self._why_not_written()
            if why is not None:
                found["state"] = f"the state folder cannot be written: {why}"
        return found

    async def _why_not_written(self) -> str | None:
        path = self._node.folder.run / "ready"
        write = self._write = self._write or begin(lambda: _write(path))
        done, _ = await asyncio.wait([write], timeout=_DISK_S)
        if not done:
            return f"its disk does not answer within {_DISK_S:g} s"
        self._write = None
        error = write.exception()
        return None if error is None else str(error)


def _write(path: Path) -> None:
    """A few bytes, to the disk and away again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"ready\n")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()
