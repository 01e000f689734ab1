"""Copying definitions to servers, so that these run them without the administrator: what goes into a parcel.

A parcel holds what its server can do by itself: of selection lists the places on that server, of targets its own
devices. What it could not do at all is refused where it is asked for, not found out there at night. A template that
copies sets to a device which the server does not reach stays with the administrator.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from caso_mesh.control.made import check_by_hand
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.copies import Copy, CopyTo, NoteCopy
from caso_mesh.model.errors import EmptyTarget, UsageError
from caso_mesh.model.ids import derived_id
from caso_mesh.model.jobs import BackupSpec, Job, Target, TargetKind
from caso_mesh.model.mesh import Pool, Server
from caso_mesh.model.policies import Association, DevicePool, Policy, SelectionList, Template, TemplateType
from caso_mesh.model.states import JobState

#: Kinds of targets that any server may write for which reaches the device.
_OF_DEVICES = frozenset({TargetKind.ANY, TargetKind.DEVICE, TargetKind.DEVICES})


def copy_to(state: ControlState, command: CopyTo, context: Context) -> Effect:
    """Raises what ``parcel`` raises for any of the servers: then nothing is copied to any of them."""
    changes: list[Put] = []
    for id in command.servers:
        server = state.server(id)
        changes += [Put("copies", copy.id, copy) for copy in [parcel(state, command, server, context.who)] if copy]
        if command.settings:
            own = {**state.mesh_settings, **server.settings}
            if command.clash.value == "overwrite":
                own = {**server.settings, **state.mesh_settings}
            if own != server.settings:
                changes.append(Put("servers", id, msgspec.structs.replace(server, settings=own)))
    return Effect({"copies": [change.key for change in changes if change.table == "copies"]}, tuple(changes))


def note_copy(state: ControlState, command: NoteCopy, context: Context) -> Effect:
    """What came of a parcel. Of one that is not known any more, or was told of before, nothing changes."""
    copy = state.copies.get(command.copy)
    if copy is None or copy.taken_at_ns is not None:
        return Effect()
    told = msgspec.structs.replace(copy, outcomes=command.outcomes, taken_at_ns=command.at_ns)
    return Effect(None, (Put("copies", copy.id, told.without_content()),))


def parcel(state: ControlState, command: CopyTo, server: Server, who: str) -> Copy | None:
    """What ``command`` comes to for one server; ``None`` if it is about settings alone.

    Raises ``NotFound``, ``MadeByPolicy``, ``UsageError`` for what names no place of the server, ``EmptyTarget`` for a
    backup that no device of it could take.
    """
    policies = [_policy(state, state.policy(id), server) for id in command.policies]
    associations = [each for each in state.association_list() if each.policy in command.policies]
    lists = {id: _list(state.selection(id), server) for id in command.lists}
    for association in associations:
        if association.list not in lists and server.id in state.selection(association.list).servers():
            lists[association.list] = _list(state.selection(association.list), server)
    associations = [each for each in associations if each.list in lists]
    known = {each.key for each in associations}
    pairs = [Association(policy, row, who, command.at_ns) for policy in command.policies for row in command.lists]
    associations += [pair for pair in pairs if pair.key not in known]
    for association in associations:
        row = lists[association.list]
        for template in state.policy(association.policy).templates:
            if template.backup_type is not None and template.target is not None:
                _check_reached(state, server, template.target, row.within, template.name, row.name)
    for policy in policies:
        if not any(each.policy == policy.id for each in associations):
            detail = f"No selection list of the policy {policy.name} names a place of {server.name}"
            raise UsageError(detail=detail)
    jobs = [_job(state, state.job(id), server) for id in command.jobs]
    if not (policies or lists or jobs or command.error_rules):
        if command.settings:
            return None
        raise UsageError(detail="Nothing to copy: give --policy, --selection, --job, --error-rules or --settings")
    targets = [*_targets(policies, lists.values(), jobs)]
    names = {name for policy in policies for template in policy.templates for name in template.calendars}
    return Copy(
        id=derived_id(command.seed, server.id),
        number=state.authority.index,
        server=server.id,
        clash=command.clash,
        who=who,
        at_ns=command.at_ns,
        lists=tuple(lists[id] for id in sorted(lists)),
        policies=tuple(policies),
        associations=tuple(associations),
        jobs=tuple(jobs),
        error_rules=tuple(state.error_rules[name] for name in sorted(state.error_rules)) if command.error_rules else (),
        calendars=tuple(state.calendar_named(name) for name in sorted(names)),
        device_pools=tuple(_device_pool(state, name, server) for name in _named(targets, TargetKind.DEVICES)),
        pools=tuple(_pool(state, name, server) for name in _named(targets, TargetKind.POOL)),
    )


def _list(row: SelectionList, server: Server) -> SelectionList:
    entries = tuple(entry for entry in row.entries if entry.server == server.id)
    if not entries:
        raise UsageError(detail=f"The selection list {row.name} names no place of {server.name}")
    return msgspec.structs.replace(row, entries=entries)


def _policy(state: ControlState, policy: Policy, server: Server) -> Policy:
    """Without copies of sets to where the server does not reach, and the rules about these."""

    def stays(template: Template) -> bool:
        duplicate = template.type is TemplateType.DUPLICATE and template.target is not None
        return not duplicate or _reaches(state, server, template.target, None)

    templates = tuple(template for template in policy.templates if stays(template))
    names = {template.name for template in templates}
    rules = tuple(rule for rule in policy.rules if rule.a in names and (rule.b is None or rule.b in names))
    return msgspec.structs.replace(policy, templates=templates, rules=rules)


def _job(state: ControlState, job: Job, server: Server) -> Job:
    check_by_hand(state, job)
    if not isinstance(job.spec, BackupSpec) or job.schedule is None:
        raise UsageError(detail=f"{job.name} is no recurring backup: there is nothing in it to copy")
    sources = tuple(source for source in job.spec.sources if source.server == server.id)
    if not sources:
        raise UsageError(detail=f"The job {job.name} names no place of {server.name}")
    _check_reached(state, server, job.spec.target, job.spec.within, job.name, job.name)
    spec = msgspec.structs.replace(job.spec, sources=sources)
    # whoever hands it over holds the one that stays behind
    return msgspec.structs.replace(job, spec=spec, state=JobState.ACTIVE, serial=0, last_due_at_ns=None)


def _check_reached(
    state: ControlState, server: Server, target: Target, within: Target | None, template: str, selection: str
) -> None:
    if not _reaches(state, server, target, within):
        raise EmptyTarget(target=f"{target} within server:{server.name}", template=template, list=selection)


def _reaches(state: ControlState, server: Server, target: Target | None, within: Target | None) -> bool:
    """Whether a server has a device of its own that a target names."""
    if target is None:
        return False
    permitted = [each for each in (target, within) if each is not None and each.kind not in _OF_DEVICES]
    if any(server.id not in state.target_servers(each) for each in permitted):
        return False
    named = state.named_devices(target)
    places = ((device, device.path_on(server.id)) for device in state.devices_of(server.id))
    return any(
        place is not None and place.enabled and (named is None or device.id in named) for device, place in places
    )


def _targets(policies: Iterable[Policy], lists: Iterable[SelectionList], jobs: Iterable[Job]) -> Iterable[Target]:
    found = [template.target for policy in policies for template in policy.templates]
    found += [row.within for row in lists]
    for job in jobs:
        if isinstance(job.spec, BackupSpec):
            found += [job.spec.target, job.spec.within]
    return (target for target in found if target is not None)


def _named(targets: Iterable[Target], kind: TargetKind) -> list[str]:
    return sorted({target.name for target in targets if target.kind is kind and target.name is not None})


def _device_pool(state: ControlState, name: str, server: Server) -> DevicePool:
    pool, mine = state.device_pool_named(name), {device.id for device in state.devices_of(server.id)}
    return msgspec.structs.replace(pool, members=tuple(member for member in pool.members if member.device in mine))


def _pool(state: ControlState, name: str, server: Server) -> Pool:
    return msgspec.structs.replace(
        state.pool_named(name), servers=tuple(id for id in state.pool_named(name).servers if id == server.id)
    )
