"""Commands about logon information, who may use it, and what of it follows from other changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import DeleteLogon, GrantLogon, PutLogon
from caso_mesh.model.errors import AlreadyExists, Conflict, InUse, InvalidValue, LogonNotPermitted, NotFound, UsageError
from caso_mesh.model.host_commands import dump_name
from caso_mesh.model.ids import check_name
from caso_mesh.model.jobs import BackupSpec, JobSpec, RestoreSpec, backup_of
from caso_mesh.model.logons import LONGEST_USER, Logon
from caso_mesh.model.policies import SelectionList


def put_logon(state: ControlState, command: PutLogon, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound``, ``Conflict`` if it was changed meanwhile or nobody would be left who could hand the
    secret on, ``UsageError`` for one that is for nobody."""
    new, old = command.logon, state.logons.get(command.logon.name)
    check_name(new.name, "logon")
    if command.revision == 0 and old is not None:
        raise AlreadyExists(kind="logon", name=new.name)
    if command.revision != 0 and old is None:
        raise NotFound(kind="logon", name=new.name)
    if old is not None and old.revision != command.revision:
        raise Conflict(detail=f"The logon {new.name} was changed by somebody else meanwhile; look at it and try again")
    if not new.user or len(new.user) > LONGEST_USER or not new.user.isprintable():
        raise InvalidValue(value=new.user, what="user", expected=f"Use 1 to {LONGEST_USER} printable characters")
    if not new.servers and not new.pools and not new.voters:
        raise UsageError(detail=f"Say which servers or pools, or whether the voters, may use the logon {new.name}")
    for server in new.servers:
        state.server(server)
    for pool in new.pools:
        state.pool_named(pool)
    used = _told_by(state, new.name)
    if used and not new.voters:
        raise InUse(kind="logon", name=new.name, by=[f"{each}, for which the voters may use it" for each in used])
    copies = new.copies
    if old is not None and old.version == new.version:
        copies = {**old.copies, **new.copies}
    row = msgspec.structs.replace(
        new,
        servers=tuple(sorted(set(new.servers))),
        pools=tuple(sorted(set(new.pools))),
        revision=command.revision + 1,
        changed_by=context.who,
        changed_at_ns=context.at_ns,
    )
    allowed = state.permitted(row)
    row = msgspec.structs.replace(row, copies={node: copies[node] for node in sorted(copies) if node in allowed})
    if old is not None and old.version == row.version and old.copies and not row.copies:
        there = ", ".join(sorted(state.name_of(node) for node in old.copies))
        detail = f"Nobody who may use the logon {row.name} would have its secret any more, which {there} has"
        raise Conflict(detail=f"{detail}: let others have it first, or give it anew")
    return Effect({"logon": row.name}, (Put("logons", row.name, row),))


def grant_logon(state: ControlState, command: GrantLogon, context: Context) -> Effect:
    """Whoever may not use it any more, and what was another secret, is left out: it is no mistake of anybody."""
    row = state.logons.get(command.name)
    if row is None or row.version != command.version:
        return Effect()
    allowed = state.permitted(row)
    given = {node: copy for node, copy in command.copies.items() if node in allowed}
    copies = dict(sorted({**row.copies, **given}.items()))
    return Effect(None, () if copies == row.copies else (_put(row, copies=copies),))


def delete_logon(state: ControlState, command: DeleteLogon, context: Context) -> Effect:
    """``InUse`` while a selection list, a template, a recurring job or an open run names it."""
    row = state.logon_named(command.name)
    users = [
        f"selection list {each.name}"
        for each in state.selection_lists()
        if any(entry.logon == row.name for entry in each.entries)
    ]
    users += [
        f"template {template.name} of the policy {policy.name}"
        for policy in state.policy_list()
        for template in policy.templates
        if template.logon == row.name
    ]
    by_hand = (job for job in state.job_list() if job.origin is None and job.schedule is not None)
    users += [job.name for job in by_hand if row.name in {name for _, name in logons_of(job.spec)}]
    users += _told_by(state, row.name)
    users += [run.id for run in state.open_runs() if row.name in {name for _, name in logons_of(run.spec)}]
    if users:
        raise InUse(kind="logon", name=row.name, by=users)
    return Effect(None, (Put("logons", row.name, None),))


