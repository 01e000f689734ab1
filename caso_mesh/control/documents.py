"""From documents, as people write them, to rows of the control state, and back."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TypeVar

import msgspec

from caso_mesh.control.logons import logons_of, with_logon
from caso_mesh.control.state import ControlState
from caso_mesh.model.documents import (
    EntryDoc,
    JobDoc,
    PolicyDoc,
    SelectionDoc,
    TemplateDoc,
)
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import InvalidPolicy, InvalidValue, Misuse
from caso_mesh.model.host_commands import dump_name, dump_path, is_reserved
from caso_mesh.model.ids import NAME
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job, SourceRoots, Target, TargetKind
from caso_mesh.model.policies import (
    NEVER_TOO_OLD_S,
    ListEntry,
    Policy,
    RuleKind,
    SelectionList,
    Template,
    TemplateRule,
    TemplateType,
)
from caso_mesh.model.states import BackupType, Priority, SnapshotMode
from caso_mesh.model.units import duration_text, escape_path, parse_duration_s, parse_size, size_text, unescape_path
from caso_mesh.planning import presets
from caso_mesh.planning.schedule import check_schedule, zone
from caso_mesh.planning.window import check_window

E = TypeVar("E", bound=StrEnum)
_NAME = r"([a-z0-9][a-z0-9._-]*)"
#: How a person writes that backups of a list may have any age.
_NEVER = "never"
_RULES = {
    RuleKind.SUPERSEDES: re.compile(rf"(?:on conflict )?{_NAME} supersedes {_NAME}"),
    RuleKind.THEN: re.compile(rf"(?:on conflict )?{_NAME} then {_NAME}"),
    RuleKind.STARTS: re.compile(rf"when {_NAME} starts,? start {_NAME}"),
    RuleKind.COMPLETES: re.compile(rf"when {_NAME} completes,? start {_NAME}"),
    RuleKind.SUCCEEDS: re.compile(rf"when {_NAME} succeeds,? start {_NAME}"),
    RuleKind.FAILS: re.compile(rf"when {_NAME} fails,? start {_NAME}"),
    RuleKind.FIRST: re.compile(rf"{_NAME} must complete(?: once)? first"),
}


# --- selection lists ---


def selection_of(state: ControlState, old: SelectionList, doc: SelectionDoc) -> SelectionList:
    """``old`` (of which id, name and origin stay) as ``doc`` says. Raises ``InvalidValue``, ``NotFound``,
    ``UnknownZone``."""
    window = " ".join(doc.window.split())
    check_window(window)
    entries = [_entry(state, old, EntryDoc(path)) for path in doc.paths]
    entries += [_entry(state, old, entry) for entry in doc.entries]
    for pattern in (*doc.exclude, *doc.include):
        _check_pattern(pattern)
    return msgspec.structs.replace(
        old,
        entries=tuple(sorted(entries, key=lambda entry: (entry.server, path_key(entry.root)))),
        excludes=doc.exclude,
        includes=doc.include,
        one_file_system=doc.one_file_system,
        exclude_caches=doc.exclude_caches,
        larger_than=None if doc.exclude_larger_than is None else parse_size(doc.exclude_larger_than),
        default_excludes=doc.default_excludes,
        priority=one_of(Priority, doc.priority, "priority"),
        window=window,
        within=None if doc.within is None else parse_target(doc.within),
        oldest_good_s=NEVER_TOO_OLD_S if doc.oldest_good == _NEVER else _seconds(doc.oldest_good),
    )


def selection_doc(state: ControlState, row: SelectionList) -> SelectionDoc:
    by_name = sorted(row.entries, key=lambda entry: (state.name_of(entry.server), path_key(entry.root)))
    shown = [(place_text(state, entry.server, entry.root), entry) for entry in by_name]
    return SelectionDoc(
        paths=tuple(text for text, entry in shown if _plain(entry)),
        entries=tuple(
            EntryDoc(text, entry.excludes, entry.includes, entry.logon) for text, entry in shown if not _plain(entry)
        ),
        exclude=row.excludes,
        include=row.includes,
        one_file_system=row.one_file_system,
        exclude_caches=row.exclude_caches,
        exclude_larger_than=None if row.larger_than is None else size_text(row.larger_than),
        default_excludes=row.default_excludes,
        priority=row.priority.value,
        window=row.window,
        within=None if row.within is None else str(row.within),
        oldest_good=_NEVER if row.oldest_good_s == NEVER_TOO_OLD_S else duration_text(row.oldest_good_s),
    )


def _plain(entry: ListEntry) -> bool:
    return not entry.excludes and not entry.includes and entry.logon is None


def place_text(state: ControlState, server: str, root: bytes) -> str:
    """``SERVER:/PATH`` in its escaped form, or ``SERVER:@NAME``."""
    dump = dump_name(root)
    return f"{state.name_of(server)}:{escape_path(b'/' + root) if dump is None else '@' + dump}"


def _entry(state: ControlState, old: SelectionList, doc: EntryDoc) -> ListEntry:
    name, _, path = doc.path.partition(":")
    if path.startswith("@"):
        if not NAME.match(path[1:]):
            raise InvalidValue(value=doc.path, what="dump", expected="Use SERVER:@NAME")
        root = dump_path(path[1:])
    else:
        root = clean_path(unescape_path(path))
        if is_reserved(root):
            raise InvalidValue(value=doc.path, what="path", expected="Use SERVER:@NAME for a dump")
    for pattern in (*doc.exclude, *doc.include):
        _check_pattern(pattern)
    former = {state.name_of(entry.server): entry.server for entry in old.entries if entry.server not in state.servers}
    server = former.get(name) or state.server_named(name).id
    return ListEntry(server, root, doc.exclude, doc.include, doc.logon)


def clean_path(path: bytes) -> bytes:
    """An absolute path without its leading slash, without ``.``, ``..`` and doubled slashes. Raises ``InvalidValue``."""
    if not path.startswith(b"/") or b"\0" in path:
        raise InvalidValue(value=escape_path(path), what="path", expected="Use an absolute path")
    parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise InvalidValue(value=escape_path(path), what="path", expected='Write it without ".."')
    return b"/".join(parts)


def _check_pattern(pattern: str) -> None:
    if not pattern.strip("/") or "\0" in pattern:
        raise InvalidValue(value=pattern, what="pattern", expected='Use a glob, as in "*.tmp" or "/srv/cache/"')


# --- policies ---


def policy_of(old: Policy, doc: PolicyDoc) -> Policy:
    """``old`` (of which id, name and origin stay) as ``doc`` says. Raises ``InvalidValue``, ``InvalidSchedule``,
    ``InvalidPolicy``, ``UnknownZone``."""
    common = doc.zone or old.zone
    zone(common)
    return msgspec.structs.replace(
        old,
        templates=tuple(template_of(old.name, name, each, common) for name, each in doc.templates.items()),
        rules=tuple(rule_of(old.name, text) for text in doc.rules),
        conflict_s=parse_duration_s(doc.conflict_within),
        zone=common,
    )


def policy_doc(policy: Policy) -> PolicyDoc:
    return PolicyDoc(
        templates={template.name: _template_doc(template, policy.zone) for template in policy.templates},
        rules=tuple(map(str, policy.rules)),
        zone=policy.zone,
        conflict_within=duration_text(policy.conflict_s) or "0s",
    )


def rule_of(policy: str, text: str) -> TemplateRule:
    """Raises ``InvalidPolicy``."""
    plain = " ".join(text.lower().split())
    for kind, pattern in _RULES.items():
        match = pattern.fullmatch(plain)
        if match is not None:
            return TemplateRule(kind, match[1], match[2] if pattern.groups > 1 else None)
    forms = '"on conflict A supersedes B", "on conflict A then B", "when A starts|completes|succeeds|fails start B"'
    raise InvalidPolicy(name=policy, detail=f'"{text}" is no rule; rules are {forms}, "A must complete first"')


def template_of(policy: str, name: str, doc: TemplateDoc, zone_name: str) -> Template:
    """Raises as ``policy_of``."""
    if doc.type not in set(TemplateType):
        known = ", ".join(each.value for each in TemplateType)
        raise InvalidValue(value=doc.type, what="type of a template", expected=f"Use {known}")
    return Template(
        name=name,
        type=TemplateType(doc.type),
        target=None if doc.to is None else parse_target(doc.to),
        schedule=_schedule(policy, name, doc, zone_name),
        calendars=doc.calendars,
        media_set=doc.media_set,
        priority=None if doc.priority is None else one_of(Priority, doc.priority, "priority"),
        verify=doc.verify,
        pre=doc.pre,
        post=doc.post,
        post_always=doc.post_always,
        ignore_exit_codes=doc.ignore_exit_codes,
        snapshot=one_of(SnapshotMode, doc.snapshot, "snapshot mode"),
        allow_shrink=doc.allow_shrink,
        logon=doc.logon,
        second=None if doc.second_to is None else parse_target(doc.second_to),
    )


def _schedule(policy: str, name: str, doc: TemplateDoc, zone_name: str) -> CronSchedule | None:
    zone(doc.zone or zone_name)
    if doc.schedule is None:
        given = {
            "exclude-days": doc.exclude_days,
            "calendars": doc.calendars,
            "start-window": doc.start_window,
            "catch-up": doc.catch_up,
            "cancel-after": doc.cancel_after,
            "zone": doc.zone,
        }
        useless = next((key for key, value in given.items() if value), None)
        if useless is not None:
            raise InvalidPolicy(name=policy, detail=f"{useless} of the template {name} belongs to a schedule")
        return None
    return _checked(doc, presets.parse_schedule(doc.schedule, doc.zone or zone_name))


def _checked(doc: TemplateDoc | JobDoc, parsed: CronSchedule) -> CronSchedule:
    schedule = msgspec.structs.replace(
        parsed,
        excludes=tuple(sorted(set(doc.exclude_days))),
        start_window_s=_seconds(doc.start_window),
        cancel_after_s=_seconds(doc.cancel_after),
        catch_up=doc.catch_up,
    )
    check_schedule(schedule)
    return schedule


def _template_doc(template: Template, zone_name: str) -> TemplateDoc:
    schedule = template.schedule
    return TemplateDoc(
        type=template.type.value,
        to=None if template.target is None else str(template.target),
        schedule=None if schedule is None else presets.shown(schedule),
        zone=None if schedule is None or schedule.zone == zone_name else schedule.zone,
        exclude_days=() if schedule is None else schedule.excludes,
        calendars=template.calendars,
        start_window=None if schedule is None else duration_text(schedule.start_window_s),
        cancel_after=None if schedule is None else duration_text(schedule.cancel_after_s),
        catch_up=False if schedule is None else schedule.catch_up,
        media_set=template.media_set,
        priority=None if template.priority is None else template.priority.value,
        verify=template.verify,
        pre=template.pre,
        post=template.post,
        post_always=template.post_always,
        ignore_exit_codes=template.ignore_exit_codes,
        snapshot=template.snapshot.value,
        allow_shrink=template.allow_shrink,
        logon=template.logon,
        second_to=None if template.second is None else str(template.second),
    )


# --- jobs that no policy makes ---


def job_of(state: ControlState, doc: JobDoc) -> tuple[BackupSpec, CronSchedule, Priority]:
    """Raises ``InvalidValue``, ``InvalidSchedule``, ``UnknownZone``, ``NotFound``."""
    empty = SelectionList("", "", (), "", 0)
    entries = [_entry(state, empty, EntryDoc(path)) for path in doc.paths]
    for pattern in doc.exclude:
        _check_pattern(pattern)
    servers = sorted({entry.server for entry in entries})
    spec = BackupSpec(
        sources=tuple(
            SourceRoots(server, tuple(sorted({each.root for each in entries if each.server == server}, key=path_key)))
            for server in servers
        ),
        target=parse_target(doc.to),
        type=one_of(BackupType, doc.type, "type of a backup"),
        excludes=doc.exclude,
        one_file_system=doc.one_file_system,
        exclude_caches=doc.exclude_caches,
        larger_than=None if doc.exclude_larger_than is None else parse_size(doc.exclude_larger_than),
        default_excludes=doc.default_excludes,
        media_set=doc.media_set,
        verify=doc.verify,
        pre=doc.pre,
        post=doc.post,
        post_always=doc.post_always,
        ignore_exit_codes=doc.ignore_exit_codes,
        snapshot=one_of(SnapshotMode, doc.snapshot, "snapshot mode"),
        allow_shrink=doc.allow_shrink,
        second=None if doc.second_to is None else parse_target(doc.second_to),
    )
    spec = with_logon(spec, doc.logon)
    schedule = _checked(doc, presets.parse_schedule(doc.schedule, doc.zone))
    return spec, schedule, one_of(Priority, doc.priority, "priority")


def job_doc(state: ControlState, job: Job) -> JobDoc:
    """A recurring backup."""
    spec, schedule = job.spec, job.schedule
    if not isinstance(spec, BackupSpec) or schedule is None:
        raise Misuse(f"{job.name} is no recurring backup")
    return JobDoc(
        paths=tuple(
            place_text(state, source.server, root)
            for source in sorted(spec.sources, key=lambda source: state.name_of(source.server))
            for root in source.roots
        ),
        to=str(spec.target),
        schedule=presets.shown(schedule),
        zone=schedule.zone,
        type=spec.type.value,
        exclude_days=schedule.excludes,
        start_window=duration_text(schedule.start_window_s),
        cancel_after=duration_text(schedule.cancel_after_s),
        catch_up=schedule.catch_up,
        exclude=spec.excludes,
        one_file_system=spec.one_file_system,
        exclude_caches=spec.exclude_caches,
        exclude_larger_than=None if spec.larger_than is None else size_text(spec.larger_than),
        default_excludes=spec.default_excludes,
        media_set=spec.media_set,
        priority=job.priority.value,
        verify=spec.verify,
        pre=spec.pre,
        post=spec.post,
        post_always=spec.post_always,
        ignore_exit_codes=spec.ignore_exit_codes,
        snapshot=spec.snapshot.value,
        allow_shrink=spec.allow_shrink,
        logon=next((name for _, name in logons_of(spec)), None),
        second_to=None if spec.second is None else str(spec.second),
    )


# --- words ---


def parse_target(text: str) -> Target:
    """``any``, ``device:D``, ``devices:POOL``, ``server:S`` or ``pool:P``. Raises ``InvalidValue``."""
    kind, _, name = text.partition(":")
    try:
        target = Target(TargetKind(kind), name or None)
    except ValueError:
        target = None
    if target is None or (target.kind is TargetKind.ANY) != (target.name is None):
        expected = "Use any, device:NAME, devices:POOL, server:NAME or pool:NAME"
        raise InvalidValue(value=text, what="target", expected=expected)
    return target


def _seconds(text: str | None) -> float | None:
    return None if text is None else parse_duration_s(text)


def one_of(kind: type[E], text: str, what: str) -> E:
    """The member of an enumeration with that value. Raises ``InvalidValue`` with all of them."""
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(each.value for each in kind)
        raise InvalidValue(value=text, what=what, expected=f"Use {known}") from None
