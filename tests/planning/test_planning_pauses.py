"""What fails is left alone for longer and longer, by chance, and tried at once when there is a reason."""

from __future__ import annotations

import random

from caso_mesh.planning.pauses import Pauses


def test_pauses_double_up_to_the_longest_and_at_least_half_of_each_is_certain():
    pauses = Pauses(first_s=2.0, longest_s=60.0, randomness=random.Random(3).randbytes)
    now_s, found = 100.0, []
    for _ in range(9):
        pauses.failed("set", now_s)
        pause_s = pauses.next_s(now_s)
        found.append(pause_s)
        assert not pauses.is_due("set", now_s + pause_s - 0.001) and pauses.is_due("set", now_s + pause_s)
        now_s += pause_s
    for pause_s, longest_s in zip(found, (2, 4, 8, 16, 32, 60, 60, 60, 60), strict=True):
        assert longest_s / 2 <= pause_s < longest_s
    assert len(set(found[5:])) == 4, "by chance"


def test_what_worked_or_may_work_is_due_at_once_and_begins_with_a_first_pause():
    pauses = Pauses(first_s=2.0, longest_s=60.0, randomness=bytes)
    for _ in range(5):
        pauses.failed("one", 0.0)
    pauses.failed("other", 0.0)
    assert pauses.next_s(0.0) == 1.0 and not pauses.is_due("one", 15.0)
    pauses.over("one")
    assert pauses.is_due("one", 0.0) and pauses.is_due("unknown", 0.0)
    pauses.failed("one", 0.0)
    assert pauses.is_due("one", 1.0)
    pauses.keep(["unknown"])
    assert pauses.next_s(0.0) is None and pauses.is_due("other", 0.0)
