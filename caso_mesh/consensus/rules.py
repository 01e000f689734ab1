"""The rules that keep a log safe, each with a switch, so that the simulation can prove that it would notice.

The product runs with all of them; nothing reads another ``Rules`` than the default outside of tests. The reason behind
each is a fault that was seen in a real program.
"""

from __future__ import annotations

from msgspec import Struct


class Rules(Struct, frozen=True):
    """All true: safe. One false: the mutant of that name."""

    #: The leader counts its own copy of an entry only when that is durable.
    own_ack_after_commit: bool = True
    #: A vote counts once for each voter, however often it arrives.
    votes_by_voter: bool = True
    #: A vote is forgotten only when the term rises.
    vote_until_term_rises: bool = True
    #: A reply of an earlier term says nothing about this one.
    replies_carry_term: bool = True
    #: A reply says which index it confirms: it need not be the reply to what was sent last.
    replies_carry_index: bool = True
    #: A follower drops entries only from the first one that really contradicts the leader's.
    truncate_at_conflict: bool = True
    #: Whoever is told to drop what is committed halts instead.
    halt_below_commit: bool = True
    #: Copies are counted only for entries of the leader's own term; earlier ones are committed by what follows them.
    commit_own_term: bool = True
    #: A new leader appends an entry of its own at once: without it nothing of the past could be committed.
    noop_on_election: bool = True
    #: A change of membership waits until the one before it is applied.
    one_change_at_a_time: bool = True
    #: A change of membership counts when its entry is applied, which cannot be undone, not when it is proposed.
    change_on_apply: bool = True
    #: A leader answers no read before an entry of its own term is committed.
    read_after_own_commit: bool = True
    #: A read is answered when a majority has confirmed, after it was asked, that the leader still leads.
    read_by_majority: bool = True
    #: A candidate's log must be as complete as the voter's.
    vote_for_complete_log: bool = True


#: The product's.
ALL_RULES = Rules()