def _told_by(state: ControlState, name: str) -> list[str]:
    """What of notification needs a logon."""
    mail = state.mail_server is not None and state.mail_server.logon == name
    signed = sorted(f"recipient {each.name}" for each in state.recipients.values() if each.logon == name)
    return [*(["mail server"] if mail else []), *signed]


def followed(state: ControlState, changes: Iterable[Put]) -> list[Put]:
    """What of logons follows from changes of pools and servers: who may use one no longer has no copy any more, a machine
    that took the place of another may use what that one might."""
    if not state.logons or not any(_concerns(state, change) for change in changes):
        return []
    draft = state.draft()
    draft.write(changes)
    puts = []
    for row in draft.logon_list():
        now = {server.id for old in row.servers if (server := draft.successor_of(old)) is not None}
        pools = tuple(name for name in row.pools if name in draft.pools)
        left = msgspec.structs.replace(row, servers=tuple(sorted(now)), pools=pools)
        allowed = draft.permitted(left)
        left = msgspec.structs.replace(left, copies={node: row.copies[node] for node in row.copies if node in allowed})
        if left != row:
            puts.append(Put("logons", row.name, left))
    return puts


def _concerns(state: ControlState, change: Put) -> bool:
    if change.table != "servers" or change.record is None:
        return change.table in {"pools", "servers"}
    old = state.servers.get(change.key)
    return old is not None and old.voter and not change.record.voter


def _put(row: Logon, **fields: object) -> Put:
    return Put("logons", row.name, msgspec.structs.replace(row, **fields))


# --- who names one ---------------------------------------------------------------------------------------------------


def logons_of(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Server (node id) and name of each logon that work needs there."""
    if isinstance(spec, RestoreSpec):
        if spec.logon is not None:
            yield spec.server, spec.logon
        return
    backup = backup_of(spec)
    for source in () if backup is None else backup.sources:
        for _, name in source.logons:
            yield source.server, name
        if backup is not None and backup.logon is not None:
            yield source.server, backup.logon


def missing_logon(state: ControlState, spec: JobSpec, source: str) -> str | None:
    """The name of a logon that the server ``source`` needs for work, and has no copy of."""
    for server, name in logons_of(spec):
        if server == source and ((row := state.logons.get(name)) is None or server not in row.copies):
            return name
    return None


def with_logon(spec: BackupSpec, logon: str | None) -> BackupSpec:
    """A backup all of whose commands are given ``logon``. Raises ``UsageError`` if it has none."""
    if logon is None:
        return spec
    sources = tuple(
        msgspec.structs.replace(
            source, logons=tuple(sorted((name, logon) for root in source.roots if (name := dump_name(root))))
        )
        for source in spec.sources
    )
    around = spec.pre is not None or spec.post is not None
    if not around and not any(source.logons for source in sources):
        raise UsageError(detail="A logon belongs to a command: to SERVER:@NAME, or to one before or after the backup")
    return msgspec.structs.replace(spec, sources=sources, logon=logon if around else None)


def check_logons(state: ControlState, wanted: Iterable[tuple[str, str]]) -> None:
    """Pairs of server (id) and logon. Raises ``NotFound``, ``LogonNotPermitted``."""
    for server, name in wanted:
        row = state.logon_named(name)
        if server not in state.permitted(row):
            raise LogonNotPermitted(server=state.name_of(server), logon=name)


def new_logons(row: SelectionList, old: SelectionList | None) -> list[tuple[str, str]]:
    """Server (id) and logon of the entries of a list, without those of before: that a server left a pool keeps nobody
    from editing a list."""
    known = set() if old is None else {(entry.server, entry.logon) for entry in old.entries}
    return [
        (entry.server, entry.logon)
        for entry in row.entries
        if entry.logon is not None and (entry.server, entry.logon) not in known
    ]
