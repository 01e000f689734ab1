"""The scenarios' words for messages, entries and what is ready."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from caso_mesh.consensus.membership import Membership, decode_change
from caso_mesh.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Image,
    InstallSnapshot,
    Message,
    VoteReply,
    VoteRequest,
)
from caso_mesh.consensus.port import Entry
from caso_mesh.consensus.progress import Progress
from caso_mesh.consensus.raft import HardState, Ready

_LETTERS = {"add-voter": "v", "add-learner": "l", "remove": "r", "note": "u"}


def name_of(number: int) -> str:
    """A node id that sorts like the number."""
    return f"{number:06d}" if number else ""


def number_of(name: str | None) -> int:
    return int(name) if name else 0


def kind_of(message: Message) -> str:
    if isinstance(message, VoteRequest):
        return "MsgPreVote" if message.pre else "MsgVote"
    if isinstance(message, VoteReply):
        return "MsgPreVoteResp" if message.pre else "MsgVoteResp"
    return {
        Append: "MsgApp",
        AppendReply: "MsgAppResp",
        Heartbeat: "MsgHeartbeat",
        HeartbeatReply: "MsgHeartbeatResp",
        InstallSnapshot: "MsgSnap",
    }.get(type(message), "MsgTimeoutNow")


def describe_entry(entry: Entry) -> str:
    if entry.kind != "membership":
        return f"{entry.term}/{entry.index} EntryNormal {json.dumps(entry.data.decode())}"
    change = decode_change(entry.data)
    kind = "EntryConfChange" if change.context == b"v1" else "EntryConfChangeV2"
    text = " ".join(f"{_LETTERS[each.kind]}{number_of(each.node)}" for each in change.changes)
    return f"{entry.term}/{entry.index} {kind}{' ' if text else ''}{text}"


def describe_entries(entries: Sequence[Entry]) -> list[str]:
    return [describe_entry(entry) for entry in entries]


def describe_message(message: Message) -> list[str]:
    log_term, log_index, tail, entries = 0, 0, "", ()
    if isinstance(message, VoteRequest):
        log_term, log_index = message.last_term, message.last_index
    elif isinstance(message, VoteReply):
        tail = "" if message.granted else " Rejected (Hint: 0)"
    elif isinstance(message, Append):
        log_term, log_index, entries = message.previous_term, message.previous_index, message.entries
        tail = f" Commit:{message.commit}" if message.commit else ""
    elif isinstance(message, AppendReply):
        log_term, log_index = message.hint_term, message.index
        tail = f" Rejected (Hint: {message.hint_index})" if message.rejected else ""
    elif isinstance(message, Heartbeat):
        tail = f" Commit:{message.commit}" if message.commit else ""
    line = (
        f"{number_of(message.sender):x}->{number_of(message.to):x} {kind_of(message)} Term:{message.term}"
        f" Log:{log_term}/{log_index}{tail}"
    )
    if len(entries) == 1:
        return [f"{line} Entries:[{describe_entry(entries[0])}]"]
    if entries:
        return [f"{line} Entries:[", *(f"  {each}" for each in describe_entries(entries)), "]"]
    if isinstance(message, InstallSnapshot):
        return [line, f"  Snapshot: {describe_image(message.image)}"]
    return [line]


def describe_image(image: Image) -> str:
    members = image.membership
    return (
        f"Index:{image.index} Term:{image.term} ConfState:Voters:{_bracketed(members.voters)} VotersOutgoing:[]"
        f" Learners:{_bracketed(members.learners)} LearnersNext:[] AutoLeave:false"
    )


def describe_ready(ready: Ready, before: HardState, states: Mapping[str, str]) -> list[str]:
    hard = ready.hard or before
    sync = bool(ready.entries) or (hard.term, hard.vote) != (before.term, before.vote)
    lines = [f"Ready MustSync={'true' if sync else 'false'}:"]
    if ready.standing is not None:
        leader, role = ready.standing
        lines.append(f"Lead:{number_of(leader)} State:{states[role]}")
    if ready.hard is not None:
        vote = f" Vote:{number_of(hard.vote)}" if hard.vote else ""
        lines.append(f"HardState Term:{hard.term}{vote} Commit:{hard.commit}")
    if ready.entries:
        lines += ["Entries:", *describe_entries(ready.entries)]
    if ready.snapshot is not None:
        lines.append(f"Snapshot {describe_image(ready.snapshot)}")
    if ready.committed:
        lines += ["CommittedEntries:", *describe_entries(ready.committed)]
    if ready.messages:
        lines.append("Messages:")
        for message in ready.messages:
            lines += describe_message(message)
    return lines if len(lines) > 1 else ["<empty Ready>"]


def describe_progress(progress: Mapping[str, Progress]) -> list[str]:
    return [f"{number_of(node)}: {_one_progress(each)}" for node, each in progress.items()]


def describe_membership(membership: Membership) -> str:
    text = f"voters=({' '.join(str(number_of(node)) for node in membership.voters)})"
    if membership.learners:
        text += f" learners=({' '.join(str(number_of(node)) for node in membership.learners)})"
    return text


def _one_progress(progress: Progress) -> str:
    text = f"State{progress.pace.capitalize()} match={progress.match} next={progress.next}"
    if progress.learner:
        text += " learner"
    if progress.paused:
        text += " paused"
    if progress.pending_snapshot:
        text += f" pendingSnap={progress.pending_snapshot}"
    if not progress.active:
        text += " inactive"
    if len(progress.inflights):
        text += f" inflight={len(progress.inflights)}{'[full]' if progress.inflights.full else ''}"
    return text


def _bracketed(nodes: Sequence[str]) -> str:
    return f"[{' '.join(str(number_of(node)) for node in nodes)}]"
