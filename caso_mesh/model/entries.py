"""What a backup set holds: one entry for each file, folder, link, device node, pipe or socket."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

#: Chunk id (32 bytes, keyed BLAKE3) and length in bytes.
ChunkRef = tuple[bytes, int]


class EntryType(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"


#: What stands for a type where entries are stored.
TYPE_NUMBERS: dict[EntryType, int] = {
    EntryType.FILE: 1,
    EntryType.DIRECTORY: 2,
    EntryType.SYMLINK: 3,
    EntryType.FIFO: 4,
    EntryType.SOCKET: 5,
    EntryType.CHARACTER_DEVICE: 6,
    EntryType.BLOCK_DEVICE: 7,
}


class Entry(Struct, frozen=True, omit_defaults=True, gc=False):
    """One name in a tree with all its metadata.

    ``path`` is absolute without the leading slash, as bytes; entries are in *path order*, see ``path_key``.
    Times are (seconds, nanoseconds), since one 64-bit count of nanoseconds ends in 2262.
    ``chunks`` cover the data extents of a file in order; ``holes`` are (offset, length) pairs that are not stored, so
    a file's bytes are its holes and chunks merged by offset. ``hardlink`` is the path of the first entry of the same
    inode in this set: such an entry has no chunks of its own. ``device``, ``inode`` and ``changed`` (ctime) only
    serve to notice change and hard links.
    """

    path: bytes
    type: EntryType
    mode: int
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    size: int = 0
    modified: tuple[int, int] = (0, 0)
    accessed: tuple[int, int] | None = None
    changed: tuple[int, int] = (0, 0)
    device: int = 0
    inode: int = 0
    link_target: bytes | None = None
    hardlink: bytes | None = None
    rdev: tuple[int, int] | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    flags: int = 0
    chunks: tuple[ChunkRef, ...] = ()
    holes: tuple[tuple[int, int], ...] = ()


def path_key(path: bytes) -> bytes:
    """Sort key of *path order*: a folder is followed at once by all it holds, then by its next sibling."""
    return path.replace(b"/", b"\x00")


class SourceException(Struct, frozen=True):
    """A path that could not be kept or restored as it is, and why. ``reason`` is kebab-case with an optional detail,
    as in ``permission-denied`` or ``changed-while-read``."""

    path: bytes
    reason: str
    detail: str = ""
