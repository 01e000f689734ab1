"""A restore drill: a random sample of a set is restored to a scratch folder, by the ways of any restore, and compared
with what the set promises, and with the source where that is on the same server and has not changed since."""

from __future__ import annotations

import hashlib
import heapq
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Struct, structs

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.hands import Place
from caso_mesh.jobs.restore import placed, places, run_restore, wanted_entries
from caso_mesh.jobs.target import FolderTarget
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, EntryType, SourceException, path_key
from caso_mesh.model.errors import Misuse, TargetInvalid
from caso_mesh.model.host_commands import is_reserved
from caso_mesh.model.jobs import DrillSpec, RestoreSpec
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_size
from caso_mesh.sources.compare import metadata_differences
from caso_mesh.sources.filters import Filters, is_below
from caso_mesh.sources.reading import FileState, OpenFile
from caso_mesh.sources.reasons import Unreadable
from caso_mesh.sources.removal import remove_tree
from caso_mesh.sources.walk import Walked, Walker
from caso_mesh.vault.chunking import chunk_id
from caso_mesh.vault.vault import Vault

#: What stays free on the disk of the scratch folder, whatever the sample needs.
_KEPT_FREE = 256 * 1024 * 1024
_BLOCK = 1 << 20
_SECOND = 1_000_000_000
#: A sample is never larger: its entries are held in memory.
MOST_SAMPLED = 100_000


class Promise(Struct, frozen=True):
    """What the set says of the sample, entry by entry in msgpack, in path order. ``source``: whose set it is."""

    source: str
    entries: tuple[bytes, ...]


def drill_spec(task: Task) -> DrillSpec:
    spec = task.order.spec
    if not isinstance(spec, DrillSpec):
        raise Misuse("a drill needs a drill's spec")
    return spec


# --- the device's end ---


def sampled(desk: Desk, vault: Vault, backup: BackupSet, spec: DrillSpec, run: str) -> tuple[bytes, ...]:
    """Paths of a random sample of all that is no folder, the same for every attempt of a run."""
    chance = random.Random(hashlib.sha256(run.encode()).digest())
    most = MOST_SAMPLED if spec.entries is None else min(spec.entries, MOST_SAMPLED)
    drawn: list[tuple[float, bytes, int]] = []
    total = 0
    for entry in vault.tree(backup.root).entries():
        if not total % 1024:
            desk.check()
        if entry.type is EntryType.DIRECTORY:
            continue
        total += 1
        lot = chance.random()
        if spec.percent is not None and lot * 100.0 >= spec.percent:
            continue
        # of the lots of all entries the smallest are kept
        item = (-lot, entry.path, entry.size if entry.type is EntryType.FILE else 0)
        if len(drawn) < most:
            heapq.heappush(drawn, item)
        elif item > drawn[0]:
            heapq.heapreplace(drawn, item)
    kept: list[bytes] = []
    size = left_out = 0
    for _, path, length in sorted(drawn, reverse=True):
        if size + length > spec.max_bytes:
            left_out += 1
            continue
        size += length
        kept.append(path)
    desk.log("info", f"the sample: {len(kept)} of {total} entries that are no folders, {format_size(size)}")
    if left_out:
        desk.log("info", f"{left_out} more were drawn and are left out: the limit is {format_size(spec.max_bytes)}")
    return tuple(sorted(kept, key=path_key))


def promised(desk: Desk, vault: Vault, backup: BackupSet, paths: Sequence[bytes]) -> list[tuple[bytes, Entry]]:
    """The entries of the sample with their roots, as they are restored."""
    return list(wanted_entries(desk, vault, backup, places(backup, paths, strip=False))) if paths else []


def promise_of(backup: BackupSet, entries: Iterable[tuple[bytes, Entry]]) -> Promise:
    return Promise(backup.source, tuple(msgspec.msgpack.encode(entry) for _, entry in entries))


def run_here(task: Task, desk: Desk, vault: Vault, backup: BackupSet) -> None:
    """Both ends on this server."""
    paths = sampled(desk, vault, backup, drill_spec(task), task.order.run)
    with scratch(task, desk) as drill:
        drill.take(backup.source, [entry for _, entry in promised(desk, vault, backup, paths)])
        if not paths:
            return
        target = DrillTarget(drill)
        try:
            run_restore(desk, vault, backup, target, places(backup, paths, strip=False))
            target.finished = True
        finally:
            target.close()


