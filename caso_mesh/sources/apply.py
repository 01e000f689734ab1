"""Gives a restored object its metadata, in the one order in which nothing undoes what came before:

owner (clears set-id bits and capabilities), xattrs with ACLs and capabilities (while the owner may still write), mode (the
ACL's mask is its group part), times, flags.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.sources import linux, reasons
from caso_mesh.sources.metadata import TYPES

#: Attributes that an object here has by inheritance or from before and the set does not know: they go. Others, as
#: labels of a security module, are the machine's own.
_OURS = ("user.", "system.posix_acl_")


class Applier:
    """Applies metadata; what cannot be set is told to ``on_exception`` and the rest still is."""

    def __init__(self, *, ownership: bool, on_exception: Callable[[SourceException], None]) -> None:
        self._ownership = ownership
        self._on_exception = on_exception

    def is_clean(self, fd: int) -> bool:
        """Whether a new file got neither flags nor attributes from its folder; then no new file there does."""
        try:
            if linux.get_flags(fd):
                return False
        except OSError as error:
            if error.errno not in linux.NOT_SUPPORTED:
                return False
        try:
            return not any(name.startswith(_OURS) for name in os.listxattr(fd))
        except OSError as error:
            return error.errno in linux.NOT_SUPPORTED

    def file(self, entry: Entry, fd: int, *, status: os.stat_result, clean: bool) -> bool:
        """A regular file by its open descriptor; immutable and append-only come later, see ``late_flags``. ``status``:
        its own, for its owner; ``clean``: it has no attributes yet. False: it kept the mode that it had."""
        if not clean or entry.xattrs:
            return self._all(entry, fd, status, fd)
        mode = entry.mode
        if status.st_uid != entry.uid or status.st_gid != entry.gid:
            mode = self._owned(entry, fd, status, fd)
        has_mode = self._mode(entry, fd, mode)
        self._times(entry, fd)
        return has_mode

    def by_name(self, entry: Entry, parent: int, name: bytes) -> None:
        """A link, pipe, socket or device node by a handle that is not for reading."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if TYPES.get(stat.S_IFMT(status.st_mode)) is not entry.type or status.st_nlink != 1:
                # Somebody put another object, or a link to one, in its place: its owner and mode are not ours to set.
                raise OSError(errno.ESTALE, "the temporary name was taken by something else")
            # the handle itself, also that of a link: its name may be somebody else's by now
            self._all(entry, fd, status, b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)

    def folder(self, entry: Entry, handle: int) -> None:
        """A folder by its ``O_PATH`` handle, flags included."""
        target = b"/proc/self/fd/%d" % handle
        reader = -1
        if entry.flags:
            reader = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
        try:
            self._all(entry, handle, os.fstat(handle), target)
            if reader >= 0:
                self._flags(entry, reader, linux.FLAGS_MASK)
        finally:
            if reader >= 0:
                os.close(reader)

    def early_flags(self, entry: Entry, fd: int) -> None:
        """Flags that only an empty file takes, or that steer how it is written."""
        try:
            linux.set_flags(fd, entry.flags, linux.FLAGS_MASK & ~linux.FLAGS_LAST)
        except OSError as error:
            # A file system without flags loses nothing where there are none to set.
            if entry.flags & ~linux.FLAGS_LAST or error.errno not in linux.NOT_SUPPORTED:
                self._lost(entry, "flags-not-restored", error)

    def early_folder_flags(self, entry: Entry, handle: int) -> None:
        """As ``early_flags``, for a new folder: what is made in it inherits some of them."""
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
        try:
            self._quietly_early(entry, fd)
        finally:
            os.close(fd)

    def late_flags(self, entry: Entry, fd: int) -> None:
        """Immutable and append-only."""
        self._flags(entry, fd, linux.FLAGS_LAST)

    def _quietly_early(self, entry: Entry, fd: int) -> None:
        try:
            linux.set_flags(fd, entry.flags, linux.FLAGS_MASK & ~linux.FLAGS_LAST)
        except OSError:
            pass  # the folder gets all its flags again in the end, and that is reported

    def _flags(self, entry: Entry, fd: int, mask: int) -> None:
        try:
            linux.set_flags(fd, entry.flags, mask)
        except OSError as error:
            self._lost(entry, "flags-not-restored", error)

    def _all(self, entry: Entry, fd: int, status: os.stat_result, target: int | bytes) -> bool:
        mode = self._owned(entry, fd, status, target)
        self._stale_xattrs(entry, target)
        for name, value in entry.xattrs:
            try:
                os.setxattr(target, name, value)
            except (OSError, ValueError) as error:
                self._lost(entry, "xattr-not-restored", error, os.fsdecode(name))
        has_mode = entry.type is EntryType.SYMLINK or self._mode(entry, target, mode)
        self._times(entry, target)
        return has_mode

    def _mode(self, entry: Entry, target: int | bytes, mode: int) -> bool:
        try:
            os.chmod(target, mode)
        except OSError as error:
            self._lost(entry, "mode-not-restored", error)
            return False
        return True

    def _owned(self, entry: Entry, fd: int, status: os.stat_result, target: int | bytes) -> int:
        """Sets the owner; the mode that goes with the one it has then."""
        mode = entry.mode
        if self._ownership and (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
            self._owner(entry, target)
            status = os.fstat(fd)
        if status.st_uid != entry.uid:
            mode &= ~stat.S_ISUID
        if status.st_gid != entry.gid and entry.type is not EntryType.DIRECTORY:
            mode &= ~stat.S_ISGID
        return mode

    def _owner(self, entry: Entry, target: int | bytes) -> None:
        try:
            os.chown(target, entry.uid, entry.gid)
            return
        except (OSError, OverflowError) as error:
            lost = error
        try:
            os.chown(target, -1, entry.gid)  # a member may give it to the group
        except (OSError, OverflowError):
            pass  # the first error says it all
        self._lost(entry, "owner-not-restored", lost, f"{entry.uid}:{entry.gid}")

    def _stale_xattrs(self, entry: Entry, target: int | bytes) -> None:
        try:
            names = os.listxattr(target)
        except OSError as error:
            if error.errno not in linux.NOT_SUPPORTED:
                self._lost(entry, "xattr-not-restored", error)
            return
        if not names:
            return
        wanted = {os.fsdecode(name) for name, _ in entry.xattrs}
        for name in names:
            if name not in wanted and name.startswith(_OURS):
                try:
                    os.removexattr(target, name)
                except OSError as error:
                    if error.errno != errno.ENODATA:
                        self._lost(entry, "xattr-not-restored", error, name)

    def _times(self, entry: Entry, target: int | bytes) -> None:
        seconds, nanoseconds = entry.modified
        modified = seconds * 1_000_000_000 + nanoseconds
        accessed = modified if entry.accessed is None else entry.accessed[0] * 1_000_000_000 + entry.accessed[1]
        try:
            os.utime(target, ns=(accessed, modified))
        except (OSError, OverflowError) as error:
            self._lost(entry, "times-not-restored", error)

    def _lost(self, entry: Entry, reason: str, error: Exception, detail: str = "") -> None:
        words = reasons.text(error)
        self._on_exception(SourceException(entry.path, reason, f"{detail}: {words}" if detail else words))
