"""Commands about selection lists, policies and their associations, and about what these name: media sets, device pools,
calendars. What is made of them is in ``made``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from caso_mesh.control.faults import Fault, raise_first, refused
from caso_mesh.control.importing import check_written, refuse_imported
from caso_mesh.control.logons import check_logons, new_logons
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import (
    Associate,
    DeleteCalendar,
    DeleteDevicePool,
    DeleteList,
    DeleteMediaSet,
    DeletePolicy,
    Dissociate,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutMediaSet,
    PutPolicy,
)
from caso_mesh.model.errors import (
    AlreadyExists,
    Conflict,
    InUse,
    InvalidPolicy,
    InvalidValue,
    NotFound,
    UsageError,
)
from caso_mesh.model.host_commands import dump_name
from caso_mesh.model.hours import parse_window
from caso_mesh.model.ids import check_name
from caso_mesh.model.jobs import JobSpec, Target, TargetKind, media_set_of, placed_by
from caso_mesh.model.policies import (
    READING,
    TARGETLESS,
    Association,
    DevicePool,
    Policy,
    SelectionList,
    Template,
    TemplateType,
)
from caso_mesh.model.states import SnapshotMode
from caso_mesh.model.storage import FACTORY_MEDIA_SETS, MediaSet
from caso_mesh.planning import rules
from caso_mesh.planning.schedule import check_days

_LONGEST_S = 100 * 366 * 86400.0
_SMALLEST_MEDIUM = 1_000_000
_MOST_TEMPLATES, _MOST_RULES, _MOST_ENTRIES = 50, 200, 1000


# --- selection lists -------------------------------------------------------------------------------------------------


def put_list(state: ControlState, command: PutList, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound`` for a server, ``UsageError``, ``Conflict`` if it is not as it was ``before``."""
    row = command.list
    old = state.lists.get(row.id)
    _check_before(old, command.before, "selection list", row.name)
    raise_first(list_faults(state, row))
    return Effect({"list": row.id}, () if row == old else (Put("lists", row.id, row),))


def list_faults(state: ControlState, row: SelectionList) -> Iterator[Fault]:
    """All that is wrong with a list; places are the keys of ``SelectionDoc``."""
    yield from refused((), check_name, row.name, "selection list")
    others = (each for each in state.lists.values() if each.id != row.id)
    yield from refused((), _check_name_free, others, row.name, "selection-list")
    if not row.entries:
        yield Fault(UsageError(detail=f"The selection list {row.name} is empty: give SERVER:/PATH"))
    if len(row.entries) > _MOST_ENTRIES:
        detail = f"The selection list {row.name} has more than {_MOST_ENTRIES} entries"
        yield Fault(UsageError(detail=detail), ("paths",))
    places = [(entry.server, entry.root) for entry in row.entries]
    if len(set(places)) < len(places):
        yield Fault(UsageError(detail=f"The selection list {row.name} names a place twice"), ("paths",))
    old = state.lists.get(row.id)
    known = {entry.server for entry in old.entries} if old is not None else set()
    for server in row.servers():
        if server not in known:
            yield from refused(("paths",), state.server, server)
    if any(entry.logon is not None and dump_name(entry.root) is None for entry in row.entries):
        detail = f"A logon of the selection list {row.name} belongs to a dump, as in SERVER:@NAME"
        yield Fault(UsageError(detail=detail), ("entries",))
    for wanted in new_logons(row, old):
        yield from refused(("entries",), check_logons, state, [wanted])
    if row.window:
        yield from refused(("window",), parse_window, row.window)
    if row.within is not None:
        yield from refused(("within",), _check_within, state, row.within)
    if row.oldest_good_s is not None and not 60 <= row.oldest_good_s <= _LONGEST_S:
        error = InvalidValue(value=f"{row.oldest_good_s:g}", what="age", expected="It is at least a minute")
        yield Fault(error, ("oldest_good",))
    if row.larger_than is not None and row.larger_than < 0:
        error = InvalidValue(value=row.larger_than, what="size", expected="Use 0 or more bytes")
        yield Fault(error, ("exclude_larger_than",))


def _check_within(state: ControlState, within: Target) -> None:
    if within.kind not in {TargetKind.SERVER, TargetKind.POOL}:
        raise InvalidValue(value=str(within), what="restriction", expected="Use server:NAME or pool:NAME")
    check_target(state, within)


def delete_list(state: ControlState, command: DeleteList, context: Context) -> Effect:
    """``InUse`` while a policy is associated with it."""
    row = state.selection(command.list)
    users = [state.policy(each.policy).name for each in state.association_list() if each.list == row.id]
    if users:
        raise InUse(kind="selection list", name=row.name, by=[f"policy {name}" for name in sorted(users)])
    return Effect(None, (Put("lists", row.id, None),))


