"""What a member does with what a leader or a candidate says to it. Functions over ``Raft``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caso_mesh.consensus.messages import (
    FROM_LEADER,
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    VoteReply,
    VoteRequest,
)
from caso_mesh.model.errors import LogContradicted

if TYPE_CHECKING:
    from caso_mesh.consensus.raft import Raft


def handle(raft: Raft, message: Message) -> None:
    """A word of the leader of this term."""
    if isinstance(message, Append):
        _append(raft, message)
    elif isinstance(message, Heartbeat):
        raft.log.commit(message.commit)
        raft.send(HeartbeatReply(message.sender, raft.node, raft.term, message.read_round))
    elif isinstance(message, InstallSnapshot):
        index = raft.log.last if _restore(raft, message) else raft.log.committed
        raft.send_durably(AppendReply(message.sender, raft.node, raft.term, index))


def must_lead_alone(raft: Raft, message: Message) -> None:
    """In a term nobody leads but one: the entries of two would have the same places and terms, so that different logs looked
    alike. Raises ``LogContradicted``."""
    if isinstance(message, FROM_LEADER) and raft.leader not in {None, message.sender}:
        raise LogContradicted(
            server=raft.node,
            detail=f"{raft.leader} and {message.sender} both lead in term {raft.term}: the state folder of a voter runs on two"
            " machines, or a disk was put back",
        )


def handle_vote_request(raft: Raft, request: VoteRequest) -> None:
    """Also a learner votes: it may have been made a voter by an entry that has not reached it yet, and the candidate,
    who asks only voters, knows better."""
    free = raft.may_vote_for(request.sender) or (request.pre and request.term > raft.term)
    complete = raft.log.up_to_date(request.last_index, request.last_term) or not raft.rules.vote_for_complete_log
    if not (free and complete):
        raft.send_durably(VoteReply(request.sender, raft.node, raft.term, granted=False, pre=request.pre))
        return
    raft.send_durably(VoteReply(request.sender, raft.node, request.term, granted=True, pre=request.pre))
    if not request.pre:
        raft.elapsed = 0
        raft.vote = request.sender


def _append(raft: Raft, message: Append) -> None:
    log = raft.log
    if message.previous_index < log.committed and raft.rules.halt_below_commit:
        _must_agree(raft, message)
        raft.send_durably(AppendReply(message.sender, raft.node, raft.term, log.committed))
        return
    if not log.has(message.previous_index, message.previous_term):
        hint_index, hint_term = log.meeting_point(min(message.previous_index, log.last), message.previous_term)
        reply = AppendReply(
            message.sender,
            raft.node,
            raft.term,
            message.previous_index,
            rejected=True,
            hint_index=hint_index,
            hint_term=hint_term,
        )
        raft.send_durably(reply)
        return
    compared = message.previous_index + len(message.entries)
    if raft.rules.truncate_at_conflict:
        conflict = log.first_conflict(message.entries)
        if conflict is not None:
            log.append(message.entries[conflict:], halt=raft.rules.halt_below_commit)
    else:
        log.append(message.entries, halt=False)
    log.commit(min(message.commit, compared))
    raft.send_durably(AppendReply(message.sender, raft.node, raft.term, compared))


def _must_agree(raft: Raft, message: Append) -> None:
    """What is committed here is the leader's as well. Raises ``LogContradicted`` if a disk lost or changed some of it."""
    log = raft.log
    for entry in message.entries:
        if log.start < entry.index <= log.committed and not log.has(entry.index, entry.term):
            raise LogContradicted(
                server=raft.node,
                detail=f"entry {entry.index} is committed with term {log.term(entry.index)}, but {message.sender}"
                f" has it with term {entry.term}",
            )


def _restore(raft: Raft, message: InstallSnapshot) -> bool:
    """``False``: the snapshot holds nothing new. It may be older than this node's own membership, which then follows."""
    image = message.image
    if image.index <= raft.log.committed:
        return False
    if raft.log.has(image.index, image.term):
        raft.log.commit(image.index)  # all of it is here already, and what follows it may be worth keeping
        return False
    raft.log.restore(image)
    raft.restore_members(image.membership)
    return True
