"""One simulated server: the core, its disk, its state machine and the loop between them, as in the product's driver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
from consensus.simulation.disk import KEPT, Disk
from consensus.simulation.history import Operation

from caso_mesh.consensus.merging import merged
from caso_mesh.consensus.messages import PROMISES_NOTHING, Image, Message
from caso_mesh.consensus.port import Entry, Position
from caso_mesh.consensus.raft import Raft, Ready
from caso_mesh.consensus.witness import Answer, Ask, Probation, Seen, Witness, WitnessMessage
from caso_mesh.model.errors import LogContradicted

if TYPE_CHECKING:
    from consensus.simulation.world import World

#: Ticks between two rounds of what a leader saw, or of questions of a starting member.
_WITNESS_TICKS = 3


class Node:
    """A member, or one that will be. ``core`` is ``None`` while it is down."""

    def __init__(self, world: World, name: str, image: Image | None) -> None:
        self.world, self.name = world, name
        self.disk = Disk(image)
        self.copies: list[tuple[int, Disk]] = []
        self.core: Raft | None = None
        self.tick_ms = world.tick_ms
        self.disk_ms = 1
        #: Its disk was found to be an old copy, or its log contradicts the others': it takes part no more.
        self.out = False
        self.applied = 0
        self.committed_seen = 0
        self._life = 0
        self._values: list[bytes] = []
        self._terms_led: set[int] = set()
        self._forget()

    def _forget(self) -> None:
        self._busy = False
        self._ticks = 0
        self._writes: dict[int, tuple[int, Operation]] = {}
        self._reads: dict[int, Operation] = {}
        self._read_points: list[tuple[int, Operation]] = []

    @property
    def up(self) -> bool:
        return self.core is not None

    @property
    def takes_part(self) -> bool:
        return self.core is not None and self._probation.state == "passed"

    @property
    def leads(self) -> bool:
        return self.core is not None and self.core.role == "leader"

    def led_before(self, term: int) -> bool:
        """Whether this life has been seen to lead in ``term``."""
        if term in self._terms_led:
            return True
        self._terms_led.add(term)
        return False

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.up or self.out:
            return
        self._life += 1
        self._forget()
        disk, world = self.disk, self.world
        image = disk.image
        self._values = _values_of(image)
        self.applied = image.index if image else 0
        self.committed_seen = 0
        self._terms_led = set()
        self._witness = Witness(self.name, disk.seen)
        self._probation = Probation(self.name, disk.known_membership())
        if not world.broken.policies.rolled_back_waits:
            self._probation.state = "passed"
        self.core = Raft(
            self.name,
            world.settings,
            log=disk.log(self.name),
            membership=disk.membership(),
            hard=disk.hard,
            random_below=world.random.randrange,
            image=lambda: disk.image if disk.image and disk.image.index else None,
            confirmed=disk.confirmed,
            rules=world.broken.rules,
        )
        self._ask()
        self._schedule_tick()
        self._pump()

    def crash(self) -> None:
        """The power fails; a transaction on its way to the disk is whole or absent."""
        self.core = None
        self._life += 1

    def put_back(self, before: int) -> bool:
        """The disk becomes what it was at some time before ``before``. ``False`` if no such copy was made."""
        older = [disk for at, disk in self.copies if at <= before]
        if not older or self.up:
            return False
        self.disk = older[-1].copy()
        return True

    # --- what comes in -------------------------------------------------------------------------------------------------

    def receive(self, message: Message | WitnessMessage) -> None:
        core = self.core
        if core is None:
            return
        if isinstance(message, Ask):
            self.world.send(self._witness.answer(message, core.log.applied, core.membership))
        elif isinstance(message, Answer):
            if self.world.broken.policies.rolled_back_waits:
                self._probation.handle(message, self.disk.confirmed)
                if self._probation.state == "behind":
                    self.world.note("behind", self.name)
                    self.out = True
                    self.crash()
        elif isinstance(message, Seen):
            self._witness.merge(message)
        elif self._probation.state == "asking":
            self._probation.spoken_by(message.sender)
        else:
            self._witness.heard(message)
            try:
                core.step(message)
            except LogContradicted:
                self._contradicted()
                return
            self._after_step()

    def write(self, operation: Operation) -> None:
        """Raises what ``propose`` raises."""
        assert self.core is not None
        position = self.core.propose(b"%d" % operation.number)
        self._writes[position.index] = (position.term, operation)
        self._after_step()

    def read(self, operation: Operation) -> None:
        assert self.core is not None
        self.core.read(operation.number)
        self._reads[operation.number] = operation
        self._after_step()

    def stepped(self) -> None:
        """Something was asked of the core."""
        if self.core is not None:
            self._after_step()

    # --- the loop ------------------------------------------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        life = self._life
        self.world.after(self.tick_ms, lambda: self._tick(life))

    def _tick(self, life: int) -> None:
        if life != self._life or self.core is None:
            return
        self._ticks += 1
        self._schedule_tick()
        asking = self._probation.state == "asking"
        if asking and self._ticks % _WITNESS_TICKS == 0:
            self._probation.wait()
        if asking or self._ticks % _WITNESS_TICKS == 0:
            self._ask()
        if self._ticks % _WITNESS_TICKS == 0:
            if self.leads and self.world.broken.policies.rolled_back_waits:
                self._witness.saw(self.name, self.disk.confirmed)
                for told in self._witness.tell(self.core.membership):
                    self.world.send(told)
        if self._probation.state == "passed":
            self.core.tick()
            self._after_step()

    def _ask(self) -> None:
        if self.world.broken.policies.rolled_back_waits:
            for ask in self._probation.asks():
                self.world.send(ask)

    def _after_step(self) -> None:
        self.world.checks.stepped(self, self.world.nodes)
        self._pump()

    def _pump(self) -> None:
        core = self.core
        if core is None or self._busy:
            return
        if not core.has_ready():
            unwritten = self._witness.take_unwritten()
            if unwritten:
                self._busy = True
                self._to_disk(None, unwritten)
            return
        ready = core.ready()
        self._busy = True
        early = PROMISES_NOTHING if self.world.broken.policies.persist_before_reply else (object,)
        self._say(message for message in ready.messages if isinstance(message, early))
        self._to_disk(ready, self._witness.take_unwritten())

    def _say(self, messages: Iterable[Message]) -> None:
        """Half of the meshes have full outboxes, where what can be said as one is."""
        waiting: dict[str, Message] = {}
        for message in messages:
            before = waiting.get(message.to) if self.world.merges else None
            both = merged(before, message) if before is not None else None
            if before is not None and both is None:
                self.world.send(before)
            if self.world.merges:
                waiting[message.to] = both or message
            else:
                self.world.send(message)
        for message in waiting.values():
            self.world.send(message)

    def _to_disk(self, ready: Ready | None, seen: dict[str, Position]) -> None:
        life = self._life
        needed = ready is None or ready.durable or bool(seen)
        delay = self.world.random.randint(1, 2 * self.disk_ms) if needed else 0
        torn = self.world.random.random() < 0.5
        self.world.after(delay, lambda: self._on_disk(life, ready, seen, torn))

    def _on_disk(self, life: int, ready: Ready | None, seen: dict[str, Position], whole: bool) -> None:
        if life != self._life and not (whole and life == self._life - 1 and self.core is None):
            return
        self.disk.write(ready, seen, vote_with_term=self.world.broken.policies.vote_with_term)
        if ready is not None:
            self.world.checks.written(self, ready.entries)
        if life != self._life or self.core is None:
            return  # it was written, and then the power failed before a word was said
        if ready is not None:
            self._carry_out(ready)
        self._busy = False
        self._after_step()

    def _carry_out(self, ready: Ready) -> None:
        core = self.core
        assert core is not None
        if self.world.broken.policies.persist_before_reply:
            self._say(message for message in ready.messages if not isinstance(message, PROMISES_NOTHING))
        if ready.standing is not None and ready.standing[1] != "leader":
            self._reads.clear()
        if ready.snapshot is not None:
            self._restore(ready.snapshot)
        for entry in ready.committed:
            self._apply(entry)
        try:
            core.advance()
        except LogContradicted:
            self._contradicted()
            return
        for read in ready.reads:
            operation = self._reads.pop(read.token, None)
            if operation is not None:
                self._read_points.append((read.index, operation))
        self._answer_reads()
        self._compact()

    def _restore(self, image: Image) -> None:
        self._values = _values_of(image)
        self.applied = image.index
        self._writes = {index: waiting for index, waiting in self._writes.items() if index > image.index}

    def _apply(self, entry: Entry) -> None:
        assert self.core is not None
        self.world.checks.applied(self, entry)
        self.applied = entry.index
        if entry.kind == "membership":
            self.core.apply_change(entry)
        elif entry.kind == "command":
            self._values.append(entry.data)
        term, operation = self._writes.pop(entry.index, (0, None))
        if operation is not None and term == entry.term:
            operation.ended = self.world.now

    def _answer_reads(self) -> None:
        late = []
        for index, operation in self._read_points:
            if index <= self.applied:
                operation.length, operation.ended = len(self._values), self.world.now
            else:
                late.append((index, operation))
        self._read_points = late

    def _compact(self) -> None:
        core = self.core
        assert core is not None
        if core.log.applied - max(core.log.start, self.disk.image.index if self.disk.image else 0) < self.world.compact:
            return
        if self.applied != core.log.applied or core.log.handed < self.applied:
            return
        term = core.log.term(self.applied)
        assert term is not None
        if self.disk.term(self.applied) != term:
            return
        self.disk.compact(Image(self.applied, term, core.membership, msgspec.msgpack.encode(self._values)))
        core.log.compact(max(core.log.start, self.applied - KEPT))

    def _contradicted(self) -> None:
        """The core halted. Only a disk outside of every promise leads here."""
        self.world.note("contradicted", self.name)
        self.out = True
        self.crash()
        self.world.contradicted(self.name)


def _values_of(image: Image | None) -> list[bytes]:
    return msgspec.msgpack.decode(image.data, type=list[bytes]) if image and image.data else []
