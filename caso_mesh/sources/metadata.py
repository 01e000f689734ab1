"""From ``stat``, xattrs and inode flags to an ``Entry``."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable

from caso_mesh.model.entries import EntryType, SourceException
from caso_mesh.sources import linux, reasons

TYPES: dict[int, EntryType] = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}
_GONE = frozenset({errno.ENODATA, errno.ENOENT})

Xattrs = tuple[tuple[bytes, bytes], ...]


class Names:
    """Names of users and groups by number, each looked up once. Unknown numbers have the name ``""``."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def user(self, uid: int) -> str:
        """The name of the user ``uid``."""
        name = self._users.get(uid)
        if name is None:
            try:
                name = pwd.getpwuid(uid).pw_name
            except (KeyError, OverflowError):
                name = ""
            self._users[uid] = name
        return name

    def group(self, gid: int) -> str:
        """The name of the group ``gid``."""
        name = self._groups.get(gid)
        if name is None:
            try:
                name = grp.getgrgid(gid).gr_name
            except (KeyError, OverflowError):
                name = ""
            self._groups[gid] = name
        return name


class Extras:
    """Reads xattrs and flags, remembering by file system what it does not have."""

    def __init__(self, on_exception: Callable[[SourceException], None]) -> None:
        self._on_exception = on_exception
        self._no_xattrs: set[int] = set()
        self._no_flags: set[int] = set()

    def wants_open(self, device: int) -> bool:
        """Whether an open handle of a file on this file system tells more than its name."""
        return device not in self._no_flags

    def xattrs(self, path: bytes, target: int | bytes, device: int) -> Xattrs:
        """All extended attributes that can be read, ACLs and capabilities included, by name.

        ``target``: an open handle, or a path whose last part is not followed.
        """
        if device in self._no_xattrs:
            return ()
        follow = isinstance(target, int)
        try:
            names = os.listxattr(target, follow_symlinks=follow)
        except OSError as error:
            if error.errno in linux.NOT_SUPPORTED:
                self._no_xattrs.add(device)
            else:
                self._on_exception(SourceException(path, "xattrs-not-read", reasons.text(error)))
            return ()
        if not names:
            return ()
        found: list[tuple[bytes, bytes]] = []
        for name in names:
            try:
                value = os.getxattr(target, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in _GONE:
                    self._on_exception(SourceException(path, "xattrs-not-read", f"{name}: {reasons.text(error)}"))
                continue
            found.append((os.fsencode(name), value))
        found.sort()
        return tuple(found)

    def flags(self, path: bytes, fd: int, device: int) -> int:
        """The settable inode flags of an open file or folder; 0 where the file system has none."""
        if device in self._no_flags:
            return 0
        try:
            return linux.get_flags(fd)
        except OSError as error:
            if error.errno in linux.NOT_SUPPORTED:
                self._no_flags.add(device)
            else:
                self._on_exception(SourceException(path, "flags-not-read", reasons.text(error)))
            return 0


#: Bit of CAP_SYS_ADMIN (capabilities(7)).
_SYS_ADMIN = 21


def sees_trusted() -> bool:
    """Whether ``trusted.*`` attributes show to this process (xattr(7)): only with CAP_SYS_ADMIN, and not in a user
    namespace of its own."""
    try:
        with open("/proc/self/status", "rb") as file:
            found = re.search(rb"^CapEff:\s*([0-9a-f]+)$", file.read(), re.MULTILINE)
        with open("/proc/self/uid_map", "rb") as file:
            whole = file.read().split() == [b"0", b"0", b"4294967295"]
    except OSError:
        return os.geteuid() == 0
    return found is not None and whole and bool(int(found[1], 16) >> _SYS_ADMIN & 1)


def device_numbers(status: os.stat_result) -> tuple[int, int]:
    """(major, minor) of a device node."""
    return os.major(status.st_rdev), os.minor(status.st_rdev)
