"""Meshes whose nodes live in this process: ``MemoryMesh`` (links in memory, virtual time) and ``LiveMesh`` (real TLS)."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pytest
from mesh.clock import JumpingLoop, VirtualClock
from mesh.process import NAMES
from msgspec import Struct
from waiting import wait_for_async

from caso_mesh.config import load_config
from caso_mesh.daemon import Node, open_node
from caso_mesh.founding import init_mesh, join_mesh
from caso_mesh.identity.requests import sign_request
from caso_mesh.identity.store import IdentityStore
from caso_mesh.identity.tls import client_context
from caso_mesh.jobs.bulk_memory import MemoryHub
from caso_mesh.jobs.runner import Runner
from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.machine import Ports, SystemClock
from caso_mesh.model import browsing as b
from caso_mesh.model import nodes as n
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.server.folder import StateFolder
from caso_mesh.wire.codec import from_wire, pack, to_wire
from caso_mesh.wire.link import Link
from caso_mesh.wire.memory import MemoryEndpoint, MemoryNetwork
from caso_mesh.wire.network import ClientTls, Network
from caso_mesh.wire.typed import RefusesAll
from caso_mesh.wire.websocket import WebSocketNetwork

T = TypeVar("T", bound=Struct)


class InsideMesh:
    """What both kinds share. ``nodes`` are those that are up; ``states`` their folders."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self.nodes: dict[str, Node] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._links: dict[str, Link] = {}
        self._problems: list[str] = []

    # --- what the kinds differ in ---

    def ports(self, name: str, certificate: bytes | None) -> Ports:
        """What the node of ``name`` stands on; ``certificate`` once it has one."""
        raise NotImplementedError

    def listen(self, name: str) -> str:
        raise NotImplementedError

    def clock(self, name: str) -> Clock:
        raise NotImplementedError

    def _operator_network(self, name: str) -> tuple[Network, ClientTls | None]:
        raise NotImplementedError

    # --- making it ---

    def state(self, name: str) -> pathlib.Path:
        return self.folder / f"state-{name}"

    def _ports(self, name: str) -> Ports:
        identity = IdentityStore(StateFolder(self.state(name)).identity)
        return self.ports(name, identity.load_chain()[0])

    async def start(self, count: int, *, preset: str = "local", voters: bool = False) -> None:
        """A mesh of ``count`` servers, all of them connected; the first is the administrator, and stays the only voter
        unless ``voters``."""
        first = NAMES[0]
        await init_mesh(
            mesh="meadow",
            server=first,
            state=self.state(first),
            listen=self.listen(first),
            preset=preset,
            ports=self.ports(first, None),
        )
        self.names.append(first)
        node = await self.run(first)
        await wait_for_async(lambda: _is(node), 30.0, what=f"{first} is in office", every_s=0.01)
        for name in NAMES[1:count]:
            await self.join(name, preset=preset, voters=voters)
            await self.run(name)
        await self.wait_connected(*self.names)

    async def join(
        self,
        name: str,
        *,
        preset: str = "local",
        voters: bool = False,
        at: str = NAMES[0],
        by: str | None = None,
        replaces: str = "",
    ) -> None:
        """``at``: who is asked for the link, by whose operator ``by``. ``replaces``: in whose place."""
        link = (await self.call(at, "token.create", q.TokenCreate(), v.TokenView, by=by)).link
        await asyncio.sleep(0.01)  # nobody joins at the very instant of another one, also where time is virtual
        await join_mesh(
            link=link,
            server=replaces or name,
            state=self.state(name),
            listen=self.listen(name),
            preset=preset,
            never_admin=not voters,
            replaces=replaces,
            ports=self.ports(name, None),
        )
        self.names.append(name)

    async def run(self, name: str) -> Node:
        """Brings the node of ``name`` up."""
        up: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._running[name] = asyncio.create_task(self._live(name, up), name=f"node {name}")
        await asyncio.wait([up, self._running[name]], return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            up.cancel()
            await self._running.pop(name)
        self.nodes[name] = up.result()
        return up.result()

    async def _live(self, name: str, up: asyncio.Future[Node]) -> None:
        folder = StateFolder(self.state(name))
        with folder.locked():
            async with open_node(folder, self._ports(name)) as node:
                up.set_result(node)
                await node.run()

    async def stop(self, name: str) -> None:
        """Takes the node of ``name`` down."""
        self.nodes.pop(name, None)
        task = self._running.pop(name)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            self._problems.append(f"the node {name} failed: {task.exception()!r}")

    async def close(self) -> None:
        """Takes everything down. Raises ``AssertionError`` if a node had failed."""
        for link in self._links.values():
            await link.close()
        for name in reversed(list(self._running)):
            await self.stop(name)
        assert not self._problems, "; ".join(self._problems)

    # --- calls, as the local operator of a server ---

    async def call(
        self,
        name: str,
        call: str,
        request: Struct,
        reply: type[T],
        *,
        timeout_s: float = 15.0,
        by: str | None = None,
        id: str | None = None,
    ) -> T:
        """The answer to a call of the table, asked at ``name`` by the operator of its state folder, or of that of ``by``. ``id``: of
        a request that is made again."""
        link = self._links.get(f"{name} {by}")
        if link is None or link.closed:
            network, tls = self._operator_network(by or name)
            link = self._links[f"{name} {by}"] = await network.dial(
                self.nodes[name].address, tls=tls, authorise=lambda certificate: name, handler=RefusesAll()
            )
        params = self.signed(by or name, call, request, timeout_s=timeout_s, id=id)
        return from_wire(await link.call("call.signed", params, timeout_s=timeout_s + 1.0), reply)

    async def hang_up(self) -> None:
        """The next call of each operator comes over a new link, with the certificate that he has then."""
        for link in self._links.values():
            await link.close()

    def signed(self, name: str, call: str, request: Struct, *, timeout_s: float = 15.0, id: str | None = None) -> Any:
        """A call as the operator of the state folder of ``name`` signs it."""
        identity = IdentityStore(StateFolder(self.state(name)).identity)
        signed = sign_request(
            identity.load_operator().key,
            mesh=identity.load_mesh_id(),
            call=call,
            params=pack(to_wire(request)),
            request_id=id or uuid.uuid4().hex,
            now_ns=self.clock(name).now_ns(),
        )
        params = n.SignedCall(
            signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns, signed.signature, timeout_s
        )
        return to_wire(params)

    async def wait_connected(self, *names: str, at: str = NAMES[0], timeout_s: float = 30.0) -> None:
        """Until ``at`` sees all of ``names`` connected and at work."""

        async def connected() -> bool:
            servers = {row.name: row for row in await self.servers(at)}
            return all(
                name in servers and servers[name].connected and servers[name].state == "enabled" for name in names
            )

        await wait_for_async(connected, timeout_s, what=f"{at} is linked with {', '.join(names)}", every_s=0.05)

    async def servers(self, at: str = NAMES[0]) -> tuple[v.ServerView, ...]:
        return (await self.call(at, "server.list", q.ServerListRequest(), v.ServerList)).servers

    async def sets(self, at: str = NAMES[0]) -> tuple[b.SetView, ...]:
        return (await self.call(at, "set.list", q.SetListRequest(), b.SetList)).sets

    async def jobs(self, at: str = NAMES[0], state: str | None = None) -> tuple[o.JobView, ...]:
        return (await self.call(at, "job.list", q.JobListRequest(state), o.JobList)).jobs

    async def add_device(self, server: str, name: str | None = None) -> v.DeviceView:
        """A new folder of ``server`` as a device, ``disk-SERVER`` by default."""
        name = name or f"disk-{server}"
        folder = self.folder / name
        folder.mkdir()
        return await self.call(NAMES[0], "device.add", q.DeviceAdd(name, "disk", {server: str(folder)}), v.DeviceView)

    async def add_pool(self, name: str, *servers: str) -> v.PoolView:
        return await self.call(NAMES[0], "pool.create", q.PoolEdit(name, servers), v.PoolView)

    async def backup(self, source: str, path: pathlib.Path, target: str, **more: Any) -> o.Submitted:
        request = q.BackupRequest(sources=((source, bytes(path)),), target=target, **more)
        return await self.call(NAMES[0], "backup", request, o.Submitted)

    async def result(self, run: str, *, at: str = NAMES[0], timeout_s: float = 600.0) -> o.RunResult:
        """What became of a run, once it is closed."""

        async def closed() -> o.RunResult | None:
            return (await self.call(at, "run.follow", q.RunFollow(run), o.RunProgress, timeout_s=60.0)).result

        return await wait_for_async(closed, timeout_s, what=f"{run} is closed", every_s=0.2)  # type: ignore[return-value]


async def _is(node: Node) -> bool:
    return node.in_office


class MemoryMesh(InsideMesh):
    """Links in memory, virtual time, databases in the loop's thread, attempts as threads. ``network`` cuts and delays;
    ``endpoint(name)`` names a server to it, ``clocks[name]`` can be set wrong."""

    def __init__(self, folder: pathlib.Path, loop: JumpingLoop, *, seed: int = 0) -> None:
        super().__init__(folder)
        self._loop = loop
        self._random = random.Random(seed)
        self.network = MemoryNetwork(seed=seed)
        self.clocks: dict[str, VirtualClock] = {}
        self._endpoints: dict[str, MemoryEndpoint] = {}
        self._hub = MemoryHub()
        self._started_ns: dict[str, int] = {}

    def clock(self, name: str) -> VirtualClock:
        return self.clocks.setdefault(name, VirtualClock(self._loop))

    def endpoint(self, name: str) -> MemoryEndpoint:
        """A server's end of the network, once it is a member."""
        return self._endpoints[name]

    def listen(self, name: str) -> str:
        return f"{name}:7300"

    def ports(self, name: str, certificate: bytes | None) -> Ports:
        if certificate is None:
            endpoint = self.network.endpoint(None, name=f"{name} as a newcomer")
        else:
            known = self._endpoints.get(name)
            endpoint = known if known is not None else self.network.endpoint(certificate, name=name)
            endpoint.certificate = certificate
            self._endpoints[name] = endpoint
        clock = self.clock(name)

        @contextlib.asynccontextmanager
        async def runner(folder: StateFolder) -> AsyncIterator[Runner]:
            yield ThreadRunner(clock=clock, busy=self._loop.busy, hub=self._hub, started_ns=self._started_ns)

        return Ports(
            network=endpoint,
            clock=clock,
            randomness=self._random.randbytes,
            runner=runner,
            discovery=lambda config: contextlib.nullcontext(None),
            jitter=random.Random(self._random.random()),
            same_thread=True,
        )

    async def run(self, name: str) -> Node:
        node = await super().run(name)
        # as a context of TLS does, its end of the network shows what lies in the folder
        trust, endpoint, renewed = node.server.trust, self._endpoints[name], node.server.trust.renewed

        def show() -> None:
            renewed()
            endpoint.certificate = IdentityStore(StateFolder(self.state(name)).identity).load_chain()[0]

        trust.renewed = show  # type: ignore[method-assign]
        return node

    def _operator_network(self, name: str) -> tuple[Network, ClientTls | None]:
        operator = IdentityStore(StateFolder(self.state(name)).identity).load_operator()
        return self.network.endpoint(operator.chain[0], name=f"operator of {name}"), None


class LiveMesh(InsideMesh):
    """Real time, real TLS on loopback, databases in their threads; attempts as threads."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._hub = MemoryHub()
        self._clock = SystemClock()

    def clock(self, name: str) -> Clock:
        return self._clock

    def listen(self, name: str) -> str:
        path = StateFolder(self.state(name)).config
        return load_config(path).listen if path.exists() else "127.0.0.1:0"

    def ports(self, name: str, certificate: bytes | None) -> Ports:
        @contextlib.asynccontextmanager
        async def runner(folder: StateFolder) -> AsyncIterator[Runner]:
            yield ThreadRunner(clock=self._clock, hub=self._hub)

        return Ports(runner=runner, discovery=lambda config: contextlib.nullcontext(None))

    def _operator_network(self, name: str) -> tuple[Network, ClientTls | None]:
        identity = IdentityStore(StateFolder(self.state(name)).identity)
        operator, anchors = identity.load_operator(), identity.load_anchors()
        tls = ClientTls(lambda: client_context(operator.chain_path, operator.key_path, anchors))
        return WebSocketNetwork(), tls


def jumping_loop() -> JumpingLoop:
    """The loop of a test that asks for a mesh in memory."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, JumpingLoop):
        pytest.fail("a mesh in memory needs virtual time: mark the test with @pytest.mark.jumping", pytrace=False)
    return loop
