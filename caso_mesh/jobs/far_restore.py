"""A restore to another server than the device's. The device's end reads and pushes; the target's end takes what its
own order names, and nothing can be asked of the device.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from caso_mesh.jobs.bulk import BulkChannel, Meet, NothingToAsk, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.feeding import CommandTarget, run_feed
from caso_mesh.jobs.messages import Began
from caso_mesh.jobs.restore import outermost, places, run_restore
from caso_mesh.jobs.storing import BackendFor, load_set, open_vault
from caso_mesh.jobs.target import FolderTarget
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, SourceException
from caso_mesh.model.errors import CasoError, PeerFault, PeerMalformed, UnknownCall
from caso_mesh.model.jobs import RestoreSpec
from caso_mesh.wire.codec import from_wire, to_wire

#: Bytes that are written with one call, as far as whole pieces of files allow.
_CALL_BYTES = 1024 * 1024
#: Entries that are begun with one call, and the bytes that describe them.
_MOST_ENTRIES = 8192
_ENTRIES_BYTES = 8 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class Begin(Struct, frozen=True):
    """(root, entry in msgpack without its chunks), in path order. The answer is ``Begun``."""

    entries: tuple[tuple[bytes, bytes], ...]


class Begun(Struct, frozen=True):
    """A byte for each entry: 1 if its content is to follow."""

    wanted: bytes
    exceptions: tuple[SourceException, ...] = ()


class Write(Struct, frozen=True):
    """(path, offset, data), then whole files to finish, then files to give up. The answer is ``Written``."""

    pieces: tuple[tuple[bytes, int, bytes], ...] = ()
    finish: tuple[bytes, ...] = ()
    abort: tuple[bytes, ...] = ()


class Written(Struct, frozen=True):
    """What could not be restored as it was."""

    exceptions: tuple[SourceException, ...] = ()


# --- the device's end ---


def run_device_end(task: Task, desk: Desk, meet: Meet, backend_for: BackendFor) -> None:
    """Reads here, has it written there."""
    spec = task.order.spec
    assert isinstance(spec, RestoreSpec)
    with meet(task, desk, NothingToAsk()) as channel, open_vault(task, desk, backend_for) as vault:
        desk.say(Began())
        backup = load_set(vault, spec.set)
        target = FarTarget(channel, desk, far_of(task).name)
        if spec.into_command is not None:
            run_feed(desk, vault, backup, target, spec.paths)
        else:
            run_restore(desk, vault, backup, target, places(backup, spec.paths, strip=spec.strip))
        target.close()


class FarTarget:
    """Pushes to the target's end. See ``restore.Target``."""

    def __init__(self, channel: BulkChannel, desk: Desk, far: str) -> None:
        self._channel = channel
        self._desk = desk
        self._far = far
        self._pieces: list[tuple[bytes, int, bytes]] = []
        self._bytes = 0
        self._finish: list[bytes] = []
        self._abort: list[bytes] = []
        self._under_way: list[Any] = []

    def begin(self, entries: Sequence[tuple[bytes, Entry]]) -> list[bool]:
        self._push()
        wanted: list[bool] = []
        part: list[tuple[bytes, bytes]] = []
        size = 0
        for root, entry in entries:
            packed = _encode(msgspec.structs.replace(entry, chunks=()))
            if part and (size + len(packed) > _ENTRIES_BYTES or len(part) >= _MOST_ENTRIES):
                wanted += self._begin(part)
                part, size = [], 0
            part.append((root, packed))
            size += len(packed)
        return wanted + self._begin(part)

    def _begin(self, part: list[tuple[bytes, bytes]]) -> list[bool]:
        if not part:
            return []
        begun = from_wire(self._channel.call("begin", to_wire(Begin(tuple(part)))), Begun, peer=self._far)
        if len(begun.wanted) != len(part):
            raise PeerMalformed(peer=self._far, detail="it did not answer what was asked")
        self._take(begun.exceptions)
        return [bool(each) for each in begun.wanted]

    def write(self, path: bytes, offset: int, data: bytes | memoryview) -> None:
        self._pieces.append((path, offset, bytes(data)))
        self._bytes += len(data)
        if self._bytes >= _CALL_BYTES:
            self._push()

    def finish(self, entry: Entry) -> None:
        self._finish.append(entry.path)

    def abort(self, path: bytes) -> None:
        # what is still on its way to it is of no use
        self._pieces = [piece for piece in self._pieces if piece[0] != path]
        self._abort.append(path)

    def close(self) -> None:
        """All is written, and the target has its last metadata."""
        self._push()
        self._settle(0)
        self._take(from_wire(self._channel.call("close"), Written, peer=self._far).exceptions)

    def _push(self) -> None:
        if self._pieces or self._finish or self._abort:
            write = Write(tuple(self._pieces), tuple(self._finish), tuple(self._abort))
            self._pieces, self._bytes, self._finish, self._abort = [], 0, [], []
            self._under_way.append(self._channel.start("write", to_wire(write)))
        self._settle(16)

    def _settle(self, most: int) -> None:
        while len(self._under_way) > most:
            answer = self._under_way.pop(0).result()
            self._take(from_wire(answer, Written, peer=self._far).exceptions)

    def _take(self, exceptions: tuple[SourceException, ...]) -> None:
        for exception in exceptions:
            self._desk.exception(exception)


