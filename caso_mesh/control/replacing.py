"""A new machine takes the place of a server: its name, jobs, pools, devices and settings; the old identity is gone for good.

What was recorded under the old id stays under it: sets, history, what was signed. ``Server.succeeds`` leads from one to the
other.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from caso_mesh.control.importing import placed
from caso_mesh.control.membership import (
    at_home,
    check_newcomer,
    check_operator,
    use_token,
    without_voter,
)
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import ReplaceServer
from caso_mesh.model.device_jobs import CatalogSpec, EraseSpec, InventorySpec, OfDevices
from caso_mesh.model.errors import AlreadyExists, InUse, InvalidValue, NotFound
from caso_mesh.model.jobs import (
    Attempt,
    BackupSpec,
    DrillSpec,
    DuplicateSpec,
    JobSpec,
    OfSetsSpec,
    Part,
    RestoreSpec,
    Run,
    SyntheticSpec,
    TestRunSpec,
    VerifySetsSpec,
    VerifySpec,
)
from caso_mesh.model.mesh import Server, row_of
from caso_mesh.model.states import AttemptState
from caso_mesh.planning import lifecycle


def replace_server(state: ControlState, command: ReplaceServer, context: Context) -> Effect:
    """The same key again gets the same answer. Attempts that were active on the old machine are recovered elsewhere, or by
    the new one. Raises as ``AdmitServer``, ``NotFound``, ``InUse`` for the server in office."""
    new, old_id = command.server, command.old
    token = check_newcomer(state, new, command.token)
    known = state.servers.get(new.id)
    if known is not None:
        if old_id not in known.succeeds or known.public_key != new.public_key:
            raise AlreadyExists(kind="server", name=known.name)
        return Effect({"server": known.id})
    changes = use_token(token, new.id, context.at_ns)
    old = state.servers.get(old_id)
    if old is None:
        raise NotFound(kind="server", name=state.name_of(old_id))
    if old.id == command.admin:
        raise InUse(kind="server", name=old.name, by=["the administrator in office"])
    if new.name != old.name:
        raise InvalidValue(
            value=new.name, what="name", expected=f"The new machine is called {old.name}, as the old one"
        )
    check_operator(state, command.operator, without=old.id)
    server = msgspec.structs.replace(
        new,
        settings=old.settings,
        set_state=old.set_state,
        succeeds=(*old.succeeds, old.id),
        data_location=old.data_location,
    )
    changes += [
        Put("servers", old.id, None),
        Put("removed", old.id, old.name),
        Put("former", old.id, row_of(old)),
        Put("servers", server.id, server),
    ]
    changes += _operators(state, old, server, command)
    for pool in state.pools_of(old.id):
        members = tuple(server.id if member == old.id else member for member in pool.servers)
        changes.append(Put("pools", pool.name, msgspec.structs.replace(pool, servers=members)))
    for device in state.devices_of(old.id):
        paths = tuple(
            msgspec.structs.replace(path, server=server.id) if path.server == old.id else path for path in device.paths
        )
        changes.append(Put("devices", device.id, placed(device, paths)))
    for row in state.selection_lists():
        entries = tuple(
            msgspec.structs.replace(entry, server=server.id) if entry.server == old.id else entry
            for entry in row.entries
        )
        if entries != row.entries:
            # the jobs that were made of it follow
            changes.append(Put("lists", row.id, msgspec.structs.replace(row, entries=entries)))
    for job in state.job_list():
        spec = _moved(job.spec, old.id, server.id)
        if spec != job.spec:
            changes.append(Put("jobs", job.id, msgspec.structs.replace(job, spec=spec)))
    # what the old machine did by itself went with its disk
    changes += [Put("copies", copy.id, None) for copy in state.copy_list(old.id)]
    changes += _runs(state, old.id, server.id, context.at_ns)
    anchors = without_voter(state, old.id, context.at_ns)
    if anchors != state.anchors:
        changes.append(Put("anchors", "", anchors))
    return Effect({"server": server.id}, tuple(changes))


def _operators(state: ControlState, old: Server, new: Server, command: ReplaceServer) -> Iterable[Put]:
    for operator in state.operator_list():
        if operator.home == old.id:
            yield Put("operators", operator.id, None)
            yield Put("removed", operator.id, operator.name)
        elif any(place == old.id for place, _ in operator.server_roles):
            roles = tuple((new.id if place == old.id else place, role) for place, role in operator.server_roles)
            yield Put("operators", operator.id, msgspec.structs.replace(operator, server_roles=roles))
    yield Put("operators", command.operator.id, at_home(command.operator, new))


def _runs(state: ControlState, old: str, new: str, at_ns: int) -> Iterable[Put]:
    """What ran on the old machine is given up, what waits for its files waits for those of the new one."""
    lost = {attempt.id for attempt in state.active_attempts() if old in {attempt.server, attempt.other}}
    touched = {run.id for run in state.open_runs()} | {state.attempts[each].run for each in lost}
    for id in sorted(touched):
        run = before = state.runs[id]
        attempts = {attempt.id: attempt for attempt in state.attempts_of(id)}
        for attempt in [attempts[each] for each in sorted(attempts.keys() & lost)]:
            closed = lifecycle.close_attempt(run, attempt, AttemptState.RECOVERED, at_ns=at_ns, taken_back=True)
            run, attempts[attempt.id] = closed.run, closed.attempt
        # a verification, a copy or a synthetic full names whose set it is, and needs nobody's files
        if lifecycle.is_open(before) and not isinstance(run.spec, VerifySpec | OfSetsSpec | OfDevices):
            run = msgspec.structs.replace(run, spec=_moved(run.spec, old, new), parts=_parts(run, old, new))
            attempts = {each: _of(attempt, old, new) for each, attempt in attempts.items()}
        if run != before:
            yield Put("runs", id, run)
        yield from (Put("attempts", each, row) for each, row in attempts.items() if row != state.attempts[each])


def _parts(run: Run, old: str, new: str) -> tuple[Part, ...]:
    return tuple(msgspec.structs.replace(part, source=new) if part.source == old else part for part in run.parts)


def _of(attempt: Attempt, old: str, new: str) -> Attempt:
    return msgspec.structs.replace(attempt, source=new) if attempt.source == old else attempt


def _moved(spec: JobSpec, old: str, new: str) -> JobSpec:
    match spec:
        case BackupSpec(sources=sources):
            return msgspec.structs.replace(
                spec,
                sources=tuple(
                    msgspec.structs.replace(each, server=new) if each.server == old else each for each in sources
                ),
            )
        case TestRunSpec(backup=backup):
            moved = _moved(backup, old, new)
            return TestRunSpec(moved) if isinstance(moved, BackupSpec) else spec
        case RestoreSpec() | DrillSpec():
            return msgspec.structs.replace(spec, server=new) if spec.server == old else spec
        case VerifySetsSpec(sources=sources) | DuplicateSpec(sources=sources) | SyntheticSpec(sources=sources):
            return msgspec.structs.replace(spec, sources=tuple(new if each == old else each for each in sources))
        case VerifySpec() | InventorySpec() | CatalogSpec() | EraseSpec():
            return spec