# --- the target's end ---


@contextmanager
def scratch(task: Task, desk: Desk) -> Iterator[Drill]:
    """The scratch folder while what is inside runs; removed afterwards, whatever happens."""
    if not task.scratch:
        raise Misuse("a drill needs a scratch folder")
    os.makedirs(task.scratch, mode=0o700, exist_ok=True)
    try:
        yield Drill(task, desk)
    finally:
        remove_tree(task.scratch)


class Drill:
    """What was promised and what came of it. ``task``: as a restore into the scratch folder and nowhere else."""

    def __init__(self, task: Task, desk: Desk) -> None:
        folder = os.fsencode(os.path.realpath(task.scratch))
        spec = drill_spec(task)
        restore = RestoreSpec(set=spec.set, server=spec.server, base=folder, foreign=spec.foreign)
        order = structs.replace(task.order, spec=restore)
        self.task = structs.replace(task, order=order, own_paths=(), may_write=(folder,))
        self.desk = desk
        self._drill = task
        #: By which chunks are named; of a set of another mesh the other end says it.
        self.id_key = task.id_key
        self._folder = folder
        self._here = False
        self._promised: dict[bytes, Entry] = {}

    def take_promise(self, promise: Promise) -> None:
        """Raises ``TargetInvalid``, ``msgspec.MsgspecError``."""
        decode = msgspec.msgpack.Decoder(Entry).decode
        self.take(promise.source, [decode(packed) for packed in promise.entries])

    def take(self, source: str, entries: Sequence[Entry]) -> None:
        """What the set of the server ``source`` promises. Raises ``TargetInvalid`` if it does not fit."""
        self._here = source == self._drill.server
        self._promised = {entry.path: entry for entry in entries}
        needed = sum(entry.size for entry in entries if entry.type is EntryType.FILE)
        status = os.statvfs(self._folder)
        free = status.f_bavail * status.f_frsize
        if needed + _KEPT_FREE > free:
            detail = f"the sample has {format_size(needed)}, {format_size(free)} are free there; draw a smaller one"
            raise TargetInvalid(path=self._folder, detail=detail)

    def forget(self, path: bytes) -> None:
        """It is not restored, and that was said."""
        self._promised.pop(path, None)

    def compare(self) -> None:
        """Each difference is an exception. What was restored is read back in whole."""
        desk, before = self.desk, self.desk.tally.exceptions
        left = dict(self._promised)
        prefix = len(self._folder)
        unreadable: list[SourceException] = []
        filters = Filters(default_excludes=False)
        walker = Walker([self._folder], filters, on_exception=unreadable.append, on_note=lambda note: None)
        for walked in walker:
            desk.check()
            promise = left.pop(walked.entry.path[prefix:], None)
            if promise is not None:
                self._compare(promise, walked)
        for path in left:
            desk.exception(SourceException(path, "not-restored", "the set has it, the scratch folder has not"))
        for each in unreadable:
            desk.exception(SourceException(each.path[prefix:], each.reason, each.detail))
        live = self._compare_source() if self._here else None
        found = desk.tally.exceptions - before
        text = f"compared {len(self._promised)} entries with what the set promises"
        if live is not None:
            text += f", and the content of {live} files with that of their source, which has not changed since"
        desk.log("warning" if found else "info", f"{text}: {found or 'no'} differences")

    def _compare(self, promise: Entry, walked: Walked) -> None:
        """One entry that was restored."""
        prefix = self._folder[1:] + b"/"
        link = walked.entry.hardlink
        entry = structs.replace(
            walked.entry,
            path=promise.path,
            hardlink=link.removeprefix(prefix) if link is not None else None,
        )
        mine = os.geteuid() in {0, promise.uid}
        for what, wanted, restored in metadata_differences(promise, entry, owner=mine):
            self._differs(promise.path, "differs", f"{what}: {wanted} in the set, {restored} restored")
        if promise.type is EntryType.FILE and promise.hardlink is None and entry.type is EntryType.FILE:
            try:
                with walked.open() as file:
                    problem = self._content(promise, file)
            except Unreadable as error:
                problem = f"{error.exception.reason} {error.exception.detail}".rstrip()
            if problem:
                self._differs(promise.path, "differs", f"content: {problem}")

    def _content(self, promise: Entry, file: OpenFile) -> str:
        """What is wrong with the bytes of a file; nothing if they are what the set promises."""
        at = 0
        for offset, (chunk, length) in placed(promise):
            self.desk.check()
            if at < offset and not self._is_zero(file, at, offset):
                return f"something else than a hole before byte {offset}"
            data = bytearray(length)
            if file.read_into(data, offset) != length or chunk_id(self.id_key, data) != chunk:
                return f"another one between bytes {offset} and {offset + length}"
            at = offset + length
        if file.size != promise.size or not self._is_zero(file, at, promise.size):
            return f"something else after byte {at}"
        return ""

    def _is_zero(self, file: OpenFile, start: int, end: int) -> bool:
        data = [(max(start, at), min(end, at + length)) for at, length in file.extents() if at < end]
        for at, to in data:
            while at < to:
                self.desk.check()
                buffer = bytearray(min(_BLOCK, to - at))
                if file.read_into(buffer, at) != len(buffer) or buffer.count(0) != len(buffer):
                    return False
                at += len(buffer)
        return True

    def _compare_source(self) -> int:
        """How many files are at their place as the set says that they were; their content must be the same, too."""
        compared = 0
        for promise in self._promised.values():
            self.desk.check()
            if promise.type is not EntryType.FILE or promise.hardlink is not None or is_reserved(promise.path):
                continue
            if not self._may_read(promise.path):
                continue
            try:
                status = os.stat(b"/" + promise.path, follow_symlinks=False)
                if not _is_unchanged(promise, status):
                    continue
                times = (status.st_mtime_ns, status.st_ctime_ns)
                state = FileState(status.st_dev, status.st_ino, status.st_size, *times, status.st_blocks)
                with OpenFile(promise.path, state) as file:
                    problem = self._content(promise, file)
                    if file.changed():
                        continue
            except (OSError, Unreadable):
                continue  # it cannot be read (any more): then there is nothing to compare with
            compared += 1
            if problem:
                detail = f"nothing says that it was changed since, but its content is {problem}"
                self._differs(promise.path, "differs-from-source", detail)
        return compared

    def _may_read(self, path: bytes) -> bool:
        real = os.path.realpath(b"/" + path)
        allowed = self._drill.may_read is None or any(is_below(real, place) for place in self._drill.may_read)
        return allowed and not any(is_below(real, place) for place in self._drill.own_paths)

    def _differs(self, path: bytes, reason: str, detail: str) -> None:
        self.desk.exception(SourceException(path, reason, detail))


