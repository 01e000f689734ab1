"""A disk of a simulated node: transactions are whole or absent, and older copies of it can be put back."""

from __future__ import annotations

from caso_mesh.consensus.log import Log
from caso_mesh.consensus.membership import Membership, apply_changes, decode_change
from caso_mesh.consensus.messages import Image
from caso_mesh.consensus.port import Entry, Position
from caso_mesh.consensus.raft import HardState, Ready
from caso_mesh.consensus.witness import NOTHING

#: Entries up to a snapshot that are kept.
KEPT = 5


class Disk:
    def __init__(self, image: Image | None) -> None:
        self.hard = HardState()
        self.confirmed = NOTHING
        self.image = image
        self.start, self.start_term = (image.index, image.term) if image else (0, 0)
        self.entries: list[Entry] = []
        self.seen: dict[str, Position] = {}

    def write(self, ready: Ready | None, seen: dict[str, Position], *, vote_with_term: bool = True) -> None:
        """One transaction."""
        self.seen.update(seen)
        if ready is None:
            return
        if ready.snapshot is not None:
            self.image = ready.snapshot
            self.start, self.start_term, self.entries = ready.snapshot.index, ready.snapshot.term, []
        if ready.entries:
            del self.entries[ready.entries[0].index - self.start - 1 :]
            self.entries.extend(ready.entries)
        if ready.confirms is not None:
            self.confirmed = ready.confirms
        if ready.hard is not None:
            old = self.hard
            self.hard = ready.hard
            if not vote_with_term and ready.hard.term != old.term:
                self.hard = HardState(ready.hard.term, old.vote, ready.hard.commit)

    def compact(self, image: Image) -> None:
        self.image = image
        first = max(self.start, image.index - KEPT)
        term = self.term(first)
        assert term is not None
        del self.entries[: first - self.start]
        self.start, self.start_term = first, term

    def term(self, index: int) -> int | None:
        if index == self.start:
            return self.start_term
        if self.start < index <= self.start + len(self.entries):
            return self.entries[index - self.start - 1].term
        return None

    def holds(self, index: int, term: int) -> bool:
        return index < self.start or self.term(index) == term

    def log(self, node: str) -> Log:
        applied = self.image.index if self.image else 0
        return Log(node, self.start, self.start_term, self.entries, applied)

    def membership(self) -> Membership:
        """As of the snapshot."""
        return self.image.membership if self.image else Membership()

    def known_membership(self) -> Membership:
        """As of what is known to be committed."""
        found = self.membership()
        applied = self.image.index if self.image else 0
        for entry in self.entries:
            if entry.kind == "membership" and applied < entry.index <= self.hard.commit:
                found = apply_changes(found, decode_change(entry.data).changes)
        return found

    def copy(self) -> Disk:
        other = Disk(self.image)
        other.hard, other.confirmed = self.hard, self.confirmed
        other.start, other.start_term, other.entries = self.start, self.start_term, list(self.entries)
        other.seen = dict(self.seen)
        return other
