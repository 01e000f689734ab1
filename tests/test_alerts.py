"""The table of alerts is what the code raises."""

from __future__ import annotations

from alert_source import raised

from caso_mesh.model.alerts import BY_NAME, CATEGORIES
from caso_mesh.model.states import AlertKind


def test_each_category_is_raised_with_the_types_that_the_table_says():
    assert {name: set(BY_NAME[name].types) for name in BY_NAME} == {
        name: kinds for name, kinds in raised().items() if name in BY_NAME
    }


def test_what_needs_attention_is_never_answered_by_nobody():
    for each in CATEGORIES:
        if AlertKind.ATTENTION in each.types:
            assert each.response == "", f"{each.name}: an answer lets something happen"


def test_the_table_is_in_order_and_says_what_to_do():
    assert list(BY_NAME) == sorted(BY_NAME) and len(BY_NAME) == len(CATEGORIES)
    assert all(each.text.endswith(".") and each.do for each in CATEGORIES)
