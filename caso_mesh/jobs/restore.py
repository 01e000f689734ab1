"""Restoring: what is selected of a set is read window by window, in the order in which it lies in the device."""

from __future__ import annotations

import resource
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct, structs

from caso_mesh.jobs.desk import Desk
from caso_mesh.model.entries import ChunkRef, Entry, EntryType, SourceException, path_key
from caso_mesh.model.errors import CasoError, DataDamaged, DeviceVanished, PathNotInSet
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.tree import TreeReader
from caso_mesh.vault.vault import Vault

#: Files, and bytes, that are restored at a time.
WINDOW_FILES = 4096
WINDOW_BYTES = 256 * 1024 * 1024

DAMAGED = "damaged"


class Target(Protocol):
    """Where entries are written: folders of this machine, or the target's end far away. ``root`` is the root of the
    set that the entry belongs to."""

    def begin(self, entries: Sequence[tuple[bytes, Entry]]) -> list[bool]:
        """For each (root, entry) in path order; False: it is left alone, and nothing of it follows."""
        ...

    def write(self, path: bytes, offset: int, data: bytes | memoryview) -> None: ...

    def finish(self, entry: Entry) -> None: ...

    def abort(self, path: bytes) -> None: ...


class Places(Struct, frozen=True):
    """What is selected: paths in path order, none below another; empty for everything. ``roots`` are those of the
    set, none below another."""

    roots: tuple[bytes, ...]
    paths: tuple[bytes, ...]
    strip: bool

    def root_of(self, path: bytes) -> bytes:
        """The root that a path of the set lies in."""
        return _above(self.roots, path) or b""

    def has(self, path: bytes, like: bytes) -> bool:
        """Whether ``path`` is restored too, and to the same base as ``like``."""
        if self.paths and _above(self.paths, path) is None:
            return False
        return not self.strip or self.root_of(path) == self.root_of(like)


def places(backup: BackupSet, paths: Sequence[bytes], *, strip: bool) -> Places:
    """What an order selects of a set."""
    return Places(outermost(backup.roots), outermost(path.strip(b"/") for path in paths), strip)


