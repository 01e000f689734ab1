"""From a file that says how the mesh shall be to the commands that make it so.

What the file names is made as it says; what it does not name stays as it is. Every mistake is found, each with its
line, before anything is done: what is wrong is left out of what is tried, so that the rest of it is looked at as well.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.control import documents, named, notice_docs, report_schedules
from caso_mesh.control.exporting import plain
from caso_mesh.control.faults import Fault
from caso_mesh.control.lines import Lines, Path
from caso_mesh.control.made import Problem
from caso_mesh.control.reducer import rehearse
from caso_mesh.control.state import ControlState
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
from caso_mesh.model.notices import PutNoticeRule, PutRecipient, PutRecipientGroup, SetMailServer
from caso_mesh.model.policies import Policy, SelectionList
from caso_mesh.model.report_schedules import PutReportSchedule, ReportScheduleDoc
from caso_mesh.model.settings import Value, parse_setting
from caso_mesh.model.states import DataLocation
from caso_mesh.model.units import format_number
from caso_mesh.model.views import Change, Mistake
from caso_mesh.planning.forwarding import check_zone

D = TypeVar("D", bound=Struct)
_LONGEST = 4 << 20
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
#: Of documents that cannot be empty, ones that nothing is wrong with: other keys are tried with these.
_SOUND: dict[type[Struct], Struct] = {
    d.EntryDoc: d.EntryDoc(""),
    d.ErrorRuleDoc: d.ErrorRuleDoc(()),
    d.TemplateDoc: d.TemplateDoc("full", schedule="daily 22:00"),
    d.JobDoc: d.JobDoc((), "any", "daily 22:00"),
    n.MailServerDoc: n.MailServerDoc("", ""),
    ReportScheduleDoc: ReportScheduleDoc("overnight-summary", "daily 07:00", ()),
}


class Step(Struct, frozen=True):
    """One command, what it changes in words, and where the file says so."""

    path: Path
    command: Command
    change: Change


class Plan:
    """What a file comes to, against the state as it is. ``seed`` makes the ids of what is new. With ``mistakes`` the steps
    are not all that the file says: they are there to be rehearsed."""

    def __init__(self, state: ControlState, text: str, *, who: str, at_ns: int, seed: str) -> None:
        self._state = state
        self._who, self._at_ns, self._seed = who, at_ns, seed
        self.steps: list[Step] = []
        self.mistakes: list[Mistake] = []
        #: Policies with the lists that the file associates them with, whatever else is wrong with these.
        self.pairs: list[tuple[Policy, SelectionList]] = []
        self._failed: set[str] = set()
        self._told: set[Path] = set()
        self._rules: dict[str, tuple[str, ...]] = {}
        self._lists: dict[str, SelectionList] = {row.name: row for row in state.selection_lists()}
        self._policies: dict[str, Policy] = {row.name: row for row in state.policy_list()}
        self.lines = Lines(text)
        data = self._read(text)
        self._settings((), data.get("settings", {}), server=None, pool=None)
        builders: dict[str, Callable[[str, Any, Path], None]] = {
            "pool": self._pool,
            "server": self._server,
            "device": self._device,
            "device_pool": self._device_pool,
            "media_set": self._media_set,
            "calendar": self._calendar,
            "error_rule": self._error_rule,
            "recipient": self._recipient,
            "recipient_group": self._recipient_group,
            "selection": self._selection,
            "policy": self._policy,
        }
        if "smtp" in data:
            self._smtp(data["smtp"])
        for section, build in builders.items():
            self._each(section, data.get(section, {}), build)
        self._associations(data.get("associations", {}))
        self._each("job", data.get("job", {}), self._job)
        self._each("notify_rule", data.get("notify_rule", {}), self._notify_rule)
        self._each("report_schedule", data.get("report_schedule", {}), self._report_schedule)

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
            self._failed |= {step.change.name, *_ids(step.command)}

    def _follows(self, step: Step, fault: Fault) -> bool:
        gone = isinstance(fault.error, NotFound) and str(fault.error.fields["name"]) in self._failed
        return gone or self._is_told((*step.path, *fault.place))

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
            follows = any(each.rpartition(":")[2] in self._failed for each in target.split(" within "))
        else:
            causes = {(*template, key) for key in ("schedule", "zone", "calendars", "exclude_days")}
            causes |= {("selection", problem.list, "window"), ("policy", problem.policy, "zone")}
            follows = False
        if not follows and not self._told & {*causes, template}:
            self.mistake(template, problem.error)

    def mistake(self, path: Path, error: CasoError, *written: str) -> None:
        """At the line where one of ``written``, or of what the error names, stands below ``path``."""
        values = [*written, *(each for each in error.fields.values() if isinstance(each, str) and each not in path)]
        self._tell(path, error.message, error.hint, line=self.lines.of_value(path, values))

    def _tell(self, path: Path, text: str, hint: str = "", *, line: int | None = None) -> None:
        self.mistakes.append(Mistake(self.lines.of(path) if line is None else line, ".".join(path), text, hint))
        self._told.add(path)

    def _is_told(self, path: Path) -> bool:
        """Whether something is said to be wrong there, or below."""
        return any(each[: len(path)] == path for each in self._told)

    # --- reading ---

    def _read(self, text: str) -> dict[str, Any]:
        if len(text) > _LONGEST:
            self._tell((), f"The file is longer than {_LONGEST} characters.")
            return {}
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            self._tell((), f"It is not TOML: {error}.", line=int(found[1]) if found else len(text.splitlines()))
            return {}
        for name in [name for name in data if name not in _SECTIONS and name not in _PLAIN]:
            self._unknown((name,), name, [*_PLAIN, *_SECTIONS])
        for name, value in data.items():
            if not isinstance(value, dict):
                self._tell((name,), f'"{name}" is a table: write [{name}.NAME].')
        return {name: value for name, value in data.items() if isinstance(value, dict)}

    def _each(self, section: str, table: Mapping[str, Any], build: Callable[[str, Any, Path], None]) -> None:
        for name, value in table.items():
            path: Path = (section, name)
            doc = self._convert(_SECTIONS[section], value, path)
            if doc is not None:
                try:
                    build(name, doc, path)
                except CasoError as error:
                    self.mistake(path, error)
            if self._is_told(path):
                self._failed.add(name)

    def _convert(self, kind: type[D], value: Any, path: Path) -> D | None:
        """``value`` as a document, without the keys that are wrong, after telling of these; ``None`` if it is no table."""
        if not isinstance(value, dict):
            self._tell(path, f'"{".".join(path)}" is a table, with the keys {", ".join(kind.__struct_fields__)}.')
            return None
        hints = get_type_hints(kind)
        fields: dict[str, Any] = {}
        for key, item in value.items():
            at = (*path, key)
            if key not in hints:
                self._unknown(at, key, kind.__struct_fields__)
            elif key == "templates" and isinstance(item, dict):
                found = {name: self._convert(d.TemplateDoc, each, (*at, name)) for name, each in item.items()}
                fields[key] = {name: each for name, each in found.items() if each is not None}
            elif key == "entries" and isinstance(item, list):
                entries = [self._convert(d.EntryDoc, each, at) for each in item]
                fields[key] = tuple(each for each in entries if each is not None and each.path)
            else:
                converted = self._value(hints[key], item, at)
                if not self._is_told(at):
                    fields[key] = converted
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in fields:
                if field.name not in value:
                    self._tell((*path, field.name), f'"{field.name}" is missing.')
                fields[field.name] = getattr(_SOUND[kind], field.name)
        return kind(**fields)

    def _value(self, kind: Any, item: Any, path: Path) -> Any:
        try:
            return msgspec.convert(item, kind, strict=True)
        except msgspec.ValidationError as error:
            self._tell(path, f'"{path[-1]}": {str(error).replace("`", "").partition(" - at")[0]}.')
            return None

    def _unknown(self, path: Path, name: str, known: Iterable[str]) -> None:
        self._tell(path, f'"{name}" is not known here.', f"Known are {', '.join(known)}.")

    def _sound(self, doc: D, path: Path, make: Callable[[D], object]) -> D:
        """``doc`` if something can be made of it, or else what is right in it, after telling of every key, and every part
        of a list, that is wrong."""
        try:
            make(doc)
        except CasoError as error:
            whole = error
        else:
            return doc
        base: Any = _SOUND.get(type(doc)) or type(doc)()
        right, wrong = dict[str, Any](), False
        for key in doc.__struct_fields__:
            value = getattr(doc, key)
            parts = value if isinstance(value, tuple) else (value,)
            kept = []
            for part in parts:
                one = (part,) if isinstance(value, tuple) else part
                try:
                    make(replace(base, **{key: one}))
                except CasoError as error:
                    wrong = True
                    self.mistake((*path, key), error, *([part] if isinstance(part, str) else ()))
                else:
                    kept.append(part)
            if isinstance(value, tuple):
                right[key] = tuple(kept)
            elif kept:
                right[key] = value
        if not wrong:
            self.mistake(path, whole)
            return base
        return replace(base, **right)

    # --- building ---

    def _step(self, path: Path, command: Command, kind: str, name: str, old: Any, new: Any) -> None:
        change = Change("create" if old is None else "change", kind, name, _differences(old, new))
        self.steps.append(Step(path, command, change))

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
                self._step(at, SetSetting(name, value, server, pool), "setting", scope, shown, {name: value})

    def _setting_now(self, name: str, server: str | None, pool: str | None) -> Value | None:
        if server is not None:
            return self._state.servers[server].settings.get(name)
        if pool is not None:
            return self._state.pool_settings.get(pool, {}).get(name)
        return self._state.mesh_settings.get(name)

    def _pool(self, name: str, doc: d.PoolDoc, path: Path) -> None:
        state, old = self._state, self._state.pools.get(name)
        doc = self._sound(doc, path, lambda doc: [state.server_named(server) for server in doc.servers])
        pool = Pool(name, tuple(state.server_named(server).id for server in doc.servers))
        if old is None or set(old.servers) != set(pool.servers):
            was = None if old is None else d.PoolDoc(tuple(sorted(map(state.name_of, old.servers))))
            command: Command = CreatePool(pool) if old is None else SetPool(pool)
            self._step(path, command, "pool", name, was, d.PoolDoc(tuple(sorted(doc.servers))))
        self._settings(path, doc.settings, server=None, pool=name)

    def _server(self, name: str, doc: d.ServerDoc, path: Path) -> None:
        server = self._state.server_named(name)
        doc = self._sound(doc, path, named.server_of)
        state, location = named.server_of(doc)
        if state not in {None, server.set_state}:
            change = SetServerState(server.id, state)
            self._step(
                (*path, "state"), change, "server", name, {"state": server.set_state.value}, {"state": doc.state}
            )
        to_server = location is DataLocation.SERVER
        if to_server:  # which stands on a setting; the way back makes others possible
            self._settings(path, doc.settings, server=server.id, pool=None)
        if location not in {None, server.data_location}:
            was = {"data_location": server.data_location.value}
            moved = SetDataLocation(server.id, location)
            self._step((*path, "data_location"), moved, "server", name, was, {"data_location": doc.data_location})
        if not to_server:
            self._settings(path, doc.settings, server=server.id, pool=None)

    def _device(self, name: str, doc: d.DeviceDoc, path: Path) -> None:
        state, device = self._state, self._state.device_named(name)
        doc = self._sound(doc, path, lambda doc: named.device_of(state, name, doc))
        was, new = plain(named.device_doc(state, device)), plain(doc)
        was["quotas"] = {server: was.get("quotas", {}).get(server, d.NO_END) for server in doc.quotas}
        changed = {key: value for key, value in new.items() if value != was.get(key)}
        if changed:
            before = {key: was[key] for key in changed}
            self._step(path, named.device_of(state, name, doc), "device", name, before, changed)

    def _device_pool(self, name: str, doc: d.DevicePoolDoc, path: Path) -> None:
        state = self._state
        doc = self._sound(doc, path, lambda doc: named.device_pool_of(state, name, doc))
        row, old = named.device_pool_of(state, name, doc), state.device_pools.get(name)
        if row != old:
            was = None if old is None else named.device_pool_doc(state, old)
            self._step(path, PutDevicePool(row, old is None), "device pool", name, was, doc)

    def _media_set(self, name: str, doc: d.MediaSetDoc, path: Path) -> None:
        doc = self._sound(doc, path, lambda doc: named.media_set_of(name, doc))
        row, old = named.media_set_of(name, doc), self._state.media_sets.get(name)
        if row != old:
            was = None if old is None else named.media_set_doc(old)
            self._step(path, PutMediaSet(row, old is None), "media set", name, was, named.media_set_doc(row))

    def _calendar(self, name: str, doc: d.CalendarDoc, path: Path) -> None:
        doc = self._sound(doc, path, lambda doc: named.calendar_of(name, doc))
        row, old = named.calendar_of(name, doc), self._state.calendars.get(name)
        if row != old:
            was = None if old is None else named.calendar_doc(old)
            self._step(path, PutCalendar(row, old is None), "calendar", name, was, named.calendar_doc(row))

    def _error_rule(self, name: str, doc: d.ErrorRuleDoc, path: Path) -> None:
        doc = self._sound(doc, path, lambda doc: named.error_rule_of(name, doc))
        rule, old = named.error_rule_of(name, doc), self._state.error_rules.get(name)
        if rule != old:
            made: Command = CreateErrorRule(rule)
            command = made if old is None else Batch((DeleteErrorRule(name), made), self._seed)
            was = None if old is None else named.error_rule_doc(old)
            self._step(path, command, "error rule", name, was, named.error_rule_doc(rule))

    def _smtp(self, value: Any) -> None:
        path: Path = ("smtp",)
        doc = self._convert(n.MailServerDoc, value, path)
        if doc is None or self._is_told(path):
            return
        doc, old = self._sound(doc, path, notice_docs.mail_server_of), self._state.mail_server
        if self._is_told(path):
            return
        row = notice_docs.mail_server_of(doc)
        was = None if old is None else notice_docs.mail_server_doc(old)
        if was is None or notice_docs.mail_server_of(was) != row:
            self._step(path, SetMailServer(row), "mail server", row.host, was, notice_docs.mail_server_doc(row))

    def _recipient(self, name: str, doc: n.RecipientDoc, path: Path) -> None:
        old = self._state.recipients.get(name)
        was = None if old is None else notice_docs.recipient_doc(old)
        if was != doc:
            command = PutRecipient(notice_docs.recipient_of(name, doc), new=old is None)
            self._step(path, command, "recipient", name, was, doc)

    def _recipient_group(self, name: str, doc: n.RecipientGroupDoc, path: Path) -> None:
        old, row = self._state.recipient_groups.get(name), notice_docs.group_of(name, doc)
        if old != row:
            was = None if old is None else notice_docs.group_doc(old)
            command = PutRecipientGroup(row, new=old is None)
            self._step(path, command, "group of recipients", name, was, notice_docs.group_doc(row))

    def _notify_rule(self, name: str, doc: n.NoticeRuleDoc, path: Path) -> None:
        state, old = self._state, self._state.notice_rules.get(name)
        known = self._known_to_file()
        doc = self._sound(doc, path, lambda doc: notice_docs.rule_of(state, name, doc, known))
        row = notice_docs.rule_of(state, name, doc, known)
        if old is None or replace(old, since_ns=0) != row:
            was = None if old is None else notice_docs.rule_doc(state, old)
            self._step(path, PutNoticeRule(row, new=old is None), "rule of notification", name, was, doc)

    def _report_schedule(self, name: str, doc: ReportScheduleDoc, path: Path) -> None:
        doc = self._sound(doc, path, lambda doc: report_schedules.report_schedule_of(name, doc))
        row, old = report_schedules.report_schedule_of(name, doc), self._state.report_schedules.get(name)
        if old is None or replace(old, created_by="", created_at_ns=0, last_due_at_ns=None) != row:
            was = None if old is None else report_schedules.report_schedule_doc(old)
            command = PutReportSchedule(row, new=old is None)
            self._step(path, command, "report schedule", name, was, report_schedules.report_schedule_doc(row))

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
        doc = self._sound(doc, path, lambda doc: documents.selection_of(state, empty, doc))
        row = documents.selection_of(state, empty, doc)
        self._lists[name] = row
        if row != old:
            was = None if old is None else documents.selection_doc(state, old)
            command = PutList(row, self._seed, before=old)
            self._step(path, command, "selection list", name, was, documents.selection_doc(state, row))

    def _policy(self, name: str, doc: d.PolicyDoc, path: Path) -> None:
        old = self._policies.get(name)
        empty = old or Policy(self._id("policy", name), name, (), (), self._who, self._at_ns)
        outer = self._sound(replace(doc, templates={}), path, lambda doc: documents.policy_of(empty, doc))
        common = outer.zone or empty.zone
        templates = {
            each: self._sound(
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
            self._step(path, command, "policy", name, was, documents.policy_doc(policy))

    def _associations(self, table: Mapping[str, Any]) -> None:
        """The policies of each list that is named, exactly."""
        for name, value in table.items():
            path: Path = ("associations", name)
            wanted = self._value(tuple[str, ...], value, path)
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
        if found is None and name not in self._failed:
            self.mistake(path, NotFound(kind=kind, name=name))
        return found

    def _job(self, name: str, doc: d.JobDoc, path: Path) -> None:
        state, old = self._state, next((job for job in self._state.job_list() if job.name == name), None)
        doc = self._sound(doc, path, lambda doc: documents.job_of(state, doc))
        spec, schedule, priority = documents.job_of(state, doc)
        if old is None:
            job = Job(self._id("job", name), name, spec, self._who, self._at_ns, priority, schedule)
            self._step(path, CreateJob(job, run_now=False, at_ns=self._at_ns), "job", name, None, doc)
        elif (old.spec, old.schedule, old.priority) != (spec, schedule, priority):
            if not isinstance(old.spec, BackupSpec) or old.schedule is None:
                raise UsageError(detail=f"The job {name} is no recurring backup: choose another name")
            was = documents.job_doc(state, old)
            self._step(path, EditJob(old.id, spec, schedule, priority), "job", name, was, doc)

    def _id(self, kind: str, name: str) -> str:
        return derived_id(self._seed, kind, name)


def _ids(command: Command) -> tuple[str, ...]:
    """By which the commands after it name what it would have saved."""
    match command:
        case PutList(list=row) | PutPolicy(policy=row):
            return (row.id,)
        case _:
            return ()


def _differences(old: Any, new: Any) -> tuple[str, ...]:
    """One line for each value that is another one."""
    before = {} if old is None else _flat(old)
    after = _flat(new)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        if was != now:
            lines.append(f"{key}: {_shown(was)} -> {_shown(now)}" if old is not None else f"{key}: {_shown(now)}")
    return tuple(lines)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in plain(value).items():
        if isinstance(item, dict):
            found.update(_flat(item, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = item
    return found


def _shown(value: Any) -> str:
    return "as usual" if value is None else json.dumps(value, ensure_ascii=False)
