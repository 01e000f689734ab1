"""Records as people read them: names for ids, RFC 3339 for instants, one line for each reason."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from caso_mesh.admin.attempts import AttemptRow, AttemptRows
from caso_mesh.admin.live import Live
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.control.importing import source_named
from caso_mesh.control.seconds import seconds_of
from caso_mesh.control.state import ControlState
from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import views as v
from caso_mesh.model.device_jobs import CatalogSpec, EraseSpec, InventorySpec
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import from_wire
from caso_mesh.model.jobs import (
    Attempt,
    BackupSpec,
    Counts,
    DrillSpec,
    DuplicateSpec,
    Failure,
    Job,
    Part,
    RestoreSpec,
    Run,
    SyntheticSpec,
    TestRunSpec,
    VerifySetsSpec,
    VerifySpec,
    Waiting,
    backup_of,
    kind_of,
    set_read,
)
from caso_mesh.model.mesh import Server
from caso_mesh.model.states import ATTEMPT_ACTIVE, REASON_ENDS, REASON_TEXT, AttemptState, RunState, WaitReason
from caso_mesh.model.storage import BackupSet, Medium
from caso_mesh.model.units import escape_path, format_instant, format_seconds
from caso_mesh.planning import presets
from caso_mesh.planning.choosing import Flaw
from caso_mesh.planning.media import shown_state
from caso_mesh.planning.retention import BY_PLACE, Keep, Verdict

_SHOWN_PATHS = 100  # of a selection of thousands
_ACTIVE_RUN = {AttemptState.RUNNING: RunState.RUNNING, AttemptState.VERIFYING: RunState.VERIFYING}


def shown_path(path: bytes) -> str:
    return escape_path(b"/" + path)


def restricted_to(
    state: ControlState, server: str | None, pool: str | None, limits: frozenset[str] | None = None
) -> frozenset[str] | None:
    """Node ids that a view is filtered by; ``None`` = all. ``limits``: what the caller may see. Raises ``NotFound``."""
    only = limits
    if pool is not None:
        members = frozenset(each.id for each in state.servers_of_pool(pool))
        only = members if only is None else only & members
    if server is not None:
        one = frozenset({source_named(state, server) if "@" in server else state.server_named(server).id})
        only = one if only is None else only & one
    if only is None:
        return None
    # what is left of machines that were replaced is under their ids
    return only.union(*(state.servers[each].succeeds for each in only if each in state.servers))


def server_view(
    state: ControlState,
    server: Server,
    *,
    connected: bool,
    admin: bool,
    voter: bool,
    silent_s: float | None,
    queue_on_hold: bool,
    running: int,
) -> v.ServerView:
    return v.ServerView(
        name=server.name,
        id=server.id,
        state=server.state.value,
        connected=connected,
        admin=admin,
        voter=voter,
        pools=tuple(pool.name for pool in state.pools_of(server.id)),
        address=server.addresses[0] if server.addresses else "",
        version=server.version,
        silent_since=format_instant(server.silent_since_ns),
        silent_s=silent_s,
        running=running,
        queue_on_hold=queue_on_hold,
        data_location=server.data_location.value,
    )


def failure_view(failure: Failure | None) -> dict[str, Any] | None:
    """As ``--json`` shows errors: code, message, hint."""
    if failure is None:
        return None
    error = from_wire({"code": failure.code, "fields": failure.fields})
    return {"code": failure.code, "message": error.message, "hint": error.hint}


def run_state(run: Run, rows: AttemptRows, attempts: Iterable[Attempt]) -> RunState:
    """A run's state with what its active attempts report."""
    if run.closed_at_ns is not None:
        return run.state
    found = run.state
    for attempt in attempts:
        row = rows.of(attempt)
        if attempt.state in ATTEMPT_ACTIVE and row is not None:
            found = _ACTIVE_RUN.get(row.state, found)
    return found