# --- policies --------------------------------------------------------------------------------------------------------


def put_policy(state: ControlState, command: PutPolicy, context: Context) -> Effect:
    """``InvalidPolicy`` for its rules, ``NotFound`` for what its templates name, ``AlreadyExists``, ``Conflict``."""
    policy = command.policy
    old = state.policies.get(policy.id)
    _check_before(old, command.before, "policy", policy.name)
    raise_first(policy_faults(state, policy))
    return Effect({"policy": policy.id}, () if policy == old else (Put("policies", policy.id, policy),))


def policy_faults(state: ControlState, policy: Policy) -> Iterator[Fault]:
    """All that is wrong with a policy; places are the keys of ``PolicyDoc``, below ``templates`` the names of these and
    below ``rules`` their numbers."""
    yield from refused((), check_name, policy.name, "policy")
    others = (each for each in state.policies.values() if each.id != policy.id)
    yield from refused((), _check_name_free, others, policy.name, "policy")
    if len(policy.templates) > _MOST_TEMPLATES or len(policy.rules) > _MOST_RULES:
        detail = f"it has more than {_MOST_TEMPLATES} templates or {_MOST_RULES} rules"
        yield Fault(InvalidPolicy(name=policy.name, detail=detail))
        return
    if not 0 <= policy.conflict_s <= 7 * 86400:
        error = InvalidValue(value=f"{policy.conflict_s:g}", what="time between runs", expected="At most 7 days")
        yield Fault(error, ("conflict_within",))
    for template in policy.templates:
        for fault in _template_faults(state, policy, template):
            yield Fault(fault.error, ("templates", template.name, *fault.place))
    for found in rules.faults(policy):
        yield Fault(found.error, () if found.rule is None else ("rules", str(found.rule)))


def _template_faults(state: ControlState, policy: Policy, template: Template) -> Iterator[Fault]:
    """Whether all it names is there, and it can be carried out."""
    yield from refused((), check_name, template.name, "template")
    if template.type in TARGETLESS:
        if template.target is not None:
            does = "verifies sets" if template.type is TemplateType.VERIFY else "makes full sets"
            detail = f"{template.name} {does} where they lie, it has no target"
            yield Fault(InvalidPolicy(name=policy.name, detail=detail), ("to",))
    elif template.target is None:
        yield Fault(InvalidPolicy(name=policy.name, detail=f"the template {template.name} has no target"))
    else:
        yield from refused(("to",), check_target, state, template.target)
    if template.second is not None:
        if template.type not in READING:
            detail = f"{template.name} reads no source: it has no second device"
            yield Fault(InvalidPolicy(name=policy.name, detail=detail), ("second_to",))
        else:
            yield from refused(("second_to",), check_second, state, template.target, template.second)
    if template.type in {TemplateType.DUPLICATE, TemplateType.SYNTHETIC}:
        yield from refused((), _check_of_sets, policy, template)
    yield from refused(("media_set",), state.media_set_named, template.media_set)
    for name in template.calendars:
        yield from refused(("calendars",), state.calendar_named, name)
    if template.post_always and template.post is None:
        detail = f"post-always of the template {template.name} belongs to post"
        yield Fault(InvalidPolicy(name=policy.name, detail=detail), ("post_always",))
    if template.logon is not None:
        if template.pre is None and template.post is None:
            detail = f"the logon of the template {template.name} belongs to pre or post"
            yield Fault(InvalidPolicy(name=policy.name, detail=detail), ("logon",))
        yield from refused(("logon",), state.logon_named, template.logon)


def _check_of_sets(policy: Policy, template: Template) -> None:
    """That there is something to copy or to make a full set of, and nothing asked for that only a backup does."""
    copies = template.type is TemplateType.DUPLICATE
    bases = READING if copies else READING - {TemplateType.COPY}
    if not any(each.type in bases for each in policy.templates):
        does = "is to copy" if copies else "is to make full ones of"
        raise InvalidPolicy(name=policy.name, detail=f"no template makes the sets that {template.name} {does}")
    useless = {
        "pre": template.pre,
        "post": template.post,
        "snapshot": template.snapshot is not SnapshotMode.NEVER,
        "allow-shrink": template.allow_shrink,
        "ignore-exit-codes": template.ignore_exit_codes,
    }
    given = next((key for key, value in useless.items() if value), None)
    if given is not None:
        raise InvalidPolicy(
            name=policy.name, detail=f"{template.name} is about sets and reads no files: it has no {given}"
        )


