"""Whole stories: each leads to the place where one rule decides. With all rules they end well.

They begin when the storm is over, and may do nothing if the mesh is not as they need it.
"""

from __future__ import annotations

from functools import partial

from consensus.simulation.checks import Violation
from consensus.simulation.faults import Storm
from consensus.simulation.node import Node

from caso_mesh.consensus.membership import Change, ChangeKind, MembershipChange
from caso_mesh.consensus.messages import TimeoutNow
from caso_mesh.model.errors import LogUnavailable, Misuse, NotLeader


def lonely_follower(storm: Storm) -> None:
    """Cut off for long, then back: with pre-vote it deposes nobody."""
    world, leader = storm.world, storm.settle()
    others = _other_voters(leader)
    if len(others) < 2:
        return
    storm.operator.resting = True
    term, lonely = _term(leader), storm.random.choice(others)
    world.split([lonely])
    world.run(storm.election_ms * 4)
    world.heal()
    world.run(storm.election_ms * 2)
    if not leader.leads or _term(leader) != term:
        raise Violation("nobody is deposed by a return", f"{lonely} came back and {leader.name} lost its office")


def deaf_leader(storm: Storm) -> None:
    """Nobody reaches it, but it reaches all: with check-quorum it notices, and another one can be elected."""
    world, leader = storm.world, storm.settle()
    if not _other_voters(leader):
        return
    storm.operator.resting = True
    world.cut(list(world.nodes), [leader.name])
    world.run(storm.election_ms * 2)
    if leader.leads:
        raise Violation("a leader without a majority steps down", f"{leader.name} leads and hears nobody")
    world.heal()


