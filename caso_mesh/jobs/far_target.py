"""The target's end of a restore whose device is on another server: it takes what its own order names, recomputes every
id, and writes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import msgspec

from caso_mesh.jobs.bulk import Meet, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.drilling import Drill, DrillTarget, Promise
from caso_mesh.jobs.far_restore import Begin, Begun, Keyed, Record, Taken, Write, Written
from caso_mesh.jobs.feeding import CommandTarget
from caso_mesh.jobs.hands import LONG, Handful, Hands
from caso_mesh.jobs.manifests import parts_of
from caso_mesh.jobs.messages import Began
from caso_mesh.jobs.restore import above, outermost
from caso_mesh.jobs.target import FolderTarget
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.errors import CasoError, DataDamaged, PeerFault, PeerMalformed, UnknownCall
from caso_mesh.model.jobs import RestoreSpec
from caso_mesh.vault.chunking import ID_KEY_SIZE, chunk_id
from caso_mesh.vault.packing import unpack
from caso_mesh.vault.packs import MAX_RECORD
from caso_mesh.wire.codec import from_wire, to_wire

#: Locks of files, so that each is written by one thread at a time.
_STRIPES = 64

_decode = msgspec.msgpack.Decoder(Entry).decode


def run_target_end(task: Task, desk: Desk, meet: Meet, drill: Drill | None = None, hands: Hands | None = None) -> None:
    """Writes here what is pushed from there; of a drill, to its scratch folder. ``hands`` make small files; they end
    with it."""
    with hands or nullcontext():
        far = _TargetEnd(task if drill is None else drill.task, desk, drill, hands)
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

    quick: frozenset[str] = frozenset()

    def __init__(self, task: Task, desk: Desk, drill: Drill | None, hands: Hands | None) -> None:
        spec = task.order.spec
        assert isinstance(spec, RestoreSpec)
        #: A command takes its input in order; files take theirs as it comes.
        self.ordered = spec.into_command is not None
        self._desk = desk
        self._name = far_of(task).name
        self._paths = outermost([path.strip(b"/") for path in spec.chosen()])
        self._task = task
        self._foreign = spec.foreign
        self._id_key = task.id_key
        self._drill = drill
        self._target: FolderTarget | CommandTarget | DrillTarget | None = None
        self._into_command = spec.into_command is not None
        self._begun: dict[bytes, Entry] = {}
        self._hands = hands
        #: Paths of files that hands make, and of those that are written here piece by piece.
        self._handed: set[bytes] = set()
        self._pieced: set[bytes] = set()
        self._exceptions: list[SourceException] = []
        # The thread of the attempt may stop while those that answer are at work: one begins and finishes entries, others
        # write records meanwhile.
        self._steps = threading.Lock()
        self._quiet = threading.Condition()
        self._writers = 0
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self.closed = False
        self.failure: CasoError | None = None
        self._exceptions_lock = threading.Lock()
        desk.on_exceptions = self._except

    def stop(self, error: BaseException) -> None:
        """Nothing more is taken; what was written whole stays, with its metadata."""
        self.failure = self.failure or (
            error if isinstance(error, CasoError) else PeerFault(peer="the target's end", detail="it failed")
        )
        with self._steps:
            with self._quiet:
                self._quiet.wait_for(lambda: not self._writers)
            if self._hands is not None:
                self._hands.close()
            if self._target is not None:
                self._target.close()

    def handle(self, method: str, params: Any) -> Any:
        try:
            if method == "record":
                with self._writing():
                    return to_wire(self._on_record(from_wire(params, Record, peer=self._name)))
            with self._steps:
                self._check_going()
                match method:
                    case "keyed" if self._foreign:
                        return self._on_keyed(from_wire(params, Keyed, peer=self._name))
                    case "begin":
                        return to_wire(self._on_begin(from_wire(params, Begin, peer=self._name)))
                    case "write":
                        return to_wire(self._on_write(from_wire(params, Write, peer=self._name)))
                    case "promise" if self._drill is not None:
                        return self._on_promise(self._drill, from_wire(params, Promise, peer=self._name))
                    case "close":
                        return to_wire(self._on_close())
                    case _:
                        raise UnknownCall(peer=self._name, call=method)
        except CasoError as error:
            self.failure = self.failure or error
            self._desk.waiting.notify()
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Several may be in here; ``stop`` waits for them."""
        with self._quiet:
            self._check_going()
            self._writers += 1
        try:
            yield
        finally:
            with self._quiet:
                self._writers -= 1
                self._quiet.notify_all()

    def _on_keyed(self, keyed: Keyed) -> None:
        if len(keyed.id_key) != ID_KEY_SIZE or self._target is not None:
            raise self._fault("it names no key, or names it late")
        self._id_key = keyed.id_key
        if self._drill is not None:
            self._drill.id_key = keyed.id_key

    def _on_begin(self, begin: Begin) -> Begun:
        entries: list[tuple[bytes, Entry]] = []
        for root, group in begin.entries:
            for packed in group:
                try:
                    entry = _decode(packed)
                except msgspec.MsgspecError as error:
                    raise PeerMalformed(peer=self._name, detail=str(error)) from error
                self._check(root, entry)
                entries.append((root, entry))
        if self._target is None:
            if self._into_command:
                self._target = CommandTarget(self._task, self._desk, self._check_going)
            elif self._drill is not None:
                self._target = DrillTarget(self._drill)
            else:
                self._target = FolderTarget(self._task, self._desk)
                if self._hands is not None:
                    self._hands.begin(on_made=self._made, on_undone=self._undone, on_exception=self._desk.exception)
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
                if path is not None and above(self._paths, path) is None:
                    raise self._fault(f"{path!r} is not among what is to be restored")

    def _on_record(self, record: Record) -> Taken:
        target = self._open()
        parts = parts_of(record.parts, record.paths, record.offsets, self._name)
        for _, offset, length, where in parts:
            if not length or offset + length > record.raw:
                raise self._fault("a record holds impossible pieces")
            for path, at in where:
                self._check_place(path, at, length)
        try:
            raw = memoryview(unpack(record.flags, record.payload, record.raw, MAX_RECORD, name="a record on its way"))
        except DataDamaged:
            # as it lies in the device: the other end looks for another copy
            return Taken(tuple(chunk for chunk, _, _, _ in parts))
        wrong: list[bytes] = []
        handful = Handful(self._hands) if self._hands is not None and isinstance(target, FolderTarget) else None
        for chunk, offset, length, where in parts:
            data = raw[offset : offset + length]
            if chunk_id(self._id_key, data) != chunk:
                wrong.append(chunk)
                continue
            for path, at in where:
                with self._stripes[hash(path) % _STRIPES]:
                    if handful is None or length >= LONG or not self._hand(handful, path, length, data):
                        self._write(target, path, at, data)
        if handful is not None:
            handful.send()
        return Taken(tuple(wrong))

    def _hand(self, handful: Handful, path: bytes, length: int, data: memoryview) -> bool:
        """Has a small file made by a hand, if ``data`` is all of it and nothing of it is here yet."""
        entry = self._entry(path)
        if entry.size != length or entry.holes or path in self._handed or path in self._pieced:
            return False
        assert isinstance(self._target, FolderTarget)
        place = self._target.lend(entry)
        if place is None or not handful.take(entry, place, data):
            return False
        self._handed.add(path)
        return True

    def _made(self, entries: list[Entry]) -> None:
        assert isinstance(self._target, FolderTarget)
        self._target.made(entries)
        self._desk.tally.read(sum(entry.size for entry in entries))

    def _undone(self, entry: Entry, content: memoryview) -> None:
        assert isinstance(self._target, FolderTarget)
        self._target.put(entry, content)
        self._desk.tally.read(len(content))

    def _write(
        self, target: FolderTarget | CommandTarget | DrillTarget, path: bytes, at: int, data: memoryview
    ) -> None:
        if path in self._handed:
            raise self._fault(f"it writes {path!r}, all of which it sent before")
        self._pieced.add(path)
        target.write(path, at, data)
        self._desk.tally.read(len(data))

    def _check_place(self, path: bytes, at: int, length: int) -> None:
        entry = self._entry(path)
        if entry.type is not EntryType.FILE or entry.hardlink is not None:
            raise self._fault(f"it writes into {path!r}, which is no file of its own")
        if at < 0 or at + length > entry.size:
            raise self._fault(f"it writes beyond the end of {path!r}")

    def _on_write(self, write: Write) -> Written:
        target = self._open()
        if write.pieces and not self._into_command:
            raise self._fault("it writes content without ids")
        for path, offset, data in write.pieces:
            self._check_place(path, offset, len(data))
            target.write(path, offset, data)
            self._desk.tally.read(len(data))
        for path in write.finish:
            entry = self._entry(path)
            if path in self._handed:
                self._handed.discard(path)
            else:
                target.finish(entry)
            self._forget(path)
        for path in write.abort:
            if path in self._handed:
                raise self._fault(f"it gives up {path!r}, all of which it sent before")
            if path in self._begun:
                target.abort(path)
                self._forget(path)
        return Written(self._give())

    def _forget(self, path: bytes) -> None:
        del self._begun[path]
        self._pieced.discard(path)

    def _on_promise(self, drill: Drill, promise: Promise) -> None:
        try:
            drill.take_promise(promise)
        except msgspec.MsgspecError as error:
            raise PeerMalformed(peer=self._name, detail=str(error)) from error

    def _on_close(self) -> Written:
        if isinstance(self._target, DrillTarget):
            self._target.finished = True
        if self._hands is not None:
            self._hands.settle()
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

    def _open(self) -> FolderTarget | CommandTarget | DrillTarget:
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
        with self._exceptions_lock:
            given, self._exceptions = self._exceptions, []
            return tuple(given)

    def _except(self, exceptions: tuple[SourceException, ...]) -> None:
        with self._exceptions_lock:
            self._exceptions.extend(exceptions)

    def _fault(self, detail: str) -> PeerFault:
        return PeerFault(peer=self._name, detail=detail)
