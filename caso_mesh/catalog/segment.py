"""Catalog detail as it travels, and as it lies in a file until it is fetched: a *segment*.

A segment is either the full listing of a backup set, or what changed against an earlier set of the same *chain*.

Layout: the magic; a length (4 bytes, big-endian, as all numbers here) and the head, msgpack; one zstd frame; a tail of
two 8-byte counts (entries, removals) and the magic. In the frame lie blocks, each a 4-byte length and msgpack; a block
of length 0 ends them. Records are in *path order* (``model/entries.py``) over the whole segment.

What is read may come from a hostile peer: lengths, depth, counts and the decompression window are bounded before memory
is spent, and every path is checked. Whatever is wrong is ``DataDamaged``; a later format is ``StateTooNew``, and waits for the
program that knows it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import operator
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Self

import msgspec
from msgspec import Meta, Struct

from caso_mesh.model.entries import Entry, EntryType, path_key
from caso_mesh.model.errors import DataDamaged, Misuse, StateDiskFailed, StateFull, StateTooNew
from caso_mesh.model.storage import BackupSet

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC = b"CMCTLG1\n"
#: How later formats begin: the same, with another number.
_FAMILY = re.compile(rb"CMCTLG([1-9])\n")
_TAIL = 16 + len(_MAGIC)
_HEAD_MAX = 64 * 1024
_BLOCK_RECORDS = 2000
_BLOCK_BYTES = 256 * 1024
_LEVEL = 3
#: The decoder's window: 8 MiB.
_WINDOW_LOG = 23
_READ = 128 * 1024

#: Longest path and longest name that a catalog takes, in bytes. Linux names end at 255, paths of a system call at 4096,
#: but walking by folder handles finds longer ones.
PATH_MAX = 256 * 1024
NAME_MAX = 4096
#: Length of ``CatalogEntry.fingerprint``; too short against forgery, which gains nothing here.
FINGERPRINT = 8

# One record may have the longest path, and the record before it as well.
_BLOCK_MAX = _BLOCK_BYTES + 2 * PATH_MAX + 4096

_U32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
_I64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Nanoseconds = Annotated[int, Meta(ge=0, le=999_999_999)]


class CatalogEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What a catalog knows of one name. ``modified`` is (seconds, nanoseconds); ``fingerprint`` is a short digest of
    content and of all metadata that has no field of its own here, empty for folders without any."""

    path: bytes
    type: EntryType
    size: _Size = 0
    modified: tuple[_I64, _Nanoseconds] = (0, 0)
    mode: _U32 = 0
    uid: _U32 = 0
    gid: _U32 = 0
    fingerprint: Annotated[bytes, Meta(max_length=FINGERPRINT)] = b""