def dead_newcomer(storm: Storm) -> None:
    """A server is added that is not there: the mesh goes on."""
    world, leader = storm.world, storm.settle()
    name = storm.operator.grow(alive=False)
    world.run(storm.election_ms * 3)
    leader = world.leader() or leader
    before = leader.core.log.committed if leader.core else 0
    for _ in range(30):
        world.ask_something()
        world.run(storm.election_ms // 8)
    if all(node.core is None or node.core.log.committed <= before for node in world.nodes.values()):
        raise Violation("growth never stops the mesh", f"{name} was added, and nothing is committed any more")
    storm.operator.wishes[name] = "gone"


def disk_put_back(storm: Storm) -> None:
    """Commits stand on the leader and some followers; the disk of one of those is put back, then the leader dies.

    Within the promise: the leader, who witnessed what the disk lost, is there and reached when it starts.
    """
    world, leader = storm.world, storm.settle()
    others = _other_voters(leader)
    if len(others) < 2:
        return
    storm.random.shuffle(others)
    victim, behind = others[0], others[1 : 1 + len(others) // 2]
    world.note("put back", victim)
    world.cut([leader.name, victim], behind)
    began = world.now
    for _ in range(12):
        world.ask_something()
        world.run(15)
    node = world.nodes[victim]
    node.crash()
    if not node.put_back(began + storm.random.randint(-60, 60)):
        return
    world.checks.disks_in_doubt.add(victim)
    leader.tick_ms = 100  # a heartbeat would tell as well
    world.run(20)
    world.heal(victim)
    node.start()
    world.run(9)  # it asks, and is answered
    leader.crash()
    world.heal()
    for _ in range(20):
        world.ask_something()
        world.run(30)


def contested_elections(storm: Storm) -> None:
    """Two stand at once, their letters come twice, and a voter loses power just after it voted."""
    world = storm.world
    for _ in range(4):
        first = storm.settle()
        others = _other_voters(first)
        if len(others) != 4:
            return
        forgetful, rival, friend, own = (world.nodes[name] for name in storm.random.sample(others, 4))
        world.double = 0.6
        first.crash()
        first.start()
        world.run(60, until=partial(_takes_part, first))
        # The rival gets the friend, the first its own; the one in the middle hears the rival first.
        world.hold(first.name, forgetful.name)
        world.cut([rival.name], [first.name, own.name])
        world.cut([first.name], [rival.name, friend.name])
        first.tick_ms = 100
        term = forgetful.disk.hard.term
        _stand(first)
        _stand(rival)
        if world.run(40, until=partial(_has_risen, forgetful, term)):
            world.run(2)
            forgetful.crash()
            forgetful.start()
            world.run(40, until=partial(_takes_part, forgetful))
        world.stop_holding()
        world.release()
        for _ in range(6):
            world.run(10)
            world.ask_something()


def late_request(storm: Storm) -> None:
    """A voter that stood and gave up in the meantime reads the letter of a rival who still stands in that term."""
    world, first = storm.world, storm.settle()
    others = _other_voters(first)
    if len(others) != 4:
        return
    winner, rival, friend, voter = (world.nodes[name] for name in others)
    world.hold(rival.name, voter.name)
    world.cut([rival.name], [first.name, winner.name])
    world.cut([winner.name], [rival.name, friend.name])
    rival.tick_ms = 150
    world.run(20)
    _stand(rival)
    _stand(winner)
    if voter.core is None or not world.run(60, until=lambda: winner.leads):
        return
    world.cut([winner.name], [voter.name])
    world.cut([voter.name], [winner.name])
    world.run(30)
    voter.core.campaign()
    voter.stepped()
    world.heal_one(winner.name, voter.name)
    world.run(60, until=lambda: voter.core is None or voter.core.leader == winner.name)
    world.cut([winner.name], [voter.name])
    if voter.core is None:
        return
    voter.core.campaign()
    voter.stepped()
    world.stop_holding()
    world.release()
    world.run(30)


def late_replies(storm: Storm) -> None:
    """Replies of an earlier term of office arrive when the same node leads again, with another log."""
    world, first = storm.world, storm.settle()
    others = _other_voters(first)
    if len(others) < 4:
        return
    late, near = others[0], others[1]
    world.split([first.name, late])
    world.hold(late, first.name)
    for _ in range(8):
        _write(storm, first)
    world.run(60)
    world.stop_holding()
    world.split([first.name])
    world.split([late])
    world.run(storm.election_ms * 2, until=lambda: _leads_now(storm, others[1:]))
    storm.settle()
    if not _make_leader(storm, first):
        world.release()
        return
    world.cut([first.name], [name for name in others if name != near])
    world.cut([name for name in others if name != near], [first.name])
    for _ in range(3):
        _write(storm, first)
    world.run(30)
    world.release()
    world.run(60)


def figure_eight(storm: Storm) -> None:
    """An entry of an earlier term reaches a majority, and yet must not count as committed (figure 8 of the paper)."""
    world, first = storm.world, storm.settle()
    others = _other_voters(first)
    if len(others) != 4 or first.core is None or world.settings.max_message_entries != 1:
        return
    second, *rest = others
    world.split([first.name, second])
    _write(storm, first)
    index, term = first.core.log.last, first.core.term
    world.run(60, until=lambda: world.nodes[second].disk.holds(index, term))
    first.crash()
    world.split([second])
    if not world.run(storm.election_ms * 4, until=lambda: _leads_now(storm, rest)):
        return
    usurper = next(name for name in rest if world.nodes[name].leads)
    world.split([usurper])
    world.run(8)
    world.nodes[usurper].crash()
    helper, absent = (name for name in rest if name != usurper)
    world.heal()
    world.split([absent])
    first.start()
    holders = (first.name, second)
    if not world.run(storm.election_ms * 4, until=lambda: _leads_now(storm, holders)):
        return
    again = next(name for name in holders if world.nodes[name].leads)
    world.run(storm.election_ms, until=lambda: world.nodes[helper].disk.term(index) == term)
    world.cut([again], [helper])
    world.run(12)
    for name in holders:
        world.nodes[name].crash()
    world.heal()
    world.nodes[usurper].start()
    world.run(storm.election_ms * 5)


def undone_changes(storm: Storm) -> None:
    """A leader that is cut off proposes changes that never are committed."""
    world, first = storm.world, storm.settle()
    for _ in range(4):
        if not _make_leader(storm, first) or first.core is None:
            return
        victims = [name for name in first.core.membership.voters if name != first.name]
        if not victims:
            return
        world.split([first.name])
        _change(first, "remove", victims[-1])
        _write(storm, first)
        for _ in range(12):
            world.run(storm.election_ms // 4)
            world.ask_something()
        storm.settle()


def two_changes_at_once(storm: Storm) -> None:
    """The majorities before and after two changes need not meet."""
    world, leader = storm.world, storm.settle()
    if len(_other_voters(leader)) != 2:
        return
    new = [storm.operator.new_name(), storm.operator.new_name()]
    for name in new:
        world.add_node(name)
        storm.operator.wishes[name] = "learner"
    world.run(200)
    leader = storm.settle()
    if leader.core is None or not set(new) <= set(leader.core.membership.learners):
        return
    for name in new:
        storm.operator.wishes[name] = "voter"
    storm.operator.resting = True
    world.split([_other_voters(leader)[0]])
    for name in new:
        _change(leader, "add-voter", name)
    core = leader.core
    world.run(60, until=lambda: core.log.committed >= core.change_index)
    world.heal()
    world.split([leader.name, *new])
    for _ in range(12):
        _write(storm, leader)
        world.ask_something()
        world.run(storm.election_ms // 3)


def slow_clock(storm: Storm) -> None:
    """A leader whose clock nearly stands does not notice that another one leads, and is asked to read."""
    world, old = storm.world, storm.settle()
    others = _other_voters(old)
    if len(others) < 2:
        return
    old.tick_ms = 150
    world.run(20)
    world.split([old.name])
    if not world.run(storm.election_ms * 4, until=lambda: _leads_now(storm, others)):
        return
    for _ in range(6):
        _write(storm, next(world.nodes[name] for name in others if world.nodes[name].leads))
        world.run(20)
        _read(storm, old)
    world.run(30)


def early_reads(storm: Storm) -> None:
    """A new leader is asked to read before it knows what was committed."""
    world = storm.world
    storm.settle()
    for _ in range(6):
        leader = storm.settle()
        others = _other_voters(leader)
        if len(others) < 2 or leader.core is None:
            return
        for _ in range(4):
            _write(storm, leader)
            world.run(storm.random.randint(1, 3))
        world.run(6)
        leader.crash()
        world.run(storm.election_ms * 4, until=partial(_leads_now, storm, others))
        for name in others:
            _read(storm, world.nodes[name])
        world.run(40)


def lost_witnesses(storm: Storm) -> None:
    """Outside of every promise: disks are put back and nobody waits. Then whoever is contradicted must halt."""
    world = storm.world
    storm.settle()
    world.allow_contradiction()
    for _ in range(4):
        leader = world.leader()
        rest = [node for node in world.nodes.values() if node.up and node is not leader]
        if leader is None or len(rest) < 2:
            return
        began = world.now
        for _ in range(storm.random.randint(4, 12)):
            world.ask_something()
            world.run(15)
        for node in rest:
            node.crash()
            node.put_back(began + storm.random.randint(-60, 30))
        world.split([leader.name])
        for node in rest:
            node.start()
        for _ in range(20):
            world.ask_something()
            world.run(25)
        world.heal()
        world.run(300)


def _other_voters(leader: Node) -> list[str]:
    return [name for name in leader.core.membership.voters if name != leader.name] if leader.core else []


def _has_risen(node: Node, term: int) -> bool:
    return node.disk.hard.term > term


def _takes_part(node: Node) -> bool:
    return node.takes_part


def _stand(node: Node) -> None:
    """As if a leader had asked it to take over."""
    node.receive(TimeoutNow(node.name, node.name, _term(node)))


def _term(node: Node) -> int:
    return node.core.term if node.core else 0


def _leads_now(storm: Storm, names: list[str] | tuple[str, ...]) -> bool:
    return any(storm.world.nodes[name].leads for name in names)


def _make_leader(storm: Storm, node: Node) -> bool:
    """Have the leadership handed to ``node``."""
    for _ in range(5):
        leader = storm.settle()
        if leader is node:
            return True
        if leader.core is not None:
            leader.core.transfer(node.name)
            leader.stepped()
        storm.world.run(60, until=lambda: node.leads)
    return storm.settle() is node


def _write(storm: Storm, node: Node) -> None:
    storm.world.ask(node, "write")


def _read(storm: Storm, node: Node) -> None:
    storm.world.ask(node, "read")


def _change(node: Node, kind: ChangeKind, name: str) -> None:
    if node.core is None:
        return
    try:
        node.core.propose_change(MembershipChange((Change(kind, name),)))
    except (NotLeader, LogUnavailable, Misuse):
        return
    node.stepped()
