"""Writing: a session of one writer, its lanes (one per thread), and the thread that makes packs durable."""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec
import numpy as np

from caso_mesh.model.errors import CasoError, DataDamaged, Misuse, NoKey, ObjectMissing
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.names import Kind, closed_name, parse_pack, set_name
from caso_mesh.vault.objects import ObjectStore, Signer
from caso_mesh.vault.packing import Compressor
from caso_mesh.vault.packs import (
    MAX_METADATA_RECORD,
    MAX_RECORD,
    Member,
    PackBuilder,
    PackReader,
    capacity_of,
    check_members,
)
from caso_mesh.vault.problems import Problems
from caso_mesh.vault.records import ClosedRecord, SessionRecord, encode_set
from caso_mesh.vault.segments import SegmentStore
from caso_mesh.vault.table import Table

#: Packs that wait for the device. Each holds a buffer of 32 MiB, so this bounds memory.
_PACKS_WAITING = 1


class _PackWriter:
    """Makes packs durable in a thread of its own, so that waiting for the device is off the hot path."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._queue: queue.Queue[PackBuilder | None] = queue.Queue(maxsize=_PACKS_WAITING)
        self._lock = threading.Lock()
        self._free: dict[int, list[bytearray | mmap.mmap]] = {}
        self._done: list[Table] = []
        self._thread: threading.Thread | None = None
        self.failure: CasoError | Exception | None = None
        self.bytes = 0

    def buffer(self, size: int) -> bytearray | mmap.mmap:
        """Memory that begins at a page, so that a device can write it without copying it first."""
        with self._lock:
            free = self._free.setdefault(size, [])
            return free.pop() if free else _pages(size)

    def submit(self, pack: PackBuilder) -> None:
        """Hands a full pack over; waits while too many are under way. Its buffer comes back by ``buffer``."""
        with self._lock:
            if self._thread is None:
                # a daemon thread: a worker that must end does not wait for a device that hangs
                self._thread = threading.Thread(target=self._run, name="vault-packs", daemon=True)
                self._thread.start()
        self._queue.put(pack)

    def wait(self) -> None:
        """Returns when all that was handed over is durable, and gives its buffers back. Raises what went wrong."""
        self._queue.join()
        with self._lock:
            self._free.clear()
        self.check()

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def take_done(self) -> list[Table]:
        with self._lock:
            done, self._done = self._done, []
            return done

    def put_back(self, tables: list[Table]) -> None:
        with self._lock:
            self._done = tables + self._done

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()
        self._free.clear()

    def _run(self) -> None:
        while True:
            pack = self._queue.get()
            try:
                if pack is None:
                    return
                if self.failure is None:
                    self._write(pack)
            except Exception as error:
                # raised again at the next call of a lane or of the session
                self.failure = error
            finally:
                self._queue.task_done()

    def _write(self, pack: PackBuilder) -> None:
        parts, table = pack.finish()
        self._store.backend.put(pack.name, parts)
        with self._lock:
            self._done.append(table)
            self.bytes += sum(map(len, parts))
            self._free.setdefault(len(pack.buffer), []).append(pack.buffer)


def _pages(size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


class Lane:
    """Where one thread puts what it has claimed. Owns its compressor and the packs that it fills."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._compressor = Compressor()
        self._open: dict[Kind, PackBuilder] = {}
        # taken by its own thread only, except when the session flushes
        self._lock = threading.Lock()

    def add(self, chunk_id: bytes, view: bytes | bytearray | memoryview, *, metadata: bool = False) -> None:
        """Stores one chunk that the caller has claimed. ``view`` may be reused on return."""
        self._add(view, [(chunk_id, 0, len(view))], metadata=metadata)

    def add_bundle(self, view: bytes | bytearray | memoryview, members: Sequence[Member]) -> None:
        """Stores many small chunks at once: (id, offset, length) inside ``view``, rising and not overlapping."""
        self._add(view, members, metadata=False)

    def add_packed(
        self,
        flags: int,
        payload: bytes | bytearray | memoryview,
        raw_length: int,
        members: Sequence[Member],
        *,
        metadata: bool = False,
    ) -> None:
        """Stores what was compressed elsewhere. The caller has unpacked it and recomputed the ids of all members."""
        limit = MAX_METADATA_RECORD if metadata else MAX_RECORD
        check_members(members, raw_length, limit, flags)
        if len(payload) > limit:
            raise Misuse(f"a payload of {len(payload)} bytes; {limit} are allowed")
        self._store(flags, payload, raw_length, members, metadata=metadata)

    def flush(self) -> None:
        """Hands the packs that are being filled over to the device, however small. Does not wait for it."""
        with self._lock:
            for kind in list(self._open):
                self._session.packs.submit(self._open.pop(kind))
        self._session.packs.check()

    def _add(self, view: bytes | bytearray | memoryview, members: Sequence[Member], *, metadata: bool) -> None:
        check_members(members, len(view), MAX_METADATA_RECORD if metadata else MAX_RECORD)
        flags, payload = self._compressor.pack(view, alike=len(members) == 1)
        self._store(flags, payload, len(view), members, metadata=metadata)

    def _store(
        self,
        flags: int,
        payload: bytes | bytearray | memoryview,
        raw_length: int,
        members: Sequence[Member],
        *,
        metadata: bool,
    ) -> None:
        kind = Kind.METADATA_PACK if metadata else Kind.DATA_PACK
        session = self._session
        session.check_open()
        with self._lock:
            pack = self._open.get(kind)
            if pack is not None and not pack.fits(len(payload)):
                session.packs.submit(self._open.pop(kind))
                pack = None
            if pack is None:
                buffer = session.packs.buffer(capacity_of(kind))
                pack = self._open[kind] = PackBuilder(session.store, session.record.session, kind, buffer)
            pack.add(flags, payload, raw_length, members)


