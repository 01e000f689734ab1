"""The composition root: builds a node from its state folder. The only place that knows all rooms."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from caso_mesh import __version__
from caso_mesh.admin.enrolment import local_operator_name
from caso_mesh.admin.office import Office
from caso_mesh.admin.ports import Caller
from caso_mesh.admin.standby import Standby
from caso_mesh.api.router import Router
from caso_mesh.config import Config, load_config, write_config
from caso_mesh.consensus import Replicated, elected, open_replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.orders import orders_for
from caso_mesh.database import Database
from caso_mesh.discovery.mdns import interface_addresses, open_mdns
from caso_mesh.discovery.sighting import Discovery, Sighting
from caso_mesh.identity.authority import Authority as IssuingAuthority
from caso_mesh.identity.enrolment import Newcomer as Described
from caso_mesh.identity.enrolment import newcomer_chain, server_row
from caso_mesh.identity.external import load_external
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.nursery_runner import NurseryRunner
from caso_mesh.jobs.runner import Runner
from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Calendar, Clock, Randomness, WallCalendar
from caso_mesh.model.commands import FoundMesh
from caso_mesh.model.errors import CannotListen, InvalidValue, StateMissing, StateNotEmpty, TakenOver
from caso_mesh.model.ids import IdSource, check_name, make_id_source
from caso_mesh.model.mesh import MeshInfo, Operator
from caso_mesh.model.orders import Authority
from caso_mesh.model.presets import LINK_SILENCE_S
from caso_mesh.model.states import AlertKind, Liveness, Role
from caso_mesh.model.storage import FACTORY_MEDIA_SETS
from caso_mesh.seat import Seat, Voter
from caso_mesh.server import joining
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.links import LinkBook, OwnLink
from caso_mesh.server.node import ServerNode
from caso_mesh.server.queue import MIGRATIONS as QUEUE_MIGRATIONS
from caso_mesh.server.queue import Queue
from caso_mesh.server.seating import Seating
from caso_mesh.server.trust import Trust
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.network import Network, ServerTls, join_address, split_address
from caso_mesh.wire.websocket import WebSocketNetwork

log = logging.getLogger(__name__)

#: How often it is looked whether the addresses of this machine's interfaces have changed.
_ADDRESSES_EACH_S = 5.0


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


def _nursery(folder: StateFolder) -> AbstractAsyncContextManager[Runner]:
    return NurseryRunner(lock_path=folder.run / "workers.lock")


def _discovery(config: Config) -> AbstractAsyncContextManager[Discovery | None]:
    host, _ = split_address(config.listen)
    if not config.discovery.mdns or host.startswith("127.") or host in {"localhost", "::1"}:
        return nullcontext(None)
    return open_mdns(interfaces=config.discovery.interfaces or None)


@dataclass(frozen=True)
class Ports:
    """What a node stands on in the world. The defaults are the real ones; tests put others in their place."""

    network: Network = field(default_factory=WebSocketNetwork)
    clock: Clock = field(default_factory=SystemClock)
    randomness: Randomness = os.urandom
    runner: Callable[[StateFolder], AbstractAsyncContextManager[Runner]] = _nursery
    discovery: Callable[[Config], AbstractAsyncContextManager[Discovery | None]] = _discovery
    jitter: random.Random = field(default_factory=random.Random)
    same_thread: bool = False
    #: Of another speed only in tests of long runs.
    calendar: Calendar | None = None

    def id_source(self) -> IdSource:
        return make_id_source(self.clock.now_ns, self.randomness)


def addresses_of(config: Config, address: str) -> tuple[str, ...]:
    """Where others reach a server that listens at ``address``: as configured, else at its interfaces."""
    if config.advertise:
        return config.advertise
    host, port = split_address(address)
    if host not in {"0.0.0.0", "::"}:
        return (address,)
    found = [each for _, each in sorted(interface_addresses(None)) if not each.startswith("127.")]
    return tuple(join_address(each, port) for each in found) or (join_address("127.0.0.1", port),)


def _endpoint(address: str) -> str:
    host, port = split_address(address)
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return join_address(local.get(host, host), port)


def _checked_listen(listen: str) -> str:
    try:
        split_address(listen)
    except ValueError as error:
        raise CannotListen(address=listen, detail=error) from None
    return listen


def _known_addresses(config: Config) -> tuple[str, ...]:
    """Addresses before the listener is up: none while the port is still to be found."""
    return () if split_address(config.listen)[1] == 0 and not config.advertise else addresses_of(config, config.listen)


# --- making and joining a mesh ---------------------------------------------------------------------------------------


async def init_mesh(
    *,
    mesh: str,
    server: str,
    state: Path,
    listen: str,
    advertise: tuple[str, ...] = (),
    preset: str = "lan",
    ca: Path | None = None,
    ports: Ports | None = None,
) -> None:
    """A new mesh of one, with its operator's certificate. ``ca``: a folder as ``certs/README.md`` says. Interrupted at
    any place, it may be repeated.

    Raises ``StateNotEmpty``, ``StateLocked``, ``StateTooNew``, ``InvalidName``, ``InvalidValue``, ``CannotListen``,
    ``CaUnusable``.
    """
    ports = ports or Ports()
    check_name(mesh, "mesh")
    config = _config(server, listen, advertise, preset)
    folder = StateFolder(state)
    if joining.is_member(folder):
        raise StateNotEmpty(state=state, server=load_config(folder.config).server)
    _make_folder(folder)
    with folder.locked():
        if folder.version.exists():
            folder.check_version()
        await _found(folder, config, mesh, ca, ports)


def _make_folder(folder: StateFolder) -> None:
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidValue(value=folder.path, what="state folder", expected=f"{error.strerror}") from None


async def _found(folder: StateFolder, config: Config, mesh: str, ca: Path | None, ports: Ports) -> None:
    """The log of the mesh is made under another name, and gets its own when all else is there: what an interrupted try
    left is told from a real mesh whose identity was lost."""
    new_id, now_ns = ports.id_source(), ports.clock.now_ns()
    server, preset = config.server, config.preset
    draft = folder.consensus.with_name("consensus.new.db")
    if folder.consensus.exists():
        await _finish_founding(folder, ports)
        raise StateNotEmpty(state=folder.path, server=server)
    for left in folder.path.glob(f"{draft.name}*"):
        left.unlink()
    identity, keys = await asyncio.to_thread(joining.new_state, folder, config, ports.randomness)
    mesh_id = new_id()
    if ca is not None:
        authority = load_external(ca, voter=keys.id, mesh_name=mesh, now_ns=now_ns, randomness=ports.randomness)
    else:
        authority = IssuingAuthority.create(
            mesh_id=mesh_id, mesh_name=mesh, voter=keys.id, now_ns=now_ns, randomness=ports.randomness
        )
    operator_key, id_key = SigningKey.create(ports.randomness), ports.randomness(32)
    info = MeshInfo(
        id=mesh_id,
        name=mesh,
        created_at_ns=now_ns,
        chunker_seed=int.from_bytes(ports.randomness(8), "big") >> 1,
    )
    described = Described(
        name=server,
        public_key=keys.public_key,
        encryption_key=keys.encryption_key,
        addresses=_known_addresses(config),
        preset=preset,
        version=__version__,
    )
    row = structs.replace(
        server_row(described, id_key=id_key, mesh=mesh_id, now_ns=now_ns, randomness=ports.randomness),
        voter=True,
        liveness=Liveness.ALIVE,
        ever_linked=True,
    )
    operator = Operator(
        name=local_operator_name(server, keys.id),
        id=operator_key.id,
        public_key=operator_key.public_key,
        role=Role.ADMIN,
        created_at_ns=now_ns,
        home=keys.id,
    )
    found = FoundMesh(info, tuple(authority.anchors(keys.id)), row, (operator,), FACTORY_MEDIA_SETS)

    def write_identity() -> None:
        chain = newcomer_chain(authority, keys.public_key, now_ns=now_ns, randomness=ports.randomness)
        identity.save_chain(tuple(chain))
        identity.save_anchors(tuple(anchor.certificate for anchor in found.anchors))
        identity.save_id_key(id_key)
        identity.save_authority(authority)
        operator_chain = authority.chain(
            authority.issue_operator(operator_key.public_key, now_ns=now_ns, randomness=ports.randomness)
        )
        identity.write_operator(operator_key, tuple(operator_chain))

    await asyncio.to_thread(write_identity)
    opening_log = open_replicated(draft, keys.id, preset=preset, jitter=ports.jitter, same_thread=ports.same_thread)
    async with opening_log as consensus:
        keeper = ControlKeeper(consensus)
        async with asyncio.TaskGroup() as group:
            leading, applying = group.create_task(consensus.run()), group.create_task(keeper.run())
            await elected(consensus)
            await keeper.submit(found, who="init", request_id=f"found-{mesh_id}", at_ns=now_ns)
            orders = orders_for(
                keeper.state, keys.id, keeper.authority, keys.id, lambda source: (), lambda attempt, run: b""
            )
            applying.cancel()
            leading.cancel()
    opening = Database.open(folder.queue, QUEUE_MIGRATIONS, durable=True, same_thread=ports.same_thread)
    async with opening as database:
        await Queue(database).save_orders(orders)
    await asyncio.to_thread(_keep_log, draft, folder.consensus)
    await asyncio.to_thread(identity.save_mesh_id, mesh_id)


def _keep_log(draft: Path, log_path: Path) -> None:
    os.replace(draft, log_path)
    descriptor = os.open(log_path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _finish_founding(folder: StateFolder, ports: Ports) -> None:
    """The last step, if it is the only one that is missing: the mesh is there then."""
    if not (folder.queue.exists() and folder.identity.is_dir()):
        return
    opening = Database.open(folder.queue, QUEUE_MIGRATIONS, durable=True, same_thread=ports.same_thread)
    async with opening as database:
        orders = await Queue(database).load_orders()
    identity = IdentityStore(folder.identity)
    if orders is not None and identity.load_keys().id == orders.server.id:
        await asyncio.to_thread(identity.save_mesh_id, orders.roster.mesh.id)


def _config(server: str, listen: str, advertise: tuple[str, ...], preset: str) -> Config:
    check_name(server, "server")
    if preset not in {"local", "lan", "wan"}:
        raise InvalidValue(value=preset, what="preset", expected="Use local, lan or wan")
    for address in advertise:
        try:
            split_address(address)
        except ValueError as error:
            raise InvalidValue(value=address, what="address", expected=str(error).capitalize()) from None
    return Config(server=server, listen=_checked_listen(listen), advertise=advertise, preset=preset)  # type: ignore[arg-type]


async def join_mesh(
    *,
    link: str,
    server: str,
    state: Path,
    listen: str,
    advertise: tuple[str, ...] = (),
    preset: str = "lan",
    never_admin: bool = False,
    replaces: str = "",
    ports: Ports | None = None,
) -> str:
    """Joins the mesh of a join link; returns the mesh's name. Raises as ``server.joining.join_by_link``."""
    ports = ports or Ports()
    config = _config(server, listen, advertise, preset)
    return await joining.join_by_link(
        link,
        folder=StateFolder(state),
        config=config,
        addresses=_known_addresses(config),
        never_admin=never_admin,
        replaces=replaces,
        network=ports.network,
        clock=ports.clock,
        randomness=ports.randomness,
        same_thread=ports.same_thread,
        version=__version__,
    )


