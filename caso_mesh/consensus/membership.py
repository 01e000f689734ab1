"""Who takes part in the replicated log: voters decide, learners only receive."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from caso_mesh.consensus.port import Entry
from caso_mesh.model.errors import Misuse

ChangeKind = Literal["add-voter", "add-learner", "remove", "note"]


class Membership(Struct, frozen=True):
    """Sorted ids; nobody is both."""

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()

    def __contains__(self, node: str) -> bool:
        return node in self.voters or node in self.learners

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted(self.voters + self.learners))


class Change(Struct, frozen=True):
    """One step. ``add-voter`` also promotes a learner, ``add-learner`` also demotes a voter; ``note`` changes nothing:
    it only brings its context to everybody."""

    kind: ChangeKind
    node: str


class MembershipChange(Struct, frozen=True):
    """What one entry of the log changes: at most one voter. ``context`` is the proposer's, not read here."""

    changes: tuple[Change, ...]
    context: bytes = b""


def apply_changes(membership: Membership, changes: tuple[Change, ...]) -> Membership:
    """The membership afterwards.

    ``Misuse`` when no voter would be left, or when more than one voter would change: only the majorities of two
    memberships that differ by one voter are sure to meet.
    """
    voters, learners = set(membership.voters), set(membership.learners)
    for change in changes:
        if not change.node or change.kind == "note":
            continue
        voters.discard(change.node)
        learners.discard(change.node)
        if change.kind == "add-voter":
            voters.add(change.node)
        elif change.kind == "add-learner":
            learners.add(change.node)
    if not voters:
        raise Misuse("removed all voters")
    if len(voters.symmetric_difference(membership.voters)) > 1:
        raise Misuse("more than one voter changed at once")
    return Membership(tuple(sorted(voters)), tuple(sorted(learners)))


def encode_change(change: MembershipChange) -> bytes:
    return msgspec.msgpack.encode(change)


def decode_change(data: bytes) -> MembershipChange:
    """Raises ``msgspec.DecodeError`` for what ``encode_change`` did not write."""
    return msgspec.msgpack.decode(data, type=MembershipChange)


class Members:
    """Who took part at each place of a log, as far back as its entries go: after ``index`` it was ``first``."""

    def __init__(self, index: int, first: Membership) -> None:
        self._since = [(index, first)]

    @property
    def first(self) -> Membership:
        return self._since[0][1]

    @property
    def now(self) -> Membership:
        return self._since[-1][1]

    def note(self, entry: Entry) -> None:
        """An entry of kind ``membership`` was applied."""
        self._since.append((entry.index, apply_changes(self.now, decode_change(entry.data).changes)))

    def at(self, index: int) -> Membership:
        """After the entry at ``index``."""
        return next((held for since, held in reversed(self._since) if since <= index), self.first)
