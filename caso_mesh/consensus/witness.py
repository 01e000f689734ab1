"""Disks that were put back to an older copy: what a member has confirmed is remembered by the others.

A member that lost what it had confirmed, or a vote that it had given, could help to elect a leader that lacks what is
committed. So each member keeps, durably, the highest position that each other one ever confirmed, as far as it heard of
it (``Witness``); the leader, who hears most, spreads what it knows. A member that starts takes part in nothing until a
majority of the voters, itself counted as one, has answered that it holds all that it confirmed (``Probation``), and the others
had time to answer as well: of three voters the one that heard nothing of the entry may be the first to answer. It goes on
asking them. One that is behind never takes part again under its id.

What a member has confirmed is a ``Position``: the term it confirmed in, and up to which index; a vote is the term with
index 0. It writes its own, ``Ready.confirms``, in the same transaction as what it confirms.

Beyond this promise: a disk that was put back while everybody who witnessed what it lost is away as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from caso_mesh.consensus.membership import Membership
from caso_mesh.consensus.messages import AppendReply, Message, VoteReply
from caso_mesh.consensus.port import Position
from caso_mesh.consensus.quorum import majority

#: Election timeouts that voters have to answer in, who are not needed for a majority. Where one of them is gone, a member that
#: starts takes part later by so much.
PATIENCE = 3
#: Who has confirmed nothing yet.
NOTHING = Position(0, 0)


class Ask(Struct, frozen=True, tag="witness-ask"):
    """The sender starts: what has it confirmed before?"""

    to: str
    sender: str


class Answer(Struct, frozen=True, tag="witness-answer"):
    """``seen``: what the sender saw the asker confirm. ``membership`` as of ``applied``, since the asker may not know
    who takes part by now."""

    to: str
    sender: str
    seen: Position
    applied: int
    membership: Membership


class Seen(Struct, frozen=True, tag="witness-seen"):
    """What the sender, a leader, saw each member confirm."""

    to: str
    sender: str
    seen: dict[str, Position]


WitnessMessage = Ask | Answer | Seen


def promise_of(message: Message) -> Position | None:
    """What the sender of a message thereby confirms, if anything."""
    if isinstance(message, AppendReply) and not message.rejected and message.index:
        return Position(message.term, message.index)
    if isinstance(message, VoteReply) and message.granted and not message.pre:
        return Position(message.term, 0)
    return None


class Witness:
    """What each member was seen to confirm. ``seen`` is what the disk holds of it."""

    def __init__(self, node: str, seen: Mapping[str, Position] | None = None) -> None:
        self._node = node
        self._seen = dict(seen or {})
        self._unwritten: dict[str, Position] = {}

    def saw(self, node: str, position: Position) -> None:
        """``node`` confirmed ``position``; called for this node itself, too, when that is durable."""
        if position > self._seen.get(node, NOTHING):
            self._seen[node] = self._unwritten[node] = position

    def heard(self, message: Message) -> None:
        """A message has arrived. Call it for each, before the core steps it in."""
        promise = promise_of(message)
        if promise is not None:
            self.saw(message.sender, promise)

    def merge(self, told: Seen) -> None:
        for node, position in told.seen.items():
            if node != self._node:
                self.saw(node, position)

    def of(self, node: str) -> Position:
        return self._seen.get(node, NOTHING)

    def answer(self, ask: Ask, applied: int, membership: Membership) -> Answer:
        """To be sent, also while this node is itself on probation."""
        return Answer(ask.sender, self._node, self.of(ask.sender), applied, membership)

    def tell(self, membership: Membership) -> list[Seen]:
        """What a leader sends to the others; now and then, as a heartbeat's companion."""
        seen = {node: position for node, position in self._seen.items() if node in membership}
        return [Seen(node, self._node, seen) for node in membership.nodes if node != self._node]

    def take_unwritten(self) -> dict[str, Position]:
        """What the disk does not hold yet; the next transaction writes it."""
        found, self._unwritten = self._unwritten, {}
        return found

    def forget(self, before: Membership, now: Membership) -> list[str]:
        """Drop those who take part no more, and those who begin: what was heard of them after they had left, since it
        was on its way, is of a log that they gave up. Their ids, to be removed from the disk."""
        gone = sorted(node for node in self._seen if node != self._node and (node not in now or node not in before))
        for node in gone:
            del self._seen[node]
            self._unwritten.pop(node, None)
        return gone


class Probation:
    """A member that starts. Until ``state`` is ``passed`` it neither ticks nor steps any message of the core; afterwards
    an answer that comes late can still find it behind.

    ``membership``: as the disk knows it. A blank node, which knows of nobody, asks whoever speaks to it: that is the
    leader that admits it. A newcomer, which by its disk takes no part yet, may have had a log under the same id before, and
    given it up: who tells of more than it holds may have that in mind, and is believed when it knows of its part and tells the same
    again.
    """

    def __init__(self, node: str, membership: Membership) -> None:
        self._node = node
        self._membership, self._applied = membership, -1
        self._answered: dict[str, Position] = {}
        self._speakers: set[str] = set()
        self._newcomer = node not in membership
        self._told: set[str] = set()
        self._waited = 0
        self.state: Literal["asking", "passed", "behind"] = "asking"
        #: Who saw more than this node holds, and what.
        self.witness: tuple[str, Position] | None = None
        self._judge()

    def asks(self) -> list[Ask]:
        """At the start and again and again, often while it is asking: to whoever has not answered yet, and until this node has
        passed to all, since an answer tells who votes as well. One that was true once may name voters that are there no
        more, and wait for them for ever."""
        if self.state == "behind":
            return []
        whom = {*self._membership.voters, *self._speakers} - {self._node}
        if self.state == "passed":
            whom -= self._answered.keys()
        return [Ask(node, self._node) for node in sorted(whom)]

    def wait(self) -> None:
        """An election timeout has passed."""
        self._waited += 1
        if self.state == "asking":
            self._judge()

    def spoken_by(self, sender: str) -> None:
        """A message of the core came from ``sender``, who may not be known here yet."""
        if self.state == "asking":
            self._speakers.add(sender)

    def handle(self, answer: Answer, held: Position) -> None:
        """``held``: the highest position that this node has confirmed, as its disk has it now."""
        if answer.seen > held and self._newcomer and self._may_be_of_before(answer):
            return
        self._answered[answer.sender] = answer.seen
        if answer.applied > self._applied and answer.membership.voters:
            self._applied, self._membership = answer.applied, answer.membership
        if answer.seen > held:
            self.state, self.witness = "behind", (answer.sender, answer.seen)
        elif self.state == "asking":
            self._judge()

    def _may_be_of_before(self, answer: Answer) -> bool:
        """The sender forgets what it saw when it comes to the removal in the log, and to what was on its way still when it comes
        to the admission."""
        told = answer.sender in self._told
        if self._node in answer.membership:
            self._told.add(answer.sender)
        return not told

    def _judge(self) -> None:
        voters = self._membership.voters
        agreed = sum(1 for voter in voters if voter == self._node or voter in self._answered)
        waited = agreed == len(voters) or self._waited >= PATIENCE
        if voters and agreed >= majority(len(voters)) and waited:
            self.state = "passed"
