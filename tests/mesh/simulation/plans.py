"""Selection lists and policies of a simulated mesh: changed while their jobs run, and asked what will be."""

from __future__ import annotations

import random
from typing import Any

from mesh.simulation.stage import NAMES
from mesh.simulation.watching import Violation
from mesh.simulation.world import World
from msgspec import Struct, structs

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model import what_if as w
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import fired_run_id
from caso_mesh.model.jobs import Origin, Run
from caso_mesh.model.states import JobState, RunState

LIST, POLICY = "home", "nightly"
_RULES = ("on conflict full supersedes inc", "when full succeeds start check")
_CONFLICT_S = 30.0
#: So far it is looked ahead, by clocks that may be a minute and a half apart: each minute something is due.
_NIGHT_NS = 600 * 1_000_000_000
_FULL, _INC, _CHECK = "full", "inc", "check"


class Plans:
    """``media_set`` is that of all sets. What was confirmed last holds, or what was asked for since and may have been done."""

    def __init__(self, world: World, media_set: str) -> None:
        self._world = world
        self._draw = random.Random(f"{world.seed}/plans")
        self._media_set = media_set
        self._policies: list[PolicyDoc] = []
        self._lists: list[SelectionDoc] = []
        self._associated: list[bool] = []
        self.broken: list[str] = []
        #: Runs, and jobs whose schedule was changed when these were there.
        self._before: set[tuple[str, str]] = set()

    async def prepare(self) -> None:
        policy, listed = self._policy(self._draw), self._list(self._draw)
        ask = self._world.ask
        await ask("selection.create", q.SelectionCreate(LIST, listed), v.SelectionView, rng=self._draw)
        await ask("policy.create", q.PolicyCreate(POLICY, policy), v.PolicyView, rng=self._draw)
        await ask("associate", q.AssociationEdit(LIST, POLICY), v.PolicyView, rng=self._draw)
        self._policies, self._lists, self._associated = [policy], [listed], [True]

    def _list(self, rng: random.Random) -> SelectionDoc:
        names = sorted(rng.sample(NAMES, rng.randint(1, 3)))
        return SelectionDoc(paths=tuple(f"{name}:/usr" for name in names), priority=rng.choice(["medium", "high"]))

    def _policy(self, rng: random.Random) -> PolicyDoc:
        to = rng.choice(["any", "pool:vaults"])
        full, inc = rng.choice(["*/2 * * * *", "*/3 * * * *"]), "* * * * *"
        templates = {
            _FULL: TemplateDoc("full", to, full, zone="UTC", media_set=self._media_set, verify=False),
            _INC: TemplateDoc("incremental", to, inc, zone="UTC", media_set=self._media_set, verify=False),
            _CHECK: TemplateDoc("verify"),
        }
        if rng.random() < 0.3:
            templates["off"] = TemplateDoc("duplicate", "device:shared", media_set=self._media_set, verify=False)
        return PolicyDoc(templates, _RULES, conflict_within=f"{_CONFLICT_S:.0f}s")

    async def change(self, rng: random.Random) -> None:
        """One of the three, while whatever runs of it runs."""
        match rng.choice(["policy", "policy", "list", "association"]):
            case "policy":
                policy = self._policy(rng)
                self._policies.append(policy)
                await self._ask(rng, "policy.set", q.PolicySet(POLICY, policy), v.PolicyView)
                self._policies = self._policies[self._policies.index(policy) :]
            case "list":
                listed = self._list(rng)
                self._lists.append(listed)
                await self._ask(rng, "selection.set", q.SelectionSet(LIST, listed), v.SelectionView)
                self._lists = self._lists[self._lists.index(listed) :]
            case _:
                associated = not self._associated[-1]
                self._associated.append(associated)
                call = "associate" if associated else "dissociate"
                await self._ask(rng, call, q.AssociationEdit(LIST, POLICY), v.PolicyView)
                self._associated = [associated]

    async def _ask(self, rng: random.Random, call: str, request: Struct, reply: type[Struct]) -> None:
        await self._world.ask(call, request, reply, rng=rng)

    async def foresee(self, rng: random.Random) -> None:
        """What is asked of times to come is answered, with whatever would not be there."""
        without = tuple(rng.sample(NAMES, rng.randint(0, 2)))
        if rng.random() < 0.5:
            until_ns = self._world.servers[NAMES[0]].clock.now_ns() + _NIGHT_NS
            view = await self._world.ask("what-if", w.WhatIf(without, until_ns=until_ns), w.WhatIfView, rng=rng)
            if set(view.without) != set(without):
                self.broken.append(f"asked what would be without {without}, and told of {view.without}")
        else:
            await self._world.ask("schedule.preview", q.SchedulePreview(days=0.01), v.PreviewList, rng=rng)

    # --- promises ---

    def looked_at(self, state: ControlState, changes: list[Put]) -> None:
        """What ends well starts what its policy says, in the same step, once."""
        for put in changes:
            if put.table == "jobs" and put.record is not None:
                job = state.jobs.get(put.key)
                if job is None or job.schedule != put.record.schedule:
                    self._before.update((id_, put.key) for id_ in state.runs)
        runs = {put.key: put.record for put in changes if put.table == "runs" and put.record is not None}
        for id_, run in runs.items():
            before = state.runs.get(id_)
            if _succeeded(run) and (before is None or before.closed_at_ns is None):
                started = self._to_start(state, run)
                if started is not None and started not in runs and started not in state.runs:
                    self.broken.append(f"{id_} succeeded, and {started} did not start")

    def _to_start(self, state: ControlState, run: Run) -> str | None:
        job = state.jobs.get(run.job)
        if job is None or job.origin is None or job.origin.template != _FULL or run.terms.second_of is not None:
            return None
        checks = state.jobs_made_of(policy=job.origin.policy, selection=job.origin.list, template=_CHECK)
        active = [each for each in checks if each.state is JobState.ACTIVE]
        return fired_run_id(active[0].id, _FULL, run.id) if active else None

    async def check(self, state: ControlState) -> None:
        """Raises ``Violation``."""
        if self.broken:
            raise Violation("a policy is kept", self.broken[0])
        self._check_jobs(state)
        self._check_conflicts(state)
        try:
            shown = await self._world.ask("policy.show", q.Named(POLICY), v.PolicyView)
        except CasoError as error:
            raise Violation("nothing acknowledged is lost", f"the policy {POLICY}: {error}") from error
        if not any(_same(shown.definition, each) for each in self._policies):
            raise Violation("nothing acknowledged is lost", f"the policy is {shown.definition}, not {self._policies}")
        if (LIST in shown.selections) not in self._associated:
            raise Violation("nothing acknowledged is lost", f"{LIST} is associated: {shown.selections}")

    def _check_jobs(self, state: ControlState) -> None:
        """One for each list and template of a policy, and no other."""
        wanted = [
            Origin(each.policy, each.list, template.name)
            for each in state.associations.values()
            for template in state.policies[each.policy].templates
        ]
        made = [job.origin for job in state.jobs.values() if job.origin is not None]
        if sorted(wanted, key=repr) != sorted(made, key=repr):
            raise Violation("a policy is kept", f"jobs {made} of {wanted}")

    def _check_conflicts(self, state: ControlState) -> None:
        """Of what is due at once one is superseded: it is closed without any attempt. Not by what a schedule has that was
        changed afterwards, by the clock of an administrator that is behind."""
        dues: dict[str, list[Run]] = {_FULL: [], _INC: []}
        for run in state.runs.values():
            job = state.jobs.get(run.job)
            if job is not None and job.origin is not None and run.id.endswith("Z"):
                dues.get(job.origin.template, []).append(run)
        for full in dues[_FULL]:
            for inc in dues[_INC]:
                apart_s = abs(full.due_at_ns - inc.due_at_ns) / 1e9
                if apart_s >= _CONFLICT_S or (inc.id, full.job) in self._before:
                    continue
                if any(part.attempts for part in inc.parts):
                    raise Violation("a policy is kept", f"{inc.id} ran beside {full.id}, which supersedes it")


def _succeeded(run: Run) -> bool:
    return run.closed_at_ns is not None and run.state in {RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS}


def _same(shown: PolicyDoc, asked: PolicyDoc) -> bool:
    """As far as a person has said it."""

    def said(doc: PolicyDoc) -> Any:
        rows = {name: (each.type, each.to, each.schedule) for name, each in doc.templates.items()}
        return rows, sorted(doc.rules)

    return bool(said(shown) == said(structs.replace(asked)))
