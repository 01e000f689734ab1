"""What goes wrong, and when: weather, accidents, and a few whole stories. Each is a function over a ``Storm``."""

from __future__ import annotations

from collections.abc import Callable

from consensus.simulation.checks import Violation
from consensus.simulation.node import Node
from consensus.simulation.operator import Operator
from consensus.simulation.world import ELECTION_TICKS, World

_COPY_EVERY_MS = 60


class Storm:
    """The faults of one run."""

    def __init__(self, world: World, operator: Operator) -> None:
        self.world, self.operator = world, operator
        self.random = world.random
        self.membership = False
        self._calms = 0
        self._keep_copies()

    def weather(self) -> None:
        """How bad the network is from now on."""
        world, choice = self.world, self.random.choice
        world.loss = choice([0.0, 0.0, 0.02, 0.1, 0.25])
        world.double = choice([0.0, 0.05, 0.2])
        world.stray = choice([0.0, 0.03, 0.15])
        world.delay_ms = choice([2, 8, 20])

    def calm(self) -> None:
        """Everybody is up, the network is good, clocks and disks are even."""
        self._calms += 1
        self.operator.resting = False
        world = self.world
        world.loss = world.double = world.stray = 0.0
        world.delay_ms = 3
        world.heal()
        for node in world.nodes.values():
            node.tick_ms, node.disk_ms = world.tick_ms, 1
            node.start()

    def accident(self) -> None:
        """Any one thing."""
        kinds = [self._crash, self._crash, self._crash_leader, self._crash_all, self._split, self._split, self._one_way,
                 self._mute_leader, self._slow_disk, self._clock, self.weather, self._transfer, self._heal]  # fmt: skip
        if self.membership:
            kinds += [self._change] * 4
        self.random.choice(kinds)()

    # --- accidents -----------------------------------------------------------------------------------------------------

    def _later(self, delay_ms: int, what: Callable[[], None]) -> None:
        """The end of an accident, unless it is calm by then: that has ended it already."""
        calms = self._calms
        self.world.after(delay_ms, lambda: what() if calms == self._calms else None)

    def _any(self) -> Node:
        return self.random.choice(list(self.world.nodes.values()))

    def _crash(self, node: Node | None = None) -> None:
        node = node or self._any()
        self.world.note("crash", node.name)
        node.crash()
        self._later(self.random.randint(5, 400), node.start)

    def _crash_leader(self) -> None:
        self._crash(self.world.leader())

    def _crash_all(self) -> None:
        for node in list(self.world.nodes.values()):
            self._crash(node)

    def _split(self) -> None:
        names = list(self.world.nodes)
        side = self.random.sample(names, self.random.randint(1, max(1, len(names) // 2)))
        self.world.note("split", ",".join(side))
        self.world.split(side)
        self._later(self.random.randint(50, 700), lambda: self.world.heal(*side))

    def _one_way(self) -> None:
        names = list(self.world.nodes)
        sources = self.random.sample(names, self.random.randint(1, len(names)))
        target = self.random.choice(names)
        self.world.note("one-way", f"{','.join(sources)}>{target}")
        self.world.cut(sources, [target])
        self._later(self.random.randint(50, 500), lambda: self.world.heal(target))

    def _mute_leader(self) -> None:
        """Its words get nowhere for a while, but it hears; then it is believed again."""
        leader = self.world.leader()
        if leader is not None:
            name = leader.name
            self.world.cut([name], list(self.world.nodes))
            self._later(self.random.randint(30, 500), lambda: self.world.heal(name))

    def _slow_disk(self) -> None:
        self._any().disk_ms = self.random.choice([1, 10, 60])

    def _clock(self) -> None:
        self._any().tick_ms = self.random.choice([3, 10, 10, 25])

    def _heal(self) -> None:
        self.world.heal()

    def _transfer(self) -> None:
        leader = self.world.leader()
        if leader is None or leader.core is None:
            return
        target = self._any()
        self.world.note("transfer", target.name)
        leader.core.transfer(target.name)
        leader.stepped()

    def _change(self) -> None:
        leader = self.world.leader()
        if leader is None or leader.core is None:
            return
        members = leader.core.membership
        draw = self.random.random()
        if draw < 0.4 and len(self.world.nodes) < 9:
            self.operator.grow()
        elif draw < 0.8 and len(members.voters) > 2:
            self.operator.wishes[self.random.choice(members.voters)] = "gone"
        elif draw < 0.9 and len(members.voters) > 2:
            self.operator.wishes[self.random.choice(members.voters)] = "learner"
        elif members.learners:
            name = self.random.choice(members.learners)
            if self.operator.wishes.get(name) != "gone":
                self.operator.wishes[name] = "voter"

    def _keep_copies(self) -> None:
        for node in self.world.nodes.values():
            node.copies = [*node.copies[-8:], (self.world.now, node.disk.copy())]
        self.world.after(_COPY_EVERY_MS, self._keep_copies)

    # --- waiting ---------------------------------------------------------------------------------------------------------

    @property
    def election_ms(self) -> int:
        """In which a healthy mesh has surely elected somebody, if votes do not split for long."""
        return ELECTION_TICKS * 2 * self.world.tick_ms

    def settle(self, for_ms: int = 4000) -> Node:
        """In calm weather: wait for a leader in office that everybody agrees with."""
        self.calm()
        found: list[Node] = []

        def settled() -> bool:
            leader = self.world.leader()
            if leader is None or leader.core is None or not leader.core.in_office:
                return False
            core = leader.core
            if core.log.applied < core.log.last or core.change_pending or self.world.handing_over:
                return False
            for name in core.membership.nodes:
                node = self.world.nodes[name]
                if node.out:
                    continue
                if node.core is None or node.applied < core.log.last or node.core.term != core.term:
                    return False
                if not node.takes_part:  # it acknowledges nothing: the leader may not have a majority yet
                    return False
            found[:] = [leader]
            return True

        if not self.world.run(for_ms, until=settled):
            raise Violation("it comes back", f"nobody is in office {for_ms} ms after all faults ended")
        return found[0]
