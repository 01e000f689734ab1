"""Daemons that run job after job by their schedules do not grow, miss no due time and take none twice."""

from __future__ import annotations

import os

import pytest
from long.schedule_rounds import JOBS, SERVERS, FastMesh, Schedule


@pytest.fixture
def fast_mesh(tmp_path):
    mesh = FastMesh(tmp_path / "mesh", float(os.environ.get("CASO_MESH_FACTOR", "14")))
    try:
        mesh.start(3)
        yield mesh
    finally:
        try:
            mesh.stop()
        finally:
            mesh.show_logs()


#: What a job may leave in the memory of a daemon, beside pages of databases, which have a bound. Request ids alone are
#: some 2 kB a job at the administrator, until the newest 10,000 are there; with the runs that are kept (``runs-kept``)
#: and what finds them it is 13.8 kB. The last sample may have 2 MB more, of a list that was just asked for.
GROWTH_BYTES = 17_000


def schedule(mesh: FastMesh, jobs: int) -> Schedule:
    work = Schedule(mesh, 6)
    work.prepare()
    work.work(jobs, sample_every=max(10, jobs // 10))
    work.end()
    runs = work.check_runs()
    assert runs >= jobs
    work.check_restores()
    print(f"{runs} scheduled runs of {len(JOBS)} jobs")
    return work


def test_scheduled_jobs_are_run_once_each_minute_by_daemons_whose_calendar_is_fast(fast_mesh):
    schedule(fast_mesh, 30)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_daemons_do_not_grow_over_a_thousand_scheduled_jobs(fast_mesh):
    work = schedule(fast_mesh, int(os.environ.get("CASO_MESH_JOBS", "1000")))
    for server in SERVERS:
        start, warm, *_, end = work.of(server)
        print(start, end, sep="\n")
        assert end.files <= start.files + 4
        assert end.tasks <= start.tasks + 4
        assert end.below <= start.below
        assert end.below_files <= start.below_files
        grown = (end.held_bytes - end.sqlite_bytes) - (warm.held_bytes - warm.sqlite_bytes)
        each = grown / (end.jobs - warm.jobs)
        print(f"{server}: {each / 1000:.1f} kB a job after the first {warm.jobs}, without the pages of databases")
        assert each < GROWTH_BYTES
