"""Shared by the tests of jobs."""

from __future__ import annotations

import asyncio

import pytest
from bulk_ends import met
from job_site import Site, doors

from caso_mesh.jobs.bulk_memory import MemoryHub
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.nursery_runner import NurseryRunner
from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.jobs.worker import SystemClock


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
async def runner(tmp_path):
    async with NurseryRunner(lock_path=tmp_path / "run" / "workers.lock") as runner:
        yield runner


@pytest.fixture
async def runners(tmp_path):
    """Those of alpha and beta."""
    async with (
        NurseryRunner(lock_path=tmp_path / "alpha-run" / "workers.lock") as alpha,
        NurseryRunner(lock_path=tmp_path / "beta-run" / "workers.lock") as beta,
    ):
        yield alpha, beta


@pytest.fixture
def hub():
    return MemoryHub()


@pytest.fixture
def threads(hub):
    return ThreadRunner(clock=SystemClock(), hub=hub)


@pytest.fixture
async def meeting(site, tmp_path):
    """``meeting(script, answering)`` runs ``script(channel, desk)`` in a thread; what it returns."""
    workers = {}
    async with doors(site, workers) as places:
        spec = site.backup_spec(tmp_path, source=site.beta)

        async def meet(script, answering, **changes):
            def work():
                desk = Desk("a", lambda message: None, SystemClock())
                with met(site, spec, answering, places, workers, desk, **changes) as channel:
                    return script(channel, desk)

            return await asyncio.to_thread(work)

        yield meet
