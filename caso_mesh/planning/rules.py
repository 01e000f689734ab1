"""What the rules between the templates of a policy come to: which of the runs that are due at once is superseded, which
waits for which, and what starts what. Pure: policies and schedules in, verdicts out.

Two runs of one policy for one list *conflict* if they are due less than ``Policy.conflict_s`` apart. Without a rule
between their templates full beats differential beats incremental; a full takes the place of a synthetic full as well,
which else waits for what it is made of. What is itself superseded supersedes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from caso_mesh.model.errors import InvalidPolicy
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.model.policies import (
    BEFORE_SYNTHETIC,
    ON_CONFLICT,
    PRECEDENCE,
    STARTING,
    Policy,
    RuleKind,
    Template,
    TemplateRule,
    TemplateType,
)
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
    for fault in faults(policy):
        raise fault.error


class Fault(Struct, frozen=True):
    """What is wrong with a policy, and which of its rules (by place) says so; ``None``: none of them does."""

    error: InvalidPolicy
    rule: int | None = None


def faults(policy: Policy) -> Iterator[Fault]:
    """All that ``check_policy`` would refuse it for."""
    names = {template.name for template in policy.templates}
    if len(names) < len(policy.templates):
        yield Fault(_invalid(policy, "two of its templates have one name"))
    sound = []
    for number, rule in enumerate(policy.rules):
        detail = _why_never(policy, names, rule) or (
            f'the rule "{rule}" is there twice' if rule in policy.rules[:number] else None
        )
        if detail is None:
            sound.append(number)
        else:
            yield Fault(_invalid(policy, detail), number)
    for check in (_contradictions, _circles, _never_first):
        yield from check(policy, sound)


def _why_never(policy: Policy, names: Collection[str], rule: TemplateRule) -> str | None:
    """Why a rule alone can never hold."""
    for name in (rule.a, rule.b):
        if name is not None and name not in names:
            return f'there is no template {name} for the rule "{rule}"'
    if rule.a == rule.b:
        return f'the rule "{rule}" is about one template alone'
    first, second = policy.template(rule.a), policy.template(rule.b or "")
    if rule.kind in ON_CONFLICT:
        for template in (first, second):
            if template is not None and template.schedule is None:
                return f'{template.name} has no schedule, so that the rule "{rule}" never holds'
    if rule.kind is RuleKind.STARTS and first is not None and second is not None:
        if first.backup_type and not second.backup_type:
            return (
                f'when {rule.a} starts there is no set yet that {rule.b} could be about: say "when {rule.a} succeeds"'
            )
    return None


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
    judging = _Judging(policy, schedules, happens)
    if due.template not in judging.templates:
        return Verdict()
    beaten_by = judging.superseder(due)
    if beaten_by is not None:
        return Verdict(superseded_by=beaten_by)
    return Verdict(after=_nearest(due, judging.sound(due, RuleKind.THEN)))


class _Judging:
    """What is asked for one verdict. (Functions that ask each other would be a circle: of each verdict of a night to come
    something would be left, with the whole control state behind it, until garbage is looked for.)"""

    def __init__(self, policy: Policy, schedules: Mapping[str, CronSchedule], happens: Callable[[Due], bool]) -> None:
        self._apart_ns = round(policy.conflict_s * _SECOND)
        self._schedules = schedules
        self._happens = happens
        self._explicit = {(rule.a, rule.b): rule.kind for rule in policy.rules if rule.kind in ON_CONFLICT}
        self._superseders: dict[Due, Due | None] = {}
        self.templates = {template.name: template for template in policy.templates if template.name in schedules}

    def superseder(self, mine: Due) -> Due | None:
        if mine not in self._superseders:
            self._superseders[mine] = _nearest(mine, self.sound(mine, RuleKind.SUPERSEDES))
        return self._superseders[mine]

    def sound(self, mine: Due, kind: RuleKind) -> Iterator[Due]:
        """Those that do ``kind`` to it, and are not superseded themselves."""
        return (other for other in self._others(mine, kind) if self.superseder(other) is None)

    def _others(self, mine: Due, kind: RuleKind) -> list[Due]:
        return [
            Due(due_ns, name)
            for name, other in self.templates.items()
            if name != mine.template and _relation(self._explicit, other, self.templates[mine.template]) is kind
            for due_ns in self._around(name, mine.due_ns)
            if self._happens(Due(due_ns, name))
        ]

    def _around(self, name: str, due_ns: int) -> tuple[int, ...]:
        if self._apart_ns <= 0:
            return ()
        return _previewed(self._schedules[name], due_ns - self._apart_ns + 1, due_ns + self._apart_ns)


@functools.lru_cache(maxsize=4096)
def _previewed(schedule: CronSchedule, from_ns: int, until_ns: int) -> tuple[int, ...]:
    """Asked for each list of a policy alike."""
    return tuple(preview(schedule, from_ns, until_ns, _AROUND))


def _relation(explicit: Mapping[tuple[str, str | None], RuleKind], a: Template, b: Template) -> RuleKind | None:
    """What ``a`` does to ``b`` when both are due at once."""
    told = explicit.get((a.name, b.name))
    if told is not None or (b.name, a.name) in explicit:
        return told
    if b.type is TemplateType.SYNTHETIC:
        if a.type is TemplateType.FULL:
            return RuleKind.SUPERSEDES
        return RuleKind.THEN if a.type in BEFORE_SYNTHETIC else None
    mine, other = PRECEDENCE.get(a.type), PRECEDENCE.get(b.type)
    return RuleKind.SUPERSEDES if mine is not None and other is not None and mine < other else None


def _nearest(due: Due, others: Iterable[Due]) -> Due | None:
    return min(others, key=lambda other: (abs(other.due_ns - due.due_ns), other), default=None)


def _contradictions(policy: Policy, sound: Sequence[int]) -> Iterator[Fault]:
    """At most one rule on conflict between two templates, and one way in which one starts the other."""
    told: dict[tuple[str, ...], TemplateRule] = {}
    for number in sound:
        rule = policy.rules[number]
        if rule.kind is RuleKind.FIRST:
            key: tuple[str, ...] = ("first",)
        elif rule.kind in ON_CONFLICT:
            key = ("conflict", *sorted((rule.a, rule.b or "")))
        else:
            key = ("start", rule.a, rule.b or "")
        other = told.setdefault(key, rule)
        if other is rule or {other.kind, rule.kind} == {RuleKind.SUCCEEDS, RuleKind.FAILS}:
            continue
        yield Fault(_invalid(policy, f'the rules "{other}" and "{rule}" contradict each other'), number)


def _circles(policy: Policy, sound: Sequence[int]) -> Iterator[Fault]:
    """Each rule that closes a circle with those before it."""
    for kinds in (ON_CONFLICT, STARTING):
        follows: dict[str, list[str]] = {}
        for number in sound:
            rule = policy.rules[number]
            if rule.kind not in kinds or rule.b is None or rule.b in follows.get(rule.a, ()):
                continue
            back = _way(follows, rule.b, rule.a)
            if back is None:
                follows.setdefault(rule.a, []).append(rule.b)
            elif kinds is STARTING or len(back) > 2:  # the reverse of a rule on conflict is told as a contradiction
                circle = " -> ".join([*back, rule.b])
                yield Fault(_invalid(policy, f"its rules go in a circle: {circle}"), number)


def _way(follows: Mapping[str, Sequence[str]], start: str, end: str) -> list[str] | None:
    """The names on a way from one to another, both with it."""
    came_from: dict[str, str | None] = {start: None}
    queue = [start]
    for name in queue:
        if name == end:
            way = [name]
            while (before := came_from[way[-1]]) is not None:
                way.append(before)
            return way[::-1]
        for other in follows.get(name, ()):
            if other not in came_from:
                came_from[other] = name
                queue.append(other)
    return None


def _never_first(policy: Policy, sound: Sequence[int]) -> Iterator[Fault]:
    first = first_of(policy)
    template = None if first is None else policy.template(first)
    if template is None:
        return
    needs_set = template.backup_type is None and any(each.backup_type for each in policy.templates)
    for number in sound:
        rule = policy.rules[number]
        if needs_set and rule.kind is RuleKind.FIRST:
            detail = f"{first} must complete first, but there is no set for it before a backup, which waits for it"
            yield Fault(_invalid(policy, detail), number)
            return
    if template.schedule is not None:
        return
    for number in sound:
        rule = policy.rules[number]
        if rule.kind in STARTING and rule.b == first:
            yield Fault(_invalid(policy, f'{first} must complete first, but only the rule "{rule}" starts it'), number)
            return


def _invalid(policy: Policy, detail: str) -> InvalidPolicy:
    return InvalidPolicy(name=policy.name, detail=detail)