def _is_unchanged(promise: Entry, status: os.stat_result) -> bool:
    return (
        promise.size == status.st_size
        and promise.inode == status.st_ino
        and promise.modified == divmod(status.st_mtime_ns, _SECOND)
        and promise.changed == divmod(status.st_ctime_ns, _SECOND)
    )


class DrillTarget:
    """The scratch folder as the target of a restore; what is there is compared when it is closed. See
    ``restore.FilesTarget``. ``finished``: all was written, so that there is something to compare."""

    def __init__(self, drill: Drill) -> None:
        self.finished = False
        self._drill = drill
        self._target = FolderTarget(drill.task, drill.desk)
        self._closed = False

    def begin(self, entries: Sequence[tuple[bytes, Entry]]) -> list[bool]:
        begun = self._target.begin(entries)
        for (_, entry), each in zip(entries, begun, strict=True):
            if not each:
                self._drill.forget(entry.path)
        return begun

    def put(self, entry: Entry, data: bytes | memoryview) -> None:
        self._target.put(entry, data)

    def lend(self, entry: Entry) -> Place | None:
        return self._target.lend(entry)

    def made(self, entries: Sequence[Entry]) -> None:
        self._target.made(entries)

    def write(self, path: bytes, offset: int, data: bytes | memoryview) -> None:
        self._target.write(path, offset, data)

    def finish(self, entry: Entry) -> None:
        self._target.finish(entry)

    def abort(self, path: bytes) -> None:
        self._drill.forget(path)
        self._target.abort(path)

    def close(self) -> None:
        self._target.close()
        if self.finished and not self._closed:
            self._closed = True
            self._drill.compare()
