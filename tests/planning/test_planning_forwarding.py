"""When job logs and history leave the server that has them."""

from __future__ import annotations

import datetime

import pytest

from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.settings import check_setting, parse_setting
from caso_mesh.planning.forwarding import may_leave


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp()) * 1_000_000_000


NIGHT, NOON = at("2025-03-05T23:00:00+01:00"), at("2025-03-05T12:00:00+01:00")


@pytest.mark.parametrize(
    ("forwarding", "running", "ended"),
    [("at-once", True, True), ("at-end", False, True), ("never", False, False)],
)
def test_it_leaves_at_once_at_the_end_of_the_job_or_never(forwarding, running, ended):
    for now_ns in (NIGHT, NOON):
        assert may_leave(forwarding, ended=False, now_ns=now_ns) is running
        assert may_leave(forwarding, ended=True, now_ns=now_ns) is ended


@pytest.mark.parametrize("ended", [True, False])
def test_on_a_schedule_it_leaves_in_the_hours_of_the_zone_that_is_named(ended):
    assert may_leave("zone Europe/Berlin; 20:00-06:00", ended=ended, now_ns=NIGHT)
    assert not may_leave("zone Europe/Berlin; 20:00-06:00", ended=ended, now_ns=NOON)
    assert not may_leave("zone Asia/Tokyo; 20:00-06:00", ended=ended, now_ns=NIGHT)
    assert may_leave("zone Asia/Tokyo; wed 20:00-06:00", ended=ended, now_ns=NOON)


@pytest.mark.parametrize("forwarding", ["of a later version", "zone Nowhere/City; 20:00-06:00", ""])
def test_what_is_not_understood_holds_nothing_back(forwarding):
    assert may_leave(forwarding, ended=False, now_ns=NOON)


@pytest.mark.parametrize("value", ["at-once", "at-end", "never", "mon-fri 20:00-06:00; sat,sun"])
def test_job_log_forwarding_is_at_once_at_the_end_in_hours_or_never(value):
    assert parse_setting("joblog-forwarding", f"  {value} ") == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("joblog-forwarding", "sometimes"),
        ("joblog-forwarding", "25:00-26:00"),
        ("joblog-forwarding", ""),
        ("joblog-forwarding", 1.0),
        ("history-forwarding", "at-once"),
        ("history-forwarding", "20:00-06:00"),
        ("history-forwarding", 0.0),
    ],
)
def test_what_is_no_way_of_forwarding_is_refused(name, value):
    with pytest.raises(InvalidValue):
        check_setting(name, value)


def test_history_forwarding_is_at_the_end_of_the_job_or_never():
    assert [parse_setting("history-forwarding", text) for text in ("at-end", "never")] == ["at-end", "never"]
