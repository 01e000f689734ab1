"""The newest sets of a selection list: what a verify, a duplicate or a synthetic full of a policy is about."""

from __future__ import annotations

from collections.abc import Callable, Collection

from caso_mesh.admin.flaws import FlawsNow
from caso_mesh.admin.tables import Tables
from caso_mesh.control.dues import is_about_newest, makers_of
from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import DuplicateSpec, Job, JobSpec, SyntheticSpec
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.planning.choosing import Use
from caso_mesh.planning.lifecycle import sources_of


async def newest_sets(state: ControlState, tables: Tables, job: Job, flaws: FlawsNow) -> dict[str, str]:
    """By source, what a run of ``job`` is about that begins now; empty for a job that is not about newest sets."""
    if not is_about_newest(job):
        return {}
    jobs, use = makers_of(state, job), _use_of(job.spec)
    barred = (await flaws()).barred(use)
    found: dict[str, str] = {}
    for source in sources_of(job.spec):
        backup = await newest_set(state, tables, jobs, source, barred, is_base if use is Use.BUILD else None)
        if backup is not None:
            found[source] = backup.id
    return found


def _use_of(spec: JobSpec) -> Use:
    match spec:
        case SyntheticSpec():
            return Use.BUILD
        case DuplicateSpec():
            return Use.COPY
        case _:
            return Use.CHECK


async def newest_set(
    state: ControlState,
    tables: Tables,
    jobs: Collection[str] | None,
    source: str,
    barred: Collection[str],
    fits: Callable[[BackupSet], bool] | None = None,
) -> BackupSet | None:
    """The newest set of a server (id), or of those whose place it took, that one of some jobs made (``None``: of
    whatever job), that is not ``barred`` (ids), and for which ``fits`` holds."""
    row = state.servers.get(source)
    sources = (source, *row.succeeds) if row is not None else (source,)
    found = [backup for each in sources if (backup := await _newest_of(tables, jobs, each, barred, fits)) is not None]
    return max(found, key=lambda backup: backup.ended_at_ns, default=None)


async def _newest_of(
    tables: Tables,
    jobs: Collection[str] | None,
    source: str,
    barred: Collection[str],
    fits: Callable[[BackupSet], bool] | None,
) -> BackupSet | None:
    """Of a set and the full one that was made of it, which has its times, the full one."""
    found: BackupSet | None = None
    async for backup in tables.sets_until(source, 2**62):
        if found is not None and (backup.ended_at_ns < found.ended_at_ns or found.made_of is not None):
            break
        good = (jobs is None or backup.job in jobs) and backup.id not in barred and (fits is None or fits(backup))
        if good and (found is None or backup.made_of is not None):
            found = backup
    return found


def is_base(backup: BackupSet) -> bool:
    """Whether a full set can be made of it: it was read from the source, by a backup that others build on."""
    return backup.type is not BackupType.COPY and backup.copy_of is None and backup.made_of is None
