"""Who is silent: tables of what is heard when, and what the administrator concludes."""

from __future__ import annotations

import msgspec
import pytest

from caso_mesh.model.states import Liveness
from caso_mesh.planning.liveness import (
    HEARTBEATS_PER_S,
    Heard,
    Tick,
    Transition,
    Watch,
    Watched,
    heartbeat_interval_s,
    stalled_after_s,
)

ALIVE, STALLED, SILENT = Liveness.ALIVE, Liveness.STALLED, Liveness.NO_COMMUNICATION
WALL = 1_750_000_000 * 10**9
OFFICE_S = 1000.0


def row(liveness: Liveness = ALIVE, since_s: float | None = None, server: str = "s") -> Watched:
    """A server with limits of 300 s and a further 900 s; ``since_s`` is relative to taking office."""
    return Watched(server, liveness, None if since_s is None else WALL + round(since_s * 10**9), 300.0, 900.0)


class Office:
    """A watch whose transitions are committed at once; times are seconds since taking office."""

    def __init__(self, *rows: Watched) -> None:
        self.watch = Watch(office_s=OFFICE_S, office_ns=WALL)
        self.rows = {one.server: one for one in rows}
        self.watch.watch(self.rows.values())

    def heard(self, at_s: float, server: str = "s") -> list[Liveness]:
        return self.commit(self.watch.handle(Heard(server, OFFICE_S + at_s)))

    def tick(self, at_s: float, *, wall_jump_s: float = 0.0) -> list[Liveness]:
        now_ns = WALL + round((at_s + wall_jump_s) * 10**9)
        return self.commit(self.watch.handle(Tick(OFFICE_S + at_s, now_ns)))

    def commit(self, found: list[Transition]) -> list[Liveness]:
        for one in found:
            self.rows[one.server] = msgspec.structs.replace(
                self.rows[one.server], liveness=one.liveness, silent_since_ns=one.silent_since_ns
            )
        self.watch.watch(self.rows.values())
        return [one.liveness for one in found]

    def since_s(self, server: str = "s") -> float | None:
        since = self.rows[server].silent_since_ns
        return None if since is None else (since - WALL) / 10**9


def test_silence_stalls_then_ends_communication_then_a_word_brings_the_server_back():
    office = Office(row())
    assert office.heard(10.0) == []
    assert office.tick(309.9) == []
    assert office.tick(310.0) == [STALLED]
    assert office.since_s() == 10.0
    assert office.tick(311.0) == []
    assert office.tick(1209.9) == []
    assert office.tick(1210.0) == [SILENT]
    assert office.since_s() == 10.0
    assert office.tick(99999.0) == []
    assert office.heard(100000.0) == [ALIVE]
    assert office.since_s() is None
    assert office.tick(100000.1) == []


def test_a_long_gap_between_ticks_ends_communication_in_one_step():
    office = Office(row())
    office.heard(0.0)
    assert office.tick(5000.0) == [SILENT]


@pytest.mark.parametrize(
    ("known", "checks"),
    [
        # Never heard by this office, alive as far as is committed: counts from taking office.
        (row(ALIVE), [(299.9, []), (300.0, [STALLED]), (1199.9, []), (1200.0, [SILENT])]),
        # Stalled since 400 s before: the count goes on (1200 - 400), it does not restart.
        (row(STALLED, -400.0), [(799.9, []), (800.0, [SILENT])]),
        # Silent beyond all limits before: still nobody is declared inside the grace.
        (row(STALLED, -5000.0), [(0.0, []), (299.9, []), (300.0, [SILENT])]),
        # Already in no-communication: nothing more to say.
        (row(SILENT, -5000.0), [(0.0, []), (300.0, []), (5000.0, [])]),
        # Joined, never linked: there is nothing to be said before it comes.
        (row(SILENT, None), [(0.0, []), (5000.0, [])]),
        # A date in the future (a clock was wrong): counts from taking office, never negative.
        (row(STALLED, 3000.0), [(300.0, []), (1199.9, []), (1200.0, [SILENT])]),
    ],
)
def test_a_change_of_administrator_neither_restarts_the_count_nor_declares_anybody_in_its_grace(known, checks):
    office = Office(known)
    for at_s, expected in checks:
        assert office.tick(at_s) == expected, at_s
    if known.silent_since_ns is not None:
        assert office.rows["s"].silent_since_ns == known.silent_since_ns


