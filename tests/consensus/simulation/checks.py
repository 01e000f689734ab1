"""What must hold after every step, whatever breaks (Ongaro's thesis, figure 3.2, and what clients were promised)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from consensus.simulation.history import Operation, not_linearizable

from caso_mesh.consensus.port import Entry
from caso_mesh.consensus.quorum import majority

if TYPE_CHECKING:
    from consensus.simulation.node import Node


class Violation(Exception):
    """A promise was broken. ``promise`` names it."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


class Checks:
    """One lineage: simulated meshes are never rebuilt by hand."""

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[int | None, Entry]] = {}
        self._committed: dict[int, int] = {}
        self._reached_in_term: dict[int, int] = {}
        self._applied: dict[int, Entry] = {}
        #: A disk was put back: what its node confirmed may be gone until it is found behind.
        self.disks_in_doubt: set[str] = set()
        #: Only what a node had applied itself must stay: everything else is outside the promise.
        self.only_own_past = False

    def stepped(self, node: Node, nodes: dict[str, Node]) -> None:
        """Called after anything that happened at ``node``."""
        core = node.core
        assert core is not None
        if core.role == "leader" and not node.led_before(core.term):
            self._elected(node)
        if core.log.committed > node.committed_seen:
            self._commits(node, nodes)

    def written(self, node: Node, entries: Iterable[Entry]) -> None:
        """Log matching: the same term at the same index means the same entry, and the same one before it."""
        if self.only_own_past:
            return
        for entry in entries:
            before = node.disk.term(entry.index - 1)
            known = self._entries.setdefault((entry.index, entry.term), (before, entry))
            if known[1] != entry or (before is not None and known[0] is not None and known[0] != before):
                raise Violation("log matching", f"{node.name} wrote {entry} after term {before}, but there is {known}")

    def applied(self, node: Node, entry: Entry) -> None:
        """State machine safety: nobody applies something else at the same index; nobody goes back."""
        if entry.index != node.applied + 1:
            raise Violation("own past", f"{node.name} applied {entry.index} after {node.applied}")
        known = entry if self.only_own_past else self._applied.setdefault(entry.index, entry)
        if known != entry:
            raise Violation("state machine safety", f"{node.name} applied {entry}, others {known}")

    def end(self, operations: list[Operation], order: list[int]) -> None:
        """At the end of a run: what clients saw was possible, and what was acknowledged is there."""
        problem = not_linearizable(operations, order)
        if problem:
            raise Violation("linearizability", problem)

    def order(self) -> list[int]:
        """The writes in the order in which they were committed."""
        return [int(self._applied[i].data) for i in sorted(self._applied) if self._applied[i].kind == "command"]

    def _elected(self, node: Node) -> None:
        core = node.core
        assert core is not None
        if self.only_own_past:
            return
        other = self._leaders.setdefault(core.term, node.name)
        if other != node.name:
            raise Violation("one leader per term", f"{node.name} and {other} lead in term {core.term}")
        reached = max((index for term, index in self._reached_in_term.items() if term < core.term), default=0)
        if reached > core.log.start and not core.log.has(reached, self._committed[reached]):
            raise Violation("leader completeness", f"{node.name} leads in term {core.term} without entry {reached}")

    def _commits(self, node: Node, nodes: dict[str, Node]) -> None:
        core = node.core
        assert core is not None
        first, last = node.committed_seen + 1, core.log.committed
        node.committed_seen = last
        if self.only_own_past:
            return
        for index in range(max(first, core.log.start), last + 1):
            term = core.log.term(index)
            assert term is not None
            known = self._committed.setdefault(index, term)
            if known != term:
                raise Violation("state machine safety", f"{node.name} committed {term}/{index}, others {known}/{index}")
        if core.role != "leader":
            return
        self._reached_in_term[core.term] = max(self._reached_in_term.get(core.term, 0), last)
        voters = core.membership.voters
        if self.disks_in_doubt.intersection(voters):
            return
        term = self._committed[last]
        holding = sum(1 for voter in voters if nodes[voter].disk.holds(last, term))
        if holding < majority(len(voters)):
            raise Violation("durable at a majority", f"{node.name} committed {term}/{last}, which {holding} hold")
