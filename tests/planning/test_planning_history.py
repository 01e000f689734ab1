"""What is learnt of the last nights: how long backups take, how much they store, how fast servers are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.model.states import BackupType
from caso_mesh.planning.history import History, Prediction, Sample

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL


def sample(
    job: str, seconds: float, where: str = "a", type: BackupType = FULL, stored: int = 100, source="src"
) -> Sample:
    return Sample(job, source, type, where, f"disk-{where}", seconds, stored)


def test_of_what_never_ran_nothing_is_predicted():
    assert History().predict("job", "src", FULL) == Prediction()
    assert History([sample("other", 9.0)]).predict("job", "src", FULL).seconds is None


def test_a_job_is_predicted_to_take_what_the_middle_one_of_its_last_backups_took():
    took = [100.0, 110.0, 5000.0, 90.0, 105.0]
    predicted = History(sample("job", seconds) for seconds in took).predict("job", "src", FULL)
    assert predicted.seconds == pytest.approx(105.0)


def test_a_full_stores_what_is_new_where_sets_of_the_source_are_and_all_of_it_elsewhere():
    newest_first = [sample("job", 9.0, stored=size) for size in (30, 10, 20, 7000)]
    predicted = History(newest_first).predict("job", "src", FULL)
    assert (predicted.bytes, predicted.elsewhere_bytes) == (20, 7000)
    moved = History([*newest_first, sample("job", 9.0, "b", stored=6000)]).predict("job", "src", FULL)
    assert (moved.bytes, moved.elsewhere_bytes) == (20, 7000)


def test_after_a_single_backup_nobody_knows_what_the_next_one_will_store_beside_it():
    predicted = History([sample("job", 9.0, stored=7000)]).predict("job", "src", FULL)
    assert (predicted.bytes, predicted.elsewhere_bytes) == (0, 7000)


def test_what_is_long_ago_does_not_count():
    newest_first = [sample("job", 10.0)] * 7 + [sample("job", 9000.0)] * 50
    assert History(newest_first).predict("job", "src", FULL).seconds == pytest.approx(10.0)


def test_each_type_and_each_source_is_predicted_by_itself():
    history = History(
        [
            sample("job", 1000.0),
            sample("job", 50.0, type=INCREMENTAL),
            sample("job", 7.0, source="other", type=INCREMENTAL),
        ]
    )
    assert history.predict("job", "src", INCREMENTAL).seconds == pytest.approx(50.0)
    assert history.predict("job", "other", INCREMENTAL).seconds == pytest.approx(7.0)


def test_elsewhere_an_incremental_takes_what_a_full_takes():
    history = History([sample("job", 50.0, type=INCREMENTAL), sample("weekly", 1000.0)])
    assert history.predict("job", "src", INCREMENTAL).elsewhere_s == pytest.approx(1000.0)
    assert history.predict("weekly", "src", FULL).elsewhere_s is None


def test_an_incremental_that_never_ran_is_predicted_like_the_full_of_its_job():
    assert History([sample("job", 1000.0)]).predict("job", "src", INCREMENTAL).seconds == pytest.approx(1000.0)


def nights(seed: int, speeds: dict[str, float], jobs: int = 12, count: int = 7) -> list[Sample]:
    """Backups of jobs of very different length, each night somewhere else, off by up to a fifth."""
    rng = random.Random(seed)
    lengths = {f"job-{number}": 60.0 * rng.paretovariate(1.0) for number in range(jobs)}
    return [
        sample(job, seconds / speeds[where] * rng.uniform(0.8, 1.2), where)
        for _ in range(count)
        for job, seconds in lengths.items()
        for where in [rng.choice(sorted(speeds))]
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_server_four_times_as_slow_is_found_out_whatever_it_was_given(seed):
    speeds = {"a": 1.0, "b": 1.0, "c": 1.0, "slow": 0.25}
    found = History(nights(seed, speeds)).speeds
    assert found["slow", "disk-slow"] == pytest.approx(0.25, rel=0.35)
    assert all(found[name, f"disk-{name}"] == pytest.approx(1.0, rel=0.25) for name in "abc")


def test_what_a_slow_server_took_is_no_longer_job():
    history = History(nights(3, {"a": 1.0, "b": 1.0, "c": 1.0, "slow": 0.25}))
    even = History(nights(3, dict.fromkeys(("a", "b", "c", "slow"), 1.0)))
    for number in range(12):
        one, other = (each.predict(f"job-{number}", "src", FULL).seconds for each in (history, even))
        assert one == pytest.approx(other, rel=0.5)


def test_a_server_that_ran_only_jobs_that_never_ran_elsewhere_counts_as_neither_fast_nor_slow():
    assert History([sample("job", 1000.0, "a")] * 5 + [sample("other", 1.0, "b")] * 5).speeds == {}


def test_the_overhead_of_tiny_jobs_says_nothing_of_speed():
    assert History([sample("job", 0.2, "a"), sample("job", 1.9, "b")] * 5).speeds == {}


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0, 1e7), st.sampled_from("abc"), st.sampled_from(BackupType)))
)
def test_whatever_was_recorded_speeds_stay_within_bounds_and_nothing_takes_no_time_at_all(rows):
    history = History(sample(job, seconds, where, type) for job, seconds, where, type in rows)
    assert all(1 / 17 < speed < 17 for speed in history.speeds.values())
    for job, _, _, type in rows:
        seconds = history.predict(job, "src", type).seconds
        assert seconds is not None
        assert seconds > 0


def test_the_same_question_gets_the_same_object_so_that_planners_see_that_nothing_changed():
    history = History([sample("job", 10.0)])
    assert history.predict("job", "src", FULL) is history.predict("job", "src", FULL)
