"""A server takes a parcel of copies into its own control state: thing by thing, each made, overwritten, skipped or refused
with its reason. One that is refused keeps no other out.

What clashes is what has the same name, or came from the same definition under another one. Overwritten, it keeps its id
and with it the jobs made of it and their history; skipped, it stays as it is, and is associated with nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from caso_mesh.control import error_rules, policies, work
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import (
    Associate,
    CreateErrorRule,
    CreateJob,
    EditJob,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutPolicy,
)
from caso_mesh.model.copies import Came, Clash, Copy, Outcome, TakeCopy
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import derived_id
from caso_mesh.model.jobs import Job
from caso_mesh.model.policies import Policy, SelectionList

_Row = TypeVar("_Row", SelectionList, Policy, Job)


def take_copy(state: ControlState, command: TakeCopy, context: Context) -> Effect:
    """The result is the outcomes, as plain values."""
    taking = _Taking(state, command, context)
    taking.all()
    return Effect(msgspec.to_builtins(tuple(taking.outcomes)), tuple(taking.changes))


class _Taking:
    """One parcel. ``draft`` is the state with what was taken so far."""

    def __init__(self, state: ControlState, command: TakeCopy, context: Context) -> None:
        self.draft = state.draft()
        self.changes: list[Put] = []
        self.outcomes: list[Outcome] = []
        self._copy: Copy = command.copy
        self._seed = command.seed
        self._context = context
        self._overwrites = command.copy.clash is Clash.OVERWRITE
        #: The ids here of what was taken, by those of the parcel.
        self._taken: dict[str, str] = {}

    def all(self) -> None:
        copy, draft, context = self._copy, self.draft, self._context
        for pool in copy.pools:
            if self._overwrites or pool.name not in draft.pools:
                self._write(Effect(None, (Put("pools", pool.name, pool),)))
        for group in copy.device_pools:
            mine = msgspec.structs.replace(
                group, members=tuple(member for member in group.members if member.device in draft.devices)
            )
            command = PutDevicePool(mine, new=group.name not in draft.device_pools)
            if self._overwrites or command.new:
                self._try("device-pool", group.name, lambda c=command: policies.put_device_pool(draft, c, context))
        for calendar in copy.calendars:
            put = PutCalendar(calendar, new=calendar.name not in draft.calendars)
            if self._overwrites or put.new:
                self._try("calendar", calendar.name, lambda c=put: policies.put_calendar(draft, c, context))
        for rule in copy.error_rules:
            if rule.name in draft.error_rules and not self._overwrites:
                self._note("error-rule", rule.name, Came.SKIPPED)
                continue
            came = Came.OVERWRITTEN if rule.name in draft.error_rules else Came.MADE
            self._try("error-rule", rule.name, lambda r=rule: self._error_rule(CreateErrorRule(r)), came)
        for row in copy.lists:
            self._named(
                "selection-list", draft.lists, row,
                lambda new: policies.put_list(draft, PutList(new, self._seed), context),
            )  # fmt: skip
        for policy in copy.policies:
            self._named(
                "policy", draft.policies, policy,
                lambda new: policies.put_policy(draft, PutPolicy(new, self._seed), context),
            )  # fmt: skip
        for association in copy.associations:
            ends = self._taken.get(association.policy), self._taken.get(association.list)
            if ends[0] is not None and ends[1] is not None:
                pair = Associate(ends[0], ends[1], self._seed)
                name = f"{draft.selection(ends[1]).name} {draft.policy(ends[0]).name}"
                self._try("association", name, lambda c=pair: policies.associate(draft, c, context), None)
        by_hand = {id: job for id, job in draft.jobs.items() if job.origin is None}
        for job in copy.jobs:
            self._named("job", by_hand, job, self._job)

    def _named(self, kind: str, table: dict[str, _Row], row: _Row, put: Callable[[_Row], Effect]) -> None:
        """Takes a row that has a name and an id."""
        old = next((each for each in table.values() if each.name == row.name), None) or table.get(row.id)
        if old is None:
            if self._try(kind, row.name, lambda: put(row)):
                self._taken[row.id] = row.id
        elif not self._overwrites:
            self._note(kind, row.name, Came.SKIPPED)
        else:
            new = msgspec.structs.replace(
                row, id=old.id, created_by=old.created_by, created_at_ns=old.created_at_ns
            )  # fmt: skip
            if self._try(kind, row.name, lambda: put(new), Came.OVERWRITTEN):
                self._taken[row.id] = old.id

    def _job(self, job: Job) -> Effect:
        if job.id in self.draft.jobs:
            edit = EditJob(job.id, job.spec, job.schedule, job.priority)
            return work.edit_job(self.draft, edit, self._context)
        id = derived_id(self._seed, job.id)
        # what was due before it was here is nobody's to make up for
        new = msgspec.structs.replace(job, id=id, created_at_ns=self._context.at_ns)
        return work.create_job(self.draft, CreateJob(new, run_now=False, at_ns=self._context.at_ns), self._context)

    def _error_rule(self, command: CreateErrorRule) -> Effect:
        without = self.draft.draft()
        without.write([Put("error_rules", command.rule.name, None)])
        return error_rules.create_error_rule(without, command, self._context)

    def _try(self, kind: str, name: str, put: Callable[..., Effect], came: Came | None = Came.MADE) -> bool:
        try:
            effect = put()
        except CasoError as error:
            self._note(kind, name, Came.REFUSED, error.message)
            return False
        self._write(effect)
        if came is not None and kind not in {"device-pool", "calendar"}:
            self._note(kind, name, came)
        return True

    def _write(self, effect: Effect) -> None:
        self.draft.write(effect.changes)
        self.changes += effect.changes

    def _note(self, kind: str, name: str, came: Came, reason: str = "") -> None:
        self.outcomes.append(Outcome(kind, name, came, reason))


def outcomes_of(result: Any) -> tuple[Outcome, ...]:
    """The outcomes out of the result of ``TakeCopy``."""
    return msgspec.convert(result, tuple[Outcome, ...])


def all_refused(copy: Copy, reason: str) -> tuple[Outcome, ...]:
    """The outcomes of a parcel of which nothing could be taken."""
    named: Iterable[tuple[str, str]] = (
        *(("error-rule", rule.name) for rule in copy.error_rules),
        *(("selection-list", row.name) for row in copy.lists),
        *(("policy", policy.name) for policy in copy.policies),
        *(("job", job.name) for job in copy.jobs),
    )
    return tuple(Outcome(kind, name, Came.REFUSED, reason) for kind, name in named)
