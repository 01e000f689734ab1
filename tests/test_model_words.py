"""The words of the model: names, ids, sizes, times, paths, settings, calls and facts as people and programs use them."""

from __future__ import annotations

import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.model import bandwidth, facts, settings
from caso_mesh.model.calls import BY_NAME, CALLS, SHOWN
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import Ambiguous, InvalidName, InvalidValue, NotFound, PeerMalformed, UnknownSetting
from caso_mesh.model.ids import (
    attempt_id,
    base32,
    check_name,
    from_base32,
    job_of_run,
    make_id_source,
    resolve_prefix,
    run_id,
    run_now_id,
    run_of_attempt,
    split_server_path,
)
from caso_mesh.model.states import PRIORITY_RANK, REASON_TEXT, ROLE_RANK, AttemptState, Role, RunState, WaitReason
from caso_mesh.model.units import (
    escape_path,
    format_duration,
    format_instant,
    format_number,
    format_size,
    parse_duration_s,
    parse_instant_ns,
    parse_size,
    unescape_path,
)


@pytest.mark.parametrize("name", ["a", "web-1", "9.files_x", "a" * 63])
def test_names_that_are_fine(name):
    assert check_name(name, "server") == name


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "_a", "a b", "a" * 64, "ä", "a\n", "a/b", "a:b", "a@b"])
def test_names_that_would_break_something_are_refused(name):
    with pytest.raises(InvalidName):
        check_name(name, "server")


@given(st.binary(max_size=80))
def test_base32_comes_back(data):
    assert from_base32(base32(data)) == data


def test_ids_rise_even_when_the_clock_stands_still_or_jumps_back():
    times = iter([5_000_000, 5_000_000, 3_000_000, *[5_000_000] * 5000, 9_000_000])
    new = make_id_source(lambda: next(times), lambda n: b"\xff" * n)
    ids = [from_base32(new()) for _ in range(5004)]
    assert ids == sorted(set(ids))
    assert all(id[6] >> 4 == 7 and id[8] >> 6 == 0b10 for id in ids), "RFC 9562: version 7, variant 10"


def test_runs_and_attempts_are_named_after_what_they_belong_to():
    due = int(datetime.datetime(2025, 1, 1, 2, tzinfo=datetime.UTC).timestamp()) * 10**9
    run = run_id("job", due)
    assert run == "job@20250101T020000Z"
    assert run_now_id("job", 7) == "job@7"
    attempt = attempt_id(run, 2)
    assert attempt == f"{run}#2"
    assert run_of_attempt(attempt) == run
    assert job_of_run(run) == "job"


def test_a_place_splits_at_its_first_colon():
    assert split_server_path("alpha:/a:b") == ("alpha", "/a:b")
    for wrong in ("alpha", "alpha:", "alpha:a", ":/a", "Alpha:/a", "/a"):
        with pytest.raises(InvalidValue):
            split_server_path(wrong)


def test_a_prefix_must_be_unique_unless_it_is_the_whole():
    assert resolve_prefix("ab", ["abc", "xyz"], "set") == "abc"
    assert resolve_prefix("ab", ["ab", "abc"], "set") == "ab"
    runs = ["abcd@1", "abcd@12", "abxy@1", "abcd/beta@1"]
    assert resolve_prefix("abc@12", runs, "run") == "abcd@12"
    assert resolve_prefix("abx@1", runs, "run") == "abxy@1"
    assert resolve_prefix("abcd@1", runs, "run") == "abcd@1"
    for unclear in ("ab@1", "abc@1"):
        with pytest.raises(Ambiguous):
            resolve_prefix(unclear, runs, "run")
    for nothing in ("@1", "ab@2", "abc@2"):
        with pytest.raises(NotFound):
            resolve_prefix(nothing, runs, "run")
    with pytest.raises(Ambiguous):
        resolve_prefix("a", ["ab", "ac"], "set")
    for nothing in ("q", ""):
        with pytest.raises(NotFound):
            resolve_prefix(nothing, ["ab"], "set")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("500MB", 500_000_000), ("10GiB", 10 << 30), ("1.5k", 1500), ("2 tib", 2 << 40)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1XB", "MB", "1e3", "ten", "1 2"])
def test_what_is_no_size(text):
    with pytest.raises(InvalidValue):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("30d", 30 * 86400), ("2w", 14 * 86400), ("250ms", 0.25), ("7", 7)],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 s", "1h-30m", "inf", "nan", "1e99"])
def test_what_is_no_duration(text):
    with pytest.raises(InvalidValue):
        parse_duration_s(text)


