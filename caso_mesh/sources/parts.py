"""An object on its way to its place: a new file, written and held, and telling whether a name still leads to it."""

from __future__ import annotations

import errno
import os

from caso_mesh.model.entries import Entry, SourceException
from caso_mesh.sources.leftovers import hold

CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Part:
    """An object that is no folder, from ``begin`` to its end: a name and nothing else at first, then a file being written
    (``fd`` >= 0) or anything else under its temporary name."""

    __slots__ = ("entry", "failed", "fd", "folder", "name", "replaces", "temporary", "unwritten")

    def __init__(self, entry: Entry, folder: bytes, name: bytes, *, replaces: bool) -> None:
        self.entry = entry
        self.folder = folder
        self.name = name
        #: Something had this name, and gives way when all is there.
        self.replaces = replaces
        self.temporary = b""
        self.fd = -1
        self.failed: SourceException | None = None
        #: Bytes since the last were sent on their way to disk.
        self.unwritten = 0


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> int:
    """Puts all of ``data`` at ``offset``; how many bytes that were."""
    size = len(data)
    done = os.pwrite(fd, data, offset)
    while done < size:
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)
    return size


def new_file(name: bytes, parent: int) -> int:
    """Raises ``FileExistsError`` as well if it was taken for a leftover at once."""
    fd = os.open(name, CREATE, 0o600, dir_fd=parent)
    if hold(fd) is not None:
        return fd
    os.close(fd)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def status_of(parent: int, name: bytes) -> os.stat_result | None:
    """What has this name in a folder, a link itself; None if nothing has."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def is_same(one: os.stat_result, other: os.stat_result | None) -> bool:
    """Whether both are of one inode."""
    return other is not None and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
