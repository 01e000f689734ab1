"""What waits to be sent to one other member of the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from caso_mesh.consensus.merging import merged
from caso_mesh.consensus.messages import Message
from caso_mesh.consensus.shipping import PieceReply
from caso_mesh.consensus.witness import WitnessMessage

#: Gives a message to a node; whether it left. ``(node, lineage, data)``.
Transport = Callable[[str, int, bytes], Awaitable[bool]]

#: Messages that wait for one member; the oldest goes when there are more, and the core repeats what matters.
_MOST_WAITING = 512


async def nobody(node: str, lineage: int, data: bytes) -> bool:
    """The transport of a log without other members."""
    return False


#: What can be said to another member, but for the pieces of a snapshot.
Said = Message | WitnessMessage | PieceReply


class Outbox:
    """What waits to be sent to one member, in order."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._waiting: deque[Said] = deque()
        self._wake = asyncio.Event()

    def put(self, message: Said) -> Said | None:
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

    async def run(self, transport: Transport, lineage: int, undelivered: Callable[[Said], None]) -> None:
        """Sends; ``undelivered`` is told of all that did not leave. Never returns."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            message = self._waiting.popleft()
            if not await transport(self._node, lineage, msgspec.msgpack.encode(message)):
                undelivered(message)
