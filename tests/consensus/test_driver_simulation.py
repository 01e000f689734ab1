"""Whole meshes of drivers in virtual time keep every promise; one that speaks before it writes is noticed."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest
from driver_simulation import run_seed

from caso_mesh.consensus import driver


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """In memory if there is such a place: here power never fails for real, and thousands of writes wait for no disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        yield pathlib.Path(name)


@pytest.mark.parametrize("seed", range(12))
def test_every_promise_is_kept(seed, folder):
    outcome = run_seed(seed, folder)
    assert outcome.problem is None
    assert outcome.acknowledged > 0


def test_disks_are_put_back_in_some_of_the_runs(folder):
    assert run_seed(1, folder).put_back == 1


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 500, 50))
def test_every_promise_is_kept_for_five_hundred_seeds(first, folder):
    problems = {}
    for seed in range(first, first + 50):
        place = folder / str(seed)
        place.mkdir()
        problems[seed] = run_seed(seed, place).problem
    assert {seed: problem for seed, problem in problems.items() if problem} == {}


def test_a_driver_that_speaks_before_it_writes_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(driver, "PROMISES_NOTHING", (object,))
    for seed in range(24):
        place = folder / str(seed)
        place.mkdir()
        if run_seed(seed, place).problem:
            return
    pytest.fail("24 seeds have noticed nothing")


def test_a_seed_gives_the_same_run(folder):
    outcomes = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        outcomes.append(run_seed(5, folder / name))
    assert outcomes[0] == outcomes[1]