class Removal(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """``path`` and all below it are in the base and not in this set."""

    path: bytes


class SegmentHeader(Struct, frozen=True):
    """What a segment says of itself. ``base`` is ``None`` for a full listing, otherwise the set whose listing the
    records change; ``entries`` and ``removed`` count the records."""

    set: str
    chain: str
    base: str | None
    entries: int
    removed: int


class _Head(Struct, frozen=True, forbid_unknown_fields=True):
    set: Annotated[str, Meta(max_length=256)]
    chain: Annotated[str, Meta(max_length=256)]
    base: Annotated[str, Meta(max_length=256)] | None


class _Block(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    entries: list[CatalogEntry]
    removed: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode_block = msgspec.msgpack.Decoder(_Block).decode
_decode_head = msgspec.msgpack.Decoder(_Head).decode

Record = CatalogEntry | Removal


def chain_of(backup_set: BackupSet) -> str:
    """The chain of a set: sets of one source with the same roots and filters in the same vault follow each other."""
    return chain_for(backup_set.source, backup_set.filters, backup_set.vault, backup_set.roots)


def chain_for(source: str, filters: bytes, vault: str, roots: Sequence[bytes]) -> str:
    """The chain to which a set with these fields belongs."""
    digest = hashlib.blake2b(digest_size=16, person=b"caso-mesh chain")
    for part in (source.encode(), filters, vault.encode(), *roots):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def from_entry(entry: Entry) -> CatalogEntry:
    """The catalog's view of an entry of a backup set. Access and change times, device and inode do not matter to it."""
    rest = (
        entry.chunks,
        entry.holes,
        entry.link_target,
        entry.hardlink,
        entry.rdev,
        entry.xattrs,
        entry.user,
        entry.group,
        entry.flags,
    )
    fingerprint = b""
    if any(rest):
        fingerprint = hashlib.blake2b(_encode(rest), digest_size=FINGERPRINT, person=b"catalog entry").digest()
    return CatalogEntry(
        entry.path, entry.type, entry.size, entry.modified, entry.mode, entry.uid, entry.gid, fingerprint
    )


def path_fault(path: bytes) -> str | None:
    """Why ``path`` cannot be in a catalog, or ``None``."""
    if (
        b"/." not in path
        and b"//" not in path
        and b"\x00" not in path
        and path[:1] not in {b"/", b"."}
        and path[-1:] != b"/"
        and len(path) <= NAME_MAX
    ):
        return None  # as nearly all are
    if len(path) > PATH_MAX:
        return "a path is too long"
    framed = b"/" + path + b"/"
    if b"\x00" in path or (path and b"//" in framed):
        return "a path has an empty name or a NUL"
    if b"/./" in framed or b"/../" in framed:
        return 'a path has a name "." or ".."'
    if len(path) > NAME_MAX and any(len(name) > NAME_MAX for name in path.split(b"/")):
        return "a path has a name that is too long"
    return None


def _are_plain(paths: list[bytes]) -> bool:
    """Whether certainly none has a fault: all at once, since nearly all are plain and there are millions."""
    joined = b"/" + b"/".join(paths) + b"/"
    return (
        b"\x00" not in joined
        and b"//" not in joined
        and b"/." not in joined
        and max(map(len, paths), default=0) <= NAME_MAX
    )


class SegmentWriter:
    """Writes one segment, in bounded memory. ``target`` is a new file's path, or a binary stream that is only written.

    Call ``add`` and ``remove`` in path order, each path once, then ``finish``. In a ``with`` block a file that was not
    finished is removed. Raises ``Misuse`` for wrong order or a path that no catalog takes; ``StateFull``,
    ``StateDiskFailed``.
    """

    def __init__(
        self, target: str | os.PathLike[str] | BinaryIO, *, set_id: str, chain: str, base: str | None = None
    ) -> None:
        self._path: str | None = None
        if isinstance(target, (str, os.PathLike)):
            self._path = os.fspath(target)
            self._file: BinaryIO = open(self._path, "xb")
        else:
            self._file = target
        self._digest = hashlib.sha256()
        self._size = 0
        self._compressor = zstd.ZstdCompressor(
            options={zstd.CompressionParameter.compression_level: _LEVEL, zstd.CompressionParameter.checksum_flag: 1}
        )
        self._entries: list[CatalogEntry] = []
        self._removed: list[bytes] = []
        self._pending_bytes = 0
        self._counts = [0, 0]
        self._last: bytes | None = None
        self._full = base is None
        self._finished = False
        head = _encode(_Head(set=set_id, chain=chain, base=base))
        self._put(_MAGIC + len(head).to_bytes(4, "big") + head)

    def add(self, entry: CatalogEntry) -> None:
        """An entry that is new or has changed; all of them in a full listing."""
        self._check(entry.path)
        self._entries.append(entry)
        self._counts[0] += 1
        self._grow(len(entry.path))

    def remove(self, path: bytes) -> None:
        """``path`` of the base is gone, with all below it."""
        if self._full:
            raise Misuse("a full listing removes nothing")
        self._check(path)
        self._removed.append(path)
        self._counts[1] += 1
        self._grow(len(path))

    def finish(self) -> tuple[bytes, int]:
        """Close the segment, durably if it is a file; its SHA-256 and its size in bytes."""
        if self._finished:
            raise Misuse("a segment is finished once")
        self._flush()
        self._put(self._compressor.compress(b"\x00\x00\x00\x00", zstd.ZstdCompressor.FLUSH_FRAME))
        self._put(b"".join(count.to_bytes(8, "big") for count in self._counts) + _MAGIC)
        self._finished = True
        if self._path is not None:
            with _explained(self._path):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
        return self._digest.digest(), self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None and not self._file.closed:
            with suppress(OSError):  # what its buffer holds need not reach a disk that is full
                self._file.close()
            os.unlink(self._path)

    def _check(self, path: bytes) -> None:
        if self._finished:
            raise Misuse("the segment is finished")
        key = path_key(path)
        if self._last is not None and key <= self._last:
            raise Misuse(f"not in path order: {path!r}")
        fault = path_fault(path)
        if fault is not None:
            raise Misuse(f"{fault}: {path[:200]!r}")
        self._last = key

    def _grow(self, size: int) -> None:
        self._pending_bytes += size
        if self._pending_bytes >= _BLOCK_BYTES or len(self._entries) + len(self._removed) >= _BLOCK_RECORDS:
            self._flush()

    def _flush(self) -> None:
        if not self._entries and not self._removed:
            return
        block = _encode(_Block(self._entries, self._removed))
        self._put(self._compressor.compress(len(block).to_bytes(4, "big") + block))
        self._entries, self._removed, self._pending_bytes = [], [], 0

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)
        with _explained(self._path):
            self._file.write(data)


@contextmanager
def _explained(path: str | None) -> Iterator[None]:
    """A file of a segment lies in the state folder."""
    try:
        yield
    except OSError as error:
        if path is None:
            raise
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StateFull(state=os.path.dirname(path)) from error
        raise StateDiskFailed(path=path, detail=error.strerror or error) from error


class SegmentReader:
    """Reads one segment, from a file's path or from bytes; it may be iterated more than once.

    ``max_entries`` bounds the records. Raises ``DataDamaged`` here, and while iterating, for all that is wrong; here
    ``StateTooNew`` for a later format.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, *, max_entries: int = 1_000_000_000) -> None:
        self._source = source
        with self._open() as file:
            length = file.seek(0, io.SEEK_END)
            file.seek(0)
            begins = file.read(len(_MAGIC))
            if begins != _MAGIC:
                later = _FAMILY.fullmatch(begins)
                if later is not None:
                    raise StateTooNew(state="the catalog segment", found=int(later[1]), known=1)
                raise self._damaged("it does not begin as a segment")
            head_length = int.from_bytes(file.read(4), "big")
            if head_length > _HEAD_MAX or length < file.tell() + head_length + _TAIL:
                raise self._damaged("it is cut short")
            try:
                head = _decode_head(file.read(head_length))
            except (msgspec.DecodeError, RecursionError) as error:
                raise self._damaged(f"its head cannot be read ({error})") from None
            self._begin = file.tell()
            self._end = length - _TAIL
            file.seek(self._end)
            tail = file.read(_TAIL)
        if tail[16:] != _MAGIC:
            raise self._damaged("it is cut short")
        entries, removed = int.from_bytes(tail[:8], "big"), int.from_bytes(tail[8:16], "big")
        if entries + removed > max_entries:
            raise self._damaged(f"it has {entries + removed} records, {max_entries} are allowed")
        if head.base is None and removed:
            raise self._damaged("a full listing removes something")
        self._header = SegmentHeader(head.set, head.chain, head.base, entries, removed)

    @property
    def header(self) -> SegmentHeader:
        return self._header

    def __iter__(self) -> Iterator[Record]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[list[Record]]:
        """The records in path order, a few thousand at a time."""
        entries = removed = 0
        last: bytes | None = None
        for raw in self._raw_blocks():
            try:
                block = _decode_block(raw)
            except (msgspec.DecodeError, RecursionError) as error:
                raise self._damaged(f"a block cannot be read ({error})") from None
            entries += len(block.entries)
            removed += len(block.removed)
            if entries > self._header.entries or removed > self._header.removed:
                raise self._damaged("it has more records than it says")
            records: list[Record] = list(block.entries)
            keys = [entry.path.replace(b"/", b"\x00") for entry in block.entries]
            if block.removed:
                records += map(Removal, block.removed)
                keys += [path.replace(b"/", b"\x00") for path in block.removed]
                order = sorted(range(len(keys)), key=keys.__getitem__)
                records, keys = [records[at] for at in order], [keys[at] for at in order]
            self._check(records, keys, last)
            last = keys[-1] if keys else last
            yield records
        if (entries, removed) != (self._header.entries, self._header.removed):
            raise self._damaged("it has fewer records than it says")

    def _check(self, records: list[Record], keys: list[bytes], last: bytes | None) -> None:
        """Raises ``DataDamaged`` for a record that is out of order, also after ``last``, or has no path that a catalog takes.
        ``keys`` are those of path order, as ``path_key`` makes them."""
        if (last is not None and keys and keys[0] <= last) or not all(map(operator.lt, keys, keys[1:])):
            raise self._damaged("its records are not in path order")
        paths = [record.path for record in records]
        if not _are_plain(paths):
            for path in paths:
                fault = path_fault(path)
                if fault is not None:
                    raise self._damaged(fault)

    def _raw_blocks(self) -> Iterator[bytes]:
        with self._open() as file:
            stream = _Frame(file, self._begin, self._end)
            try:
                while True:
                    length = int.from_bytes(stream.read(4), "big")
                    if length == 0:
                        break
                    if length > _BLOCK_MAX:
                        raise self._damaged("a block is too large")
                    yield stream.read(length)
                if not stream.is_at_its_end():
                    raise self._damaged("it goes on after its end")
            except (zstd.ZstdError, EOFError) as error:
                raise self._damaged(f"its frame cannot be read ({error})") from None

    def _open(self) -> BinaryIO:
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        return open(self._source, "rb")

    def _damaged(self, detail: str) -> DataDamaged:
        return DataDamaged(object="the catalog segment", detail=detail)


class _Frame:
    """Decompressed bytes of one zstd frame that lies between two places of a file."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        file.seek(begin)
        self._file = file
        self._left = end - begin
        options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        self._decompressor = zstd.ZstdDecompressor(options=options)
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes; raises ``EOFError``."""
        while len(self._buffer) < size:
            if not self._more():
                raise EOFError("it ends too early")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def is_at_its_end(self) -> bool:
        """Whether nothing follows, neither in the frame nor after it."""
        while not self._buffer and not self._decompressor.eof:
            if not self._more():
                raise EOFError("it ends too early")
        return not self._buffer and not self._left and not self._decompressor.unused_data

    def _more(self) -> bool:
        if self._decompressor.eof:
            return False
        data = b""
        if self._decompressor.needs_input:
            data = self._file.read(min(self._left, _READ))
            if not data:
                return False
            self._left -= len(data)
        self._buffer += self._decompressor.decompress(data, max_length=_READ)
        return True
