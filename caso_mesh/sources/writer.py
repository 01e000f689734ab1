"""Writes a tree back below one base folder, with all metadata, and nothing outside of it.

Every step goes through folder handles that never follow a symbolic link, so neither the set nor somebody who changes
the tree meanwhile can lead a write elsewhere.

Owners are restored by number, as most backup programs do for whole systems; the names in an entry are for people and
for tools that map them first. Where the owner cannot be set, set-user-id and set-group-id bits are not set either:
they would mean somebody else.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.errors import Misuse, TargetInvalid
from caso_mesh.model.states import Overwrite
from caso_mesh.sources import linux, reasons
from caso_mesh.sources.apply import Applier
from caso_mesh.sources.leftovers import hold, sweep, temporary_name

T = TypeVar("T")

_NODE_TYPES = {
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 1_000_000_000
_HANDLES = 128
_START_WRITING = 16 * 1024 * 1024


class RestoreOptions(Struct, frozen=True):
    """``overwrite``: what happens to names that exist; folders are always merged. ``ownership``: set the owners."""

    overwrite: Overwrite = Overwrite.NEVER
    ownership: bool = True


class _Part:
    """An object under its temporary name: a file being written (``fd`` >= 0), or anything else that is no folder."""

    __slots__ = ("failed", "fd", "name", "temporary", "unwritten")

    def __init__(self, name: bytes, temporary: bytes, fd: int) -> None:
        self.name = name
        self.temporary = temporary
        self.fd = fd
        self.failed: SourceException | None = None
        #: Bytes since the last were sent on their way to disk.
        self.unwritten = 0


class TreeTarget:
    """Restores entries below ``base``: for each ``begin``, then ``write`` for files, then ``finish``; ``close`` at last.

    ``strip`` is the path (as in ``Entry.path``) that becomes the base folder itself: with ``home/u`` the entry
    ``home/u/a`` is written to ``base/a``. Folders that are missing on the way are made. Entries come in path order as
    far as folders go; files may be written at once by several threads, each file by one at a time.

    What cannot be restored as it was is told to ``on_exception``, and the rest is still restored. Hard links are made
    and folders get their metadata in ``close``, which also brings all to disk. Without ``close`` both are missing.
    Raises ``TargetInvalid`` when the base cannot be made or opened.
    """

    def __init__(
        self,
        base: bytes,
        options: RestoreOptions,
        *,
        strip: bytes = b"",
        on_exception: Callable[[SourceException], None],
    ) -> None:
        self._options = options
        self._strip = strip.strip(b"/")
        self._on_exception = on_exception
        self._lock = threading.RLock()
        self._parts: dict[bytes, _Part] = {}
        self._folders: dict[bytes, Entry] = {}
        self._links: dict[bytes, Entry] = {}
        self._late_flags: list[tuple[Entry, tuple[int, int]]] = []
        # Hashes of paths left as they are: a hard link to one of them may join another file than the set's.
        self._skipped: set[int] = set()
        self._blocked: set[bytes] = set()
        self._handles: OrderedDict[bytes, int] = OrderedDict()
        self._file_systems: dict[int, int] = {}
        #: Folders without anything that killed restores left: new ones, and those that were looked at.
        self._swept: set[bytes] = set()
        self._serial = 0
        self._apply = Applier(ownership=options.ownership, on_exception=on_exception)
        try:
            os.makedirs(base, mode=0o755, exist_ok=True)
            self._base = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TargetInvalid(path=base, detail=reasons.text(error)) from error

    # --- the calls -----------------------------------------------------------------------------------------------

    def begin(self, entry: Entry) -> bool:
        """Make the object, a file under a temporary name. False: left alone by the overwrite rule, or impossible
        (then ``on_exception`` was told); neither ``write`` nor ``finish`` follow."""
        with self._lock:
            try:
                return self._begin(entry)
            except reasons.IMPOSSIBLE as error:
                self._on_exception(reasons.writing(entry.path, error))
                if entry.type is EntryType.DIRECTORY:
                    self._blocked.add(entry.path)
                return False

    def write(self, path: bytes, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` into the file at ``offset``; what is never written stays a hole. An error is reported by
        ``finish``, which then leaves the file out."""
        part = self._parts.get(path)
        if part is None or part.fd < 0:
            raise Misuse(f"write to {path!r}, which was not begun as a file")
        if part.failed is not None:
            return
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(part.fd, view, offset)
                offset += count
                view = view[count:]
                part.unwritten += count
            if part.unwritten >= _START_WRITING:
                # so that the disk works meanwhile, and ``close`` has less to wait for
                part.unwritten = 0
                linux.start_writing(part.fd)
        except OSError as error:
            part.failed = reasons.writing(path, error)

    def finish(self, entry: Entry) -> None:
        """Give the object its metadata and its name. Folders and hard links get theirs in ``close``."""
        if entry.type is EntryType.DIRECTORY or entry.hardlink is not None:
            return
        with self._lock:
            part = self._parts.get(entry.path)
            if part is None:
                raise Misuse(f"finish of {entry.path!r}, which was not begun")
            if part.failed is not None:
                self._on_exception(part.failed)
                self._drop(entry.path)
                return
            try:
                self._finish(entry, part)
            except reasons.IMPOSSIBLE as error:
                self._on_exception(reasons.writing(entry.path, error))
                self._drop(entry.path)

    def abort(self, path: bytes) -> None:
        """Give up an object that was begun: nothing of it stays."""
        with self._lock:
            self._drop(path)
            self._links.pop(path, None)

    def close(self) -> None:
        """Make the hard links, give folders their metadata (deepest first) and bring all to disk. Idempotent."""
        with self._lock:
            if self._base < 0:
                return
            try:
                for path in list(self._parts):
                    self._drop(path)
                for entry in self._links.values():
                    self._link(entry)
                for entry, identity in self._late_flags:
                    self._flags_last(entry, identity)
                for path in sorted(self._folders, key=lambda path: path.count(b"/"), reverse=True):
                    self._finish_folder(self._folders[path])
                self._sync()
            finally:
                for fd in (*self._handles.values(), *self._file_systems.values(), self._base):
                    os.close(fd)
                self._handles.clear()
                self._file_systems.clear()
                self._base = -1

    # --- making --------------------------------------------------------------------------------------------------

    def _begin(self, entry: Entry) -> bool:
        relative = self._relative(entry.path)
        if relative is None:
            self._on_exception(SourceException(entry.path, "unsafe-path", "not a path below the folder restored to"))
            return False
        if self._blocked and self._is_blocked(entry.path):
            return False
        if entry.path in self._parts:
            raise Misuse(f"{entry.path!r} was begun twice")
        if not relative:
            if entry.type is not EntryType.DIRECTORY:
                self._on_exception(SourceException(entry.path, "folder-in-the-way", "it would replace the base folder"))
                return False
            self._merge(entry, self._base_status())
            return True
        parent, name = self._parent(relative)
        there = _status(parent, name)
        if entry.type is EntryType.DIRECTORY:
            return self._begin_folder(entry, relative, parent, name, there)
        if there is not None and not self._may_replace(entry, parent, name, there):
            self._skipped.add(hash(entry.path))
            return False
        if entry.hardlink is not None:
            self._links[entry.path] = entry
            return True
        if entry.type is EntryType.FILE:
            temporary, fd = self._make(lambda new: _new_file(new, parent))
            self._parts[entry.path] = _Part(relative, temporary, fd)
            try:
                self._apply.early_flags(entry, fd)
                os.ftruncate(fd, entry.size)
            except reasons.IMPOSSIBLE:
                self._drop(entry.path)
                raise
        elif entry.type is EntryType.SYMLINK:
            target = entry.link_target or b""
            temporary, _ = self._make(lambda new: os.symlink(target, new, dir_fd=parent))
            self._parts[entry.path] = _Part(relative, temporary, -1)
        else:
            kind = _NODE_TYPES[entry.type] | 0o600
            device = os.makedev(*entry.rdev) if entry.rdev is not None else 0
            temporary, _ = self._make(lambda new: os.mknod(new, kind, device, dir_fd=parent))
            self._parts[entry.path] = _Part(relative, temporary, -1)
        return True

    def _begin_folder(
        self, entry: Entry, relative: bytes, parent: int, name: bytes, there: os.stat_result | None
    ) -> bool:
        if there is not None and not stat.S_ISDIR(there.st_mode):
            if not self._may_replace(entry, parent, name, there):
                self._blocked.add(entry.path)
                self._on_exception(SourceException(entry.path, "exists", "something that is no folder has this name"))
                return False
            os.unlink(name, dir_fd=parent)
            there = None
        if there is None:
            os.mkdir(name, 0o700, dir_fd=parent)
            self._folders[entry.path] = entry
            self._swept.add(relative)
            if entry.flags:
                handle = self._handle(relative)
                self._apply.early_folder_flags(entry, handle)
            return True
        self._merge(entry, there)
        return True

    def _merge(self, entry: Entry, there: os.stat_result) -> None:
        """An existing folder takes what comes, and the entry's metadata in the end."""
        self._folders[entry.path] = entry
        if there.st_mode & 0o700 != 0o700 and there.st_uid == os.geteuid() != 0:
            handle = self._handle(self._relative(entry.path) or b"")
            os.chmod(b"/proc/self/fd/%d" % handle, stat.S_IMODE(there.st_mode) | 0o700)

    def _may_replace(self, entry: Entry, parent: int, name: bytes, there: os.stat_result) -> bool:
        rule = self._options.overwrite
        if rule is Overwrite.NEVER:
            return False
        if rule is Overwrite.OLDER and divmod(there.st_mtime_ns, _SECOND) >= entry.modified:
            return False
        if stat.S_ISDIR(there.st_mode):
            # Only an empty folder gives way: a restore never removes files that it was not asked about.
            os.rmdir(name, dir_fd=parent)
            stale = self._handles.pop(self._relative(entry.path) or b"", None)
            if stale is not None:
                os.close(stale)
        return True

    def _make(self, create: Callable[[bytes], T]) -> tuple[bytes, T]:
        """Create something under a new temporary name; also what ``create`` returned."""
        while True:
            self._serial += 1
            name = temporary_name(self._serial)
            try:
                return name, create(name)
            except FileExistsError:
                continue

    # --- finishing -----------------------------------------------------------------------------------------------

    def _finish(self, entry: Entry, part: _Part) -> None:
        parent, name = self._parent(part.name)
        if part.fd >= 0:
            made, now = os.fstat(part.fd), _status(parent, part.temporary)
            if now is None:
                raise OSError(errno.ENOENT, "the temporary file is gone")
            if (made.st_dev, made.st_ino) != (now.st_dev, now.st_ino):
                raise OSError(errno.ESTALE, "the temporary name was taken by something else")
            if made.st_size != entry.size:
                os.ftruncate(part.fd, entry.size)
            self._apply.file(entry, part.fd)
            fd, part.fd = part.fd, -1
            os.close(fd)  # some file systems say only here that they are full
            if entry.flags & linux.FLAGS_LAST:
                self._late_flags.append((entry, (made.st_dev, made.st_ino)))
        else:
            self._apply.by_name(entry, parent, part.temporary)
        try:
            os.rename(part.temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except (IsADirectoryError, NotADirectoryError) as error:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR)) from error
        del self._parts[entry.path]

    def _drop(self, path: bytes) -> None:
        part = self._parts.pop(path, None)
        if part is None:
            return
        if part.fd >= 0:
            os.close(part.fd)
        try:
            parent, _ = self._parent(part.name)
            os.unlink(part.temporary, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._on_exception(SourceException(path, "temporary-file-left", reasons.text(error)))

    def _link(self, entry: Entry) -> None:
        first = entry.hardlink or b""
        source = self._relative(first)
        relative = self._relative(entry.path)
        if not source or not relative:
            self._on_exception(SourceException(entry.path, "hard-link-not-restored", "its first name is not restored"))
            return
        try:
            from_parent, from_name = self._parent(source)
            there = _status(from_parent, from_name)
            if there is None or stat.S_ISDIR(there.st_mode):
                raise OSError(errno.ENOENT, "its first name is not there")
            same = (there.st_size, divmod(there.st_mtime_ns, _SECOND)) == (entry.size, entry.modified)
            if hash(first) in self._skipped and stat.S_ISREG(there.st_mode) and not same:
                raise OSError(errno.EEXIST, "its first name was left as it was and is another file")
            # The handle of the second folder may push the first out of the cache.
            from_fd = os.dup(from_parent)
            try:
                parent, name = self._parent(relative)
                temporary, _ = self._make(
                    lambda new: os.link(from_name, new, src_dir_fd=from_fd, dst_dir_fd=parent, follow_symlinks=False),
                )
            finally:
                os.close(from_fd)
            try:
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            finally:
                # rename(2) of two names of one inode leaves both.
                if _status(parent, temporary) is not None:
                    os.unlink(temporary, dir_fd=parent)
        except OSError as error:
            self._on_exception(
                SourceException(entry.path, "hard-link-not-restored", error.strerror or reasons.text(error))
            )

    def _finish_folder(self, entry: Entry) -> None:
        try:
            handle = self._handle(self._relative(entry.path) or b"")
            self._apply.folder(entry, handle)
        except reasons.IMPOSSIBLE as error:
            self._on_exception(reasons.writing(entry.path, error))

    def _flags_last(self, entry: Entry, identity: tuple[int, int]) -> None:
        try:
            parent, name = self._parent(self._relative(entry.path) or b"")
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            try:
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) != identity:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
                self._apply.late_flags(entry, fd)
            finally:
                os.close(fd)
        except OSError as error:
            self._on_exception(reasons.writing(entry.path, error))

    def _sync(self) -> None:
        for fd in self._file_systems.values():
            try:
                linux.syncfs(fd)
            except OSError as error:
                self._on_exception(SourceException(self._strip, "not-on-disk", reasons.text(error)))

    # --- finding -------------------------------------------------------------------------------------------------

    def _relative(self, path: bytes) -> bytes | None:
        """The path below the base; none if there is no safe one."""
        if self._strip:
            if path == self._strip:
                return b""
            if not path.startswith(self._strip + b"/"):
                return None
            path = path[len(self._strip) + 1 :]
        framed = b"/" + path + b"/"
        if path and (b"\x00" in path or b"//" in framed or b"/./" in framed or b"/../" in framed):
            return None
        return path

    def _is_blocked(self, path: bytes) -> bool:
        at = path.find(b"/")
        while at >= 0:
            if path[:at] in self._blocked:
                return True
            at = path.find(b"/", at + 1)
        return False

    def _parent(self, relative: bytes) -> tuple[int, bytes]:
        """Handle of the folder (made when missing) and last part. The handle stays the cache's."""
        folder, _, name = relative.rpartition(b"/")
        return self._handle(folder), name

    def _handle(self, folder: bytes) -> int:
        fd = self._handles.get(folder)
        if fd is not None:
            self._handles.move_to_end(folder)
            return fd
        try:
            fd = linux.open_folder_beneath(self._base, folder)
        except FileNotFoundError:
            fd = self._make_folders(folder)
        if folder not in self._swept:
            self._swept.add(folder)
            sweep(fd)
        self._handles[folder] = fd
        device = os.fstat(fd).st_dev
        if device not in self._file_systems:
            self._file_systems[device] = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        if len(self._handles) > _HANDLES:
            os.close(self._handles.popitem(last=False)[1])
        return fd

    def _make_folders(self, folder: bytes) -> int:
        """Folders on the way that the restore does not bring itself, as when single paths are asked for."""
        fd = os.dup(self._base)
        for part in folder.split(b"/"):
            try:
                try:
                    os.mkdir(part, 0o755, dir_fd=fd)
                except FileExistsError:
                    pass  # opening it tells whether it is a folder
                below = os.open(part, linux.FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _base_status(self) -> os.stat_result:
        return os.fstat(self._base)


def _new_file(name: bytes, parent: int) -> int:
    """Raises ``FileExistsError`` as well if it was taken for a leftover at once."""
    fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
    if hold(fd):
        return fd
    os.close(fd)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _status(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
