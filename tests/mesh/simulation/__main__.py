"""Runs the simulation: ``python -m tests.mesh.simulation --help``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mesh.simulation.aimed import AIMS
from mesh.simulation.mutants import MUTANTS
from mesh.simulation.runs import run_seed
from mesh.simulation.stage import Stage


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mesh.simulation")
    parser.add_argument("--seeds", default="0:20", metavar="FIRST:END", help="which seeds (default: 0:20)")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: what happened, and what the daemons logged")
    parser.add_argument("--aim", choices=AIMS, help="the storm that is aimed at this rule, and the rule as it is")
    parser.add_argument("--operations", metavar="A,B", help='operators do these, not what the seeds say; "": nothing')
    parser.add_argument(
        "--break", dest="name", choices=MUTANTS, help="break this rule, in the storm that is aimed at it"
    )
    parser.add_argument("--mutants", action="store_true", help="break each rule, until a seed notices; print the table")
    chosen = parser.parse_args()
    first, end = (int(part) for part in chosen.seeds.split(":"))
    if chosen.mutants:
        return _mutants(chosen.seeds)
    logging.basicConfig(level=logging.INFO if chosen.trace else logging.CRITICAL + 1, stream=sys.stdout)
    stage = Stage()
    broken = MUTANTS[chosen.name] if chosen.name else contextlib.nullcontext
    aim = AIMS.get(chosen.name or chosen.aim)
    operations = None if chosen.operations is None else tuple(filter(None, chosen.operations.split(",")))
    try:
        if chosen.seed is not None:
            outcome = run_seed(stage, chosen.seed, broken, aim=aim, operations=operations, trace=chosen.trace)
            print("\n".join(outcome.trace))
            print(outcome.digest)
            print(outcome.violation or "all promises kept")
            return 1 if outcome.violation else 0
        if chosen.name:
            return _mutant(stage, chosen.name, range(first, end))
        began, failed, runs, sets, lives = time.process_time(), 0, 0, 0, 0
        for seed in range(first, end):
            outcome = run_seed(stage, seed, aim=aim, operations=operations)
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


def _mutants(seeds: str) -> int:
    """A table: which rule, how many seeds until it was noticed, by which promise. Each in a process of its own."""
    print(f"{'rule that was broken':24} {'seeds':>6}  promise that noticed", flush=True)
    command = [sys.executable, "-m", "tests.mesh.simulation", "--seeds", seeds, "--break"]
    alive = [name for name in MUTANTS if subprocess.run([*command, name], check=False).returncode != 0]
    return 1 if alive else 0


def _mutant(stage: Stage, name: str, seeds: range) -> int:
    """A row of that table. A seed counts that keeps every promise while the rule is whole."""
    for count, seed in enumerate(seeds, 1):
        outcome = run_seed(stage, seed, MUTANTS[name], aim=AIMS[name])
        if outcome.violation and run_seed(stage, seed, aim=AIMS[name]).violation is None:
            print(f"{name:24} {count:6}  {outcome.promise} (seed {seed})", flush=True)
            return 0
    print(f"{name:24} {'alive':>6}  after {len(seeds)} seeds", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
