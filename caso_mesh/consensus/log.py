"""The log in memory: from the last compaction to its end, with what is durable, committed and applied of it.

All of it that is not compacted away is held, because the state machine compacts it often; a member that is further
behind gets a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence

from caso_mesh.consensus.messages import Image
from caso_mesh.consensus.port import Entry
from caso_mesh.model.errors import LogContradicted, Misuse

#: What an entry costs beside its data, in bytes.
OVERHEAD = 32


def size_of(entries: Sequence[Entry]) -> int:
    """Bytes that they cost in a message."""
    return sum(len(entry.data) + OVERHEAD for entry in entries)


def payload_of(entries: Sequence[Entry]) -> int:
    """Bytes of what was proposed. A no-op has none."""
    return sum(len(entry.data) for entry in entries)


class Log:
    """Indexes: entries up to ``start`` are gone, ``durable`` and ``handed`` bound what is on the disk and what was given
    to it to write; ``applied`` <= ``committed`` <= ``last``."""

    def __init__(self, node: str, start: int, start_term: int, entries: Sequence[Entry] = (), applied: int = 0) -> None:
        self._node = node
        self.start, self._start_term = start, start_term
        self._entries = list(entries)
        self.durable = self.handed = self.last
        self.committed = self.applied = max(start, applied)
        #: A snapshot that was received and is not yet durable.
        self.pending: Image | None = None
        self.pending_handed = False

    @property
    def last(self) -> int:
        return self.start + len(self._entries)

    @property
    def first(self) -> int:
        return self.start + 1

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._start_term

    def term(self, index: int) -> int | None:
        """The term of the entry at ``index``; ``None`` if it is gone, or not there yet."""
        if index == self.start:
            return self._start_term
        if self.start < index <= self.last:
            return self._entries[index - self.start - 1].term
        return None

    def has(self, index: int, term: int) -> bool:
        return self.term(index) == term

    def up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends like this is at least as complete as this one."""
        return (term, index) >= (self.last_term, self.last)

    def slice(self, first: int, last: int, max_bytes: int, max_entries: int) -> tuple[Entry, ...]:
        """Entries from ``first`` to ``last``, as many as fit, but at least one if there is one. ``Misuse`` if the first
        is gone."""
        if first <= self.start:
            raise Misuse(f"entry {first} was compacted away; the log begins with {self.first}")
        begin, end = first - self.start - 1, min(last, self.last) - self.start
        end = min(end, begin + max_entries)
        size = 0
        for at in range(begin, end):
            size += len(self._entries[at].data) + OVERHEAD
            if size > max_bytes and at > begin:
                end = at
                break
        return tuple(self._entries[begin:end])

    def append(self, entries: Sequence[Entry], *, halt: bool = True) -> None:
        """Put ``entries`` at their places; what was there and after them goes.

        Raises ``LogContradicted`` if that would drop what is committed, unless ``halt`` is false.
        """
        if not entries:
            return
        first = entries[0].index
        if first <= self.committed and halt:
            raise LogContradicted(
                server=self._node, detail=f"entry {first} would be replaced, but {self.committed} are committed"
            )
        if not self.start < first <= self.last + 1:
            raise Misuse(f"entry {first} does not follow a log from {self.first} to {self.last}")
        del self._entries[first - self.start - 1 :]
        self._entries.extend(entries)
        self.handed = min(self.handed, first - 1)
        self.durable = min(self.durable, first - 1)
        self.committed = min(self.committed, self.last)
        self.applied = min(self.applied, self.last)

    def first_conflict(self, entries: Sequence[Entry]) -> int | None:
        """Where in ``entries`` the first one is that this log has not, or has otherwise; ``None`` if it has all."""
        for at, entry in enumerate(entries):
            if not self.has(entry.index, entry.term):
                return at
        return None

    def meeting_point(self, index: int, term: int) -> tuple[int, int]:
        """The last place up to ``index`` whose term is at most ``term``, and its term; 0 if that is not known.

        A log with ``term`` at ``index`` cannot be the same beyond it, because terms only rise in a log.
        """
        while index > 0:
            own = self.term(index)
            if own is None:
                return index, 0
            if own <= term:
                return index, own
            index -= 1
        return 0, 0

    def commit(self, index: int) -> None:
        """Everything up to ``index`` is committed. Raises ``LogContradicted`` if this log has not got so far."""
        if index <= self.committed:
            return
        if index > self.last:
            raise LogContradicted(
                server=self._node, detail=f"{index} are committed, but it ends at {self.last}: it was cut or lost"
            )
        self.committed = index

    def apply(self, index: int) -> None:
        if not self.applied <= index <= self.committed:
            raise Misuse(f"{index} cannot be applied after {self.applied}, with {self.committed} committed")
        self.applied = index

    def restore(self, image: Image) -> None:
        """Begin anew from a snapshot, which is to be made durable."""
        self.start, self._start_term = image.index, image.term
        self._entries.clear()
        self.durable = self.handed = self.committed = image.index
        self.pending, self.pending_handed = image, False

    def compact(self, index: int) -> None:
        """Entries up to ``index``, which must be applied, go."""
        if index <= self.start:
            return
        if index > self.applied:
            raise Misuse(f"entries up to {index} cannot go, {self.applied} are applied")
        term = self.term(index)
        assert term is not None
        del self._entries[: index - self.start]
        self.start, self._start_term = index, term

    def to_write(self) -> tuple[Entry, ...]:
        return tuple(self._entries[self.handed - self.start :])

    def to_apply(self, max_bytes: int, max_entries: int) -> tuple[Entry, ...]:
        """What is committed and not applied; nothing while a snapshot is on its way to the disk."""
        if self.pending is not None or self.applied >= self.committed:
            return ()
        return self.slice(self.applied + 1, self.committed, max_bytes, max_entries)

    def hand(self) -> None:
        """What was to be written has been given to the disk."""
        self.handed = self.last
        self.pending_handed = self.pending is not None

    def written(self) -> None:
        """The disk has all that it was given, as far as it is still part of the log."""
        self.durable = self.handed
        if self.pending is not None and self.pending_handed:
            image, self.pending, self.pending_handed = self.pending, None, False
            self.apply(max(self.applied, image.index))
