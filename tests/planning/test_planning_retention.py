"""Which sets go and which stay: the rows of the domain about media sets, and what must hold for any sets at all."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet, MediaSet, Medium
from caso_mesh.planning.retention import Keep, Line, Verdict, judge

SECOND = 1_000_000_000
HOUR, DAY = 3600 * SECOND, 86400 * SECOND
NOW = 20_000 * DAY


def backup_set(id: str, ended_at_ns: int, **more: Any) -> BackupSet:
    values: dict[str, Any] = {
        "source": "src", "server": "srv", "device": "disk", "medium": "SRV-000001", "media_set": "m", "job": "job",
        "type": BackupType.FULL, "roots": (b"srv",), "parent": None,
    } | more  # fmt: skip
    return BackupSet(
        id=id, mesh="mesh", vault="vault", source_name="src", server_name="srv", device_name="disk", run="run",
        attempt="attempt", started_at_ns=ended_at_ns - 5, ended_at_ns=ended_at_ns, filters=b"", root=b"", files=0,
        entries=0, bytes=0, bytes_read=0, bytes_stored=0, exceptions=0, **values,
    )  # fmt: skip


def kept_for(days: float | None, *, protection: float | None = 0.0, **counts: int) -> MediaSet:
    keep_s = None if days is None else days * 86400.0
    return MediaSet("m", 6 * 86400.0, None if protection is None else protection * 86400.0, keep_s, **counts)


def verdicts(sets: list[BackupSet], *media_sets: MediaSet, zone: str = "UTC", **more: Any) -> dict[str, Verdict]:
    values: dict[str, Any] = {
        "media": {}, "locks": {}, "redundant": (), "now_ns": NOW,
        "line_of": lambda each: Line((each.job, each.source), zone),
    } | more  # fmt: skip
    return judge(sets, media_sets={each.name: each for each in media_sets}, **values)


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp()) * SECOND


def test_a_set_goes_when_its_retention_and_the_protection_of_its_medium_are_over_and_not_before():
    sets = [backup_set("old", NOW - 28 * DAY), backup_set("new", NOW - 20 * DAY)]
    both = kept_for(28.0, protection=10.0)
    assert verdicts(sets, both)["old"].kept_by == (Keep.RETENTION,)
    assert verdicts(sets, both, now_ns=NOW + 1)["old"].goes
    # the protection counts from the last write to the medium, which is the newer set
    longer = kept_for(28.0, protection=20.0)
    assert verdicts(sets, longer)["old"].kept_by == (Keep.RETENTION, Keep.PROTECTION)
    assert verdicts(sets, longer, now_ns=NOW + 1)["old"].goes
    # also of what is not there any more
    record = Medium("SRV-000001", "disk", "m", "srv", 0, NOW - 5 * DAY, None)
    found = verdicts(sets, longer, now_ns=NOW + 1, media={("srv", "SRV-000001"): record})["old"]
    assert found.kept_by == (Keep.PROTECTION,)
    assert found.expires_at_ns == found.protected_until_ns == NOW + 15 * DAY


def test_a_locked_set_stays_until_its_lock_ends():
    sets = [backup_set("old", NOW - 50 * DAY), backup_set("new", NOW - HOUR)]
    assert verdicts(sets, kept_for(1.0), locks={"old": NOW})["old"].kept_by == (Keep.LOCKED,)
    assert verdicts(sets, kept_for(1.0), locks={"old": NOW - 1})["old"].goes
    endless = verdicts(sets, kept_for(1.0), locks={"old": None})["old"]
    assert (endless.kept_by, endless.expires_at_ns, endless.protected_until_ns) == ((Keep.LOCKED,), None, None)


def test_the_last_good_set_of_a_line_never_goes_by_itself_whatever_medium_and_media_set_it_is_of():
    sets = [
        backup_set("a-old", NOW - 900 * DAY, job="a"),
        backup_set("a-last", NOW - 800 * DAY, job="a", media_set="n", medium="SRV-000002"),
        backup_set("b-last", NOW - 1000 * DAY, job="b"),
        backup_set("c-last", NOW - 900 * DAY, job="a", source="other"),
    ]
    found = verdicts(sets, kept_for(1.0), MediaSet("n", None, 0.0, 86400.0))
    assert [id for id, each in found.items() if each.goes] == ["a-old"]
    assert {id for id, each in found.items() if each.kept_by == (Keep.LAST_GOOD,)} == {"a-last", "b-last", "c-last"}


def test_a_redundant_set_is_never_the_last_good_one_and_takes_no_place_among_those_kept_by_number():
    sets = [
        backup_set("first", NOW - 90 * DAY),
        backup_set("good", NOW - 80 * DAY),
        backup_set("twice", NOW - 70 * DAY),
    ]
    found = verdicts(sets, kept_for(1.0, keep_last=2), redundant={"twice"})
    assert found["twice"].goes
    assert found["good"].kept_by == (Keep.LAST_GOOD, Keep.LAST)
    assert found["first"].kept_by == (Keep.LAST,)


def test_what_lies_on_a_device_that_nobody_reaches_makes_no_other_set_dispensable():
    sets = [backup_set("here", NOW - 90 * DAY), backup_set("lost", NOW - 80 * DAY, device="gone")]
    found = verdicts(sets, kept_for(1.0), away={"gone"})
    assert found["here"].kept_by == (Keep.LAST_GOOD,)
    assert verdicts(sets, kept_for(1.0))["here"].goes


def test_what_an_incremental_was_measured_against_may_go_before_it_since_each_set_is_a_complete_tree():
    sets = [
        backup_set("full", NOW - 40 * DAY),
        backup_set("inc", NOW - 2 * DAY, type=BackupType.INCREMENTAL, parent="full", medium="SRV-000002"),
    ]
    found = verdicts(sets, kept_for(30.0))
    assert found["full"].goes
    assert not found["inc"].goes


def test_the_sets_that_a_synthetic_full_was_made_of_expire_and_it_stays_as_the_last_good_one():
    days = (40, 36, 35)
    sets = [backup_set(f"z{number}", NOW - day * DAY, type=BackupType.INCREMENTAL) for number, day in enumerate(days)]
    made = backup_set("a", NOW - 35 * DAY, made_of="z2")
    found = verdicts([*sets, made], kept_for(28.0))
    assert [found[each.id].goes for each in sets] == [True, True, True]
    assert found["a"].kept_by == (Keep.LAST_GOOD,)
    monthly = kept_for(28.0, keep_monthly=1)
    assert verdicts([*sets, made], monthly)["a"].kept_by == (Keep.LAST_GOOD, Keep.MONTHLY)
    assert verdicts([*sets, made], monthly)["z2"].goes


def test_a_set_of_a_media_set_that_is_not_known_stays():
    sets = [backup_set("old", NOW - 900 * DAY, media_set="imported"), backup_set("new", NOW - HOUR)]
    assert verdicts(sets, kept_for(1.0))["old"].kept_by == (Keep.NO_MEDIA_SET,)


def test_a_set_on_a_device_of_another_mesh_stays_and_makes_no_other_set_dispensable():
    sets = [
        backup_set("here", NOW - 90 * DAY),
        backup_set("old", NOW - 900 * DAY, device="came"),
        backup_set("newer", NOW - 80 * DAY, device="came", media_set="nobody-knows"),
    ]
    found = verdicts(sets, kept_for(1.0), imported={"came"})
    assert {id: each.kept_by for id, each in found.items()} == {
        "here": (Keep.LAST_GOOD,), "old": (Keep.IMPORTED,), "newer": (Keep.IMPORTED,),
    }  # fmt: skip
    assert found["old"].expires_at_ns is None and found["old"].protected_until_ns is None


def test_grandfather_father_son_keeps_the_newest_set_of_each_day_week_month_and_year():
    first = datetime.datetime(2025, 1, 1, 22, tzinfo=datetime.UTC)
    days = [first + datetime.timedelta(days=day) for day in range(400)]
    sets = [backup_set(f"{day:%Y-%m-%d}", int(day.timestamp()) * SECOND) for day in days]
    policy = kept_for(0.0, keep_daily=3, keep_weekly=3, keep_monthly=3, keep_yearly=2)
    found = verdicts(sets, policy, now_ns=int(days[-1].timestamp()) * SECOND + DAY)
    kept = {id: each.kept_by for id, each in found.items() if not each.goes}
    assert kept == {
        "2026-02-04": (Keep.LAST_GOOD, Keep.DAILY, Keep.WEEKLY, Keep.MONTHLY, Keep.YEARLY),
        "2026-02-03": (Keep.DAILY,),
        "2026-02-02": (Keep.DAILY,),
        "2026-02-01": (Keep.WEEKLY,),  # a Sunday
        "2026-01-31": (Keep.MONTHLY,),
        "2026-01-25": (Keep.WEEKLY,),
        "2025-12-31": (Keep.MONTHLY, Keep.YEARLY),
    }


def test_days_begin_by_the_zone_of_the_schedule():
    # both on the 8th in UTC, on the 8th and the 9th in Auckland
    sets = [backup_set("evening", at("2025-01-08T10:00+00:00")), backup_set("night", at("2025-01-08T12:00+00:00"))]
    daily = kept_for(0.0, keep_daily=2)
    later = at("2025-02-01T00:00+00:00")
    assert verdicts(sets, daily, now_ns=later)["evening"].goes
    found = verdicts(sets, daily, zone="Pacific/Auckland", now_ns=later)
    assert found["evening"].kept_by == (Keep.DAILY,)


SETS = st.lists(
    st.builds(
        lambda number, hours, **more: (number, hours, more),
        st.integers(0, 10**9),
        st.integers(1, 24 * 900),
        job=st.sampled_from("ab"),
        source=st.sampled_from("xy"),
        device=st.sampled_from(("disk", "gone")),
        media_set=st.sampled_from(("m", "n")),
        medium=st.sampled_from(("SRV-000001", "SRV-000002")),
    ),
    max_size=40,
    unique_by=lambda made: made[0],
).map(lambda made: [backup_set(f"set{number}", NOW - hours * HOUR, **more) for number, hours, more in made])
DAYS = st.none() | st.integers(0, 400).map(float)
COUNT = st.integers(0, 4)


@settings(max_examples=100, deadline=None)
@given(
    sets=SETS,
    keep=DAYS,
    protection=DAYS,
    counts=st.fixed_dictionaries({f"keep_{what}": COUNT for what in ("last", "daily", "weekly", "monthly", "yearly")}),
    locked=st.sets(st.integers(0, 39)),
    doubled=st.sets(st.integers(0, 39)),
    later=st.integers(0, 300),
)
def test_for_any_sets_nothing_goes_that_must_stay_and_judging_again_changes_nothing(
    sets, keep, protection, counts, locked, doubled, later
):
    m, n = kept_for(keep, protection=protection, **counts), MediaSet("n", None, 0.0, 30 * 86400.0)
    locks = {each.id: NOW + 100 * DAY for number, each in enumerate(sets) if number in locked}
    redundant = {each.id for number, each in enumerate(sets) if number in doubled}
    more = {"locks": locks, "redundant": redundant, "away": {"gone"}, "now_ns": NOW + later * DAY}
    found = verdicts(sets, m, n, **more)
    left = [each for each in sets if not found[each.id].goes]
    for each in sets:
        if not found[each.id].goes:
            continue
        media_set = m if each.media_set == "m" else n
        assert media_set.keep_s is not None
        assert media_set.protection_s is not None
        last_write = max(other.ended_at_ns for other in sets if other.medium == each.medium)
        assert NOW + later * DAY > each.ended_at_ns + media_set.keep_s * SECOND
        assert NOW + later * DAY > last_write + media_set.protection_s * SECOND
        assert each.id not in locks or later > 100
        assert found[each.id].expires_at_ns < NOW + later * DAY
    # every line that had a good set within reach has one, and it is the newest
    for line in {(each.job, each.source) for each in sets}:
        good = [
            each
            for each in sets
            if (each.job, each.source) == line and each.id not in redundant and each.device != "gone"
        ]
        if good:
            assert max(good, key=lambda each: (each.ended_at_ns, each.id)) in left
    # as many days as it should be, if there were so many
    for what, period in (("daily", "%Y-%j"), ("weekly", "%G-%V"), ("monthly", "%Y-%m"), ("yearly", "%Y")):
        for line in {(each.job, each.source) for each in sets}:
            counted = [e for e in sets if (e.job, e.source, e.media_set) == (*line, "m") and e.id not in redundant]
            shown = {
                each.id: datetime.datetime.fromtimestamp(each.ended_at_ns / SECOND, datetime.UTC).strftime(period)
                for each in counted
            }
            kept = [shown[each.id] for each in counted if Keep(what) in found[each.id].kept_by]
            assert len(kept) == len(set(kept)) == min(len(set(shown.values())), counts[f"keep_{what}"])
            assert set(kept) == set(sorted(set(shown.values()))[::-1][: counts[f"keep_{what}"]])
    again = verdicts(left, m, n, **more)
    assert not [id for id, each in again.items() if each.goes]
