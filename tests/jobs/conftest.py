"""Shared by the tests of jobs."""

from __future__ import annotations

import pytest
from job_site import Site

from caso_mesh.jobs.nursery_runner import NurseryRunner


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
