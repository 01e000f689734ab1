"""How long bytes wait under a limit of bandwidth."""

from __future__ import annotations

import pytest

from caso_mesh.planning.pacing import STEP_S, portion, reserve


def test_bytes_have_gone_when_their_time_is_over_and_not_before():
    free_at_s = 100.0
    for _ in range(3):
        free_at_s = reserve(free_at_s, 100.0, 1_000_000, 1_000_000)
    assert free_at_s == 103.0


def test_who_sent_nothing_for_long_saves_nothing_up():
    assert reserve(100.0, 5000.0, 500, 1000) == 5000.5


def test_an_instant_of_before_a_restart_of_the_machine_holds_nobody_up():
    assert reserve(1_000_000.0, 20.0, 500, 1000) == 20.5


@pytest.mark.parametrize("rate", [1000, 1_000_000, 3 * 10**12])
def test_what_is_paid_at_once_is_little_time_but_always_something(rate):
    paid = portion(10**15, rate)
    assert 0 < paid <= max(1, rate * STEP_S)
    assert portion(1, rate) == 1
