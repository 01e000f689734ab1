"""A day of a site in the mesh simulator: twelve servers, three pools, forty lists, and what went wrong that night."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from mesh.day.expected import Due, due_runs, due_times
from mesh.day.judging import judge
from mesh.day.night import HOUR, MINUTE, live, quick_night, real_night, simulated_day
from mesh.day.site import QUICK, REAL, site

from caso_mesh.planning.presets import parse_schedule
from caso_mesh.planning.schedule import preview

SECOND = 1_000_000_000
#: 02:30 in Berlin and 01:30 in London: skipped in March, so that they are the end of the gap; in October the first of two.
SPRING = datetime(2025, 3, 30, 1, 0, tzinfo=UTC)
AUTUMN = datetime(2025, 10, 26, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sunday", "nightly", "hours"), [(SPRING, SPRING, 24), (AUTUMN, AUTUMN, 24)], ids=["spring", "autumn"]
)
def test_what_is_expected_of_a_day_is_what_people_expect(sunday: datetime, nightly: datetime, hours: int) -> None:
    midnight = sunday.replace(hour=0, minute=0)
    due = due_runs(site(REAL), midnight - HOUR, midnight + (hours - 1) * HOUR)
    assert due[Due(nightly, "alpha-1", "monthly")] is None
    assert due[Due(nightly, "alpha-1", "weekly")] == "monthly"
    assert due[Due(nightly, "alpha-1", "daily")] == "monthly"
    assert due[Due(nightly, "zeta-1", "full")] is None
    assert due[Due(nightly, "zeta-1", "daily")] is None
    assert len([each for each in due if each.list == "mu-log"]) == 2 * hours
    assert len([each for each in due if each.list == "alpha-1"]) == 3


@pytest.mark.parametrize("sunday", [SPRING, AUTUMN], ids=["spring", "autumn"])
def test_what_is_expected_is_due_by_the_calendar_of_the_product_too(sunday: datetime) -> None:
    """Worked out from the clocks on the wall, minute by minute, and from the cron lines."""
    since, until = sunday - 80 * HOUR, sunday + 80 * HOUR
    schedules = {made.when for plan in site(REAL).plans.values() for made in plan.templates if made.when is not None}
    assert len(schedules) == 8
    for when in schedules:
        schedule = parse_schedule(when.text, when.zone)
        found = preview(
            schedule, round((since + MINUTE).timestamp()) * SECOND, round(until.timestamp()) * SECOND, 10_000
        )
        assert [datetime.fromtimestamp(due // SECOND, UTC) for due in found] == list(due_times(when, since, until)), (
            when
        )


def test_a_night_of_a_site_in_less_than_an_hour() -> None:
    with simulated_day(site(QUICK), quick_night(SPRING)) as (runner, story):
        runner.run(live(story, judge))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("due", [SPRING, AUTUMN], ids=["spring", "autumn"])
def test_a_day_of_a_site_as_long_as_it_is(due: datetime) -> None:
    """Twenty-four hours, around either change of the clocks: three minutes of CPU each."""
    with simulated_day(site(REAL), real_night(due)) as (runner, story):
        runner.run(live(story, judge))
