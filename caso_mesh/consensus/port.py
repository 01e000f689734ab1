"""What the rest of the program sees of consensus: one log of commands in one order, and who leads.

Every implementation passes the conformance test ``tests/consensus/consensus_conformance.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

from msgspec import Struct

#: Bytes of one command at most.
MAX_COMMAND = 1 << 20
#: Entries up to a snapshot that are kept all the same, for those who are only a little behind.
KEPT_ENTRIES = 1000


class Entry(Struct, frozen=True):
    """One place in the log. Indexes start at 1 and have no gaps. A ``noop`` opens a term and has no data; the data of
    ``membership`` says who takes part in the log and is for ``consensus/`` itself."""

    index: int
    term: int
    kind: Literal["noop", "command", "membership"]
    data: bytes


class Snapshot(Struct, frozen=True):
    """The state machine's whole state after the entry at ``index``, which was of ``term``."""

    index: int
    term: int
    data: bytes


class Position(Struct, frozen=True, order=True):
    """Where a command was committed. Later commands have higher positions."""

    term: int
    index: int


class Leadership(Struct, frozen=True):
    """Who leads, as this node knows it.

    ``lineage`` rises only when a person rebuilds a mesh from what was saved. ``in_office``: this node leads and the
    no-op of its term is committed, so that its state machine, once it has applied that, holds all of the past.
    """

    lineage: int
    term: int
    leader: str | None
    in_office: bool
    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()


Role = Literal["voter", "learner", "none"]


class Consensus(Protocol):
    """One node's share in the replicated log. All iterators end when it is closed."""

    async def propose(self, data: bytes) -> Position:
        """Append a command; returns when it is committed, durably at a majority.

        Up to ``MAX_COMMAND`` bytes, else ``Misuse``. Raises ``NotLeader``, ``LogUnavailable``, ``StateFull``. After
        ``LogUnavailable`` or a cancellation the command may be committed all the same; commands carry a request id.
        """
        ...

    async def read_index(self) -> int:
        """A barrier for linearizable reads: whoever has applied this index sees all that was committed before the
        call. Raises ``NotLeader``, ``LogUnavailable``."""
        ...

    def committed(self, after: int) -> AsyncIterator[Entry | Snapshot]:
        """What is committed beyond index ``after``, in order, without end; each entry once.

        A ``Snapshot`` comes first when ``after`` lies before the log's start, and again whenever the log was compacted
        past a slow reader; what follows it continues at its index. Raises ``StateDamaged`` when an entry is damaged,
        or when ``after`` lies beyond a log that is known to be complete: that log, or the state, is an old copy.
        """
        ...

    async def compact(self, snapshot: Snapshot) -> None:
        """The state machine durably holds the state of ``snapshot``; entries up to it may go, but for the last
        ``KEPT_ENTRIES``. A snapshot older than the one held changes nothing. ``Misuse`` if it is not of this log."""
        ...

    async def set_member(self, node: str, role: Role) -> None:
        """Makes a node a voter (a learner first: see ``lacks``) or a learner, or neither. One change at a time; returns
        when it is applied here. What is so already changes nothing. Raises ``NotLeader``, ``LogUnavailable``,
        ``Conflict`` (another change is under way), ``Misuse`` (no voter would be left)."""
        ...

    async def transfer(self, node: str) -> None:
        """Hands the lead over to a voter; returns when this node does not lead any more. Raises ``NotLeader``,
        ``LogUnavailable`` (it did not come to it), ``Misuse`` (the node is no voter)."""
        ...

    def lacks(self, node: str) -> int | None:
        """How many entries a member is known to lack, while this node leads; ``None`` if that is not known."""
        ...

    def leadership(self) -> Leadership: ...

    def leadership_changes(self) -> AsyncIterator[Leadership]:
        """The present one first, then each change; changes in quick succession may be seen as one."""
        ...


class Replicated(Consensus, Protocol):
    """A share that must be run, and told what other members say. ``preset``: the pace of the voters."""

    preset: str

    @property
    def founders(self) -> tuple[str, ...]:
        """The voters before the first entry that is held: what a new member's empty log begins with."""
        ...

    async def run(self) -> None:
        """Takes part until cancelled. Raises ``StateDamaged``, ``StateFull`` and what else the disk says."""
        ...

    def receive(self, sender: str, lineage: int, data: bytes) -> None:
        """A message of the member ``sender``, as it was given to the transport there. What is of another lineage, or
        malformed, is dropped."""
        ...
