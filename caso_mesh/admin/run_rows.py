"""Rows of reports about runs: each part of a run with what its deciding attempt told. Pure, for a thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from caso_mesh.admin import present
from caso_mesh.admin.attempts import AttemptRow, AttemptRows
from caso_mesh.model.jobs import Attempt, Job, Part, RestoreSpec, Run, Waiting, backup_of, kind_of, set_read
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD, AttemptState, RunState
from caso_mesh.reports.rows import RunRow

_ACTIVE = {AttemptState.RUNNING: RunState.RUNNING, AttemptState.VERIFYING: RunState.VERIFYING}
_GOOD = frozenset({RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS})


class Names(Struct, frozen=True):
    """Names by id, as they are now; ``selection_of`` are lists (ids) by job, ``origins`` names of list and policy by job."""

    servers: Mapping[str, str]
    devices: Mapping[str, str]
    lists: Mapping[str, str]
    jobs: Mapping[str, Job]
    policies: Mapping[str, str]

    def server(self, id: str) -> str:
        return self.servers.get(id, id)

    def device(self, id: str) -> str:
        return self.devices.get(id, id)

    def selection(self, job: str) -> str:
        """The name of the list that a job was made for; empty for none."""
        row = self.jobs.get(job)
        return "" if row is None or row.origin is None else self.lists.get(row.origin.list, "")

    def policy(self, job: str) -> str:
        row = self.jobs.get(job)
        return "" if row is None or row.origin is None else self.policies.get(row.origin.policy, "")


class ToldRun(Struct, frozen=True, gc=False):
    """A run with its attempts. ``selection``: the list (id) of one that its server runs by itself (``own``)."""

    run: Run
    attempts: tuple[Attempt, ...]
    own: bool = False
    selection: str = ""


def run_rows(
    told: Iterable[ToldRun],
    rows: AttemptRows,
    names: Names,
    waiting: Mapping[tuple[str, str], Waiting],
    only: frozenset[str] | None,
) -> list[RunRow]:
    """One row for each part that concerns ``only`` some servers (ids): whose files it is about, or who writes it."""
    found = []
    for each in told:
        for part in each.run.parts:
            attempt = deciding(each.attempts, part)
            if only is not None and part.source not in only and (attempt is None or attempt.server not in only):
                continue
            row = rows.of(attempt) if attempt is not None else None
            waits = waiting.get((each.run.id, part.source)) if part.state is RunState.READY else None
            found.append(_row(each, part, attempt, row, names, waits))
    return found


def deciding(attempts: Sequence[Attempt], part: Part) -> Attempt | None:
    """The attempt that decided a part: the one whose success counts, else the last."""
    tried = [each for each in attempts if each.source == part.source]
    good = [each for each in tried if each.state in ATTEMPT_GOOD]
    return (good or tried)[-1] if tried else None


def _row(
    each: ToldRun, part: Part, attempt: Attempt | None, row: AttemptRow | None, names: Names, waits: Waiting | None
) -> RunRow:
    run, spec = each.run, each.run.spec
    active = attempt is not None and attempt.state in ATTEMPT_ACTIVE
    shown = _ACTIVE.get(row.state, part.state) if active and row is not None else part.state
    if run.closed_at_ns is None and run.held and part.state is RunState.READY:
        shown = RunState.ON_HOLD
    failure = part.failure or (row.failure if row is not None and shown not in _GOOD else None)
    error = present.failure_view(failure) if shown not in _GOOD and shown is not RunState.SUPERSEDED else None
    backup, predicted = backup_of(spec), row.predicted if row is not None else None
    ended_ns = None
    if run.closed_at_ns is not None:
        ended_ns = min(row.ended_at_ns, run.closed_at_ns) if row is not None and row.ended_at_ns else run.closed_at_ns
    counts = row.counts if row is not None else None
    return RunRow(
        run=run.id,
        job=run.name,
        kind=kind_of(spec).value,
        state=shown.value,
        source=names.server(part.source),
        due_ns=run.due_at_ns,
        type=row.type.value if row is not None and row.type else backup.type.value if backup is not None else "",
        selection=names.lists.get(each.selection, "") if each.own else names.selection(run.job),
        policy=names.policy(run.job),
        server=names.server(attempt.server) if attempt is not None else "",
        device=names.device(attempt.device) if attempt is not None and attempt.device else "",
        by=run.created_by,
        started_ns=row.started_at_ns if row is not None else None,
        ended_ns=ended_ns,
        seconds=row.seconds if row is not None else None,
        attempts=part.attempts or (1 if attempt is not None else 0),
        files=counts.files if counts is not None else 0,
        bytes=counts.bytes if counts is not None else 0,
        bytes_read=counts.bytes_read if counts is not None else 0,
        bytes_stored=counts.bytes_stored if counts is not None else 0,
        exceptions=counts.exceptions if counts is not None else 0,
        set=part.set or set_read(spec, part.source) or "",
        target=_target(spec, names) if isinstance(spec, RestoreSpec) else "",
        error=error["code"] if error is not None else "",
        error_text=error["message"] if error is not None else "",
        error_hint=" ".join((error["hint"] or "").split()) if error is not None else "",
        waits=present.reason_text(waits) if waits is not None else "",
        note=present.run_note(run) or "",
        own=each.own,
        predicted_files=predicted.files if predicted is not None else None,
        predicted_bytes=predicted.bytes if predicted is not None else None,
        predicted_new=predicted.bytes_new if predicted is not None else None,
        predicted_s=predicted.seconds if predicted is not None else None,
    )


def _target(spec: RestoreSpec, names: Names) -> str:
    return f"{names.server(spec.server)}:{present.place_of(spec)}"


def made_up_for(rows: Iterable[RunRow]) -> dict[tuple[str, str], int]:
    """When each job (name) last ended well for each source."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.state in _GOOD and row.ended_ns is not None:
            key = (row.job, row.source)
            found[key] = max(found.get(key, 0), row.ended_ns)
    return found
