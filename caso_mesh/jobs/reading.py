"""Reading files into chunks: small ones many at once, large ones in regions that several threads read at a time."""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec import structs

from caso_mesh.jobs.cutting import cut_front
from caso_mesh.jobs.pool import Pool
from caso_mesh.jobs.sink import Member, NameOf, SinkLane
from caso_mesh.model.entries import ChunkRef, Entry, EntryType, SourceException
from caso_mesh.sources.reading import OpenFile
from caso_mesh.sources.reasons import Unreadable
from caso_mesh.sources.unchanged import Same
from caso_mesh.sources.walked import Walked
from caso_mesh.vault.chunking import MIB, Chunker, ChunkerParameters

#: Files in one batch, entries in one batch, and their bytes.
BATCH_FILES, BATCH_ENTRIES, BATCH_BYTES = 256, 2000, 2 * MIB
#: Small chunks are compressed and sealed together until they have this many bytes.
BUNDLE_BYTES = MIB
#: Data of a large file that one thread reads; there is always a cut at its end.
REGION_BYTES = 64 * MIB

#: So many small files are for the pool to read after half of what was read came from a disk.
READ_ELSEWHERE = 2000

Extent = tuple[int, int]


class Reader:
    """What one thread owns: buffers, chunker, its lane of the sink."""

    def __init__(
        self,
        lane: SinkLane,
        chunker: ChunkerParameters,
        name_of: NameOf,
        *,
        on_read: Callable[[int], None],
        on_exception: Callable[[SourceException], None],
        check: Callable[[], None],
    ) -> None:
        self.lane = lane
        self.name_of = name_of
        self.chunker = Chunker(chunker)
        self.small_bytes = chunker.minimum
        self.on_read = on_read
        self.on_exception = on_exception
        self.check = check
        self._view = memoryview(bytearray(max(2 * chunker.maximum, BATCH_BYTES + chunker.minimum)))

    # --- small files ---

    def batch(self, walked: Sequence[Walked | Same]) -> list[Entry | Same | None]:
        """The entries of many names; of files that were not read before, their chunks are read. None: unreadable."""
        self.check()
        bundle = _Bundle(self.lane, self._view)
        found: list[Entry | Same | None] = []
        total = 0
        for each in walked:
            if isinstance(each, Same):
                found.append(each)
                continue
            if not needs_reading(each):
                found.append(finished(each))
                continue
            entry: Entry | None
            try:
                with each.open() as file:
                    entry, count = self.small(each, file, bundle)
            except Unreadable as error:
                self.on_exception(error.exception)
                entry, count = None, 0
            total += count
            found.append(entry)
        bundle.seal()
        self.on_read(total)
        return found

    def small(self, walked: Walked, file: OpenFile, bundle: Bundle) -> tuple[Entry, int]:
        """The entry of a small file and the bytes that were read of it. Raises ``Unreadable``."""
        size = walked.state.size
        extents = file.extents(size) if walked.state.blocks * 512 < size else [(0, size)]
        if extents != [(0, size)]:
            bundle.seal()  # its buffer is used for this
            chunks, end, count = self._extents(file, extents)
            self._changed(file)
            size = size if end == _end(extents) else end
            return _with(walked, chunks, _holes(extents, size), size), count
        view = bundle.room(size)
        count = file.read_into(view, 0)
        self._changed(file)
        if not count:
            return _with(walked, (), (), 0), 0
        chunk = self.name_of(view[:count])
        bundle.take(chunk, count)
        return _with(walked, ((chunk, count),), (), count), count

    def _changed(self, file: OpenFile) -> None:
        change = file.change()
        if change is not None:
            self.on_exception(change)

    # --- large files ---

    def region(
        self, walked: Walked, extents: Sequence[Extent]
    ) -> tuple[tuple[ChunkRef, ...], int, SourceException | None]:
        """Chunks of some extents of a file, up to where it had data, and what changed meanwhile. Raises
        ``Unreadable``."""
        self.check()
        with walked.open() as file:
            chunks, end, _ = self._extents(file, extents, self.on_read)
            return chunks, end, file.change()

    def _extents(
        self, file: OpenFile, extents: Sequence[Extent], on_read: Callable[[int], None] = lambda count: None
    ) -> tuple[tuple[ChunkRef, ...], int, int]:
        """Chunks, the end of the data that was there, and the bytes that were read; ``on_read`` is told as they are."""
        chunks: list[ChunkRef] = []
        total = end = 0
        for offset, length in extents:
            count = self._extent(file, offset, length, chunks, on_read)
            total += count
            end = offset + count
            if count < length:
                break
        return tuple(chunks), end, total

    def _extent(
        self, file: OpenFile, offset: int, length: int, chunks: list[ChunkRef], on_read: Callable[[int], None]
    ) -> int:
        view = self._view
        kept = done = 0
        final = False
        while not final:
            self.check()
            wanted = min(len(view) - kept, length - done)
            count = file.read_into(view[kept : kept + wanted], offset + done)
            done += count
            on_read(count)
            final = count < wanted or done == length
            kept = cut_front(
                view, kept + count, final, chunks, chunker=self.chunker, name_of=self.name_of, lane=self.lane
            )
        return done


