"""The calls of people about error-handling rules."""

from __future__ import annotations

from caso_mesh.admin.ports import Answer, Caller, Submit
from caso_mesh.control import named
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.commands import Batch, CreateErrorRule, DeleteErrorRule
from caso_mesh.model.errors import all_errors


def category_of(code: str) -> str:
    """The category of an error; that of a code which is not known here is ``general``."""
    known = all_errors().get(code)
    return "general" if known is None else known.category


class ErrorRules:
    """Answers of the administrator."""

    def __init__(self, keeper: ControlKeeper, submit: Submit) -> None:
        self._keeper = keeper
        self._submit = submit

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "error-rule.create": self._create,
            "error-rule.set": self._set,
            "error-rule.list": self._list,
            "error-rule.delete": self._delete,
        }

    async def _create(self, caller: Caller, request: q.ErrorRuleCreate) -> v.Done:
        """Raises ``InvalidValue`` for an error that there is not, ``AlreadyExists``, ``UsageError``."""
        named.check_errors(request.rule.errors)
        await self._submit(CreateErrorRule(request.rule), who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _set(self, caller: Caller, request: q.ErrorRuleCreate) -> v.Done:
        """Raises ``NotFound``, and what ``error-rule.create`` does."""
        named.check_errors(request.rule.errors)
        change = Batch((DeleteErrorRule(request.rule.name), CreateErrorRule(request.rule)), "")
        await self._submit(change, who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _list(self, caller: Caller, request: q.Nothing) -> v.ErrorRuleList:
        rules = self._keeper.state.error_rules
        return v.ErrorRuleList(tuple(rules[name] for name in sorted(rules)))

    async def _delete(self, caller: Caller, request: q.Named) -> v.Done:
        await self._submit(DeleteErrorRule(request.name), who=caller.who, request_id=caller.request_id)
        return v.Done()