# --- running ---------------------------------------------------------------------------------------------------------


class Node:
    """A server that is up: listening, not yet working. ``run`` works until it is cancelled."""

    def __init__(
        self,
        *,
        server: ServerNode,
        links: LinkBook,
        router: Router,
        address: str,
        seat: Seat,
        discovery: Discovery | None,
        instance: str,
        addresses_now: Callable[[], tuple[str, ...]],
    ) -> None:
        self._addresses_now = addresses_now
        self.server = server
        self.links = links
        self.router = router
        self.address = address
        self.seat = seat
        self._discovery = discovery
        self._instance = instance

    @property
    def in_office(self) -> bool:
        return self.router.office is not None

    async def run(self) -> None:
        """Never returns; ends with the first part that fails. What stands on the log ends before the log does."""
        async with asyncio.TaskGroup() as below:
            below.create_task(self.seat.run_log())
            async with asyncio.TaskGroup() as group:
                group.create_task(self.seat.work(self.router))
                group.create_task(self.links.run())
                group.create_task(self.server.run())
                group.create_task(self._keep_addresses())
                if self._discovery is not None:
                    await self._announce(self._discovery)

    async def _keep_addresses(self) -> None:
        """A server may change its address while it runs: those who look for it are to find the new one. Never
        returns."""
        while True:
            await asyncio.sleep(_ADDRESSES_EACH_S)
            found = self._addresses_now()
            if found == self.server.addresses or split_address(found[0])[0].startswith("127."):
                continue  # without any interface it keeps those that it had: it may get them back
            log.info("this server is reached at %s now", ", ".join(found))
            self.server.addresses = found
            if self._discovery is not None:
                await self._announce(self._discovery)
            await self.links.prove()

    async def _announce(self, discovery: Discovery) -> None:
        await discovery.announce(
            Sighting(
                mesh=self.server.orders.roster.mesh.id,
                node=self.server.keys.id,
                name=self.server.config.server,
                addresses=self.server.addresses,
                version=__version__,
                instance=self._instance,
                discovered_by="mdns",
            )
        )