def test_a_server_that_reports_inside_the_grace_is_alive_again():
    office = Office(row(STALLED, -5000.0))
    assert office.heard(5.0) == [ALIVE]
    assert office.tick(300.0) == []
    assert office.tick(305.0) == [STALLED]
    assert office.since_s() == 5.0


def test_a_jump_of_the_wall_clock_changes_nothing_but_what_is_shown():
    office = Office(row())
    office.heard(0.0)
    assert office.tick(1.0, wall_jump_s=86400.0) == []
    assert office.tick(299.0, wall_jump_s=-86400.0) == []
    assert office.tick(300.0) == [STALLED]


def test_a_transition_is_told_again_until_it_is_committed():
    watch = Watch(office_s=OFFICE_S, office_ns=WALL)
    watch.watch([row()])
    first = watch.handle(Tick(OFFICE_S + 300.0, WALL))
    assert first == watch.handle(Tick(OFFICE_S + 300.0, WALL))
    assert [one.liveness for one in first] == [STALLED]
    watch.watch([row(STALLED, 0.0)])
    assert watch.handle(Heard("s", OFFICE_S + 301.0)) == [Transition("s", ALIVE, None)]
    assert watch.handle(Tick(OFFICE_S + 302.0, WALL)) == [Transition("s", ALIVE, None)]


def test_each_server_has_its_own_limits_and_transitions_come_in_the_order_of_ids():
    quick = msgspec.structs.replace(row(server="z"), stalled_after_s=10.0, no_communication_after_s=5.0)
    office = Office(quick, row(server="a"))
    assert office.tick(10.0) == [STALLED]
    assert office.tick(15.0) == [SILENT]
    assert [one.server for one in office.watch.handle(Tick(OFFICE_S + 300.0, WALL))] == ["a"]


def test_what_is_not_watched_any_more_is_forgotten():
    office = Office(row())
    office.heard(0.0)
    office.watch.watch([])
    assert office.watch.handle(Heard("s", OFFICE_S + 1.0)) == []
    assert office.watch.handle(Tick(OFFICE_S + 9999.0, WALL)) == []
    assert office.watch.silent_for_s("s", OFFICE_S) is None


def test_longer_limits_do_not_bring_a_silent_server_back():
    office = Office(row())
    assert office.tick(1200.0) == [SILENT]
    office.rows["s"] = msgspec.structs.replace(office.rows["s"], stalled_after_s=5000.0)
    office.watch.watch(office.rows.values())
    assert office.tick(1300.0) == []
    assert office.tick(5100.0) == []


def test_silence_and_grace_can_be_asked_for():
    office = Office(row())
    assert not office.watch.grace_over("s", OFFICE_S + 299.0)
    office.heard(10.0)
    assert office.watch.grace_over("s", OFFICE_S + 11.0)
    assert office.watch.silent_for_s("s", OFFICE_S + 25.0) == 15.0


def test_messages_out_of_order_do_not_make_a_server_older():
    office = Office(row())
    office.heard(100.0)
    office.heard(50.0)
    assert office.tick(399.0) == []


@pytest.mark.parametrize(
    ("servers", "interval_s", "stalled_s"),
    [(1, 5.0, 300.0), (100, 5.0, 300.0), (200, 10.0, 300.0), (1000, 50.0, 300.0), (5000, 250.0, 1000.0)],
)
def test_with_many_servers_each_beats_more_rarely_and_is_given_four_beats_before_it_is_stalled(
    servers: int, interval_s: float, stalled_s: float
) -> None:
    assert heartbeat_interval_s(5.0, servers) == interval_s
    assert stalled_after_s(300.0, servers) == stalled_s
    assert servers / heartbeat_interval_s(5.0, servers) <= HEARTBEATS_PER_S
