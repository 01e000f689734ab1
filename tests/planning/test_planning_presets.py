"""Schedules as people say them, days without runs, and windows in which they may start."""

from __future__ import annotations

import datetime

import pytest
from msgspec.structs import replace

from caso_mesh.model.errors import CasoError, InvalidSchedule, InvalidValue, UnknownZone
from caso_mesh.model.hours import parse_window
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.planning.presets import parse_schedule, shown
from caso_mesh.planning.schedule import check_days, check_schedule, next_due_ns, preview
from caso_mesh.planning.window import check_inside, check_window, opens_ns

SECOND = 1_000_000_000
BERLIN = "Europe/Berlin"


def ns(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()) * SECOND


def utc(at_ns: int | None) -> str | None:
    return None if at_ns is None else f"{datetime.datetime.fromtimestamp(at_ns // SECOND, datetime.UTC):%Y-%m-%dT%H:%M}"


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("daily 22:00", "0 22 * * *"),
        ("daily 06:30,18:30", "30 6,18 * * *"),
        ("weekdays at 22:15", "15 22 * * 1,2,3,4,5"),
        ("mon,wed 22:00", "0 22 * * 1,3"),
        ("sat-sun 04:00", "0 4 * * 6,0"),
        ("Fri 22:00", "0 22 * * 5"),
        ("1st mon 22:00", "0 22 * * 1#1"),
        ("2nd fri of the month 22:00", "0 22 * * 5#2"),
        ("last sun 03:00", "0 3 * * 0L"),
        ("day 15 02:00", "0 2 15 * *"),
        ("last day 02:00", "0 2 L * *"),
        ("hourly", "0 * * * *"),
        ("hourly :30", "30 * * * *"),
        ("*/10 1 * * mon", "*/10 1 * * mon"),
    ],
)
def test_presets_are_cron_lines_with_another_face(text, cron):
    schedule = parse_schedule(text, BERLIN)
    assert (schedule.cron, schedule.zone) == (cron, BERLIN)
    check_schedule(schedule)
    assert parse_schedule(shown(schedule), BERLIN) == schedule, "what is shown is what may be written"


def test_the_nth_and_the_last_weekday_of_a_month():
    second = parse_schedule("2nd fri 22:00", "UTC")
    last = parse_schedule("last fri 22:00", "UTC")
    start, end = ns("2025-01-01"), ns("2025-04-01")
    assert [utc(due)[:10] for due in preview(second, start, end, 9)] == ["2025-01-10", "2025-02-14", "2025-03-14"]
    assert [utc(due)[:10] for due in preview(last, start, end, 9)] == ["2025-01-31", "2025-02-28", "2025-03-28"]
    month_end = parse_schedule("last day 02:00", BERLIN)
    assert [utc(due) for due in preview(month_end, start, end, 9)][1:] == ["2025-02-28T01:00", "2025-03-31T00:00"]


def test_once_at_is_due_once_by_the_clock_of_its_zone():
    once = parse_schedule("once 2025-07-01T02:00", BERLIN)
    assert utc(next_due_ns(once, 0)) == "2025-07-01T00:00"
    assert next_due_ns(once, ns("2025-07-01")) is None
    assert parse_schedule(shown(once), BERLIN) == once
    assert utc(next_due_ns(parse_schedule("once 2025-07-01T02:00Z", BERLIN), 0)) == "2025-07-01T02:00"


