"""One administrator in office, with its control state, tables and catalog, and servers that are made of answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from consensus.consensus_cluster import running
from mesh.clock import VirtualClock

from caso_mesh.admin.desks.means import Custody
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.office import Office
from caso_mesh.admin.ports import Caller
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.database import Database
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer
from caso_mesh.journal.record import Record, first_hash, record_hash
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model.calls import BY_NAME
from caso_mesh.model.clock import WallCalendar
from caso_mesh.model.commands import AddDevice, AdmitServer, CreatePool, FoundMesh
from caso_mesh.model.errors import ServerNotLinked
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.ids import make_id_source
from caso_mesh.model.jobs import Counts
from caso_mesh.model.mesh import MeshInfo, Operator, Pool, Server
from caso_mesh.model.states import AlertKind, AttemptState, BackupType, Liveness, Role
from caso_mesh.model.storage import FACTORY_MEDIA_SETS, BackupSet, Device, DeviceKind, DevicePath
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.memory import MemoryNetwork

SECOND = 1_000_000_000
KEYS = NodeKeys.create()
OPERATOR = NodeKeys.create().signing


class FakeLink:
    """Answers by a table; remembers what was asked."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.remote_address = f"{peer.name}:1"
        self.closed = False
        self.answers: dict[str, Callable[[Any], Any]] = {
            "orders.put": lambda _: {},
            "orders.change": lambda _: n.OrdersTaken(True),
            "device.keys": lambda _: n.DeviceKeysReply({}),
        }
        self.asked: list[tuple[str, Any]] = []
        #: What the orders stand on that were taken last.
        self.ordered: Any = None

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        self.asked.append((method, params))
        request = from_wire(params or {}, BY_NAME[method].request)
        answer = self.answers[method](request)
        told = await answer if asyncio.iscoroutine(answer) else answer
        if method in {"orders.put", "orders.change"}:
            self.ordered = getattr(request, "orders", request).authority
        return to_wire(told)

    async def notify(self, method: str, params: Any = None) -> None:
        self.asked.append((method, params))

    def told(self, method: str) -> list[Any]:
        """What was asked by ``method``; ``orders`` are those that were put or changed."""
        if method == "orders":
            found = [(name, params) for name, params in self.asked if name in {"orders.put", "orders.change"}]
            return [params if name == "orders.put" else params["orders"] for name, params in found]
        return [params for name, params in self.asked if name == method]


class FakeLinks:
    def __init__(self) -> None:
        self.links: dict[str, FakeLink] = {}
        self.observers: list[Callable[[str, bool], None]] = []
        #: How far clocks are ahead.
        self.offsets_s: dict[str, float] = {}

    def up(self, node: str, name: str) -> FakeLink:
        link = self.links[node] = FakeLink(Peer(id=node, name=name, kind="node"))
        for observer in self.observers:
            observer(node, True)
        return link

    def down(self, node: str) -> None:
        self.links.pop(node).closed = True
        for observer in self.observers:
            observer(node, False)

    def get(self, node: str) -> FakeLink:
        if node not in self.links:
            raise ServerNotLinked(server=node)
        return self.links[node]

    def linked(self, node: str) -> bool:
        return node in self.links

    def nodes(self) -> list[str]:
        return sorted(self.links)

    def observe(self, observer: Callable[[str, bool], None]) -> Callable[[], None]:
        self.observers.append(observer)
        return lambda: self.observers.remove(observer)

    def greeting_of(self, node: str) -> None:
        return None

    async def clock_offset_s(self, node: str) -> float:
        return self.offsets_s.get(node, 0.0)


