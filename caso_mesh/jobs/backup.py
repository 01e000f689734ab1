"""The engine of a backup: walks, reads what changed with several threads, and writes a tree in path order.

It knows neither vaults nor networks: chunks and pieces of the tree go to a ``Sink``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.dumping import take_dump
from caso_mesh.jobs.host_commands import command_of
from caso_mesh.jobs.pool import Pool
from caso_mesh.jobs.reading import (
    BATCH_BYTES,
    BATCH_ENTRIES,
    BATCH_FILES,
    BatchJob,
    Gatherer,
    Reader,
    RegionJob,
    finished,
    joined,
    needs_reading,
    regions_of,
)
from caso_mesh.jobs.sink import NameOf, Sink
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import TYPE_NUMBERS, Entry, EntryType, SourceException, path_key
from caso_mesh.model.errors import CasoError, ContainsNoData, Misuse
from caso_mesh.model.host_commands import DUMPS, CommandKind, HostCommand, dump_name, is_reserved
from caso_mesh.model.jobs import backup_of
from caso_mesh.sources.filters import Filters, Note
from caso_mesh.sources.metadata import sees_trusted
from caso_mesh.sources.mounts import why_empty
from caso_mesh.sources.places import Places
from caso_mesh.sources.reasons import Unreadable
from caso_mesh.sources.unchanged import Same
from caso_mesh.sources.walk import Walker
from caso_mesh.sources.walked import Walked
from caso_mesh.vault.chunking import ChunkerParameters, chunk_id
from caso_mesh.vault.known import KnownRows, is_whole
from caso_mesh.vault.tree import TreeReader, TreeWriter

#: Results that wait for earlier ones to be written into the tree, per thread.
_AHEAD = 16
#: So often who is told how far it is.
_PAUSE_S = 0.25
#: A file system's clock may be behind the machine's by a tick or two: 20 ms. Changes so close are looked at again.
SETTLE_NS = 20_000_000
_SECOND = 1_000_000_000
_FILE, _FOLDER = TYPE_NUMBERS[EntryType.FILE], TYPE_NUMBERS[EntryType.DIRECTORY]


class Wanted(Struct, frozen=True):
    """What is to be backed up on this server: absolute roots (also those that name dumps), and filters. ``commands``
    are those of ``server``'s own file."""

    roots: tuple[bytes, ...]
    filters: Filters
    server: str = ""
    commands: dict[str, HostCommand] = {}

    @property
    def digest(self) -> bytes:
        return self.filters.digest(self.roots)

    @property
    def folders(self) -> tuple[bytes, ...]:
        """The roots that are read from the file system."""
        return tuple(root for root in self.roots if not is_reserved(root))

    @property
    def dumps(self) -> tuple[str, ...]:
        """Names of commands whose output is backed up, in path order."""
        names = {name for root in self.roots if (name := dump_name(root)) is not None}
        return tuple(sorted(names))


def wanted_of(task: Task) -> Wanted:
    """What the task's order says."""
    spec = backup_of(task.order.spec)
    if spec is None:
        raise Misuse("a backup needs a backup's spec")
    mine = [each for each in spec.sources if each.server == task.order.source]
    roots = tuple(b"/" + root.lstrip(b"/") for each in mine for root in each.roots)
    filters = Filters(
        excludes=(*spec.excludes, *(pattern for each in mine for pattern in each.excludes)),
        only=tuple((b"/" + root.lstrip(b"/"), patterns) for each in mine for root, patterns in each.only),
        one_file_system=spec.one_file_system,
        exclude_caches=spec.exclude_caches,
        larger_than=spec.larger_than,
        default_excludes=spec.default_excludes,
        own_paths=task.own_paths,
        own_identities=task.own_identities,
    )
    return Wanted(roots, filters, task.server_name, task.commands)


class Known(Struct, frozen=True):
    """The tree that change is measured against. ``start_ns``: what changed at or after it, by the clock of
    the source, is read again."""

    tree: TreeReader
    start_ns: int


class Tree(Struct, frozen=True):
    """What a backup made: the id of the tree's root."""

    root: bytes
    entries: int


def run_backup(
    desk: Desk,
    wanted: Wanted,
    sink: Sink,
    *,
    id_key: bytes,
    chunker: ChunkerParameters,
    threads: int,
    known: Known | None,
    on_pause: Callable[[], None] = lambda: None,
    places: Places | None = None,
    on_entry: Callable[[Entry], None] | None = None,
) -> Tree:
    """Reads everything that is wanted and new, and returns the tree.

    ``on_pause`` is called now and then between entries. ``places``: snapshots that are read. ``on_entry`` is given each
    entry that goes into the tree, but for what is taken over from ``known``. Raises ``ContainsNoData``,
    ``CommandFailed``, ``Canceled`` and what the sink raises.
    """
    name_of: NameOf = partial(chunk_id, id_key)
    if wanted.folders and not sees_trusted():
        desk.log(
            "info", "this server runs without CAP_SYS_ADMIN: extended attributes trusted.* do not show and are left out"
        )
    check_mounted(desk, wanted.folders)
    backup = _Backup(desk, wanted, sink, name_of, chunker, threads, known, on_pause, places, on_entry)
    for name in wanted.dumps:
        command = command_of(wanted.commands, wanted.server, name, CommandKind.DUMP)
        dumped = take_dump(desk, sink, wanted.server, name, command, id_key=id_key, chunker=chunker, on_pause=on_pause)
        backup.dumped.append(dumped)
    return backup.run()


