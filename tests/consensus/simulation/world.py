"""Virtual time, a network that loses, doubles, delays and reorders, and the nodes. Everything follows from the seed."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
from consensus.simulation.checks import Checks, Violation
from consensus.simulation.history import Operation
from consensus.simulation.node import Node
from consensus.simulation.policies import Broken

from caso_mesh.consensus.membership import Membership
from caso_mesh.consensus.messages import Image, InstallSnapshot, Message, TimeoutNow
from caso_mesh.consensus.raft import Settings
from caso_mesh.consensus.witness import WitnessMessage
from caso_mesh.model.errors import LogUnavailable, NotLeader

#: The entry before the first: who takes part at first is part of its state, so that newcomers get it by a snapshot.
_FOUNDED = (1, 1)
ELECTION_TICKS = 8


class World:
    """Times are in milliseconds."""

    tick_ms = 10

    def __init__(
        self,
        seed: int,
        voters: int,
        learners: int,
        broken: Broken,
        *,
        max_entries: int | None = None,
        trace: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.broken = broken
        self.now = 0
        self.settings = Settings(
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=2,
            pre_vote=broken.policies.pre_vote,
            check_quorum=broken.policies.check_quorum,
            max_message_entries=max_entries or self.random.choice([1, 3, 50]),
            max_inflight_messages=self.random.choice([2, 8]),
            max_uncommitted_bytes=4000,
        )
        self.compact = self.random.choice([10, 25, 1000])
        self.merges = self.random.random() < 0.5
        self.checks = Checks()
        self.operations: list[Operation] = []
        self.loss = self.double = self.stray = 0.0
        self.delay_ms = 3
        self._cut: set[tuple[str, str]] = set()
        self._holding: tuple[str, str] | None = None
        self._held: list[Message | WitnessMessage] = []
        #: Orders to stand for election that are on their way, which may take long: an office is handed over when one arrives.
        self.handing_over = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._digest = hashlib.blake2b(digest_size=8)
        self._lines: list[str] | None = [] if trace else None
        self._allow_contradiction = False
        self.contradictions = 0
        names = [f"n{number}" for number in range(1, voters + learners + 1)]
        founders = Image(*_FOUNDED, Membership(tuple(names[:voters]), tuple(names[voters:])), b"")
        self.nodes = {name: Node(self, name, founders) for name in names}
        for node in self.nodes.values():
            node.start()

    # --- time ----------------------------------------------------------------------------------------------------------

    def after(self, delay_ms: int, what: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._serial, what))

    def run(self, for_ms: int, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass. ``True`` as soon as ``until`` holds."""
        end = self.now + for_ms
        while self._queue and self._queue[0][0] <= end:
            self.now, _, what = heapq.heappop(self._queue)
            what()
            if until is not None and until():
                return True
        self.now = end
        return False

    # --- the network ---------------------------------------------------------------------------------------------------

    def send(self, message: Message | WitnessMessage) -> None:
        self.note("send", repr(message) if self._lines is not None else f"{type(message).__name__}{message.to}")
        draw = self.random.random
        if (message.sender, message.to) == self._holding:
            self._held.append(message)
            return
        if (message.sender, message.to) in self._cut or draw() < self.loss:
            if isinstance(message, InstallSnapshot):
                self._report(message, arrived=False)
            return
        for _ in range(2 if draw() < self.double else 1):
            delay = self.random.randint(1, self.delay_ms)
            if draw() < self.stray:
                delay += self.random.randint(1, 60) ** 2 // 2
            self.handing_over += isinstance(message, TimeoutNow)
            self.after(delay, lambda: self._arrive(message))

    def _arrive(self, message: Message | WitnessMessage) -> None:
        node = self.nodes.get(message.to)
        arrived = node is not None and (message.sender, message.to) not in self._cut
        self.handing_over -= isinstance(message, TimeoutNow)
        if isinstance(message, InstallSnapshot):
            self._report(message, arrived=arrived and node is not None and node.up)
        if arrived and node is not None:
            self.note("receive", message.to)
            node.receive(message)

    def _report(self, message: InstallSnapshot, *, arrived: bool) -> None:
        """A transport knows what became of a transfer, after a while."""

        def report() -> None:
            core = self.nodes[message.sender].core
            if core is not None:
                core.snapshot_done(message.to, arrived=arrived)

        self.after(self.random.randint(5, 60), report)

    def cut(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Nothing gets from any of ``sources`` to any of ``targets``."""
        targets = tuple(targets)
        self._cut.update((source, target) for source in sources for target in targets if source != target)

    def split(self, side: Iterable[str]) -> None:
        side = set(side)
        rest = [name for name in self.nodes if name not in side]
        self.cut(sorted(side), rest)
        self.cut(rest, sorted(side))

    def heal(self, *names: str) -> None:
        """All links of ``names``, or all there are."""
        self._cut = {link for link in self._cut if names and not set(link).intersection(names)}

    def heal_one(self, source: str, target: str) -> None:
        self._cut.discard((source, target))

    def hold(self, source: str, target: str) -> None:
        """From now on, keep what ``source`` sends to ``target``."""
        self._holding = (source, target)

    def stop_holding(self) -> None:
        self._holding = None

    def release(self) -> None:
        """What was held arrives, wherever the links are cut by now."""
        held, self._held = self._held, []
        for message in held:
            self.after(self.random.randint(1, 10), partial(self.nodes[message.to].receive, message))

    # --- nodes -----------------------------------------------------------------------------------------------------------

    def add_node(self, name: str) -> Node:
        self.nodes[name] = Node(self, name, None)
        self.nodes[name].start()
        return self.nodes[name]

    def leader(self) -> Node | None:
        """The one of the highest term that leads."""
        leading = [node for node in self.nodes.values() if node.leads]
        return max(leading, key=lambda node: node.core.term if node.core else 0, default=None)

    def contradicted(self, name: str) -> None:
        self.contradictions += 1
        # A disk that was put back may show by a heartbeat, too: it says that more is committed than is there.
        if not self._allow_contradiction and name not in self.checks.disks_in_doubt:
            raise Violation("nobody is contradicted", f"{name} halted, though every disk kept its promise")

    def allow_contradiction(self) -> None:
        """From now on nobody waits, and only that no node changes its own past is promised."""
        policies = msgspec.structs.replace(self.broken.policies, rolled_back_waits=False)
        self.broken = msgspec.structs.replace(self.broken, policies=policies)
        self._allow_contradiction = True
        self.checks.only_own_past = True

    # --- clients ---------------------------------------------------------------------------------------------------------

    def ask_something(self) -> None:
        """A client writes or reads, mostly at whoever claims to lead."""
        alive = [node for node in self.nodes.values() if node.takes_part]
        claiming = [node for node in alive if node.leads]
        if not alive:
            return
        node = self.random.choice(claiming if claiming and self.random.random() < 0.9 else alive)
        self.ask(node, "write" if self.random.random() < 0.6 else "read")

    def ask(self, node: Node, kind: str) -> None:
        """A client asks ``node``, which may refuse."""
        if not node.takes_part:
            return
        operation = Operation(len(self.operations) + 1, kind, self.now)
        self.operations.append(operation)
        self.note(kind, node.name)
        try:
            if kind == "write":
                node.write(operation)
            else:
                node.read(operation)
        except (NotLeader, LogUnavailable):
            self.operations.pop()

    # --- the record of what happened -------------------------------------------------------------------------------------

    def note(self, what: str, detail: str) -> None:
        """Part of the trace; two runs of a seed have the same."""
        line = f"{self.now} {what} {detail}"
        self._digest.update(line.encode())
        if self._lines is not None:
            self._lines.append(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    @property
    def trace(self) -> list[str]:
        return self._lines or []
