"""What waits to be sent to one other member of the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from caso_mesh.consensus.merging import merged
from caso_mesh.consensus.messages import InstallSnapshot, Message
from caso_mesh.consensus.witness import WitnessMessage

#: Gives a message to a node; whether it left. ``(node, lineage, data)``.
Transport = Callable[[str, int, bytes], Awaitable[bool]]

#: Messages that wait for one member; the oldest goes when there are more, and the core repeats what matters.
_MOST_WAITING = 512


async def nobody(node: str, lineage: int, data: bytes) -> bool:
    """The transport of a log without other members."""
    return False


class Outcome(Protocol):
    """Told of snapshots that were handed over, and of all that did not leave."""

    def __call__(self, message: Message | WitnessMessage, *, arrived: bool) -> None: ...


class Outbox:
    """What waits to be sent to one member, in order."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._waiting: deque[Message | WitnessMessage] = deque()
        self._wake = asyncio.Event()

    def put(self, message: Message | WitnessMessage) -> Message | WitnessMessage | None:
        """Queues a message, together with the last that waits if both can be said as one; the oldest one if there were
        too many."""
        if self._waiting:
            both = merged(self._waiting[-1], message)
            if both is not None:
                self._waiting[-1] = both
                return None
        self._waiting.append(message)
        self._wake.set()
        return self._waiting.popleft() if len(self._waiting) > _MOST_WAITING else None

    async def run(self, transport: Transport, lineage: int, outcome: Outcome) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            message = self._waiting.popleft()
            arrived = await transport(self._node, lineage, msgspec.msgpack.encode(message))
            if not arrived or isinstance(message, InstallSnapshot):
                outcome(message, arrived=arrived)
