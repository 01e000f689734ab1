"""Limits and refusals of the core that no scenario and no storm leads to by itself."""

from __future__ import annotations

import pytest

from caso_mesh.consensus.log import OVERHEAD, Log
from caso_mesh.consensus.membership import Change, Membership, MembershipChange
from caso_mesh.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Image,
    InstallSnapshot,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from caso_mesh.consensus.port import Entry, Position
from caso_mesh.consensus.raft import HardState, Raft, Settings
from caso_mesh.model.errors import LogContradicted, LogUnavailable, Misuse, NotLeader

NEW = HardState()
THREE = Membership(("a", "b", "c"))


def member(node="a", membership=THREE, *, hard=NEW, entries=(), image=None, **settings):
    return Raft(
        node,
        Settings(**{"pre_vote": False, **settings}),
        log=Log(node, 0, 0, entries),
        membership=membership,
        hard=hard,
        random_below=lambda n: 0,
        image=lambda: image,
    )


def carry_out(core):
    """Everything that is ready, as a driver does; the messages and reads that came out."""
    messages, reads = [], []
    while core.has_ready():
        ready = core.ready()
        messages += ready.messages
        reads += ready.reads
        for entry in ready.committed:
            if entry.kind == "membership":
                core.apply_change(entry)
        core.advance()
    return messages, reads


def elected(**more):
    """``a`` leads; everybody has its no-op."""
    core = member(**more)
    core.campaign()
    carry_out(core)
    core.step(VoteReply("a", "b", core.term, granted=True))
    carry_out(core)
    confirm(core, "b", "c")
    assert core.in_office
    return core


def confirm(core, *nodes):
    for node in nodes:
        core.step(AppendReply("a", node, core.term, core.log.last))
    return carry_out(core)[0]


def appends(messages, to):
    return [message for message in messages if isinstance(message, Append) and message.to == to]


def change(kind, node):
    return MembershipChange((Change(kind, node),))


def test_one_message_holds_so_many_entries_and_bytes():
    core = elected(max_message_entries=3, max_message_bytes=2 * (OVERHEAD + 10))
    core.propose(*(b"x" * 10 for _ in range(7)))
    messages = confirm(core, "b")
    sizes = [len(message.entries) for message in appends(messages, "b")]
    assert sizes[0] == 2
    assert max(sizes) == 2
    core.propose(b"y" * 1000)
    assert [len(message.entries[-1].data) for message in appends(confirm(core, "b"), "b") if message.entries][
        -1
    ] == 1000


def test_no_more_is_sent_to_a_silent_member_than_may_be_under_way():
    core = elected(max_inflight_messages=4)
    for n in range(10):
        core.propose(b"%d" % n)
    messages, _ = carry_out(core)
    assert sum(len(message.entries) for message in appends(messages, "b")) == 4
    core.step(AppendReply("a", "b", core.term, appends(messages, "b")[1].entries[-1].index))
    messages, _ = carry_out(core)
    assert sum(len(message.entries) for message in appends(messages, "b")) == 6  # one large message, and room for it
    core = elected(max_inflight_bytes=25)
    for _ in range(10):
        core.propose(b"x" * 10)
    messages, _ = carry_out(core)
    assert sum(len(message.entries) for message in appends(messages, "b")) == 3


def test_too_much_that_is_not_committed_is_refused_and_nothing_of_it_is_kept():
    core = elected(max_uncommitted_bytes=100)
    core.propose(b"x" * 1000)  # the first may be of any size
    with pytest.raises(LogUnavailable, match="too much"):
        core.propose(b"y")
    last = core.log.last
    confirm(core, "b")
    assert core.log.committed == last
    core.propose(b"y")
    assert core.log.last == last + 1


def test_proposals_come_back_with_their_positions():
    core = elected()
    assert core.propose(b"x", b"y") == Position(1, 2)
    assert core.propose(b"z") == Position(1, 4)


def test_whoever_does_not_lead_refuses():
    core = member()
    for ask in (lambda: core.propose(b"x"), lambda: core.read(1), lambda: core.transfer("b"),
                lambda: core.propose_change(change("remove", "c"))):  # fmt: skip
        with pytest.raises(NotLeader):
            ask()


def test_a_transfer_takes_no_proposals_and_is_given_up_in_time():
    core = elected(check_quorum=False)
    core.propose(b"x")
    confirm(core, "b")
    core.transfer("c")
    assert TimeoutNow("c", "a", 1) not in carry_out(core)[0]
    with pytest.raises(LogUnavailable, match="handed to c"):
        core.propose(b"y")
    assert TimeoutNow("c", "a", 1) in confirm(core, "c")
    for _ in range(core.settings.election_ticks):
        core.tick()
    core.propose(b"y")
    core.transfer("b")
    core.transfer("a")  # changed its mind
    core.propose(b"z")


def test_a_learner_and_a_stranger_are_handed_nothing():
    core = elected(membership=Membership(("a", "b", "c"), ("d",)))
    core.transfer("d")
    core.transfer("nobody")
    core.propose(b"x")


