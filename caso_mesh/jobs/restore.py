"""Restoring: what is selected of a set is read window by window, in the order in which it lies in the device."""

from __future__ import annotations

import resource
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from msgspec import Struct, structs

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.hands import LONG, Handful, Hands, Place
from caso_mesh.model.entries import ChunkRef, Entry, EntryType, SourceException, path_key
from caso_mesh.model.errors import CasoError, DataDamaged, DeviceVanished, PathNotInSet
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.reading import Piece
from caso_mesh.vault.tree import TreeReader
from caso_mesh.vault.vault import Vault

#: Files, and bytes, that are restored at a time.
WINDOW_FILES = 4096
WINDOW_BYTES = 256 * 1024 * 1024

#: Threads that read, and pieces that are read or lie ready.
_THREADS = 3
_AHEAD = 5

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


class FilesTarget(Target, Protocol):
    """A target that several threads fill at once: ``begin`` comes from one, all else from any, pieces of one file too."""

    def put(self, entry: Entry, data: bytes | memoryview) -> None:
        """All of a file but a hole at its end, at once; neither ``write`` nor ``finish``."""
        ...

    def lend(self, entry: Entry) -> Place | None:
        """Where a hand may make a file instead of ``put``; None: nowhere. ``made``, or ``put``, is called afterwards."""
        ...

    def made(self, entries: Sequence[Entry]) -> None:
        """Hands have made them."""
        ...


class Places(Struct, frozen=True):
    """What is selected: paths in path order, none below another; empty for everything. ``roots`` are those of the
    set, none below another."""

    roots: tuple[bytes, ...]
    paths: tuple[bytes, ...]
    strip: bool

    def root_of(self, path: bytes) -> bytes:
        """The root that a path of the set lies in."""
        return above(self.roots, path) or b""

    def has(self, path: bytes, like: bytes) -> bool:
        """Whether ``path`` is restored too, and to the same base as ``like``."""
        if self.paths and above(self.paths, path) is None:
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


def above(folders: Sequence[bytes], path: bytes) -> bytes | None:
    """Which of the folders, in path order and none below another, is or holds ``path``."""
    at = bisect_right(folders, path_key(path), key=path_key) - 1
    return folders[at] if at >= 0 and _is_below(path, folders[at]) else None


def selected(backup: BackupSet, tree: TreeReader, where: Places, desk: Desk) -> Iterator[Entry]:
    """The entries to restore, in path order. Of hard links whose first name is not among them, the first that is has
    the content. Raises ``PathNotInSet``; damage is told and passed over."""

    found = False

    def lost(path: bytes, error: CasoError) -> None:
        nonlocal found
        found = True
        desk.exception(SourceException(path, DAMAGED, error.message))

    firsts: dict[tuple[bytes, bytes], bytes] = {}
    for path in where.paths or (b"",):
        found = False
        try:
            for entry in tree.entries(path, on_damage=lost):
                found = True
                if entry.hardlink is not None and not where.has(entry.hardlink, entry.path):
                    own = _own_content(tree, entry, firsts, where, lost)
                    if own is not None:
                        yield own
                    continue
                yield entry
        except DeviceVanished:
            raise
        except CasoError as error:
            if found or not path:
                raise
            lost(path, error)  # the way to it cannot be read; the other paths may be
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


def run_restore(
    desk: Desk, vault: Vault, backup: BackupSet, target: FilesTarget, where: Places, hands: Hands | None = None
) -> None:
    """Writes what is selected to ``target``. Raises ``PathNotInSet``, ``Canceled``, ``DeviceVanished``; a file with a
    damaged chunk is told and left out. ``hands`` make small files; they are the caller's to close."""
    with _Restore(desk, vault, target, hands, strip=where.strip) as restore:
        for root, entry in wanted_entries(desk, vault, backup, where):
            restore.add(root, entry)
        restore.drain()