def delete_policy(state: ControlState, command: DeletePolicy, context: Context) -> Effect:
    """``InUse`` while it is associated with a list."""
    policy = state.policy(command.policy)
    users = [state.selection(each.list).name for each in state.association_list() if each.policy == policy.id]
    if users:
        raise InUse(kind="policy", name=policy.name, by=[f"selection list {name}" for name in sorted(users)])
    return Effect(None, (Put("policies", policy.id, None),))


def associate(state: ControlState, command: Associate, context: Context) -> Effect:
    policy, row = state.policy(command.policy), state.selection(command.list)
    if not policy.templates:
        raise InvalidPolicy(name=policy.name, detail="it has no template")
    made = Association(policy.id, row.id, context.who, context.at_ns)
    if made.key in state.associations:
        return Effect()
    return Effect(None, (Put("associations", made.key, made),))


def dissociate(state: ControlState, command: Dissociate, context: Context) -> Effect:
    """``NotFound`` if they are not associated, ``InUse`` while a run of its jobs is open."""
    policy, row = state.policy(command.policy), state.selection(command.list)
    key = f"{policy.id}/{row.id}"
    if key not in state.associations:
        raise NotFound(kind="association", name=f"{row.name} {policy.name}")
    return Effect(None, (Put("associations", key, None),))


# --- what they name --------------------------------------------------------------------------------------------------


def put_media_set(state: ControlState, command: PutMediaSet, context: Context) -> Effect:
    """``Conflict`` for a factory media set, and for a protection that would become shorter."""
    row = command.media_set
    old = state.media_sets.get(row.name)
    _check_there(old, command.new, "mediaset", row.name)
    raise_first(media_set_faults(state, row))
    return Effect({"media_set": row.name}, () if row == old else (Put("media_sets", row.name, row),))


def media_set_faults(state: ControlState, row: MediaSet) -> Iterator[Fault]:
    """All that is wrong with a media set; places are the keys of ``MediaSetDoc``."""
    old = state.media_sets.get(row.name)
    yield from refused((), check_name, row.name, "media set")
    if row.name in {each.name for each in FACTORY_MEDIA_SETS} and row != old:
        detail = f"The media set {row.name} belongs to every mesh and stays as it is; create another one"
        yield Fault(Conflict(detail=detail))
        return
    for key, seconds, what in (
        ("append", row.append_s, "append period"),
        ("protection", row.protection_s, "protection"),
        ("keep", row.keep_s, "retention"),
    ):
        if seconds is not None and not 0 <= seconds <= _LONGEST_S:
            expected = "Use at most 100 years, or none for no end"
            yield Fault(InvalidValue(value=f"{seconds:g}", what=what, expected=expected), (key,))
    if old is not None and _shorter(row.protection_s, old.protection_s):
        detail = (
            f"The overwrite protection of the media set {row.name} was promised to what was written under it and "
            "cannot become shorter; create another media set"
        )
        yield Fault(Conflict(detail=detail), ("protection",))
    if row.medium_bytes is not None and row.medium_bytes < _SMALLEST_MEDIUM:
        error = InvalidValue(value=row.medium_bytes, what="size of a medium", expected="It is at least 1MB")
        yield Fault(error, ("medium_size",))
    for count, what in row.counts():
        if not 0 <= count <= 10_000:
            expected = "It lies between 0 and 10000"
            error = InvalidValue(value=count, what=f"number of {what} sets to keep", expected=expected)
            yield Fault(error, (f"keep_{what}",))


def delete_media_set(state: ControlState, command: DeleteMediaSet, context: Context) -> Effect:
    """``InUse`` while a template, a recurring job or an open run names it. That no set and no medium is of it is for
    the administrator to check."""
    row = state.media_set_named(command.name)
    if row.name in {each.name for each in FACTORY_MEDIA_SETS}:
        raise Conflict(detail=f"The media set {row.name} belongs to every mesh and cannot be deleted")
    users = _templates(state, lambda template: template.media_set == row.name)
    users += _work(state, lambda spec: media_set_of(spec) == row.name)
    if users:
        raise InUse(kind="media set", name=row.name, by=users)
    return Effect(None, (Put("media_sets", row.name, None),))


