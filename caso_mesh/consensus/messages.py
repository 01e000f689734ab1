"""What the members of one replicated log say to each other. Every message carries its sender's term.

``to`` and ``sender`` are node ids. Indexes and terms of what is compared are named by what they belong to.
"""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.consensus.membership import Membership
from caso_mesh.consensus.port import Entry


class Image(Struct, frozen=True):
    """A snapshot as the log knows it: the state after the entry at ``index`` of ``term``, and who took part then."""

    index: int
    term: int
    membership: Membership
    data: bytes


class VoteRequest(Struct, frozen=True, tag="vote-request"):
    """``pre``: only asks whether an election in ``term`` could be won. ``forced``: the leader itself handed over, so
    that those who hear it well answer all the same."""

    to: str
    sender: str
    term: int
    last_index: int
    last_term: int
    pre: bool = False
    forced: bool = False


class VoteReply(Struct, frozen=True, tag="vote-reply"):
    to: str
    sender: str
    term: int
    granted: bool
    pre: bool = False


class Append(Struct, frozen=True, tag="append"):
    """``entries`` follow the one at ``previous_index`` of ``previous_term``; ``commit`` is what the leader committed."""

    to: str
    sender: str
    term: int
    previous_index: int
    previous_term: int
    commit: int
    entries: tuple[Entry, ...] = ()


class AppendReply(Struct, frozen=True, tag="append-reply"):
    """``index``: up to here the sender's log is the leader's, durably. When ``rejected`` it is the index that did not
    fit, and the hint is the last place where the logs may still be the same."""

    to: str
    sender: str
    term: int
    index: int
    rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0


class Heartbeat(Struct, frozen=True, tag="heartbeat"):
    """``read_round`` comes back in the reply and so confirms the reads up to it."""

    to: str
    sender: str
    term: int
    commit: int
    read_round: int = 0


class HeartbeatReply(Struct, frozen=True, tag="heartbeat-reply"):
    to: str
    sender: str
    term: int
    read_round: int = 0


class InstallSnapshot(Struct, frozen=True, tag="install-snapshot"):
    to: str
    sender: str
    term: int
    image: Image


class TimeoutNow(Struct, frozen=True, tag="timeout-now"):
    """The leader asks the receiver to take over at once."""

    to: str
    sender: str
    term: int


Message = VoteRequest | VoteReply | Append | AppendReply | Heartbeat | HeartbeatReply | InstallSnapshot | TimeoutNow

#: Only a leader sends these.
FROM_LEADER = (Append, Heartbeat, InstallSnapshot)
#: These promise nothing about the sender's disk, so they may leave while it is still being written.
PROMISES_NOTHING = (Append, Heartbeat, InstallSnapshot, TimeoutNow)
