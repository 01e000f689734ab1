"""The calls of people that make the mesh as a file says, and write that file."""

from __future__ import annotations

from caso_mesh.admin.policies import Policies
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.made import Problem
from caso_mesh.control.plan import Plan, written
from caso_mesh.control.reducer import rehearse
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import Batch, PutList, PutPolicy
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import IdSource


class Applying:
    """Answers of the administrator."""

    def __init__(
        self, *, keeper: ControlKeeper, policies: Policies, submit: Submit, clock: Clock, new_id: IdSource
    ) -> None:
        self._keeper = keeper
        self._policies = policies
        self._submit = submit
        self._clock = clock
        self._new_id = new_id

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"config.apply": self._apply, "config.export": self._export}

    async def _export(self, caller: Caller, request: q.Nothing) -> v.Exported:
        return v.Exported(written(self._keeper.state))

    async def _apply(self, caller: Caller, request: q.ConfigApply) -> v.Applied:
        """Either all of the file is done, in one command, or every mistake in it is told and nothing is done."""
        if done_before(self._keeper, caller) is not None:
            return v.Applied(True, ())
        state, now_ns, seed = self._keeper.state, self._clock.now_ns(), self._new_id()
        plan = Plan(state, request.text, who=caller.who, at_ns=now_ns, seed=seed)
        warnings = await self._look(plan)
        _, errors, problems = rehearse(state, plan.commands(), seed=seed, who=caller.who, at_ns=now_ns)
        for step, error in zip(plan.steps, errors, strict=True):
            if error is not None:
                plan.refuse(step, error)
        if not any(errors):
            for problem in problems:
                self._refuse(plan, problem)
        changes = tuple(step.change for step in plan.steps)
        if plan.mistakes:
            mistakes = sorted(plan.mistakes, key=lambda mistake: mistake.line)
            return v.Applied(False, (), tuple(mistakes))
        if changes and not request.dry_run:
            command = Batch(plan.commands(), seed)
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return v.Applied(not request.dry_run, changes, warnings=tuple(warnings))

    def _refuse(self, plan: Plan, problem: Problem) -> None:
        path = ("policy", problem.policy, "templates", problem.template) if problem.policy else ()
        plan.mistake(path, problem.error)

    async def _look(self, plan: Plan) -> list[str]:
        """What only the servers themselves know: whether they have the places that lists name, and allow them; and what
        only the clock knows."""
        warnings: list[str] = []
        for step in plan.steps:
            try:
                match step.command:
                    case PutList(list=row, before=old):
                        warnings += await self._policies.check_places(row, old)
                    case PutPolicy(policy=policy, before=old_policy):
                        self._policies.check_once(policy, old_policy)
                    case _:
                        pass
            except CasoError as error:
                plan.mistake(step.path, error)
        return warnings
