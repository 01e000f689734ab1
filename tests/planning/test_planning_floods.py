"""What one server tells in a time: the lightest is left out first, and an honest one never notices."""

from __future__ import annotations

from caso_mesh.planning.floods import ALERTS, Floods, Weight

DAY_S = 86400.0


def test_details_are_left_out_first_then_logs_and_at_last_the_server_waits():
    floods, seen = Floods(), []
    for _ in range(100):
        left_out = [floods.is_left_out("one", weight, 4, 1200.0, 0.0) for weight in Weight]
        seen.append("".join("-+"[not each] for each in left_out))
        if floods.must_wait("one", 1200.0, 0.0):
            break
    assert list(dict.fromkeys(seen)) == ["+++", "-++", "--+"]
    assert len(seen) == 100 and 49 <= seen.count("+++") <= 51 and 24 <= seen.count("-++") <= 26
    assert floods.flooding == {"one": "".join(seen).count("-")}, "what was left out is counted"
    assert not floods.must_wait("other", 1200.0, 0.0) and not floods.is_left_out("other", Weight.DETAIL, 4, 1200.0, 0.0)
    # after a day of silence it is as if nothing had been
    assert floods.over({"one": 1200.0}, DAY_S / 2) == [] and floods.over({"one": 1200.0}, DAY_S) == ["one"]
    assert not floods.must_wait("one", 1200.0, DAY_S) and floods.flooding == {}


def test_what_is_told_steadily_is_never_too_much_and_what_does_not_end_is_taken_at_a_bounded_rate():
    steady, endless, now_s, taken = Floods(), Floods(), 0.0, 0
    for minute in range(3 * 1440):
        now_s = minute * 60.0
        assert not steady.is_left_out("one", Weight.DETAIL, 800, 1440e3, now_s)
        while not endless.must_wait("two", 1440e3, now_s):
            endless.is_left_out("two", Weight.NEEDED, 500, 1440e3, now_s)
            taken += 500
    assert 1440e3 * 4 - 1e4 < taken < 1440e3 * 4 + 1e4, "an allowance at first, and one a day"


def test_alerts_of_one_category_beyond_a_hundred_in_an_hour_are_one_too_many():
    floods = Floods()
    found = [floods.is_one_too_many("one", "job-failed", second) for second in range(ALERTS + 50)]
    assert found == [False] * ALERTS + [True] * 50
    assert floods.flooding == {"one": 50}
    assert not floods.is_one_too_many("one", "device-error", 1.0) and not floods.is_one_too_many(
        "two", "job-failed", 1.0
    )
    assert floods.over({"one": 9.0}, 1000.0) == []
    assert not floods.is_one_too_many("one", "job-failed", 3600.0)
    assert floods.over({"one": 9.0}, 3600.0) == ["one"]