def test_reads_wait_for_an_own_commit_and_then_for_a_majority():
    core = member()
    core.campaign()
    carry_out(core)
    core.step(VoteReply("a", "b", 1, granted=True))
    core.read(7)
    assert carry_out(core)[1] == []
    core.step(AppendReply("a", "b", 1, 1))
    messages, reads = carry_out(core)
    assert reads == []
    asked = [message for message in messages if isinstance(message, Heartbeat)]
    assert {message.read_round for message in asked} == {1}
    core.step(HeartbeatReply("a", "c", 1, 0))
    assert carry_out(core)[1] == []
    core.step(HeartbeatReply("a", "c", 1, 1))
    assert [(read.token, read.index) for read in carry_out(core)[1]] == [(7, 1)]


def test_one_change_waits_until_the_one_before_is_applied():
    core = elected()
    core.propose_change(change("add-learner", "d"))
    with pytest.raises(LogUnavailable, match="under way"):
        core.propose_change(change("add-learner", "e"))
    confirm(core, "b")
    assert core.membership.learners == ("d",)
    core.propose_change(change("add-learner", "e"))


@pytest.mark.parametrize(
    "changes",
    [
        (Change("remove", "a"), Change("remove", "b"), Change("remove", "c")),
        (Change("add-voter", "d"), Change("add-voter", "e")),
        (Change("remove", "b"), Change("add-voter", "d")),
    ],
)
def test_changes_that_are_not_safe_are_refused_before_they_are_proposed(changes):
    core = elected()
    last = core.log.last
    with pytest.raises(Misuse):
        core.propose_change(MembershipChange(changes))
    assert core.log.last == last


def test_a_leader_that_removed_itself_steps_down_or_else_proposes_nothing():
    for steps_down in (True, False):
        core = elected(step_down_on_removal=steps_down)
        core.propose_change(change("remove", "a"))
        confirm(core, "b", "c")
        assert core.membership.voters == ("b", "c")
        assert core.role == ("follower" if steps_down else "leader")
        with pytest.raises(NotLeader if steps_down else LogUnavailable):
            core.propose(b"x")
        for _ in range(100):
            core.tick()
        assert core.role != "candidate"


def test_a_voter_that_starts_without_a_vote_gives_none_in_that_term():
    """An old copy of its disk, from before it voted in that term, would look the same."""
    request = VoteRequest("a", "b", 5, 0, 0)
    core = member(hard=HardState(5, None, 0))
    core.step(request)
    assert carry_out(core)[0] == [VoteReply("b", "a", 5, granted=False)]
    core.step(VoteRequest("a", "b", 6, 0, 0))
    assert carry_out(core)[0] == [VoteReply("b", "a", 6, granted=True)]
    core = member(hard=HardState(5, "b", 0))
    core.step(request)
    assert carry_out(core)[0] == [VoteReply("b", "a", 5, granted=True)]
    core.step(VoteRequest("a", "c", 5, 9, 5))
    assert carry_out(core)[0] == [VoteReply("c", "a", 5, granted=False)]


def test_whoever_is_told_to_drop_what_is_committed_halts_and_changes_nothing():
    entries = tuple(Entry(index, 1, "command", b"%d" % index) for index in (1, 2, 3))
    other = (Entry(2, 2, "noop", b""), Entry(3, 2, "command", b"x"))
    core = member(hard=HardState(1, "b", 2), entries=entries)
    with pytest.raises(LogContradicted, match="entry 2 is committed with term 1, but b has it with term 2"):
        core.step(Append("a", "b", 2, 1, 1, 3, other))
    assert core.log.slice(1, 3, 1 << 20, 100) == entries
    core = member(hard=HardState(1, "b", 2), entries=entries)
    core.step(Append("a", "b", 2, 2, 1, 2, (Entry(3, 2, "noop", b""),)))  # 3 was not committed
    assert core.log.last_term == 2


def test_a_heartbeat_that_commits_more_than_there_is_halts():
    core = member(hard=HardState(1, "b", 0), entries=(Entry(1, 1, "noop", b""),))
    with pytest.raises(LogContradicted, match="9 are committed, but it ends at 1"):
        core.step(Heartbeat("a", "b", 1, 9))


def test_a_snapshot_replaces_a_log_that_has_not_its_entry():
    image = Image(9, 3, Membership(("b", "c"), ("a",)), b"state")
    core = member(hard=HardState(1, "b", 0), entries=(Entry(1, 1, "noop", b""),))
    core.step(InstallSnapshot("a", "b", 3, image))
    ready = core.ready()
    assert (ready.snapshot, ready.entries, ready.committed) == (image, (), ())
    assert ready.durable
    assert ready.messages == (AppendReply("b", "a", 3, 9),)
    core.advance()
    assert (core.log.first, core.log.applied, core.membership) == (10, 9, image.membership)
    core.step(InstallSnapshot("a", "b", 3, image))  # twice
    assert carry_out(core)[0] == [AppendReply("b", "a", 3, 9)]


def test_ready_and_advance_take_turns():
    core = member()
    core.campaign()
    core.ready()
    with pytest.raises(Misuse):
        core.ready()
    core.advance()
    with pytest.raises(Misuse):
        core.advance()


def test_words_of_members_that_are_gone_are_not_counted():
    core = elected()
    core.propose_change(change("remove", "c"))
    confirm(core, "b", "c")
    core.propose(b"x")
    carry_out(core)
    core.step(AppendReply("a", "c", 1, core.log.last))
    carry_out(core)
    assert core.log.committed == core.log.last - 1
    confirm(core, "b")
    assert core.log.committed == core.log.last
