"""A restore to another server than the device's: what both ends say to each other, and the device's end.

The device's end reads records and pushes them as they are packed; the target's end (``far_target``) unpacks them,
recomputes every id and writes what its own order names. Nothing can be asked of the device but to send a record again
whose content is not what its ids say.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import Struct

from caso_mesh.jobs.bulk import WINDOW, BulkChannel, Meet, NothingToAsk, Pending, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.drilling import drill_spec, promise_of, promised, sampled
from caso_mesh.jobs.feeding import run_feed
from caso_mesh.jobs.manifests import Part, pack_parts
from caso_mesh.jobs.messages import Began
from caso_mesh.jobs.restore import (
    DAMAGED,
    WINDOW_BYTES,
    WINDOW_FILES,
    placed,
    places,
    size_problem,
    wanted_entries,
)
from caso_mesh.jobs.storing import BackendFor, load_set, open_vault
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.errors import CasoError, DeviceVanished, PeerMalformed
from caso_mesh.model.jobs import RestoreSpec
from caso_mesh.vault.reading import Packed
from caso_mesh.vault.vault import Vault
from caso_mesh.wire.codec import from_wire, to_wire

#: Bytes that are written with one call into a command, as far as whole pieces allow.
_CALL_BYTES = 1024 * 1024
#: Bytes that describe the entries that are begun with one call.
_ENTRIES_BYTES = 8 * 1024 * 1024
#: Windows whose files may be open at the target: begun, being written, about to be finished.
_OPEN_WINDOWS = 3

_encode = msgspec.msgpack.Encoder().encode


class Begin(Struct, frozen=True):
    """Entries in msgpack without their chunks, in path order, with the root that they lie in. The answer is
    ``Begun``."""

    entries: tuple[tuple[bytes, tuple[bytes, ...]], ...]


class Keyed(Struct, frozen=True):
    """Said first of a set of another mesh: by which key its chunks are named. It opens nothing."""

    id_key: bytes


class Begun(Struct, frozen=True):
    """A byte for each entry: 1 if its content is to follow."""

    wanted: bytes
    exceptions: tuple[SourceException, ...] = ()


class Record(Struct, frozen=True):
    """A record as ``vault.packing`` makes them: flags, length of its raw bytes, payload; what of it goes where, as
    ``manifests`` packs it. Records come in any order. The answer is ``Taken``."""

    flags: int
    raw: int
    payload: bytes
    parts: bytes
    paths: tuple[bytes, ...]
    offsets: bytes


class Taken(Struct, frozen=True):
    """``wrong``: ids of parts whose content is another, or cannot be unpacked: they were not written."""

    wrong: tuple[bytes, ...] = ()
    exceptions: tuple[SourceException, ...] = ()


class Write(Struct, frozen=True):
    """What a command reads: (path, offset, data). Then whole files to finish, then files to give up. The answer is
    ``Written``."""

    pieces: tuple[tuple[bytes, int, bytes], ...] = ()
    finish: tuple[bytes, ...] = ()
    abort: tuple[bytes, ...] = ()


class Written(Struct, frozen=True):
    """What could not be restored as it was."""

    exceptions: tuple[SourceException, ...] = ()


def run_device_end(task: Task, desk: Desk, meet: Meet, backend_for: BackendFor) -> None:
    """Reads here, has it written there."""
    spec = task.order.spec
    assert isinstance(spec, RestoreSpec)
    with meet(task, desk, NothingToAsk()) as channel, open_vault(task, desk, backend_for) as vault:
        desk.say(Began())
        backup = load_set(vault, spec.set)
        far = Far(channel, desk, far_of(task).name)
        if spec.foreign:
            channel.call("keyed", to_wire(Keyed(task.id_key)))
        if spec.into_command is not None:
            target = FarCommand(far)
            run_feed(desk, vault, backup, target, spec.chosen())
            target.close()
            return
        push = _Push(far, desk, vault)
        push.run(wanted_entries(desk, vault, backup, places(backup, spec.chosen(), strip=spec.strip)))
        far.close()


def run_drill(task: Task, desk: Desk, meet: Meet, backend_for: BackendFor) -> None:
    """Reads a sample here, and tells the other end what the set promises of it."""
    spec = drill_spec(task)
    with meet(task, desk, NothingToAsk()) as channel, open_vault(task, desk, backend_for) as vault:
        desk.say(Began())
        backup = load_set(vault, spec.set)
        entries = promised(desk, vault, backup, sampled(desk, vault, backup, spec, task.order.run))
        if spec.foreign:
            channel.call("keyed", to_wire(Keyed(task.id_key)))
        channel.call("promise", to_wire(promise_of(backup, entries)))
        far = Far(channel, desk, far_of(task).name)
        _Push(far, desk, vault).run(entries)
        far.close()


class Far:
    """The calls that the target's end answers, with what it could not restore told to this end's daemon."""

    def __init__(self, channel: BulkChannel, desk: Desk, name: str) -> None:
        self.name = name
        self._channel = channel
        self._desk = desk

    def begin(self, entries: Sequence[tuple[bytes, bytes]]) -> Pending:
        """Begins them; ``begun`` takes the answer."""
        grouped = groupby(entries, itemgetter(0))
        begin = Begin(tuple((root, tuple(packed for _, packed in group)) for root, group in grouped))
        return self._channel.start("begin", to_wire(begin))

    def begun(self, pending: Pending, count: int) -> list[bool]:
        begun = from_wire(pending.result(), Begun, peer=self.name)
        if len(begun.wanted) != count:
            raise PeerMalformed(peer=self.name, detail="it did not answer what was asked")
        self._except(begun.exceptions)
        return [bool(each) for each in begun.wanted]

    def record(self, flags: int, raw: int, payload: bytes | bytearray | memoryview, parts: tuple[Part, ...]) -> Pending:
        """Sends a ``Record``; ``taken`` takes the answer."""
        # a map of what a ``Record`` has: the payload is sent from where it lies
        packed, paths, offsets = pack_parts(parts)
        record = {
            "flags": flags,
            "raw": raw,
            "payload": payload,
            "parts": packed,
            "paths": paths,
            "offsets": offsets,
        }
        return self._channel.start("record", record, size=len(payload))

    def taken(self, pending: Pending) -> tuple[bytes, ...]:
        """Ids of the parts that have to come again."""
        taken = from_wire(pending.result(), Taken, peer=self.name)
        self._except(taken.exceptions)
        return taken.wrong

    def write(self, write: Write) -> Pending:
        """Sends it; ``written`` takes the answer."""
        size = sum(len(data) for _, _, data in write.pieces)
        return self._channel.start("write", to_wire(write), size=size)

    def written(self, pending: Pending) -> None:
        self._except(from_wire(pending.result(), Written, peer=self.name).exceptions)

    def close(self) -> None:
        """All is written, and the target has its last metadata."""
        self._except(from_wire(self._channel.call("close"), Written, peer=self.name).exceptions)

    def _except(self, exceptions: tuple[SourceException, ...]) -> None:
        for exception in exceptions:
            self._desk.exception(exception)


def _packed(entry: Entry) -> bytes:
    return _encode(msgspec.structs.replace(entry, chunks=()))


# --- files ---


class _Window:
    """Entries whose files are open at the target together."""

    def __init__(self, entries: list[tuple[bytes, Entry]]) -> None:
        self.entries = entries
        self.begun: list[tuple[Pending, int]] = []
        self.bad: set[bytes] = set()
        #: Paths that were begun, once all of their content is on its way.
        self.sent: list[bytes] | None = None
        self.unanswered = 0


class _Sent(Struct):
    """A call under way: a record, or the end of a window's files."""

    pending: Pending
    window: _Window | None
    parts: tuple[Part, ...] = ()
    again: bool = False


