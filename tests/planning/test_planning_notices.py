"""What recipients are told, out of what happened, the rules, and what they were told before."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from caso_mesh.model.notices import MailServer, MailTls, NoticeRule, Recipient, RecipientGroup
from caso_mesh.model.states import AlertKind, RunState
from caso_mesh.planning.mornings import morning
from caso_mesh.planning.notices import (
    FLAP_PAUSE_NS,
    HORIZON_NS,
    HOUR_NS,
    Book,
    Due,
    Form,
    Occurrence,
    Sort,
    Told,
    due,
    end_key,
    nobody,
)

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
NOW = 1_750_000_000 * SECOND
ANN = Recipient("ann", "ann@example.org", "", 0)
HOOK = Recipient("hook", "", "https://hook.example/", 0)
MAIL = MailServer("mail.example", 25, MailTls.NONE, "mesh@example.org")


def alert(number: int = 1, *, minutes: float = 0.0, **fields: Any) -> Occurrence:
    """One error that happened ``minutes`` ago."""
    values: dict[str, Any] = {"type": "error", "category": "job-failed", "object": f"o{number}", "where": "beta"}
    return Occurrence(f"a{number:03}", NOW - round(minutes * MINUTE), Sort.ALERT, "text", **(values | fields))


def book(*rules: NoticeRule, recipients: tuple[Recipient, ...] = (ANN, HOOK), **fields: Any) -> Book:
    return Book({each.name: each for each in recipients}, rules={rule.name: rule for rule in rules}, **fields)


def rule(name: str, *to: str, **fields: Any) -> NoticeRule:
    return NoticeRule(name, to, 0, **fields)


def sent(found: Due, at_ns: int = NOW) -> list[Told]:
    return [Told(each.recipient, key, each.key, at_ns) for each in found.notices for key in each.keys]


def names(found: Due) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.recipient, each.keys) for each in found.notices]


def test_without_a_rule_everybody_is_told_of_errors_and_of_what_needs_attention():
    happened = [alert(1), alert(2, type="attention-required"), alert(3, type="warning"), alert(4, type="information")]
    told = names(due(book(), happened, [], NOW))
    assert told == [(name, (key,)) for name in ("ann", "hook") for key in ("a001", "a002")]


def test_rules_choose_by_type_category_job_policy_list_server_and_end():
    happened = [
        alert(1, servers=frozenset({"b"}), job="j1", policy="p1", list="l1"),
        alert(2, servers=frozenset({"c"}), category="device-error", type="warning"),
        Occurrence(end_key("r"), NOW, Sort.END, "nightly", end="succeeded", job="j2", servers=frozenset({"c"})),
    ]
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"types": (AlertKind.ERROR,)}, ["a001"]),
        ({"categories": ("device-error",)}, ["a002"]),
        ({"types": (AlertKind.ERROR, AlertKind.WARNING)}, ["a001", "a002"]),
        ({"types": (AlertKind.ERROR,), "jobs": ("j2",)}, []),
        ({"types": (AlertKind.ERROR,), "jobs": ("j1",)}, ["a001"]),
        ({"types": (AlertKind.ERROR,), "policies": ("p1",), "jobs": ("j9",)}, ["a001"]),
        ({"types": (AlertKind.ERROR,), "lists": ("l1",)}, ["a001"]),
        ({"types": (AlertKind.ERROR, AlertKind.WARNING), "servers": ("c",)}, ["a002"]),
        ({"types": (AlertKind.ERROR, AlertKind.WARNING), "pools": ("p",)}, ["a001"]),
        ({"ends": (RunState.SUCCEEDED,)}, ["run/r"]),
        ({"ends": (RunState.FAILED,)}, []),
        ({"ends": (RunState.SUCCEEDED,), "jobs": ("j1",)}, []),
    ]
    for fields, wanted in cases:
        made = book(rule("r", "ann", **fields), pools={"p": frozenset({"b"})})
        assert [key for _, keys in names(due(made, happened, [], NOW)) for key in keys] == wanted, fields


def test_the_end_of_a_run_and_the_alert_about_it_are_told_once_by_the_alert():
    failed = alert(1, object="r", job="j")
    failed = replace(failed, key=end_key("r"))
    end = Occurrence(end_key("r"), NOW - SECOND, Sort.END, "nightly", object="r", end="failed", job="j")
    made = book(rule("a", "ann", types=(AlertKind.ERROR,)), rule("b", "ann", ends=(RunState.FAILED,)))
    for happened in ([failed, end], [end, failed]):
        (notice,) = due(made, happened, [], NOW).notices
        assert notice.about[0].sort is Sort.ALERT and notice.about[0].end == "failed"
    only_ends = book(rule("b", "ann", ends=(RunState.FAILED,), jobs=("j",)))
    assert names(due(only_ends, [failed, end], [], NOW)) == [("ann", ("run/r",))]
    first = due(only_ends, [end], [], NOW)
    assert names(first) == [("ann", ("run/r",))]
    assert due(only_ends, [failed, end], sent(first), NOW).notices == ()


def test_what_is_over_is_told_to_those_who_want_to_know():
    over = replace(alert(1), key="a001/over", sort=Sort.OVER)
    happened = [alert(1, minutes=5), over]
    quiet, talkative = (
        rule("q", "ann", types=(AlertKind.ERROR,)),
        rule("t", "hook", types=(AlertKind.ERROR,), over=True),
    )
    assert names(due(book(quiet, talkative), happened, [], NOW)) == [
        ("ann", ("a001",)), ("hook", ("a001",)), ("hook", ("a001/over",)),
    ]  # fmt: skip


def test_groups_are_their_members_and_a_recipient_of_several_rules_is_told_once():
    group = {"ops": RecipientGroup("ops", ("ann", "hook", "gone"))}
    rules = (rule("a", "ops", types=(AlertKind.ERROR,)), rule("b", "ann", categories=("job-failed",)))
    assert names(due(book(*rules, groups=group), [alert(1)], [], NOW)) == [("ann", ("a001",)), ("hook", ("a001",))]


def test_what_was_before_a_rule_or_a_recipient_or_long_ago_is_not_told():
    happened = [alert(1, minutes=10), alert(2, minutes=1), replace(alert(3), at_ns=NOW - HORIZON_NS)]
    late = replace(rule("r", "ann", types=(AlertKind.ERROR,)), since_ns=NOW - 5 * MINUTE)
    assert names(due(book(late), happened, [], NOW)) == [("ann", ("a002",))]
    new = replace(ANN, since_ns=NOW - 5 * MINUTE)
    assert names(due(book(recipients=(new,)), happened, [], NOW)) == [("ann", ("a002",))]


def test_a_recipient_that_cannot_be_reached_is_not_told_so_but_others_are():
    failed = alert(1, category="notification-failed", object="ann")
    assert names(due(book(), [failed], [], NOW)) == [("hook", ("a001",))]


def test_beyond_the_limit_of_an_hour_the_rest_is_one_message():
    few = replace(ANN, hourly=3)
    happened = [alert(number, minutes=50 - number) for number in range(10)]
    found = due(book(recipients=(few,)), happened, [], NOW)
    assert [(each.form, len(each.about)) for each in found.notices] == [(Form.ONE, 1), (Form.ONE, 1), (Form.DIGEST, 8)]
    more = [*happened, alert(11), alert(12)]
    waits = due(book(recipients=(few,)), more, sent(found), NOW + MINUTE)
    assert waits == Due((), NOW + HOUR_NS)
    later = due(book(recipients=(few,)), more, sent(found), NOW + HOUR_NS)
    assert [each.keys for each in later.notices] == [("a011",), ("a012",)]


def test_the_key_of_a_digest_stays_while_what_it_tells_of_first_does():
    few = replace(ANN, hourly=1)
    happened = [alert(number, minutes=5 - number) for number in range(4)]
    (first,) = due(book(recipients=(few,)), happened, [], NOW).notices
    (second,) = due(book(recipients=(few,)), [*happened, alert(9)], [], NOW + MINUTE).notices
    assert first.key == second.key and len(second.about) == len(first.about) + 1


def test_a_thing_that_comes_and_goes_is_told_of_three_times_and_then_each_half_hour():
    happened: list[Occurrence] = []
    told: list[Told] = []
    messages: list[tuple[int, Form, int]] = []
    for minute in range(120):
        now_ns = NOW + minute * MINUTE
        happened.append(replace(alert(minute, object="device"), at_ns=now_ns))
        found = due(book(recipients=(ANN,)), happened, told, now_ns)
        told += sent(found, now_ns)
        messages += [(minute, each.form, len(each.about)) for each in found.notices]
    assert [minute for minute, form, _ in messages if form is Form.ONE] == [0, 1, 2]
    bundled = [(minute, count) for minute, form, count in messages if form is Form.FLAPPING]
    assert bundled == [(33, 31), (64, 31), (95, 31)]
    assert FLAP_PAUSE_NS == 30 * MINUTE


def test_other_things_are_told_at_once_meanwhile():
    same = [alert(number, minutes=30 - number, object="device") for number in range(5)]
    told = [Told("ann", each.key, each.key, NOW - 20 * MINUTE) for each in same[:3]]
    found = due(book(recipients=(ANN,)), [*same, alert(50)], told, NOW)
    assert names(found) == [("ann", ("a050",))]
    assert found.again_ns == same[3].at_ns + FLAP_PAUSE_NS


@given(st.data())
def test_whoever_is_in_office_and_whenever_it_dies_everything_is_told_and_only_the_last_one_twice(data):
    """Each message is sent, then recorded; the office may end between the two. The next one works out the same."""
    count = data.draw(st.integers(0, 30))
    happened = [
        replace(alert(number, object=data.draw(st.sampled_from("xyz"))), at_ns=NOW + number * MINUTE)
        for number in range(count)
    ]
    recipients = (replace(ANN, hourly=data.draw(st.integers(1, 5))), HOOK)
    told: list[Told] = []
    messages: list[tuple[str, str]] = []
    arrived: set[tuple[str, str]] = set()
    deaths = 0
    now_ns = NOW
    for _ in range(600):
        now_ns += 5 * MINUTE
        known = [each for each in happened if each.at_ns <= now_ns]
        for notice in due(book(recipients=recipients), known, told, now_ns).notices:
            messages.append((notice.recipient, notice.key))
            arrived |= {(notice.recipient, key) for key in notice.keys}
            if deaths < 5 and data.draw(st.integers(0, 9)) == 0:
                deaths += 1
                break  # it died in the act
            told += [Told(notice.recipient, key, notice.key, now_ns) for key in notice.keys]
        if len(arrived) == 2 * count and len({(row.recipient, row.key) for row in told}) == 2 * count:
            break
    assert arrived == {(name, each.key) for name in ("ann", "hook") for each in happened}
    assert len(messages) - len(set(messages)) <= deaths
    lately: dict[int, set[str]] = {}
    for row in told:
        if row.recipient == "ann":
            lately.setdefault(row.at_ns, set()).add(row.message)
    for at_ns in lately:
        within = set().union(*(keys for when, keys in lately.items() if at_ns - HOUR_NS < when <= at_ns))
        assert len(within) <= recipients[0].hourly


def test_it_is_known_when_nobody_would_be_told_and_why():
    assert "no recipient" in str(nobody(Book({}), MAIL, frozenset()))
    only_mail = book(recipients=(ANN,))
    assert "no mail server" in str(nobody(only_mail, None, frozenset()))
    assert nobody(only_mail, MAIL, frozenset()) is None
    assert nobody(book(), None, frozenset()) is None, "a webhook needs no mail server"
    assert "ann does not arrive" in str(nobody(only_mail, MAIL, frozenset({"ann"})))
    assert nobody(book(), MAIL, frozenset({"ann"})) is None
    errors = book(rule("r", "ann", types=(AlertKind.ERROR,)))
    assert "attention-required" in str(nobody(errors, MAIL, frozenset()))
    both = book(rule("r", "ann", types=(AlertKind.ERROR, AlertKind.ATTENTION)))
    assert nobody(both, MAIL, frozenset()) is None


def test_the_morning_summary_is_of_a_whole_day_also_where_the_clocks_change():
    berlin = "zone Europe/Berlin; 07:00"
    march = 1_743_310_800 * SECOND  # 2025-03-30 05:00 UTC is 07:00 there, an hour after the change
    found = morning(berlin, march)
    assert found is not None and found.until_ns == march
    assert found.until_ns - found.since_ns == 23 * HOUR_NS
    assert morning(berlin, march - 1) is None or morning(berlin, march - 1).until_ns < march - 20 * HOUR_NS  # type: ignore[union-attr]
    assert morning(berlin, march + 11 * HOUR_NS) == found
    assert morning(berlin, march + 13 * HOUR_NS) is None
    assert morning("never", march) is None
