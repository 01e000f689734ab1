"""Schedules over changes of daylight saving, in both directions, and in a zone that moves by half an hour."""

from __future__ import annotations

import datetime
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.model.errors import InvalidSchedule, UnknownZone
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.planning.schedule import check_schedule, next_due_ns, preview

SECOND = 1_000_000_000
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def ns(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()) * SECOND


def utc(at_ns: int) -> str:
    return f"{datetime.datetime.fromtimestamp(at_ns // SECOND, datetime.UTC):%Y-%m-%dT%H:%M}"


def dues(cron: str, zone: str, start: str, end: str) -> list[str]:
    return [utc(due) for due in preview(CronSchedule(cron, zone), ns(start), ns(end), 1000)]


@pytest.mark.parametrize(
    ("cron", "zone", "start", "end", "expected"),
    [
        # Berlin 2025-03-30: 02:00 -> 03:00 at 01:00 UTC. 02:30 is skipped and runs at 03:00 local.
        (
            "30 2 * * *",
            BERLIN,
            "2025-03-29",
            "2025-04-01",
            ["2025-03-29T01:30", "2025-03-30T01:00", "2025-03-31T00:30"],
        ),
        # Both 02:30 (skipped) and 03:00 fall on one instant: one run.
        ("0,30 2-3 * * *", BERLIN, "2025-03-30", "2025-03-31", ["2025-03-30T01:00", "2025-03-30T01:30"]),
        # A star for the minutes skips no day either.
        ("*/15 2 * * *", BERLIN, "2025-03-30", "2025-03-31", ["2025-03-30T01:00"]),
        # Berlin 2025-10-26: 03:00 -> 02:00 at 01:00 UTC. 02:30 comes twice and runs once, the first time.
        (
            "30 2 * * *",
            BERLIN,
            "2025-10-25",
            "2025-10-28",
            ["2025-10-25T00:30", "2025-10-26T00:30", "2025-10-27T01:30"],
        ),
        (
            "*/30 2 * * *",
            BERLIN,
            "2025-10-26",
            "2025-10-27",
            ["2025-10-26T00:00", "2025-10-26T00:30"],
        ),
        ("0 3 * * *", BERLIN, "2025-10-26", "2025-10-27", ["2025-10-26T02:00"]),
        # New York 2025-03-09: 02:00 -> 03:00 at 07:00 UTC; 2025-11-02: 02:00 -> 01:00 at 06:00 UTC.
        ("30 2 * * *", NEW_YORK, "2025-03-09", "2025-03-10", ["2025-03-09T07:00"]),
        ("30 1 * * *", NEW_YORK, "2025-11-02", "2025-11-03", ["2025-11-02T05:30"]),
        ("0 */2 * * *", NEW_YORK, "2025-11-02T04:00", "2025-11-02T09:00", ["2025-11-02T04:00", "2025-11-02T07:00"]),
        # Lord Howe 2025-10-05: 02:00 -> 02:30 at 15:30 UTC the day before; 2025-04-06: 02:00 -> 01:30 at 15:00 UTC.
        ("15 2 * * *", LORD_HOWE, "2025-10-04T12:00", "2025-10-05T12:00", ["2025-10-04T15:30"]),
        ("45 2 * * *", LORD_HOWE, "2025-10-04T12:00", "2025-10-05T12:00", ["2025-10-04T15:45"]),
        ("45 1 * * *", LORD_HOWE, "2025-04-05T12:00", "2025-04-06T12:00", ["2025-04-05T14:45"]),
        ("0 2 * * *", LORD_HOWE, "2025-04-05T12:00", "2025-04-06T12:00", ["2025-04-05T15:30"]),
        # Midnight itself is skipped in Havana on 2025-03-09.
        ("0 0 * * *", "America/Havana", "2025-03-09", "2025-03-10", ["2025-03-09T05:00"]),
        # A whole day that never was (Apia crossed the date line on 2011-12-30): at the next instant, once with the 31st.
        (
            "0 0 * * *",
            "Pacific/Apia",
            "2011-12-29",
            "2012-01-01",
            ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"],
        ),
        ("0 2 * * *", "Etc/UTC", "2025-03-30", "2025-03-31", ["2025-03-30T02:00"]),
        ("0 2 * * MON#1", BERLIN, "2025-06-01", "2025-07-01", ["2025-06-02T00:00"]),
        ("0 2 L * *", BERLIN, "2025-06-01", "2025-07-01", ["2025-06-30T00:00"]),
        ("0 2 * * mon-fri", BERLIN, "2025-06-06", "2025-06-10", ["2025-06-06T00:00", "2025-06-09T00:00"]),
    ],
)
def test_due_times_around_changes_of_the_clock(cron, zone, start, end, expected):
    assert dues(cron, zone, start, end) == expected