class Bundle(Protocol):
    """Small files side by side in a buffer; those that are wanted are stored together."""

    def room(self, size: int) -> memoryview:
        """Where the next file goes."""
        ...

    def take(self, chunk: bytes, size: int) -> None:
        """The file in the room is this chunk."""
        ...

    def seal(self) -> None:
        """Asks which of them are wanted, and stores those."""
        ...


class _Bundle:
    """Stores in the thread that reads."""

    def __init__(self, lane: SinkLane, view: memoryview) -> None:
        self._lane = lane
        self._view = view
        self._at = 0
        self._members: list[Member] = []

    def room(self, size: int) -> memoryview:
        if self._at >= BUNDLE_BYTES or self._at + size > len(self._view):
            self.seal()
        return self._view[self._at : self._at + size]

    def take(self, chunk: bytes, size: int) -> None:
        self._members.append((chunk, self._at, size))
        self._at += size

    def seal(self) -> None:
        members, self._members, self._at = self._members, [], 0
        if members:
            _store(self._lane, self._view, members)


def _store(lane: SinkLane, view: memoryview, members: list[Member]) -> None:
    """Stores what is wanted of the chunks that lie one after the other from the beginning of ``view`` on."""
    wants = lane.want([member[0] for member in members])
    if all(wants):
        lane.add_bundle(view[: members[-1][1] + members[-1][2]], members)
        return
    if not any(wants):
        return
    at, kept = 0, []
    for (chunk, begin, size), wanted in zip(members, wants, strict=True):
        if wanted:
            if begin != at:
                view[at : at + size] = bytes(view[begin : begin + size])
            kept.append((chunk, at, size))
            at += size
    lane.add_bundle(view[:at], kept)


class Gatherer:
    """Reads small files as the walk meets them, by the handles that the walk has open anyway; threads of the pool store
    them. Where files do not come out of memory that is the slow way: ``pays`` is false for a while then, and batches
    are for the pool to read."""

    def __init__(self, pool: Pool[Reader], make_reader: Callable[[], Reader], threads: int) -> None:
        self._pool = pool
        self._make_reader = make_reader
        self._own: Reader | None = None
        #: Buffers, each with the job that stored what it held last, in the order in which they come free.
        self._free: deque[tuple[memoryview, BundleJob | None]] = deque()
        self._buffers = max(2, threads + 2)
        self._view = memoryview(b"")
        self._at = self._total = self._came = 0
        self._elsewhere = 0
        self._members: list[Member] = []

    def pays(self) -> bool:
        """Whether the next file should be read here."""
        if self._elsewhere:
            self._elsewhere -= 1
            return False
        return True

    def entry(self, walked: Walked) -> Entry | None:
        """The entry of a small file, its content on its way; None: it could not be read, which was told."""
        own = self._own
        if own is None:
            own = self._own = self._make_reader()
        size = walked.state.size
        if walked.state.blocks * 512 >= size:
            view = self.room(size)
            if walked.read_into(view):
                chunk = own.name_of(view)
                self.take(chunk, size)
                self._total += size
                return structs.replace(walked.entry, chunks=((chunk, size),), holes=())
        try:
            with walked.open() as file:
                entry, count = own.small(walked, file, self)
        except Unreadable as error:
            own.on_exception(error.exception)
            return None
        self._total += count
        return entry

    def room(self, size: int) -> memoryview:
        if self._at >= BUNDLE_BYTES or self._at + size > len(self._view):
            self.seal()
        if not self._view:
            self._view = self._next()
        return self._view[self._at : self._at + size]

    def take(self, chunk: bytes, size: int) -> None:
        self._members.append((chunk, self._at, size))
        self._at += size

    def seal(self) -> None:
        if not self._members:
            return
        job = BundleJob(self._view, self._members)
        self._pool.submit(job)
        self._free.append((self._view, job))
        self._view, self._members, self._at = memoryview(b""), [], 0
        if self._own is not None:
            self._own.on_read(self._total)
        came = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock * 512
        if (came - self._came) * 2 > self._total:
            self._elsewhere = READ_ELSEWHERE
        self._came = came
        self._total = 0

    def finish(self) -> None:
        """Returns when all is stored. Raises what went wrong."""
        self.seal()
        if self._own is not None:
            self._own.on_read(self._total)
        for _, job in self._free:
            if job is not None:
                self._pool.wait(job)

    def _next(self) -> memoryview:
        if len(self._free) < self._buffers:
            assert self._own is not None
            return memoryview(bytearray(BUNDLE_BYTES + self._own.small_bytes))
        view, job = self._free.popleft()
        if job is not None:
            self._pool.wait(job)
        return view


