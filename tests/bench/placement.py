"""Load balancing: how long a night takes beside how short it can be at all, and what making one plan costs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import fmean, median

from bench import placing
from bench.night import AnyAtRandom, FirstAvailable, Night, RoundRobin, Rule, history_of, lower_bound, nights, ours
from bench.night import simulate as simulate_night

#: Ours should come to so many times the lower bound on average over the nights.
GOAL = 1.10
#: A plan from nothing should take less, in seconds.
FULL_S = 1.0

COLUMNS = ("ours", "ours, no history", "first available", "round-robin", "random")


def main(words: Sequence[str]) -> int:
    """Prints both tables; 1 if a goal is missed: ours on average, no night worse than with the first available device, a
    full plan under a second."""
    parser = argparse.ArgumentParser(prog="scripts/bench placement", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=5, help="nights of each kind, and random choices of each (default: 5)"
    )
    parser.add_argument("--only", choices=("nights", "plans"), help="one of the tables alone")
    chosen = parser.parse_args(words)
    missed: list[str] = []
    if chosen.only != "plans":
        missed += show_nights(chosen.seeds)
    if chosen.only != "nights":
        missed += show_plans()
    for each in missed:
        print(f"missed: {each}")
    return 1 if missed else 0


# --- nights ---


def show_nights(seeds: int) -> list[str]:
    """Prints the table of nights; the goals that were missed."""
    kinds: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(seeds):
        for one in nights(seed):
            kinds.setdefault(one.name, []).append(ratios(one, seeds))
    print(f"time until the last run ends / lower bound; medians of {seeds} nights")
    print(f"{'':16}" + "".join(f"{column:>18}" for column in COLUMNS) + f"{'worse than first':>20}")
    medians, missed = [], []
    for name, found in kinds.items():
        row = [median(night[column] for night in found) for column in range(len(COLUMNS))]
        worse = sum(night[0] > night[2] for night in found)
        medians.append(row)
        print(f"{name:16}" + "".join(f"{value:18.3f}" for value in row) + f"{worse:20}")
        if worse:
            missed.append(f"{worse} nights of {name} took longer than with the first available device")
    means = [fmean(row[column] for row in medians) for column in range(len(COLUMNS))]
    print(f"{'on average':16}" + "".join(f"{value:18.3f}" for value in means) + "\n")
    if means[0] > GOAL:
        missed.append(f"{means[0]:.3f} on average, the goal is {GOAL}")
    return missed


def ratios(night: Night, seeds: int) -> tuple[float, ...]:
    """In the order of ``COLUMNS``."""
    bound = lower_bound(night)

    def by(rule: Callable[[], Rule]) -> float:
        return simulate_night(night, rule()) / bound

    return (
        simulate_night(night, ours, history_of(night, 1)) / bound,
        simulate_night(night, ours) / bound,
        by(FirstAvailable),
        by(RoundRobin),
        median(simulate_night(night, AnyAtRandom(seed)) / bound for seed in range(seeds)),
    )


# --- plans ---


def show_plans() -> list[str]:
    """Prints what plans cost; the goals that were missed."""
    print(f"{placing.RUNS} ready runs on {placing.SERVERS} servers; milliseconds, medians")
    print(f"{'targets':16}{'devices':>10}{'a full plan':>14}{'all reasons':>14}{'after one event':>18}{'placed':>10}")
    missed = []
    for shared in (False, True):
        for name, targets in placing.TARGETS.items():
            cost = placing.measure(targets, shared=shared)
            devices = "shared" if shared else "own"
            print(
                f"{name:16}{devices:>10}{1000 * cost.full_s:14.0f}{1000 * cost.reasons_s:14.0f}"
                f"{1000 * cost.again_s:18.1f}{cost.placed:10}"
            )
            if cost.full_s + cost.reasons_s > FULL_S:
                missed.append(f"a full plan of {name}, {devices} devices, took more than {FULL_S} s")
    return missed


if __name__ == "__main__":
    raise SystemExit(main([]))