def job_view(
    state: ControlState,
    run: Run,
    part: Part,
    attempt: Attempt | None,
    row: AttemptRow | None,
    live: Live,
) -> o.JobView:
    """One part of a run, as lists show it."""
    progress = live.progress.get(attempt.id) if attempt is not None else None
    active = attempt is not None and attempt.state in ATTEMPT_ACTIVE
    counts = row.counts if row is not None else Counts()
    if active and progress is not None:
        counts = progress.counts
    shown = part.state
    if active and row is not None:
        shown = _ACTIVE_RUN.get(row.state, shown)
    if run.closed_at_ns is None and (run.held and part.state is RunState.READY):
        shown = RunState.ON_HOLD
    waiting = live.waiting.get((run.id, part.source)) if part.state is RunState.READY else None
    backup = backup_of(run.spec)
    percent = None
    if active and progress is not None:
        percent = progress.percent
    elif shown in {RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS}:
        percent = 100.0
    seconds = row.seconds if row is not None else None
    rate = progress.rate if active and progress else (counts.bytes_read / seconds if seconds else 0.0)
    type_ = row.type.value if row and row.type else (backup.type.value if backup else None)
    job = state.jobs.get(run.job)
    origin = origin_view(state, job) if job else None
    return o.JobView(
        job=run.job,
        name=run.name,
        kind=kind_of(run.spec).value,
        run=run.id,
        attempt=attempt.id if attempt else None,
        state=shown.value,
        type=type_,
        priority=run.priority.value,
        source=state.name_of(part.source),
        server=state.name_of(attempt.server) if attempt else None,
        device=device_name(state, attempt.device) if attempt else None,
        reason=waiting.reason.value if waiting else None,
        reason_fields=waiting.fields if waiting else {},
        reason_text=reason_text(waiting) if waiting else None,
        percent=percent,
        files=counts.files,
        bytes=counts.bytes,
        bytes_read=counts.bytes_read,
        bytes_stored=counts.bytes_stored,
        rate=rate,
        path=progress.path if active and progress else None,
        due=format_instant(run.due_at_ns),
        started=format_instant(row.started_at_ns) if row else None,
        ended=format_instant(run.closed_at_ns),
        schedule=presets.shown(job.schedule) if job and job.schedule else None,
        zone=job.schedule.zone if job and job.schedule else None,
        policy=origin.policy if origin else None,
        selection=origin.selection if origin else None,
        reason_ends=reason_ends(waiting) if waiting else None,
        reason_since=format_instant(live.since_ns(run.id, part.source)) if waiting else None,
    )


def scheduled_view(
    control: ControlState, job: Job, next_due_ns: int | None, state: str, reason: str, fields: dict[str, Any]
) -> o.JobView:
    """A recurring job that waits for its next due time."""
    due, backup, origin = format_instant(next_due_ns), backup_of(job.spec), origin_view(control, job)
    return o.JobView(
        job=job.id,
        name=job.name,
        kind=kind_of(job.spec).value,
        run=None,
        attempt=None,
        state=state,
        type=backup.type.value if backup else None,
        priority=job.priority.value,
        source=None,
        server=None,
        device=None,
        reason=reason,
        reason_fields=fields,
        reason_text=f"due at {due}" if reason == "not-yet-due" else "on hold",
        percent=None,
        files=0,
        bytes=0,
        bytes_read=0,
        bytes_stored=0,
        rate=0.0,
        path=None,
        due=due,
        started=None,
        ended=None,
        schedule=presets.shown(job.schedule) if job.schedule else None,
        zone=job.schedule.zone if job.schedule else None,
        policy=origin.policy if origin else None,
        selection=origin.selection if origin else None,
        reason_ends=reason_ends(Waiting(WaitReason(reason), fields)),
    )


def origin_view(state: ControlState, job: Job) -> o.OriginView | None:
    """What a job was made of."""
    if job.origin is None:
        return None
    policy, row = state.policies.get(job.origin.policy), state.lists.get(job.origin.list)
    return o.OriginView(policy.name if policy else "", row.name if row else "", job.origin.template)


def run_note(run: Run) -> str | None:
    """What a person should know of how a run came about, or did not."""
    if run.state is RunState.SUPERSEDED:
        by = next((part.failure.fields.get("by") for part in run.parts if part.failure is not None), None)
        return f"superseded by {by}"
    if run.terms.second_of is not None:
        return f"the second device of {run.terms.second_of}"
    if run.terms.fired_by is not None:
        return f"started by {run.terms.fired_by}"
    return f"follows {run.terms.after}" if run.terms.after is not None else None


def reason_text(waiting: Waiting) -> str:
    return _filled(REASON_TEXT[waiting.reason], waiting)


def reason_ends(waiting: Waiting) -> str:
    """What would end a wait, and when that is expected, if somebody knows."""
    expected = waiting.fields.get("expected")
    text = _filled(REASON_ENDS[waiting.reason], waiting)
    return f"{text}; the first is expected to end at {expected}" if expected else text


def _filled(template: str, waiting: Waiting) -> str:
    fields = {name: ", ".join(map(str, x)) if isinstance(x, (list, tuple)) else x for name, x in waiting.fields.items()}
    return template.format_map(_Lenient(fields))