def outermost(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of the paths that lie below no other, in path order; none if one is everything."""
    kept: list[bytes] = []
    for path in sorted(set(paths), key=path_key):
        if not kept or not _is_below(path, kept[-1]):
            kept.append(path)
    return () if kept == [b""] else tuple(kept)


def _is_below(path: bytes, folder: bytes) -> bool:
    return not folder or path == folder or path.startswith(folder + b"/")


def _above(folders: Sequence[bytes], path: bytes) -> bytes | None:
    at = bisect_right(folders, path_key(path), key=path_key) - 1
    return folders[at] if at >= 0 and _is_below(path, folders[at]) else None


def selected(backup: BackupSet, tree: TreeReader, where: Places, desk: Desk) -> Iterator[Entry]:
    """The entries to restore, in path order. Of hard links whose first name is not among them, the first that is has
    the content. Raises ``PathNotInSet``; damage is told and passed over."""

    def lost(path: bytes, error: CasoError) -> None:
        desk.exception(SourceException(path, DAMAGED, error.message))

    firsts: dict[tuple[bytes, bytes], bytes] = {}
    for path in where.paths or (b"",):
        found = False
        for entry in tree.entries(path, on_damage=lost):
            found = True
            if entry.hardlink is not None and not where.has(entry.hardlink, entry.path):
                own = _own_content(tree, entry, firsts, where, lost)
                if own is not None:
                    yield own
                continue
            yield entry
        if path and not found:
            raise PathNotInSet(set=backup.id, path="/" + path.decode("utf-8", "backslashreplace"))


def _own_content(
    tree: TreeReader,
    entry: Entry,
    firsts: dict[tuple[bytes, bytes], bytes],
    where: Places,
    lost: Callable[[bytes, CasoError], None],
) -> Entry | None:
    """A hard link whose first name is not restored: it becomes the first, or hangs on the one that did."""
    assert entry.hardlink is not None
    key = (entry.hardlink, where.root_of(entry.path) if where.strip else b"")
    first = firsts.get(key)
    if first is not None:
        return structs.replace(entry, hardlink=first)
    try:
        content = tree.lookup(entry.hardlink)
        if content is None or content.type is not entry.type or content.hardlink is not None:
            raise DataDamaged(object=f"the entry of {entry.path!r}", detail="its first name is not in the set")
    except DeviceVanished:
        raise
    except CasoError as error:
        lost(entry.path, error)
        return None
    firsts[key] = entry.path
    return structs.replace(content, path=entry.path)


def run_restore(desk: Desk, vault: Vault, backup: BackupSet, target: Target, where: Places) -> None:
    """Writes what is selected to ``target``. Raises ``PathNotInSet``, ``Canceled``, ``DeviceVanished``; a file with a
    damaged chunk is told and left out."""
    window = _Window(desk, vault, target)
    for root, entry in wanted_entries(desk, vault, backup, where):
        window.add(root, entry)
    window.run()


def wanted_entries(desk: Desk, vault: Vault, backup: BackupSet, where: Places) -> Iterator[tuple[bytes, Entry]]:
    """Each entry to restore with its root, in path order. Raises ``PathNotInSet``, ``Canceled``, ``DeviceVanished``."""
    desk.total_bytes = None if where.paths else backup.bytes
    desk.total_files = None if where.paths else backup.files
    tree = vault.tree(backup.root)
    for path in where.paths:
        # before anything is written: a mistyped name must not leave half a restore behind
        if next(iter(tree.entries(path)), None) is None:
            raise PathNotInSet(set=backup.id, path="/" + path.decode("utf-8", "backslashreplace"))
    for entry in selected(backup, tree, where, desk):
        desk.check()
        yield where.root_of(entry.path), entry


class _Window:
    """Entries whose content is fetched together."""

    def __init__(self, desk: Desk, vault: Vault, target: Target) -> None:
        self._desk = desk
        self._vault = vault
        self._target = target
        self._waiting: list[tuple[bytes, Entry]] = []
        self._waiting_files = self._waiting_bytes = 0
        self._wanted: dict[bytes, list[tuple[bytes, int, int]]] = {}
        self._bytes = 0
        self._bad: set[bytes] = set()
        # each file under way is an open descriptor
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(16, min(WINDOW_FILES, soft // 4)) if soft > 0 else WINDOW_FILES

    def add(self, root: bytes, entry: Entry) -> None:
        """Takes the next entry in path order."""
        self._desk.check()
        self._waiting.append((root, entry))
        if entry.chunks:
            self._waiting_files += 1
            self._waiting_bytes += entry.size
        full = self._waiting_files >= self._most or len(self._waiting) >= WINDOW_FILES
        if full or self._waiting_bytes >= WINDOW_BYTES:
            self.run()

    def run(self) -> None:
        """Restores what waits."""
        waiting, self._waiting = self._waiting, []
        self._waiting_files = self._waiting_bytes = 0
        if not waiting:
            return
        files: list[Entry] = []
        for (_, entry), begun in zip(waiting, self._target.begin(waiting), strict=True):
            self._count(entry)
            if not begun:
                continue
            if not entry.chunks or entry.hardlink is not None:
                self._target.finish(entry)
                continue
            problem = size_problem(entry)
            if problem:
                self._lost(entry.path, problem)
                continue
            files.append(entry)
            for offset, (chunk, length) in placed(entry):
                self._wanted.setdefault(chunk, []).append((entry.path, offset, length))
                self._bytes += length
                if self._bytes >= WINDOW_BYTES:
                    self._fetch()  # a file may be larger than the memory
        self._fetch()
        for entry in files:
            if entry.path not in self._bad:
                self._target.finish(entry)
        self._bad.clear()

    def _count(self, entry: Entry) -> None:
        tally = self._desk.tally
        self._desk.path = entry.path
        tally.entries += 1
        if entry.type is EntryType.FILE:
            tally.files += 1
            tally.bytes += 0 if entry.hardlink is not None else entry.size

    def _fetch(self) -> None:
        wanted, self._wanted, self._bytes = self._wanted, {}, 0
        if not wanted:
            return
        for chunk, content in self._vault.read_many(list(wanted)):
            self._desk.check()
            for path, offset, length in wanted[chunk]:
                if path in self._bad:
                    continue
                if isinstance(content, CasoError):
                    self._lost(path, content.message)
                elif len(content) != length:
                    self._lost(path, f"a chunk has {len(content)} bytes instead of {length}")
                else:
                    self._target.write(path, offset, content)
                    self._desk.tally.read(length)

    def _lost(self, path: bytes, detail: str) -> None:
        self._bad.add(path)
        self._target.abort(path)
        self._desk.exception(SourceException(path, DAMAGED, detail))


def placed(entry: Entry) -> Iterator[tuple[int, ChunkRef]]:
    """Each chunk with its offset: chunks and holes make up the file between them."""
    holes = iter(entry.holes)
    hole = next(holes, None)
    at = 0
    for ref in entry.chunks:
        while hole is not None and hole[0] <= at:
            at = max(at, sum(hole))
            hole = next(holes, None)
        yield at, ref
        at += ref[1]


def size_problem(entry: Entry) -> str:
    """Why chunks and holes do not make up the file."""
    total = sum(length for _, length in entry.chunks) + sum(length for _, length in entry.holes)
    return "" if total == entry.size else f"the set has {total} of its {entry.size} bytes"
