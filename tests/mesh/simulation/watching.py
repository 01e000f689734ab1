"""What is looked at while a simulated mesh runs: who is in office, what was ordered, which runs are closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

from mesh.simulation.world import World
from msgspec import Struct

from caso_mesh.admin.office import Office
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.server.queue import Queue


class Violation(Exception):
    """A promise was broken."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


class Quiet(Struct, frozen=True):
    """One second of an office that could do all that is its to do."""

    at_s: float
    node: str
    term: int
    wall_ns: int


class Watcher:
    """``first`` is the first violation that was seen on the way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.first: Violation | None = None
        self.quiet: list[Quiet] = []
        #: (job, due time up to which all is opened or over) -> when that was so at first, in virtual seconds.
        self.passed: dict[tuple[str, int], float] = {}
        self._offices: dict[tuple[int, int], str] = {}
        self._ordered: dict[str, Authority] = {}

    def broken(self, promise: str, detail: str) -> None:
        self._world.note("VIOLATION", f"{promise}: {detail}")
        if self.first is None:
            self.first = Violation(promise, detail)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        run, write, save = Office.run, ControlState.write, Queue.save_orders

        async def office_run(office: Office) -> None:
            self._in_office(office)
            await run(office)

        def state_write(state: ControlState, changes: Iterable[Put]) -> None:
            changes = list(changes)
            for change in changes:
                self._changes(state, change)
            write(state, changes)

        async def save_orders(queue: Queue, orders: Orders) -> None:
            self._orders(queue, orders)
            await save(queue, orders)

        with (
            mock.patch.object(Office, "run", office_run),
            mock.patch.object(ControlState, "write", state_write),
            mock.patch.object(Queue, "save_orders", save_orders),
        ):
            yield

    def _in_office(self, office: Any) -> None:
        name = self._world.ids.get(office.means.own, office.means.own)
        server = self._world.servers[name]
        if (
            server.node is None
            or server.node.seat.voter is None
            or server.node.seat.voter.keeper is not office.means.keeper
        ):
            return  # of a dead one
        leadership = office.means.keeper.leadership
        place = (leadership.lineage, leadership.term)
        self._world.note("office", f"{name} {place}")
        if self._offices.setdefault(place, name) != name:
            self.broken("one administrator in a term", f"{name} and {self._offices[place]} in {place}")

    def _changes(self, state: ControlState, change: Put) -> None:
        if change.table == "jobs" and change.record is not None and change.record.last_due_at_ns is not None:
            self.passed.setdefault((change.key, change.record.last_due_at_ns), self._world.loop.time())
        if change.table != "runs":
            return
        before, after = state.runs.get(change.key), change.record
        if before is not None and before.closed_at_ns is not None and after is not None and after != before:
            self.broken("a run is closed once", f"{change.key}: {before.state} became {after.state}")

    def _orders(self, queue: Queue, orders: Orders) -> None:
        server = self._world.server_of(queue._database.path)
        if server is None:
            return
        before = self._ordered.get(server.name)
        if before is not None and orders.authority < before:
            self.broken("orders never fall", f"{server.name} took {orders.authority} after {before}")
        self._ordered[server.name] = orders.authority

    def put_back(self, name: str) -> None:
        """A disk was: what it remembers is less."""
        self._ordered.pop(name, None)

    async def look(self) -> None:
        """Each second, whether there is an office that nothing hinders. Never returns."""
        network = self._world.network
        while True:
            await asyncio.sleep(1.0)
            if self._world.hub.overlaps and self.first is None:
                self.broken("one attempt at a part at a time", self._world.hub.overlaps[0])
            for name, server in self._world.servers.items():
                node = server.node
                if node is None or not node.in_office or server.disk_s > 0:
                    continue
                voter, office = node.seat.voter, node.router.office
                if voter is None or office is None or office.runs.due.doubtful:
                    continue
                leadership = voter.consensus.leadership()
                names = [self._world.ids.get(each, each) for each in leadership.voters]
                here = [
                    each
                    for each in names
                    if self._world.servers[each].node is not None
                    and network.is_well(name, each)
                    and self._world.servers[each].disk_s == 0
                ]
                if 2 * len(here) > len(names):
                    self.quiet.append(Quiet(self._world.loop.time(), name, leadership.term, server.clock.now_ns()))
