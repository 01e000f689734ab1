"""Half files beside or under which a restore was killed: whoever restores into their folder next removes them.

A file is made under a temporary name, or, if all of it comes at once, under its own with a mode that nobody gives to a
file. It is locked (flock(2)) while it is written, so one that nobody holds belongs to nobody: the kernel lets go of the
locks of the dead, on this machine and, where the file system carries locks, on others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

#: How the temporary names begin under which a restore makes objects beside their final place.
TEMPORARY_PREFIX = b".caso-mesh-restore-"
#: The mode of a file under its own name until all of it is there: sticky, which means nothing for a file, and nobody
#: may read it.
UNFINISHED = stat.S_ISVTX | stat.S_IWUSR


def temporary_name(serial: int) -> bytes:
    """The ``serial``-th temporary name of this process."""
    return TEMPORARY_PREFIX + b"%d-%d" % (os.getpid(), serial)


def hold(fd: int) -> os.stat_result | None:
    """Marks a new file as being written, until it is closed; its status. None: it was taken for a leftover in the
    moment between, and another is needed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        pass  # a file system without locks: there ``sweep`` takes nothing for a leftover either
    status = os.fstat(fd)
    return status if status.st_nlink > 0 else None


def sweep(folder: int) -> None:
    """Removes what killed restores left in ``folder`` (a handle). What cannot be looked at or removed stays: it is in
    nobody's way."""
    with contextlib.suppress(OSError):
        listed = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            with os.scandir(listed) as entries:
                names = [os.fsencode(entry.name) for entry in entries if _may_be_left(entry)]
        finally:
            os.close(listed)
        for name in names:
            with contextlib.suppress(OSError):
                _remove(name, folder)


def _may_be_left(entry: os.DirEntry[str]) -> bool:
    if os.fsencode(entry.name).startswith(TEMPORARY_PREFIX):
        return True
    try:
        return entry.is_file(follow_symlinks=False) and _is_unfinished(entry.stat(follow_symlinks=False))
    except OSError:
        return False  # gone since


def _is_unfinished(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == UNFINISHED


def _remove(name: bytes, folder: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        # nothing that could be locked; it has this name for a moment only
        if _is_of_the_dead(name):
            os.unlink(name, dir_fd=folder)
        return
    # one that nobody may read is open to who may write it
    flags = os.O_WRONLY if not name.startswith(TEMPORARY_PREFIX) else os.O_RDONLY
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # its writer may have finished it in the meantime
        if name.startswith(TEMPORARY_PREFIX) or _is_unfinished(os.fstat(fd)):
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(fd)


def _is_of_the_dead(name: bytes) -> bool:
    pid = name[len(TEMPORARY_PREFIX) :].partition(b"-")[0]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
