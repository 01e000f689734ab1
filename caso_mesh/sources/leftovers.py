"""Temporary files beside which a restore was killed: whoever restores into their folder next removes them.

A file is locked (flock(2)) while it is written, so one that nobody holds belongs to nobody: the kernel lets go of the
locks of the dead, on this machine and, where the file system carries locks, on others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

#: How the temporary names begin under which a restore makes objects beside their final place.
TEMPORARY_PREFIX = b".caso-mesh-restore-"


def temporary_name(serial: int) -> bytes:
    """The ``serial``-th temporary name of this process."""
    return TEMPORARY_PREFIX + b"%d-%d" % (os.getpid(), serial)


def hold(fd: int) -> bool:
    """Marks a new temporary file as being written, until it is closed. False: it was taken for a leftover in the moment
    between, and another name is needed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: there ``sweep`` takes nothing for a leftover either
    return os.fstat(fd).st_nlink > 0


def sweep(folder: int) -> None:
    """Removes what killed restores left in ``folder`` (a handle). What cannot be looked at or removed stays: it is in
    nobody's way."""
    with contextlib.suppress(OSError):
        listed = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            names = [os.fsencode(name) for name in os.listdir(listed)]
        finally:
            os.close(listed)
        for name in names:
            if name.startswith(TEMPORARY_PREFIX):
                with contextlib.suppress(OSError):
                    _remove(name, folder)


def _remove(name: bytes, folder: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        # nothing that could be locked; it has this name for a moment only
        if _is_of_the_dead(name):
            os.unlink(name, dir_fd=folder)
        return
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
