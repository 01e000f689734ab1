"""The rules between the templates of a policy, row by row of the domain: what conflicts, what gives way, what starts what."""

from __future__ import annotations

import datetime

import pytest

from caso_mesh.model.errors import InvalidPolicy
from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.policies import Policy, RuleKind, Template, TemplateRule, TemplateType
from caso_mesh.model.states import RunState
from caso_mesh.planning.presets import parse_schedule
from caso_mesh.planning.rules import Due, check_policy, judge, started_by_end, started_by_start
from caso_mesh.planning.schedule import preview

SECOND = 1_000_000_000
ANY = Target(TargetKind.ANY)
DAILY = "daily 22:00"


def ns(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()) * SECOND


def template(name: str, type: str, schedule: str | None = DAILY) -> Template:
    made = None if schedule is None else parse_schedule(schedule, "UTC")
    return Template(name, TemplateType(type), None if type in {"verify", "synthetic"} else ANY, made)


def rule(kind: str, a: str, b: str | None = None) -> TemplateRule:
    return TemplateRule(RuleKind(kind), a, b)


def policy(*templates: Template, rules: tuple[TemplateRule, ...] = (), conflict_s: float = 3600.0) -> Policy:
    return Policy("p1", "nightly", templates, rules, "ann", 0, conflict_s)


FULL, DIFF, INC = (
    template("full", "full", "fri 22:00"),
    template("diff", "differential", "wed,fri 22:00"),
    template("inc", "incremental"),
)


def night(of: Policy, day: str, days: int = 1) -> dict[str, str]:
    """What is due in a day, each with what becomes of it."""
    schedules = {each.name: each.schedule for each in of.templates if each.schedule is not None}
    found = {}
    start = ns(day)
    for name, schedule in schedules.items():
        for due in preview(schedule, start, start + days * 86400 * SECOND, 100):
            verdict = judge(of, schedules, Due(due, name))
            shown = "runs"
            if verdict.superseded_by is not None:
                shown = f"gives way to {verdict.superseded_by.template}"
            elif verdict.after is not None:
                shown = f"after {verdict.after.template}"
            key = (
                name if days == 1 else f"{name} {datetime.datetime.fromtimestamp(due / SECOND, datetime.UTC):%d %H:%M}"
            )
            found[key] = shown
    return found


def test_without_a_rule_full_beats_differential_beats_incremental():
    of = policy(FULL, DIFF, INC)
    assert night(of, "2025-01-10") == {
        "full": "runs",
        "diff": "gives way to full",
        "inc": "gives way to full",
    }, "a Friday"
    assert night(of, "2025-01-08") == {"diff": "runs", "inc": "gives way to diff"}, "a Wednesday"
    assert night(of, "2025-01-09") == {"inc": "runs"}, "a Thursday"


def test_copies_and_verifies_and_two_full_ones_conflict_with_nothing_by_themselves():
    of = policy(FULL, template("copy", "copy"), template("check", "verify"), template("monthly", "full"))
    assert set(night(of, "2025-01-10").values()) == {"runs"}


def test_a_full_takes_the_place_of_a_synthetic_which_waits_for_the_incremental_that_it_is_made_of():
    weekly = template("weekly", "synthetic", "fri 22:00")
    assert night(policy(FULL, INC, weekly), "2025-01-10") == {
        "full": "runs",
        "inc": "gives way to full",
        "weekly": "gives way to full",
    }
    assert night(policy(INC, weekly), "2025-01-10") == {"inc": "runs", "weekly": "after inc"}
    assert night(policy(DIFF, INC, weekly), "2025-01-10") == {
        "diff": "runs",
        "inc": "gives way to diff",
        "weekly": "after diff",
    }
    told = rule("supersedes", "weekly", "inc")
    assert night(policy(INC, weekly, rules=(told,)), "2025-01-10") == {"weekly": "runs", "inc": "gives way to weekly"}


def test_on_conflict_a_supersedes_b():
    monthly = template("monthly", "full", "last fri 22:00")
    of = policy(FULL, monthly, INC, rules=(rule("supersedes", "monthly", "full"),))
    last = night(of, "2025-01-31")
    assert (last["full"], last["monthly"]) == ("gives way to monthly", "runs")
    assert last["inc"] == "gives way to monthly", "the other full one is superseded itself"
    assert night(of, "2025-01-24") == {"full": "runs", "inc": "gives way to full"}


def test_a_rule_beats_the_order_of_types():
    of = policy(FULL, INC, rules=(rule("supersedes", "inc", "full"),))
    assert night(of, "2025-01-10") == {"full": "gives way to inc", "inc": "runs"}


def test_on_conflict_a_then_b():
    of = policy(FULL, INC, rules=(rule("then", "full", "inc"),))
    assert night(of, "2025-01-10") == {"full": "runs", "inc": "after full"}
    assert night(of, "2025-01-09") == {"inc": "runs"}