class _Push:
    """Pushes window after window: while the records of one are on their way the next is begun already, and files are
    finished once the answers to all of their records are here."""

    def __init__(self, far: Far, desk: Desk, vault: Vault) -> None:
        self._far = far
        self._desk = desk
        self._vault = vault
        self._under_way: deque[_Sent] = deque()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = soft // (4 * _OPEN_WINDOWS)
        self._most_files = max(16, min(WINDOW_FILES, most)) if soft > 0 else WINDOW_FILES

    def run(self, entries: Iterable[tuple[bytes, Entry]]) -> None:
        before: _Window | None = None
        for window in self._windows(entries):
            if before is not None:
                self._take_begun(before)
            self._begin(window)
            if before is not None:
                self._content(before)
            before = window
        if before is not None:
            self._take_begun(before)
            self._content(before)
        self._settle(0)

    def _windows(self, entries: Iterable[tuple[bytes, Entry]]) -> Iterator[_Window]:
        waiting: list[tuple[bytes, Entry]] = []
        files = size = 0
        for root, entry in entries:
            waiting.append((root, entry))
            if entry.chunks:
                files += 1
                size += entry.size
            if files >= self._most_files or len(waiting) >= WINDOW_FILES or size >= WINDOW_BYTES:
                yield _Window(waiting)
                waiting, files, size = [], 0, 0
        if waiting:
            yield _Window(waiting)

    def _begin(self, window: _Window) -> None:
        part: list[tuple[bytes, bytes]] = []
        size = 0
        for root, entry in window.entries:
            packed = _packed(entry)
            if part and size + len(packed) > _ENTRIES_BYTES:
                self._begin_part(window, part)
                part, size = [], 0
            part.append((root, packed))
            size += len(packed)
        if part:
            self._begin_part(window, part)

    def _begin_part(self, window: _Window, part: list[tuple[bytes, bytes]]) -> None:
        if window.begun:
            # the other end may answer in any order, and folders come before what is in them
            self._desk.check()
            window.begun[-1][0].result()
        window.begun.append((self._far.begin(part), len(part)))

    def _take_begun(self, window: _Window) -> None:
        wanted = [each for pending, count in window.begun for each in self._far.begun(pending, count)]
        tally = self._desk.tally
        kept = []
        for (root, entry), begun in zip(window.entries, wanted, strict=True):
            self._desk.path = entry.path
            tally.entries += 1
            if entry.type is EntryType.FILE:
                tally.files += 1
                tally.bytes += 0 if entry.hardlink is not None else entry.size
            if begun:
                kept.append((root, entry))
        window.entries = kept

    def _content(self, window: _Window) -> None:
        wanted: dict[bytes, list[tuple[bytes, int, int]]] = {}
        size = 0
        for _, entry in window.entries:
            if not entry.chunks or entry.hardlink is not None:
                continue
            problem = size_problem(entry)
            if problem:
                self._lost(window, entry.path, problem)
                continue
            for offset, (chunk, length) in placed(entry):
                wanted.setdefault(chunk, []).append((entry.path, offset, length))
                size += length
                if size >= WINDOW_BYTES:
                    self._fetch(window, wanted)  # a file may be larger than the memory
                    wanted, size = {}, 0
        self._fetch(window, wanted)
        window.sent = [entry.path for _, entry in window.entries]
        window.entries = []
        self._finish(window)

    def _fetch(self, window: _Window, wanted: dict[bytes, list[tuple[bytes, int, int]]]) -> None:
        for found in self._vault.packed_many(list(wanted)):
            self._desk.check()
            if isinstance(found, Packed):
                parts = [self._part(window, member, wanted[member[0]]) for member in found.members]
                self._send(window, found.flags, found.raw, found.payload, parts)
                continue
            chunk, content = found
            if isinstance(content, CasoError):
                for path, _, _ in wanted[chunk]:
                    self._lost(window, path, content.message)
            else:
                part = self._part(window, (chunk, 0, len(content)), wanted[chunk])
                self._send(window, 0, len(content), content, [part])

    def _part(self, window: _Window, member: tuple[bytes, int, int], where: list[tuple[bytes, int, int]]) -> Part:
        chunk, begin, size = member
        at = []
        for path, offset, length in where:
            if length != size:
                self._lost(window, path, f"a chunk has {size} bytes instead of {length}")
            elif path not in window.bad:
                at.append((path, offset))
        return chunk, begin, size, tuple(at)

    def _send(
        self,
        window: _Window,
        flags: int,
        raw: int,
        payload: bytes | bytearray | memoryview,
        parts: Sequence[Part],
        *,
        again: bool = False,
    ) -> None:
        parts = tuple(part for part in parts if part[3])
        if parts:
            pending = self._far.record(flags, raw, payload, parts)
            window.unanswered += 1
            self._under_way.append(_Sent(pending, window, parts, again))
            if not again:
                self._settle(2 * WINDOW)

    def _settle(self, most: int) -> None:
        while len(self._under_way) > most:
            sent = self._under_way.popleft()
            if sent.window is None:
                self._far.written(sent.pending)
                continue
            wrong = frozenset(self._far.taken(sent.pending))
            sent.window.unanswered -= 1
            for part in sent.parts:
                if part[0] in wrong:
                    self._again(sent, part)
                else:
                    self._desk.tally.read(part[2] * len(part[3]))
            self._finish(sent.window)

    def _again(self, sent: _Sent, part: Part) -> None:
        """The record does not hold what its ids say: the chunk is read alone, out of another copy if need be."""
        assert sent.window is not None
        if sent.again:
            raise PeerMalformed(peer=self._far.name, detail="it refuses a chunk that is what its id says")
        chunk, _, size, where = part
        try:
            content = self._vault.read(chunk)
        except DeviceVanished:
            raise
        except CasoError as error:
            for path, _ in where:
                self._lost(sent.window, path, error.message)
            return
        self._send(sent.window, 0, size, content, [(chunk, 0, size, where)], again=True)

    def _finish(self, window: _Window) -> None:
        if window.sent is None or window.unanswered:
            return
        finish = tuple(path for path in window.sent if path not in window.bad)
        window.sent = None
        pending = self._far.write(Write(finish=finish, abort=tuple(window.bad)))
        self._under_way.append(_Sent(pending, None))

    def _lost(self, window: _Window, path: bytes, detail: str) -> None:
        if path not in window.bad:
            window.bad.add(path)
            self._desk.exception(SourceException(path, DAMAGED, detail))