class _Lenient(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def device_name(state: ControlState, device: str) -> str:
    known = state.devices.get(device)
    return known.name if known else device


def attempt_view(state: ControlState, attempt: Attempt, row: AttemptRow | None, run: Run) -> o.AttemptView:
    counts = row.counts if row else Counts()
    shown = attempt.state
    if shown in ATTEMPT_ACTIVE and row is not None and row.state in ATTEMPT_ACTIVE:
        shown = row.state
    backup = backup_of(run.spec)
    return o.AttemptView(
        attempt=attempt.id,
        number=attempt.number,
        state=shown.value,
        type=row.type.value if row and row.type else (backup.type.value if backup else None),
        source=state.name_of(attempt.source),
        server=state.name_of(attempt.server),
        device=device_name(state, attempt.device),
        delegated=format_instant(attempt.delegated_at_ns) or "",
        started=format_instant(row.started_at_ns) if row else None,
        ended=format_instant(attempt.ended_at_ns),
        seconds=row.seconds if row else None,
        files=counts.files,
        bytes=counts.bytes,
        bytes_read=counts.bytes_read,
        bytes_stored=counts.bytes_stored,
        set=row.set if row else None,
        error=failure_view(attempt.failure or (row.failure if row else None)),
        redundant=attempt.state is AttemptState.REDUNDANT,
        predicted=predicted_of([row]) if row else None,
        inventory=row.inventory(device_name(state, attempt.device)) if row else None,
        catalog=row.catalog(device_name(state, attempt.device)) if row else None,
    )


def set_outcomes(state: ControlState, run: Run) -> tuple[o.SetOutcome, ...]:
    """One for each source server. What a restore or verify was about is its set, whatever came of it."""
    return tuple(
        o.SetOutcome(state.name_of(part.source), part.set or set_read(run.spec, part.source), part.state.value)
        for part in run.parts
    )


def second_outcomes(state: ControlState, run: Run) -> tuple[o.SecondOutcome, ...]:
    """What became of the second devices of what a run read."""
    found = []
    for second in seconds_of(state, run):
        (part,) = second.parts
        attempts = state.attempts_of(second.id)
        found.append(
            o.SecondOutcome(
                run=second.id,
                source=state.name_of(part.source),
                state=part.state.value,
                set=part.set,
                server=state.name_of(attempts[-1].server) if attempts else None,
                device=device_name(state, attempts[-1].device) if attempts else None,
                error=failure_view(part.failure),
            )
        )
    return tuple(found)


def predicted_of(rows: Sequence[AttemptRow]) -> o.PredictedView | None:
    """What test runs of several sources say together, as if one went after the other."""
    told = [row.predicted for row in rows if row.predicted is not None]
    if not told:
        return None
    seconds = [each.seconds for each in told if each.seconds is not None]
    return o.PredictedView(
        files=sum(each.files for each in told),
        bytes=sum(each.bytes for each in told),
        bytes_new=sum(each.bytes_new for each in told),
        seconds=sum(seconds) if len(seconds) == len(told) else None,
    )


def spec_view(state: ControlState, job: Job) -> dict[str, Any]:
    match job.spec:
        case (BackupSpec() as spec) | TestRunSpec(backup=spec):
            return {
                "sources": [f"{state.name_of(s.server)}:{shown_path(root)}" for s in spec.sources for root in s.roots],
                "target": str(spec.target),
                "type": spec.type.value,
                "excludes": list(spec.excludes),
                "one_file_system": spec.one_file_system,
                "exclude_caches": spec.exclude_caches,
                "larger_than": spec.larger_than,
                "media_set": spec.media_set,
                "verify": spec.verify,
                "pre": spec.pre,
                "post": spec.post,
                "snapshot": spec.snapshot.value,
                "allow_shrink": spec.allow_shrink,
                "second_to": None if spec.second is None else str(spec.second),
            }
        case RestoreSpec() as spec:
            return {
                "set": spec.set,
                "paths": [shown_path(path) for path in spec.paths or spec.chosen()[:_SHOWN_PATHS]],
                **({"selected": len(spec.chosen())} if spec.selection else {}),
                "to": f"{state.name_of(spec.server)}:{place_of(spec)}",
                "overwrite": spec.overwrite.value,
            }
        case VerifySpec(set=set_id):
            return {"set": set_id}
        case VerifySetsSpec(sources=sources):
            return {"newest_sets_of": [state.name_of(source) for source in sources]}
        case DuplicateSpec() as spec:
            return {
                "sets": list(spec.sets),
                "newest_sets_of": [] if spec.sets else [state.name_of(source) for source in spec.sources],
                "target": str(spec.target),
                "media_set": spec.media_set,
                "verify": spec.verify,
            }
        case SyntheticSpec() as spec:
            return {
                "sets": list(spec.sets),
                "newest_sets_of": [] if spec.sets else [state.name_of(source) for source in spec.sources],
                "media_set": spec.media_set,
                "verify": spec.verify,
            }
        case EraseSpec() as spec:
            return {"device": device_name(state, spec.device), "vault": spec.becomes, "even_last_good": spec.last_good}
        case InventorySpec(devices=devices) | CatalogSpec(devices=devices):
            return {"devices": [device_name(state, each) for each in devices] or ["all that take work"]}
        case DrillSpec() as spec:
            size = f"{spec.percent:g}%" if spec.percent is not None else spec.entries
            server = state.name_of(spec.server)
            return {"set": spec.set, "server": server, "sample": size, "max_bytes": spec.max_bytes}


def place_of(spec: RestoreSpec) -> str:
    """Where on its server a restore writes to: the root, a folder, or the input of a command."""
    if spec.into_command is not None:
        return f"@{spec.into_command}"
    return escape_path(spec.base) if spec.base else "/"


def lock_in_force(locks: Mapping[str, int | None], set_id: str, now_ns: int) -> tuple[int | None] | None:
    """The end of a set's lock (``None`` = without end), if it is locked now."""
    if set_id not in locks:
        return None
    until_ns = locks[set_id]
    return (until_ns,) if until_ns is None or now_ns < until_ns else None


def set_view(
    backup: BackupSet,
    verdict: Verdict,
    *,
    flaws: Collection[Flaw],
    catalog: bool,
    names: Mapping[str, str],
    devices: Mapping[str, str],
) -> b.SetView:
    return b.SetView(
        id=backup.id,
        source=names.get(backup.source, backup.source_name),
        server=names.get(backup.server, backup.server_name),
        device=devices.get(backup.device, backup.device_name),
        medium=backup.medium,
        media_set=backup.media_set,
        type=backup.type.value,
        job=backup.job,
        run=backup.run,
        attempt=backup.attempt,
        started=format_instant(backup.started_at_ns) or "",
        ended=format_instant(backup.ended_at_ns) or "",
        files=backup.files,
        bytes=backup.bytes,
        bytes_stored=backup.bytes_stored,
        exceptions=backup.exceptions,
        paths=tuple(shown_path(root) for root in backup.roots),
        expires=format_instant(verdict.expires_at_ns),
        protected_until=format_instant(verdict.protected_until_ns),
        locked=Keep.LOCKED in verdict.kept_by,
        redundant=Flaw.REDUNDANT in flaws,
        missing=Flaw.MISSING in flaws,
        damaged=Flaw.DAMAGED in flaws,
        catalog=catalog,
        kept_by=tuple(reason.value for reason in verdict.kept_by if reason in BY_PLACE),
        expired=verdict.goes,
        copy_of=backup.copy_of,
        made_of=backup.made_of,
    )


def medium_view(state: ControlState, medium: Medium, now_ns: int, sets: int, stored: int) -> v.MediumView:
    """``sets`` are on it now, which stored so many bytes; what its server told of it counts deleted ones, too."""
    now = replace(medium, sets=sets)
    media_set = next((each for each in state.media_set_list() if each.name == medium.media_set), None)
    return v.MediumView(
        label=medium.label,
        device=device_name(state, medium.device),
        media_set=medium.media_set,
        server=state.name_of(medium.server),
        state=shown_state(now, media_set, state.devices.get(medium.device), now_ns).value,
        opened=format_instant(medium.opened_at_ns) or "",
        last_write=format_instant(medium.last_write_at_ns) or "",
        bytes=stored,
        sets=sets,
    )


def b64(path: bytes) -> str:
    return base64.b64encode(b"/" + path).decode("ascii")


def mtime_ns(modified: tuple[int, int]) -> str:
    return str(modified[0] * 1_000_000_000 + modified[1])


def entry_view(entry: CatalogEntry, *, implied: bool = False) -> b.EntryView:
    """``implied``: it lies above what was selected, so that nothing is known of it but its name."""
    return b.EntryView(
        path=shown_path(entry.path),
        path_b64=b64(entry.path),
        type=entry.type.value,
        size=entry.size,
        mtime=None if implied else format_seconds(entry.modified[0]),
        mtime_ns=None if implied else mtime_ns(entry.modified),
        mode=None if implied else f"{entry.mode & 0o7777:04o}",
    )


def exception_view(each: SourceException) -> o.ExceptionView:
    reason = f"{each.reason}: {each.detail}" if each.detail else each.reason
    return o.ExceptionView(shown_path(each.path), reason)
