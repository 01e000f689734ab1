"""The few Linux calls that Python lacks, and reading of what ``stat`` does not tell: xattrs and inode flags."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import struct

#: Inode flags that a person can set (``ioctl_iflags(2)``, ``FS_FL_USER_MODIFIABLE`` of Linux): all others tell how a
#: file system keeps the file and mean nothing elsewhere.
FLAGS_MASK = (
    0x00000001  # secure deletion
    | 0x00000002  # undeletable
    | 0x00000004  # compressed
    | 0x00000008  # synchronous
    | 0x00000010  # immutable
    | 0x00000020  # append only
    | 0x00000040  # no dump
    | 0x00000080  # no access time
    | 0x00000400  # never compress
    | 0x00004000  # journal data
    | 0x00008000  # no tail merging
    | 0x00010000  # synchronous folder
    | 0x00020000  # top of a hierarchy
    | 0x00800000  # no copy on write
    | 0x02000000  # direct access
    | 0x20000000  # project inherited
    | 0x40000000  # names without case
)
IMMUTABLE, APPEND_ONLY = 0x10, 0x20
#: Flags after which an object can no longer be written, renamed or linked: set last of all.
FLAGS_LAST = IMMUTABLE | APPEND_ONLY

_GETFLAGS = 0x80086601 if struct.calcsize("l") == 8 else 0x80046601
_SETFLAGS = 0x40086602 if struct.calcsize("l") == 8 else 0x40046602
_NO_FLAGS = bytes(8)
#: What a file system answers that has no such thing.
NOT_SUPPORTED = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_SYNC_FILE_RANGE_WRITE = 2
_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def get_flags(fd: int) -> int:
    """The settable inode flags of an open file or folder. Raises ``OSError`` (``NOT_SUPPORTED`` by many)."""
    return int.from_bytes(fcntl.ioctl(fd, _GETFLAGS, _NO_FLAGS)[:4], "little" if _LITTLE else "big") & FLAGS_MASK


def set_flags(fd: int, flags: int, mask: int = FLAGS_MASK) -> None:
    """Make the settable inode flags within ``mask`` be ``flags``. Raises ``OSError``."""
    order = "little" if _LITTLE else "big"
    buffer = bytearray(8)
    fcntl.ioctl(fd, _GETFLAGS, buffer, True)
    now = int.from_bytes(buffer[:4], order)  # type: ignore[arg-type]
    wanted = (now & ~mask) | (flags & mask)
    if wanted != now:
        fcntl.ioctl(fd, _SETFLAGS, wanted.to_bytes(4, order) + bytes(4))  # type: ignore[arg-type]


_LITTLE = struct.pack("=H", 1)[0] == 1


def syncfs(fd: int) -> None:
    """``syncfs(2)``: the file system of ``fd`` is on disk. Raises ``OSError``, also for writes that failed before."""
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writing(fd: int) -> None:
    """``sync_file_range(2)``: what was written to the file begins its way to disk; nothing is waited for, and nothing
    is promised (a file system that knows no such thing writes when it likes)."""
    if _sync_file_range is not None:
        _sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def open_folder_beneath(base: int, path: bytes) -> int:
    """An ``O_PATH`` handle of the folder ``path`` below ``base``, never through a symbolic link, never out of it.

    ``path`` has no ``..`` part and may be longer than ``PATH_MAX``. Raises ``OSError``: ``ENOTDIR``, ``ELOOP`` or
    ``EXDEV`` where a part is a link or no folder.
    """
    if not path:
        return os.open(b".", FOLDER, dir_fd=base)
    pieces = [path] if len(path) < 4000 else _pieces(path)
    step = _openat2 if _has_openat2() else _open_by_parts
    fd = step(base, pieces[0])
    for piece in pieces[1:]:
        try:
            below = step(fd, piece)
        finally:
            os.close(fd)
        fd = below
    return fd


def open_path(path: bytes, flags: int) -> int:
    """``os.open`` of an absolute path of any length; parts before the last may be links."""
    if len(path) < 4000:
        return os.open(path, flags)
    folder, _, name = path.rpartition(b"/")
    fd = os.open(b"/", FOLDER)
    for piece in _pieces(folder.strip(b"/")):
        try:
            below = os.open(piece, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    try:
        return os.open(name, flags, dir_fd=fd)
    finally:
        os.close(fd)


def _pieces(path: bytes) -> list[bytes]:
    """A relative path as relative paths of less than ``PATH_MAX`` each."""
    pieces: list[bytes] = []
    for part in path.split(b"/"):
        if pieces and len(pieces[-1]) + len(part) < 3800:
            pieces[-1] += b"/" + part
        else:
            pieces.append(part)
    return pieces


def _open_by_parts(base: int, path: bytes) -> int:
    fd = os.dup(base)
    for part in path.split(b"/"):
        try:
            below = os.open(part, FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def _openat2(base: int, path: bytes) -> int:
    """``openat2(2)`` with ``RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS``."""
    how = struct.pack("=QQQ", FOLDER, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    for _ in range(64):
        fd: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(base),
            ctypes.c_char_p(path),
            ctypes.c_char_p(how),
            ctypes.c_size_t(24),
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # EAGAIN: something was renamed meanwhile, so the kernel could not tell (openat2(2)).
        if number not in {errno.EAGAIN, errno.EINTR}:
            raise OSError(number, os.strerror(number), path)
    return _open_by_parts(base, path)


@functools.cache
def _has_openat2() -> bool:
    """Linux 5.6 has it; sandboxes may forbid it."""
    here = os.open(b"/", FOLDER)
    try:
        os.close(_openat2(here, b"."))
    except OSError:
        return False
    finally:
        os.close(here)
    return True
