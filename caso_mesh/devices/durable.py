"""Making files and folders durable: writing whole, moving into place without replacing, grouped folder syncs."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence

_IOV_MAX = 1024
_RENAME_NOREPLACE = 1
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_Renameat2 = Callable[[int, bytes, int, bytes, int], int]


def _find_renameat2() -> _Renameat2 | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:  # musl before 1.2.6, other systems
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    found: _Renameat2 = function
    return found


_RENAMEAT2 = _find_renameat2()


def write_all(fd: int, parts: Sequence[bytes | memoryview | bytearray]) -> int:
    """Writes all of ``parts``, in order; returns the bytes written. Raises ``OSError`` (``EIO``: nothing was taken)."""
    pending = [view for view in (memoryview(part).cast("B") for part in parts) if view.nbytes]
    total = first = 0
    while first < len(pending):
        written = os.writev(fd, pending[first : first + _IOV_MAX])
        if written <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        total += written
        while first < len(pending) and written >= pending[first].nbytes:
            written -= pending[first].nbytes
            first += 1
        if written:
            pending[first] = pending[first][written:]
    return total


def move_into_place(fd: int, source: str, source_dir: int, target: str, target_dir: int) -> None:
    """Gives the file ``fd``, which lies at ``source``, the name ``target``. Raises ``FileExistsError``.

    ``renameat2(2)`` with ``RENAME_NOREPLACE`` where the file system has it (not NFS), ``link`` and ``unlink`` where
    not; both are atomic.
    """
    if _RENAMEAT2 is not None:
        if _RENAMEAT2(source_dir, os.fsencode(source), target_dir, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number), target)
    try:
        os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    except FileExistsError:
        # NFS repeats a request whose answer was lost: "exists" may be our own link.
        ours, there = os.fstat(fd), os.stat(target, dir_fd=target_dir, follow_symlinks=False)
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise
    os.unlink(source, dir_fd=source_dir)


class _Group:
    """Syncs of one folder: a sync serves everyone who came before it began."""

    __slots__ = ("begun", "changed", "ended", "failed", "running")

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.begun = self.ended = 0
        self.running = False
        self.failed: tuple[int, OSError] | None = None


class FolderSyncs:
    """``fsync`` of folders, where threads that changed the same folder at one time share one call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}

    def sync(self, name: str, fd: int) -> None:
        """Returns when what the caller changed in the folder ``name``, open as ``fd``, is durable. Raises ``OSError``."""
        with self._lock:
            group = self._groups.setdefault(name, _Group())
        with group.changed:
            mine = group.begun + 1
            while group.ended < mine and group.running:
                group.changed.wait()
            if group.ended >= mine:
                # A failed sync fails all it should have served: the kernel reports a lost write only once.
                if group.failed is not None and group.failed[0] >= mine:
                    raise OSError(*group.failed[1].args)
                return
            group.running = True
            group.begun += 1
            number = group.begun
        failure: OSError | None = None
        try:
            os.fsync(fd)
        except OSError as error:
            failure = error
            raise
        finally:
            with group.changed:
                group.running = False
                group.ended = number
                if failure is not None:
                    group.failed = (number, failure)
                group.changed.notify_all()