def test_instants_have_the_zone_they_say_or_the_one_given():
    berlin = datetime.timezone(datetime.timedelta(hours=1))
    assert parse_instant_ns("2025-01-31T02:00:00Z") == parse_instant_ns("2025-01-31T03:00", berlin)
    assert format_instant(parse_instant_ns("2025-01-31T02:00:00.999999+00:00")) == "2025-01-31T02:00:00Z"
    assert format_instant(None) is None
    with pytest.raises(InvalidValue):
        parse_instant_ns("31.1.2025")


def test_figures_for_people():
    assert [format_number(n) for n in (90.0, 0.5, 180 * 86400.0, 1e6, -1.25)] == [
        "90",
        "0.5",
        "15552000",
        "1000000",
        "-1.25",
    ]
    assert [format_size(n) for n in (0, 999, 1000, 1_550_000, 99_950_000_000, 10**18)] == [
        *("0 B", "999 B", "1.0 kB", "1.6 MB", "100 GB", "1000.0 PB")
    ]
    assert [format_duration(s) for s in (0.04, 59.94, 61, 3661)] == ["0.0 s", "59.9 s", "1m 01s", "1h 01m"]


@given(st.binary(max_size=60))
def test_any_path_survives_being_shown_and_typed_again(path):
    shown = escape_path(path)
    assert unescape_path(shown) == path
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F for char in shown)
    shown.encode()  # always valid UTF-8


@given(st.lists(st.lists(st.sampled_from([b"a", b"b", b"a.b", b"a b", b"\xff"]), min_size=1, max_size=4)))
def test_path_order_puts_a_folder_right_before_what_it_holds(parts):
    paths = sorted({b"/".join(each) for each in parts}, key=path_key)
    for number, folder in enumerate(paths):
        inside = [path.startswith(folder + b"/") for path in paths[number + 1 :]]
        assert inside == sorted(inside, reverse=True), "something else stands between a folder and what it holds"


def test_every_setting_has_a_default_within_its_bounds_in_every_preset():
    for setting in settings.SETTINGS:
        for preset in ("local", "lan", "wan"):
            assert settings.check_setting(setting.name, setting.default_for(preset)) == setting.default_for(preset)
        if isinstance(setting, settings.Setting):
            assert setting.presets.keys() <= {"local", "lan", "wan"}


def test_the_narrower_setting_wins():
    layers = [{"stalled-after-s": 10.0}, {"stalled-after-s": 20.0, "of-a-newer-version": 1.0}]
    found = settings.effective("wan", layers)
    assert found["stalled-after-s"] == 20.0
    assert found["heartbeat-interval-s"] == 15.0
    assert found.keys() == settings.BY_NAME.keys()


def test_settings_are_read_as_people_write_them_and_refused_out_of_bounds():
    assert settings.parse_setting("stalled-after-s", "2m") == 120.0
    assert settings.parse_setting("server-concurrency", "3") == 3.0
    for name, value in (("server-concurrency", "0"), ("server-concurrency", "many"), ("stalled-after-s", "9999d")):
        with pytest.raises(InvalidValue):
            settings.parse_setting(name, value)
    with pytest.raises(UnknownSetting):
        settings.parse_setting("speed", "1")


@pytest.mark.parametrize(
    ("text", "day", "hour", "expected"),
    [
        ("50MB", 0, 3, 50_000_000),
        ("512kB/s", 6, 23, 512_000),
        ("1MiB", 2, 0, 1 << 20),
        ("none", 0, 0, None),
        ("0", 0, 0, None),
        ("mon-fri 08:00-18:00 20MB; 50MB", 0, 8, 20_000_000),
        ("mon-fri 08:00-18:00 20MB; 50MB", 4, 17, 20_000_000),
        ("mon-fri 08:00-18:00 20MB; 50MB", 4, 18, 50_000_000),
        ("mon-fri 08:00-18:00 20MB; 50MB", 5, 12, 50_000_000),
        ("mon-fri 08:00-18:00 20MB", 5, 12, None),
        ("22:00-06:00 none; 5MB", 1, 23, None),
        ("22:00-06:00 none; 5MB", 1, 5, None),
        ("22:00-06:00 none; 5MB", 1, 6, 5_000_000),
        ("fri 22:00-06:00 9MB; 5MB", 5, 5, 9_000_000),
        ("fri 22:00-06:00 9MB; 5MB", 4, 5, 5_000_000),
        ("sun 20:00-04:00 9MB", 0, 3, 9_000_000),
        ("sat,sun 1MB; 2MB", 5, 0, 1_000_000),
        ("fri-mon 1MB; 2MB", 0, 12, 1_000_000),
        ("fri-mon 1MB; 2MB", 1, 12, 2_000_000),
        ("00:00-24:00 1MB; 2MB", 3, 23, 1_000_000),
        ("zone Europe/Berlin; MON 1MB; 2MB", 0, 0, 1_000_000),
    ],
)
def test_a_limit_of_bandwidth_holds_at_its_time_of_day(text, day, hour, expected):
    assert bandwidth.parse_bandwidth(text).rate(day, hour * 60) == expected


