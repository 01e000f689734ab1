"""Messages that wait together are said as one."""

from __future__ import annotations

import pytest

from caso_mesh.consensus.merging import merged
from caso_mesh.consensus.messages import Append, AppendReply, Heartbeat, HeartbeatReply, TimeoutNow
from caso_mesh.consensus.port import Entry


def entry(index, size=1):
    return Entry(index, 3, "command", b"x" * size)


def append(previous, *entries, commit=0, term=3):
    return Append("b", "a", term, previous, 3, commit, entries)


@pytest.mark.parametrize(
    ("earlier", "later", "both"),
    [
        (append(1, entry(2)), append(2, entry(3), commit=2), append(1, entry(2), entry(3), commit=2)),
        (append(1, entry(2), commit=1), append(2), append(1, entry(2), commit=1)),
        (append(1, entry(2)), append(3, entry(4)), None),  # a gap
        (append(1, entry(2)), append(1, entry(2)), None),  # again
        (append(1, entry(2)), append(2, entry(3), term=4), None),
        (append(1, entry(2, 600_000)), append(2, entry(3, 600_000)), None),
        (AppendReply("b", "a", 3, 5), AppendReply("b", "a", 3, 7), AppendReply("b", "a", 3, 7)),
        (AppendReply("b", "a", 3, 7), AppendReply("b", "a", 3, 5), AppendReply("b", "a", 3, 7)),
        (AppendReply("b", "a", 3, 7, rejected=True), AppendReply("b", "a", 3, 8), None),
        (AppendReply("b", "a", 3, 7), AppendReply("b", "a", 3, 8, rejected=True), None),
        (Heartbeat("b", "a", 3, 5, 1), Heartbeat("b", "a", 3, 6), Heartbeat("b", "a", 3, 6, 1)),
        (HeartbeatReply("b", "a", 3, 2), HeartbeatReply("b", "a", 3, 1), HeartbeatReply("b", "a", 3, 2)),
        (Heartbeat("b", "a", 3, 5), HeartbeatReply("b", "a", 3), None),
        (TimeoutNow("b", "a", 3), TimeoutNow("b", "a", 3), None),
    ],
)
def test_what_says_the_same_as_both(earlier, later, both):
    assert merged(earlier, later) == both
