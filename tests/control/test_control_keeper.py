"""The keeper against a log in memory: waiting for what was proposed, snapshots, restarts, the end of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from control_world import FOUND, NOW, operator, server

from caso_mesh.consensus.port import Entry, Leadership, Position, Snapshot
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.reducer import check_state
from caso_mesh.model.commands import AdmitServer, CreatePool, Envelope, SetPool, SetServerState, encode
from caso_mesh.model.errors import (
    AlreadyExists,
    FeatureLevelTooLow,
    LogUnavailable,
    NotFound,
    NotLeader,
    PeerMalformed,
)
from caso_mesh.model.features import FEATURE_LEVEL, SetFeatureLevel
from caso_mesh.model.mesh import Pool
from caso_mesh.model.states import Role, ServerState


class MemoryLog:
    """A log of one voter in memory, that can hold back what is committed, and forgets what a snapshot covers."""

    def __init__(self) -> None:
        self.entries: list[Entry] = [Entry(1, 1, "noop", b"")]
        self.snapshot: Snapshot | None = None
        self.office = Leadership(1, 1, "node-alpha", in_office=True, voters=("node-alpha",))
        self.visible: int | None = None
        self._changed = asyncio.Event()
        self._closed = False

    async def propose(self, data: bytes) -> Position:
        if not self.office.in_office:
            raise NotLeader
        entry = Entry(self.last + 1, self.office.term, "command", data)
        self.entries.append(entry)
        self._wake()
        await asyncio.sleep(0)
        return Position(entry.term, entry.index)

    async def read_index(self) -> int:
        return self.last

    async def committed(self, after: int) -> AsyncIterator[Entry | Snapshot]:
        while not self._closed:
            changed = self._changed
            if self.snapshot is not None and after < self.snapshot.index:
                after = self.snapshot.index
                yield self.snapshot
                continue
            shown = self.last if self.visible is None else self.visible
            found = next((entry for entry in self.entries if after < entry.index <= shown), None)
            if found is None:
                await changed.wait()
                continue
            after = found.index
            yield found

    async def compact(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index]

    def leadership(self) -> Leadership:
        return self.office

    async def leadership_changes(self) -> AsyncIterator[Leadership]:
        yield self.office

    @property
    def last(self) -> int:
        return self.entries[-1].index if self.entries else self.snapshot.index if self.snapshot else 0

    def show(self, until: int | None) -> None:
        self.visible = until
        self._wake()

    def new_term(self) -> None:
        term = self.office.term + 1
        self.office = Leadership(1, term, "node-alpha", in_office=True, voters=("node-alpha",))
        self.entries.append(Entry(self.last + 1, term, "noop", b""))
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    async def moved(self) -> None:
        await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@asynccontextmanager
async def kept(log: MemoryLog, **options: int) -> AsyncIterator[ControlKeeper]:
    keeper = ControlKeeper(log, **options)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, PeerMalformed):
            await task


async def submit(keeper: ControlKeeper, command, id: str):
    async with asyncio.timeout(30):
        return await keeper.submit(command, who="ann", request_id=id, at_ns=NOW)


async def test_a_submitted_command_is_applied_when_it_returns():
    async with kept(MemoryLog()) as keeper:
        assert await submit(keeper, FOUND, "r1") == {"mesh": "mesh-1"}
        assert keeper.state.server_named("alpha").voter
        assert keeper.position == Position(1, 2)
        assert (keeper.authority.lineage, keeper.authority.term, keeper.authority.index) == (1, 1, 2)


async def test_a_command_that_cannot_hold_is_refused_before_it_is_proposed():
    log = MemoryLog()
    async with kept(log) as keeper:
        await submit(keeper, FOUND, "r1")
        before = log.last
        with pytest.raises(NotFound):
            await submit(keeper, SetServerState("node-nobody", ServerState.PAUSED), "r2")
        assert log.last == before


async def test_the_same_request_id_again_gives_the_same_result_and_proposes_nothing():
    log = MemoryLog()
    async with kept(log) as keeper:
        await submit(keeper, FOUND, "r1")
        first = await submit(keeper, CreatePool(Pool("branch", ())), "r2")
        last = log.last
        assert await submit(keeper, CreatePool(Pool("branch", ())), "r2") == first
        assert log.last == last
        with pytest.raises(AlreadyExists):
            await submit(keeper, CreatePool(Pool("branch", ())), "r3")


async def test_two_requests_in_flight_with_one_name_make_one_pool_and_one_error():
    async with kept(MemoryLog()) as keeper:
        await submit(keeper, FOUND, "r1")
        results = await asyncio.gather(
            *(submit(keeper, CreatePool(Pool("branch", ())), id) for id in ("a", "b", "a")), return_exceptions=True
        )
        assert results[0] == results[2] == {"pool": "branch"}
        assert isinstance(results[1], AlreadyExists)
        check_state(keeper.state)


async def test_away_from_the_office_nothing_is_proposed():
    log = MemoryLog()
    log.office = Leadership(1, 1, "node-beta", in_office=False, voters=("node-alpha",))
    async with kept(log) as keeper:
        with pytest.raises(NotLeader):
            await submit(keeper, FOUND, "r1")
        assert log.last == 1


async def test_in_a_new_office_a_command_is_judged_only_by_a_state_that_holds_the_past():
    """A pool was created in the last term; the new administrator has not applied it yet when it is asked again."""
    log = MemoryLog()
    async with kept(log) as keeper:
        await submit(keeper, FOUND, "r1")
        held_back = log.last
        log.show(held_back)
        pending = asyncio.create_task(submit(keeper, CreatePool(Pool("branch", ())), "r2"))
        await log.moved()
        assert log.last == held_back + 1
        log.new_term()
        again = asyncio.create_task(submit(keeper, SetPool(Pool("branch", ("node-alpha",))), "r3"))
        clash = asyncio.create_task(submit(keeper, CreatePool(Pool("branch", ())), "r4"))
        await asyncio.sleep(0)  # both have been asked, and the past is still held back
        log.show(None)
        assert await pending == {"pool": "branch"}
        assert await again == {"pool": "branch"}
        with pytest.raises(AlreadyExists):
            await clash


async def test_a_restart_begins_with_the_snapshot_and_ends_in_the_same_state():
    log = MemoryLog()
    async with kept(log, snapshot_every=5) as keeper:
        await submit(keeper, FOUND, "r1")
        for name in ("beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"):
            await submit(keeper, AdmitServer(server(name), operator(f"op-{name}", Role.VIEWER), None), f"admit-{name}")
        before = keeper.state.snapshot()
        position = keeper.position
    assert log.snapshot is not None
    assert log.entries[0].index > 1, "the log was never compacted, so this test would show nothing"
    async with kept(log, snapshot_every=5) as keeper:
        await keeper.barrier()
        assert keeper.position == position
        assert keeper.state.snapshot() == before
        assert await submit(keeper, AdmitServer(server("beta"), None, None), "admit-beta") == {"server": "node-beta"}


async def test_a_slow_reader_is_carried_over_a_gap_by_a_snapshot():
    log = MemoryLog()
    async with kept(log) as fast:
        await submit(fast, FOUND, "r1")
        async with kept(log) as slow:
            await slow.barrier()
            log.show(log.last)
            for _ in range(3):
                log.entries.append(Entry(log.last + 1, 1, "noop", b""))
            await log.compact(Snapshot(log.last, 1, fast.state.snapshot()))
            log.show(None)
            await slow.barrier()
            assert slow.state.snapshot() == fast.state.snapshot()
            assert slow.position.index == log.last


async def test_an_unknown_command_stops_applying_and_tells_all_who_wait():
    log = MemoryLog()
    keeper = ControlKeeper(log)
    task = asyncio.create_task(keeper.run())
    await submit(keeper, FOUND, "r1")
    waiting = asyncio.create_task(keeper.wait_applied(log.last + 2))
    await asyncio.sleep(0)
    log.entries.append(Entry(log.last + 1, 1, "command", b"\x81\xa2do\xa3new"))
    log.entries.append(Entry(log.last + 1, 1, "noop", b""))
    log.show(None)
    with pytest.raises(PeerMalformed):
        await task
    with pytest.raises(PeerMalformed):
        await waiting
    assert keeper.position.index == log.last - 2


async def test_a_program_that_is_older_than_the_mesh_stops_at_its_level_and_says_so():
    """A voter that went back to an earlier program applied what was decided at a level that it does not have."""
    later = FEATURE_LEVEL + 1
    log, message = (
        MemoryLog(),
        f"That needs feature level {later}; the program of this server is at level {FEATURE_LEVEL}.",
    )
    async with kept(log) as keeper:
        await submit(keeper, FOUND, "r1")
        snapshot = keeper.state.snapshot()
    for entry in (
        Entry(log.last + 1, 1, "command", encode(Envelope("r2", "test", NOW, SetFeatureLevel(later)))),
        Snapshot(
            log.last + 1, 1, snapshot.replace(*(b"feature_level" + bytes([each]) for each in (FEATURE_LEVEL, later)))
        ),
    ):
        again = MemoryLog()
        again.entries += log.entries
        if isinstance(entry, Entry):
            again.entries.append(entry)
        else:
            await again.compact(entry)
        again.show(None)
        with pytest.raises(FeatureLevelTooLow) as stopped:
            await ControlKeeper(again).run()
        assert stopped.value.message == message


async def test_when_the_log_is_closed_waiters_end_and_changes_end():
    log = MemoryLog()
    async with kept(log) as keeper:
        await keeper.barrier()
        waiting = asyncio.create_task(keeper.wait_applied(99))

        async def watch() -> list[int]:
            return [index async for index in keeper.changes()]

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        log.close()
        with pytest.raises(LogUnavailable):
            await waiting
        assert await watching == [1]


async def test_changes_tell_of_what_was_applied():
    log = MemoryLog()
    async with kept(log) as keeper:
        await keeper.barrier()
        waiting = asyncio.create_task(keeper.wait_change(keeper.position.index))
        await submit(keeper, FOUND, "r1")
        assert await waiting == 2
