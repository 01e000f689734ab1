"""One run: a seed decides the mesh, its faults and its clients, and everything in between."""

from __future__ import annotations

from collections.abc import Callable

from consensus.simulation import stories
from consensus.simulation.checks import Violation
from consensus.simulation.faults import Storm
from consensus.simulation.operator import Operator
from consensus.simulation.policies import AS_IN_THE_PRODUCT, Broken
from consensus.simulation.world import World
from msgspec import Struct

_STORM_MS = 3500


class Outcome(Struct, frozen=True):
    """``violation`` is ``None`` if every promise was kept. ``digest`` is of the whole trace."""

    seed: int
    violation: str | None
    promise: str | None
    digest: str
    virtual_ms: int
    operations: int
    acknowledged: int
    trace: list[str]


class Plan(Struct, frozen=True):
    """Which mesh, and which story ends it. ``changes``: its membership changes during the storm."""

    story: Callable[[Storm], None]
    voters: int
    changes: bool = False
    max_entries: int | None = None


#: One after the other, seed by seed.
PLANS = (
    Plan(stories.lonely_follower, 3),
    Plan(stories.disk_put_back, 3),
    Plan(stories.contested_elections, 5),
    Plan(stories.dead_newcomer, 1, changes=True),
    Plan(stories.late_replies, 5),
    Plan(stories.deaf_leader, 3, changes=True),
    Plan(stories.undone_changes, 3),
    Plan(stories.lost_witnesses, 3),
    Plan(stories.early_reads, 3, changes=True),
    Plan(stories.figure_eight, 5, max_entries=1),
    Plan(stories.slow_clock, 3),
    Plan(stories.two_changes_at_once, 3),
    Plan(stories.disk_put_back, 5, changes=True),
    Plan(stories.lonely_follower, 5, changes=True),
    Plan(stories.late_request, 5),
    Plan(stories.contested_elections, 5, changes=True),
)


def run_seed(seed: int, broken: Broken = AS_IN_THE_PRODUCT, *, trace: bool = False) -> Outcome:
    """Whatever the seed says. The same seed gives the same run, to the last message."""
    plan = PLANS[seed % len(PLANS)]
    learners = seed // len(PLANS) % 3
    world = World(seed, plan.voters, learners, broken, max_entries=plan.max_entries, trace=trace)
    storm = Storm(world, Operator(world))
    storm.membership = plan.changes
    violation = None
    try:
        _go(world, storm, plan)
    except Violation as found:
        violation = found
    return Outcome(
        seed,
        str(violation) if violation else None,
        violation.promise if violation else None,
        world.digest,
        world.now,
        len(world.operations),
        sum(1 for operation in world.operations if operation.ended is not None),
        world.trace,
    )


def _go(world: World, storm: Storm, plan: Plan) -> None:
    world.run(storm.election_ms * 2)
    storm.weather()
    end = world.now + _STORM_MS
    next_accident = world.now
    while world.now < end:
        if world.now >= next_accident:
            storm.accident()
            next_accident = world.now + world.random.randint(20, 250)
        world.ask_something()
        world.run(world.random.randint(1, 30))
    storm.settle()
    plan.story(storm)
    if world.checks.only_own_past:
        return  # nobody can come back from what was beyond the promise
    storm.settle()
    for _ in range(5):
        world.ask_something()
    storm.settle()
    world.checks.end(world.operations, world.checks.order())