# --- the target's end ---


def run_target_end(task: Task, desk: Desk, meet: Meet) -> None:
    """Writes here what is pushed from there."""
    far = _TargetEnd(task, desk)
    try:
        with meet(task, desk, far) as channel:
            desk.say(Began())
            desk.wait_for(lambda: far.closed or far.failure is not None or channel.lost is not None)
            if far.failure is not None:
                raise far.failure
            if not far.closed:
                assert channel.lost is not None
                raise channel.lost
    except BaseException as error:
        far.stop(error)
        raise


class _TargetEnd:
    """What the device's end may do here. See ``bulk.Answering``."""

    ordered = True

    def __init__(self, task: Task, desk: Desk) -> None:
        spec = task.order.spec
        assert isinstance(spec, RestoreSpec)
        self._desk = desk
        self._name = far_of(task).name
        self._paths = outermost([path.strip(b"/") for path in spec.paths])
        self._task = task
        self._target: FolderTarget | CommandTarget | None = None
        self._into_command = spec.into_command is not None
        self._begun: dict[bytes, Entry] = {}
        self._exceptions: list[SourceException] = []
        # the thread of the attempt may stop while one that answers is at work
        self._lock = threading.Lock()
        self.closed = False
        self.failure: CasoError | None = None
        desk.on_exceptions = self._exceptions.extend

    def stop(self, error: BaseException) -> None:
        """Nothing more is taken; what was written whole stays, with its metadata."""
        self.failure = self.failure or (
            error if isinstance(error, CasoError) else PeerFault(peer="the target's end", detail="it failed")
        )
        with self._lock:
            if self._target is not None:
                self._target.close()

    def handle(self, method: str, params: Any) -> Any:
        with self._lock:
            if self.failure is not None:
                raise self.failure
            try:
                self._desk.check()
                match method:
                    case "begin":
                        return to_wire(self._on_begin(from_wire(params, Begin, peer=self._name)))
                    case "write":
                        return to_wire(self._on_write(from_wire(params, Write, peer=self._name)))
                    case "close":
                        return to_wire(self._on_close())
                    case _:
                        raise UnknownCall(peer=self._name, call=method)
            except CasoError as error:
                self.failure = error
                self._desk.waiting.notify()
                raise

    def _on_begin(self, begin: Begin) -> Begun:
        entries: list[tuple[bytes, Entry]] = []
        for root, packed in begin.entries:
            try:
                entry = _decode(packed)
            except msgspec.MsgspecError as error:
                raise PeerMalformed(peer=self._name, detail=str(error)) from error
            self._check(root, entry)
            entries.append((root, entry))
        if self._target is None:
            if self._into_command:
                self._target = CommandTarget(self._task, self._desk, self._check_going)
            else:
                self._target = FolderTarget(self._task, self._desk)
        wanted = self._target.begin(entries)
        for (_, entry), each in zip(entries, wanted, strict=True):
            self._count(entry)
            if each:
                self._begun[entry.path] = entry
        return Begun(bytes(wanted), self._give())

    def _check(self, root: bytes, entry: Entry) -> None:
        """Only what the order of this end names is written, whatever the other end says."""
        if root and entry.path != root and not entry.path.startswith(root + b"/"):
            raise self._fault(f"{entry.path!r} does not lie in {root!r}")
        if self._paths:
            for path in (entry.path, entry.hardlink):
                if path is not None and not any(
                    path == chosen or path.startswith(chosen + b"/") for chosen in self._paths
                ):
                    raise self._fault(f"{path!r} is not among what is to be restored")

    def _on_write(self, write: Write) -> Written:
        target = self._open()
        for path, offset, data in write.pieces:
            entry = self._entry(path)
            if offset < 0 or offset + len(data) > entry.size:
                raise self._fault(f"it writes beyond the end of {path!r}")
            target.write(path, offset, data)
            self._desk.tally.read(len(data))
        for path in write.finish:
            target.finish(self._entry(path))
            del self._begun[path]
        for path in write.abort:
            if self._begun.pop(path, None) is not None:
                target.abort(path)
        return Written(self._give())

    def _on_close(self) -> Written:
        if self._target is not None:
            self._target.close()
        exceptions = self._give()
        self.closed = True
        self._desk.waiting.notify()
        return Written(exceptions)

    def _count(self, entry: Entry) -> None:
        tally = self._desk.tally
        tally.entries += 1
        tally.files += entry.type.value == "file"
        tally.bytes += 0 if entry.hardlink is not None else entry.size
        self._desk.path = entry.path

    def _check_going(self) -> None:
        """Raises once nothing more is taken: a command may wait for long."""
        self._desk.check()
        if self.failure is not None:
            raise self.failure

    def _open(self) -> FolderTarget | CommandTarget:
        if self._target is None:
            raise self._fault("it writes what it did not begin")
        return self._target

    def _entry(self, path: bytes) -> Entry:
        entry = self._begun.get(path)
        if entry is None:
            raise self._fault(f"it writes {path!r}, which it did not begin")
        return entry

    def _give(self) -> tuple[SourceException, ...]:
        self._desk.flush()
        given = tuple(self._exceptions)
        self._exceptions.clear()
        return given

    def _fault(self, detail: str) -> PeerFault:
        return PeerFault(peer=self._name, detail=detail)
