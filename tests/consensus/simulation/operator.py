"""Who changes the membership: asks whoever leads, again and again, until it is as wished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caso_mesh.consensus.membership import Change, MembershipChange
from caso_mesh.consensus.quorum import majority
from caso_mesh.model.errors import LogUnavailable, Misuse, NotLeader

if TYPE_CHECKING:
    from consensus.simulation.node import Node
    from consensus.simulation.world import World

_EVERY_MS = 40


class Operator:
    """Wishes are kept by node: ``voter``, ``learner`` or ``gone``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wishes: dict[str, str] = {}
        self._made = 0
        self.resting = False
        self._again()

    def new_name(self) -> str:
        self._made += 1
        return f"x{self._made:02d}"

    def grow(self, *, alive: bool = True) -> str:
        """A new server shall become a voter."""
        name = self.new_name()
        node = self._world.add_node(name)
        if not alive:
            node.crash()
        self.wishes[name] = "voter"
        return name

    def _again(self) -> None:
        self._world.after(_EVERY_MS, self._again)
        leader = self._world.leader()
        if leader is None or leader.core is None or self.resting:
            return
        for node in self._world.nodes.values():
            if node.out and node.name in leader.core.membership.nodes and self.wishes.get(node.name) != "gone":
                # A disk that was put back: the server comes back under a new id.
                self.wishes[node.name] = "gone"
                if self._was_voter(leader, node.name):
                    self.grow()
                break
        for name, wish in list(self.wishes.items()):
            if self._is_so(leader, name, wish):
                if wish == "gone":
                    self._world.checks.disks_in_doubt.discard(name)
                continue
            self._ask(leader, name, wish)

    def _was_voter(self, leader: Node, name: str) -> bool:
        return leader.core is not None and name in leader.core.membership.voters

    def _is_so(self, leader: Node, name: str, wish: str) -> bool:
        assert leader.core is not None
        members = leader.core.membership
        if wish == "gone":
            return name not in members
        return name in (members.voters if wish == "voter" else members.learners)

    def _ask(self, leader: Node, name: str, wish: str) -> None:
        core = leader.core
        assert core is not None
        if wish == "gone":
            kind = "remove"
        elif wish == "learner" or (name not in core.membership and self._world.broken.policies.learner_first):
            kind = "add-learner"
        elif self._world.broken.policies.learner_first and not self._is_complete(leader, name):
            return
        else:
            kind = "add-voter"
        if kind != "add-voter" and not self._can_spare(leader, name):
            return
        try:
            core.propose_change(MembershipChange((Change(kind, name),)))
        except (NotLeader, LogUnavailable, Misuse):
            return
        self._world.note("change", f"{kind} {name}")
        leader.stepped()

    def _can_spare(self, leader: Node, name: str) -> bool:
        """Whether those who would be left are mostly there; who asks for more than that loses the mesh."""
        assert leader.core is not None
        if name not in leader.core.membership.voters:
            return True
        rest = [self._world.nodes[voter] for voter in leader.core.membership.voters if voter != name]
        return sum(1 for node in rest if node.up) >= majority(len(rest)) and bool(rest)

    def _is_complete(self, leader: Node, name: str) -> bool:
        assert leader.core is not None
        progress = leader.core.progress.get(name)
        return progress is not None and progress.active and progress.match >= leader.core.log.committed - 3
