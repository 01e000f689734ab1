"""Reading chunks: in the order in which they lie, neighbours together, every id recomputed."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from msgspec import Struct

from caso_mesh.model.errors import CasoError, DataDamaged, DeviceError, DeviceVanished, NoKey, ObjectMissing
from caso_mesh.vault.chunking import KIB, MIB, chunk_id
from caso_mesh.vault.damage import WHOLE
from caso_mesh.vault.index import Segment
from caso_mesh.vault.names import pack_name
from caso_mesh.vault.objects import ObjectStore
from caso_mesh.vault.packs import Member, PackReader, Record, record_of
from caso_mesh.vault.segments import SegmentStore

#: Records that lie closer together than this are fetched in one piece, up to this many bytes.
_GAP = 256 * KIB
_PIECE = 4 * MIB

#: Threads that fetch, open and unpack pieces, and how many pieces may be ready or under way.
_THREADS = 2
_AHEAD = 4

#: What is fetched at once: records that lie together in a pack, and those of their members that are wanted.
Piece = list[tuple[Record, list[Member]]]
_Content = tuple[bytes, bytes | memoryview | CasoError]


class Packed(Struct, frozen=True):
    """A record as it was packed: flags and payload, the length of its raw bytes, and those of its members that were
    asked for."""

    flags: int
    payload: bytearray
    raw: int
    members: list[Member]


T = TypeVar("T")
#: What is made of a record and its bytes in the pack.
_Opening = Callable[[Record, list[Member], memoryview], Iterator[T | _Content]]


class ChunkReader:
    """Reads chunks by their ids. Thread-safe."""

    def __init__(self, store: ObjectStore, segments: SegmentStore, packs: PackReader) -> None:
        self._store = store
        self._segments = segments
        self._packs = packs

    def read(self, chunk: bytes) -> bytes:
        """One chunk. Raises ``ObjectMissing``, ``DataDamaged``, ``DeviceError``."""
        for _, content in self.read_many([chunk]):
            if isinstance(content, CasoError):
                raise content
            return bytes(content)
        raise ObjectMissing(name=chunk.hex())

    def read_many(self, ids: Sequence[bytes]) -> Iterator[_Content]:
        """Each distinct id once, in the order of the packs, with its content or what is wrong with it.

        A damaged copy is passed over if another pack holds the id as well. Raises only what hits all of them:
        ``DeviceVanished``. What comes next is fetched and unpacked by threads meanwhile; they end with the iterator.
        """
        return self._many(ids, self._open)

    def packed_many(self, ids: Sequence[bytes]) -> Iterator[Packed | _Content]:
        """As ``read_many``, with whole records as they were packed: nothing is unpacked here, and no id recomputed.
        Whoever unpacks them does both, and asks ``read`` for what is wrong."""
        return self._many(ids, self._open_packed)

    def pieces(self, ids: Sequence[bytes]) -> tuple[list[tuple[bytes, CasoError]], Iterator[Piece]]:
        """What is nowhere, and what to fetch at once, in the order of the packs; each distinct id once."""
        distinct = list(dict.fromkeys(ids))
        numbers, rows = self._segments.index.find(distinct)
        if (numbers < 0).any():
            self._segments.refresh()  # another writer may have added it since
            numbers, rows = self._segments.index.find(distinct)
        index = self._segments.index
        missing: list[tuple[bytes, CasoError]] = [
            (distinct[position], ObjectMissing(name=distinct[position].hex()))
            for position in np.nonzero(numbers < 0)[0].tolist()
        ]
        return missing, itertools.chain.from_iterable(
            self._pieces(
                index.segments[number],
                [distinct[position] for position in np.nonzero(numbers == number)[0].tolist()],
                rows[numbers == number],
            )
            for number in np.unique(numbers[numbers >= 0]).tolist()
        )

    def read_piece(self, piece: Piece) -> Iterator[_Content]:
        """Each id of a piece with its content or what is wrong with it. Raises ``DeviceVanished``."""
        return self._read_piece(piece, self._open)

    def _many(self, ids: Sequence[bytes], opening: _Opening[T]) -> Iterator[T | _Content]:
        missing, pieces = self.pieces(ids)
        yield from missing
        first = list(itertools.islice(pieces, 2))
        if len(first) < 2:
            for piece in first:
                yield from self._read_piece(piece, opening)
            return
        yield from self._read_ahead(itertools.chain(first, pieces), opening)

    def _read_ahead(self, pieces: Iterator[Piece], opening: _Opening[T]) -> Iterator[T | _Content]:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="vault-read")
        under_way: deque[Future[list[T | _Content]]] = deque()
        try:
            for piece in pieces:
                under_way.append(pool.submit(lambda piece=piece: list(self._read_piece(piece, opening))))  # type: ignore[misc]
                if len(under_way) >= _AHEAD:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pieces(self, segment: Segment, ids: list[bytes], rows: np.ndarray) -> Iterator[Piece]:
        """What is fetched at once: neighbours in a pack."""
        table = segment.table
        records = table.record[rows]
        placed = table.records[records]
        offsets = table.offset[rows]
        order = np.lexsort((offsets, placed["offset"], placed["pack"]))
        piece: Piece = []
        members: list[Member] = []
        last = -1
        for number, position, offset, length in zip(
            records[order].tolist(),
            order.tolist(),
            offsets[order].tolist(),
            table.length[rows[order]].tolist(),
            strict=True,
        ):
            if number != last:
                last = number
                record = record_of(table, number)
                if piece and not _neighbours(piece, record):
                    yield piece
                    piece = []
                members = []
                piece.append((record, members))
            members.append((ids[position], offset, length))
        if piece:
            yield piece

    def _read_piece(self, piece: Piece, opening: _Opening[T]) -> Iterator[T | _Content]:
        first, last = piece[0][0], piece[-1][0]
        name = pack_name(first.pack, first.kind)
        try:
            stored = memoryview(self._store.backend.get(name, first.offset, last.end - first.offset))
        except DeviceVanished:
            raise
        except (DeviceError, ObjectMissing) as error:
            if len(piece) > 1 and isinstance(error, DeviceError):
                # one bad sector must not take its neighbours with it
                for wanted in piece:
                    yield from self._read_piece([wanted], opening)
                return
            for record, members in piece:
                yield from self._from_elsewhere(record, members, error)
            return
        for record, members in piece:
            begin = record.offset - first.offset
            yield from opening(record, members, stored[begin : begin + record.end - record.offset])

    def _open(self, record: Record, members: list[Member], stored: memoryview) -> Iterator[_Content]:
        try:
            raw = memoryview(self._packs.open_record(record, stored, members[0][0]))
        except (DataDamaged, NoKey) as error:
            yield from self._from_elsewhere(record, members, error)
            return
        for member in members:
            content, wrong = self._check(record, raw, member)
            if wrong is None:
                yield member[0], content
            else:
                yield from self._from_elsewhere(record, [member], wrong)

    def _open_packed(self, record: Record, members: list[Member], stored: memoryview) -> Iterator[Packed | _Content]:
        try:
            flags, payload = self._packs.open_packed(record, stored, members[0][0])
        except (DataDamaged, NoKey) as error:
            yield from self._from_elsewhere(record, members, error)
            return
        yield Packed(flags, payload, record.raw, members)

    def _check(self, record: Record, raw: memoryview, member: Member) -> tuple[memoryview, CasoError | None]:
        chunk, offset, length = member
        content = raw[offset : offset + length]
        if chunk_id(self._store.keys.id_key, content) == chunk:
            return content, None
        label = f"{pack_name(record.pack, record.kind)}, record {record.number}"
        return content, DataDamaged(object=label, detail=f"its content is not that of the id {chunk.hex()}")

    def _from_elsewhere(self, failed: Record, members: list[Member], error: CasoError) -> Iterator[_Content]:
        """The same ids out of other packs; ``error`` for those that have no sound copy."""
        if isinstance(error, ObjectMissing):
            self._segments.refresh()  # the pack may have been copied to a fresh one
        if not isinstance(error, NoKey):
            whole = isinstance(error, ObjectMissing)
            self._segments.damage.note(failed.pack, failed.kind, WHOLE if whole else failed.number)
        for member in members:
            yield member[0], self._another_copy(failed.pack, member[0]) or error

    def _another_copy(self, failed: bytes, chunk: bytes) -> memoryview | None:
        for segment, row in self._segments.index.find_all(chunk):
            table = segment.table
            record = record_of(table, int(table.record[row]))
            if record.pack == failed:
                continue
            member = (chunk, int(table.offset[row]), int(table.length[row]))
            try:
                stored = self._store.backend.get(
                    pack_name(record.pack, record.kind), record.offset, record.end - record.offset
                )
                raw = memoryview(self._packs.open_record(record, memoryview(stored), chunk))
            except DeviceVanished:
                raise
            except (DataDamaged, DeviceError, NoKey, ObjectMissing):
                continue  # the first error is the one that is told
            content, wrong = self._check(record, raw, member)
            if wrong is None:
                return content
        return None

    def is_sound(self, segment: Segment, record: int) -> bool:
        """Whether a record (its row in the segment) is read back as what the segment says. Raises ``DeviceVanished``."""
        table = segment.table
        place = record_of(table, record)
        rows = np.nonzero(table.record == record)[0]
        ids = [table.ids_of(rows[at : at + 1]) for at in range(len(rows))]
        members = [
            (chunk, int(table.offset[row]), int(table.length[row])) for chunk, row in zip(ids, rows, strict=True)
        ]
        try:
            stored = self._store.backend.get(pack_name(place.pack, place.kind), place.offset, place.end - place.offset)
            raw = memoryview(self._packs.open_record(place, memoryview(stored), ids[0] if ids else None))
        except DeviceVanished:
            raise
        except (DataDamaged, DeviceError, NoKey, ObjectMissing):
            return False
        return all(self._check(place, raw, member)[1] is None for member in members)


def _neighbours(piece: Piece, record: Record) -> bool:
    first, last = piece[0][0], piece[-1][0]
    return record.pack == last.pack and record.offset - last.end <= _GAP and record.end - first.offset <= _PIECE
