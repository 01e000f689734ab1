"""One run: a seed decides the mesh, its faults and its clients, and everything in between."""

from __future__ import annotations

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


def run_seed(seed: int, broken: Broken = AS_IN_THE_PRODUCT, *, trace: bool = False) -> Outcome:
    """Whatever the seed says. The same seed gives the same run, to the last message."""
    voters = (1, 3, 5, 3, 3)[seed % 5]
    world = World(seed, voters, learners=(0, 1, 2)[seed // 5 % 3], broken=broken, trace=trace)
    operator = Operator(world)
    storm = Storm(world, operator)
    storm.membership = seed % 2 == 1
    violation = None
    try:
        _go(world, storm, seed)
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


def _go(world: World, storm: Storm, seed: int) -> None:
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
    stories = [
        storm.story_of_a_lonely_follower,
        storm.story_of_a_deaf_leader,
        storm.story_of_a_dead_newcomer,
        storm.story_of_a_disk_put_back,
        storm.story_of_a_disk_put_back,
    ]
    stories[seed % len(stories)]()
    storm.settle()
    for _ in range(5):
        world.ask_something()
    storm.settle()
    if seed % 7 == 0:
        storm.story_of_lost_witnesses()
        return
    world.checks.end(world.operations, world.checks.order())
