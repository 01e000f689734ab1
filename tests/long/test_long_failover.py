"""The administrator is killed thirty times in a row."""

from __future__ import annotations

import pathlib
import statistics

import pytest
from bench.failover import measure
from mesh.process import running_mesh


@pytest.mark.long
@pytest.mark.timeout(900)
def test_thirty_deaths_of_the_administrator_lose_nothing_and_disturb_no_job(tmp_path: pathlib.Path) -> None:
    with running_mesh(tmp_path / "mesh") as mesh:
        outcome = measure(mesh, 30)
    print(outcome)
    assert not outcome.missing
    assert set(outcome.runs.values()) == {"succeeded"}
    assert all(states.count("succeeded") == 1 for states in outcome.attempts.values())
    # no target of speed: what would mean that it does not work at all
    assert statistics.median(outcome.accepted_s) < 15.0