@asynccontextmanager
async def open_node(folder: StateFolder, ports: Ports, *, extra_peers: tuple[str, ...] = ()) -> AsyncIterator[Node]:
    """Brings a member up: its databases, its workers' nursery, its listener. Everything ends with the context.

    Raises ``StateMissing``, ``StateTooNew``, ``StateDamaged``, ``ConfigInvalid``, ``PortInUse``, ``CannotListen``.
    The caller holds the lock of the folder.
    """
    folder.check_version()
    config = load_config(folder.config)
    config = structs.replace(config, peers=(*config.peers, *extra_peers))
    _checked_listen(config.listen)
    if not joining.is_member(folder):
        raise StateMissing(state=folder.path)
    await asyncio.to_thread(folder.complete)
    new_id, same = ports.id_source(), ports.same_thread
    identity = IdentityStore(folder.identity)
    keys: NodeKeys = identity.load_keys()
    async with AsyncExitStack() as stack:
        queue = Queue(
            await stack.enter_async_context(
                Database.open(folder.queue, QUEUE_MIGRATIONS, durable=True, same_thread=same)
            )
        )
        orders = await queue.load_orders()
        if orders is None:
            raise StateMissing(state=folder.path)
        journal = await stack.enter_async_context(
            Journal.open(folder.journal, keys.id, clock=ports.clock, new_id=new_id, same_thread=same)
        )
        trust = Trust(ports.clock, identity.chain_path, identity.key_path)
        runner = await stack.enter_async_context(ports.runner(folder))
        discovery = await stack.enter_async_context(ports.discovery(config))
        seat: Seat

        def in_office() -> bool:
            return seat.in_office()

        def authority() -> Authority | None:
            return seat.authority()

        server = ServerNode(
            folder=folder,
            config=config,
            keys=keys,
            identity=identity,
            orders=orders,
            queue=queue,
            journal=journal,
            trust=trust,
            runner=runner,
            discovery=discovery,
            clock=ports.clock,
            new_id=new_id,
            randomness=ports.randomness,
            version=__version__,
            in_office=in_office,
            authority=authority,
        )
        handler, limits = _Handler(), Limits(heartbeat_s=LINK_SILENCE_S[config.preset])
        links = LinkBook(
            own=server.own,
            network=ports.network,
            trust=trust,
            handler=handler,
            clock=ports.clock,
            version=__version__,
            greeting=server.greeting,
            wanted=server.wanted,
            partners=server.bearings.partners,
            claim=server.bearings.claim,
            learnt=server.learnt,
            before_hello=server.renew,
            jitter=ports.jitter,
            limits=limits,
        )
        server.use_links(links)
        seat = _seat(folder, identity, keys, server, links, discovery, ports, new_id)
        server.on_orders, server.takeovers.on_claim = seat.ordered, seat.fence
        stack.push_async_callback(seat.close)
        await seat.open()
        seating = Seating(
            identity=identity,
            is_admin=server.bearings.is_admin,
            root=lambda: server.orders.roster.anchors[0].certificate,
            take=seat.take,
            hear=seat.hear,
            randomness=ports.randomness,
        )
        handler.router = router = Router(
            server_name=config.server,
            own=keys.id,
            local={**server.handlers(), **seating.handlers(), **seat.handlers()},
            roster=lambda: seat.roster() or server.orders.roster,
            admin=server.admin_link,
            facts=server.facts,
            refusals=server.door.refusals,
            clock=ports.clock,
            caller=Caller,
        )
        links.own_link = OwnLink(server.own(), handler)
        await stack.enter_async_context(links.closing())
        listener = await stack.enter_async_context(
            ports.network.listen(
                config.listen,
                tls=ServerTls(trust.server_tls),
                authorise=trust.authorise,
                handler=handler,
                on_refusal=server.door.at_listener,
                worker_for=server.attempts.bulk_channel,
                limits=limits,
            )
        )
        server.addresses = addresses_of(config, listener.address)
        await server.prepare()
        await asyncio.to_thread(folder.write_endpoint, _endpoint(listener.address))
        stack.callback(folder.endpoint.unlink, missing_ok=True)
        yield Node(
            server=server,
            links=links,
            router=router,
            address=listener.address,
            seat=seat,
            discovery=discovery,
            instance=new_id(),
            addresses_now=lambda: addresses_of(config, listener.address),
        )