def wanted_entries(desk: Desk, vault: Vault, backup: BackupSet, where: Places) -> Iterator[tuple[bytes, Entry]]:
    """Each entry to restore with its root, in path order. Raises ``PathNotInSet``, ``Canceled``, ``DeviceVanished``."""
    desk.total_bytes = None if where.paths else backup.bytes
    desk.total_files = None if where.paths else backup.files
    tree = vault.tree(backup.root)
    for path in where.paths:
        # before anything is written: a mistyped name must not leave half a restore behind
        if not _may_be_there(tree, path):
            raise PathNotInSet(set=backup.id, path="/" + path.decode("utf-8", "backslashreplace"))
    root, below = b"", b"/"  # no path begins so
    for entry in selected(backup, tree, where, desk):
        desk.check()
        if not entry.path.startswith(below):
            root = where.root_of(entry.path)
            below = root + b"/"
        yield root, entry


def _may_be_there(tree: TreeReader, path: bytes) -> bool:
    """False: nothing has this path. What cannot be read may hold it."""
    damage: list[bytes] = []
    try:
        first = next(iter(tree.entries(path, on_damage=lambda place, error: damage.append(place))), None)
    except DeviceVanished:
        raise
    except CasoError:
        return True
    return first is not None or bool(damage)


class _File:
    """A file whose content is on its way. ``whole``: it is one chunk, and perhaps a hole behind it."""

    __slots__ = ("bad", "entry", "left", "whole")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.whole = len(entry.chunks) == 1 and (not entry.holes or entry.holes[0][0] > 0)
        #: Pieces that are not written yet.
        self.left = len(entry.chunks)
        self.bad = False


#: Where a chunk goes: file, offset, and the length that the file says it has.
_Where = tuple[_File, int, int]
_Wanted = dict[bytes, list[_Where]]
#: What is still to be written, and where.
_Content = tuple[list[_Where], bytes | memoryview | CasoError]


