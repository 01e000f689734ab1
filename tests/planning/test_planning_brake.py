"""The ransomware brake: what looks as if somebody had encrypted it, and what does not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from planning.test_planning_retention import DAY, NOW, backup_set

from caso_mesh.model.storage import BackupSet
from caso_mesh.planning.brake import suspicion

MB = 1_000_000


def night(number: int, read: int, stored: int, *, full: bool = False, total: int = 100 * MB) -> BackupSet:
    made = backup_set(f"set{number}", NOW + number * DAY, parent=None if full else "before")
    return replace(made, bytes=total, bytes_read=read, bytes_stored=stored)


USUAL = [night(number, 5 * MB, 2 * MB) for number in range(5)]
FULLS = [night(number, 100 * MB, 3 * MB, full=True) for number in range(5)]


def test_more_than_half_changed_and_stored_for_read_doubled_is_suspicious():
    found = suspicion(night(9, 60 * MB, 59 * MB), USUAL)
    assert found is not None
    assert (found.changed, round(found.ratio, 2), found.usual) == (0.6, 0.98, 0.4)


@pytest.mark.parametrize(
    ("read", "stored"),
    [(50 * MB, 49 * MB), (60 * MB, 40 * MB), (100 * MB, 30 * MB), (0, 0)],
    ids=["half changed", "it compresses", "all changed, and compresses as ever", "nothing read"],
)
def test_one_of_the_two_alone_is_not(read, stored):
    assert suspicion(night(9, read, stored), USUAL) is None


def test_of_a_full_set_what_is_new_is_what_was_stored_and_it_is_compared_with_full_ones():
    assert suspicion(night(9, 100 * MB, 98 * MB, full=True), [*FULLS, *USUAL]) is not None
    assert suspicion(night(9, 100 * MB, 40 * MB, full=True), [*FULLS, *USUAL]) is None
    assert suspicion(night(9, 100 * MB, 98 * MB, full=True), USUAL) is None, "the first full one"


def test_only_the_last_five_count_and_none_without_three():
    old = [night(number, 5 * MB, round(0.5 * MB)) for number in range(-20, -10)]
    photos = [night(number, 5 * MB, 5 * MB) for number in range(5)]
    assert suspicion(night(9, 60 * MB, 59 * MB), [*old, *photos]) is None, "what never compressed tells nothing"
    assert suspicion(night(9, 60 * MB, 59 * MB), USUAL[:2]) is None
    later = [night(number, 5 * MB, 5 * MB) for number in range(20, 30)]
    assert suspicion(night(9, 60 * MB, 59 * MB), [*USUAL, *later]) is not None


def test_nights_with_hardly_a_change_are_mostly_bookkeeping_and_hide_nothing():
    quiet = [night(number, 1000, 90_000) for number in range(5)]
    assert suspicion(night(9, 95 * MB, 94 * MB), quiet) is not None
    assert suspicion(night(9, 95 * MB, 40 * MB), quiet) is None
