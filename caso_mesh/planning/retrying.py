"""Which error-handling rule a failure falls under, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from caso_mesh.model.jobs import Attempt, Failure, Run, TestRunSpec
from caso_mesh.model.rules import Again, ErrorRule, Then
from caso_mesh.planning.lifecycle import part_is_open, part_of

_SECOND = 1_000_000_000


def rule_for(rules: Iterable[ErrorRule], code: str, category: str) -> ErrorRule | None:
    """The first rule by name that names the code of an error, else the first that names its category."""
    in_order = sorted(rules, key=lambda rule: rule.name)
    exact = (rule for rule in in_order if code in rule.errors)
    return next(exact, next((rule for rule in in_order if category in rule.errors), None))


def again_after(
    rules: Iterable[ErrorRule],
    run: Run,
    attempt: Attempt,
    failure: Failure | None,
    category_of: Callable[[str], str],
    at_ns: int,
) -> Again | None:
    """What becomes of the part of an attempt that failed; ``None``: it has failed.

    What was asked to end is not tried again, and a test run has found out what it was to find out.
    """
    part = part_of(run, attempt.source)
    if failure is None or part is None or attempt.cancel or isinstance(run.spec, TestRunSpec) or not part_is_open(part):
        return None
    rule = rule_for(rules, failure.code, category_of(failure.code))
    if rule is None:
        return None
    if part.retried < rule.retries:
        return Again(rule.name, at_ns + round(rule.every_s * _SECOND), any_time=rule.any_time)
    return Again(rule.name, any_time=rule.any_time, held=True) if rule.then is Then.HOLD else None
