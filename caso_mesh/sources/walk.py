"""Walks trees in path order by folder handles, never through symbolic links, at any depth."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.errors import Misuse
from caso_mesh.sources import landmarks, linux, reasons
from caso_mesh.sources.filters import Filters, Matcher, Note, is_below, merged_roots
from caso_mesh.sources.metadata import TYPES, Extras, Names, Xattrs, device_numbers
from caso_mesh.sources.places import SUBVOLUME, Places
from caso_mesh.sources.reading import FileState
from caso_mesh.sources.unchanged import Found, Previous, Same, Sameness
from caso_mesh.sources.walked import Walked, release

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PEEK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SECOND = 1_000_000_000
#: What ``os.fsencode`` asks for each time.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class _Level:
    """One folder on the way from a root to where the walk is."""

    __slots__ = ("at", "device", "fd", "inode", "names", "path", "prefix")

    def __init__(self, fd: int, status: os.stat_result, path: bytes, names: list[bytes]) -> None:
        self.fd = fd
        self.device = status.st_dev
        self.inode = status.st_ino
        self.path = path
        self.prefix = path + b"/" if path else b""
        self.names = names
        self.at = 0


class Walker:
    """Everything below the roots that the filters leave, in path order, each name once.

    A root is a path of this machine; links in its folders are followed, its last part is not. Roots inside others are
    visited in their place, and always, even where a pattern or ``one_file_system`` leaves out what is around them.
    ``on_exception`` is told what could not be read, ``on_note`` what was left out on purpose or had gone. ``previous``
    makes unchanged files cost nothing but a ``stat``, most of them are ``Same`` then; an entry whose ctime is not before
    ``settled_before`` (seconds, nanoseconds; the start of that previous backup) is not trusted, since a change in the
    same clock tick would not show. ``max_open`` bounds open folder handles. ``places``: where paths are read in snapshots.
    """

    def __init__(
        self,
        roots: Sequence[bytes],
        filters: Filters,
        *,
        on_exception: Callable[[SourceException], None],
        on_note: Callable[[Note], None],
        names: Names | None = None,
        previous: Previous | None = None,
        settled_before: tuple[int, int] | None = None,
        max_open: int = 64,
        places: Places | None = None,
    ) -> None:
        self._roots = merged_roots(roots)
        self._all_roots = merged_roots(roots, nested=True)
        self._root_set = frozenset(self._all_roots)
        self._filters = filters
        self._matcher = Matcher(filters, roots)
        self._on_exception = on_exception
        self._on_note = on_note
        self._names = names or Names()
        self._previous = previous
        self._same = None if previous is None else Sameness(previous, self._names, settled_before, places)
        self._settled_before = settled_before
        self._max_open = max(2, max_open)
        self._places = places
        self._extras = Extras(on_exception)
        self._uid = os.geteuid()
        self._links: dict[tuple[int, int], tuple[bytes, int]] = {}
        self._skip_inodes: dict[tuple[int, int], bool] = {}

    def __iter__(self) -> Iterator[Walked]:
        """As ``found``, without a previous set."""
        for found in self.found():
            if not isinstance(found, Walked):
                raise Misuse("what is the same as before is only found, not walked")
            yield found

    def found(self) -> Iterator[Walked | Same]:
        """Each name in path order. Only one iteration at a time; close the iterator (or exhaust it) to close handles."""
        self._links.clear()
        self._skip_inodes = landmarks.identities(self._filters, self._places)
        for root in self._roots:
            yield from self._root(root)

    # --- where the walk is ---------------------------------------------------------------------------------------

    def _root(self, root: bytes, device: int | None = None) -> Iterator[Walked | Same]:
        """A root and all below it; with ``device``, something below a root on that device, which lies elsewhere."""
        folder, _, name = (root if self._places is None else self._places.real(root)).rpartition(b"/")
        path = root[1:]
        stack: list[_Level] = []
        parent = -1
        try:
            parent = linux.open_path(folder or b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            status = os.stat(name or b".", dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if parent >= 0:
                os.close(parent)
            found = reasons.reading(path, error)
            self._on_exception(SourceException(path, "missing", found.detail) if _is_gone(error) else found)
            return
        try:
            if self._own_state(root, status):
                return
            if stat.S_ISLNK(status.st_mode):
                self._on_note(Note(path, "root-is-a-link", "the link is kept, not what it leads to"))
            device = self._device(status) if device is None else device
            walked, below = self._visit(parent, name or b".", path, status, self._find(path), device)
            if below is not None:
                stack.append(below)
            if walked is not None:
                try:
                    yield walked
                finally:
                    release(walked)
            if below is not None:
                yield from self._descend(stack, device)
            elif stat.S_ISDIR(status.st_mode):
                yield from self._roots_below(root)
        finally:
            os.close(parent)
            for level in stack:
                if level.fd >= 0:
                    os.close(level.fd)

    def _find(self, path: bytes) -> Found | None:
        """What the previous set says of a path."""
        return None if self._previous is None else self._previous.find(path)

    def _device(self, status: os.stat_result) -> int:
        return status.st_dev if self._places is None else self._places.device(status.st_dev)

    def _roots_below(self, folder: bytes) -> Iterator[Walked | Same]:
        """Roots that were asked for inside a folder that is left out."""
        if len(self._all_roots) == len(self._roots):
            return
        done: bytes | None = None
        for root in self._all_roots:
            if root != folder and is_below(root, folder) and not (done is not None and is_below(root, done)):
                done = root
                yield from self._root(root)

    def _descend(self, stack: list[_Level], device: int) -> Iterator[Walked | Same]:
        roots, excluded, larger_than = self._root_set, self._matcher.excluded, self._filters.larger_than
        skipped, places, same = self._skip_inodes, self._places, self._same
        own = self._matcher.own_paths
        find = None if self._previous is None else self._previous.find
        patterns, near = self._matcher.patterns, self._matcher.near
        while stack:
            level = stack[-1]
            if level.at == len(level.names):
                self._leave(stack)
                continue
            name = level.names[level.at]
            level.at += 1
            path = level.prefix + name
            absolute = b"/" + path
            if absolute in roots:
                yield from self._root(absolute)
                continue
            if absolute in own:
                self._own_state(absolute)  # without a look at it: a device may hang
                continue
            try:
                status = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
            except OSError as error:
                self._gone_or(path, error)
                continue
            is_dir = stat.S_ISDIR(status.st_mode)
            if (patterns or absolute.startswith(near)) and excluded(absolute, is_dir):
                if not self._own_state(absolute, status) and is_dir:
                    yield from self._roots_below(absolute)
                continue
            if skipped and (status.st_dev, status.st_ino) in skipped:
                self._own_state(absolute, status)
                continue
            if larger_than is not None and status.st_size > larger_than and stat.S_ISREG(status.st_mode):
                continue
            if places is not None and places.is_seam(absolute, status):
                entered = is_dir and not self._matcher.emptied(absolute) and not self._filters.one_file_system
                places.read_live(absolute, told=entered)
                yield from self._root(absolute, device)
                continue
            known = None if find is None else find(path)
            if known is not None and not is_dir and same is not None and same.holds(known[0], status):
                yield Same(*known)
                continue
            walked, below = self._visit(level.fd, name, path, status, known, device)
            if below is not None:
                stack.append(below)
            if walked is not None:
                try:
                    yield walked
                finally:
                    release(walked)
            if below is None and is_dir:
                yield from self._roots_below(absolute)
            elif len(stack) > self._max_open:
                self._bound(stack)

    def _leave(self, stack: list[_Level]) -> None:
        """Done with the last folder: close it; open the one above again if it was closed on the way down."""
        left = stack.pop()
        try:
            while stack and stack[-1].fd < 0:
                above = stack[-1]
                above.fd = self._reopen(left, above)
                if above.fd >= 0:
                    break
                if above.at < len(above.names):
                    self._on_exception(SourceException(above.path, reasons.REPLACED, "moved while it was read"))
                stack.pop()
        finally:
            if left.fd >= 0:
                os.close(left.fd)

    def _reopen(self, left: _Level, above: _Level) -> int:
        """A handle of ``above`` again, by ``..`` or by its path; -1 if it is not there any more."""
        for attempt in (0, 1):
            try:
                if attempt == 0:
                    fd = os.open(b"..", _FOLDER, dir_fd=left.fd)
                else:
                    path = b"/" + above.path
                    fd = linux.open_path(path if self._places is None else self._places.real(path), _FOLDER)
            except OSError:
                continue
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == (above.device, above.inode):
                return fd
            os.close(fd)
        return -1

    def _bound(self, stack: list[_Level]) -> None:
        """Close the handle furthest up, so that any depth needs a bounded number of them."""
        level = stack[len(stack) - 1 - self._max_open]
        if level.fd >= 0:
            os.close(level.fd)
            level.fd = -1

    # --- one name ------------------------------------------------------------------------------------------------

    def _visit(
        self,
        parent: int,
        name: bytes,
        path: bytes,
        status: os.stat_result,
        known: Found | None,
        device: int,
    ) -> tuple[Walked | Same | None, _Level | None]:
        """The entry of one name and, of a folder that is to be entered, its level."""
        kind = TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            self._on_exception(SourceException(path, "unknown-type", oct(status.st_mode)))
            return None, None
        if kind is EntryType.DIRECTORY:
            return self._folder(parent, name, path, status, known, device)
        return self._walked(parent, name, path, status, kind, known, -1), None

    def _folder(
        self,
        parent: int,
        name: bytes,
        path: bytes,
        status: os.stat_result,
        known: Found | None,
        device: int,
    ) -> tuple[Walked | Same | None, _Level | None]:
        absolute = b"/" + path
        elsewhere = self._filters.one_file_system and self._device(status) != device
        enter = not self._matcher.emptied(absolute) and not elsewhere
        try:
            fd = self._open(name, _FOLDER, parent, status)
            now = os.fstat(fd)
            if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
                status = now
        except OSError as error:
            if _is_gone(error):
                self._gone_or(path, error)
                return None, None
            if enter:
                self._on_exception(reasons.reading(path, error))
            return self._walked(parent, name, path, status, EntryType.DIRECTORY, known, -1), None
        keep = False
        try:
            names = self._list(fd, path) if enter else None
            if names is not None and landmarks.is_vault(fd, names):
                self._on_note(Note(path, "excluded-vault", "a folder that holds a vault is never backed up"))
                return None, None
            if names is not None and status.st_ino == SUBVOLUME:
                names = landmarks.without_snapshots(names)
            walked: Walked | Same | None
            if known is not None and self._same is not None and self._same.holds(known[0], status):
                walked = Same(*known)
            else:
                walked = self._walked(parent, name, path, status, EntryType.DIRECTORY, known, fd)
            if names is None or (self._filters.exclude_caches and landmarks.is_cache(fd, names)):
                return walked, None
            keep = True
            return walked, _Level(fd, status, path, names)
        finally:
            if not keep:
                os.close(fd)

    def _walked(
        self,
        parent: int,
        name: bytes,
        path: bytes,
        status: os.stat_result,
        kind: EntryType,
        found: Found | None,
        fd: int,
    ) -> Walked | None:
        device, inode, size = status.st_dev, status.st_ino, status.st_size
        if self._places is not None:
            device = self._places.device(device)
        modified = divmod(status.st_mtime_ns, _SECOND)
        changed = divmod(status.st_ctime_ns, _SECOND)
        is_file = kind is EntryType.FILE
        if not is_file and kind is not EntryType.SYMLINK:
            size = 0
        link = None
        if status.st_nlink > 1 and kind is not EntryType.DIRECTORY:
            link = self._first_link(path, device, inode, status.st_nlink)
        known: Entry | None = None
        if found is not None and self._previous is not None and found[0].inode == inode:
            known = self._previous.entry(found[1], found[2])
        unchanged = (
            known is not None
            and known.modified == modified
            and known.changed == changed
            and known.inode == inode
            and known.size == size
            and known.device == device
            and known.type is kind
            and (self._settled_before is None or changed < self._settled_before)
            and (not is_file or link is not None or _is_whole(known))
        )
        target: bytes | None = None
        peek = -1
        xattrs: Xattrs
        holes: tuple[tuple[int, int], ...] = ()
        if unchanged and known is not None:
            if self._is_same(known, status, kind, link):
                state = FileState(status.st_dev, inode, size, status.st_mtime_ns, status.st_ctime_ns, status.st_blocks)
                return Walked(known, state, True, known, self._places)
            xattrs, flags, target, accessed = known.xattrs, known.flags, known.link_target, known.accessed
            holes = known.holes if link is None else ()
        else:
            accessed = divmod(status.st_atime_ns, _SECOND)
            try:
                if kind is EntryType.SYMLINK:
                    target = os.readlink(name, dir_fd=parent)
                xattrs, flags, peek = self._extra(parent, name, path, status, is_file, fd)
            except OSError as error:
                self._gone_or(path, error)
                if link is None:
                    self._links.pop((device, inode), None)
                return None
        entry = Entry(
            path,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            self._names.user(status.st_uid),
            self._names.group(status.st_gid),
            size,
            modified,
            accessed,
            changed,
            device,
            inode,
            target,
            link,
            device_numbers(status) if kind in _NODES else None,
            xattrs,
            flags,
            (),
            holes,
        )
        state = FileState(status.st_dev, inode, size, status.st_mtime_ns, status.st_ctime_ns, status.st_blocks)
        return Walked(entry, state, unchanged, known if unchanged else None, self._places, peek)

    def _is_same(self, known: Entry, status: os.stat_result, kind: EntryType, link: bytes | None) -> bool:
        """Whether the entry of an unchanged name is the previous one to the last field: then it need not be made."""
        return (
            known.mode == stat.S_IMODE(status.st_mode)
            and known.uid == status.st_uid
            and known.gid == status.st_gid
            and known.hardlink == link
            and kind not in _NODES
            and known.user == self._names.user(status.st_uid)
            and known.group == self._names.group(status.st_gid)
        )

    def _extra(
        self, parent: int, name: bytes, path: bytes, status: os.stat_result, is_file: bool, fd: int
    ) -> tuple[Xattrs, int, int]:
        """Xattrs and flags, by an open handle where one may be had, else by name; and the handle of a file."""
        extras, device = self._extras, status.st_dev
        if fd >= 0:
            return extras.xattrs(path, fd, device), extras.flags(path, fd, device), -1
        if is_file and (status.st_size or extras.wants_open(device)):
            try:
                peek = self._open(name, _PEEK, parent, status)
            except OSError as error:
                if _is_gone(error):
                    raise
                # Unreadable: reading its content will say so. Its xattrs may still be listed by name.
            else:
                try:
                    return extras.xattrs(path, peek, device), extras.flags(path, peek, device), peek
                except BaseException:
                    os.close(peek)
                    raise
        # A link in /proc/self/fd leads to the folder itself, so any depth is within PATH_MAX.
        return extras.xattrs(path, b"/proc/self/fd/%d/%b" % (parent, name), device), 0, -1

    def _open(self, name: bytes, flags: int, parent: int, status: os.stat_result) -> int:
        """Open without leaving an access time, which only the owner and root may."""
        if self._uid in {0, status.st_uid}:
            try:
                return os.open(name, flags | os.O_NOATIME, dir_fd=parent)
            except PermissionError:
                pass
        return os.open(name, flags, dir_fd=parent)

    def _first_link(self, path: bytes, device: int, inode: int, count: int) -> bytes | None:
        """The path under which this inode was met first, if this is not the first."""
        key = (device, inode)
        found = self._links.get(key)
        if found is None:
            self._links[key] = (path, count - 1)
            return None
        first, left = found
        if left <= 1:
            del self._links[key]
        else:
            self._links[key] = (first, left - 1)
        return first

    def _list(self, fd: int, path: bytes) -> list[bytes] | None:
        try:
            names = [name.encode(_ENCODING, _ERRORS) for name in os.listdir(fd)]
        except OSError as error:
            self._on_exception(reasons.reading(path, error))
            return None
        names.sort()
        return names

    # --- what is left out for what it is -------------------------------------------------------------------------

    def _own_state(self, absolute: bytes, status: os.stat_result | None = None) -> bool:
        """Whether this is own state, by its path or by what it is (it may be mounted or linked elsewhere too)."""
        identity = (status.st_dev, status.st_ino) if status is not None else (0, 0)
        if self._matcher.own(absolute) or self._skip_inodes.get(identity, False):
            self._on_note(Note(absolute[1:], "excluded-own-state", "this machine's own state or device"))
            return True
        return False

    def _gone_or(self, path: bytes, error: OSError) -> None:
        if _is_gone(error):
            self._on_note(Note(path, reasons.VANISHED))
        else:
            self._on_exception(reasons.reading(path, error))


_NODES = frozenset({EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE})


def _is_gone(error: OSError) -> bool:
    return error.errno in {errno.ENOENT, errno.ESTALE}


def _is_whole(entry: Entry) -> bool:
    """Whether a file's chunks and holes make up its size: else something of it was not read last time."""
    if entry.hardlink is not None:
        return False
    total = 0
    for _, length in (*entry.chunks, *entry.holes):
        total += length
    return total == entry.size
