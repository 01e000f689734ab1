"""Hands: processes beside a worker that make small files for it.

Making a file is many short calls of the system, between which a process of Python lets no other of its threads run. A
worker that restores forks its hands while it has no threads yet. What they are to write lies in memory that both share;
they open no device, reach folders by the handle of the base that they are given, and die with the worker.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import NoReturn, Self

import msgspec
from msgspec import Struct

from caso_mesh.model.entries import Entry, SourceException
from caso_mesh.model.errors import WorkerDied
from caso_mesh.sources import reasons
from caso_mesh.sources.apply import Applier
from caso_mesh.sources.filing import LEFT, Filer
from caso_mesh.sources.handles import Handles

#: From so many bytes on a file is better made by the thread that has its content.
LONG = 128 * 1024
#: Bytes of files that one hand is given at once, and files.
BATCH_BYTES, BATCH_FILES = 2 * 1024 * 1024, 256
#: What describes those files, in bytes.
_WORDS_BYTES = 1024 * 1024
#: What ``_Made`` takes at most beside the bytes in it, and the list of them.
_FRAME = 64
_SLOT = BATCH_BYTES + _WORDS_BYTES
#: Batches of each hand: one that it is at, and those that wait for it.
_QUEUED = 3
#: Batches that are being gathered.
_GATHERED = 3
_MOST = 4
_MESSAGE_BYTES = 256 * 1024
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


class Base(Struct, frozen=True):
    """An open folder of this process, and whether what is made below it gets its owners."""

    fd: int
    ownership: bool


#: Where a file goes: a base, the path of a folder below it, and a name.
Place = tuple[Base, bytes, bytes]


class _Made(Struct, frozen=True, array_like=True):
    """A file to make, its content from ``offset`` on in the batch; its entry in msgpack."""

    entry: bytes
    folder: bytes
    name: bytes
    offset: int
    size: int


class _Open(Struct, frozen=True, tag="open"):
    """Comes with a descriptor: from now on ``number`` is this folder."""

    number: int
    ownership: bool


class _Work(Struct, frozen=True, tag="work"):
    slot: int
    base: int
    words: int


class _Done(Struct, frozen=True, tag="done"):
    """``undone``: files that could not be made, of which nothing is there."""

    slot: int
    undone: tuple[int, ...]


class _Lost(Struct, frozen=True, tag="lost"):
    exception: SourceException


_encode = msgspec.msgpack.Encoder().encode
_decode_order = msgspec.msgpack.Decoder(_Open | _Work).decode
_decode_answer = msgspec.msgpack.Decoder(_Done | _Lost).decode
_decode_files = msgspec.msgpack.Decoder(list[_Made]).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Batch:
    """Files for a hand while they are gathered, by one thread; all below one base."""

    def __init__(self, slot: int, memory: memoryview, base: Base) -> None:
        self.slot = slot
        self.base = base
        self.entries: list[Entry] = []
        #: What a ``_Made`` has.
        self._files: list[tuple[bytes, bytes, bytes, int, int]] = []
        self._memory = memory
        self._at, self._words = 0, _FRAME

    def take(self, entry: Entry, place: Place, data: bytes | memoryview) -> bool:
        """False: there is no room for it here, in an empty one for nobody to have."""
        base, folder, name = place
        described = _encode(entry)
        at, size = self._at, len(data)
        end = at + size
        words = self._words + len(described) + len(folder) + len(name) + _FRAME
        if end > BATCH_BYTES or words > _WORDS_BYTES or len(self.entries) == BATCH_FILES or base is not self.base:
            return False
        self._memory[at:end] = data
        self.entries.append(entry)
        self._files.append((described, folder, name, at, size))
        self._at, self._words = end, words
        return True

    def content(self, number: int) -> memoryview:
        """Of the file that came as that number."""
        _, _, _, offset, size = self._files[number]
        return self._memory[offset : offset + size]

    def describe(self) -> int:
        """Puts what is to be made behind its content; the bytes that takes."""
        words = _encode(self._files)
        self._memory[BATCH_BYTES : BATCH_BYTES + len(words)] = words
        return len(words)


class Handful:
    """Files for hands, gathered by one thread into one batch after the other. ``send`` at last."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._batch: Batch | None = None

    def take(self, entry: Entry, place: Place, data: bytes | memoryview) -> bool:
        """False: no batch has room for it. Raises as ``Hands.batch``."""
        if self._batch is not None and self._batch.take(entry, place, data):
            return True
        self.send()
        self._batch = self._hands.batch(place[0])
        return self._batch.take(entry, place, data)

    def send(self) -> None:
        """Has what was gathered made. Raises as ``Hands.batch``."""
        batch, self._batch = self._batch, None
        if batch is not None:
            self._hands.send(batch)