class Reporter:
    """The journal of one server, in memory."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.incarnation = f"inc-{node}"[:20]
        self.hash = first_hash(node, self.incarnation)
        self.seq = 0

    def records(self, at_ns: int, *new: facts.Fact) -> list[Record]:
        made = []
        for fact in new:
            kind, data = facts.encode(fact)
            self.seq += 1
            self.hash = record_hash(self.hash, self.incarnation, self.seq, at_ns, kind, data)
            made.append(Record(self.incarnation, self.seq, at_ns, kind, data, self.hash))
        return made


class LoopFacts:
    """The journal of the server in office: what it appends is in the tables at once."""

    def __init__(self, tables: Tables, clock: VirtualClock) -> None:
        self.all: list[facts.Fact] = []
        self.fails: Exception | None = None
        self._tables = tables
        self._clock = clock
        self._reporter = Reporter(KEYS.id)
        self._ids = itertools.count(1)

    async def append(self, *new: facts.Fact) -> None:
        if self.fails is not None:
            raise self.fails
        self.all += new
        await self._tables.accept(KEYS.id, self._reporter.records(self._clock.now_ns(), *new))

    async def alert(self, alert: AlertKind, category: str, text: str, *, object: str = "", fields: Any = None) -> str:
        id_ = f"alert{next(self._ids)}"
        await self.append(facts.AlertRaised(id_, alert, category, text, object=object))
        return id_

    def alerts(self, category: str) -> list[facts.AlertRaised]:
        return [fact for fact in self.all if isinstance(fact, facts.AlertRaised) and fact.category == category]

    def audits(self, what: str) -> list[facts.Audit]:
        return [fact for fact in self.all if isinstance(fact, facts.Audit) and fact.what == what]


def node(name: str) -> str:
    return KEYS.id if name == "alpha" else f"node-{name}"


class NextHere:
    """Where the next authority lies."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kept: Authority | None = None

    def save(self, authority: Authority) -> None:
        self.kept = authority

    def take(self, issuing: bytes) -> Authority | None:
        if self.kept is None or self.kept.issuing != issuing:
            return None
        self._world.root_key = self.kept.root_key_bytes()
        return self.kept


