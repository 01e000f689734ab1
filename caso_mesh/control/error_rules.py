"""Commands about error-handling rules."""

from __future__ import annotations

from collections.abc import Iterator

from caso_mesh.control.faults import Fault, raise_first, refused
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import CreateErrorRule, DeleteErrorRule
from caso_mesh.model.errors import AlreadyExists, InvalidValue, NotFound, UsageError
from caso_mesh.model.ids import check_name
from caso_mesh.model.rules import ErrorRule

_MOST_RETRIES, _DAY_S = 100, 86400.0


def create_error_rule(state: ControlState, command: CreateErrorRule, context: Context) -> Effect:
    """``AlreadyExists``, ``UsageError``, ``InvalidValue``. That the errors exist is for the administrator to check: voters
    of different versions know different ones."""
    rule = command.rule
    if rule.name in state.error_rules:
        raise AlreadyExists(kind="error-rule", name=rule.name)
    raise_first(rule_faults(rule))
    return Effect({"rule": rule.name}, (Put("error_rules", rule.name, rule),))


def rule_faults(rule: ErrorRule) -> Iterator[Fault]:
    """All that is wrong with a rule; places are the keys of ``ErrorRuleDoc``."""
    yield from refused((), check_name, rule.name, "error rule")
    if not rule.errors:
        yield Fault(UsageError(detail="A rule is for at least one error or category of errors"), ("errors",))
    if not 0 <= rule.retries <= _MOST_RETRIES:
        expected = "It lies between 0 and 100"
        yield Fault(InvalidValue(value=rule.retries, what="number of retries", expected=expected), ("retries",))
    if not 0 <= rule.every_s <= _DAY_S:
        expected = "It lies between 0 s and a day"
        yield Fault(InvalidValue(value=rule.every_s, what="pause", expected=expected), ("every",))


def delete_error_rule(state: ControlState, command: DeleteErrorRule, context: Context) -> Effect:
    """``NotFound``. What it holds stays on hold."""
    if command.name not in state.error_rules:
        raise NotFound(kind="error-rule", name=command.name)
    return Effect(None, (Put("error_rules", command.name, None),))
