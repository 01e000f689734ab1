"""Disks that were put back: who remembers what was confirmed, and who may take part."""

from __future__ import annotations

from caso_mesh.consensus.log import Log
from caso_mesh.consensus.membership import Membership
from caso_mesh.consensus.messages import AppendReply, VoteReply
from caso_mesh.consensus.port import Position
from caso_mesh.consensus.raft import HardState, Raft, Settings
from caso_mesh.consensus.witness import NOTHING, PATIENCE, Answer, Ask, Probation, Seen, Witness

THREE = Membership(("a", "b", "c"))


def answer(sender, seen=NOTHING, applied=0, membership=THREE):
    return Answer("a", sender, seen, applied, membership)


def test_only_what_binds_the_sender_is_remembered():
    witness = Witness("b")
    witness.heard(AppendReply("b", "a", 3, 7))
    witness.heard(AppendReply("b", "a", 3, 9, rejected=True))
    witness.heard(AppendReply("b", "a", 3, 5))
    witness.heard(VoteReply("b", "a", 2, granted=True))
    witness.heard(VoteReply("b", "a", 9, granted=True, pre=True))
    witness.heard(VoteReply("b", "a", 9, granted=False))
    assert witness.of("a") == Position(3, 7)
    witness.heard(VoteReply("b", "a", 4, granted=True))
    assert witness.of("a") == Position(4, 0)
    assert witness.take_unwritten() == {"a": Position(4, 0)}
    assert witness.take_unwritten() == {}


def test_what_the_leader_saw_spreads_but_nobody_learns_of_himself():
    leader, follower = Witness("a"), Witness("b")
    leader.saw("a", Position(2, 4))
    leader.saw("b", Position(2, 9))
    leader.saw("gone", Position(1, 1))
    told = leader.tell(THREE)
    assert [each.to for each in told] == ["b", "c"]
    for each in told:
        follower.merge(each)
    assert follower.take_unwritten() == {"a": Position(2, 4)}
    follower.merge(Seen("b", "a", {"a": Position(2, 1)}))
    assert follower.of("a") == Position(2, 4)
    assert leader.forget(THREE, THREE) == ["gone"]
    assert leader.of("gone") == NOTHING


def test_what_is_heard_of_a_member_after_it_left_does_not_count_when_it_comes_back_with_an_empty_log():
    """Its last answers were still on their way when it was removed: added again at once, it was taken for an old copy of
    itself."""
    leader, two = Witness("b", {}), Membership(("b", "c"))
    leader.saw("a", Position(2, 4))
    assert leader.forget(THREE, two) == ["a"]
    leader.saw("a", Position(2, 5))
    assert leader.forget(two, Membership(("b", "c"), ("a",))) == ["a"]
    assert leader.of("a") == NOTHING
    leader.saw("a", Position(2, 6))
    assert leader.forget(Membership(("b", "c"), ("a",)), THREE) == []
    assert leader.of("a") == Position(2, 6)


def test_a_lone_voter_takes_part_at_once():
    assert Probation("a", Membership(("a",))).state == "passed"


def waited(probation: Probation) -> Probation:
    """Whoever is to answer had the time."""
    for _ in range(PATIENCE):
        assert probation.state == "asking"
        probation.wait()
    return probation


def test_a_starting_voter_waits_for_a_majority_and_goes_on_asking():
    probation = Probation("a", THREE)
    assert probation.asks() == [Ask("b", "a"), Ask("c", "a")]
    assert waited(probation).state == "asking"
    probation.handle(answer("b", Position(2, 5)), Position(2, 5))
    assert probation.state == "passed"
    assert [ask.to for ask in probation.asks()] == ["c"]
    probation.handle(answer("c", Position(2, 6)), Position(2, 5))
    assert (probation.state, probation.witness) == ("behind", ("c", Position(2, 6)))
    assert probation.asks() == []


def test_whoever_is_behind_stays_so():
    probation = Probation("a", THREE)
    probation.handle(answer("c", Position(2, 0)), Position(1, 9))
    probation.handle(answer("b"), Position(1, 9))
    assert probation.state == "behind"


def test_the_one_that_heard_nothing_may_be_the_first_to_answer():
    """``b`` was down when ``a`` and ``c`` confirmed what the disk of ``a`` lost: they are a majority of three, and wait for ``c``."""
    probation = Probation("a", THREE)
    probation.asks()
    probation.handle(answer("b", Position(1, 3)), Position(1, 3))
    assert probation.state == "asking"
    probation.handle(answer("c", Position(1, 9)), Position(1, 3))
    assert (probation.state, probation.witness) == ("behind", ("c", Position(1, 9)))


