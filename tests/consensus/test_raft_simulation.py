"""The simulation keeps every promise on a fixed set of seeds; the same seed gives the same run."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from consensus.simulation.history import Operation, not_linearizable
from consensus.simulation.policies import MUTANTS, mutant
from consensus.simulation.runs import PLANS, run_seed

_ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Groups of the fixed set, so that a failure names its neighbourhood.
_GROUP = 25


def write(number, began, ended):
    return Operation(number, "write", began, ended)


def read(number, began, ended, length):
    return Operation(number, "read", began, ended, length)


@pytest.mark.parametrize("first", range(0, 150, _GROUP))
def test_every_promise_is_kept(first):
    outcomes = [run_seed(seed) for seed in range(first, first + _GROUP)]
    assert [outcome for outcome in outcomes if outcome.violation] == []
    assert min(outcome.acknowledged for outcome in outcomes) > 0


@pytest.mark.parametrize("name", MUTANTS)
def test_whoever_breaks_a_rule_is_noticed(name):
    """``python -m tests.consensus.simulation --mutants`` prints which seed notices, and by which promise."""
    broken = mutant(name)
    assert any(run_seed(seed, broken).violation for seed in range(8 * len(PLANS)))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 2000, 200))
def test_every_promise_is_kept_for_two_thousand_seeds(first):
    outcomes = [run_seed(seed) for seed in range(first, first + 200)]
    assert [outcome for outcome in outcomes if outcome.violation] == []


def test_a_seed_gives_the_same_run_whatever_strings_hash_to():
    program = "from consensus.simulation.runs import run_seed; print([run_seed(seed).digest for seed in (2, 3, 7)])"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(digests) == 1
    assert digests == {f"{[run_seed(seed).digest for seed in (2, 3, 7)]}\n"}
    assert run_seed(2).digest != run_seed(3).digest


@pytest.mark.parametrize(
    ("operations", "order"),
    [
        ([], []),
        ([write(1, 0, 5), read(2, 6, 7, 1)], [1]),
        ([write(1, 0, 5), read(2, 4, 7, 0)], [1]),  # they overlap
        ([write(1, 0, None), read(2, 6, 7, 0), read(3, 8, 9, 1)], [1]),  # it may take effect late
        ([write(1, 0, None), read(2, 6, 7, 0)], []),  # or never
        ([write(1, 0, 9), write(2, 1, 8)], [2, 1]),
        ([write(1, 0, 5), write(2, 5, 8)], [2, 1]),  # at the same instant: they overlap
    ],
)
def test_histories_that_one_copy_could_have_answered(operations, order):
    assert not_linearizable(operations, order) is None


@pytest.mark.parametrize(
    ("operations", "order"),
    [
        ([write(1, 0, 5), read(2, 6, 7, 0)], [1]),  # a read that misses what was there before
        ([write(1, 0, 5)], []),  # acknowledged and lost
        ([write(1, 0, 3), write(2, 4, 5)], [2, 1]),  # in the wrong order
        ([write(1, 0, None), read(2, 1, 2, 1), read(3, 3, 4, 0)], [1]),  # seen, and gone again
        ([read(1, 0, 1, 1), write(2, 2, 3)], [2]),  # seen before it was written
        ([write(1, 0, 5)], [1, 1]),  # twice
    ],
)
def test_histories_that_one_copy_could_not_have_answered(operations, order):
    assert not_linearizable(operations, order) is not None
