"""Two messages that wait for the same member, said as one: many small proposals cost a few large messages."""

from __future__ import annotations

from msgspec.structs import replace

from caso_mesh.consensus.log import size_of
from caso_mesh.consensus.messages import Append, AppendReply, Heartbeat, HeartbeatReply, Message
from caso_mesh.consensus.shipping import PieceReply
from caso_mesh.consensus.witness import WitnessMessage

#: One message holds at most so many entries, and bytes of them.
_MOST_ENTRIES, _MOST_BYTES = 1024, 1 << 20


def merged(
    earlier: Message | WitnessMessage | PieceReply, later: Message | WitnessMessage | PieceReply
) -> Message | None:
    """What says the same as both, one after the other; ``None`` if nothing does. They have the same sender and
    receiver."""
    if isinstance(earlier, Append) and isinstance(later, Append) and earlier.term == later.term:
        follows = later.previous_index == earlier.previous_index + len(earlier.entries)
        entries = earlier.entries + later.entries
        if not follows or len(entries) > _MOST_ENTRIES or size_of(entries) > _MOST_BYTES:
            return None
        return replace(earlier, entries=entries, commit=max(earlier.commit, later.commit))
    if isinstance(earlier, AppendReply) and isinstance(later, AppendReply) and earlier.term == later.term:
        if earlier.rejected or later.rejected:
            return None
        return max(earlier, later, key=lambda reply: reply.index)  # the log up to there holds all before it
    if isinstance(earlier, Heartbeat) and isinstance(later, Heartbeat) and earlier.term == later.term:
        commit, read_round = max(earlier.commit, later.commit), max(earlier.read_round, later.read_round)
        return replace(later, commit=commit, read_round=read_round)
    if isinstance(earlier, HeartbeatReply) and isinstance(later, HeartbeatReply) and earlier.term == later.term:
        return replace(later, read_round=max(earlier.read_round, later.read_round))
    return None