@pytest.mark.parametrize("cron", ["0 * * * *", "0 0-23 * * *", "30 */1 * * *"])
@pytest.mark.parametrize("day", ["2025-03-30", "2025-10-26"])
def test_an_hourly_schedule_runs_each_hour_of_elapsed_time_through_both_changes(cron, day):
    found = preview(CronSchedule(cron, BERLIN), ns(day), ns(day) + 6 * 3600 * SECOND, 100)
    assert {later - one for one, later in itertools.pairwise(found)} == {3600 * SECOND}
    assert len(found) == 6


def test_the_next_due_time_lies_after_the_given_instant_even_by_a_nanosecond():
    schedule = CronSchedule("0 2 * * *", "Etc/UTC")
    due = ns("2025-05-01T02:00")
    assert next_due_ns(schedule, due - 1) == due
    assert next_due_ns(schedule, due) == ns("2025-05-02T02:00")
    assert preview(schedule, due, due + 1, 5) == [due]
    assert preview(schedule, due, due, 5) == []
    assert len(preview(schedule, due, ns("2026-05-01"), 3)) == 3


@given(
    after=st.integers(ns("2020-01-01"), ns("2030-01-01")),
    cron=st.sampled_from(["30 2 * * *", "15 1,2 * * *", "*/20 2-3 * * *", "0 0 * * 0", "45 23 L * *", "0 */6 * * *"]),
    zone=st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "America/Sao_Paulo", "Asia/Tehran", "Africa/Casablanca"]),
)
@settings(deadline=None, max_examples=150)
def test_due_times_rise_and_do_not_depend_on_where_one_starts_to_look(after, cron, zone):
    schedule = CronSchedule(cron, zone)
    first = next_due_ns(schedule, after)
    assert first is not None
    assert first > after
    second = next_due_ns(schedule, first)
    assert second is not None
    assert second > first
    middle = (after + first) // 2
    if middle < first:
        assert next_due_ns(schedule, middle) == first
    assert next_due_ns(schedule, (first + second) // 2) == second


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "0 2 * *",
        "0 0 2 * * *",
        "@daily",
        "60 2 * * *",
        "0 24 * * *",
        "0 2 30 2 *",
        "0 2 * * MON#6",
        "*/0 * * * *",
        "5-1 * * * *",
        "x * * * *",
        "0 2 * * " + "1," * 200 + "1",
        "9" * 5000 + " * * * *",
    ],
)
def test_what_is_no_schedule_is_refused(cron):
    with pytest.raises(InvalidSchedule):
        check_schedule(CronSchedule(cron, BERLIN))


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "Europe/Berlin/", "/etc/localtime", "Europe", "zone1970.tab"]
)
def test_what_is_no_zone_is_refused(zone):
    with pytest.raises(UnknownZone):
        check_schedule(CronSchedule("0 2 * * *", zone))


def test_the_calendar_ends_without_an_error():
    schedule = CronSchedule("0 2 * * *", BERLIN)
    assert next_due_ns(schedule, (1 << 63) - 1) is not None
    assert next_due_ns(schedule, 1 << 70) is None
    assert next_due_ns(CronSchedule("0 0 29 2 *", BERLIN), ns("2025-01-01")) == ns("2028-02-28T23:00")