class World:
    def __init__(
        self, folder: Path, keeper: ControlKeeper, tables: Tables, catalog: Catalog, clock: VirtualClock
    ) -> None:
        self.folder, self.keeper, self.tables, self.catalog, self.clock = folder, keeper, tables, catalog, clock
        self.links = FakeLinks()
        self.facts = LoopFacts(tables, clock)
        self.authority = Authority.create(mesh_id="mesh-1", mesh_name="home", voter=KEYS.id, now_ns=clock.now_ns())
        self.random = random.Random(7)
        self.new_id = make_id_source(clock.now_ns, self.random.randbytes)
        self.reporters: dict[str, Reporter] = {}
        self.requests = itertools.count(1)
        self.discovery: Any = None
        #: Addresses that a person named at the server in office.
        self.static: list[str] = []
        self.network = MemoryNetwork().endpoint(b"alpha")
        self.free_bytes = 1 << 40
        self.problem: dict[str, str] = {}
        self.silent: set[str] = set()
        #: Servers whose heartbeats say that they have more to tell of before they were back.
        self.telling: set[str] = set()
        #: Attempts that a server has not ended, by its id.
        self.holding: dict[str, tuple[str, ...]] = {}
        self.skew_s: dict[str, int] = {}
        self.own_work: dict[str, tuple[n.DeviceLoad, ...]] = {}
        self.next_authority = NextHere(self)
        self.credentials: dict[str, Any] = {}
        self.root_key: bytes | None = self.authority.root_key_bytes()
        self.office = self.make_office()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> Any:
        return self.keeper.state

    def make_office(self) -> Office:
        return Office(
            keeper=self.keeper,
            consensus=self.keeper._consensus,  # type: ignore[arg-type]  # what admin_world opened
            tables=self.tables,
            catalog=self.catalog,
            links=self.links,
            facts=self.facts,
            custody=Custody(
                keys=KEYS,
                authority=self.authority,
                id_key=b"i" * 32,
                root_key=lambda: self.root_key,
                drop_root_key=self._drop_root_key,
                next_authority=self.next_authority,
            ),
            server_name="alpha",
            version="1",
            network=self.network,
            discovery=self.discovery,
            static=lambda: self.static,
            addresses=lambda: ("alpha:1",),
            followers=Followers(self.clock),
            incoming=self.folder / "incoming",
            copies=self.folder,
            clock=self.clock,
            calendar=WallCalendar(self.clock),
            new_id=self.new_id,
            randomness=self.random.randbytes,
            credentials=self.credentials.__getitem__,
        )

    def _drop_root_key(self) -> None:
        self.root_key = None

    async def submit(self, command: Any) -> Any:
        return await self.keeper.submit(
            command, who="test", request_id=f"test-{next(self.requests)}", at_ns=self.clock.now_ns()
        )

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.office.run())
            group.create_task(self._beat())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def another_office(self) -> None:
        """The administrator's daemon is started again."""
        await self.stop()
        self.office = self.make_office()
        self.start()

    async def _beat(self) -> None:
        while True:
            for id_ in list(self.links.links):
                if id_ not in self.silent:
                    await self.heartbeat(id_)
            await asyncio.sleep(1.0)

    async def heartbeat(self, id_: str) -> None:
        reports = tuple(
            n.DeviceReport(device.id, self.free_bytes, 1 << 41, 0, problem=self.problem.get(device.id))
            for device in self.state.devices_of(id_)
        )
        beat = n.Heartbeat(
            self.clock.now_ns() + self.skew_s.get(id_, 0) * SECOND, self.links.links[id_].ordered, (),
            self.holding.get(id_, ()), reports, self.own_work.get(id_, ()), telling=id_ in self.telling,
        )  # fmt: skip
        await self.node_call(id_, "server.heartbeat", beat)

    # --- calls ---

    async def ask(self, name: str, request: Any, *, id: str | None = None, person: Peer | None = None) -> Any:
        """A call of a person, by default of one who may do everything."""
        person = person or Peer(id="p", name="ann", kind="operator", role=Role.ADMIN)
        caller = Caller(person.name, "here:1", id or f"ask-{next(self.requests)}", person)
        return await self.office.people_handlers[name](caller, request)

    async def node_call(self, id_: str, name: str, request: Any) -> Any:
        link = self.links.links.get(id_) or FakeLink(Peer(id=id_, name=id_, kind="node"))
        return await self.office.node_handlers[name](link.peer, request, link)

    async def report(self, server: str, *new: facts.Fact) -> Any:
        """Facts of a server, pushed as its courier does."""
        return await self.push(server, self.records(server, *new))

    def records(self, server: str, *new: facts.Fact) -> list[Record]:
        reporter = self.reporters.setdefault(server, Reporter(node(server)))
        return reporter.records(self.clock.now_ns(), *new)

    async def push(self, server: str, records: list[Record]) -> Any:
        made = tuple(t.JournalRecord(r.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash) for r in records)
        return await self.node_call(node(server), "journal.push", t.JournalPush(made))

    # --- work ---

    async def backup(self, source: str = "alpha", to: str = "pool:p", **fields: Any) -> str:
        """The run of a new backup."""
        request = q.BackupRequest(sources=((source, b"/srv"),), target=to, **fields)
        submitted = await self.ask("backup", request)
        return str(submitted.run or submitted.job)

    async def until(self, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Waits in virtual time."""
        async with asyncio.timeout(seconds):
            while not (found := holds()):  # noqa: ASYNC110 - in virtual time that costs nothing
                await asyncio.sleep(0.05)
        return found

    async def delegated(self, run: str, number: int = 1, seconds: float = 60.0) -> Any:
        id_ = f"{run}#{number}"
        return await self.until(lambda: self.state.attempts.get(id_), seconds)

    def made_set(self, attempt: Any, /, **fields: Any) -> BackupSet:
        now = self.clock.now_ns()
        values: dict[str, Any] = {
            "id": self.new_id(), "mesh": "mesh-1", "vault": "v", "source": attempt.source, "source_name": "s",
            "server": attempt.server, "server_name": "m", "device": attempt.device, "device_name": "d",
            "medium": "BETA-000001", "media_set": "keep-4-weeks", "type": BackupType.FULL, "job": attempt.job,
            "run": attempt.run, "attempt": attempt.id, "started_at_ns": now, "ended_at_ns": now, "roots": (b"srv",),
            "filters": b"f", "root": b"r" * 32, "parent": None, "files": 3, "entries": 4, "bytes": 30, "bytes_read": 30,
            "bytes_stored": 40, "exceptions": 0,
        }  # fmt: skip
        return BackupSet(**(values | fields))

    def success(self, attempt: Any, backup: BackupSet | None = None) -> tuple[facts.Fact, ...]:
        backup = backup or self.made_set(attempt)
        return (
            facts.AttemptStarted(attempt.id, attempt.server, attempt.device, BackupType.FULL),
            facts.SetPublished(backup),
            self.end(attempt, AttemptState.SUCCEEDED, set=backup.id),
        )

    def end(self, attempt: Any, state: AttemptState, **fields: Any) -> facts.AttemptEnded:
        return facts.AttemptEnded(attempt.id, state, Counts(files=3, bytes=30, bytes_read=30), 1.5, **fields)


def name_of(attempt: Any) -> str:
    return "alpha" if attempt.server == KEYS.id else str(attempt.server).removeprefix("node-")


def server(name: str, clock: VirtualClock, **fields: Any) -> Server:
    key = KEYS.public_key if name == "alpha" else f"key-{name}".encode()
    return Server(name, node(name), key, b"x" * 32, b"wrapped", clock.now_ns(), addresses=(f"{name}:1",), **fields)


@contextlib.asynccontextmanager
async def admin_world(folder: Path, *, start: bool = True) -> AsyncIterator[World]:
    """alpha in office; beta and gamma, linked, each with a disk, both in the pool ``p``."""
    clock = VirtualClock(asyncio.get_running_loop())
    async with (
        running(folder / "consensus.db", KEYS.id, same_thread=True) as consensus,
        Database.open(folder / "tables.db", MIGRATIONS, durable=False, same_thread=True) as database,
        Catalog.open(folder / "catalog.db", same_thread=True) as catalog,
    ):
        keeper = ControlKeeper(consensus)
        applying = asyncio.get_running_loop().create_task(keeper.run())
        world = World(folder, keeper, Tables(database), catalog, clock)
        alive = {"liveness": Liveness.ALIVE, "ever_linked": True}
        boss = Operator("boss", OPERATOR.id, OPERATOR.public_key, Role.ADMIN, clock.now_ns())
        info = MeshInfo("mesh-1", "home", clock.now_ns(), feature_level=FEATURE_LEVEL)
        anchors = tuple(world.authority.anchors(KEYS.id))
        alpha = server("alpha", clock, voter=True, **alive)
        try:
            await world.submit(FoundMesh(info, anchors, alpha, (boss,), FACTORY_MEDIA_SETS))
            world.links.up(KEYS.id, "alpha")
            for name in ("beta", "gamma"):
                await world.submit(AdmitServer(server(name, clock, never_admin=True, **alive), None, None))
                place = (DevicePath(node(name), f"/mnt/{name}"),)
                await world.submit(AddDevice(Device(f"d{name}", f"dev-{name}", DeviceKind.DISK, f"v-{name}", place)))
                world.links.up(node(name), name)
            await world.submit(CreatePool(Pool("p", (node("beta"), node("gamma")))))
            for link in world.links.links.values():
                link.answers["path.check"] = lambda _: n.PathCheckReply()
            if start:
                world.start()
            yield world
        finally:
            await world.stop()
            applying.cancel()
            await asyncio.gather(applying, return_exceptions=True)