class Session:
    """One writer at work on one vault. ``Vault.open_session`` makes it. Thread-safe.

    Whatever fails, fails at the next call, and the session is of no more use then: ``abort`` it. What was durable by
    then can be adopted by the next session of the same writer.
    """

    def __init__(
        self,
        store: ObjectStore,
        segments: SegmentStore,
        reader: PackReader,
        problems: Problems,
        record: SessionRecord,
        signer: Signer,
        on_publish: Callable[[str, BackupSet], None],
    ) -> None:
        self.store = store
        self.record = record
        self.packs = _PackWriter(store)
        self._segments = segments
        self._reader = reader
        self._problems = problems
        self._signer = signer
        self._on_publish = on_publish
        self._claimed: dict[bytes, object] = {}
        self._lanes: list[Lane] = []
        self._lock = threading.RLock()
        self._index_bytes = 0
        self._number = 0
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._ended:
            self.close()
        else:
            self.abort()

    @property
    def bytes_stored(self) -> int:
        """Bytes added to the device so far: durable packs, metadata included, and index segments."""
        return self.packs.bytes + self._index_bytes

    def check_open(self) -> None:
        """Raises what went wrong before, or ``Misuse`` after the end."""
        self.packs.check()
        if self._ended:
            raise Misuse("the session has ended")

    def have(self, ids: Sequence[bytes]) -> list[bool]:
        """For each id whether it need not be added: it is in the vault, or was claimed in this session."""
        self.check_open()
        claimed = self._claimed
        answer = [chunk in claimed for chunk in ids]
        unknown = [number for number, known in enumerate(answer) if not known]
        if unknown:
            found = self._in_vault([ids[number] for number in unknown])
            for number, known in zip(unknown, found, strict=True):
                answer[number] = known
        return answer

    def claim(self, chunk_id: bytes) -> bool:
        """Whether the caller must add this chunk: True for exactly one caller per id, and only if the vault does not
        have it."""
        token = object()
        # setdefault is atomic: the one whose token stays is the one
        if self._claimed.setdefault(chunk_id, token) is not token:
            return False
        self.check_open()
        return not (self._segments.index.maybe(chunk_id) and self._in_vault([chunk_id])[0])

    def lane(self) -> Lane:
        """A lane for one thread."""
        self.check_open()
        with self._lock:
            lane = Lane(self)
            self._lanes.append(lane)
            return lane

    def flush(self) -> None:
        """Makes durable all that was added so far: packs, then one signed index segment that names them."""
        self.check_open()
        with self._lock:
            for lane in self._lanes:
                lane.flush()
            self.packs.wait()
            tables = self.packs.take_done()
            if not tables:
                return
            self._write_segment(tables)
            for table in tables:
                ids = table.ids()
                for position in range(0, len(ids), 32):
                    self._claimed.pop(ids[position : position + 32], None)

    def _write_segment(self, tables: list[Table]) -> None:
        try:
            self._index_bytes += self._segments.add(self.record.writer, self._signer, tables)
        except Exception as error:
            self.packs.failure = error
            raise

    def publish(self, backup_set: BackupSet) -> None:
        """Adds a set, signed and last: all that was added before is flushed first. It is visible on return.

        Raises ``Misuse`` if the set says that it lies elsewhere or was written by somebody else.
        """
        self.check_open()
        header = self.store.header
        if (backup_set.vault, backup_set.mesh, backup_set.server) != (header.vault, header.mesh, self.record.server):
            raise Misuse("the set names another vault, mesh or server than the session's")
        with self._lock:
            self.flush()
            number = self._number + 1
            record = self.record
            payload = encode_set(record.writer, record.session, number, record.attempt, backup_set)
            name = set_name(record.writer, record.session, number)
            try:
                self.store.write(Kind.SET, name, payload, self._signer)
            except Exception as error:
                # it may be there or not: another number would leave a gap, the same one might be taken
                self.packs.failure = error
                raise
            self._number = number
        self._on_publish(name, backup_set)

    def adopt(self, sessions: Sequence[str]) -> int:
        """Takes over packs of this writer's dead ``sessions`` that no segment names; returns their bytes.

        The caller knows that nobody writes in those sessions any more. What they hold counts as present from now on,
        and the next ``flush`` names it. Afterwards the dead sessions can be ended (``Vault.end_session``).
        """
        self.check_open()
        if self.record.session in sessions:
            raise Misuse("a session does not adopt its own packs")
        wanted = set(sessions)
        adopted: list[Table] = []
        named = self._segments.index.packs()
        for prefix in ("packs/d/", "packs/m/"):
            for name, size in self.store.backend.list(prefix):
                parsed = parse_pack(name)
                if parsed is None or parsed[0] in named:
                    continue
                try:
                    table = self._reader.read_table(*parsed, size)
                except (DataDamaged, NoKey, ObjectMissing) as error:
                    self._problems.add(f"{name}: {error.message}")
                    continue
                if table.text.sessions[0] in wanted:
                    adopted.append(table)
        if adopted:
            for table in adopted:
                ids = table.ids()
                for position in range(0, len(ids), 32):
                    self._claimed.setdefault(ids[position : position + 32], table)
            self.packs.put_back(adopted)
        return sum(int(table.packs["size"][0]) for table in adopted)

    def close(self) -> None:
        """Ends the session: flushes, says in the vault what its last set was, merges small index segments."""
        try:
            self.flush()
            writer, session = self.record.writer, self.record.session
            record = ClosedRecord(writer, session, self._number)
            name = closed_name(writer, session)
            self.store.write(Kind.SESSION_CLOSED, name, msgspec.msgpack.encode(record), self._signer)
            self._merge(writer)
        finally:
            self.abort()

    def _merge(self, writer: str) -> None:
        try:
            self._segments.merge(writer, self._signer)
        except CasoError as error:
            # It saves listing and looking up, nothing else: all that this session promised is durable already.
            self._problems.add(f"merging the index of {writer}: {error.message}")

    def abort(self) -> None:
        """Ends the session here and stops its thread; in the vault it stays open. May be repeated."""
        self._ended = True
        self.packs.stop()
        with self._lock:
            self._lanes.clear()

    def _in_vault(self, ids: Sequence[bytes]) -> list[bool]:
        index = self._segments.index
        numbers, rows = index.find(ids, durable_only=True)
        answer = (numbers >= 0).tolist()
        for number in np.unique(numbers[numbers >= 0]):
            segment = index.segments[number]
            table = segment.table
            mine = np.nonzero(numbers == number)[0]
            packs = table.records["pack"][table.record[rows[mine]]]
            own = segment.writer == self.record.writer
            for pack in np.unique(packs):
                if not self._segments.sound(segment, int(pack), own=own):
                    for position in mine[packs == pack]:
                        answer[position] = self._elsewhere(ids[position])
        return answer

    def _elsewhere(self, chunk: bytes) -> bool:
        """Whether a chunk has a copy in a pack that can be trusted, after the first one could not."""
        for segment, row in self._segments.index.find_all(chunk):
            pack = int(segment.table.records["pack"][segment.table.record[row]])
            own = segment.writer == self.record.writer
            damaged = bool(segment.is_damaged(np.array([row]))[0])
            if segment.durable and not damaged and self._segments.sound(segment, pack, own=own):
                return True
        return False
