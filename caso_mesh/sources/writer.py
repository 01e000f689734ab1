"""Writes a tree back below one base folder, with all metadata, and nothing outside of it.

Every step goes through folder handles that never follow a symbolic link, so neither the set nor somebody who changes
the tree meanwhile can lead a write elsewhere.

Owners are restored by number, as most backup programs do for whole systems; the names in an entry are for people and
for tools that map them first. Where the owner cannot be set, set-user-id and set-group-id bits are not set either:
they would mean somebody else.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.errors import Misuse, TargetInvalid
from caso_mesh.model.states import Overwrite
from caso_mesh.sources import linux, reasons
from caso_mesh.sources.apply import Applier
from caso_mesh.sources.filing import LEFT, Filer
from caso_mesh.sources.handles import Folder, Handles, open_base
from caso_mesh.sources.leftovers import sweep, temporary_name
from caso_mesh.sources.parts import Part, is_same, new_file, status_of, write_all
from caso_mesh.sources.settling import Settling

T = TypeVar("T")

_NODE_TYPES = {
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}
_SECOND = 1_000_000_000
_START_WRITING = 16 * 1024 * 1024


class RestoreOptions(Struct, frozen=True):
    """``overwrite``: what happens to names that exist; folders are always merged. ``ownership``: set the owners."""

    overwrite: Overwrite = Overwrite.NEVER
    ownership: bool = True


class TreeTarget:
    """Restores entries below ``base``: for each ``begin``; for files then ``put``, or ``write`` and ``finish``, for
    others ``finish``; ``close`` at last.

    ``strip`` is the path (as in ``Entry.path``) that becomes the base folder itself: with ``home/u`` the entry
    ``home/u/a`` is written to ``base/a``. Folders that are missing on the way are made. Entries come in path order as
    far as folders go; files may be written at once by several threads, pieces of one file too.

    What cannot be restored as it was is told to ``on_exception``, and the rest is still restored. Hard links are made
    and folders get their metadata in ``close``, which also brings all to disk. Without ``close`` both are missing.
    Raises ``TargetInvalid`` when the base cannot be made or opened, also when a part of it is a link: see ``handles.resolved``.
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
        self._parts: dict[bytes, Part] = {}
        self._folders: dict[bytes, Entry] = {}
        self._links: dict[bytes, Entry] = {}
        self._late_flags: list[tuple[Entry, tuple[int, int]]] = []
        # Hashes of paths left as they are: a hard link to one of them may join another file than the set's.
        self._skipped: set[int] = set()
        self._blocked: set[bytes] = set()
        self._file_systems: dict[int, int] = {}
        #: Folders that this made, where nothing is that it did not put there.
        self._new: set[bytes] = set()
        #: Folders without anything that killed restores left: new ones, and those that were looked at.
        self._swept: set[bytes] = set()
        self._serial = itertools.count(1)
        self._apply = Applier(ownership=options.ownership, on_exception=on_exception)
        self._filer = Filer(self._apply, on_exception)
        try:
            self._base = open_base(os.path.abspath(base))
        except OSError as error:
            raise TargetInvalid(path=base, detail=reasons.text(error)) from error
        self._handles = Handles(self._base, self._opened)
        self._settling = Settling(self._sync)

    # --- the calls -----------------------------------------------------------------------------------------------

    def begin(self, entry: Entry) -> bool:
        """Make a folder, link, pipe or node; a file is only looked at. False: left alone by the overwrite rule, or
        impossible (then ``on_exception`` was told); nothing of it follows."""
        with self._lock:
            try:
                return self._begin(entry)
            except reasons.IMPOSSIBLE as error:
                self._on_exception(reasons.writing(entry.path, error))
                if entry.type is EntryType.DIRECTORY:
                    self._blocked.add(entry.path)
                return False

    def put(self, entry: Entry, data: bytes | bytearray | memoryview) -> None:
        """All of a file but its holes at the end, at once: made, written and finished. An error is told to
        ``on_exception``, and nothing of it stays."""
        part = self._parts.get(entry.path)
        if part is None or part.fd >= 0 or part.failed is not None or part.entry.type is not EntryType.FILE:
            raise Misuse(f"put of {entry.path!r}, which was not begun as a file or is being written")
        del self._parts[entry.path]
        self._settling.wrote(len(data))
        try:
            if self._put(entry, part, data):
                return
            folder = self._open(part)
            write_all(part.fd, data, 0)
            self._finish_file(entry, part, folder)
        except reasons.IMPOSSIBLE as error:
            self._on_exception(reasons.writing(entry.path, error))
            self._discard(part)

    @property
    def base(self) -> int:
        """The base folder's handle, until ``close``."""
        return self._base

    def lend(self, entry: Entry) -> tuple[bytes, bytes] | None:
        """Where all of a file may be made by somebody else, with a ``Filer``: its folder below the base, and its name.
        None: only here. Then comes ``made``, or ``put`` if it could not be."""
        part = self._parts[entry.path]
        return None if part.replaces or entry.flags & linux.FLAGS_LAST else (part.folder, part.name)

    def made(self, entry: Entry) -> None:
        """A file that was lent is there."""
        del self._parts[entry.path]
        self._settling.wrote(entry.size)

    def write(self, path: bytes, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` into the file at ``offset``; what is never written stays a hole. An error is reported by
        ``finish``, which then leaves the file out."""
        part = self._parts.get(path)
        if part is None or part.entry.type is not EntryType.FILE:
            raise Misuse(f"write to {path!r}, which was not begun as a file")
        if part.failed is not None:
            return
        try:
            if part.fd < 0:
                with self._lock:
                    if part.fd < 0:
                        self._open(part)
            part.unwritten += write_all(part.fd, data, offset)
            if part.unwritten >= _START_WRITING:
                # so that the disk works meanwhile, and ``close`` has less to wait for
                part.unwritten = 0
                linux.start_writing(part.fd)
        except reasons.IMPOSSIBLE as error:
            part.failed = reasons.writing(path, error)

    def finish(self, entry: Entry) -> None:
        """Give the object its metadata and its name. Folders and hard links get theirs in ``close``."""
        if entry.type is EntryType.DIRECTORY or entry.hardlink is not None:
            return
        part = self._parts.get(entry.path)
        if part is None:
            raise Misuse(f"finish of {entry.path!r}, which was not begun")
        if entry.type is EntryType.FILE and part.fd < 0 and part.failed is None:
            self.put(entry, b"")
            return
        del self._parts[entry.path]
        if part.failed is not None:
            self._on_exception(part.failed)
            self._discard(part)
            return
        try:
            folder = self._handles.get(part.folder)
            if part.fd >= 0:
                self._finish_file(entry, part, folder)
            else:
                self._apply.by_name(entry, folder.fd, part.temporary)
                self._rename(part, folder)
        except reasons.IMPOSSIBLE as error:
            self._on_exception(reasons.writing(entry.path, error))
            self._discard(part)

    def abort(self, path: bytes) -> None:
        """Give up an object that was begun: nothing of it stays."""
        part = self._parts.pop(path, None)
        if part is not None:
            self._discard(part)
        self._links.pop(path, None)

    def close(self) -> None:
        """Make the hard links, give folders their metadata (deepest first) and bring all to disk. Idempotent; after
        all other calls have returned."""
        self._settling.close()
        with self._lock:
            if self._base < 0:
                return
            try:
                for path in list(self._parts):
                    self._discard(self._parts.pop(path))
                for entry in self._links.values():
                    self._link(entry)
                for entry, identity in self._late_flags:
                    self._flags_last(entry, identity)
                for path in sorted(self._folders, key=lambda path: path.count(b"/"), reverse=True):
                    self._finish_folder(self._folders[path])
                self._sync()
            finally:
                self._handles.close()
                for fd in (*self._file_systems.values(), self._base):
                    os.close(fd)
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
            self._merge(entry, os.fstat(self._base))
            return True
        folder, _, name = relative.rpartition(b"/")
        new = folder in self._new
        if new and entry.type is EntryType.FILE and entry.hardlink is None:
            self._parts[entry.path] = Part(entry, folder, name, replaces=False)
            return True
        parent = self._handles.get(folder).fd
        there = None if new else status_of(parent, name)
        if entry.type is EntryType.DIRECTORY:
            return self._begin_folder(entry, relative, parent, name, there)
        if there is not None and not self._may_replace(entry, relative, parent, name, there):
            self._skipped.add(hash(entry.path))
            return False
        if entry.hardlink is not None:
            self._links[entry.path] = entry
            return True
        part = Part(entry, folder, name, replaces=there is not None)
        if entry.type is EntryType.SYMLINK:
            target = entry.link_target or b""
            part.temporary, _ = self._make(lambda new: os.symlink(target, new, dir_fd=parent))
        elif entry.type is not EntryType.FILE:
            kind = _NODE_TYPES[entry.type] | 0o600
            device = os.makedev(*entry.rdev) if entry.rdev is not None else 0
            part.temporary, _ = self._make(lambda new: os.mknod(new, kind, device, dir_fd=parent))
        self._parts[entry.path] = part
        return True

    def _begin_folder(
        self, entry: Entry, relative: bytes, parent: int, name: bytes, there: os.stat_result | None
    ) -> bool:
        if there is not None and not stat.S_ISDIR(there.st_mode):
            if not self._may_replace(entry, relative, parent, name, there):
                self._blocked.add(entry.path)
                self._on_exception(SourceException(entry.path, "exists", "something that is no folder has this name"))
                return False
            os.unlink(name, dir_fd=parent)
            there = None
        if there is None:
            os.mkdir(name, 0o700, dir_fd=parent)
            self._folders[entry.path] = entry
            self._swept.add(relative)
            self._new.add(relative)
            if entry.flags:
                self._apply.early_folder_flags(entry, self._handles.get(relative).fd)
            return True
        self._merge(entry, there)
        return True

    def _merge(self, entry: Entry, there: os.stat_result) -> None:
        """An existing folder takes what comes, and the entry's metadata in the end."""
        self._folders[entry.path] = entry
        if there.st_mode & 0o700 != 0o700 and there.st_uid == os.geteuid() != 0:
            handle = self._handles.get(self._relative(entry.path) or b"").fd
            os.chmod(b"/proc/self/fd/%d" % handle, stat.S_IMODE(there.st_mode) | 0o700)

    def _may_replace(self, entry: Entry, relative: bytes, parent: int, name: bytes, there: os.stat_result) -> bool:
        rule = self._options.overwrite
        if rule is Overwrite.NEVER:
            return False
        if rule is Overwrite.OLDER and divmod(there.st_mtime_ns, _SECOND) >= entry.modified:
            return False
        if stat.S_ISDIR(there.st_mode):
            # Only an empty folder gives way: a restore never removes files that it was not asked about.
            os.rmdir(name, dir_fd=parent)
            self._handles.forget(relative)
            self._new.discard(relative)
        return True

    def _make(self, create: Callable[[bytes], T]) -> tuple[bytes, T]:
        """Create something under a new temporary name; also what ``create`` returned."""
        while True:
            name = temporary_name(next(self._serial))
            try:
                return name, create(name)
            except FileExistsError:
                continue

    def _put(self, entry: Entry, part: Part, data: bytes | bytearray | memoryview) -> bool:
        """All of a file under its own name. False: not here, or something has that name."""
        if part.replaces:
            return False
        folder = self._handles.get(part.folder)
        try:
            status = self._filer.make(entry, folder, part.name, data)
        except FileExistsError:
            return not self._still_replaces(part, folder)
        if status is not None and entry.flags & linux.FLAGS_LAST:
            self._late_flags.append((entry, (status.st_dev, status.st_ino)))
        return status is not None

    def _still_replaces(self, part: Part, folder: Folder) -> bool:
        """Whether what has taken a free name meanwhile gives way."""
        there = status_of(folder.fd, part.name)
        relative = part.folder + b"/" + part.name if part.folder else part.name
        if there is None or self._may_replace(part.entry, relative, folder.fd, part.name, there):
            return True
        self._skipped.add(hash(part.entry.path))
        return False

    def _open(self, part: Part) -> Folder:
        """A file under a temporary name."""
        entry = part.entry
        folder = self._handles.get(part.folder)
        part.temporary, part.fd = self._make(lambda new: new_file(new, folder.fd))
        self._filer.prepare(entry, part.fd, folder)
        os.ftruncate(part.fd, entry.size)
        return folder

    # --- finishing -----------------------------------------------------------------------------------------------

    def _finish_file(self, entry: Entry, part: Part, folder: Folder) -> None:
        made, now = os.fstat(part.fd), status_of(folder.fd, part.temporary)
        if now is None:
            raise OSError(errno.ENOENT, "the temporary file is gone")
        if not is_same(made, now):
            raise OSError(errno.ESTALE, "the temporary name was taken by something else")
        if made.st_size != entry.size:
            os.ftruncate(part.fd, entry.size)
        self._apply.file(entry, part.fd, status=made, clean=folder.clean is True)
        fd, part.fd = part.fd, -1
        os.close(fd)  # some file systems say only here that they are full
        if entry.flags & linux.FLAGS_LAST:
            self._late_flags.append((entry, (made.st_dev, made.st_ino)))
        self._rename(part, folder)

    def _rename(self, part: Part, folder: Folder) -> None:
        try:
            os.rename(part.temporary, part.name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        except (IsADirectoryError, NotADirectoryError) as error:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR)) from error

    def _discard(self, part: Part) -> None:
        """Nothing of it stays; what was there before does."""
        fd, part.fd = part.fd, -1
        if not part.temporary:
            return
        try:
            os.unlink(part.temporary, dir_fd=self._handles.get(part.folder).fd)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._on_exception(SourceException(part.entry.path, LEFT, reasons.text(error)))
        finally:
            if fd >= 0:
                with contextlib.suppress(OSError):  # it is given up anyway
                    os.close(fd)

    def _link(self, entry: Entry) -> None:
        first = entry.hardlink or b""
        source = self._relative(first)
        relative = self._relative(entry.path)
        if not source or not relative:
            self._on_exception(SourceException(entry.path, "hard-link-not-restored", "its first name is not restored"))
            return
        try:
            from_parent, from_name = self._parent(source)
            there = status_of(from_parent, from_name)
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
                if status_of(parent, temporary) is not None:
                    os.unlink(temporary, dir_fd=parent)
        except OSError as error:
            self._on_exception(
                SourceException(entry.path, "hard-link-not-restored", error.strerror or reasons.text(error))
            )

    def _finish_folder(self, entry: Entry) -> None:
        try:
            handle = self._handles.get(self._relative(entry.path) or b"").fd
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
        for fd in list(self._file_systems.values()):
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
        return any(path[:at] in self._blocked for at, byte in enumerate(path) if byte == 0x2F)

    def _parent(self, relative: bytes) -> tuple[int, bytes]:
        """Handle of the folder (made when missing) and last part. The handle stays the cache's."""
        folder, _, name = relative.rpartition(b"/")
        return self._handles.get(folder).fd, name

    def _opened(self, path: bytes, folder: Folder) -> None:
        if path not in self._swept:
            self._swept.add(path)
            sweep(folder.fd)
        if folder.device not in self._file_systems:
            with self._lock:
                if folder.device not in self._file_systems:
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                    self._file_systems[folder.device] = os.open(b".", flags, dir_fd=folder.fd)
