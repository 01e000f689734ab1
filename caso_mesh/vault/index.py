"""Looking ids up: sorted segments with a fan-out, in batches, behind a Bloom filter that answers "new"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbloom import Bloom

from caso_mesh.vault.chunking import ID_SIZE
from caso_mesh.vault.damage import WHOLE, Damage
from caso_mesh.vault.table import Array, Table, split_ids

_FAN_BITS = 22
#: Buckets of a sound segment hold a handful; one with longer ones was made on purpose and is searched by halving.
_LONGEST_BUCKET = 64
_FALSE_POSITIVES = 0.001


class Segment:
    """One table that can be searched. ``name`` is its object, ``writer`` who wrote it.

    ``durable``: signed and in the vault, so what it names may be reused; a table that was rebuilt in memory is only
    for reading. ``damage`` tells which of its records are lost.
    """

    __slots__ = ("_damage", "_fan", "_marked", "_marks", "_packs", "_shift", "durable", "name", "table", "writer")

    def __init__(
        self, name: str, writer: str, table: Table, damage: Damage | None = None, *, durable: bool = True
    ) -> None:
        self.name = name
        self.writer = writer
        self.table = table
        self.durable = durable
        self._damage = damage
        self._marked = 0
        self._marks: Array | None = None
        self._packs: dict[bytes, int] | None = None
        bits = min(_FAN_BITS, max(1, len(table).bit_length() - 1))
        self._shift = np.uint64(64 - bits)
        bounds = np.arange(1, 1 << bits, dtype=np.uint64) << self._shift
        fan = np.empty((1 << bits) + 1, np.int64)
        fan[0], fan[-1] = 0, len(table)
        fan[1:-1] = np.searchsorted(table.prefix, bounds)
        self._fan: Array | None = fan if int(np.diff(fan).max()) <= _LONGEST_BUCKET else None

    def find(self, prefix: Array, rest: Array) -> NDArray[np.int64]:
        """The first row of each id; -1 where there is none."""
        table = self.table
        count = len(table)
        rows = np.full(len(prefix), -1, np.int64)
        if not count:
            return rows
        if self._fan is None:
            position = np.searchsorted(table.prefix, prefix).astype(np.int64)
        else:
            bucket = (prefix >> self._shift).astype(np.int64)
            position = self._fan[bucket].astype(np.int64)
            end = self._fan[bucket + 1]
            live = np.nonzero(position < end)[0]
            while len(live):
                live = live[table.prefix[position[live]] < prefix[live]]
                position[live] += 1
                live = live[position[live] < end[live]]
        live = np.nonzero(position < count)[0]
        while len(live):
            live = live[table.prefix[position[live]] == prefix[live]]
            same = np.all(table.rest[position[live]] == rest[live], axis=1)
            rows[live[same]] = position[live[same]]
            live = live[~same]
            position[live] += 1
            live = live[position[live] < count]
        return rows

    @property
    def packs(self) -> dict[bytes, int]:
        """Id and row of each pack."""
        if self._packs is None:
            self._packs = {self.table.pack_id(number): number for number in range(len(self.table.packs))}
        return self._packs

    @property
    def has_damage(self) -> bool:
        """Whether any of its records is known to be damaged."""
        return self._known_marks() is not None

    def find_sound(self, prefix: Array, rest: Array) -> NDArray[np.int64]:
        """As ``find``, passing over what is known to be damaged."""
        rows = self.find(prefix, rest)
        if self._known_marks() is not None:
            hit = np.nonzero(rows >= 0)[0]
            for position in hit[self.is_damaged(rows[hit])].tolist():
                copies = np.array(self.find_all(self.table.ids_of(rows[position : position + 1])), np.int64)
                sound = copies[~self.is_damaged(copies)]
                rows[position] = sound[0] if len(sound) else -1
        return rows

    def is_damaged(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each row whether its record is known to be damaged."""
        marks = self._known_marks()
        if marks is None:
            return np.zeros(len(rows), np.bool_)
        records = self.table.records[self.table.record[rows]]
        packs = records["pack"].astype(np.int64) << 32
        found: NDArray[np.bool_] = np.isin(packs | records["number"].astype(np.int64), marks)
        return found | np.isin(packs | WHOLE, marks)

    def _known_marks(self) -> Array | None:
        """What is damaged here, as ``Damage.marks`` says it; None: nothing."""
        damage = self._damage
        if damage is None or not damage.version:
            return None
        if self._marked != damage.version:
            version, marks = damage.marks(self.packs)
            self._marks = np.array(marks, np.int64) if marks else None
            self._marked = version
        return self._marks

    def find_all(self, chunk: bytes) -> list[int]:
        """Every row of one id: it may lie in several packs."""
        prefix, rest = split_ids(np.frombuffer(chunk, np.uint8).reshape(1, ID_SIZE))
        table = self.table
        first = int(np.searchsorted(table.prefix, prefix[0], "left"))
        last = int(np.searchsorted(table.prefix, prefix[0], "right"))
        return [row for row in range(first, last) if np.array_equal(table.rest[row], rest[0])]


