"""Runs the simulation: ``python -m tests.consensus.simulation --help``."""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from consensus.simulation.policies import AS_IN_THE_PRODUCT, MUTANTS, mutant
from consensus.simulation.runs import run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.consensus.simulation")
    parser.add_argument("--seeds", default="0:100", metavar="FIRST:END", help="which seeds (default: 0:100)")
    parser.add_argument("--seed", type=int, help="one seed, with every message")
    parser.add_argument("--break", dest="name", choices=MUTANTS, help="break this rule")
    parser.add_argument("--mutants", action="store_true", help="break each rule, until a seed notices; print the table")
    chosen = parser.parse_args()
    first, end = (int(part) for part in chosen.seeds.split(":"))
    broken = mutant(chosen.name) if chosen.name else AS_IN_THE_PRODUCT
    if chosen.seed is not None:
        outcome = run_seed(chosen.seed, broken, trace=True)
        print("\n".join(outcome.trace))
        print(outcome.violation or "all promises kept")
        return 1 if outcome.violation else 0
    if chosen.mutants:
        return _mutants(first, end)
    began = time.process_time()
    failed = acknowledged = 0
    for seed in range(first, end):
        outcome = run_seed(seed, broken)
        acknowledged += outcome.acknowledged
        if outcome.violation:
            failed += 1
            print(f"seed {seed}: {outcome.violation}")
    took = time.process_time() - began
    print(f"{end - first} seeds, {failed} broke a promise, {acknowledged} operations answered, {took:.0f} s of CPU")
    return 1 if failed else 0


def _mutants(first: int, end: int) -> int:
    """A table: which rule, how many seeds until it was noticed, by which promise."""
    alive = 0
    print(f"{'rule that was broken':28} {'seeds':>6}  promise that noticed")
    for name in MUTANTS:
        for seed in range(first, end):
            outcome = run_seed(seed, mutant(name))
            if outcome.violation:
                print(f"{name:28} {seed - first + 1:6}  {outcome.promise} (seed {seed})", flush=True)
                break
        else:
            alive += 1
            print(f"{name:28} {'alive':>6}  after {end - first} seeds", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
