"""One node's share in the replicated log: the pure core, its disk, its clock, and what it says to the others.

The core decides, this module carries out: what must be durable is written first, in one transaction with all that came
in meanwhile, then it is said, then what is committed is handed on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import msgspec
from msgspec import structs

from caso_mesh.consensus import leading, store
from caso_mesh.consensus.log import Log
from caso_mesh.consensus.membership import Change, ChangeKind, Members, Membership, MembershipChange
from caso_mesh.consensus.messages import PROMISES_NOTHING, Heartbeat, Image, InstallSnapshot, Message
from caso_mesh.consensus.outbox import Outbox, Said, Transport
from caso_mesh.consensus.pending import Pending
from caso_mesh.consensus.port import MAX_COMMAND, Entry, Leadership, Position, Role, Snapshot
from caso_mesh.consensus.raft import Raft, Ready, Settings
from caso_mesh.consensus.shipping import Arriving, Piece, PieceReply, Shipment
from caso_mesh.consensus.witness import NOTHING, Answer, Ask, Probation, Seen, Witness, WitnessMessage
from caso_mesh.database import Database
from caso_mesh.model.errors import (
    CasoError,
    Conflict,
    LogContradicted,
    LogUnavailable,
    Misuse,
    NotLeader,
    StateDamaged,
    StateRolledBack,
)
from caso_mesh.model.presets import TIMINGS, Timing

log = logging.getLogger(__name__)


#: Entries and bytes that a reader gets at a time.
_BATCH, _BATCH_BYTES = 512, 4 << 20
#: While the disk refuses, it is tried again after this time.
_RETRY_S = 0.5
_CHANGES: dict[Role, ChangeKind] = {"voter": "add-voter", "learner": "add-learner", "none": "remove"}

_decoder = msgspec.msgpack.Decoder(Message | WitnessMessage | Piece | PieceReply)


class _DiskRefuses(Exception):
    def __init__(self, error: CasoError) -> None:
        self.error = error


class Driver:
    """``Replicated``; see there. ``open_replicated`` makes it."""

    def __init__(
        self,
        database: Database,
        held: store.Held,
        transport: Transport,
        jitter: random.Random,
        timing: Timing | None,
    ) -> None:
        self._database = database
        self._transport = transport
        self._jitter = jitter
        self._given_timing = timing
        self._begin(held)
        #: Until it is passed this node takes part in nothing: its disk may be an old copy.
        self._probation = Probation(self.node, Membership() if self._waits() else self._raft.membership)
        self._kick = asyncio.Event()
        self._news = asyncio.Event()
        self._leadership = self._look()
        self._pending = Pending()
        #: What is to be said of disks and of snapshots, beside what the core says.
        self._asides: list[WitnessMessage | PieceReply] = []
        #: Snapshots on their way to others, and the one that arrives here.
        self._shipments: dict[str, Shipment] = {}
        self._arriving = Arriving()
        self._due = False
        self._outboxes: dict[str, Outbox] = {}
        self._refused: CasoError | None = None
        self._fatal: CasoError | None = None
        self._closed = False
        self._running = False

    def _begin(self, held: store.Held) -> None:
        """What follows from what is on the disk: at the start, and when the disk has refused something."""
        self.preset = held.standing.preset
        self._timing = self._given_timing or TIMINGS.get(self.preset, TIMINGS["lan"])
        self._lineage = held.standing.lineage
        self.node = held.standing.node
        hard = held.standing.hard
        self._members = Members(held.base.index, held.base.members)
        self._joined = held.joined
        for entry in held.entries:
            if entry.kind == "membership" and entry.index <= hard.commit:
                self._members.note(entry)
        self._image: Image | None = None
        if held.snapshot is not None:
            self._keep_image(held.snapshot)
        self._raft = Raft(
            self.node,
            Settings(election_ticks=self._timing.election_ticks, heartbeat_ticks=self._timing.heartbeat_ticks),
            log=Log(self.node, held.base.index, held.base.term, held.entries, applied=hard.commit),
            membership=self._members.now,
            hard=hard,
            random_below=self._random_below,
            image=lambda: self._image,
            confirmed=held.seen.get(self.node, NOTHING),
        )
        self._witness = Witness(self.node, held.seen)
        #: The highest position that this node has confirmed, as its disk has it.
        self._confirmed = held.seen.get(self.node, NOTHING)
        #: What the core said last of term, vote and commit: of the last it is no loss if the disk hears of it later.
        self._hard = hard

    # --- the port ---

    async def propose(self, data: bytes) -> Position:
        if len(data) > MAX_COMMAND:
            raise Misuse(f"a command of {len(data)} bytes; {MAX_COMMAND} are allowed")
        self._must_take_part()
        return await self._applied(self._raft.propose(data))

    async def read_index(self) -> int:
        self._must_take_part()
        token = self._pending.new_read()
        try:
            self._raft.read(token)
            self._kick.set()
            return await self._pending.read(token)
        finally:
            self._pending.forget_read(token)

    async def committed(self, after: int) -> AsyncIterator[Entry | Snapshot]:
        while not self._closed:
            kept = self._raft.log
            if after > kept.last and self._raft.membership.voters == (self.node,):
                raise StateDamaged(
                    path=self._database.path, detail=f"it ends at {kept.last}, but the state made from it is at {after}"
                )
            image = self._image
            if after < kept.start and image is not None and image.index >= kept.start:
                yield Snapshot(image.index, image.term, image.data)
                after = image.index
            elif kept.start <= after < kept.applied:
                for entry in kept.slice(after + 1, kept.applied, _BATCH_BYTES, _BATCH):
                    yield entry
                    after = entry.index
            else:
                await self._news.wait()

    async def compact(self, snapshot: Snapshot) -> None:
        if self._closed:
            raise LogUnavailable(detail="it is being closed")
        if self._image is not None and snapshot.index <= self._image.index:
            return
        path = self._database.path
        base = await self._database.write(lambda conn: store.compact(conn, path, snapshot))
        if self._image is None or snapshot.index > self._image.index:
            self._keep_image(snapshot)
            self._raft.log.compact(max(self._raft.log.start, base.index))
        await self._database.give_back()

    async def set_member(self, node: str, role: Role) -> None:
        self._must_take_part()
        members = self._raft.membership
        now: Role = "voter" if node in members.voters else "learner" if node in members.learners else "none"
        if now == role:
            return
        change = MembershipChange((Change(_CHANGES[role], node),))
        if self._raft.role == "leader" and self._raft.change_pending:
            raise Conflict(detail="Another change of the voters is under way")
        await self._applied(self._raft.propose_change(change))

    async def transfer(self, node: str) -> None:
        self._must_take_part()
        if self._raft.role != "leader":
            raise NotLeader
        if node not in self._raft.membership.voters:
            raise Misuse(f"{node} is no voter")
        election_s = self._timing.election_ticks * self._timing.tick_s
        try:
            async with asyncio.timeout(4 * election_s):
                while self._leadership.leader == self.node:
                    if self._raft.role == "leader" and self._raft.transferee is None:
                        self._raft.transfer(node)  # again, when the core gave it up: a slow disk, a lost message
                        self._kick.set()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(election_s):
                            await self._news.wait()
        except TimeoutError:
            raise LogUnavailable(detail=f"{node} did not take over") from None

    def lacks(self, node: str) -> int | None:
        progress = self._raft.progress.get(node)
        if self._raft.role != "leader" or progress is None:
            return None
        return self._raft.log.last - progress.match

    def leadership(self) -> Leadership:
        return self._leadership

    async def leadership_changes(self) -> AsyncIterator[Leadership]:
        told: Leadership | None = None
        while not self._closed:
            if self._leadership != told:
                told = self._leadership
                yield told
            else:
                await self._news.wait()

    def receive(self, sender: str, lineage: int, data: bytes) -> None:
        if lineage != self._lineage or self._closed or self._fatal is not None:
            return
        try:
            message = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            log.warning("a message of %s to the replicated log is malformed: %s", sender, error)
            return
        if message.sender != sender or message.to != self.node:
            log.warning("%s passed on a message of %s to %s", sender, message.sender, message.to)
            return
        if isinstance(message, (Ask, Answer, Seen)):
            self._hear_of_disks(message)
        elif self._probation.state != "passed":
            self._probation.spoken_by(sender)
        elif isinstance(message, Piece):
            self._take_piece(message)
        elif isinstance(message, PieceReply):
            shipment = self._shipments.get(sender)
            if shipment is not None:
                shipment.answered(message)
        else:
            self._step(message)
        self._kick.set()

    def _step(self, message: Message) -> None:
        self._witness.heard(message)
        try:
            self._raft.step(message)
        except LogContradicted as error:
            self._fatal = error

    def _take_piece(self, piece: Piece) -> None:
        """A piece is a word of the leader of its term; the last one makes the snapshot."""
        self._step(Heartbeat(self.node, piece.sender, piece.term, commit=0))
        raft = self._raft
        if raft.term != piece.term or raft.leader != piece.sender:
            return
        held, image = self._arriving.take(piece, needed=piece.index > raft.log.committed)
        if image is not None:
            self._step(InstallSnapshot(self.node, piece.sender, piece.term, image))
        self._asides.append(PieceReply(piece.sender, self.node, raft.term, piece.round, piece.digest, held))

    def _hear_of_disks(self, message: WitnessMessage) -> None:
        if isinstance(message, Ask):
            self._asides.append(self._witness.answer(message, self._raft.log.applied, self._raft.membership))
        elif isinstance(message, Seen):
            self._witness.merge(message)
        else:
            self._probation.handle(message, self._confirmed)
            if self._probation.state == "behind":
                assert self._probation.witness is not None
                peer, seen = self._probation.witness
                detail = f"term {seen.term}, entry {seen.index}"
                self._fatal = StateRolledBack(path=self._database.path, peer=peer, detail=detail)

    @property
    def founders(self) -> tuple[str, ...]:
        return self._members.first.voters

    async def run(self) -> None:
        if self._running:
            raise Misuse("this log already runs")
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick())
                await self._work(group)
        finally:
            self._running = False
            self._pending.fail(LogUnavailable(detail="it is being closed"))

    def close(self) -> None:
        """Refuse what is new; iterators end. ``open_replicated`` calls it."""
        self._closed = True
        self._pending.fail(LogUnavailable(detail="it is being closed"))
        self._tell()

    # --- working ---

    def _alone(self) -> bool:
        return self._raft.membership.nodes == (self.node,)

    def _waits(self) -> bool:
        """It joined, and in what it was sent until now it was the only voter: that was long ago, and it stands for nothing."""
        return self._joined and self._alone()

    async def _note_others(self) -> None:
        try:
            await self._database.write(store.met_others)
            self._joined = False
        except CasoError as error:
            log.info("that others take part is not written yet: %s", error)

    async def _tick(self) -> None:
        ticks = 0
        while True:
            if self._joined and not self._alone():
                await self._note_others()
            alone = self._alone()
            if alone and self._raft.role == "leader":
                # nobody else could be elected, and nobody is to be told anything
                await self._news.wait()
                continue
            if self._probation.state == "passed" and not self._waits():
                if not alone:
                    self._raft.tick()
                elif self._raft.role == "follower":  # a slow disk is not stood for twice
                    self._raft.campaign()
            asking, timeout = self._probation.state == "asking", ticks % self._timing.election_ticks == 0
            if timeout and ticks:
                self._probation.wait()
            if asking or timeout:
                # often while asking: links come up one by one, and who cannot vote yet makes an election longer
                self._asides += self._probation.asks()
                self._due = True
            if timeout and self._raft.role == "leader":
                self._asides += self._witness.tell(self._raft.membership)
            ticks += 1
            self._kick.set()
            await asyncio.sleep(self._timing.tick_s)

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            while self._fatal is None and self._raft.has_ready():
                try:
                    await self._carry_out(group)
                except _DiskRefuses as refusal:
                    await self._start_anew(refusal.error)
            if self._fatal is not None:
                raise self._fatal
            if self._due:
                self._due = False
                await self._save_seen()
            said, self._asides = self._asides, []
            for message in said:
                self._send(group, message)
            await self._kick.wait()
            self._kick.clear()

    async def _carry_out(self, group: asyncio.TaskGroup) -> None:
        ready = self._raft.ready()
        # what promises nothing need not wait for the disk
        for message in ready.messages:
            if isinstance(message, PROMISES_NOTHING):
                self._send(group, message)
        await self._save(ready)
        for message in ready.messages:
            if not isinstance(message, PROMISES_NOTHING):
                self._send(group, message)
        if ready.snapshot is not None:
            image = ready.snapshot
            self._members = Members(image.index, image.membership)
            self._image = image
        for entry in ready.committed:
            if entry.kind == "membership":
                before = self._raft.membership
                self._raft.apply_change(entry)
                self._members.note(entry)
                gone = self._witness.forget(before, self._raft.membership)
                await self._database.write(lambda conn, gone=gone: store.forget(conn, gone))  # type: ignore[misc]
        try:
            self._raft.advance()
        except LogContradicted as error:
            self._fatal = error
        for read in ready.reads:
            self._pending.answered(read)
        for entry in ready.committed:
            self._pending.entry(entry)
        if self._raft.role != "leader" or self._raft.term != self._leadership.term:
            # also when it leads again by now: what the core had of an earlier term of office is gone
            self._pending.fail(
                LogUnavailable(detail="another server leads now; what was proposed may still be committed")
            )
        self._leadership = self._look()
        if ready.committed or ready.snapshot or ready.standing or self._fatal:
            self._tell()

    async def _save(self, ready: Ready) -> None:
        """Everything that must be durable, in one transaction. Raises ``_DiskRefuses``."""
        self._hard = ready.hard or self._hard
        if not ready.durable:
            return
        hard = self._hard
        seen = self._witness.take_unwritten()
        if ready.confirms is not None:
            seen[self.node] = ready.confirms
        save = partial(
            store.save, path=self._database.path, hard=hard, entries=ready.entries, image=ready.snapshot, seen=seen
        )
        try:
            await self._database.write(save)
        except CasoError as error:
            raise _DiskRefuses(error) from error
        self._refused = None
        if ready.confirms is not None:
            self._confirmed = ready.confirms
            self._witness.saw(self.node, ready.confirms)

    async def _save_seen(self) -> None:
        """What others confirmed while there was nothing else to write."""
        seen = self._witness.take_unwritten()
        if seen:
            path = self._database.path
            try:
                await self._database.write(lambda conn: store.save(conn, path, None, (), None, seen))
            except CasoError as error:
                log.info("what other voters confirmed is not written yet: %s", error)

    async def _start_anew(self, error: CasoError) -> None:
        """The disk has refused what was to be durable. To go on with it in memory would be to promise what may be lost:
        this node is now what its disk says, as after a crash. While it refuses, another one is elected."""
        if self._refused is None:
            log.error("the replicated log cannot be written: %s", error)
        self._refused = error
        self._pending.fail(error)
        self._leadership = structs.replace(self._leadership, leader=None, in_office=False)
        self._tell()
        self._begin(await self._read_again())
        self._leadership = self._look()
        self._tell()

    async def _read_again(self) -> store.Held:
        while True:
            await asyncio.sleep(_RETRY_S)
            try:
                return await self._database.read(lambda conn: store.load(conn, self._database.path))
            except StateDamaged:
                raise
            except CasoError as error:
                log.info("the replicated log cannot be read: %s", error)

    def _send(self, group: asyncio.TaskGroup, message: Said) -> None:
        if isinstance(message, InstallSnapshot):
            group.create_task(self._ship(message))
            return
        outbox = self._outboxes.get(message.to)
        if outbox is None:
            outbox = self._outboxes[message.to] = Outbox(message.to)
            group.create_task(outbox.run(self._transport, self._lineage, self._undelivered))
        dropped = outbox.put(message)
        if dropped is not None:
            self._undelivered(dropped)

    def _undelivered(self, message: Said) -> None:
        if not isinstance(message, (Ask, Answer, Seen, PieceReply)):
            self._raft.unreachable(message.to)
        self._kick.set()

    async def _ship(self, install: InstallSnapshot) -> None:
        """Sends a snapshot, as long as the core waits for just this one."""
        to = install.to

        async def send(piece: Piece) -> bool:
            return await self._transport(to, self._lineage, msgspec.msgpack.encode(piece))

        def awaited() -> bool:
            return self._shipments.get(to) is shipment and leading.awaits(self._raft, install)

        shipment = self._shipments[to] = Shipment(install, self._timing, send)
        arrived = await shipment.run(awaited)
        if awaited():
            self._raft.snapshot_done(to, arrived=arrived)
            self._kick.set()
        if self._shipments.get(to) is shipment:
            del self._shipments[to]

    # --- who waits ---

    async def _applied(self, position: Position) -> Position:
        self._kick.set()
        return await self._pending.applied(position)

    def _must_take_part(self) -> None:
        if self._closed or self._fatal is not None:
            raise LogUnavailable(detail="it is being closed" if self._closed else str(self._fatal))
        if self._refused is not None:
            raise self._refused

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    # --- what is so ---

    def _look(self) -> Leadership:
        raft = self._raft
        return Leadership(
            self._lineage,
            raft.term,
            raft.leader,
            raft.in_office,
            raft.membership.voters,
            raft.membership.learners,
        )

    def _keep_image(self, snapshot: Snapshot) -> None:
        self._image = Image(snapshot.index, snapshot.term, self._members.at(snapshot.index), snapshot.data)

    def _random_below(self, limit: int) -> int:
        return self._jitter.randrange(limit)
