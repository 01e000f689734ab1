"""The calls of people that make the mesh as a file says, and write that file."""

from __future__ import annotations

from collections.abc import Awaitable

from msgspec.structs import replace

from caso_mesh.admin.policies import Policies
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.control import documents
from caso_mesh.control.exporting import written
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.lines import Path
from caso_mesh.control.plan import Plan
from caso_mesh.control.state import ControlState
from caso_mesh.control.steps import Step
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import Associate, Batch, CreateJob, EditJob, PutList, PutPolicy
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import IdSource
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job
from caso_mesh.model.policies import ListEntry, Policy, SelectionList, Template, TemplateType
from caso_mesh.model.states import Role


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
        # the URL of a webhook often is a secret
        return v.Exported(written(self._keeper.state, notices=caller.may(Role.ADMIN, None)))

    async def _apply(self, caller: Caller, request: q.ConfigApply) -> v.Applied:
        """Either all of the file is done, in one command, or every mistake in it is told and nothing is done."""
        if done_before(self._keeper, caller) is not None:
            return v.Applied(True, ())
        state, now_ns, seed = self._keeper.state, self._clock.now_ns(), self._new_id()
        plan = Plan(state, request.text, who=caller.who, at_ns=now_ns, seed=seed)
        draft = plan.rehearse()
        warnings = await self._look(plan, draft)
        changes = tuple(step.change for step in plan.steps)
        if plan.mistakes:
            mistakes = sorted(plan.mistakes, key=lambda mistake: mistake.line)
            return v.Applied(False, (), tuple(mistakes))
        if changes and not request.dry_run:
            command = Batch(plan.commands(), seed)
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return v.Applied(not request.dry_run, changes, warnings=tuple(dict.fromkeys(warnings)))

    async def _look(self, plan: Plan, draft: ControlState) -> list[str]:
        """What only the servers themselves know: whether they have the places that lists and jobs name, and the commands of
        templates, and allow them; and what only the clock knows. ``draft`` is the mesh as it would be."""
        state, warnings, touched = self._keeper.state, list[str](), set[str]()
        for step in plan.steps:
            match step.command:
                case PutList(list=row, before=old):
                    touched.add(row.id)
                    warnings += await self._places(plan, step, row, old)
                case PutPolicy(policy=policy, before=old_policy):
                    touched.add(policy.id)
                    over = self._policies.once_over(policy, old_policy)
                    warnings += [_is_over(f"{policy.name}.{each.name}", each.schedule) for each in over]
                case Associate(policy=policy_id, list=list_id):
                    touched |= {policy_id, list_id}
                case CreateJob(job=Job(id=id, name=name, spec=BackupSpec() as spec, schedule=schedule)):
                    if schedule is not None and schedule.at_ns is not None and schedule.at_ns <= self._clock.now_ns():
                        warnings.append(_is_over(name, schedule))
                    warnings += await self._job(plan, step, name, spec, None)
                case EditJob(job=id, spec=BackupSpec() as spec):
                    known = state.jobs[id]
                    before = known.spec if isinstance(known.spec, BackupSpec) else None
                    warnings += await self._job(plan, step, known.name, spec, before)
                case _:
                    pass
        pairs = {(policy.id, row.id): (policy, row) for policy, row in plan.pairs}
        for each in draft.association_list():
            if {each.policy, each.list} & touched:
                pairs.setdefault((each.policy, each.list), (draft.policy(each.policy), draft.selection(each.list)))
        for policy, row in pairs.values():
            for template in policy.templates:
                path = ("policy", policy.name, "templates", template.name)
                checked = self._policies.check_commands(_alone(policy, template), [row])
                warnings += await self._try(plan, path, checked)
        return warnings

    async def _places(self, plan: Plan, step: Step, row: SelectionList, old: SelectionList | None) -> list[str]:
        """Asked all at once; one by one if one of them is wrong, so that each of those is told."""
        try:
            return await self._policies.check_places(row, old)
        except CasoError:
            pass
        warnings: list[str] = []
        for entry in row.entries:
            written = documents.place_text(self._keeper.state, entry.server, entry.root)
            alone = self._policies.check_places(replace(row, entries=(entry,)), old)
            warnings += await self._try(plan, step.path, alone, written)
        return warnings

    async def _job(self, plan: Plan, step: Step, name: str, spec: BackupSpec, before: BackupSpec | None) -> list[str]:
        row = _entries(name, spec)
        warnings = await self._places(plan, step, row, None if before is None else _entries(name, before))
        once = Template(name, TemplateType.FULL, pre=spec.pre, post=spec.post)
        commands = self._policies.check_commands(Policy("", name, (once,), (), "", 0), [row])
        return warnings + await self._try(plan, step.path, commands)

    async def _try(self, plan: Plan, path: Path, check: Awaitable[list[str]], *written: str) -> list[str]:
        try:
            return await check
        except CasoError as error:
            plan.mistake(path, error, *written)
            return []


def _is_over(name: str, schedule: CronSchedule | None) -> str:
    """No mistake in a file, which may be the export of a mesh in which it has run by now."""
    return f'{name} has the schedule "{schedule.text if schedule else ""}", which is over: it runs by hand or by a rule only'


def _alone(policy: Policy, template: Template) -> Policy:
    return replace(policy, templates=(template,))


def _entries(name: str, spec: BackupSpec) -> SelectionList:
    entries = tuple(ListEntry(source.server, root) for source in spec.sources for root in source.roots)
    return SelectionList("", name, entries, "", 0)