def check_mounted(desk: Desk, roots: Sequence[bytes]) -> None:
    """Raises ``ContainsNoData`` if what shall be at one of ``roots`` is not mounted, or an empty file system is."""
    empty = {root: why for root in roots if (why := why_empty(root)) is not None}
    for why in empty.values():
        desk.log("error", why)
    if empty:
        raise ContainsNoData(paths=list(empty))


class _Large:
    """A large file whose regions are read; more of them may follow."""

    def __init__(self, walked: Walked) -> None:
        self.walked = walked
        self.regions: list[RegionJob] = []
        self.unreadable: SourceException | None = None


class _Backup:
    def __init__(
        self,
        desk: Desk,
        wanted: Wanted,
        sink: Sink,
        name_of: NameOf,
        chunker: ChunkerParameters,
        threads: int,
        known: Known | None,
        on_pause: Callable[[], None],
        places: Places | None,
        on_entry: Callable[[Entry], None] | None,
    ) -> None:
        #: What dumps wrote, in path order: each has its place among what the walk finds.
        self.dumped: deque[Entry] = deque()
        #: Whether there is anything but folders.
        self._content = False
        self._desk = desk
        self._wanted = wanted
        self._sink = sink
        self._small = chunker.minimum
        self._known = known
        self._on_pause = on_pause
        self._paused = time.monotonic()
        self._places = places
        self._on_entry = on_entry
        self._ahead = _AHEAD * max(1, threads)
        self._tree = TreeWriter(sink.store, sink.keep)
        self._waiting: deque[BatchJob | _Large] = deque()
        self._batch: list[Walked | Same] = []
        self._batch_files = self._batch_bytes = 0
        #: First names of hard links that are not in the tree: what hangs on them cannot be either.
        self._dropped: set[bytes] = set()

        def reader() -> Reader:
            return Reader(
                sink.lane(),
                chunker,
                name_of,
                on_read=desk.tally.read,
                on_exception=desk.exception,
                check=desk.check,
            )

        self._pool: Pool[Reader] = Pool(threads, reader)
        self._gatherer = Gatherer(self._pool, reader, threads)

    def run(self) -> Tree:
        desk = self._desk
        walker = Walker(
            self._wanted.folders,
            self._wanted.filters,
            on_exception=desk.exception,
            on_note=self._note,
            previous=None if self._known is None else Earlier(self._known.tree, desk),
            settled_before=None if self._known is None else divmod(self._known.start_ns, _SECOND),
            places=self._places,
        )
        with self._pool:
            for found in walker.found():
                if isinstance(found, Same):
                    self._take_same(found)
                else:
                    self._take(found)
                self._pause()
            self._close_batch()
            while self._waiting:
                self._drain()
            self._gatherer.finish()
        self._add_dumped(None)
        if not self._content:
            raise ContainsNoData(paths=list(self._wanted.roots))
        return Tree(self._tree.finish(), self._tree.entries)

    def _pause(self) -> None:
        """Between entries, and while a large file is read: how far it is, is told all the same."""
        if time.monotonic() - self._paused > _PAUSE_S:
            self._desk.check()
            self._on_pause()
            self._paused = time.monotonic()

    # --- what the walk finds ---

    def _take_same(self, same: Same) -> None:
        if same.before.path.startswith(DUMPS) and is_reserved(same.before.path):
            self._leave_reserved(same.before.path)
        elif self._waiting or self._batch:
            self._queue(same)
        else:
            self._keep_same(same)

    def _take(self, walked: Walked) -> None:
        if not walked.entry.path:
            return  # the root folder of the machine: a tree has no name for it
        if walked.entry.path.startswith(DUMPS) and is_reserved(walked.entry.path):
            self._leave_reserved(walked.entry.path)
            return
        if needs_reading(walked):
            if walked.state.size > self._small:
                self._close_batch()
                self._large(walked)
                return
            if not self._gatherer.pays():
                self._batch_files += 1
                self._batch_bytes += walked.state.size
                self._queue(walked)
                return
            entry = self._gatherer.entry(walked)
            if entry is None:
                self._dropped.add(walked.entry.path)
                return
            walked.entry, walked.unchanged = entry, True
        if self._waiting or self._batch:
            self._queue(walked)
        else:
            self._add(walked, finished(walked))

    def _queue(self, found: Walked | Same) -> None:
        """What stands behind something that is not in the tree yet."""
        self._batch.append(found)
        if (
            self._batch_bytes >= BATCH_BYTES
            or self._batch_files >= BATCH_FILES
            or len(self._batch) >= BATCH_ENTRIES
        ):  # fmt: skip
            self._close_batch()

    def _leave_reserved(self, path: bytes) -> None:
        if path == DUMPS:
            self._desk.exception(SourceException(DUMPS, "reserved-name", "it means dumps; it is left out"))
        self._dropped.add(path)

    def _close_batch(self) -> None:
        if not self._batch:
            return
        job = BatchJob(self._batch)
        if self._batch_files:
            self._pool.submit(job)
        else:
            job.found = [walked if isinstance(walked, Same) else finished(walked) for walked in self._batch]
            job.done = True
        self._batch, self._batch_files, self._batch_bytes = [], 0, 0
        self._enqueue(job)

    def _large(self, walked: Walked) -> None:
        large = _Large(walked)
        # in its place first: while its regions are submitted, what is before it can be drained
        self._enqueue(large)
        if self._waiting[0] is large:
            self._desk.path = walked.entry.path
        try:
            for extents in regions_of(walked):
                region = RegionJob(walked, extents)
                self._pool.submit(region, self._pause)
                large.regions.append(region)
        except Unreadable as error:
            large.unreadable = error.exception

    def _enqueue(self, item: BatchJob | _Large) -> None:
        while len(self._waiting) >= self._ahead:
            self._drain()
        self._waiting.append(item)
        while len(self._waiting) > 1 and isinstance(self._waiting[0], BatchJob) and self._waiting[0].done:
            self._drain()

    def _note(self, note: Note) -> None:
        path = "/" + note.path.decode("utf-8", "backslashreplace")
        own = note.reason.startswith("excluded-")
        detail = f": {note.detail}" if note.detail else ""
        self._desk.log("warning" if own else "info", f"{path} is left out ({note.reason}{detail})")

    # --- into the tree, in order ---

    def _drain(self) -> None:
        item = self._waiting.popleft()
        self._desk.check()
        if isinstance(item, BatchJob):
            self._pool.wait(item, self._pause)
            for walked, entry in zip(item.walked, item.found, strict=True):
                if isinstance(entry, Same):
                    self._keep_same(entry)
                elif isinstance(walked, Walked):
                    self._add(walked, entry)
            return
        self._desk.path = item.walked.entry.path
        for region in item.regions:
            self._pool.wait(region, self._pause)
        entry, told = (None, item.unreadable) if item.unreadable else joined(item.walked, item.regions)
        if told is not None:
            self._desk.exception(told)
        self._add(item.walked, entry)

    def _add(self, walked: Walked, entry: Entry | None) -> None:
        path = walked.entry.path
        if entry is None:
            self._dropped.add(path)
            return
        if entry.hardlink is not None and entry.hardlink in self._dropped:
            self._desk.exception(SourceException(path, "hard-link-not-kept", "its first name could not be read"))
            return
        self._add_dumped(path)
        self._keep(entry)

    def _add_dumped(self, before: bytes | None) -> None:
        """Adds what dumps wrote, as far as its place is before that path; all of it with ``None``."""
        while self.dumped and (before is None or path_key(self.dumped[0].path) < path_key(before)):
            self._keep(self.dumped.popleft())

    def _keep_same(self, same: Same) -> None:
        before = same.before
        self._add_dumped(before.path)
        self._tree.add_known(same.piece, same.number)
        tally = self._desk.tally
        tally.entries += 1
        if before.type != _FOLDER:
            self._content = True
            if before.type == _FILE:
                tally.files += 1
                tally.bytes += before.size
        self._desk.path = before.path

    def _keep(self, entry: Entry) -> None:
        self._tree.add(entry)
        if self._on_entry is not None:
            self._on_entry(entry)
        self._content = self._content or entry.type is not EntryType.DIRECTORY
        tally = self._desk.tally
        tally.entries += 1
        if entry.type is EntryType.FILE:
            tally.files += 1
            if entry.hardlink is None:
                tally.bytes += entry.size
        self._desk.path = entry.path


class Earlier:
    """What the walk asks of the tree of the last backup; damage there only means that more is read again."""

    def __init__(self, tree: TreeReader, desk: Desk) -> None:
        self._desk = desk
        self._told = False
        rows = KnownRows(tree, self._damaged)
        self.find, self.entry, self.is_whole = rows.find, rows.entry, is_whole

    def _damaged(self, error: CasoError) -> None:
        if not self._told:
            self._told = True
            self._desk.log("warning", f"the set it builds on is damaged, so more is read again: {error.message}")
