"""Reading back every byte that a set promises."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from caso_mesh.model.entries import ChunkRef
from caso_mesh.model.errors import CasoError, DataDamaged, DeviceError, DeviceVanished, NoKey, ObjectMissing
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.chunking import ID_SIZE
from caso_mesh.vault.damage import WHOLE
from caso_mesh.vault.names import pack_name
from caso_mesh.vault.packs import PackReader, same_claims
from caso_mesh.vault.reading import ChunkReader, Piece
from caso_mesh.vault.segments import SegmentStore
from caso_mesh.vault.tree import TreeReader

#: Ids that are looked up at once.
_BATCH = 4096
#: Threads that read, and pieces of packs that are read or wait for them.
_THREADS = 3
_AHEAD = 5

Damage = list[tuple[bytes, CasoError]]
Progress = Callable[[int, int], None]


def verify_set(
    backup_set: BackupSet, segments: SegmentStore, reader: ChunkReader, packs: PackReader, on_progress: Progress | None
) -> Damage:
    """See ``Vault.verify_set``."""
    segments.refresh()
    return _Verification(backup_set, segments, reader, packs).run(on_progress)


class _Verification:
    """One run. Memory: one byte for each id of the index, and the ids that are damaged."""

    def __init__(self, backup_set: BackupSet, segments: SegmentStore, reader: ChunkReader, packs: PackReader) -> None:
        index = segments.index
        self._damage_of_vault = segments.damage
        self._set = backup_set
        self._index = index
        self._reader = reader
        self._packs = packs
        self._tree = TreeReader(backup_set.root, self._fetch)
        self._damage: Damage = []
        self._bad: dict[bytes, CasoError] = {}
        #: Rows of the index that the set needs: each is read once, however many files share it.
        self._needed = [np.zeros(len(segment.table), np.bool_) for segment in index.segments]
        #: Packs whose structure is looked at: these, and those of the tree.
        self._touched = [np.zeros(len(segment.table.packs), np.bool_) for segment in index.segments]

    def run(self, on_progress: Progress | None) -> Damage:
        self._read_all(self._collect(), on_progress)
        self._check_packs()
        if self._bad:
            self._name_files()
        return self._damage

    def _read_all(self, total: int, on_progress: Progress | None) -> None:
        """Reads what is needed; threads do it piece by piece, and nothing of a piece is kept."""
        done = 0
        under_way: deque[Future[int]] = deque()
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="vault-verify")
        try:
            for piece in self._pieces():
                under_way.append(pool.submit(self._read_piece, piece))
                if len(under_way) < _AHEAD:
                    continue
                done += under_way.popleft().result()
                if on_progress is not None:
                    on_progress(min(done, total), total)
            done += sum(future.result() for future in under_way)
            if on_progress is not None:
                on_progress(min(done, total), total)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pieces(self) -> Iterator[Piece]:
        for ids in self._ids():
            missing, pieces = self._reader.pieces(ids)
            self._bad.update(missing)
            yield from pieces

    def _read_piece(self, piece: Piece) -> int:
        """How many sound bytes it holds."""
        done = 0
        for chunk, content in self._reader.read_piece(piece):
            if isinstance(content, CasoError):
                self._bad[chunk] = content
            else:
                done += len(content)
        return done

    def _lost(self, path: bytes, error: CasoError) -> None:
        self._damage.append((path, error))

    def _fetch(self, chunk: bytes) -> bytes:
        """A tree segment; notes where it lies."""
        self._touch([chunk])
        return self._reader.read(chunk)

    def _collect(self) -> int:
        """Walks the tree and marks what it needs; returns its raw bytes."""
        total = entries = 0
        batch: dict[bytes, int] = {}
        for entry in self._tree.entries(on_damage=self._lost):
            entries += 1
            batch.update(entry.chunks)
            if len(batch) >= _BATCH:
                total += self._mark(batch)
                batch = {}
        total += self._mark(batch)
        if entries != self._set.entries and not self._damage:
            detail = f"its tree has {entries} entries instead of {self._set.entries}"
            self._lost(b"", DataDamaged(object=f"set {self._set.id}", detail=detail))
        return total

    def _mark(self, wanted: dict[bytes, int]) -> int:
        ids = list(wanted)
        total = 0
        numbers, rows = self._touch(ids)
        for position in np.nonzero(numbers < 0)[0].tolist():
            self._bad[ids[position]] = ObjectMissing(name=ids[position].hex())
        for number in np.unique(numbers[numbers >= 0]).tolist():
            table, needed = self._index.segments[number].table, self._needed[number]
            mine = np.nonzero(numbers == number)[0]
            lengths = table.length[rows[mine]]
            for position, length in zip(mine.tolist(), lengths.tolist(), strict=True):
                if wanted[ids[position]] != length:
                    detail = f"it has {length} bytes, a file says {wanted[ids[position]]}"
                    self._bad[ids[position]] = DataDamaged(object=f"chunk {ids[position].hex()}", detail=detail)
            fresh = ~needed[rows[mine]]
            total += int(lengths[fresh].sum())
            needed[rows[mine]] = True
        return total

    def _touch(self, ids: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        numbers, rows = self._index.find(ids)
        for number in np.unique(numbers[numbers >= 0]).tolist():
            table = self._index.segments[number].table
            records = table.record[rows[numbers == number]]
            self._touched[number][table.records["pack"][records]] = True
        return numbers, rows

    def _ids(self) -> Iterator[list[bytes]]:
        """What is needed, in the order in which it lies."""
        for segment, needed in zip(self._index.segments, self._needed, strict=True):
            table = segment.table
            rows = np.nonzero(needed)[0]
            placed = table.records[table.record[rows]]
            rows = rows[np.lexsort((placed["offset"], placed["pack"]))]
            for begin in range(0, len(rows), _BATCH):
                joined = table.ids_of(rows[begin : begin + _BATCH])
                yield [joined[at : at + ID_SIZE] for at in range(0, len(joined), ID_SIZE)]

    def _check_packs(self) -> None:
        """The parts of packs that reading by the index passes over: beginning, table, end."""
        for segment, touched in zip(self._index.segments, self._touched, strict=True):
            for number in np.nonzero(touched)[0].tolist():
                table = segment.table
                pack, kind = table.pack_id(number), table.pack_kind(number)
                try:
                    own = self._packs.read_table(pack, kind)
                    if not same_claims(table, number, own):
                        detail = f"its own table says something else than {segment.name}"
                        raise DataDamaged(object=pack_name(pack, kind), detail=detail)
                except DeviceVanished:
                    raise
                except NoKey:
                    # the index named a key that we have, or it would not have been read
                    detail = "its beginning names a key that there is not"
                    self._damage_of_vault.note(pack, kind, WHOLE)
                    self._lost(b"", DataDamaged(object=pack_name(pack, kind), detail=detail))
                except (DataDamaged, DeviceError, ObjectMissing) as error:
                    self._damage_of_vault.note(pack, kind, WHOLE)
                    self._lost(b"", error)

    def _name_files(self) -> None:
        """Walks the tree again: only now is it known which chunks are damaged."""

        def told_before(path: bytes, error: CasoError) -> None:
            """The first walk reported it."""

        for entry in self._tree.entries(on_damage=told_before):
            error = self._first_error(entry.chunks)
            if error is not None:
                self._lost(entry.path, error)

    def _first_error(self, chunks: tuple[ChunkRef, ...]) -> CasoError | None:
        return next((self._bad[chunk] for chunk, _ in chunks if chunk in self._bad), None)
