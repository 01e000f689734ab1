"""The newest sets of a selection list: what a verify or a duplicate of a policy is about."""

from __future__ import annotations

from collections.abc import Collection

from caso_mesh.admin.tables import Tables
from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import BackupSpec, DuplicateSpec, Job, VerifySetsSpec
from caso_mesh.model.storage import BackupSet


async def newest_sets(state: ControlState, tables: Tables, job: Job) -> dict[str, str]:
    """By source, what a run of ``job`` is about that begins now; empty for a job that is not about newest sets."""
    if not isinstance(job.spec, VerifySetsSpec | DuplicateSpec) or job.origin is None:
        return {}
    # each policy sends its own sets off-site
    policy = job.origin.policy if isinstance(job.spec, DuplicateSpec) else None
    jobs = backup_jobs(state, job.origin.list, policy)
    found: dict[str, str] = {}
    for source in job.spec.sources:
        backup = await newest_set(state, tables, jobs, source)
        if backup is not None:
            found[source] = backup.id
    return found


async def newest_set(state: ControlState, tables: Tables, jobs: Collection[str], source: str) -> BackupSet | None:
    """The newest set of a server (id), or of those whose place it took, that one of some jobs made."""
    row = state.servers.get(source)
    sources = (source, *row.succeeds) if row is not None else (source,)
    found = [backup for each in sources if (backup := await tables.newest_of(jobs, each)) is not None]
    return max(found, key=lambda backup: backup.ended_at_ns, default=None)


def backup_jobs(state: ControlState, selection: str, policy: str | None = None) -> frozenset[str]:
    """The ids of the jobs that back up a selection list (id), or only those of one policy (id)."""
    jobs = state.jobs_made_of(policy=policy, selection=selection)
    return frozenset(job.id for job in jobs if isinstance(job.spec, BackupSpec))
