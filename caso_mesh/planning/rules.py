"""What the rules between the templates of a policy come to: which of the runs that are due at once is superseded, which
waits for which, and what starts what. Pure: policies and schedules in, verdicts out.

Two runs of one policy for one list *conflict* if they are due less than ``Policy.conflict_s`` apart. Without a rule
between their templates full beats differential beats incremental. What is itself superseded supersedes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from caso_mesh.model.errors import InvalidPolicy
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.model.policies import ON_CONFLICT, PRECEDENCE, STARTING, Policy, RuleKind, Template, TemplateRule
from caso_mesh.model.states import RunState
from caso_mesh.planning.schedule import preview

_SECOND = 1_000_000_000
#: So many due times of one template are looked at around one of another.
_AROUND = 1000
_GOOD = frozenset({RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS})
#: A backup that did not happen counts as failed. What a person canceled starts nothing.
_BAD = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.MISSED})
_STARTED_BY = {RuleKind.COMPLETES: _GOOD | _BAD, RuleKind.SUCCEEDS: _GOOD, RuleKind.FAILS: _BAD}


class Due(Struct, frozen=True, order=True):
    """A due time of a template."""

    due_ns: int
    template: str


class Verdict(Struct, frozen=True):
    """What the rules say of a due time: another one supersedes it, or it runs ``after`` another one, or neither."""

    superseded_by: Due | None = None
    after: Due | None = None


def check_policy(policy: Policy) -> None:
    """Raises ``InvalidPolicy`` for rules that contradict each other, go in a circle, or can never hold."""
    names = {template.name for template in policy.templates}
    if len(names) < len(policy.templates):
        raise _invalid(policy, "two of its templates have one name")
    for number, rule in enumerate(policy.rules):
        for name in (rule.a, rule.b):
            if name is not None and name not in names:
                raise _invalid(policy, f'there is no template {name} for the rule "{rule}"')
        if rule.a == rule.b:
            raise _invalid(policy, f'the rule "{rule}" is about one template alone')
        if rule in policy.rules[:number]:
            raise _invalid(policy, f'the rule "{rule}" is there twice')
        if rule.kind in ON_CONFLICT:
            for name in (rule.a, rule.b):
                template = policy.template(name or "")
                if template is not None and template.schedule is None:
                    raise _invalid(policy, f'{name} has no schedule, so that the rule "{rule}" never holds')
        if rule.kind is RuleKind.STARTS:
            first, second = policy.template(rule.a), policy.template(rule.b or "")
            if first is not None and second is not None and first.backup_type and not second.backup_type:
                raise _invalid(
                    policy,
                    f'when {rule.a} starts there is no set yet that {rule.b} could be about: say "when {rule.a} succeeds"',
                )
    _check_pairs(policy)
    _check_circle(policy, [rule for rule in policy.rules if rule.kind in ON_CONFLICT])
    _check_circle(policy, [rule for rule in policy.rules if rule.kind in STARTING])
    _check_first(policy)


def first_of(policy: Policy) -> str | None:
    """The template that must complete once before any other starts."""
    return next((rule.a for rule in policy.rules if rule.kind is RuleKind.FIRST), None)


def started_by_start(policy: Policy, template: str) -> list[str]:
    """The templates that start when a run of ``template`` does."""
    return [rule.b for rule in policy.rules if rule.kind is RuleKind.STARTS and rule.a == template and rule.b]


def started_by_end(policy: Policy, template: str, end: RunState) -> list[str]:
    """The templates that start when a run of ``template`` has ended so."""
    return [
        rule.b
        for rule in policy.rules
        if rule.a == template and rule.b is not None and end in _STARTED_BY.get(rule.kind, ())
    ]


def judge(
    policy: Policy,
    schedules: Mapping[str, CronSchedule],
    due: Due,
    happens: Callable[[Due], bool] = lambda due: True,
) -> Verdict:
    """The verdict on one due time. ``schedules`` are those of the templates that are in force (not on hold), by name;
    ``happens`` says whether one of their due times is more than a date, as of a job that was not there yet."""
    apart_ns = round(policy.conflict_s * _SECOND)
    templates = {template.name: template for template in policy.templates if template.name in schedules}
    explicit = {(rule.a, rule.b): rule.kind for rule in policy.rules if rule.kind in ON_CONFLICT}

    @functools.cache
    def around(name: str, due_ns: int) -> tuple[int, ...]:
        if apart_ns <= 0:
            return ()
        return tuple(preview(schedules[name], due_ns - apart_ns + 1, due_ns + apart_ns, _AROUND))

    def others(mine: Due, kind: RuleKind) -> list[Due]:
        return [
            Due(due_ns, name)
            for name, other in templates.items()
            if name != mine.template and _relation(explicit, other, templates[mine.template]) is kind
            for due_ns in around(name, mine.due_ns)
            if happens(Due(due_ns, name))
        ]

    @functools.cache
    def superseder(mine: Due) -> Due | None:
        return _nearest(mine, (other for other in others(mine, RuleKind.SUPERSEDES) if superseder(other) is None))

    if due.template not in templates:
        return Verdict()
    beaten_by = superseder(due)
    if beaten_by is not None:
        return Verdict(superseded_by=beaten_by)
    waits_for = _nearest(due, (other for other in others(due, RuleKind.THEN) if superseder(other) is None))
    return Verdict(after=waits_for)


def _relation(explicit: Mapping[tuple[str, str | None], RuleKind], a: Template, b: Template) -> RuleKind | None:
    """What ``a`` does to ``b`` when both are due at once."""
    told = explicit.get((a.name, b.name))
    if told is not None or (b.name, a.name) in explicit:
        return told
    mine, other = PRECEDENCE.get(a.type), PRECEDENCE.get(b.type)
    return RuleKind.SUPERSEDES if mine is not None and other is not None and mine < other else None


def _nearest(due: Due, others: Iterable[Due]) -> Due | None:
    return min(others, key=lambda other: (abs(other.due_ns - due.due_ns), other), default=None)


def _check_pairs(policy: Policy) -> None:
    """At most one rule on conflict between two templates, and one way in which one starts the other."""
    told: dict[tuple[str, ...], TemplateRule] = {}
    for rule in policy.rules:
        if rule.kind is RuleKind.FIRST:
            key: tuple[str, ...] = ("first",)
        elif rule.kind in ON_CONFLICT:
            key = ("conflict", *sorted((rule.a, rule.b or "")))
        else:
            key = ("start", rule.a, rule.b or "")
        other = told.setdefault(key, rule)
        if other is rule or {other.kind, rule.kind} == {RuleKind.SUCCEEDS, RuleKind.FAILS}:
            continue
        raise _invalid(policy, f'the rules "{other}" and "{rule}" contradict each other')


def _check_circle(policy: Policy, rules: list[TemplateRule]) -> None:
    follows: dict[str, list[str]] = {}
    for rule in rules:
        if rule.b is not None:
            follows.setdefault(rule.a, []).append(rule.b)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise _invalid(policy, f"its rules go in a circle: {circle}")
        if name not in done:
            for other in follows.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in list(follows):
        visit(name, ())


def _check_first(policy: Policy) -> None:
    first = first_of(policy)
    if first is None:
        return
    template = policy.template(first)
    if template is not None and template.schedule is None:
        starters = [rule for rule in policy.rules if rule.kind in STARTING and rule.b == first]
        if starters:
            raise _invalid(policy, f'{first} must complete first, but only the rule "{starters[0]}" starts it')


def _invalid(policy: Policy, detail: str) -> InvalidPolicy:
    return InvalidPolicy(name=policy.name, detail=detail)
