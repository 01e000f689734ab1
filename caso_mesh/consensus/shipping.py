"""A snapshot on its way to another member: in pieces, each answered before the next leaves (Ongaro and Ousterhout, "In
Search of an Understandable Consensus Algorithm", 2014, section 7, sends it so; here with a digest of the whole).

The core knows nothing of it: it says that a snapshot shall go, and hears that it arrived or did not. Meanwhile it sends
that member heartbeats only. A piece is as good as a heartbeat on both ends, so that a slow way is not taken for a dead
member; pieces are so large as a way carries between two heartbeats, which therefore do not wait behind them for long.
What has arrived is kept when the way breaks: whoever sends the same snapshot next goes on behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct

from caso_mesh.consensus.membership import Membership
from caso_mesh.consensus.messages import Image, InstallSnapshot
from caso_mesh.model.presets import Timing

log = logging.getLogger(__name__)

#: Bytes in one piece: the first, the least and the most.
_FIRST_PIECE, LEAST_PIECE, MOST_PIECE = 64 << 10, 16 << 10, 1 << 20
#: A snapshot that is said to be larger is not taken: it would fill the memory.
MOST_BYTES = 1 << 30
#: Without any answer for so many election timeouts, the snapshot has not arrived; an answer is awaited for one, then for
#: longer.
_GIVE_UP, _LONGEST_WAIT = 20, 5
_HASHED_AT_ONCE = 1 << 20


class Piece(Struct, frozen=True, tag="snapshot-piece"):
    """``data`` is what lies at ``offset`` of the snapshot after the entry ``index`` of ``image_term``, which has ``size``
    bytes and the SHA-256 ``digest``. ``round`` comes back in the answer."""

    to: str
    sender: str
    term: int
    round: int
    index: int
    image_term: int
    membership: Membership
    size: int
    digest: bytes
    offset: int
    data: bytes


class PieceReply(Struct, frozen=True, tag="snapshot-piece-reply"):
    """``held``: so many bytes of that snapshot are there; all of them when it is not needed any more."""

    to: str
    sender: str
    term: int
    round: int
    digest: bytes
    held: int


class Shipment:
    """One snapshot to one member. ``send`` gives a piece to the way there; whether it left."""

    def __init__(self, install: InstallSnapshot, timing: Timing, send: Callable[[Piece], Awaitable[bool]]) -> None:
        self._install, self._image = install, install.image
        self._send = send
        self._quick_s = timing.heartbeat_ticks * timing.tick_s
        self._wait_s = timing.election_ticks * timing.tick_s
        self._digest = b""
        self._round = 0
        self._held = 0
        self._answer = asyncio.Event()

    def answered(self, reply: PieceReply) -> None:
        """An answer has come. One that is late counts if it is news: the way is slower than was thought."""
        if reply.digest == self._digest and (reply.round == self._round or reply.held > self._held):
            self._held = reply.held
            self._answer.set()

    async def run(self, goes_on: Callable[[], bool]) -> bool:
        """Whether it has arrived; ``False`` also when ``goes_on`` says that nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        self._digest = await _digest_of(self._image.data)
        total, size, wait_s = len(self._image.data), _FIRST_PIECE, self._wait_s
        heard_s = loop.time()
        while goes_on():
            began_s = loop.time()
            self._round += 1
            self._answer.clear()
            await self._send(self._piece(size))
            try:
                async with asyncio.timeout(wait_s):
                    await self._answer.wait()
            except TimeoutError:
                if loop.time() - heard_s > _GIVE_UP * self._wait_s:
                    return False
                size, wait_s = max(LEAST_PIECE, size // 2), min(2 * wait_s, _LONGEST_WAIT * self._wait_s)
                continue
            heard_s = loop.time()
            if self._held >= total:
                return True
            took_s = heard_s - began_s
            if took_s < self._quick_s / 2:
                size, wait_s = min(2 * size, MOST_PIECE), self._wait_s
            elif took_s > self._quick_s:
                size = max(LEAST_PIECE, size // 2)
        return False

    def _piece(self, size: int) -> Piece:
        install, image = self._install, self._image
        return Piece(
            install.to,
            install.sender,
            install.term,
            self._round,
            image.index,
            image.term,
            image.membership,
            len(image.data),
            self._digest,
            self._held,
            image.data[self._held : self._held + size],
        )


class Arriving:
    """What has arrived of a snapshot, one at a time. It takes as much memory as has arrived, and once more when it is
    complete."""

    def __init__(self) -> None:
        self._digest = b""
        self._size = 0
        self._data = bytearray()
        self._hash = hashlib.sha256()

    def take(self, piece: Piece, *, needed: bool) -> tuple[int, Image | None]:
        """Takes a piece that follows what is held of the same snapshot; begins anew with another one. How much is held,
        and the snapshot when it is complete: then it is held here no longer. One that is not ``needed`` is said to be
        held."""
        if not needed:
            return piece.size, None
        if not 0 <= piece.size <= MOST_BYTES:
            log.warning("a snapshot of %s bytes of %s is not taken", piece.size, piece.sender)
            return 0, None
        if (piece.digest, piece.size) != (self._digest, self._size):
            self._begin(piece.digest, piece.size)
        if piece.offset == len(self._data) and len(self._data) + len(piece.data) <= self._size:
            self._data += piece.data
            self._hash.update(piece.data)
        held = len(self._data)
        if held < piece.size:
            return held, None
        data, found = bytes(self._data), self._hash.digest()
        self._begin(b"", 0)
        if found != piece.digest:
            log.warning("the snapshot at %s of %s is sent again: its digest is another one", piece.index, piece.sender)
            return 0, None
        return held, Image(piece.index, piece.image_term, piece.membership, data)

    def _begin(self, digest: bytes, size: int) -> None:
        self._digest, self._size = digest, size
        self._data, self._hash = bytearray(), hashlib.sha256()


async def _digest_of(data: bytes) -> bytes:
    digest = hashlib.sha256()
    for at in range(0, len(data), _HASHED_AT_ONCE):
        digest.update(data[at : at + _HASHED_AT_ONCE])
        await asyncio.sleep(0)
    return digest.digest()
