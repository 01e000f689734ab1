"""A backup whose files are on another server than its device: what both ends say to each other, and the sink that sends.

The source's end chunks, names, asks what is there, compresses and sends the rest; it learns nothing of others, since
the device's end (``far_store``) knows only what this source sent before.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct, structs

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.manifests import pack_members
from caso_mesh.jobs.sink import Member, SinkLane
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import PeerFault, PeerMalformed
from caso_mesh.model.jobs import Counts
from caso_mesh.model.states import BackupType
from caso_mesh.vault.chunking import ID_SIZE, ChunkerParameters, chunk_id
from caso_mesh.vault.packing import Compressor
from caso_mesh.wire.codec import to_wire


class Begin(Struct, frozen=True):
    """``now_ns`` is the source's clock. ``among``: ids of trees, one after the other, of which the set that is built on must
    have one (``None``: whatever tree)."""

    now_ns: int
    among: bytes | None = None


class Roots(Struct, frozen=True):
    """The answer to ``roots``: trees of the sets that could be built on, the newest first, one id after the other."""

    ids: bytes


class Base(Struct, frozen=True):
    """The answer to ``begin``: what really runs, the tree that change is measured against, since when. Where nothing of
    this source is known, nothing need be asked for."""

    type: BackupType
    chunker: ChunkerParameters
    root: bytes | None = None
    start_ns: int = 0
    total_bytes: int | None = None
    total_files: int | None = None
    knows: bool = True


class Have(Struct, frozen=True):
    """Ids, one after the other. The answer is a byte for each: 1 if its chunk need not be sent."""

    ids: bytes


class Put(Struct, frozen=True):
    """A record: flags and payload as ``vault.packing`` makes them, and what lies in its raw bytes (``manifests``)."""

    flags: int
    raw: int
    payload: bytes
    members: bytes


class Piece(Struct, frozen=True):
    """A piece of the new tree."""

    flags: int
    raw: int
    payload: bytes


class Fetch(Struct, frozen=True):
    """Asks for a piece of the tree that change is measured against."""

    id: bytes


class Report(Struct, frozen=True):
    """What the source has done so far, and what it could not keep since the last report."""

    counts: Counts
    path: bytes = b""
    exceptions: tuple[SourceException, ...] = ()


class Finish(Struct, frozen=True):
    """The tree is complete. ``copy_of``: the set that it was published as on the first device."""

    root: bytes
    report: Report
    copy_of: str = ""


class Finished(Struct, frozen=True):
    """The set is published."""

    set: str


class Told:
    """Exceptions on their way to the device's end, which tells them to its daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[SourceException] = []

    def take(self, exceptions: tuple[SourceException, ...]) -> None:
        with self._lock:
            self._waiting.extend(exceptions)

    def give(self) -> tuple[SourceException, ...]:
        with self._lock:
            given, self._waiting = self._waiting, []
            return tuple(given)


def take_report(desk: Desk, report: Report, far: str) -> None:
    """What the source has done so far is told as this end's own. Raises ``PeerFault``."""
    tally, counts = desk.tally, report.counts
    if min(structs.astuple(counts)) < 0:
        raise PeerFault(peer=far, detail="it counts below zero")
    tally.files, tally.entries, tally.bytes = counts.files, counts.entries, counts.bytes
    tally.read(max(0, counts.bytes_read - tally.bytes_read))
    desk.path = report.path
    for exception in report.exceptions:
        desk.exception(exception)


class Calls(Protocol):
    """As much of a bulk channel as sending needs."""

    def call(self, method: str, params: Any = None) -> Any: ...

    def start(self, method: str, params: Any = None, *, size: int = 0) -> Any: ...


class FarSink:
    """Sends to the device's end. See ``sink.Sink``. ``holds_base``: it has the whole tree that change is measured against,
    which is read elsewhere."""

    def __init__(self, channel: Calls, id_key: bytes, far: str, *, asks: bool, holds_base: bool = False) -> None:
        self._channel = channel
        self._id_key = id_key
        self._far = far
        self._asks = asks
        self._holds_base = holds_base
        self._compressor = Compressor()
        #: Ids that this attempt sends, or that are there: nobody asks for them twice.
        self._claimed: dict[bytes, object] = {}
        self._pieces: set[bytes] = set()

    def lane(self) -> SinkLane:
        return _FarLane(self._channel, self._claimed, asks=self._asks)

    def store(self, data: bytes) -> bytes:
        piece = chunk_id(self._id_key, data)
        if piece not in self._pieces:
            self._pieces.add(piece)
            flags, payload = self._compressor.pack(data)
            self._channel.start("piece", to_wire(Piece(flags, len(data), bytes(payload))))
        return piece

    def keep(self, ids: Sequence[bytes]) -> bool:
        return self._holds_base or self._pieces.issuperset(ids)

    def fetch(self, piece: bytes) -> bytes:
        """A piece of the tree that change is measured against."""
        data = self._channel.call("fetch", to_wire(Fetch(piece)))
        if not isinstance(data, bytes) or chunk_id(self._id_key, data) != piece:
            raise PeerMalformed(peer=self._far, detail="it sent another piece of the tree than was asked for")
        self._pieces.add(piece)
        return data


class _FarLane:
    def __init__(self, channel: Calls, claimed: dict[bytes, object], *, asks: bool) -> None:
        self._channel = channel
        self._asks = asks
        self._claimed = claimed
        self._compressor = Compressor()

    def want(self, ids: Sequence[bytes]) -> list[bool]:
        mine = object()
        claim = self._claimed.setdefault
        wants = [False] * len(ids)
        fresh: list[int] = []
        seen: set[bytes] = set()
        for number, chunk in enumerate(ids):
            if claim(chunk, mine) is mine and chunk not in seen:
                seen.add(chunk)
                fresh.append(number)
        if not self._asks:
            for number in fresh:
                wants[number] = True
        elif fresh:
            asked = b"".join([ids[number] for number in fresh])
            there = self._channel.call("have", to_wire(Have(asked)))
            if not isinstance(there, bytes) or len(there) * ID_SIZE != len(asked):
                raise PeerMalformed(peer="the device's end", detail="it did not answer what was asked")
            for number, known in zip(fresh, there, strict=True):
                wants[number] = not known
        return wants

    def add(self, chunk: bytes, view: memoryview) -> None:
        self.add_bundle(view, [(chunk, 0, len(view))])

    def add_bundle(self, view: memoryview, members: Sequence[Member]) -> None:
        flags, payload = self._compressor.pack(view, alike=len(members) == 1)
        # the buffer below is used again while this is under way
        put = Put(flags, len(view), bytes(payload), pack_members(members))
        self._channel.start("put", to_wire(put), size=len(put.payload))