class Index:
    """All segments as of one listing. Never changed: a new listing makes a new one, which inherits the filter."""

    def __init__(self, segments: Sequence[Segment] = (), before: Index | None = None) -> None:
        #: Largest first, so that most ids of a batch are found in the first table.
        self.segments = tuple(sorted(segments, key=lambda segment: len(segment.table), reverse=True))
        self._bloom: Any
        self._capacity: int
        fresh = self.segments
        total = sum(len(segment.table) for segment in self.segments)
        if before is not None and before._capacity >= total:
            known = {id(segment) for segment in before.segments}
            fresh = tuple(segment for segment in self.segments if id(segment) not in known)
            # Shared with ``before``: more ids in its filter only mean that it looks them up in vain.
            self._bloom, self._capacity = before._bloom, before._capacity
        else:
            self._capacity = max(1 << 16, total * 2)
            self._bloom = Bloom(self._capacity, _FALSE_POSITIVES, abs)
        for segment in fresh:
            self._bloom.update(segment.table.prefix.tolist())

    def __len__(self) -> int:
        return sum(len(segment.table) for segment in self.segments)

    def maybe(self, chunk: bytes) -> bool:
        """False: certainly not here. True: probably."""
        return int.from_bytes(chunk[:8], "big") in self._bloom

    def find(self, ids: Sequence[bytes], *, durable_only: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each id the number of the segment and the row in it that hold it first; -1 where nothing does.

        A copy that is known to be damaged comes after all others; with ``durable_only`` (what may be reused) it does
        not count.
        """
        numbers = np.full(len(ids), -1, np.int64)
        rows = np.full(len(ids), -1, np.int64)
        wanted = np.array([i for i, chunk in enumerate(ids) if self.maybe(chunk)], np.int64)
        if not len(wanted):
            return numbers, rows
        whole = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, ID_SIZE)
        prefix, rest = split_ids(whole[wanted])
        damaged = not durable_only and any(segment.has_damage for segment in self.segments)
        for sound in (True, False) if damaged else (True,):
            for number, segment in enumerate(self.segments):
                if durable_only and not segment.durable:
                    continue
                found = segment.find_sound(prefix, rest) if sound else segment.find(prefix, rest)
                hit = found >= 0
                if hit.any():
                    numbers[wanted[hit]] = number
                    rows[wanted[hit]] = found[hit]
                    wanted, prefix, rest = wanted[~hit], prefix[~hit], rest[~hit]
                    if not len(wanted):
                        return numbers, rows
        return numbers, rows

    def find_all(self, chunk: bytes) -> list[tuple[Segment, int]]:
        """Every copy of one id, damaged or not."""
        return [(segment, row) for segment in self.segments for row in segment.find_all(chunk)]

    def packs(self) -> set[bytes]:
        """Ids of all packs that a segment of the vault names."""
        return {
            segment.table.pack_id(number)
            for segment in self.segments
            if segment.durable
            for number in range(len(segment.table.packs))
        }
