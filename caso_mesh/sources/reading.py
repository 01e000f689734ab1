"""Reads one regular file that the walk found, and notices when it is not the same any more."""

from __future__ import annotations

import errno
import os
import stat
from typing import Self

from msgspec import Struct

from caso_mesh.model.entries import SourceException
from caso_mesh.sources import linux, reasons
from caso_mesh.sources.reasons import Unreadable

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileState(Struct, frozen=True, gc=False):
    """What a file was like when the walk met it. Sizes in bytes, times in nanoseconds, ``blocks`` of 512 bytes."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    blocks: int


class OpenFile:
    """A regular file open for reading, without a trace in its access time where that is allowed.

    ``size`` is what it has at the time of opening: no more than that is read. Raises ``Unreadable`` when it cannot be
    opened, is gone or was replaced. Close it, or use it as a context manager. ``at``: where it is, if it is not at its path.
    """

    def __init__(self, path: bytes, walked: FileState, at: bytes | None = None) -> None:
        self.path = path
        self._walked = walked
        #: Where it ended early, the first time.
        self._short: int | None = None
        self._fd = _open(path, b"/" + path if at is None else at)
        try:
            status = os.fstat(self._fd)
        except OSError as error:
            self.close()
            raise Unreadable(reasons.reading(path, error)) from error
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (walked.device, walked.inode):
            self.close()
            raise Unreadable(SourceException(path, reasons.REPLACED, "something else has this name now"))
        self.size: int = status.st_size
        self._blocks: int = status.st_blocks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, for calls that take one."""
        return self._fd

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read_into(self, view: bytearray | memoryview, offset: int) -> int:
        """Fill ``view`` from ``offset``; the bytes that were read: fewer than fit only at the end of the file.

        A file that has shrunk meanwhile ends early and counts as changed. Raises ``Unreadable`` on an error.
        """
        wanted = memoryview(view)[: max(0, self.size - offset)]
        done = 0
        try:
            while done < len(wanted):
                count = os.preadv(self._fd, [wanted[done:]], offset + done)
                if count == 0:
                    self._short = offset + done if self._short is None else self._short
                    break
                done += count
        except OSError as error:
            raise Unreadable(reasons.reading(self.path, error)) from error
        return done

    def extents(self, size: int | None = None) -> list[tuple[int, int]]:
        """(offset, length) of what is data, in order; the rest, up to ``size`` (as opened), is holes.

        A file that has all its blocks is one extent, without asking; so is one on a file system that cannot tell.
        """
        size = self.size if size is None else min(size, self.size)
        if size == 0:
            return []
        if self._blocks * 512 >= size:
            return [(0, size)]
        found: list[tuple[int, int]] = []
        at = 0
        try:
            while at < size:
                start = os.lseek(self._fd, at, os.SEEK_DATA)
                if start >= size:
                    break
                at = min(os.lseek(self._fd, start, os.SEEK_HOLE), size)
                if at <= start:
                    break  # it was cut while being looked at
                found.append((start, at - start))
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end
                return found
            if error.errno in linux.NOT_SUPPORTED:
                return [(0, size)]
            raise Unreadable(reasons.reading(self.path, error)) from error
        return found

    def changed(self) -> bool:
        """Whether the file differs from what the walk met: what was read is kept, and is to be reported."""
        return self.change() is not None

    def change(self) -> SourceException | None:
        """The exception to report after reading: ``changed-while-read`` with what is different, or none."""
        try:
            now = os.fstat(self._fd)
        except OSError as error:
            return reasons.reading(self.path, error)
        before = self._walked
        # some file systems, as that of /sys, tell sizes that are larger than what there is
        end = now.st_size if self._short is None else min(now.st_size, self._short)
        if self._short is not None or end < before.size:
            detail = f"shrank from {before.size} to {end} bytes"
        elif now.st_size > before.size:
            detail = f"grew from {before.size} to {now.st_size} bytes"
        elif now.st_mtime_ns != before.modified_ns:
            detail = "was written to"
        elif now.st_ctime_ns != before.changed_ns:
            detail = "its metadata changed"
        else:
            return None
        return SourceException(self.path, reasons.CHANGED, detail)


def _open(path: bytes, absolute: bytes) -> int:
    try:
        try:
            return linux.open_path(absolute, _FLAGS | os.O_NOATIME)
        except PermissionError:
            return linux.open_path(absolute, _FLAGS)
    except OSError as error:
        raise Unreadable(reasons.reading(path, error)) from error
