"""The port through which a server starts the worker of an attempt."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Protocol

from caso_mesh.jobs.messages import FromWorker, ToWorker
from caso_mesh.jobs.task import Task


class Worker(Protocol):
    """One running worker."""

    attempt: str

    def messages(self) -> AsyncIterator[FromWorker]:
        """All it says, in order; the last is exactly one ``Ended``, also when it died (``worker-died``)."""
        ...

    async def send(self, message: ToWorker) -> None:
        """Tells it something. After its end this has no effect."""
        ...

    async def kill(self) -> None:
        """Ends it at once and waits until it is gone, or hangs where even that does not end it (see ``gone``). It publishes
        nothing after that."""
        ...

    async def gone(self) -> None:
        """Returns once no process of it is left: not itself, nor one that writes for it or runs its commands. After
        ``kill`` that takes as long as a process hangs in a file system that does not answer."""
        ...

    @property
    def bulk_channel(self) -> socket.socket | None:
        """Where accepted bulk connections of this attempt are handed to (``wire.demux``)."""
        ...


class Runner(Protocol):
    """Starts workers."""

    async def start(self, task: Task) -> Worker: ...
