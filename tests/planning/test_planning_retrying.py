"""Error-handling rules: which one counts, and what it asks for."""

from __future__ import annotations

import msgspec

from caso_mesh.model import jobs
from caso_mesh.model.jobs import Attempt, BackupSpec, Failure, Job, SourceRoots, Target, TargetKind
from caso_mesh.model.rules import Again, ErrorRule, Then
from caso_mesh.planning import lifecycle
from caso_mesh.planning.retrying import again_after, rule_for

SECOND = 1_000_000_000
FULL = Failure("device-full", {})
SPEC = BackupSpec((SourceRoots("src", (b"srv",)),), Target(TargetKind.ANY))


def rule(name: str, *errors: str, retries: int = 2, then: Then = Then.WAIT, any_time: bool = False) -> ErrorRule:
    return ErrorRule(name, errors, retries, 600.0, then, any_time)


def after(*rules: ErrorRule, retried: int = 0, failure: Failure | None = FULL, spec=SPEC, **fields) -> Again | None:
    """What the rules make of a failed attempt at second 10."""
    run = lifecycle.begin_run(Job("job", "nightly", spec, "ann", 0), id="job@1", due_at_ns=0, at_ns=0, who="ann")
    run = msgspec.structs.replace(run, parts=(msgspec.structs.replace(run.parts[0], retried=retried),))
    run = lifecycle.delegate(run, "src")
    attempt = Attempt("job@1#1", "job@1", "job", "src", "srv", "dev", 1, 0, **fields)
    return again_after(rules, run, attempt, failure, lambda code: "device", 10 * SECOND)


def test_a_rule_that_names_the_error_goes_before_one_that_names_its_category_and_then_the_name_decides():
    wide, exact, later = rule("a", "device"), rule("b", "device-full"), rule("c", "device-full")
    assert rule_for([later, wide, exact], "device-full", "device") == exact
    assert rule_for([wide, exact], "device-offline", "device") == wide
    assert rule_for([wide, exact], "no-such", "data") is None


def test_a_failed_part_is_tried_again_as_often_as_the_rule_says_each_time_after_its_pause():
    assert after(rule("r", "device")) == Again("r", 610 * SECOND)
    assert after(rule("r", "device"), retried=1) == Again("r", 610 * SECOND)
    assert after(rule("r", "device"), retried=2) is None


def test_when_the_retries_are_used_up_the_job_is_held_if_the_rule_says_so():
    assert after(rule("r", "device", then=Then.HOLD), retried=2) == Again("r", held=True)
    assert after(rule("r", "device", retries=0, then=Then.HOLD)) == Again("r", held=True)


def test_a_rule_may_let_retries_run_outside_the_window():
    assert after(rule("r", "device", any_time=True)) == Again("r", 610 * SECOND, any_time=True)


def test_without_a_rule_for_it_a_failure_is_one():
    assert after() is None
    assert after(rule("r", "data")) is None


def test_what_was_asked_to_end_and_what_only_tries_are_not_tried_again():
    always = rule("r", "device")
    assert after(always, cancel=True) is None
    assert after(always, spec=jobs.TestRunSpec(SPEC)) is None
    assert after(always, failure=None) is None
