"""From a file that says how the mesh shall be to the commands that make it so, and back to a file.

What the file names is made as it says; what it does not name stays as it is. Every mistake is found, each with its
line, before anything is done.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Struct

from caso_mesh.control import documents
from caso_mesh.control.lines import Lines, Path
from caso_mesh.control.state import ControlState
from caso_mesh.model import documents as d
from caso_mesh.model.commands import (
    Associate,
    Command,
    CreateJob,
    CreatePool,
    Dissociate,
    EditJob,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutMediaSet,
    PutPolicy,
    SetDevice,
    SetPool,
    SetSetting,
)
from caso_mesh.model.errors import CasoError, InvalidValue, NotFound, UsageError
from caso_mesh.model.ids import derived_id
from caso_mesh.model.jobs import BackupSpec, Job
from caso_mesh.model.mesh import Pool
from caso_mesh.model.policies import Policy, SelectionList
from caso_mesh.model.settings import Value, parse_setting
from caso_mesh.model.states import DeviceState
from caso_mesh.model.storage import FACTORY_MEDIA_SETS
from caso_mesh.model.units import format_number, parse_size
from caso_mesh.model.views import Change, Mistake

D = TypeVar("D", bound=Struct)
_LONGEST = 4 << 20
_SECTIONS: dict[str, type[Struct]] = {
    "pool": d.PoolDoc,
    "server": d.ServerDoc,
    "device": d.DeviceDoc,
    "device_pool": d.DevicePoolDoc,
    "media_set": d.MediaSetDoc,
    "calendar": d.CalendarDoc,
    "selection": d.SelectionDoc,
    "policy": d.PolicyDoc,
    "job": d.JobDoc,
}
_PLAIN = ("settings", "associations")


class Step(Struct, frozen=True):
    """One command, what it changes in words, and where the file says so."""

    path: Path
    command: Command
    change: Change


class Plan:
    """What a file comes to, against the state as it is. ``seed`` makes the ids of what is new."""

    def __init__(self, state: ControlState, text: str, *, who: str, at_ns: int, seed: str) -> None:
        self._state = state
        self._who, self._at_ns, self._seed = who, at_ns, seed
        self.steps: list[Step] = []
        self.mistakes: list[Mistake] = []
        self._failed: set[str] = set()
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
            "selection": self._selection,
            "policy": self._policy,
        }
        for section, build in builders.items():
            self._each(section, data.get(section, {}), build)
        self._associations(data.get("associations", {}))
        self._each("job", data.get("job", {}), self._job)

    def commands(self) -> tuple[Command, ...]:
        return tuple(step.command for step in self.steps)

    def refuse(self, step: Step, error: CasoError) -> None:
        """The command of a step is refused. What follows only from another mistake is not told."""
        if isinstance(error, NotFound) and str(error.fields["name"]) in self._failed:
            return
        self._failed.add(step.change.name)
        self.mistake(step.path, error)

    def mistake(self, path: Path, error: CasoError, *written: str) -> None:
        """At the line where one of ``written``, or of what the error names, stands below ``path``."""
        values = [*written, *(each for each in error.fields.values() if isinstance(each, str) and each not in path)]
        line = self.lines.of_value(path, values)
        self.mistakes.append(Mistake(line, ".".join(path), error.message, error.hint))

    # --- reading ---

    def _read(self, text: str) -> dict[str, Any]:
        if len(text) > _LONGEST:
            self.mistakes.append(Mistake(1, "", f"The file is longer than {_LONGEST} characters."))
            return {}
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            line = int(found[1]) if found else len(text.splitlines())
            self.mistakes.append(Mistake(line, "", f"It is not TOML: {error}."))
            return {}
        for name in [name for name in data if name not in _SECTIONS and name not in _PLAIN]:
            self._unknown((name,), name, [*_PLAIN, *_SECTIONS])
        for name, value in data.items():
            if not isinstance(value, dict):
                self.mistakes.append(
                    Mistake(self.lines.of((name,)), name, f'"{name}" is a table: write [{name}.NAME].')
                )
        return {name: value for name, value in data.items() if isinstance(value, dict)}

    def _each(self, section: str, table: Mapping[str, Any], build: Callable[[str, Any, Path], None]) -> None:
        for name, value in table.items():
            path: Path = (section, name)
            before = len(self.mistakes)
            doc = self._convert(_SECTIONS[section], value, path)
            if doc is not None:
                try:
                    build(name, doc, path)
                except CasoError as error:
                    self.mistake(path, error)
            if len(self.mistakes) > before:
                self._failed.add(name)

    def _convert(self, kind: type[D], value: Any, path: Path) -> D | None:
        """``value`` as a document; ``None`` after telling everything that is wrong with its keys."""
        if not isinstance(value, dict):
            text = f'"{".".join(path)}" is a table, with the keys {", ".join(kind.__struct_fields__)}.'
            self.mistakes.append(Mistake(self.lines.of(path), ".".join(path), text))
            return None
        before, hints = len(self.mistakes), get_type_hints(kind)
        fields: dict[str, Any] = {}
        for key, item in value.items():
            if key not in hints:
                self._unknown((*path, key), key, kind.__struct_fields__)
            elif key == "templates" and isinstance(item, dict):
                found = {name: self._convert(d.TemplateDoc, each, (*path, key, name)) for name, each in item.items()}
                fields[key] = {name: each for name, each in found.items() if each is not None}
            elif key == "entries" and isinstance(item, list):
                entries = [self._convert(d.EntryDoc, each, (*path, key)) for each in item]
                fields[key] = tuple(each for each in entries if each is not None)
            else:
                fields[key] = self._value(hints[key], item, (*path, key))
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in value:
                text = f'"{field.name}" is missing.'
                self.mistakes.append(Mistake(self.lines.of(path), ".".join(path), text))
        if kind is d.PolicyDoc:
            self._parts(path, fields)
        return kind(**fields) if len(self.mistakes) == before else None

    def _parts(self, path: Path, fields: Mapping[str, Any]) -> None:
        """Tells what is wrong with single templates and rules of a policy."""
        known = self._policies.get(path[1])
        zone = fields.get("zone") or (known.zone if known is not None else "UTC")
        for template, doc in (fields.get("templates") or {}).items():
            self._try((*path, "templates", template), documents.template_of, path[1], template, doc, zone)
        for rule in fields.get("rules") or ():
            self._try((*path, "rules"), documents.rule_of, path[1], rule, written=(rule,))

    def _value(self, kind: Any, item: Any, path: Path) -> Any:
        try:
            return msgspec.convert(item, kind, strict=True)
        except msgspec.ValidationError as error:
            text = f'"{path[-1]}": {str(error).replace("`", "").partition(" - at")[0]}.'
            self.mistakes.append(Mistake(self.lines.of(path), ".".join(path), text))
            return None

    def _unknown(self, path: Path, name: str, known: Iterable[str]) -> None:
        text = f'"{name}" is not known here.'
        self.mistakes.append(Mistake(self.lines.of(path), ".".join(path), text, f"Known are {', '.join(known)}."))

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
        pool = Pool(name, tuple(state.server_named(server).id for server in doc.servers))
        if old is None or set(old.servers) != set(pool.servers):
            was = None if old is None else d.PoolDoc(tuple(sorted(map(state.name_of, old.servers))))
            command: Command = CreatePool(pool) if old is None else SetPool(pool)
            self._step(path, command, "pool", name, was, d.PoolDoc(tuple(sorted(doc.servers))))
        self._settings(path, doc.settings, server=None, pool=name)

    def _server(self, name: str, doc: d.ServerDoc, path: Path) -> None:
        self._settings(path, doc.settings, server=self._state.server_named(name).id, pool=None)

    def _device(self, name: str, doc: d.DeviceDoc, path: Path) -> None:
        device = self._state.device_named(name)
        state = None
        if doc.state is not None:
            if doc.state not in set(DeviceState):
                known = ", ".join(each.value for each in DeviceState)
                raise InvalidValue(value=doc.state, what="state of a device", expected=f"Use {known}")
            state = DeviceState(doc.state)
        low = None if doc.low_space is None else parse_size(doc.low_space)
        wanted = {"state": state, "concurrency": doc.concurrency, "low_space_bytes": low}
        now = {key: getattr(device, key) for key in wanted}
        new = {key: value for key, value in wanted.items() if value is not None and value != now[key]}
        if new:
            was = {key: now[key] for key in new}
            self._step(path, SetDevice(device.id, state, doc.concurrency, low), "device", name, was, new)

    def _device_pool(self, name: str, doc: d.DevicePoolDoc, path: Path) -> None:
        row, old = documents.device_pool_of(self._state, name, doc), self._state.device_pools.get(name)
        if row != old:
            was = None if old is None else documents.device_pool_doc(self._state, old)
            self._step(path, PutDevicePool(row, old is None), "device pool", name, was, doc)

    def _media_set(self, name: str, doc: d.MediaSetDoc, path: Path) -> None:
        row, old = documents.media_set_of(name, doc), self._state.media_sets.get(name)
        if row != old:
            was = None if old is None else documents.media_set_doc(old)
            self._step(path, PutMediaSet(row, old is None), "media set", name, was, documents.media_set_doc(row))

    def _calendar(self, name: str, doc: d.CalendarDoc, path: Path) -> None:
        row, old = documents.calendar_of(name, doc), self._state.calendars.get(name)
        if row != old:
            was = None if old is None else documents.calendar_doc(old)
            self._step(path, PutCalendar(row, old is None), "calendar", name, was, documents.calendar_doc(row))

    def _selection(self, name: str, doc: d.SelectionDoc, path: Path) -> None:
        old = self._lists.get(name)
        empty = old or SelectionList(self._id("selection", name), name, (), self._who, self._at_ns)
        row = documents.selection_of(self._state, empty, doc)
        self._lists[name] = row
        if row != old:
            was = None if old is None else documents.selection_doc(self._state, old)
            command = PutList(row, self._seed, before=old)
            self._step(path, command, "selection list", name, was, documents.selection_doc(self._state, row))

    def _policy(self, name: str, doc: d.PolicyDoc, path: Path) -> None:
        old = self._policies.get(name)
        empty = old or Policy(self._id("policy", name), name, (), (), self._who, self._at_ns)
        policy = documents.policy_of(empty, doc)
        self._policies[name] = policy
        if policy != old:
            was = None if old is None else documents.policy_doc(old)
            command = PutPolicy(policy, self._seed, before=old)
            self._step(path, command, "policy", name, was, documents.policy_doc(policy))

    def _try(
        self, path: Path, function: Callable[..., object], *arguments: object, written: tuple[str, ...] = ()
    ) -> None:
        try:
            function(*arguments)
        except CasoError as error:
            self.mistake(path, error, *written)

    def _associations(self, table: Mapping[str, Any]) -> None:
        """The policies of each list that is named, exactly."""
        for name, value in table.items():
            path: Path = ("associations", name)
            wanted = self._value(tuple[str, ...], value, path)
            if wanted is None:
                continue
            row = self._named(self._lists, name, "selection list", path)
            policies = [self._named(self._policies, each, "policy", path) for each in wanted]
            if row is None or None in policies:
                continue
            ids = {policy.id: policy.name for policy in policies if policy is not None}
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
        old = next((job for job in self._state.job_list() if job.name == name), None)
        spec, schedule, priority = documents.job_of(self._state, doc)
        if old is None:
            job = Job(self._id("job", name), name, spec, self._who, self._at_ns, priority, schedule)
            self._step(path, CreateJob(job, run_now=False, at_ns=self._at_ns), "job", name, None, doc)
        elif (old.spec, old.schedule, old.priority) != (spec, schedule, priority):
            if not isinstance(old.spec, BackupSpec) or old.schedule is None:
                raise UsageError(detail=f"The job {name} is no recurring backup: choose another name")
            was = documents.job_doc(self._state, old)
            self._step(path, EditJob(old.id, spec, schedule, priority), "job", name, was, doc)

    def _id(self, kind: str, name: str) -> str:
        return derived_id(self._seed, kind, name)


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
    for key, item in _plain(value).items():
        if isinstance(item, dict):
            found.update(_flat(item, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = item
    return found


def _plain(value: Any) -> Any:
    """A document as a file has it: without what is as usual."""
    if isinstance(value, Struct):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if field.required or getattr(value, field.name) != _usual(field)
        }
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _usual(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _shown(value: Any) -> str:
    return "as usual" if value is None else json.dumps(value, ensure_ascii=False)


# --- writing ---------------------------------------------------------------------------------------------------------


def written(state: ControlState) -> str:
    """A file that would make the mesh as it is."""
    out = [f"# The mesh {state.info().name}, as caso-mesh apply takes it.", ""]
    _table(out, ("settings",), dict(sorted(state.mesh_settings.items())))
    for pool in state.pool_list():
        settings = dict(sorted(state.pool_settings.get(pool.name, {}).items()))
        doc = d.PoolDoc(tuple(sorted(map(state.name_of, pool.servers))), settings)
        _table(out, ("pool", pool.name), _plain(doc))
    for server in state.server_list():
        if server.settings:
            _table(out, ("server", server.name), {"settings": dict(sorted(server.settings.items()))})
    for device in state.device_list():
        low = documents.size_text(device.low_space_bytes)
        _table(
            out, ("device", device.name), {"concurrency": device.concurrency, "low_space": low, "state": device.state}
        )
    for name, group in sorted(state.device_pools.items()):
        _table(out, ("device_pool", name), _plain(documents.device_pool_doc(state, group)))
    for media_set in state.media_set_list():
        if media_set not in FACTORY_MEDIA_SETS:
            _table(out, ("media_set", media_set.name), _plain(documents.media_set_doc(media_set)), force=True)
    for name, calendar in sorted(state.calendars.items()):
        _table(out, ("calendar", name), _plain(documents.calendar_doc(calendar)), force=True)
    for row in state.selection_lists():
        _table(out, ("selection", row.name), _plain(documents.selection_doc(state, row)), force=True)
    for policy in state.policy_list():
        _table(out, ("policy", policy.name), _plain(documents.policy_doc(policy)), force=True)
    pairs: dict[str, list[str]] = {}
    for each in state.association_list():
        pairs.setdefault(state.selection(each.list).name, []).append(state.policy(each.policy).name)
    _table(out, ("associations",), {name: sorted(names) for name, names in sorted(pairs.items())})
    for job in state.job_list():
        if job.origin is None and job.schedule is not None and isinstance(job.spec, BackupSpec):
            _table(out, ("job", job.name), _plain(documents.job_doc(state, job)))
    return "\n".join(out)


def _table(out: list[str], path: Path, values: Mapping[str, Any], *, force: bool = False) -> None:
    """A table with its plain values first, then what is below it."""
    below = {key: value for key, value in values.items() if isinstance(value, dict) or _is_tables(value)}
    plain = {key: value for key, value in values.items() if key not in below and value not in (None, ())}
    if plain or (force and not below):
        out.append(f"[{_dotted(path)}]")
        out += [f"{_quoted(key)} = {_toml(value)}" for key, value in plain.items()]
        out.append("")
    elif force:
        out += [f"[{_dotted(path)}]", ""]
    for key, value in below.items():
        if isinstance(value, dict):
            _table(out, (*path, key), value, force=key not in {"settings", "templates"})
            continue
        for item in value:
            out.append(f"[[{_dotted((*path, key))}]]")
            out += [f"{_quoted(name)} = {_toml(each)}" for name, each in item.items()]
            out.append("")


def _is_tables(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, dict) for item in value)


def _dotted(path: Path) -> str:
    return ".".join(map(_quoted, path))


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (int, float)):
        return format_number(value)
    # JSON's escapes are TOML's, but for the delete character
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