class _Hand:
    """One of the processes, as the worker sees it."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.socket = sock
        self.bases: dict[Base, int] = {}
        self.queued = 0

    def heard(self) -> bytes:
        """What it says next; nothing once it has gone."""
        try:
            return self.socket.recv(_MESSAGE_BYTES)
        except ConnectionError:
            return b""


class Hands:
    """The hands of one worker, at first idle. ``begin``, then batches from any thread, then ``settle``; a context
    manager that ends them."""

    def __init__(self, attempt: str, count: int, *, closing: Iterable[socket.socket] = ()) -> None:
        """Forks ``count`` processes; ``closing`` are sockets that they do not keep. The caller has one thread."""
        self._attempt = attempt
        slots = count * _QUEUED + _GATHERED
        self._memory = memoryview(mmap.mmap(-1, slots * _SLOT))
        self._free = list(range(slots))
        self._batches: dict[int, Batch] = {}
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._hands: list[_Hand] = []
        parent = os.getpid()
        for _ in range(count):
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
            if not pid:
                _child(theirs, self._memory, parent, [mine, *closing, *(hand.socket for hand in self._hands)])
            theirs.close()
            self._hands.append(_Hand(pid, mine))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(
        self,
        *,
        on_made: Callable[[list[Entry]], None],
        on_undone: Callable[[Entry, memoryview], None],
        on_exception: Callable[[SourceException], None],
    ) -> None:
        """Each of these is called from a thread of the hands': files are there; a hand could not make a file, whose
        content it is; something of a file that is there is not as it was."""

        def listen(hand: _Hand) -> None:
            try:
                while answer := hand.heard():
                    told = _decode_answer(answer)
                    if isinstance(told, _Lost):
                        on_exception(told.exception)
                        continue
                    batch = self._batches[told.slot]
                    made = batch.entries
                    if told.undone:
                        undone = frozenset(told.undone)
                        made = [entry for number, entry in enumerate(made) if number not in undone]
                        for number in told.undone:
                            on_undone(batch.entries[number], batch.content(number))
                    on_made(made)
                    self._back(hand, batch)
                self._fail(WorkerDied(attempt=self._attempt, detail="a process that writes files for it ended"))
            except BaseException as error:  # it is raised where somebody waits
                self._fail(error)

        for number, hand in enumerate(self._hands):
            thread = threading.Thread(target=listen, args=(hand,), name=f"hand-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def batch(self, base: Base) -> Batch:
        """An empty one; waits until there is room for it. Raises ``WorkerDied``, and what ``on_undone`` raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._failure is not None)
            self._check()
            slot = self._free.pop()
            begin = slot * _SLOT
            batch = self._batches[slot] = Batch(slot, self._memory[begin : begin + _SLOT], base)
            return batch

    def send(self, batch: Batch) -> None:
        """Has the files of a batch made. Raises as ``batch``."""
        words = batch.describe()
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure is not None or any(hand.queued < _QUEUED for hand in self._hands)
            )
            self._check()
            hand = min(self._hands, key=lambda hand: hand.queued)
            hand.queued += 1
            # in here, so that what a hand hears of a base comes before its first work there
            try:
                base = batch.base
                number = hand.bases.get(base)
                if number is None:
                    number = hand.bases[base] = len(hand.bases)
                    socket.send_fds(hand.socket, [_encode(_Open(number, base.ownership))], [base.fd])
                hand.socket.send(_encode(_Work(batch.slot, number, words)))
            except OSError as error:
                raise WorkerDied(
                    attempt=self._attempt, detail=f"a process that writes files for it cannot be told: {error.strerror}"
                ) from error

    def settle(self) -> None:
        """Until all that was sent is done. Raises as ``batch``."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or not any(hand.queued for hand in self._hands))
            self._check()

    def close(self) -> None:
        """Ends them, after the files that they are at, and waits for that. May be repeated."""
        hands, self._hands = self._hands, []
        for hand in hands:
            try:
                hand.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already
        for hand in hands:
            os.waitpid(hand.pid, 0)
        for thread in self._threads:
            thread.join()
        for hand in hands:
            hand.socket.close()

    def _back(self, hand: _Hand, batch: Batch) -> None:
        with self._changed:
            hand.queued -= 1
            del self._batches[batch.slot]
            self._free.append(batch.slot)
            self._changed.notify_all()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()


def hands_for(attempt: str, *, closing: Iterable[socket.socket] = ()) -> Hands | None:
    """As many as this machine has processors for; none if there is only one."""
    processors = len(os.sched_getaffinity(0))
    return Hands(attempt, min(_MOST, processors), closing=closing) if processors > 1 else None


# --- in a hand ---


def _child(sock: socket.socket, memory: memoryview, parent: int, closing: Sequence[socket.socket]) -> NoReturn:
    status = 1
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)
        _LIBC.prctl(_PR_SET_NAME, b"caso-hand", 0, 0, 0)
        gc.freeze()
        for each in closing:
            each.close()
        _serve(sock, memory)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


class _Below:
    """A base folder as a hand has it."""

    def __init__(self, base: int, ownership: bool) -> None:
        self.lost: list[SourceException] = []
        self._handles = Handles(base, lambda path, folder: None)
        self._filer = Filer(Applier(ownership=ownership, on_exception=self.lost.append), self.lost.append)

    def make(self, file: _Made, content: memoryview) -> bool:
        """False: nothing of it is there."""
        before = len(self.lost)
        try:
            folder = self._handles.get(file.folder)
            if self._filer.make(_decode_entry(file.entry), folder, file.name, content) is not None:
                return True
        except reasons.IMPOSSIBLE:
            pass  # the worker tries again, and tells what is wrong
        self.lost[before:] = [each for each in self.lost[before:] if each.reason == LEFT]
        return False


def _serve(sock: socket.socket, memory: memoryview) -> None:
    """Until the worker has gone."""
    below: dict[int, _Below] = {}
    try:
        while True:
            message, descriptors, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, 1)
            if not message:
                return
            order = _decode_order(message)
            if isinstance(order, _Open):
                below[order.number] = _Below(descriptors[0], order.ownership)
                continue
            begin = order.slot * _SLOT
            words = begin + BATCH_BYTES
            base = below[order.base]
            undone = [
                number
                for number, file in enumerate(_decode_files(memory[words : words + order.words]))
                if not base.make(file, memory[begin + file.offset : begin + file.offset + file.size])
            ]
            for exception in base.lost:
                sock.send(_encode(_Lost(exception)))
            base.lost.clear()
            sock.send(_encode(_Done(order.slot, tuple(undone))))
    except ConnectionError:
        return
