"""The second device of a backup, as the end that reads sees it: what is read goes there as well, in step with the first.

The device's end over there is a worker of its own with an attempt of its own, also on the same server: content crosses as
for any far device (``far_store``). Whatever fails there fails there alone: the first set goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from msgspec import structs

from caso_mesh.jobs import far_sink as wire
from caso_mesh.jobs.bulk import BulkChannel, Meet, NothingToAsk, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.sink import Member, Sink, SinkLane
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import CasoError, LinkLost, PeerMalformed
from caso_mesh.vault.chunking import ID_SIZE
from caso_mesh.wire.codec import from_wire, to_wire

_T = TypeVar("_T")


def second_task(task: Task) -> Task | None:
    """The task of the end that reads, for the second device; ``None`` without one."""
    second = task.order.second
    if second is None or task.second_far is None:
        return None
    order = structs.replace(
        task.order,
        attempt=second.attempt,
        media=second.media,
        device=second.device,
        end="source",
        ticket=second.ticket,
        secret=second.secret,
        second=None,
        beside=task.order.attempt,
    )
    return structs.replace(task, order=order, device=None, far=task.second_far, second_far=None)


class Second:
    """The way to the second device, while nothing has failed there."""

    def __init__(self, task: Task, desk: Desk, channel: BulkChannel) -> None:
        self._desk = desk
        self._channel = channel
        self._task = task
        self._told = wire.Told()
        self._sink: wire.FarSink | None = None
        self.failure: CasoError | None = None
        self.name = far_of(task).name
        self.told = self._told.take

    def attempt(self, do: Callable[[], _T], otherwise: _T) -> _T:
        """``do``, or ``otherwise`` if it fails or anything has before. Raises ``Canceled`` if this end is to end."""
        if self.failure is None and self._desk.alone:
            self.fail(LinkLost(peer=self.name))
        if self.failure is not None:
            return otherwise
        try:
            return do()
        except CasoError as error:
            self._desk.check()  # the other end may be canceled alone
            self.fail(error)
            return otherwise

    def fail(self, error: CasoError) -> None:
        """The first set goes on alone."""
        if self.failure is None:
            self.failure = error
            self._desk.log("error", f"nothing goes to the second device at {self.name} any more: {error.message}")

    def roots(self) -> frozenset[bytes]:
        """The trees of which one set there could be built on."""

        def ask() -> frozenset[bytes]:
            found = from_wire(self._channel.call("roots"), wire.Roots, peer=self.name).ids
            if len(found) % ID_SIZE:
                raise PeerMalformed(peer=self.name, detail="it did not answer what was asked")
            return frozenset(found[at : at + ID_SIZE] for at in range(0, len(found), ID_SIZE))

        return self.attempt(ask, frozenset())

    def begin(self, root: bytes | None) -> None:
        """Both build on the set with that tree, or on none."""

        def ask() -> None:
            among = b"" if root is None else root
            answer = self._channel.call("begin", to_wire(wire.Begin(self._desk.clock.now_ns(), among)))
            base = from_wire(answer, wire.Base, peer=self.name)
            if base.root != root:
                raise PeerMalformed(peer=self.name, detail="it builds on another tree than was said")
            self._sink = wire.FarSink(
                self._channel, self._task.id_key, self.name, asks=base.knows, holds_base=root is not None
            )

        self.attempt(ask, None)

    def beside(self, first: Sink) -> Sink:
        """``first``, with this one beside it."""
        return first if self._sink is None else _Both(first, self._sink, self)

    def report(self) -> wire.Report:
        return wire.Report(self._desk.tally.counts(), self._desk.path, self._told.give())

    def tell(self) -> None:
        """What was done so far."""
        self.attempt(lambda: self._channel.start("report", to_wire(self.report())), None)

    def finish(self, root: bytes, first: str) -> None:
        """The tree is complete, and published as the set ``first``: this one may be, too."""

        def ask() -> str:
            self._channel.drain()
            answer = self._channel.call("finish", to_wire(wire.Finish(root, self.report(), first)))
            return from_wire(answer, wire.Finished, peer=self.name).set

        made = self.attempt(ask, "")
        if made:
            self._desk.log("info", f"the second set {made} is published at {self.name}")


@contextmanager
def second_device(task: Task, desk: Desk, meet: Meet) -> Iterator[Second | None]:
    """``None`` without one, or if it cannot be met: that is said in the log."""
    other = second_task(task)
    if other is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            channel = stack.enter_context(meet(other, desk, NothingToAsk()))
        except CasoError as error:
            desk.check()
            desk.log("error", f"nothing goes to the second device at {far_of(other).name}: {error.message}")
            yield None
            return
        yield Second(other, desk, channel)


def tell_both(
    first: Callable[[tuple[SourceException, ...]], None] | None, second: Second | None, desk: Desk
) -> Callable[[tuple[SourceException, ...]], None] | None:
    """Where exceptions go with a second device: to both of its ends. Without ``first`` they are this daemon's as well."""
    if second is None:
        return first

    def told(exceptions: tuple[SourceException, ...]) -> None:
        (first or desk.tell_exceptions)(exceptions)
        if second.failure is None:
            second.told(exceptions)

    return told


