"""Runs the simulation: ``python -m tests.mesh.simulation --help``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mesh.simulation.mutants import MUTANTS
from mesh.simulation.runs import run_seed
from mesh.simulation.stage import Stage


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mesh.simulation")
    parser.add_argument("--seeds", default="0:20", metavar="FIRST:END", help="which seeds (default: 0:20)")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: what happened, and what the daemons logged")
    parser.add_argument("--break", dest="name", choices=MUTANTS, help="break this rule")
    parser.add_argument("--mutants", action="store_true", help="break each rule, until a seed notices; print the table")
    chosen = parser.parse_args()
    first, end = (int(part) for part in chosen.seeds.split(":"))
    logging.basicConfig(level=logging.INFO if chosen.trace else logging.CRITICAL + 1, stream=sys.stdout)
    stage = Stage()
    broken = MUTANTS[chosen.name] if chosen.name else contextlib.nullcontext
    try:
        if chosen.seed is not None:
            outcome = run_seed(stage, chosen.seed, broken, trace=chosen.trace)
            print("\n".join(outcome.trace))
            print(outcome.digest)
            print(outcome.violation or "all promises kept")
            return 1 if outcome.violation else 0
        if chosen.mutants:
            return _mutants(stage, first, end)
        began, failed, runs, sets, lives = time.process_time(), 0, 0, 0, 0
        for seed in range(first, end):
            outcome = run_seed(stage, seed, broken)
            runs, sets, lives = runs + outcome.runs, sets + outcome.sets, lives + outcome.lives
            if outcome.violation:
                failed += 1
                print(f"seed {seed}: {outcome.violation}", flush=True)
        took = time.process_time() - began
        print(
            f"{end - first} seeds, {failed} broke a promise, {runs} runs, {sets} sets, {lives} lives, {took:.0f} s of CPU"
        )
        return 1 if failed else 0
    finally:
        stage.close()


def _mutants(stage: Stage, first: int, end: int) -> int:
    """A table: which rule, how many seeds until it was noticed, by which promise."""
    alive = 0
    print(f"{'rule that was broken':24} {'seeds':>6}  promise that noticed")
    for name, broken in MUTANTS.items():
        for seed in range(first, end):
            outcome = run_seed(stage, seed, broken)
            if outcome.violation:
                print(f"{name:24} {seed - first + 1:6}  {outcome.promise} (seed {seed})", flush=True)
                break
        else:
            alive += 1
            print(f"{name:24} {'alive':>6}  after {end - first} seeds", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