def test_hours_that_are_closed_have_a_zone_and_what_runs_in_them_goes_on_as_slowly_as_can_be():
    closed = bandwidth.parse_bandwidth("zone UTC; mon-fri 08:00-18:00 CLOSED; 5MB")
    assert (closed.is_closed(0, 8 * 60), closed.rate(0, 8 * 60)) == (True, bandwidth.SLOWEST)
    assert (closed.is_closed(0, 18 * 60), closed.rate(0, 18 * 60)) == (False, 5_000_000)
    assert not bandwidth.parse_bandwidth("5MB").is_closed(0, 0)
    with pytest.raises(InvalidValue) as refused:
        bandwidth.parse_bandwidth("08:00-18:00 closed")
    assert "zone" in refused.value.hint


def test_the_zone_of_a_limit_keeps_its_spelling():
    assert bandwidth.parse_bandwidth("zone Europe/Berlin; 1MB").zone == "Europe/Berlin"
    assert bandwidth.parse_bandwidth("1MB").zone == ""


@pytest.mark.parametrize(
    "text",
    ["", "fast", "mon", "08:00-18:00", "1MB;", "someday 1MB", "25:00-26:00 1MB", "08:60-09:00 1MB", "mon 08:00-18:00 tue 1MB",
     "10", "zone Europe/Berlin", "1MB; zone Europe/Berlin", "-1MB", "8-18 1MB"],
)  # fmt: skip
def test_a_limit_of_bandwidth_that_makes_no_sense_is_refused(text):
    with pytest.raises(InvalidValue):
        bandwidth.parse_bandwidth(text)


def test_settings_that_are_texts_keep_their_form():
    assert (
        settings.parse_setting("bandwidth-limit", " mon-fri  08:00-18:00 20MB;50MB ") == "mon-fri 08:00-18:00 20MB;50MB"
    )
    assert settings.parse_setting("worker-ionice", "best-effort-7") == "best-effort-7"
    for name, value in (("bandwidth-limit", "fast"), ("worker-ionice", "best-effort-8"), ("worker-ionice", "realtime")):
        with pytest.raises(InvalidValue):
            settings.parse_setting(name, value)
    with pytest.raises(InvalidValue):
        settings.check_setting("bandwidth-limit", 5.0)
    with pytest.raises(InvalidValue):
        settings.check_setting("stalled-after-s", "5")


def test_calls_are_there_once_and_ask_for_a_role_that_exists():
    assert len(BY_NAME) == len(CALLS)
    for call in CALLS:
        assert call.text.endswith("."), call.name
        assert call.role in {None, *Role}
        if call.scope != SHOWN:
            assert {field for field, _ in call.scope} <= set(call.request.__struct_fields__), call.name
        # what only one server can answer concerns that one, and calls of nodes have no operator
        assert not call.scope or (call.role is not None and (call.place == "admin" or call.scope == SHOWN)), call.name
        # whoever only looks changes nothing
        assert not (call.role is Role.VIEWER and call.changes), call.name


def test_facts_come_back_and_those_of_a_newer_version_are_kept():
    fact = facts.ServerStarted(version="1")
    assert facts.decode(*facts.encode(fact)) == fact
    assert facts.decode("from-the-future", b"\xc0") == facts.UnknownFact(kind="from-the-future")
    with pytest.raises(PeerMalformed):
        facts.decode("server-started", msgspec.msgpack.encode({"fact": "server-started", "version": 7}))


def test_a_fact_with_a_value_that_a_later_version_added_is_as_unknown_as_another_kind_and_one_that_lies_is_malformed():
    """A server that waited for a reason of its own time was told of as if it had done what it may not."""
    kind, data = facts.encode(facts.RunWaits("run", "source", 1, WaitReason.ON_HOLD, {}))
    later = msgspec.msgpack.decode(data) | {"reason": "moon-too-full"}
    assert facts.decode(kind, msgspec.msgpack.encode(later)) == facts.UnknownFact(kind)
    with pytest.raises(PeerMalformed):
        facts.decode(kind, msgspec.msgpack.encode(later | {"fact": "server-started"}))


def test_ranks_and_texts_cover_every_member():
    assert REASON_TEXT.keys() == set(WaitReason)
    assert sorted(PRIORITY_RANK.values()) == list(range(len(PRIORITY_RANK)))
    assert ROLE_RANK[Role.VIEWER] < ROLE_RANK[Role.RESTORE] < ROLE_RANK[Role.OPERATOR] < ROLE_RANK[Role.ADMIN]
    shared = {state.value for state in AttemptState} & {state.value for state in RunState}
    assert {"queued", "running", "verifying", "succeeded", "failed"} <= shared
