"""From a file that says how the mesh shall be to the commands that make it so.

What the file names is made as it says; what it does not name stays as it is. Every mistake is found, each with its
line, before anything is done: what is wrong is left out of what is tried, so that the rest of it is looked at as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.control import documents, named, notice_docs
from caso_mesh.control.exporting import plain
from caso_mesh.control.faults import Fault
from caso_mesh.control.lines import Path
from caso_mesh.control.made import Problem
from caso_mesh.control.plan_notices import NoticeSections
from caso_mesh.control.reducer import rehearse
from caso_mesh.control.state import ControlState
from caso_mesh.control.steps import Step, Steps
from caso_mesh.model import documents as d
from caso_mesh.model import notice_docs as n
from caso_mesh.model.commands import (
    Associate,
    Batch,
    Command,
    CreateErrorRule,
    CreateJob,
    CreatePool,
    DeleteErrorRule,
    Dissociate,
    EditJob,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutMediaSet,
    PutPolicy,
    SetPool,
    SetServerState,
    SetSetting,
)
from caso_mesh.model.errors import CasoError, EmptyTarget, InUse, InvalidValue, NotFound, UsageError
from caso_mesh.model.ids import derived_id
from caso_mesh.model.jobs import BackupSpec, Job
from caso_mesh.model.mesh import Pool, SetDataLocation
from caso_mesh.model.policies import Policy, SelectionList
from caso_mesh.model.report_schedules import ReportScheduleDoc
from caso_mesh.model.settings import Value, parse_setting
from caso_mesh.model.states import DataLocation
from caso_mesh.model.units import format_number
from caso_mesh.model.views import Change
from caso_mesh.planning.forwarding import check_zone

_SECTIONS: dict[str, type[Struct]] = {
    "pool": d.PoolDoc,
    "server": d.ServerDoc,
    "device": d.DeviceDoc,
    "device_pool": d.DevicePoolDoc,
    "media_set": d.MediaSetDoc,
    "calendar": d.CalendarDoc,
    "error_rule": d.ErrorRuleDoc,
    "selection": d.SelectionDoc,
    "policy": d.PolicyDoc,
    "job": d.JobDoc,
    "recipient": n.RecipientDoc,
    "recipient_group": n.RecipientGroupDoc,
    "notify_rule": n.NoticeRuleDoc,
    "report_schedule": ReportScheduleDoc,
}
_PLAIN = ("settings", "associations", "smtp")


class Plan:
    """What a file comes to, against the state as it is. ``seed`` makes the ids of what is new. With ``mistakes`` the steps
    are not all that the file says: they are there to be rehearsed."""

    def __init__(self, state: ControlState, text: str, *, who: str, at_ns: int, seed: str) -> None:
        self._state = state
        self._who, self._at_ns, self._seed = who, at_ns, seed
        self._file = file = Steps(text)
        self.steps, self.mistakes, self.lines = file.steps, file.mistakes, file.lines
        #: Policies with the lists that the file associates them with, whatever else is wrong with these.
        self.pairs: list[tuple[Policy, SelectionList]] = []
        self._rules: dict[str, tuple[str, ...]] = {}
        self._lists: dict[str, SelectionList] = {row.name: row for row in state.selection_lists()}
        self._policies: dict[str, Policy] = {row.name: row for row in state.policy_list()}
        notices = NoticeSections(state, file, self._known_to_file)
        data = file.read(text, [*_PLAIN, *_SECTIONS])
        self._settings((), data.get("settings", {}), server=None, pool=None)
        builders: dict[str, Callable[[str, Any, Path], None]] = {
            "pool": self._pool,
            "server": self._server,
            "device": self._device,
            "device_pool": self._device_pool,
            "media_set": self._media_set,
            "calendar": self._calendar,
            "error_rule": self._error_rule,
            "recipient": notices.recipient,
            "recipient_group": notices.group,
            "selection": self._selection,
            "policy": self._policy,
        }
        at_last: dict[str, Callable[[str, Any, Path], None]] = {
            "job": self._job,
            "notify_rule": notices.rule,
            "report_schedule": notices.report_schedule,
        }
        if "smtp" in data:
            notices.mail_server(data["smtp"])
        for section, build in builders.items():
            file.each(section, _SECTIONS[section], data.get(section, {}), build)
        self._associations(data.get("associations", {}))
        for section, build in at_last.items():
            file.each(section, _SECTIONS[section], data.get(section, {}), build)

    def mistake(self, path: Path, error: CasoError, *written: str) -> None:
        """See ``Steps.mistake``."""
        self._file.mistake(path, error, *written)

    def commands(self) -> tuple[Command, ...]:
        return tuple(step.command for step in self.steps)

    def rehearse(self) -> ControlState:
        """The mesh as the file would make it, after telling what its commands would be refused for."""
        draft, faults, problems = rehearse(
            self._state, self.commands(), seed=self._seed, who=self._who, at_ns=self._at_ns
        )
        for step, found in zip(self.steps, faults, strict=True):
            self._refuse(step, found)
        for problem in problems:
            self._refuse_made(problem)
        return draft

    def _refuse(self, step: Step, faults: Sequence[Fault]) -> None:
        """The command of a step is refused. What follows only from another mistake is not told."""
        for fault in [each for each in faults if not self._follows(step, each)]:
            path: Path = (*step.path, *fault.place)
            if fault.place[:1] == ("rules",):
                self.mistake(path[:-1], fault.error, self._rules[step.change.name][int(fault.place[1])])
            else:
                self.mistake(path, fault.error)
        if faults:
            self._file.failed |= {step.change.name, *_ids(step.command)}

    def _follows(self, step: Step, fault: Fault) -> bool:
        gone = isinstance(fault.error, NotFound) and str(fault.error.fields["name"]) in self._file.failed
        return gone or self._file.is_told((*step.path, *fault.place))

    def _refuse_made(self, problem: Problem) -> None:
        """A policy cannot be carried out for a list."""
        template: Path = ("policy", problem.policy, "templates", problem.template)
        if isinstance(problem.error, InUse):
            policy = self._policies.get(problem.policy)
            gone = policy is not None and policy.template(problem.template) is None
            self.mistake(template[:2] if gone else ("associations", problem.list), problem.error)
            return
        if isinstance(problem.error, EmptyTarget):
            target = str(problem.error.fields["target"])
            causes = {(*template, "to"), ("selection", problem.list, "within")}
            follows = any(each.rpartition(":")[2] in self._file.failed for each in target.split(" within "))
        else:
            causes = {(*template, key) for key in ("schedule", "zone", "calendars", "exclude_days")}
            causes |= {("selection", problem.list, "window"), ("policy", problem.policy, "zone")}
            follows = False
        if not follows and not self._file.told & {*causes, template}:
            self.mistake(template, problem.error)

    # --- building ---

    def _settings(self, path: Path, values: Mapping[str, Any], *, server: str | None, pool: str | None) -> None:
        scope = f"{path[0]} {path[1]}" if path else "mesh"
        for name, written in values.items():
            at = (*path, "settings", name)
            try:
                if isinstance(written, bool) or not isinstance(written, (str, int, float)):
                    raise InvalidValue(value=written, what=name, expected="Use a text or a number")
                text = written if isinstance(written, str) else format_number(written)
                value = parse_setting(name, text)
                check_zone(name, value)
            except CasoError as error:
                self.mistake(at, error)
                continue
            old = self._setting_now(name, server, pool)
            if old != value:
                shown = None if old is None else {name: old}
                self._file.add(at, SetSetting(name, value, server, pool), "setting", scope, shown, {name: value})

    def _setting_now(self, name: str, server: str | None, pool: str | None) -> Value | None:
        if server is not None:
            return self._state.servers[server].settings.get(name)
        if pool is not None:
            return self._state.pool_settings.get(pool, {}).get(name)
        return self._state.mesh_settings.get(name)

    def _pool(self, name: str, doc: d.PoolDoc, path: Path) -> None:
        state, old = self._state, self._state.pools.get(name)
        doc = self._file.sound(doc, path, lambda doc: [state.server_named(server) for server in doc.servers])
        pool = Pool(name, tuple(state.server_named(server).id for server in doc.servers))
        if old is None or set(old.servers) != set(pool.servers):
            was = None if old is None else d.PoolDoc(tuple(sorted(map(state.name_of, old.servers))))
            command: Command = CreatePool(pool) if old is None else SetPool(pool)
            self._file.add(path, command, "pool", name, was, d.PoolDoc(tuple(sorted(doc.servers))))
        self._settings(path, doc.settings, server=None, pool=name)

    def _server(self, name: str, doc: d.ServerDoc, path: Path) -> None:
        server = self._state.server_named(name)
        doc = self._file.sound(doc, path, named.server_of)
        state, location = named.server_of(doc)
        if state not in {None, server.set_state}:
            change = SetServerState(server.id, state)
            self._file.add(
                (*path, "state"), change, "server", name, {"state": server.set_state.value}, {"state": doc.state}
            )
        to_server = location is DataLocation.SERVER
        if to_server:  # which stands on a setting; the way back makes others possible
            self._settings(path, doc.settings, server=server.id, pool=None)
        if location not in {None, server.data_location}:
            was = {"data_location": server.data_location.value}
            moved = SetDataLocation(server.id, location)
            self._file.add((*path, "data_location"), moved, "server", name, was, {"data_location": doc.data_location})
        if not to_server:
            self._settings(path, doc.settings, server=server.id, pool=None)

    def _device(self, name: str, doc: d.DeviceDoc, path: Path) -> None:
        state, device = self._state, self._state.device_named(name)
        doc = self._file.sound(doc, path, lambda doc: named.device_paths_of(state, name, doc))
        was, new = plain(named.device_doc(state, device)), plain(doc)
        disabled = new.pop("disabled", None)
        was["quotas"] = {server: was.get("quotas", {}).get(server, d.NO_END) for server in doc.quotas}
        changed = {key: value for key, value in new.items() if value != was.get(key)}
        if changed:
            before = {key: was[key] for key in changed}
            self._file.add(path, named.device_of(state, name, doc), "device", name, before, changed)
        if disabled is not None and set(disabled) != set(was.get("disabled", ())):
            command, before = named.device_paths_of(state, name, doc), {"disabled": was.get("disabled", [])}
            self._file.add((*path, "disabled"), command, "device", name, before, {"disabled": disabled})

    def _device_pool(self, name: str, doc: d.DevicePoolDoc, path: Path) -> None:
        state = self._state
        doc = self._file.sound(doc, path, lambda doc: named.device_pool_of(state, name, doc))
        row, old = named.device_pool_of(state, name, doc), state.device_pools.get(name)
        if row != old:
            was = None if old is None else named.device_pool_doc(state, old)
            self._file.add(path, PutDevicePool(row, old is None), "device pool", name, was, doc)

    def _media_set(self, name: str, doc: d.MediaSetDoc, path: Path) -> None:
        doc = self._file.sound(doc, path, lambda doc: named.media_set_of(name, doc))
        row, old = named.media_set_of(name, doc), self._state.media_sets.get(name)
        if row != old:
            was = None if old is None else named.media_set_doc(old)
            self._file.add(path, PutMediaSet(row, old is None), "media set", name, was, named.media_set_doc(row))

    def _calendar(self, name: str, doc: d.CalendarDoc, path: Path) -> None:
        doc = self._file.sound(doc, path, lambda doc: named.calendar_of(name, doc))
        row, old = named.calendar_of(name, doc), self._state.calendars.get(name)
        if row != old:
            was = None if old is None else named.calendar_doc(old)
            self._file.add(path, PutCalendar(row, old is None), "calendar", name, was, named.calendar_doc(row))

    def _error_rule(self, name: str, doc: d.ErrorRuleDoc, path: Path) -> None:
        doc = self._file.sound(doc, path, lambda doc: named.error_rule_of(name, doc))
        rule, old = named.error_rule_of(name, doc), self._state.error_rules.get(name)
        if rule != old:
            made: Command = CreateErrorRule(rule)
            command = made if old is None else Batch((DeleteErrorRule(name), made), self._seed)
            was = None if old is None else named.error_rule_doc(old)
            self._file.add(path, command, "error rule", name, was, named.error_rule_doc(rule))

    def _known_to_file(self) -> notice_docs.Known:
        """Ids of what the file makes as well: a rule may name them."""
        made = [step.command.job for step in self.steps if isinstance(step.command, CreateJob)]
        return notice_docs.Known(
            jobs={job.name: job.id for job in made},
            policies={name: policy.id for name, policy in self._policies.items()},
            lists={name: row.id for name, row in self._lists.items()},
            pools=frozenset(step.command.pool.name for step in self.steps if isinstance(step.command, CreatePool)),
        )

    def _selection(self, name: str, doc: d.SelectionDoc, path: Path) -> None:
        state, old = self._state, self._lists.get(name)
        empty = old or SelectionList(self._id("selection", name), name, (), self._who, self._at_ns)
        doc = self._file.sound(doc, path, lambda doc: documents.selection_of(state, empty, doc))
        row = documents.selection_of(state, empty, doc)
        self._lists[name] = row
        if row != old:
            was = None if old is None else documents.selection_doc(state, old)
            command = PutList(row, self._seed, before=old)
            self._file.add(path, command, "selection list", name, was, documents.selection_doc(state, row))

    def _policy(self, name: str, doc: d.PolicyDoc, path: Path) -> None:
        old = self._policies.get(name)
        empty = old or Policy(self._id("policy", name), name, (), (), self._who, self._at_ns)
        outer = self._file.sound(replace(doc, templates={}), path, lambda doc: documents.policy_of(empty, doc))
        common = outer.zone or empty.zone
        templates = {
            each: self._file.sound(
                template,
                (*path, "templates", each),
                lambda doc, each=each: documents.template_of(name, each, doc, common),  # type: ignore[misc]
            )
            for each, template in doc.templates.items()
        }
        self._rules[name] = outer.rules
        policy = documents.policy_of(empty, replace(outer, templates=templates))
        self._policies[name] = policy
        if policy != old:
            was = None if old is None else documents.policy_doc(old)
            command = PutPolicy(policy, self._seed, before=old)
            self._file.add(path, command, "policy", name, was, documents.policy_doc(policy))

    def _associations(self, table: Mapping[str, Any]) -> None:
        """The policies of each list that is named, exactly."""
        for name, value in table.items():
            path: Path = ("associations", name)
            wanted = self._file.value(tuple[str, ...], value, path)
            if wanted is None:
                continue
            row = self._named(self._lists, name, "selection list", path)
            found = [self._named(self._policies, each, "policy", path) for each in wanted]
            policies = [policy for policy in found if policy is not None]
            if row is None:
                continue
            self.pairs += [(policy, row) for policy in policies]
            if len(policies) < len(found):
                continue
            ids = {policy.id: policy.name for policy in policies}
            there = {each.policy for each in self._state.association_list() if each.list == row.id}
            for id in ids.keys() - there:
                change = Change("create", "association", f"{name} {ids[id]}")
                self.steps.append(Step(path, Associate(id, row.id, self._seed), change))
            for id in sorted(there - ids.keys()):
                gone = Change("delete", "association", f"{name} {self._state.policy(id).name}")
                self.steps.append(Step(path, Dissociate(id, row.id), gone))

    def _named(self, table: Mapping[str, Any], name: str, kind: str, path: Path) -> Any:
        found = table.get(name)
        if found is None and name not in self._file.failed:
            self.mistake(path, NotFound(kind=kind, name=name))
        return found

    def _job(self, name: str, doc: d.JobDoc, path: Path) -> None:
        state, old = self._state, next((job for job in self._state.job_list() if job.name == name), None)
        doc = self._file.sound(doc, path, lambda doc: documents.job_of(state, doc))
        spec, schedule, priority = documents.job_of(state, doc)
        if old is None:
            job = Job(self._id("job", name), name, spec, self._who, self._at_ns, priority, schedule)
            self._file.add(path, CreateJob(job, run_now=False, at_ns=self._at_ns), "job", name, None, doc)
        elif (old.spec, old.schedule, old.priority) != (spec, schedule, priority):
            if not isinstance(old.spec, BackupSpec) or old.schedule is None:
                raise UsageError(detail=f"The job {name} is no recurring backup: choose another name")
            was = documents.job_doc(state, old)
            self._file.add(path, EditJob(old.id, spec, schedule, priority), "job", name, was, doc)

    def _id(self, kind: str, name: str) -> str:
        return derived_id(self._seed, kind, name)


def _ids(command: Command) -> tuple[str, ...]:
    """By which the commands after it name what it would have saved."""
    match command:
        case PutList(list=row) | PutPolicy(policy=row):
            return (row.id,)
        case _:
            return ()