class _Handler:
    """Stands in for the router while it is being made: a listener needs its handler first."""

    router: Router

    async def call(self, link: object, method: str, params: object) -> object:
        return await self.router.call(link, method, params)

    async def notify(self, link: object, method: str, params: object) -> None:
        await self.router.notify(link, method, params)

    async def stream(self, link: object, method: str, params: object, stream: object) -> None:
        await self.router.stream(link, method, params, stream)


def _seat(
    folder: StateFolder,
    identity: IdentityStore,
    keys: NodeKeys,
    server: ServerNode,
    links: LinkBook,
    discovery: Discovery | None,
    ports: Ports,
    new_id: IdSource,
) -> Seat:
    same = ports.same_thread

    def root_key() -> bytes | None:
        return identity.load_authority().root_key_bytes() if identity.has_root_key else None

    async def open_log(stack: AsyncExitStack, joining: q.VoterBecome | None) -> Replicated:
        opening = open_replicated(
            folder.consensus,
            keys.id,
            lineage=joining.lineage if joining else 1,
            preset=joining.preset if joining else server.config.preset,
            joins=joining.founders if joining else (),
            transport=server.tell_voter,
            jitter=ports.jitter,
            same_thread=same,
        )
        return await stack.enter_async_context(opening)

    def make_office(voter: Voter) -> Office:
        return Office(
            keeper=voter.keeper,
            consensus=voter.consensus,
            tables=voter.tables,
            catalog=voter.catalog,
            links=links,
            facts=server.facts,
            keys=keys,
            server_name=server.config.server,
            version=__version__,
            authority=voter.authority,
            id_key=identity.load_id_key(),
            root_key=root_key,
            drop_root_key=identity.remove_root_key,
            network=ports.network,
            discovery=discovery,
            addresses=lambda: server.addresses,
            followers=voter.followers,
            incoming=folder.catalog / "incoming",
            copies=folder.tables,
            clock=ports.clock,
            calendar=ports.calendar or WallCalendar(ports.clock),
            new_id=new_id,
            randomness=ports.randomness,
        )

    def make_standby(voter: Voter) -> Standby:
        return Standby(
            keeper=voter.keeper,
            tables=voter.tables,
            catalog=voter.catalog,
            incoming=folder.catalog / "incoming",
            copies=folder.tables,
            admin=server.admin_link.get,
            wait_admin=server.wait_admin,
            clock=ports.clock,
        )

    async def lost(error: BaseException) -> None:
        name = server.config.server
        text = f"{name} takes part in no decision of the mesh any more: {error}"
        if isinstance(error, TakenOver):
            # told once, however often it is started before the one that took over reaches it
            id_ = f"voter-lost-{error.fields['lineage']}"
            await server.facts.append(facts.AlertRaised(id_, AlertKind.WARNING, "voter-lost", text, object=name))
        else:
            await server.facts.alert(AlertKind.ERROR, "voter-lost", text, object=name)

    return Seat(
        folder=folder,
        identity=identity,
        node=keys.id,
        same_thread=same,
        clock=ports.clock,
        open_log=open_log,
        make_office=make_office,
        make_standby=make_standby,
        on_lost=lost,
    )