def put_device_pool(state: ControlState, command: PutDevicePool, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound``, ``InvalidValue``, ``UsageError``."""
    pool = command.pool
    old = state.device_pools.get(pool.name)
    _check_there(old, command.new, "device-pool", pool.name)
    raise_first(device_pool_faults(state, pool))
    return Effect({"pool": pool.name}, () if pool == old else (Put("device_pools", pool.name, pool),))


def device_pool_faults(state: ControlState, pool: DevicePool) -> Iterator[Fault]:
    """All that is wrong with a device pool; places are the keys of ``DevicePoolDoc``."""
    yield from refused((), check_name, pool.name, "device pool")
    for member in pool.members:
        yield from refused(("devices",), state.device, member.device)
        imported = state.devices.get(member.device)
        yield from refused(("devices",), refuse_imported, imported, "it cannot be in a device pool")
        if not 0 <= member.priority <= 1000:
            error = InvalidValue(value=member.priority, what="priority", expected="It lies between 0 and 1000")
            yield Fault(error, ("devices",))
    if len({member.device for member in pool.members}) < len(pool.members):
        yield Fault(UsageError(detail=f"The device pool {pool.name} names a device twice"), ("devices",))


def delete_device_pool(state: ControlState, command: DeleteDevicePool, context: Context) -> Effect:
    pool = state.device_pool_named(command.name)
    users = users_of_target(state, Target(TargetKind.DEVICES, pool.name))
    if users:
        raise InUse(kind="device pool", name=pool.name, by=users)
    return Effect(None, (Put("device_pools", pool.name, None),))


def put_calendar(state: ControlState, command: PutCalendar, context: Context) -> Effect:
    row = command.calendar
    check_name(row.name, "calendar")
    old = state.calendars.get(row.name)
    _check_there(old, command.new, "calendar", row.name)
    check_days(row.days)
    return Effect({"calendar": row.name}, () if row == old else (Put("calendars", row.name, row),))


def delete_calendar(state: ControlState, command: DeleteCalendar, context: Context) -> Effect:
    row = state.calendar_named(command.name)
    users = _templates(state, lambda template: row.name in template.calendars)
    if users:
        raise InUse(kind="calendar", name=row.name, by=users)
    return Effect(None, (Put("calendars", row.name, None),))


def check_target(state: ControlState, target: Target) -> None:
    """Raises ``NotFound``, ``DeviceImported`` for a device that nothing is written to."""
    name = target.name or ""
    match target.kind:
        case TargetKind.SERVER:
            state.server_named(name)
        case TargetKind.POOL:
            state.pool_named(name)
        case TargetKind.DEVICE:
            check_written(state, target, "it is no target of a backup or of a copy")
        case TargetKind.DEVICES:
            state.device_pool_named(name)
        case TargetKind.ANY:
            pass


def check_second(state: ControlState, target: Target | None, second: Target) -> None:
    """That a second device is there beside the first one. Raises ``NotFound``, ``Conflict``."""
    check_target(state, second)
    first, named = None if target is None else state.named_devices(target), state.named_devices(second)
    if first is not None and named is not None and len(first | named) == 1:
        raise Conflict(detail=f"{second} is the first device already: name another one as the second")


def users_of_target(state: ControlState, target: Target) -> list[str]:
    """Who would have no target any more: templates, lists that are restricted to it, jobs by hand, open runs."""
    users = _templates(state, lambda template: target in {template.target, template.second})
    users += [f"selection list {row.name}" for row in state.selection_lists() if row.within == target]

    def names(spec: JobSpec) -> bool:
        placed = placed_by(spec)
        return placed is not None and target in {placed.target, getattr(placed, "second", None)}

    return users + _work(state, names)


def _templates(state: ControlState, uses: Callable[[Template], bool]) -> list[str]:
    return [
        f"template {template.name} of the policy {policy.name}"
        for policy in state.policy_list()
        for template in policy.templates
        if uses(template)
    ]


def _work(state: ControlState, uses: Callable[[JobSpec], bool]) -> list[str]:
    """Recurring jobs that no policy made (its templates are named instead), and open runs."""
    jobs = [job for job in state.job_list() if job.origin is None and job.schedule is not None]
    users = [job.name for job in jobs if uses(job.spec)]
    return users + [run.id for run in state.open_runs() if uses(run.spec)]


def _shorter(new: float | None, old: float | None) -> bool:
    return new is not None and (old is None or new < old)


def _check_before(now: Any, before: Any, kind: str, name: str) -> None:
    if before is not None and now != before:
        raise Conflict(detail=f"The {kind} {name} was changed by somebody else meanwhile; look at it and try again")


def _check_there(old: object | None, new: bool, kind: str, name: str) -> None:
    if new and old is not None:
        raise AlreadyExists(kind=kind, name=name)
    if not new and old is None:
        raise NotFound(kind=kind, name=name)


def _check_name_free(others: Iterable[SelectionList | Policy], name: str, kind: str) -> None:
    if any(other.name == name for other in others):
        raise AlreadyExists(kind=kind, name=name)
