"""A simulated mesh: servers with their disks, clocks and lives, the network between them, and one operator."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from mesh.clock import EPOCH_NS, VirtualClock
from mesh.simulation.disk import copy_state, lose_power
from mesh.simulation.loop import SimulationLoop
from mesh.simulation.network import SimNetwork
from mesh.simulation.script import Hub, Life
from mesh.simulation.worker import SimRunner
from msgspec import Struct

from caso_mesh.daemon import Node, open_node
from caso_mesh.identity.requests import sign_request
from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.runner import Runner
from caso_mesh.journal import Record
from caso_mesh.machine import Ports
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import CasoError, InternalError, LinkLost
from caso_mesh.server.folder import StateFolder
from caso_mesh.wire.codec import from_wire, pack, to_wire
from caso_mesh.wire.link import Link
from caso_mesh.wire.memory import MemoryEndpoint
from caso_mesh.wire.typed import RefusesAll

T = TypeVar("T", bound=Struct)


class SimServer:
    """One server over all its lives. ``state`` is the folder of the present life, or of the next."""

    def __init__(self, name: str, state: Path, clock: VirtualClock) -> None:
        self.name = name
        self.state = state
        self.clock = clock
        self.number = 0
        self.life: Life | None = None
        self.last_life = Life()
        self.node: Node | None = None
        self.task: asyncio.Task[None] | None = None
        self.endpoint: MemoryEndpoint | None = None
        #: Seconds that each write takes.
        self.disk_s = 0.0
        #: Seconds that each write of the replicated log takes, if that is longer.
        self.log_s = 0.0
        #: As much for each write of its replica of the journals.
        self.tables_s = 0.0
        #: Writes, or messages, after which it crashes.
        self.crash_after: tuple[str, int, bool] | None = None
        #: Paused: nothing of it gets on.
        self.id = ""
        #: Its machine is gone, and no other one has taken its place yet.
        self.lost = False

    @property
    def up(self) -> bool:
        return self.life is not None


class World:
    """``folder`` holds all there is. ``began_s``: where all clocks are at the beginning, behind that of the test's time."""

    def __init__(
        self, seed: int, folder: Path, loop: SimulationLoop, *, began_s: float = 0.0, trace: bool = False
    ) -> None:
        self.seed = seed
        self.folder = folder
        self.loop = loop
        self._epoch_ns = EPOCH_NS + round(began_s * 1e9)
        self.random = random.Random(f"{seed}/world")
        self.network = SimNetwork(seed)
        self.network.on_message = self._message
        self.hub = Hub(self._reaches, lambda text: self.note("hub", text))
        self.servers: dict[str, SimServer] = {}
        self.ids: dict[str, str] = {}
        self.problems: list[str] = []
        #: Every record that ever was appended to a journal: its hash -> the record, and the hash before it.
        self.written: dict[bytes, tuple[Record, bytes]] = {}
        #: (server, incarnation, number) -> why a record means nothing, as whoever took it in found.
        self.refused: dict[tuple[str, str, int], str] = {}
        #: State folders of machines that are gone for good.
        self.former: list[Path] = []
        self.messages = 0
        self.closed_runs = 0
        self._links: dict[str, Link] = {}
        self._requests = 0
        self._zombies: dict[str, asyncio.Task[None]] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._by_state: dict[str, SimServer] = {}
        self._digest = hashlib.sha256()
        self._lines: list[str] | None = [] if trace else None

    # --- the record ---

    def note(self, what: str, text: str = "") -> None:
        line = f"{self.loop.time():.6f} {what} {text}"
        self._digest.update(line.encode())
        if self._lines is not None:
            self._lines.append(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    @property
    def trace(self) -> list[str]:
        return self._lines or []

    def _message(self, sender: MemoryEndpoint, receiver: MemoryEndpoint) -> None:
        self.messages += 1
        self._digest.update(f"{self.loop.time():.6f} {sender.name} {receiver.name}".encode())
        server = self.servers.get(sender.name)
        if server is not None and server.endpoint is sender:
            self._count(server, "message")

    # --- servers ---

    def add(self, name: str) -> SimServer:
        server = SimServer(name, self.folder / f"state-{name}", VirtualClock(self.loop, epoch_ns=self._epoch_ns))
        self.servers[name] = server
        return server

    def ports(self, server: SimServer, endpoint: MemoryEndpoint, life: Life) -> Ports:
        rng = random.Random(f"{self.seed}/{server.name}/{server.number}")
        before = server.last_life

        @contextlib.asynccontextmanager
        async def runner(folder: StateFolder) -> AsyncIterator[Runner]:
            while before.workers:  # noqa: ASYNC110 - as the nursery waits for its lock
                await asyncio.sleep(0.05)
            yield SimRunner(self.seed, self.hub, server.clock, life)

        return Ports(
            network=endpoint,
            clock=server.clock,
            randomness=rng.randbytes,
            runner=runner,
            discovery=lambda config: contextlib.nullcontext(None),
            jitter=random.Random(rng.random()),
            same_thread=True,
        )

    def start(self, name: str) -> None:
        """Brings a server up, as soon as the last life of it has come to its end."""
        server = self.servers[name]
        if server.up or server.lost or name in self._starting:
            return
        task = self._starting[name] = self.loop.create_task(self._start(server), name=f"start of {name}")
        task.add_done_callback(lambda _: self._starting.pop(name, None))

    async def _start(self, server: SimServer) -> None:
        zombie = self._zombies.pop(server.name, None)
        if zombie is not None:
            await asyncio.wait([zombie])
        server.number += 1
        life = Life()
        certificate = IdentityStore(StateFolder(server.state).identity).load_chain()[0]
        server.endpoint = self.network.endpoint(certificate, name=server.name)
        self._by_state[str(server.state)] = server
        ports = self.ports(server, server.endpoint, life)
        server.last_life = server.life = life
        self.note("start", server.name)
        server.task = self.loop.create_task(self._live(server, life, ports), name=f"node {server.name}")

    async def _live(self, server: SimServer, life: Life, ports: Ports) -> None:
        folder = StateFolder(server.state)
        try:
            with folder.locked():
                async with open_node(folder, ports) as node:
                    if not life.over:
                        server.node, server.id = node, node.server.keys.id
                        self.ids[server.id] = server.name
                        self.hub.keys[server.id] = node.server.keys
                        self.note("up", server.name)
                    await node.run()
        except BaseException as error:
            if life.over:
                return  # nobody hears the last words of the dead
            server.life, server.node = None, None
            life.end()
            if not isinstance(error, asyncio.CancelledError):
                self.problems.append(f"the node {server.name} failed: {_said(error)}")
            raise

    async def stop(self, name: str) -> None:
        """Ends it in good order."""
        server = self.servers[name]
        if server.task is not None:
            self.note("stop", name)
            server.task.cancel()
            await asyncio.wait([server.task])
            server.task = None

    def crash(self, name: str, *, power: bool = False, state: Path | None = None) -> None:
        """The daemon, or its machine, ends at this very instant. ``state``: the disk that the next life finds."""
        server = self.servers[name]
        life, task = server.life, server.task
        assert self._starting.get(name) is None
        self.note("crash", f"{name} power={power} other_disk={state is not None}")
        kept = self.folder / f"state-{name}.{server.number}"
        if state is not None:
            copy_state(state, kept)
        else:
            copy_state(server.state, kept)
            if power:
                lose_power(server.state, kept, self.random)
        old, server.state = server.state, kept
        self._by_state.pop(str(old), None)
        server.life = server.node = None
        server.crash_after = None
        if life is not None and task is not None and server.endpoint is not None:
            life.end()
            self.network.die(server.endpoint, silently=power)
            task.cancel()
            self._zombies[name] = task
            task.add_done_callback(lambda _: shutil.rmtree(old, ignore_errors=True))
        server.task = None

    def lose(self, name: str) -> Path:
        """The machine of a server is gone for good: where the state of another one may be that takes its place."""
        self.crash(name, power=True)
        server = self.servers[name]
        server.lost = True
        self.former.append(server.state)
        server.state = self.folder / f"state-{name}.{server.number}.new"
        return server.state

    def found(self, name: str) -> None:
        """There is a machine in place of the lost one."""
        self.servers[name].lost = False
        self.start(name)

    def keep_copy(self, name: str) -> Path:
        """The disk as it is now, to be put back one day."""
        to = self.folder / f"copy-{name}-{self.loop.time():.3f}"
        copy_state(self.servers[name].state, to)
        return to

    def settled_start(self, name: str) -> bool:
        return name not in self._starting

    def busy(self) -> list[str]:
        """Daemons that were to end, or to start, and have not."""
        ending = [f"the dead {name} does not end" for name, task in self._zombies.items() if not task.done()]
        return ending + [f"{name} does not start" for name in self._starting]

    # --- what disks and the network do to a server ---

    def server_of(self, database: str) -> SimServer | None:
        """The server in whose present life a database lies."""
        path = Path(database)
        return self._by_state.get(str(path.parent)) or self._by_state.get(str(path.parent.parent))

    def committed(self, database: str) -> None:
        server = self.server_of(database)
        if server is not None:
            self._count(server, "commit")

    def _count(self, server: SimServer, event: str) -> None:
        if server.crash_after is None or server.crash_after[0] != event or server.name in self._starting:
            return
        _, left, power = server.crash_after
        if left > 0:
            server.crash_after = (event, left - 1, power)
            return
        self.crash(server.name, power=power)
        self.loop.call_later(self.random.uniform(0.2, 8.0), self.start, server.name)

    def _reaches(self, a: str, b: str) -> bool:
        return self.network.reaches(self.ids.get(a, a), self.ids.get(b, b))

    # --- the operator ---

    def request_id(self) -> str:
        self._requests += 1
        return f"request-{self.seed}-{self._requests}"

    async def call(
        self,
        name: str,
        call: str,
        request: Struct,
        reply: type[T],
        *,
        request_id: str | None = None,
        timeout_s: float = 10.0,
    ) -> T:
        """The answer to a call of the operator of the first server, asked at ``name``."""
        identity = self.operator
        link = self._links.get(name)
        if link is None or link.closed:
            endpoint = self.network.endpoint(identity.chain[0], name="operator")
            link = self._links[name] = await endpoint.dial(
                f"{name}:7300", authorise=lambda certificate: name, handler=RefusesAll(), timeout_s=3.0
            )
        params = pack(to_wire(request))
        signed = sign_request(
            identity.key, mesh=self.mesh, call=call, params=params, request_id=request_id or self.request_id(),
            now_ns=self.servers[name].clock.now_ns(),
        )  # fmt: skip
        asked = n.SignedCall(
            signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns, signed.signature, timeout_s
        )
        try:
            return from_wire(await link.call("call.signed", to_wire(asked), timeout_s=timeout_s + 1.0), reply)
        except InternalError as error:
            self.problems.append(f"{call} {request} at {name}: {error}")
            raise

    async def ask(
        self,
        call: str,
        request: Struct,
        reply: type[T],
        *,
        tries: int = 8,
        at: Callable[[], str] | None = None,
        rng: random.Random | None = None,
    ) -> T:
        """As a patient person: asks again, at another server, with the same request id, until there is an answer. ``rng``
        is whose chance it takes. Raises the last error."""
        rng = rng or self.random
        request_id = self.request_id()
        for number in range(tries):
            up = [name for name, server in self.servers.items() if server.node is not None]
            name = at() if at is not None else rng.choice(up) if up else None
            try:
                if name is None:
                    raise LinkLost(peer="all servers")
                return await self.call(name, call, request, reply, request_id=request_id)
            except CasoError as error:
                if not error.retryable or number == tries - 1:
                    raise
            await asyncio.sleep(rng.uniform(0.5, 3.0))
        raise LinkLost(peer="all servers")

    @contextlib.asynccontextmanager
    async def closing(self) -> AsyncIterator[None]:
        """At the end everything is taken down."""
        try:
            yield
        finally:
            for link in self._links.values():
                await link.close()
            while self._starting:
                await asyncio.wait(list(self._starting.values()))
            for name in reversed(list(self.servers)):
                await self.stop(name)
            if self._zombies:
                await asyncio.wait(list(self._zombies.values()))

    def use_operator(self, state: Path) -> None:
        """Who the operator is, from a state folder."""
        identity = IdentityStore(StateFolder(state).identity)
        self.operator, self.mesh = identity.load_operator(), identity.load_mesh_id()


def _said(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)
