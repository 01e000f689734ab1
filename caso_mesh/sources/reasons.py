"""Why a path could not be read or written: errors of the operating system as reasons of ``SourceException``."""

from __future__ import annotations

import errno

from caso_mesh.model.entries import SourceException

PERMISSION_DENIED = "permission-denied"
VANISHED = "vanished"
REPLACED = "replaced-while-read"
CHANGED = "changed-while-read"

#: What the operating system, or Python before it, raises for what cannot be made as an entry says: a hostile or
#: damaged set may hold a NUL byte in a link's target, or a number that is none.
IMPOSSIBLE = (OSError, ValueError, OverflowError)

_READING = {
    errno.EACCES: PERMISSION_DENIED,
    errno.EPERM: PERMISSION_DENIED,
    errno.ENOENT: VANISHED,
    errno.ESTALE: VANISHED,
    errno.ENOTDIR: VANISHED,
    errno.ELOOP: REPLACED,
    errno.EIO: "read-error",
    errno.ETXTBSY: "in-use",
    errno.EBUSY: "in-use",
    errno.ENXIO: "device-not-there",
    errno.ENODEV: "device-not-there",
}
_WRITING = {
    errno.EACCES: PERMISSION_DENIED,
    errno.EPERM: PERMISSION_DENIED,
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EROFS: "read-only",
    errno.EIO: "write-error",
    errno.EFBIG: "file-too-large",
    errno.ENAMETOOLONG: "name-too-long",
    errno.ENOENT: "folder-missing",
    errno.ENOTDIR: "not-a-folder",
    errno.ELOOP: "symlink-in-path",
    errno.EXDEV: "symlink-in-path",
    errno.EISDIR: "folder-in-the-way",
    errno.ENOTEMPTY: "folder-in-the-way",
    errno.EEXIST: "exists",
    errno.ESTALE: "replaced-while-written",
    errno.EOPNOTSUPP: "not-supported-here",
}


class Unreadable(Exception):
    """A file cannot be read (any further). ``exception`` is the record to keep; the backup goes on."""

    def __init__(self, exception: SourceException) -> None:
        super().__init__(f"{exception.path!r}: {exception.reason} {exception.detail}")
        self.exception = exception


def reading(path: bytes, error: OSError) -> SourceException:
    """What an error while reading ``path`` means."""
    return SourceException(path, _READING.get(error.errno or 0, "read-error"), text(error))


def writing(path: bytes, error: Exception) -> SourceException:
    """What an error (one of ``IMPOSSIBLE``) while restoring ``path`` means."""
    if not isinstance(error, OSError):
        return SourceException(path, "invalid-entry", str(error))
    return SourceException(path, _WRITING.get(error.errno or 0, "write-error"), text(error))


def text(error: Exception) -> str:
    """The error's own words, without the file name it may carry."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