def test_of_those_that_are_gone_a_majority_does_not_wait_for_ever():
    probation = Probation("a", THREE)
    probation.handle(answer("b", Position(1, 3)), Position(1, 3))
    assert [ask.to for ask in waited(probation).asks()] == ["c"]
    assert probation.state == "passed"


def test_what_was_confirmed_since_the_start_is_no_reason_to_stop():
    probation = Probation("a", THREE)
    probation.handle(answer("b", Position(2, 5)), Position(2, 5))
    probation.handle(answer("c", Position(3, 8)), Position(3, 8))
    assert probation.state == "passed"


def test_the_newest_membership_decides_what_a_majority_is():
    """While it was away, all others were replaced, one by one."""
    probation = Probation("a", THREE)
    now = Membership(("a", "d", "e"))
    probation.handle(answer("b", applied=7, membership=Membership(("a", "b", "d"))), Position(1, 9))
    assert waited(probation).asks()
    assert probation.state == "passed"  # it and one other are a majority of three
    probation = Probation("a", Membership(("a", "b", "c", "x", "y")))
    probation.spoken_by("d")
    assert [ask.to for ask in probation.asks()] == ["b", "c", "d", "x", "y"]
    probation.handle(answer("d", applied=9, membership=now), Position(1, 9))
    assert [ask.to for ask in probation.asks()] == ["d", "e"]
    probation.handle(answer("e", applied=9, membership=now), Position(1, 9))
    assert probation.state == "passed"


def test_a_blank_node_asks_whoever_speaks_to_it_and_then_the_voters():
    probation = Probation("n", Membership())
    assert probation.asks() == []
    probation.spoken_by("b")
    assert [ask.to for ask in probation.asks()] == ["b"]
    probation.handle(answer("b", applied=3), NOTHING)
    assert probation.state == "asking"
    assert [ask.to for ask in probation.asks()] == ["a", "b", "c"]
    probation.handle(answer("a", applied=3), NOTHING)
    probation.handle(answer("c", applied=3), NOTHING)
    assert probation.state == "passed"


def test_a_newcomer_does_not_wait_for_voters_that_left_after_the_leader_had_named_them():
    """It asked nobody twice: the leader had answered while two more voted, they went, and it never heard of that."""
    probation = Probation("n", Membership())
    probation.spoken_by("b")
    probation.handle(answer("b", applied=3, membership=THREE), NOTHING)
    assert probation.state == "asking"
    assert "b" in [ask.to for ask in probation.asks()]
    probation.handle(answer("b", applied=9, membership=Membership(("b",), ("n",))), NOTHING)
    assert probation.state == "passed"
    assert probation.asks() == []


def test_a_wiped_disk_under_an_old_id_is_behind():
    probation = Probation("a", Membership())
    probation.spoken_by("b")
    for state in ("asking", "behind"):
        probation.handle(answer("b", Position(1, 0), applied=3), NOTHING)
        assert probation.state == state


def test_what_was_seen_of_a_log_that_was_given_up_does_not_count_against_a_newcomer():
    """A server that was removed, and added at once with an empty log, was taken for an old copy of itself: one voter had not heard
    of the removal yet, or the last answers of the old log came after it."""
    without, admitted = Membership(("b", "c")), Membership(("b", "c"), ("a",))
    for seen, state in ((NOTHING, "passed"), (Position(2, 59), "behind")):
        probation = Probation("a", Membership(("b",)))
        probation.handle(answer("b", Position(2, 59), 62, without), NOTHING)
        probation.handle(answer("b", NOTHING, 63, admitted), NOTHING)
        probation.handle(answer("c", Position(2, 59), 60, THREE), NOTHING)
        assert probation.state == "asking"
        assert Ask("c", "a") in probation.asks()
        probation.handle(answer("c", seen, 63, admitted), NOTHING)
        assert probation.state == state


def test_the_core_says_what_it_is_about_to_confirm():
    core = Raft(
        "a",
        Settings(),
        log=Log("a", 0, 0),
        membership=Membership(("a",)),
        hard=HardState(),
        random_below=lambda n: 0,
        image=lambda: None,
    )
    core.campaign()
    confirmed = []
    for _ in range(5):
        if not core.has_ready():
            break
        ready = core.ready()
        confirmed.append((ready.confirms, ready.durable))
        core.advance()
    assert core.in_office
    assert confirmed[0] == (None, False)  # a pre-vote binds nobody
    assert confirmed[1] == (Position(1, 0), True)
    assert confirmed[2] == (Position(1, 1), True)
    core.propose(b"x", b"y")
    assert core.ready().confirms == Position(1, 3)
