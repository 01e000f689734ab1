"""Commands about error-handling rules."""

from __future__ import annotations

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import CreateErrorRule, DeleteErrorRule
from caso_mesh.model.errors import AlreadyExists, InvalidValue, NotFound, UsageError
from caso_mesh.model.ids import check_name

_MOST_RETRIES, _DAY_S = 100, 86400.0


def create_error_rule(state: ControlState, command: CreateErrorRule, context: Context) -> Effect:
    """``AlreadyExists``, ``UsageError``, ``InvalidValue``. That the errors exist is for the administrator to check: voters
    of different versions know different ones."""
    rule = command.rule
    check_name(rule.name, "error rule")
    if rule.name in state.error_rules:
        raise AlreadyExists(kind="error-rule", name=rule.name)
    if not rule.errors:
        raise UsageError(detail="A rule is for at least one error or category of errors")
    if not 0 <= rule.retries <= _MOST_RETRIES:
        raise InvalidValue(value=rule.retries, what="number of retries", expected="It lies between 0 and 100")
    if not 0 <= rule.every_s <= _DAY_S:
        raise InvalidValue(value=rule.every_s, what="pause", expected="It lies between 0 s and a day")
    return Effect({"rule": rule.name}, (Put("error_rules", rule.name, rule),))


def delete_error_rule(state: ControlState, command: DeleteErrorRule, context: Context) -> Effect:
    """``NotFound``. What it holds stays on hold."""
    if command.name not in state.error_rules:
        raise NotFound(kind="error-rule", name=command.name)
    return Effect(None, (Put("error_rules", command.name, None),))
