"""What a leader knows of one member's log, and how much it may send to it."""

from __future__ import annotations

from collections import deque
from typing import Literal

#: ``probe``: one message at a time, until it is known where the logs meet. ``replicate``: ahead of the replies.
#: ``snapshot``: nothing until it has one.
Pace = Literal["probe", "replicate", "snapshot"]


class Inflights:
    """Messages with entries that were not yet confirmed, oldest first: bounded in number and in bytes."""

    def __init__(self, messages: int, size: int) -> None:
        self._messages, self._bytes = messages, size
        self._sent: deque[tuple[int, int]] = deque()
        self._size = 0

    def add(self, last_index: int, size: int) -> None:
        self._sent.append((last_index, size))
        self._size += size

    def confirm(self, index: int) -> None:
        """Everything up to ``index`` has arrived."""
        while self._sent and self._sent[0][0] <= index:
            self._size -= self._sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self._size = 0

    @property
    def full(self) -> bool:
        return len(self._sent) >= self._messages or self._size >= self._bytes

    def __len__(self) -> int:
        return len(self._sent)


class Progress:
    """``match``: up to there the member has confirmed the leader's log. ``next``: what is sent next; always beyond
    ``match``. ``active``: it was heard since the last check. ``paused``: nothing more until it answers."""

    def __init__(self, match: int, next_index: int, inflights: Inflights, *, learner: bool, active: bool) -> None:
        self.match, self.next = match, next_index
        self.inflights = inflights
        self.learner = learner
        self.active = active
        self.pace: Pace = "probe"
        self.pending_snapshot = 0
        self._waits = False
        self._sent_commit = 0

    def probe(self) -> None:
        """Look where the logs meet, one message at a time."""
        beyond = self.pending_snapshot if self.pace == "snapshot" else 0
        self._begin("probe")
        self.next = max(self.match, beyond) + 1
        self._sent_commit = min(self._sent_commit, self.next - 1)

    def replicate(self) -> None:
        """The logs meet at ``match``: go on from there without waiting for replies."""
        self._begin("replicate")
        self.next = self.match + 1

    def wait_for_snapshot(self, index: int) -> None:
        self._begin("snapshot")
        self.pending_snapshot = index
        self.next = index + 1
        self._sent_commit = index

    def snapshot_done(self, *, arrived: bool) -> None:
        """It was handed over, or it was not; either way its next word is awaited before anything is sent."""
        if not arrived:
            self.pending_snapshot = 0
        self.probe()
        self._waits = True

    def sent(self, entries: int, size: int, commit: int) -> None:
        """A message with so many entries has left."""
        if self.pace == "replicate":
            if entries:
                self.next += entries
                self.inflights.add(self.next - 1, size)
            self._waits = self.inflights.full
        elif entries:
            self._waits = True
        self._sent_commit = commit

    def sent_commit(self, commit: int) -> None:
        self._sent_commit = commit

    def heard(self) -> None:
        """It answers, so one more message may be tried."""
        self.active = True
        self._waits = False

    def lacks_commit(self, commit: int) -> bool:
        """Whether telling it that ``commit`` is committed would be news that it can use."""
        return commit > self._sent_commit and self._sent_commit < self.next - 1

    def confirm(self, index: int) -> bool:
        """It confirmed up to ``index``. ``False`` if that is nothing new."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self._waits = False
        return True

    def reject(self, index: int, hint: int) -> bool:
        """It refused what follows ``index`` and may have the same log up to ``hint``. ``False`` if that is an old
        refusal, which arrived late."""
        if self.pace == "replicate":
            if index <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != index:
                return False
            self.next = max(min(index, hint + 1), self.match + 1)
            self._waits = False
        self._sent_commit = min(self._sent_commit, self.next - 1)
        return True

    @property
    def paused(self) -> bool:
        return self.pace == "snapshot" or self._waits

    def _begin(self, pace: Pace) -> None:
        self.pace = pace
        self.pending_snapshot = 0
        self._waits = False
        self.inflights.clear()
