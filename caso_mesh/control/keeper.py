"""The keeper applies what the replicated log commits, and proposes commands to it.

It does no I/O of its own: the log is behind the port of ``consensus/``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from caso_mesh.consensus.port import Consensus, Entry, Leadership, Position, Snapshot
from caso_mesh.control.noting import changes_of
from caso_mesh.control.reducer import apply, validate
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.audit import Change
from caso_mesh.model.commands import Command, Envelope, decode, encode
from caso_mesh.model.errors import CasoError, FeatureLevelTooLow, LogUnavailable, Misuse, NotLeader, from_wire
from caso_mesh.model.features import FEATURE_LEVEL, SetFeatureLevel
from caso_mesh.model.orders import Authority

log = logging.getLogger(__name__)

#: After so many entries the log is handed a snapshot, and may forget them.
SNAPSHOT_EVERY = 2000
#: So many entries are applied before others get a turn.
_BREATH = 100


class ControlKeeper:
    """Control state as of the log. The owner runs ``run()`` in its task group and ends it by cancelling. ``own``: the log of
    one server's own work, which has no level: whoever writes it is whoever reads it."""

    def __init__(self, consensus: Consensus, *, snapshot_every: int = SNAPSHOT_EVERY, own: bool = False) -> None:
        self._own = own
        self._consensus = consensus
        self._snapshot_every = snapshot_every
        self._state = ControlState()
        self._position = Position(0, 0)
        self._compacted = 0
        self._changed = asyncio.Event()
        self._ended: CasoError | None = None
        self._running = False
        # Requests whose changes somebody wants to know.
        self._watched: dict[str, list[Change]] = {}
        # The office (lineage, term) in which this state was known to hold all that was committed before.
        self._caught_up: tuple[int, int] | None = None

    @property
    def state(self) -> ControlState:
        """To be read only."""
        return self._state

    @property
    def position(self) -> Position:
        """What is applied."""
        return self._position

    @property
    def leadership(self) -> Leadership:
        return self._consensus.leadership()

    @property
    def authority(self) -> Authority:
        """What orders stand on that are cut out of the present state. It rises with the term's no-op too, so that a new
        administrator's first orders are above all of the last one's."""
        return Authority(self.leadership.lineage, self._position.term, self._position.index)

    async def run(self) -> None:
        """Applies what is committed, until the log is closed.

        Raises ``PeerMalformed`` for a command that this version does not know: applying stops there, because a state
        without it would be another than that of the others; ``FeatureLevelTooLow`` once the mesh is at a level beyond it,
        as after a way back to an earlier program; and what the log itself raises (``StateDamaged``).
        """
        if self._running:
            raise Misuse("this keeper already runs")
        self._running = True
        try:
            applied = 0
            async for found in self._consensus.committed(self._position.index):
                if isinstance(found, Snapshot):
                    self._restore(found)
                else:
                    self._apply(found)
                    if self._position.index - self._compacted >= self._snapshot_every:
                        await self._compact()
                applied += 1
                if applied % _BREATH == 0:
                    await asyncio.sleep(0)
        except CasoError as error:
            log.critical("the control state stops at %s: %s", self._position.index, error)
            self._end(error)
            raise
        finally:
            self._running = False
            self._end(LogUnavailable(detail="it is closed"))

    async def submit(self, command: Command, *, who: str, request_id: str, at_ns: int) -> Any:
        """Proposes a command and returns its result once it is applied here.

        A request id that was seen gets what it came to the first time. Raises the command's own error, ``NotLeader``
        away from the office, and ``LogUnavailable``; then, and after a cancellation, it may be repeated with the same
        request id.
        """
        seen = self._state.requests.get(request_id)
        if seen is not None:
            return seen.outcome.value()
        await self._catch_up()
        seen = self._state.requests.get(request_id)
        if seen is not None:
            return seen.outcome.value()
        validate(self._state, command, who=who, at_ns=at_ns)
        position = await self._consensus.propose(encode(Envelope(request_id, who, at_ns, command)))
        await self.wait_applied(position.index)
        seen = self._state.requests.get(request_id)
        if seen is None:
            raise LogUnavailable(detail="what it came to is not known any more; see whether it was done")
        return seen.outcome.value()

    @contextmanager
    def noting(self, request_id: str) -> Iterator[list[Change]]:
        """While the block lasts, what the commands of a request (its id, or that with ``/`` and more behind it) change comes
        into the list."""
        changes = self._watched.setdefault(request_id, [])
        try:
            yield changes
        finally:
            self._watched.pop(request_id, None)

    @property
    def ended(self) -> bool:
        """Whether nothing is applied any more, since the log or the keeper has ended."""
        return self._ended is not None

    async def barrier(self) -> None:
        """Returns when everything that was committed before the call is applied here. ``NotLeader``,
        ``LogUnavailable``."""
        await self.wait_applied(await self._consensus.read_index())

    async def wait_applied(self, index: int) -> None:
        """Returns when ``index`` is applied. Raises what ended the keeper, if it has ended before."""
        while self._position.index < index:
            await self._wait()

    async def wait_change(self, after: int) -> int:
        """The applied index once it is beyond ``after``. Raises what ended the keeper."""
        await self.wait_applied(after + 1)
        return self._position.index

    async def changes(self) -> AsyncIterator[int]:
        """The applied index now, then whenever it has risen (several steps may be seen as one); ends with the keeper."""
        seen = self._position.index
        yield seen
        while True:
            while self._position.index <= seen:
                if self._ended is not None:
                    return
                await self._changed.wait()
            seen = self._position.index
            yield seen

    async def _catch_up(self) -> None:
        """Commands are judged by a state that holds all of the past: in a new office that is not so at once."""
        leadership = self.leadership
        if not leadership.in_office:
            raise NotLeader
        office = (leadership.lineage, leadership.term)
        if self._caught_up != office:
            await self.barrier()
            self._caught_up = office

    async def _wait(self) -> None:
        if self._ended is not None:
            raise from_wire(self._ended.to_wire())
        await self._changed.wait()

    def _apply(self, entry: Entry) -> None:
        if entry.index != self._position.index + 1:
            raise Misuse(f"the log gave entry {entry.index} after {self._position.index}")
        if entry.kind == "command":
            envelope = decode(entry.data)
            if isinstance(envelope.command, SetFeatureLevel):
                _check_level(envelope.command.level)
            apply(
                self._state,
                envelope,
                lineage=self.leadership.lineage,
                term=entry.term,
                index=entry.index,
                note=self._note(envelope.request_id),
            )
        self._moved(Position(entry.term, entry.index))

    def _note(self, request_id: str) -> Callable[[Sequence[Put]], None] | None:
        for watched, changes in self._watched.items():
            if request_id == watched or request_id.startswith(f"{watched}/"):
                return lambda puts: changes.extend(changes_of(self._state, puts))
        return None

    def _restore(self, snapshot: Snapshot) -> None:
        if snapshot.index < self._position.index:
            raise Misuse(f"the log gave a snapshot of {snapshot.index} after {self._position.index}")
        self._state.restore(snapshot.data)
        if self._state.mesh is not None and not self._own:
            _check_level(self._state.mesh.feature_level)
        self._compacted = snapshot.index
        self._moved(Position(snapshot.term, snapshot.index))

    async def _compact(self) -> None:
        position = self._position
        self._compacted = position.index
        await self._consensus.compact(Snapshot(position.index, position.term, self._state.snapshot()))

    def _moved(self, position: Position) -> None:
        self._position = position
        self._wake()

    def _end(self, error: CasoError) -> None:
        if self._ended is None:
            self._ended = error
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _check_level(level: int) -> None:
    if level > FEATURE_LEVEL:
        raise FeatureLevelTooLow(what="the program of this server", needed=level, level=FEATURE_LEVEL)
