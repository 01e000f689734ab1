"""How a committed command changes the control state, on every voter alike.

A command is worked out first (``Effect``: its result and the rows it changes) and written only if it is valid: one that
fails changes nothing. A request id that was seen gets the same outcome, without a second effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from caso_mesh.control import (
    copying,
    erasing,
    error_rules,
    firing,
    following,
    groups,
    importing,
    indexing,
    kits,
    logons,
    made,
    membership,
    notices,
    operators,
    policies,
    remembering,
    replacing,
    report_schedules,
    rotation,
    taking,
    work,
)
from caso_mesh.control.faults import Fault
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Outcome, Put, Request
from caso_mesh.model import commands
from caso_mesh.model.commands import Command, Envelope, FoundMesh
from caso_mesh.model.errors import CasoError, FeatureLevelTooLow, Misuse, WrongState
from caso_mesh.model.features import SetFeatureLevel, level_of
from caso_mesh.model.jobs import Job, Origin
from caso_mesh.model.notices import MailServer
from caso_mesh.model.orders import Authority
from caso_mesh.model.states import ATTEMPT_ACTIVE
from caso_mesh.planning import lifecycle

_HANDLERS: dict[type[Any], Callable[[ControlState, Any, Context], Effect]] = {
    commands.FoundMesh: membership.found_mesh,
    SetFeatureLevel: membership.set_feature_level,
    commands.CreateToken: membership.create_token,
    commands.RevokeToken: membership.revoke_token,
    commands.AdmitServer: membership.admit_server,
    commands.ReplaceServer: replacing.replace_server,
    commands.AnnounceCa: rotation.announce_ca,
    commands.SwitchCa: rotation.switch_ca,
    commands.NoteCa: rotation.note_ca,
    commands.FinishCa: rotation.finish_ca,
    commands.InviteOperator: operators.invite_operator,
    commands.AdmitOperator: operators.admit_operator,
    commands.RevokeOperator: operators.revoke_operator,
    commands.SetServerState: membership.set_server_state,
    commands.SetDataLocation: membership.set_data_location,
    commands.SetServerAddresses: membership.set_server_addresses,
    commands.SetLiveness: membership.set_liveness,
    commands.RemoveServer: membership.remove_server,
    commands.SetVoter: membership.set_voter,
    commands.CreatePool: groups.create_pool,
    commands.SetPool: groups.set_pool,
    commands.DeletePool: groups.delete_pool,
    commands.AddDevice: groups.add_device,
    commands.SetDevice: groups.set_device,
    commands.SetDevicePaths: groups.set_device_paths,
    commands.RetireMedium: groups.retire_medium,
    commands.BeginErase: erasing.begin_erase,
    commands.RemoveDevice: groups.remove_device,
    commands.ImportDevice: groups.import_device,
    commands.NoteImported: importing.note_imported,
    commands.SetSetting: groups.set_setting,
    commands.AddKit: kits.add_kit,
    commands.ConfirmKit: kits.confirm_kit,
    commands.NoteKitDevice: kits.note_kit_device,
    commands.CreateErrorRule: error_rules.create_error_rule,
    commands.DeleteErrorRule: error_rules.delete_error_rule,
    commands.PutLogon: logons.put_logon,
    commands.GrantLogon: logons.grant_logon,
    commands.DeleteLogon: logons.delete_logon,
    commands.SetMailServer: notices.set_mail_server,
    commands.PutRecipient: notices.put_recipient,
    commands.DeleteRecipient: notices.delete_recipient,
    commands.PutRecipientGroup: notices.put_group,
    commands.DeleteRecipientGroup: notices.delete_group,
    commands.PutNoticeRule: notices.put_rule,
    commands.DeleteNoticeRule: notices.delete_rule,
    commands.PutReportSchedule: report_schedules.put_report_schedule,
    commands.DeleteReportSchedule: report_schedules.delete_report_schedule,
    commands.NoteReport: report_schedules.note_report,
    commands.CreateJob: work.create_job,
    commands.RunNow: work.run_now,
    commands.SetJob: work.set_job,
    commands.EditJob: work.edit_job,
    commands.SetRunPriority: work.set_run_priority,
    commands.DeleteJob: work.delete_job,
    commands.OpenRun: work.open_run,
    commands.Delegate: work.delegate,
    commands.CloseAttempt: work.close_attempt,
    commands.CloseRun: work.close_run,
    commands.CancelRun: work.cancel_run,
    commands.HoldRun: work.hold_run,
    commands.AnswerAlert: work.answer_alert,
    commands.PutMediaSet: policies.put_media_set,
    commands.DeleteMediaSet: policies.delete_media_set,
    commands.PutDevicePool: policies.put_device_pool,
    commands.DeleteDevicePool: policies.delete_device_pool,
    commands.PutCalendar: policies.put_calendar,
    commands.DeleteCalendar: policies.delete_calendar,
    commands.PutList: policies.put_list,
    commands.DeleteList: policies.delete_list,
    commands.PutPolicy: policies.put_policy,
    commands.DeletePolicy: policies.delete_policy,
    commands.Associate: policies.associate,
    commands.Dissociate: policies.dissociate,
    commands.CopyTo: copying.copy_to,
    commands.NoteCopy: copying.note_copy,
    commands.FollowOrders: following.follow_orders,
    commands.TakeCopy: taking.take_copy,
    commands.RememberCall: remembering.remember_call,
    commands.Prune: work.prune,
}


def apply(
    state: ControlState,
    envelope: Envelope,
    *,
    lineage: int,
    term: int,
    index: int,
    note: Callable[[Sequence[Put]], None] | None = None,
) -> Outcome:
    """Applies the command at (``lineage``, ``term``, ``index``) of the log, and says what it came to. ``note`` is told of the
    changes before they are made."""
    state.authority = Authority(lineage, term, index)
    seen = state.requests.get(envelope.request_id)
    if seen is not None:
        return seen.outcome
    try:
        outcome = Outcome(enact(state, envelope.command, Context(envelope.who, envelope.at_ns), note).result)
    except CasoError as error:
        outcome = Outcome(failure=error.to_wire())
    state.remember(Request(envelope.request_id, envelope.at_ns, outcome))
    return outcome


def enact(
    state: ControlState, command: Command, context: Context, note: Callable[[Sequence[Put]], None] | None = None
) -> Effect:
    """Works a command out and writes what it changes. Raises what it comes to instead; then nothing has changed."""
    effect = _work_out(state, command, context)
    if note is not None:
        note(effect.changes)
    state.write(effect.changes)
    return effect


def validate(state: ControlState, command: Command, *, who: str = "", at_ns: int = 0) -> None:
    """Raises what ``apply`` would come to, and changes nothing.

    Schedules and windows are checked only here, before they are proposed: voters with different time zone data must
    not come to different outcomes while they apply. ``InvalidSchedule``, ``UnknownZone``. So are feature levels: what
    is committed was understood by all voters. ``FeatureLevelTooLow``.
    """
    if state.mesh is not None and level_of(command) > state.mesh.feature_level:
        raise FeatureLevelTooLow(what="the oldest voter", needed=level_of(command), level=state.mesh.feature_level)
    effect = _work_out(state, command, Context(who, at_ns))
    made.check_times(state, effect.changes, at_ns)


def rehearse(
    state: ControlState, commands: Sequence[Command], *, seed: str, who: str = "", at_ns: int = 0
) -> tuple[ControlState, list[list[Fault]], list[made.Problem]]:
    """What a batch would come to: the state after it, all that is wrong with each command, and what cannot be made of
    policies.

    A command that fails is left out, so that the mistakes of all others are found as well.
    """
    draft, context = state.draft(), Context(who, at_ns)
    faults: list[list[Fault]] = []
    saved: list[Put] = []
    for command in commands:
        try:
            effect = _handled(draft, command, context)
            made.check_times(draft, effect.changes, at_ns)
        except CasoError as error:
            faults.append(_faults(draft, command, error))
        else:
            draft.write(effect.changes)
            saved += effect.changes
            faults.append([])
    problems = list(made.empty_targets(draft, saved))
    running = list(made.still_running(draft))
    if running:
        problems += running
    else:
        jobs = made.remade(draft, seed, context)
        problems += made.outside_windows(draft, jobs, at_ns)
        draft.write(jobs)
    return draft, faults, problems


def _faults(state: ControlState, command: Command, error: CasoError) -> list[Fault]:
    """All that is wrong with a command that was refused with ``error``, which comes first unless it has a place."""
    match command:
        case commands.PutList(list=row):
            found = [*policies.list_faults(state, row)]
        case commands.PutPolicy(policy=policy):
            found = [*policies.policy_faults(state, policy)]
        case commands.PutMediaSet(media_set=media_set):
            found = [*policies.media_set_faults(state, media_set)]
        case commands.PutDevicePool(pool=pool):
            found = [*policies.device_pool_faults(state, pool)]
        case commands.CreateErrorRule(rule=rule):
            found = [*error_rules.rule_faults(rule)]
        case commands.SetMailServer(server=MailServer() as server):
            found = [*notices.mail_server_faults(state, server)]
        case commands.PutRecipient(recipient=recipient):
            found = [*notices.recipient_faults(state, recipient)]
        case commands.PutRecipientGroup(group=group):
            found = [*notices.group_faults(state, group)]
        case commands.PutNoticeRule(rule=notice_rule):
            found = [*notices.rule_faults(state, notice_rule)]
        case commands.PutReportSchedule(row=scheduled):
            found = [*report_schedules.report_schedule_faults(state, scheduled)]
        case commands.CreateJob(job=Job(spec=spec)) | commands.EditJob(spec=spec):
            found = [*work.spec_faults(state, spec)]
        case commands.Batch(commands=several):
            found = [fault for each in several for fault in _faults(state, each, error)]
        case _:
            found = []
    told = any(each.error.to_wire() == error.to_wire() for each in found)
    return found if told else [Fault(error), *found]


def check_state(state: ControlState) -> None:
    """Invariants of the whole state. Raises ``Misuse``; called after every command in tests."""
    for run in state.runs.values():
        lifecycle.validate_run(run, state.attempts_of(run.id))
        _require((run.closed_at_ns is None) == (run.id in state._open), f"{run.id} is among the open runs or closed")
        _require(run.closed_at_ns is not None or run.job in state.jobs, f"the open run {run.id} has its job")
    for attempt in state.attempts.values():
        active = attempt.state in ATTEMPT_ACTIVE
        _require(attempt.run in state.runs, f"{attempt.id} has its run")
        _require(active == (attempt.id in state._active), f"{attempt.id} is among the active attempts or ended")
        if active:
            _require(attempt.server in state.servers, f"the server of {attempt.id} is in the mesh")
            _require(attempt.device in state.devices, f"the device of {attempt.id} is in the mesh")
    for table in (
        *(state.servers, state.pools, state.devices, state.jobs, state.media_sets, state.operators),
        *(state.device_pools, state.calendars, state.lists, state.policies),
    ):
        names = [row.name for row in table.values()]
        _require(len(set(names)) == len(names), "names are taken once")
    _require(not state.servers.keys() & state.removed.keys(), "a removed server stays away")
    for pool in state.pools.values():
        _require(set(pool.servers) <= state.servers.keys(), f"members of the pool {pool.name} are in the mesh")
    for device in state.devices.values():
        _require(
            all(path.server in state.servers for path in device.paths), f"servers of {device.name} are in the mesh"
        )
    came = [device for device in state.devices.values() if device.imported is not None]
    meshes = {(each.imported.mesh, each.imported.mesh_name) for each in came if each.imported is not None}
    _require(len({name for _, name in meshes}) == len({mesh for mesh, _ in meshes}) == len(meshes), "meshes differ")
    for each in came:
        holders = each.imported.copies.keys() if each.imported is not None else set()
        _require(holders <= {path.server for path in each.paths}, f"who opens {each.name} sees it")
    replaced = [old for server in state.servers.values() for old in server.succeeds]
    _require(
        len(set(replaced)) == len(replaced) and set(replaced) <= state.removed.keys(), "replaced machines stay away"
    )
    for operator in state.operators.values():
        _require({server for server, _ in operator.server_roles} <= state.servers.keys(), "scopes are in the mesh")
        _require({pool for pool, _ in operator.pool_roles} <= state.pools.keys(), "scopes are in the mesh")
    _require(state.pool_settings.keys() <= state.pools.keys(), "settings belong to a pool")
    for logon in state.logons.values():
        _require(state.permitted(logon) <= state.servers.keys(), f"who may use {logon.name} is in the mesh")
        _require(logon.copies.keys() <= state.permitted(logon), f"who has a copy of {logon.name} may use it")
    for members in state.recipient_groups.values():
        _require(set(members.members) <= state.recipients.keys(), f"members of {members.name} are there")
    for rule in state.notice_rules.values():
        known = state.recipients.keys() | state.recipient_groups.keys()
        _require(set(rule.to) <= known, f"whom the rule {rule.name} names is there")
    _require(
        not state.recipients.keys() & state.recipient_groups.keys(), "recipients and groups have names of their own"
    )
    for group in state.device_pools.values():
        known_devices = all(member.device in state.devices for member in group.members)
        _require(known_devices, f"members of the device pool {group.name} are in the mesh")
    wanted = set()
    for association in state.associations.values():
        there = association.policy in state.policies and association.list in state.lists
        _require(there, "an association is of a policy with a list that are there")
        templates = state.policies[association.policy].templates
        wanted |= {Origin(association.policy, association.list, template.name) for template in templates}
    origins = [job.origin for job in state.jobs.values() if job.origin is not None]
    _require(len(origins) == len(wanted) and set(origins) == wanted, "each template of an association has its job")
    by_index = {(key, id) for key, ids in state._made_of.items() for id in ids}
    made_of = {((job.origin.policy, job.origin.list), job.id) for job in state.jobs.values() if job.origin is not None}
    _require(by_index == made_of, "jobs are found by their association")
    devices_at = indexing.devices_at(state.device_list())
    _require(state._devices_at in (None, devices_at), "devices are found by the servers that have a path to them")
    _require(
        all(anchor.voter is None or anchor.voter in state.servers for anchor in state.anchors), "anchors of voters"
    )


def _work_out(state: ControlState, command: Command, context: Context) -> Effect:
    """The effect of a command with all that follows from it."""
    effect = _handled(state, command, context)
    more = logons.followed(state, effect.changes)
    if any(change.table in made.MADE_OF for change in effect.changes):
        draft = state.draft()
        draft.write(effect.changes)
        if isinstance(command, _SAVED):
            for problem in made.empty_targets(draft, effect.changes):
                raise problem.error
        more += made.remade(draft, getattr(command, "seed", ""), context)
    if any(change.table == "runs" for change in effect.changes):
        more += firing.fired(state, effect.changes, context.at_ns)
    return Effect(effect.result, (*effect.changes, *more)) if more else effect


def _handled(state: ControlState, command: Command, context: Context) -> Effect:
    handler = _HANDLERS.get(type(command))
    if handler is None:
        raise Misuse(f"no handler for the command {type(command).__name__}")
    if state.mesh is None and not isinstance(command, FoundMesh):
        raise WrongState(kind="mesh", name="", state="not founded yet")
    return handler(state, command, context)


def _batch(state: ControlState, command: commands.Batch, context: Context) -> Effect:
    draft, changes = state.draft(), list[Put]()
    for each in command.commands:
        effect = _handled(draft, each, context)
        draft.write(effect.changes)
        changes += effect.changes
    return Effect({"changes": len(changes)}, tuple(changes))


_HANDLERS[commands.Batch] = _batch
#: Commands by which a person saves what jobs are made of.
_SAVED = (commands.PutPolicy, commands.PutList, commands.Associate, commands.Batch)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise Misuse(f"control state: {rule}")
