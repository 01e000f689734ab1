"""Whole meshes of drivers in virtual time: the core's storm, once more, with the real loop, disk format and port.

Links lose, double, delay and reorder; members lose power between writing and speaking; disks are put back. One seed
decides everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import shutil
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from consensus.simulation.history import Operation, not_linearizable
from mesh.clock import JumpingLoop
from msgspec import Struct

from caso_mesh.consensus import Entry, Replicated, Snapshot, Timing, open_replicated, store
from caso_mesh.model.errors import CasoError, LogContradicted, StateRolledBack

_TIMING = Timing(tick_s=0.02, election_ticks=8, heartbeat_ticks=2)
_STORM_S, _PEACE_S = 6.0, 8.0
#: Commands between two snapshots of one member, and entries that it keeps all the same.
_COMPACT_EVERY = 40
#: A snapshot travels in several pieces.
_STATE_BYTES = 150_000


class Outcome(Struct, frozen=True):
    problem: str | None
    acknowledged: int
    terms: int
    crashes: int
    put_back: int


class PowerFails(Exception):
    """In the middle of a transaction, which is therefore absent."""


class Member:
    """One server: its file, and while it is up, its share of the log and what was handed out of it."""

    def __init__(self, site: Site, name: str, joins: tuple[str, ...]) -> None:
        self.site, self.name, self.joins = site, name, joins
        self.log: Replicated | None = None
        self.behind = self.was_put_back = False
        self.saves_until_crash: int | None = None
        self.counts: dict[int, int] = {0: 0}
        self.reached = 0
        self._life: asyncio.Task[None] | None = None

    @property
    def path(self) -> pathlib.Path:
        return self.site.folder / f"{self.name}.db"

    @property
    def leads(self) -> bool:
        return self.log is not None and self.log.leadership().in_office

    def start(self) -> None:
        if self._life is None and not self.behind:
            self._life = asyncio.create_task(self._live())

    def crash(self) -> None:
        if self._life is not None:
            self._life.cancel()

    async def stopped(self) -> None:
        if self._life is not None:
            await asyncio.wait([self._life])

    async def _live(self) -> None:
        site = self.site
        try:
            async with open_replicated(
                self.path, self.name, joins=self.joins, transport=self._send, same_thread=True,
                jitter=random.Random(site.random.random()), timing=_TIMING,
            ) as log:  # fmt: skip
                self.log, self.reached, self.counts = log, 0, {0: 0}
                async with asyncio.TaskGroup() as group:
                    group.create_task(log.run())
                    group.create_task(self._read(log))
                    group.create_task(self._watch(log))
        except* StateRolledBack:
            self.behind = True
        except* LogContradicted as errors:
            # A heartbeat may say before any witness that more was committed than the old copy holds.
            self.behind = self.was_put_back
            if not self.was_put_back:
                site.wrong(f"{self.name} ended: {errors.exceptions}")
        except* (asyncio.CancelledError, PowerFails):
            pass
        except* CasoError as errors:
            site.wrong(f"{self.name} ended: {errors.exceptions}")
        finally:
            self.log, self._life = None, None

    async def _read(self, log: Replicated) -> None:
        """Applies what is committed; compacts now and then."""
        applied = 0
        async with aclosing(log.committed(0)) as entries:
            async for item in entries:
                if isinstance(item, Snapshot):
                    self.counts[item.index] = int(item.data)
                else:
                    if item.index != self.reached + 1:
                        self.site.wrong(f"{self.name} handed out {item.index} after {self.reached}")
                    self.site.applied(self.name, item)
                    self.counts[item.index] = self.counts[self.reached] + (item.kind == "command")
                    applied += 1
                self.reached = item.index
                if applied >= _COMPACT_EVERY and isinstance(item, Entry):
                    applied = 0
                    with contextlib.suppress(CasoError):
                        state = (b"%d" % self.counts[item.index]).ljust(_STATE_BYTES)
                        await log.compact(Snapshot(item.index, item.term, state))

    async def _watch(self, log: Replicated) -> None:
        async with aclosing(log.leadership_changes()) as changes:
            async for leadership in changes:
                if leadership.in_office:
                    self.site.in_office(self.name, leadership.term)

    async def _send(self, to: str, lineage: int, data: bytes) -> bool:
        return self.site.send(self.name, to, lineage, data)


class Site:
    def __init__(self, seed: int, folder: pathlib.Path) -> None:
        self.random = random.Random(seed)
        self.changes = seed % 4 > 1
        self.folder = folder
        self.members: dict[str, Member] = {}
        self.problem: str | None = None
        self.loss = self.double = 0.0
        self.delay_s = 0.004
        self.cuts: set[tuple[str, str]] = set()
        self.operations: list[Operation] = []
        self.positions: dict[int, int] = {}
        self.read_at: dict[int, int] = {}
        self.crashes = self.put_back = 0
        self._applied: dict[int, Entry] = {}
        self._leaders: dict[int, str] = {}

    def wrong(self, problem: str) -> None:
        self.problem = self.problem or problem

    def applied(self, name: str, entry: Entry) -> None:
        known = self._applied.setdefault(entry.index, entry)
        if known != entry:
            self.wrong(f"{name} handed out {entry}, others {known}")

    def in_office(self, name: str, term: int) -> None:
        other = self._leaders.setdefault(term, name)
        if other != name:
            self.wrong(f"{name} and {other} are in office in term {term}")

    def about_to_save(self, path: str) -> Callable[[], None]:
        """A member's transaction begins. It may lose power now, or when it is written and nothing was said yet."""
        member = self.members.get(pathlib.Path(path).stem)
        if member is None or member.saves_until_crash is None:
            return lambda: None
        member.saves_until_crash -= 1
        if member.saves_until_crash > 0:
            return lambda: None
        member.saves_until_crash = None
        self.crashes += 1
        loop = asyncio.get_running_loop()
        loop.call_later(self.random.uniform(0.05, 0.8), member.start)
        if self.random.random() < 0.5:
            raise PowerFails

        def written() -> None:
            loop.call_soon(member.crash)

        return written

    def send(self, source: str, to: str, lineage: int, data: bytes) -> bool:
        loop, draw = asyncio.get_running_loop(), self.random.random
        if (source, to) in self.cuts or draw() < self.loss:
            return draw() < 0.5  # who loses it may or may not notice
        for _ in range(2 if draw() < self.double else 1):
            loop.call_later(self.random.uniform(0.0005, self.delay_s), self._arrive, source, to, lineage, data)
        return True

    def _arrive(self, source: str, to: str, lineage: int, data: bytes) -> None:
        member = self.members.get(to)
        if member is not None and member.log is not None and (source, to) not in self.cuts:
            member.log.receive(source, lineage, data)

    # --- clients ---

    async def client(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            await asyncio.sleep(self.random.uniform(0.001, 0.05))
            alive = [member for member in self.members.values() if member.log is not None]
            leading = [member for member in alive if member.leads]
            if not alive:
                continue
            member = self.random.choice(leading or alive)
            log = member.log
            assert log is not None
            operation = Operation(
                len(self.operations) + 1, "write" if self.random.random() < 0.6 else "read", _us(loop)
            )
            self.operations.append(operation)
            try:
                async with asyncio.timeout(2):
                    if operation.kind == "write":
                        await log.propose(b"%d" % operation.number)
                    else:
                        self.read_at[operation.number] = await log.read_index()
                    operation.ended = _us(loop)
            except (CasoError, TimeoutError):
                pass

    def check(self) -> None:
        order = [int(self._applied[at].data) for at in sorted(self._applied) if self._applied[at].kind == "command"]
        counts: dict[int, int] = {}
        count = 0
        for at in range(max(self._applied, default=0) + 1):
            count += at in self._applied and self._applied[at].kind == "command"
            counts[at] = count
        for operation in self.operations:
            if operation.kind == "read" and operation.ended is not None:
                operation.length = counts[self.read_at[operation.number]]
        found = not_linearizable(self.operations, order)
        if found:
            self.wrong(found)

    # --- the storm ---

    async def storm(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            await asyncio.sleep(self.random.uniform(0.05, 0.4))
            names = list(self.members)
            kind = self.random.randrange(11 if self.changes else 9)
            if kind == 0:
                self.loss = self.random.choice([0.0, 0.05, 0.2])
                self.double = self.random.choice([0.0, 0.1, 0.3])
                self.delay_s = self.random.choice([0.004, 0.03, 0.1])
            elif kind == 1:
                lonely = self.random.choice(names)
                self.cuts |= {link for name in names for link in ((lonely, name), (name, lonely))}
            elif kind == 2:
                self.cuts.add((self.random.choice(names), self.random.choice(names)))
            elif kind in (3, 4):
                self.cuts.clear()
            elif kind == 5:
                member = self.members[self.random.choice(names)]
                self.crashes += 1
                member.crash()
                loop.call_later(self.random.uniform(0.05, 0.8), member.start)
            elif kind in (6, 7):
                self.members[self.random.choice(names)].saves_until_crash = self.random.randint(1, 5)
            elif kind > 8:
                await self._change_members()
            else:
                leading = [member for member in self.members.values() if member.leads]
                if leading and leading[0].log is not None:
                    with contextlib.suppress(CasoError, TimeoutError):
                        async with asyncio.timeout(1):
                            await leading[0].log.transfer(self.random.choice(leading[0].log.leadership().voters))

    async def _change_members(self) -> None:
        """One comes or one goes, or a learner becomes a voter, if whoever leads can have it so."""
        leading = [member for member in self.members.values() if member.leads]
        if not leading or leading[0].log is None:
            return
        log = leading[0].log
        voters, learners = log.leadership().voters, log.leadership().learners
        with contextlib.suppress(CasoError, TimeoutError):
            async with asyncio.timeout(1):
                complete = [name for name in learners if (log.lacks(name) or 0) < 5]
                if complete:
                    await log.set_member(complete[0], "voter")
                elif len(voters) > 3 or (len(voters) == 3 and self.random.random() < 0.3):
                    await log.set_member(self.random.choice(voters), self.random.choice(["none", "learner"]))
                elif len(self.members) < 8:
                    name = f"n{len(self.members) + 1}"
                    self.members[name] = Member(self, name, log.founders)
                    self.members[name].start()
                    await log.set_member(name, "learner")

    async def peace(self) -> Member:
        """Everything is mended: somebody is in office, and all have the same."""
        self.loss = self.double = 0.0
        self.delay_s = 0.004
        self.cuts.clear()
        for member in self.members.values():
            member.saves_until_crash = None
        loop = asyncio.get_running_loop()
        end = loop.time() + _PEACE_S
        while loop.time() < end:
            for member in self.members.values():
                member.start()
            await asyncio.sleep(0.05)
            leading = [member for member in self.members.values() if member.leads]
            if len(leading) == 1 and leading[0].log is not None:
                log = leading[0].log
                part = {*log.leadership().voters, *log.leadership().learners}
                alive = [self.members[name] for name in sorted(part) if not self.members[name].behind]
                there = all(
                    member is leading[0] or (member.log is not None and log.lacks(member.name) == 0
                    and member.reached == leading[0].reached) for member in alive
                )  # fmt: skip
                if there and leading[0].reached >= max(self._applied, default=0):
                    return leading[0]
        self.wrong("nobody is in office, or somebody lacks something, long after all faults ended")
        return next(iter(self.members.values()))

    async def story_of_a_disk_put_back(self, leader: Member) -> None:
        assert leader.log is not None
        voters = [self.members[name] for name in leader.log.leadership().voters if name != leader.name]
        if len(voters) < 2:
            return
        victim = self.random.choice(voters)
        victim.crash()
        await victim.stopped()
        shutil.copy(victim.path, self.folder / "older")
        victim.start()
        leader = await self.peace()
        assert leader.log is not None
        for _ in range(5):
            operation = Operation(len(self.operations) + 1, "write", _us(asyncio.get_running_loop()))
            self.operations.append(operation)
            await leader.log.propose(b"%d" % operation.number)
            operation.ended = _us(asyncio.get_running_loop())
        await self.peace()
        victim.crash()
        await victim.stopped()
        shutil.copy(self.folder / "older", victim.path)
        self.put_back += 1
        victim.was_put_back = True
        victim.start()
        await asyncio.sleep(2)
        if not victim.behind:
            self.wrong(f"the disk of {victim.name} was put back and nobody noticed")


def _us(loop: asyncio.AbstractEventLoop) -> int:
    return round(loop.time() * 1_000_000)


def run_seed(seed: int, folder: pathlib.Path) -> Outcome:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(_run(Site(seed, folder), seed))


async def _run(site: Site, seed: int) -> Outcome:
    save = store.save

    def watched(conn: Any, path: str, *rest: Any, **more: Any) -> None:
        written = site.about_to_save(path)
        save(conn, path, *rest, **more)
        written()

    store.save = watched  # type: ignore[assignment]
    try:
        await _grow(site, 3 if seed % 3 else 5)
        loop = asyncio.get_running_loop()
        end = loop.time() + _STORM_S
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(site.client(end))
            group.create_task(site.storm(end))
        leader = await site.peace()
        if site.problem is None and seed % 2:
            await site.story_of_a_disk_put_back(leader)
        site.check()
    finally:
        store.save = save
        for member in site.members.values():
            member.crash()
            await member.stopped()
    acknowledged = sum(1 for operation in site.operations if operation.ended is not None)
    return Outcome(site.problem, acknowledged, len(site._leaders), site.crashes, site.put_back)


async def _grow(site: Site, voters: int) -> None:
    """The first alone, then each of the others: a learner first, then a voter."""
    names = [f"n{number}" for number in range(1, voters + 1)]
    first = site.members[names[0]] = Member(site, names[0], ())
    first.start()
    async with asyncio.timeout(30):
        while not first.leads:  # noqa: ASYNC110 - of another loop of tasks
            await asyncio.sleep(0.01)
        for name in names[1:]:
            log = first.log
            assert log is not None
            site.members[name] = Member(site, name, log.founders)
            site.members[name].start()
            await log.set_member(name, "learner")
            while log.lacks(name) != 0:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            await log.set_member(name, "voter")