# --- jobs of the pool, in path order ---


class BatchJob:
    """Names whose entries come next."""

    def __init__(self, walked: list[Walked | Same]) -> None:
        self.walked = walked
        self.found: list[Entry | Same | None] = []
        self.done = False

    def run(self, own: Reader) -> None:
        self.found = own.batch(self.walked)


class BundleJob:
    """Small files that were read and are to be stored."""

    def __init__(self, view: memoryview, members: list[Member]) -> None:
        self.view = view
        self.members = members
        self.done = False

    def run(self, own: Reader) -> None:
        own.check()
        _store(own.lane, self.view, self.members)


class RegionJob:
    """A part of a large file."""

    def __init__(self, walked: Walked, extents: Sequence[Extent]) -> None:
        self.walked = walked
        self.extents = extents
        self.chunks: tuple[ChunkRef, ...] = ()
        self.end = 0
        self.change: SourceException | None = None
        self.unreadable: SourceException | None = None
        self.done = False

    def run(self, own: Reader) -> None:
        try:
            self.chunks, self.end, self.change = own.region(self.walked, self.extents)
        except Unreadable as error:
            self.unreadable = error.exception

    @property
    def whole(self) -> bool:
        return self.unreadable is None and self.end == _end(self.extents)


def needs_reading(walked: Walked) -> bool:
    """Whether the content of a name must be read."""
    return (
        walked.entry.type is EntryType.FILE
        and walked.entry.hardlink is None
        and not walked.unchanged
        and walked.state.size > 0
    )


def finished(walked: Walked) -> Entry:
    """The entry of a name of which nothing is read."""
    previous = walked.previous
    if walked.entry is previous:
        return walked.entry
    if walked.unchanged and previous is not None and previous.chunks and walked.entry.hardlink is None:
        return structs.replace(walked.entry, chunks=previous.chunks, holes=previous.holes)
    return walked.entry


def regions_of(walked: Walked) -> Iterator[list[Extent]]:
    """The data of a large file in parts of at most ``REGION_BYTES``. Raises ``Unreadable``."""
    size = walked.state.size
    extents = [(0, size)]
    if walked.state.blocks * 512 < size:
        with walked.open() as file:
            extents = file.extents(size)
    part: list[Extent] = []
    room = REGION_BYTES
    for offset, length in extents:
        while length:
            step = min(length, room)
            part.append((offset, step))
            offset, length, room = offset + step, length - step, room - step
            if not room:
                yield part
                part, room = [], REGION_BYTES
    if part:
        yield part


def joined(walked: Walked, regions: Sequence[RegionJob]) -> tuple[Entry | None, SourceException | None]:
    """The entry of a large file out of its regions, all of them done, and what to report of it."""
    for region in regions:
        if region.unreadable is not None:
            return None, region.unreadable
    change = next((region.change for region in regions if region.change is not None), None)
    chunks: list[ChunkRef] = []
    extents: list[Extent] = []
    size = walked.state.size
    for region in regions:
        chunks.extend(region.chunks)
        extents.extend(region.extents)
        if not region.whole:
            size = region.end
            break
    return _with(walked, tuple(chunks), _holes(extents, size), size), change


def _with(walked: Walked, chunks: tuple[ChunkRef, ...], holes: tuple[Extent, ...], size: int) -> Entry:
    return structs.replace(walked.entry, chunks=chunks, holes=holes, size=size)


def _end(extents: Sequence[Extent]) -> int:
    return sum(extents[-1]) if extents else 0


def _holes(extents: Sequence[Extent], size: int) -> tuple[Extent, ...]:
    """What lies between the extents, up to ``size``."""
    holes: list[Extent] = []
    at = 0
    for offset, length in extents:
        if offset >= size:
            break
        if offset > at:
            holes.append((at, offset - at))
        at = offset + length
    if at < size:
        holes.append((at, size - at))
    return tuple(holes)