# --- one file into a command ---


class FarCommand:
    """Pushes to the command at the target's end. See ``restore.Target``."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._pieces: list[tuple[bytes, int, bytes]] = []
        self._bytes = 0
        self._under_way: deque[Any] = deque()

    def begin(self, entries: Sequence[tuple[bytes, Entry]]) -> list[bool]:
        begun = self._far.begin([(root, _packed(entry)) for root, entry in entries])
        return self._far.begun(begun, len(entries))

    def write(self, path: bytes, offset: int, data: bytes | memoryview) -> None:
        self._pieces.append((path, offset, bytes(data)))
        self._bytes += len(data)
        if self._bytes >= _CALL_BYTES:
            self._push(Write(tuple(self._pieces)))

    def finish(self, entry: Entry) -> None:
        self._push(Write(tuple(self._pieces), (entry.path,)))

    def abort(self, path: bytes) -> None:
        self._push(Write(abort=(path,)))

    def close(self) -> None:
        """Until the command has all of it and has ended well."""
        self._settle(0)
        self._far.close()

    def _push(self, write: Write) -> None:
        self._pieces, self._bytes = [], 0
        self._under_way.append(self._far.write(write))
        self._settle(2 * WINDOW)

    def _settle(self, most: int) -> None:
        while len(self._under_way) > most:
            self._far.written(self._under_way.popleft())