async def run_daemon(
    *,
    state: Path,
    peers: tuple[str, ...] = (),
    server: str | None = None,
    listen: str | None = None,
    never_admin: bool = False,
    say: Callable[[str], None],
    ready: Callable[[], None] = lambda: None,
    ports: Ports | None = None,
) -> None:
    """The daemon, until it is cancelled. ``server`` and ``listen`` on a state folder without a mesh: a new server that
    waits to be found and approved. Raises what ``open_node`` raises, and ``StateLocked``."""
    ports = ports or Ports()
    folder = StateFolder(state)
    newcomer = None if joining.is_member(folder) else _newcomer_config(folder, server, listen)
    if newcomer is not None:
        _make_folder(folder)
    with folder.locked():
        if newcomer is not None:
            _keep_port(folder, await _wait_for_approval(folder, newcomer, peers, never_admin, say, ready, ports))
        async with open_node(folder, ports, extra_peers=peers) as node:
            _keep_port(folder, node.address)
            say(f"{node.server.config.server} listens at {node.address}")
            ready()
            await node.run()


def _keep_port(folder: StateFolder, address: str) -> None:
    """A port that was found (``listen`` with port 0) is kept: others were told it, and come back to it."""
    config = load_config(folder.config)
    host, port = split_address(config.listen)
    if port == 0:
        write_config(folder.config, structs.replace(config, listen=join_address(host, split_address(address)[1])))


def _newcomer_config(folder: StateFolder, server: str | None, listen: str | None) -> Config:
    """Of a new server without a link: from the options, or from its file when it is started again."""
    if server is None and listen is None and folder.config.exists():
        return load_config(folder.config)
    if server is None or listen is None:
        raise StateMissing(state=folder.path)
    return _config(server, listen, (), "lan")


async def _wait_for_approval(
    folder: StateFolder,
    config: Config,
    peers: tuple[str, ...],
    never_admin: bool,
    say: Callable[[str], None],
    ready: Callable[[], None],
    ports: Ports,
) -> str:
    async with ports.discovery(config) as discovery:
        return await joining.wait_for_approval(
            folder=folder,
            config=structs.replace(config, peers=peers or config.peers),
            network=ports.network,
            discovery=discovery,
            addresses_of=lambda address: addresses_of(config, address),
            clock=ports.clock,
            randomness=ports.randomness,
            instance=ports.id_source()(),
            version=__version__,
            never_admin=never_admin,
            say=say,
            ready=ready,
        )
