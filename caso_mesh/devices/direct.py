"""Large objects between memory and disk without the page cache.

What a backup writes is not read again soon: through the page cache it would be copied, and push out what the machine
works with. Where a file system (tmpfs, many FUSE) or the place in memory does not allow it, the cache is used.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Sequence

from caso_mesh.devices.durable import write_all

#: Bytes from which on it pays.
DIRECT_FROM = 1024 * 1024
#: Memory, places in a file and lengths are multiples of this: enough for every disk there is.
_ALIGNMENT = 4096
_PIECE = 8 * 1024 * 1024
#: Buffers that are kept for the next reader.
_KEPT = 4


def write_large(fd: int, parts: Sequence[bytes | memoryview | bytearray]) -> None:
    """As ``write_all`` into the new file ``fd``: of a first part that begins at a page, all whole pages go directly.

    Raises ``OSError``.
    """
    first = memoryview(parts[0]).cast("B") if parts else memoryview(b"")
    whole = first.nbytes // _ALIGNMENT * _ALIGNMENT
    done = 0
    if whole >= DIRECT_FROM and _set_direct(fd, on=True):
        try:
            while done < whole:
                written = os.write(fd, first[done:whole])
                done += written
                if not written or written % _ALIGNMENT:
                    break  # what is left goes on from anywhere
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            _set_direct(fd, on=False)
    write_all(fd, [first[done:], *parts[1:]])


class DirectReader:
    """Reads long ranges of files. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[memoryview] = []

    def read(self, fd: int, offset: int, length: int) -> bytes | None:
        """``length`` bytes from ``offset`` on, fewer at the end of the file; None if it cannot be had in this way.

        Raises ``OSError``.
        """
        if not _set_direct(fd, on=True):
            return None
        with self._lock:
            view = self._free.pop() if self._free else memoryview(_pages(_PIECE + 2 * _ALIGNMENT))
        pieces: list[bytes] = []
        try:
            while length > 0:
                piece = _read_piece(fd, view, offset, min(length, _PIECE))
                if not piece:
                    return None  # the file has ended, or a read came back short: the plain way tells which
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None
        finally:
            _set_direct(fd, on=False)
            with self._lock:
                if len(self._free) < _KEPT:
                    self._free.append(view)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_piece(fd: int, view: memoryview, offset: int, length: int) -> bytes:
    skip = offset % _ALIGNMENT
    wanted = -(-(skip + length) // _ALIGNMENT) * _ALIGNMENT
    got = 0
    while got < skip + length:
        count = os.preadv(fd, [view[got:wanted]], offset - skip + got)
        got += count
        if not count or count % _ALIGNMENT:
            break  # the end of the file
    return bytes(view[skip : min(got, skip + length)])


def _pages(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _set_direct(fd: int, *, on: bool) -> bool:
    """False if the file system knows no such thing."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True