def test_what_is_superseded_itself_supersedes_nothing():
    """A at 23:40 supersedes B at 22:50, which would else supersede C at 22:00: C is an hour and more from A, and runs."""
    a, b, c = (
        template("a", "full", "daily 23:40"),
        template("b", "differential", "daily 22:50"),
        template("c", "incremental", "daily 22:00"),
    )
    assert night(policy(a, b, c), "2025-01-10") == {"a": "runs", "b": "gives way to a", "c": "runs"}


@pytest.mark.parametrize(
    ("apart", "at", "expected"),
    [(3600.0, "22:59", "gives way to full"), (3600.0, "23:00", "runs"), (7200.0, "23:00", "gives way to full"), (0.0, "22:00", "runs")],
)  # fmt: skip
def test_runs_conflict_if_they_are_due_less_than_so_long_apart(apart, at, expected):
    of = policy(FULL, template("inc", "incremental", f"daily {at}"), conflict_s=apart)
    assert night(of, "2025-01-10")["inc"] == expected


def test_of_hourly_incrementals_only_the_one_beside_the_full_gives_way():
    of = policy(FULL, template("inc", "incremental", "hourly"))
    found = night(of, "2025-01-10", days=2)
    assert [key for key, value in found.items() if value.startswith("gives")] == ["inc 10 22:00"]


def test_a_due_time_that_never_becomes_a_run_supersedes_nothing():
    schedules = {"full": FULL.schedule, "inc": INC.schedule}
    due = Due(ns("2025-01-10T22:00"), "inc")
    of = policy(FULL, INC)
    assert judge(of, schedules, due).superseded_by == Due(due.due_ns, "full")
    assert judge(of, schedules, due, happens=lambda other: False).superseded_by is None
    assert judge(of, {"inc": INC.schedule}, due).superseded_by is None, "the full one is on hold"


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("completes", {"succeeded", "succeeded-with-exceptions", "failed", "timed-out", "missed"}),
        ("succeeds", {"succeeded", "succeeded-with-exceptions"}),
        ("fails", {"failed", "timed-out", "missed"}),
        ("starts", set()),
    ],
)
def test_when_a_completes_succeeds_or_fails_start_b(kind, ends):
    of = policy(FULL, template("check", "verify", None), rules=(rule(kind, "full", "check"),))
    started = {end.value for end in RunState if started_by_end(of, "full", end)}
    assert started == ends, "a canceled or superseded run starts nothing"
    assert started_by_start(of, "full") == (["check"] if kind == "starts" else [])
    assert started_by_start(of, "check") == []


CHECK, MORE = template("check", "verify", None), template("more", "copy", None)
LATE = template("late", "incremental", None)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([rule("supersedes", "full", "inc"), rule("supersedes", "inc", "full")], "contradict"),
        ([rule("supersedes", "full", "inc"), rule("then", "full", "inc")], "contradict"),
        ([rule("then", "full", "inc"), rule("then", "inc", "full")], "contradict"),
        ([rule("completes", "full", "check"), rule("succeeds", "full", "check")], "contradict"),
        ([rule("first", "full"), rule("first", "inc")], "contradict"),
        ([rule("then", "full", "diff"), rule("then", "diff", "inc"), rule("then", "inc", "full")], "full -> diff -> inc -> full"),
        ([rule("succeeds", "check", "more"), rule("fails", "more", "check")], "check -> more -> check"),
        ([rule("supersedes", "full", "full")], "one template alone"),
        ([rule("supersedes", "full", "other")], "no template other"),
        ([rule("first", "other")], "no template other"),
        ([rule("supersedes", "full", "check")], "check has no schedule"),
        ([rule("starts", "full", "more"), rule("starts", "full", "more")], "twice"),
        ([rule("starts", "full", "check")], "no set yet that check"),
        ([rule("first", "late"), rule("succeeds", "full", "late")], "late must complete first, but only"),
        ([rule("first", "check")], "no set for it before a backup, which waits for it"),
    ],
)  # fmt: skip
def test_rules_that_contradict_each_other_go_in_a_circle_or_never_hold_are_refused_with_the_reason(rules, said):
    with pytest.raises(InvalidPolicy) as refused:
        check_policy(policy(FULL, DIFF, INC, CHECK, MORE, LATE, rules=tuple(rules)))
    assert said in refused.value.message
    assert "nightly" in refused.value.message


def test_rules_for_success_and_for_failure_go_together():
    check_policy(
        policy(
            FULL,
            INC,
            CHECK,
            MORE,
            rules=(
                rule("succeeds", "full", "check"),
                rule("fails", "full", "check"),
                rule("fails", "full", "more"),
                rule("first", "full"),
                rule("then", "full", "inc"),
            ),
        )
    )
