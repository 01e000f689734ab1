"""The port below a link: whole messages in order, with backpressure. Websockets and memory implement it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from caso_mesh.model.errors import PeerFault

#: Bytes that may wait to be sent before senders wait.
HIGH_WATER = 1024 * 1024
#: Bytes of small replies (credit, ends of streams) that may wait above that for a peer that does not read.
HARD_LIMIT = 4 * 1024 * 1024
#: Messages after which a busy loop lets others run.
YIELD_EVERY = 64


class Channel(Protocol):
    """An open way to one peer that carries whole messages."""

    async def send(self, message: bytes) -> None:
        """Hands the message over; waits while the way is full. Raises ``OSError`` when the way is gone."""
        ...

    async def receive(self) -> bytes | None:
        """The next message, ``None`` when the way is gone. Raises ``PeerFault`` for what is no message."""
        ...

    async def close(self) -> None:
        """Ends the way, orderly if that is quick. Never raises for what the other side did."""
        ...


class Outbox:
    """What waits to be sent, in order. A message once pushed is sent whole, whatever happens to who pushed it."""

    def __init__(self, channel: Channel, peer: str) -> None:
        self._channel = channel
        self._peer = peer
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.bytes_out = 0
        self.messages_out = 0

    def push(self, message: bytes) -> None:
        """Queues a message at once. Raises ``PeerFault`` if the peer reads nothing of all that it makes us send."""
        if self._bytes > HIGH_WATER + HARD_LIMIT + len(message) and len(message) < HIGH_WATER:
            raise PeerFault(peer=self._peer, detail="it does not read what it asks for")
        self._messages.append(message)
        self._bytes += len(message)
        self._filled.set()
        self._empty.clear()
        if self._bytes > HIGH_WATER:
            self._room.clear()

    async def room(self) -> None:
        """Waits until something may be pushed; returns at once when closed."""
        while not self._closed and self._bytes > HIGH_WATER:
            await self._room.wait()

    async def flush(self) -> None:
        """Waits until all is handed to the channel."""
        await self._empty.wait()

    def close(self) -> None:
        """Wakes everybody who waits. What is queued is dropped if ``run`` has ended."""
        self._closed = True
        self._room.set()

    async def run(self) -> None:
        """Sends what is pushed, until cancelled. Raises ``OSError`` when the channel is gone."""
        while True:
            await self._filled.wait()
            for _ in range(YIELD_EVERY):
                if not self._messages:
                    break
                message = self._messages.popleft()
                await self._channel.send(message)
                self._bytes -= len(message)
                self.bytes_out += len(message)
                self.messages_out += 1
            if not self._messages:
                self._filled.clear()
                self._empty.set()
            if self._bytes <= HIGH_WATER:
                self._room.set()
            await asyncio.sleep(0)
