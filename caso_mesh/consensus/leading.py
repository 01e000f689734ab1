"""What a leader does: sends what each member lacks, counts what is confirmed, answers reads, hands over. Functions over
``Raft``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caso_mesh.consensus.log import payload_of
from caso_mesh.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    TimeoutNow,
)
from caso_mesh.consensus.port import Entry
from caso_mesh.consensus.progress import Progress
from caso_mesh.consensus.quorum import committed_index, outcome
from caso_mesh.consensus.reads import ReadState

if TYPE_CHECKING:
    from caso_mesh.consensus.raft import Raft


def tick(raft: Raft) -> None:
    raft.heartbeat_elapsed += 1
    if raft.elapsed >= raft.settings.election_ticks:
        raft.elapsed = 0
        if raft.settings.check_quorum:
            _check_quorum(raft)
        raft.transferee = None
    if raft.role == "leader" and raft.heartbeat_elapsed >= raft.settings.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        _send_heartbeats(raft)


def handle(raft: Raft, message: Message) -> None:
    """A reply to this leader, or to itself."""
    progress = raft.progress.get(message.sender)
    if progress is None:
        return
    if isinstance(message, AppendReply):
        progress.active = True
        if message.rejected:
            _rejected(raft, progress, message)
        else:
            _confirmed(raft, progress, message)
    elif isinstance(message, HeartbeatReply):
        progress.heard()
        if progress.match < raft.log.last or progress.pace == "probe":
            _send_append(raft, message.sender, progress)
        if message.read_round:
            raft.reads.confirm(message.sender, message.read_round)
            for read in raft.reads.take(raft.membership.voters):
                raft.answer_read(read)


def send_appends(raft: Raft) -> None:
    """To everybody, also if it is only news of what is committed."""
    for node, progress in raft.progress.items():
        if node != raft.node:
            _send_append(raft, node, progress)


def members_changed(raft: Raft) -> None:
    """A smaller majority may have committed more; newcomers need not wait for the next heartbeat."""
    if _advance_commit(raft):
        send_appends(raft)
    else:
        for node, progress in raft.progress.items():
            if node != raft.node:
                _send_append(raft, node, progress, if_empty=False)
    if raft.transferee not in raft.membership.voters:
        raft.transferee = None


def read(raft: Raft, token: int) -> None:
    own_committed = raft.log.has(raft.log.committed, raft.term)
    if raft.membership.voters == (raft.node,) or not raft.rules.read_by_majority:
        if own_committed or not raft.rules.read_after_own_commit:
            raft.answer_read(ReadState(token, raft.log.committed))
        else:
            raft.early_reads.append(token)
    elif own_committed or not raft.rules.read_after_own_commit:
        raft.reads.add(ReadState(token, raft.log.committed))
        raft.reads.confirm(raft.node, raft.reads.round)
        _send_heartbeats(raft)
    else:
        raft.early_reads.append(token)


def transfer(raft: Raft, node: str) -> None:
    progress = raft.progress.get(node)
    if progress is None or progress.learner or node == raft.transferee:
        return
    raft.transferee = None
    if node == raft.node:
        return
    raft.elapsed = 0  # it has one election timeout
    raft.transferee = node
    if progress.match == raft.log.last:
        raft.send(TimeoutNow(node, raft.node, raft.term))
    else:
        _send_append(raft, node, progress)


def awaits(raft: Raft, install: InstallSnapshot) -> bool:
    """Whether it still matters that this snapshot arrives."""
    progress = raft.progress.get(install.to)
    leads = (raft.role, raft.term) == ("leader", install.term)
    return leads and progress is not None and progress.pending_snapshot == install.image.index


def _check_quorum(raft: Raft) -> None:
    heard = {node: progress.active or node == raft.node for node, progress in raft.progress.items()}
    if outcome(raft.membership.voters, heard) != "won":
        raft.become_follower(raft.term, None)
    for node, progress in raft.progress.items():
        if node != raft.node:
            progress.active = False


def _rejected(raft: Raft, progress: Progress, reply: AppendReply) -> None:
    hint = reply.hint_index
    if reply.hint_term:
        # This log's terms beyond the meeting point are larger than the follower's there, so they cannot be the same.
        hint, _ = raft.log.meeting_point(reply.hint_index, reply.hint_term)
    if progress.reject(reply.index, hint):
        if progress.pace == "replicate":
            progress.probe()
        _send_append(raft, reply.sender, progress)


def _confirmed(raft: Raft, progress: Progress, reply: AppendReply) -> None:
    index = reply.index if raft.rules.replies_carry_index or reply.sender == raft.node else progress.next - 1
    news = progress.confirm(index)
    if not news and not (progress.match == index and progress.pace == "probe"):
        return
    if progress.pace == "probe" or (progress.pace == "snapshot" and progress.match + 1 >= raft.log.first):
        progress.replicate()
    elif progress.pace == "replicate":
        progress.inflights.confirm(index)
    if _advance_commit(raft):
        _release_early_reads(raft)
        send_appends(raft)
    elif reply.sender != raft.node and progress.lacks_commit(raft.log.committed):
        _send_append(raft, reply.sender, progress)
    if reply.sender != raft.node:
        while _send_append(raft, reply.sender, progress, if_empty=False):
            pass
        if reply.sender == raft.transferee and progress.match == raft.log.last:
            raft.send(TimeoutNow(reply.sender, raft.node, raft.term))


def _advance_commit(raft: Raft) -> bool:
    confirmed = {node: progress.match for node, progress in raft.progress.items()}
    index = committed_index(raft.membership.voters, confirmed)
    if index is None or index <= raft.log.committed:
        return False
    if raft.rules.commit_own_term and not raft.log.has(index, raft.term):
        return False
    raft.log.commit(index)
    return True


def _release_early_reads(raft: Raft) -> None:
    if raft.early_reads and raft.log.has(raft.log.committed, raft.term):
        tokens, raft.early_reads = raft.early_reads, []
        for token in tokens:
            read(raft, token)


def _send_heartbeats(raft: Raft) -> None:
    for node, progress in raft.progress.items():
        if node != raft.node:
            # No more than what the receiver has confirmed: beyond it, its log may be another one.
            commit = min(progress.match, raft.log.committed)
            raft.send(Heartbeat(node, raft.node, raft.term, commit, raft.reads.round))
            progress.sent_commit(commit)


def _send_append(raft: Raft, node: str, progress: Progress, *, if_empty: bool = True) -> bool:
    """Send what comes next, or a snapshot if that is gone. ``False``: nothing was sent."""
    if progress.paused:
        return False
    previous = progress.next - 1
    previous_term = raft.log.term(previous)
    if previous_term is None:
        return _send_snapshot(raft, node, progress)
    settings = raft.settings
    if progress.pace == "replicate" and progress.inflights.full:
        # An empty message still shows where the logs meet, in case all that is under way was lost.
        entries: tuple[Entry, ...] = ()
    else:
        entries = raft.log.slice(progress.next, raft.log.last, settings.max_message_bytes, settings.max_message_entries)
    if not entries and not if_empty:
        return False
    raft.send(Append(node, raft.node, raft.term, previous, previous_term, raft.log.committed, entries))
    progress.sent(len(entries), payload_of(entries), raft.log.committed)
    return True


def _send_snapshot(raft: Raft, node: str, progress: Progress) -> bool:
    image = raft.image() if progress.active else None
    if image is None:
        return False
    progress.wait_for_snapshot(image.index)
    raft.send(InstallSnapshot(node, raft.node, raft.term, image))
    return True