class _Both:
    """Two sinks that are given the same. See ``sink.Sink``."""

    def __init__(self, first: Sink, other: Sink, second: Second) -> None:
        self._first = first
        self._other = other
        self._second = second

    def lane(self) -> SinkLane:
        return _BothLanes(self._first.lane(), self._other.lane(), self._second)

    def store(self, data: bytes) -> bytes:
        self._second.attempt(lambda: self._other.store(data), b"")
        return self._first.store(data)

    def keep(self, ids: Sequence[bytes]) -> bool:
        # the pieces are read and stored anew unless both have them
        return self._second.attempt(lambda: self._other.keep(ids), True) and self._first.keep(ids)


class _BothLanes:
    """For one thread, as any lane."""

    def __init__(self, first: SinkLane, other: SinkLane, second: Second) -> None:
        self._first = first
        self._other = other
        self._second = second
        #: What was wanted by each and is not added yet.
        self._for_first: set[bytes] = set()
        self._for_other: set[bytes] = set()

    def want(self, ids: Sequence[bytes]) -> list[bool]:
        first = self._first.want(ids)
        other = self._second.attempt(lambda: self._other.want(ids), [False] * len(ids))
        self._for_first.update(chunk for chunk, wanted in zip(ids, first, strict=True) if wanted)
        self._for_other.update(chunk for chunk, wanted in zip(ids, other, strict=True) if wanted)
        asked: set[bytes] = set()
        wants = []
        for chunk, one, two in zip(ids, first, other, strict=True):
            # of one that is there twice either lane wants the first: it is added once, for both
            wants.append((one or two) and chunk not in asked)
            if one or two:
                asked.add(chunk)
        return wants

    def add(self, chunk: bytes, view: memoryview) -> None:
        if chunk in self._for_other:
            self._for_other.discard(chunk)
            self._second.attempt(lambda: self._other.add(chunk, view), None)
        if chunk in self._for_first:
            self._for_first.discard(chunk)
            self._first.add(chunk, view)

    def add_bundle(self, view: memoryview, members: Sequence[Member]) -> None:
        for_other = _taken(self._for_other, members)
        if for_other:
            self._second.attempt(lambda: self._other.add_bundle(*_cut(view, members, for_other)), None)
        for_first = _taken(self._for_first, members)
        if for_first:
            self._first.add_bundle(*_cut(view, members, for_first))


def _taken(wanted: set[bytes], members: Sequence[Member]) -> list[Member]:
    """Those that are wanted, which they are no more."""
    mine = [member for member in members if member[0] in wanted]
    wanted.difference_update(member[0] for member in mine)
    return mine


def _cut(view: memoryview, members: Sequence[Member], mine: Sequence[Member]) -> tuple[memoryview, Sequence[Member]]:
    """Some members of a bundle, as one of their own."""
    if len(mine) == len(members):
        return view, members
    parts, kept, at = [], [], 0
    for chunk, offset, length in mine:
        parts.append(view[offset : offset + length])
        kept.append((chunk, at, length))
        at += length
    return memoryview(b"".join(parts)), kept