@pytest.mark.parametrize(
    "text",
    ["", "nightly", "daily", "daily 25:00", "daily 22:60", "daily 6:00,18:30", "6th fri 22:00", "day 0 22:00", "day 32 22:00",
     "fri", "once", "once tomorrow", "hourly 30", "0 22 * *", "funday 22:00", "last month 22:00"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_with_what_there_is(text):
    with pytest.raises(InvalidSchedule):
        parse_schedule(text, "UTC")
    with pytest.raises(UnknownZone):
        parse_schedule("daily 22:00", "Europe/Atlantis")


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6 *"])
def test_a_cron_line_that_never_fires_is_refused(cron):
    with pytest.raises(InvalidSchedule, match="no such date"):
        check_schedule(parse_schedule(cron, "UTC"))


def test_excluded_days_are_left_out_by_the_calendar_of_the_zone():
    daily = replace(parse_schedule("daily 00:30", BERLIN), excludes=("2025-12-24..2025-12-26", "2026-01-01"))
    dues = [utc(due) for due in preview(daily, ns("2025-12-23"), ns("2026-01-03"), 99)]
    # half past midnight in Berlin is the evening before in UTC
    assert dues == [
        "2025-12-26T23:30", "2025-12-27T23:30", "2025-12-28T23:30", "2025-12-29T23:30", "2025-12-30T23:30",
        "2026-01-01T23:30", "2026-01-02T23:30",
    ]  # fmt: skip
    assert "2025-12-23T23:30" not in dues, "that is the 24th in Berlin"
    assert "2025-12-31T23:30" not in dues, "that is New Year in Berlin"
    once = replace(parse_schedule("once 2025-12-25T02:00", BERLIN), excludes=daily.excludes)
    with pytest.raises(InvalidSchedule, match="no such date"):
        check_schedule(once)


@pytest.mark.parametrize("day", ["2025-13-01", "tomorrow", "2025-12-26..2025-12-24", "2000-01-01..2025-01-01", ""])
def test_what_is_no_day_is_refused(day):
    with pytest.raises(InvalidValue):
        check_days((day,))


@pytest.mark.parametrize(
    "fields", [{"start_window_s": 0.0}, {"cancel_after_s": 8 * 86400.0}, {"start_window_s": float("nan")}]
)
def test_windows_and_limits_out_of_bounds_are_refused(fields):
    with pytest.raises(InvalidValue):
        check_schedule(replace(CronSchedule("0 2 * * *", "UTC"), **fields))


NIGHTS = "zone Europe/Berlin; mon-fri 20:00-06:00; sat,sun"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("daily 22:00", True),
        ("tue,sat 05:59", True),
        ("daily 05:59", False),  # Monday's early hours belong to Sunday
        ("daily 06:00", False),
        ("sat 12:00", True),
        ("weekdays 12:00", False),
        ("hourly", False),
        ("day 15 22:00", True),
        ("day 15 12:00", False),
        ("2nd sat 12:00", True),
        ("tue 04:00", True),
        ("mon 04:00", False),
    ],
)
def test_a_schedule_that_can_start_outside_the_window_of_its_list_is_refused(text, inside):
    schedule = parse_schedule(text, BERLIN)
    if inside:
        check_inside(schedule, NIGHTS, ns("2025-01-01"))
        return
    with pytest.raises(InvalidSchedule, match="outside the window") as refused:
        check_inside(schedule, NIGHTS, ns("2025-01-01"))
    assert "day" in refused.value.message, "it says when"


def test_a_schedule_of_another_zone_is_judged_by_the_instants_it_comes_to():
    # 21:30 UTC is 22:30 in Berlin in winter, 23:30 in summer
    check_inside(parse_schedule("daily 21:30", "UTC"), "zone Europe/Berlin; 22:00-24:00", ns("2025-01-01"))
    with pytest.raises(InvalidSchedule, match="2025-03-30"):
        check_inside(parse_schedule("daily 22:30", "UTC"), "zone Europe/Berlin; 22:00-24:00", ns("2025-01-01"))
    with pytest.raises(InvalidSchedule):
        check_inside(parse_schedule("once 2025-01-01T12:00", BERLIN), "zone Europe/Berlin; 22:00-24:00", 0)


def test_a_window_says_when_it_opens():
    assert opens_ns("", 0) is None
    assert opens_ns(NIGHTS, ns("2025-01-06T22:00")) is None
    assert utc(opens_ns(NIGHTS, ns("2025-01-06T12:00:30"))) == "2025-01-06T19:00"
    assert utc(opens_ns("zone UTC; sun", ns("2025-01-06T12:00"))) == "2025-01-12T00:00"


@pytest.mark.parametrize("text", ["never", "mon-fri 20:00", "20:00-06:00;", "mon tue 20:00-21:00", "24:00-25:00", ";"])
def test_what_is_no_window_is_refused(text):
    with pytest.raises(InvalidValue):
        parse_window(text)


def test_a_window_in_an_unknown_zone_is_refused():
    with pytest.raises(CasoError) as refused:
        check_window("zone Europe/Atlantis; sat,sun")
    assert refused.value.code == "unknown-zone"
