"""What is known against a set, and for which uses a rule passes it over."""

from __future__ import annotations

import pytest

from caso_mesh.model.jobs import Failure
from caso_mesh.planning.choosing import Damage, Flaw, Flaws, Use, is_damage

DAMAGE = Damage("run", 7, Failure("data-damaged", {"object": "packs/1", "detail": "it is not what it was"}))
FLAWS = Flaws(frozenset({"lost", "lost-and-bad"}), {"bad": DAMAGE, "lost-and-bad": DAMAGE}, frozenset({"second"}))


@pytest.mark.parametrize(
    ("use", "barred"),
    [
        (Use.READ, {"lost", "lost-and-bad", "bad"}),
        (Use.COPY, {"lost", "lost-and-bad", "bad", "second"}),
        (Use.BUILD, {"lost", "lost-and-bad", "bad", "second"}),
        (Use.CHECK, {"lost", "lost-and-bad", "second"}),
        (Use.COUNT, {"lost", "lost-and-bad", "bad", "second"}),
    ],
)
def test_each_use_bars_what_it_cannot_do_with_and_each_set_is_barred_as_all_are(use: Use, barred: set[str]) -> None:
    assert FLAWS.barred(use) == barred
    for each in ("lost", "bad", "second", "lost-and-bad", "whole"):
        assert (FLAWS.bars(each, use) is not None) is (each in barred)


def test_the_worst_is_told_first() -> None:
    assert FLAWS.of("lost-and-bad") == [Flaw.MISSING, Flaw.DAMAGED]
    assert FLAWS.bars("lost-and-bad", Use.READ) is Flaw.MISSING
    assert FLAWS.bars("bad", Use.CHECK) is None, "only a check can tell that it is whole again"
    assert FLAWS.of("whole") == []


@pytest.mark.parametrize(("code", "damage"), [("object-missing", True), ("seal-broken", True), ("device-away", False)])
def test_what_says_nothing_of_the_content_is_no_damage(code: str, damage: bool) -> None:
    assert is_damage(Failure(code)) is damage
    assert not is_damage(None)