class _Restore:
    """The entries go to the target window by window; threads read ahead what lies together in a pack.

    Long chunks are written by the thread that read them. Small files are made by hands or, where there are none, by the
    one thread that also asks for them: making a file is many short calls of the system, and threads that make such calls
    side by side wait for the interpreter more than they work. A context manager: at its end no thread is left. Memory:
    the entries of a window or two, and a few pieces of packs.
    """

    def __init__(self, desk: Desk, vault: Vault, target: FilesTarget, hands: Hands | None, *, strip: bool) -> None:
        self._desk = desk
        self._vault = vault
        self._target = target
        self._strip = strip
        self._root: bytes | None = None
        self._waiting: list[tuple[bytes, Entry]] = []
        self._waiting_files = self._waiting_bytes = 0
        self._wanted: _Wanted = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="restore")
        self._under_way: deque[Future[list[_Content]]] = deque()
        self._hands = hands
        if hands is not None:
            hands.begin(on_made=self._made, on_undone=self._undone, on_exception=desk.exception)
        # a file of several pieces is an open descriptor until the last of them is written
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(16, min(WINDOW_FILES, soft // 4)) if soft > 0 else WINDOW_FILES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, root: bytes, entry: Entry) -> None:
        """Takes the next entry in path order."""
        if self._strip and root != self._root:
            # two roots may have the same names below them: what comes later is written later
            self.drain()
            self._root = root
        self._waiting.append((root, entry))
        if entry.chunks:
            self._waiting_files += len(entry.chunks) > 1
            self._waiting_bytes += entry.size
        full = self._waiting_files >= self._most or len(self._waiting) >= WINDOW_FILES
        if full or self._waiting_bytes >= WINDOW_BYTES:
            self._begin()

    def drain(self) -> None:
        """Restores what waits, to its end."""
        self._begin()
        self._settle(0)
        if self._hands is not None:
            self._hands.settle()

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._waiting_files = self._waiting_bytes = 0
        if not waiting:
            return
        begun = self._target.begin(waiting)
        self._count(waiting)
        for (_, entry), wanted in zip(waiting, begun, strict=True):
            if not wanted:
                continue
            if not entry.chunks or entry.hardlink is not None:
                self._target.finish(entry)
                continue
            problem = size_problem(entry)
            if problem:
                self._target.abort(entry.path)
                self._desk.exception(SourceException(entry.path, DAMAGED, problem))
                continue
            file = _File(entry)
            for offset, (chunk, length) in placed(entry):
                self._wanted.setdefault(chunk, []).append((file, offset, length))
                self._bytes += length
                if self._bytes >= WINDOW_BYTES:
                    self._fetch()  # a file may be larger than the memory
        self._fetch()

    def _count(self, entries: Sequence[tuple[bytes, Entry]]) -> None:
        tally = self._desk.tally
        self._desk.path = entries[-1][1].path
        tally.entries += len(entries)
        files = [entry for _, entry in entries if entry.type is EntryType.FILE]
        tally.files += len(files)
        tally.bytes += sum(entry.size for entry in files if entry.hardlink is None)

    def _fetch(self) -> None:
        wanted, self._wanted, self._bytes = self._wanted, {}, 0
        if not wanted:
            return
        missing, pieces = self._vault.pieces(list(wanted))
        for chunk, error in missing:
            self._place(wanted[chunk], error)
        for piece in pieces:
            self._settle(_AHEAD - 1)
            self._under_way.append(self._pool.submit(self._piece, piece, wanted))

    def _settle(self, most: int) -> None:
        while len(self._under_way) > most:
            self._written_of(self._under_way.popleft().result())

    def _piece(self, piece: Piece, wanted: _Wanted) -> list[_Content]:
        """What is still to be written of a piece."""
        self._desk.check()
        contents: Iterator[_Content] = ((wanted[chunk], content) for chunk, content in self._vault.read_piece(piece))
        if self._hands is not None:
            contents = self._handed(self._hands, contents)
        members = sum(len(members) for _, members in piece)
        if sum(length for _, members in piece for _, _, length in members) < LONG * members:
            return list(contents)
        for content in contents:
            self._written_of([content])
        return []

    def _handed(self, hands: Hands, contents: Iterator[_Content]) -> Iterator[_Content]:
        """Gives hands what they can make; what they cannot."""
        handful = Handful(hands)
        lend = self._target.lend
        for where, content in contents:
            self._desk.check()
            if isinstance(content, CasoError) or len(content) >= LONG:
                yield where, content
                continue
            left: list[_Where] = []
            for each in where:
                file, _, length = each
                place = lend(file.entry) if file.whole and length == len(content) else None
                if place is None or not handful.take(file.entry, place, content):
                    left.append(each)
            if left:
                yield left, content
        handful.send()

    def _made(self, entries: list[Entry]) -> None:
        self._target.made(entries)
        self._desk.tally.read(sum(entry.chunks[0][1] for entry in entries))

    def _undone(self, entry: Entry, content: memoryview) -> None:
        self._target.put(entry, content)
        self._desk.tally.read(len(content))

    def _written_of(self, contents: list[_Content]) -> None:
        written = 0
        try:
            for where, content in contents:
                self._desk.check()
                written += self._place(where, content)
        finally:
            self._desk.tally.read(written)

    def _place(self, places: list[_Where], content: bytes | memoryview | CasoError) -> int:
        """Puts a chunk where it goes; returns how many bytes that were."""
        written = 0
        for file, offset, length in places:
            if isinstance(content, CasoError):
                self._lost(file, content.message)
            elif len(content) != length:
                self._lost(file, f"a chunk has {len(content)} bytes instead of {length}")
            elif file.whole:
                self._target.put(file.entry, content)
                written += length
                continue
            elif not file.bad:
                self._target.write(file.entry.path, offset, content)
                written += length
            self._written(file)
        return written

    def _written(self, file: _File) -> None:
        with self._lock:
            file.left -= 1
            last = not file.left
        if last:
            # not before: another thread may be writing to it
            if file.bad:
                self._target.abort(file.entry.path)
            else:
                self._target.finish(file.entry)

    def _lost(self, file: _File, detail: str) -> None:
        with self._lock:
            first = not file.bad
            file.bad = True
        if first:
            self._desk.exception(SourceException(file.entry.path, DAMAGED, detail))


def placed(entry: Entry) -> Iterator[tuple[int, ChunkRef]]:
    """Each chunk with its offset: chunks and holes make up the file between them."""
    if not entry.holes and len(entry.chunks) == 1:
        yield 0, entry.chunks[0]
        return
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
    if not entry.holes and len(entry.chunks) == 1 and entry.chunks[0][1] == entry.size:
        return ""
    total = sum(length for _, length in entry.chunks) + sum(length for _, length in entry.holes)
    return "" if total == entry.size else f"the set has {total} of its {entry.size} bytes"
