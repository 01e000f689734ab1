"""The newest good backup of each server of each selection list, and whether it is older than it may be.

Good is what was published, is not deleted, and counts: a set of an attempt that was not needed any more (redundant) does not,
copies on another device and full sets that were made of others do, with the times of those. What servers run by
themselves of a copied list counts for it. What ``planning.choosing`` says of others counts for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from msgspec import Struct

from caso_mesh.admin.report_questions import NewestSet, local_jobs_by_list, newest_by_job
from caso_mesh.admin.tables import Tables
from caso_mesh.control.ageing import Allowed, First, allowed_age, first_backup
from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import BackupSpec, DuplicateSpec, Job, SyntheticSpec
from caso_mesh.model.policies import NEVER_TOO_OLD_S, SelectionList
from caso_mesh.planning.choosing import Flaws, Use

_SECOND = 1_000_000_000
#: Lists that are judged without a pause.
_AT_ONCE = 100
#: Runs and jobs that are passed by without a pause.
_PASSED_BY = 5000
_MAKES = (BackupSpec, DuplicateSpec, SyntheticSpec)


class Age(Struct, frozen=True):
    """Of one server (id) of a list. ``since_ns``: when the list was made. ``newest`` ``None``: it has none; ``first`` says more
    of that if it was asked for, unless the list need not have one."""

    selection: SelectionList
    source: str
    newest: NewestSet | None
    allowed: Allowed
    since_ns: int
    first: First | None = None

    def overdue(self, now_ns: int) -> bool:
        """Whether it is older than allowed; one that never was is as old as its list."""
        if self.allowed.seconds is None:
            return False
        begins_ns = self.newest.ended_at_ns if self.newest is not None else self.since_ns
        return begins_ns < now_ns - round(self.allowed.seconds * _SECOND)


async def ages(state: ControlState, tables: Tables, flaws: Flaws, now_ns: int, *, firsts: bool = False) -> list[Age]:
    """Of all lists, by name, and their servers. A few questions to the tables, however many there are. ``firsts``: what has
    none is told with when its first was due, for which its schedules are looked at."""
    newest, local = await newest_by_job(tables, flaws.barred(Use.COUNT)), await local_jobs_by_list(tables)
    jobs: dict[str, list[Job]] = {}
    for count, job in enumerate([*state.jobs.values()]):
        if count % _PASSED_BY == _PASSED_BY - 1:
            await asyncio.sleep(0)
        if job.origin is not None and isinstance(job.spec, _MAKES):
            jobs.setdefault(job.origin.list, []).append(job)
        elif isinstance(job.spec, SyntheticSpec) and job.spec.list:
            jobs.setdefault(job.spec.list, []).append(job)
    found = []
    for count, row in enumerate(state.selection_lists()):
        if count % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)  # others need the loop, too
        of_list = jobs.get(row.id, [])
        allowed = allowed_age(state, row, of_list, now_ns)
        makers = {job.id for job in of_list} | local.get(row.id, set())
        for source in row.servers():
            server = state.servers.get(source)
            ids = (source, *server.succeeds) if server is not None else (source,)
            best = _newest(newest.get((id, maker)) for id in ids for maker in makers)
            asked = firsts and best is None and (row.oldest_good_s is None or row.oldest_good_s < NEVER_TOO_OLD_S)
            first = first_backup(state, row, of_list, ids) if asked else None
            found.append(Age(row, source, best, allowed, row.created_at_ns, first))
    return found


def _newest(sets: Iterable[NewestSet | None]) -> NewestSet | None:
    return max((each for each in sets if each is not None), key=lambda each: (each.ended_at_ns, each.id), default=None)
