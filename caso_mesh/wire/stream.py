"""One stream inside a link: pieces of bytes in both directions, each direction with credit and an end of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from caso_mesh.model.errors import Canceled, CasoError, Misuse
from caso_mesh.wire.limits import STREAM_PIECE_BYTES
from caso_mesh.wire.protocol import piece_cost

if TYPE_CHECKING:
    from caso_mesh.wire.link import Link


class Stream:
    """Both ends may send and receive at the same time. As a context manager it finishes its half and stops reading on
    leaving; when left by an exception it aborts the stream.

    A stream that nobody ends lives as long as its link and takes one of ``max_streams``.
    """

    def __init__(self, link: Link, id: int) -> None:
        self._link = link
        self._id = id
        self._pieces: deque[bytes] = deque()
        self._error: CasoError | None = None
        self._peer_finished = False
        self._finished = False
        self._stopped = False
        self._arrived = asyncio.Event()
        self._credit = asyncio.Event()

    async def send(self, data: bytes | memoryview) -> None:
        """Sends ``data``; waits while the reader has not caught up.

        Up to 256 KiB arrive as one piece, more as several. Raises the error with which the peer aborted, or
        ``LinkLost``; ``Misuse`` after ``finish``.
        """
        view = memoryview(data).cast("B")
        if len(view) <= STREAM_PIECE_BYTES:
            await self._send_piece(data)
            return
        for start in range(0, len(view), STREAM_PIECE_BYTES):
            await self._send_piece(view[start : start + STREAM_PIECE_BYTES])

    async def receive(self) -> bytes | None:
        """The next piece, ``None`` when the peer has finished. Raises like ``send``."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._peer_finished:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        data = self._pieces.popleft()
        self._link._stream_consumed(self._id, piece_cost(data))
        return data

    async def finish(self) -> None:
        """Nothing more will be sent; receiving goes on. A second time, or after an abort, it does nothing."""
        if self._finished or self._stopped or self._error is not None:
            return
        self._finished = True
        self._credit.set()
        self._link._stream_finish(self._id)

    async def stop(self) -> None:
        """Nothing more will be received: what is here is dropped, the peer's ``send`` raises ``Canceled``. Sending goes
        on, and what was sent stays valid."""
        if self._peer_finished or self._error is not None:
            return
        self._peer_finished = True
        self._pieces.clear()
        self._arrived.set()
        self._link._stream_stop(self._id)

    async def abort(self, error: CasoError) -> None:
        """Ends both directions with an error, which the peer's ``send`` and ``receive`` raise."""
        if self._error is None:
            self._fail(error)
            self._link._stream_abort(self._id, error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            await self.finish()
            await self.stop()
        else:
            await self.abort(exc if isinstance(exc, CasoError) else Canceled(who="the other end of the stream"))

    async def _send_piece(self, data: bytes | memoryview) -> None:
        cost = piece_cost(data)
        while True:
            if self._error is not None:
                raise self._error
            if self._stopped:
                raise Canceled(who="the reader of the stream")
            if self._finished:
                raise Misuse("the stream was finished by this side")
            if self._link._stream_credit(self._id) >= cost:
                await self._link._outbox.room()
                if (
                    self._error is None
                    and not self._stopped
                    and not self._finished
                    and self._link._stream_credit(self._id) >= cost
                ):
                    self._link._stream_send(self._id, data)
                    return
            else:
                self._credit.clear()
                await self._credit.wait()

    # --- what the link tells ---

    def _feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._arrived.set()

    def _credited(self) -> None:
        self._credit.set()

    def _peer_stop(self) -> None:
        self._stopped = True
        self._credit.set()

    def _peer_finish(self) -> None:
        self._peer_finished = True
        self._arrived.set()

    def _fail(self, error: CasoError) -> None:
        if self._error is None:
            self._error = error
            self._pieces.clear()
            self._arrived.set()
            self._credit.set()
