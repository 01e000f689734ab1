"""The composition root: builds a running node from its state folder. The only place that knows all rooms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from msgspec import Struct, structs

from caso_mesh import __version__
from caso_mesh.admin.catalogs import alert_of
from caso_mesh.admin.desks.means import Custody
from caso_mesh.admin.measures import Measures
from caso_mesh.admin.office import Office
from caso_mesh.admin.ports import Caller
from caso_mesh.admin.standby import Standby
from caso_mesh.api.router import Router
from caso_mesh.config import Config, load_config, write_config
from caso_mesh.consensus import Replicated, open_replicated
from caso_mesh.database import Database
from caso_mesh.discovery.sighting import Discovery, Sighting
from caso_mesh.founding import make_folder, newcomer_config, wait_for_approval
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.runner import Runner
from caso_mesh.journal import Journal
from caso_mesh.local.room import LocalRoom
from caso_mesh.machine import Ports, addresses_of, checked_listen
from caso_mesh.metrics.exposition import Seat as SeatReadings
from caso_mesh.metrics.listener import MetricsListener
from caso_mesh.metrics.meter import Meter
from caso_mesh.metrics.readiness import Readiness
from caso_mesh.model import telling as t
from caso_mesh.model.clock import WallCalendar
from caso_mesh.model.errors import StateMissing
from caso_mesh.model.ids import IdSource
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.model.presets import LINK_SILENCE_S
from caso_mesh.seat import Seat, Voter
from caso_mesh.server import joining
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.links import LinkBook
from caso_mesh.server.node import ServerNode
from caso_mesh.server.own_link import OwnLink
from caso_mesh.server.packets import Packets
from caso_mesh.server.queue import MIGRATIONS as QUEUE_MIGRATIONS
from caso_mesh.server.queue import Queue
from caso_mesh.server.resources import Resources
from caso_mesh.server.seating import Seating, tell_damaged, tell_lost, tell_member
from caso_mesh.server.trust import Trust
from caso_mesh.server.twins import Twins
from caso_mesh.server.vouching import ask_whom_to_trust
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.network import ServerTls, join_address, split_address

log = logging.getLogger(__name__)

#: How often it is looked whether the addresses of this machine's interfaces have changed.
_ADDRESSES_EACH_S = 5.0


def _endpoint(address: str) -> str:
    host, port = split_address(address)
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return join_address(local.get(host, host), port)


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
        local: LocalRoom,
        metrics: MetricsListener,
        resources: Resources | None,
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
        self.local = local
        self.metrics = metrics
        self._resources = resources
        self._discovery = discovery
        self._instance = instance

    @property
    def in_office(self) -> bool:
        return self.router.office is not None

    async def run(self) -> None:
        """Never returns; ends with the first part that fails. What stands on the log ends before the log does."""
        async with asyncio.TaskGroup() as below:
            below.create_task(self.seat.run_log())
            below.create_task(self.seat.miss())
            below.create_task(self.seat.mend())
            async with asyncio.TaskGroup() as group:
                group.create_task(self.seat.work(self.router))
                group.create_task(self.links.run())
                group.create_task(self.server.run())
                group.create_task(self.local.run())
                group.create_task(self.metrics.run())
                group.create_task(self._keep_addresses())
                if self._resources is not None:
                    group.create_task(self._resources.run())
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
    checked_listen(config.listen)
    if not joining.is_member(folder):
        raise StateMissing(state=folder.path)
    await asyncio.to_thread(folder.complete)
    async with AsyncExitStack() as stack:
        member = await _open_member(stack, folder, config, ports)
        trust, later = member.trust, _Later()
        runner = await stack.enter_async_context(ports.runner(folder))
        discovery = await stack.enter_async_context(ports.discovery(config))
        server = _server(member, runner, discovery, later)
        limits = Limits(heartbeat_s=LINK_SILENCE_S[config.preset])
        links = _links(member, server, later, limits)
        server.use_links(links)
        later.seat = seat = _seat(member, server, links, discovery)
        later.local = local = LocalRoom(
            node=server,
            folder=folder,
            journal=member.journal,
            identity=member.identity,
            clock=ports.clock,
            calendar=ports.calendar or WallCalendar(ports.clock),
            new_id=member.new_id,
            randomness=ports.randomness,
            same_thread=ports.same_thread,
        )
        server.on_orders, server.takeovers.on_claim = later.ordered, seat.fence
        stack.push_async_callback(seat.close)
        await seat.open()
        meter = Meter(server, office=later.measures, seat=later.readings)
        later.router = router = _router(member, server, seat, local, meter)
        links.own_link = OwnLink(server.own(), later)
        await stack.enter_async_context(links.closing())
        listener = await stack.enter_async_context(
            ports.network.listen(
                config.listen,
                tls=ServerTls(trust.server_tls),
                authorise=trust.authorise,
                handler=later,
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
            local=local,
            metrics=MetricsListener(config.metrics, meter, Readiness(server), server.facts, config.server),
            resources=None if ports.same_thread else Resources(server.facts, ports.file_systems),
            discovery=discovery,
            instance=links.twins.instance,
            addresses_now=lambda: addresses_of(config, listener.address),
        )


class _Member(Struct, frozen=True):
    """What lies in the state folder of a member, opened, and the ports."""

    folder: StateFolder
    config: Config
    identity: IdentityStore
    keys: NodeKeys
    queue: Queue
    orders: Orders
    journal: Journal
    trust: Trust
    ports: Ports
    new_id: IdSource


async def _open_member(stack: AsyncExitStack, folder: StateFolder, config: Config, ports: Ports) -> _Member:
    new_id, same = ports.id_source(), ports.same_thread
    identity = IdentityStore(folder.identity)
    keys = identity.load_keys()
    queue = Queue(
        await stack.enter_async_context(Database.open(folder.queue, QUEUE_MIGRATIONS, durable=True, same_thread=same))
    )
    orders = await queue.load_orders()
    if orders is None:
        raise StateMissing(state=folder.path)
    journal = await stack.enter_async_context(
        Journal.open(folder.journal, keys.id, clock=ports.clock, new_id=new_id, same_thread=same)
    )
    trust = Trust(ports.clock, identity.chain_path, identity.key_path)
    return _Member(folder, config, identity, keys, queue, orders, journal, trust, ports, new_id)


class _Later:
    """Stands in for what is made after those that call it: a server, its links and its listener come before its seat, the
    room of its own work, and the router that answers for all of them."""

    seat: Seat
    local: LocalRoom
    router: Router

    def in_office(self) -> bool:
        return self.seat.in_office()

    def authority(self) -> Authority | None:
        return self.seat.authority()

    def removed(self, by: str) -> None:
        self.local.removed(by)

    async def ordered(self, orders: Orders) -> None:
        await self.seat.ordered(orders)
        self.local.ordered(orders)

    def measures(self) -> Measures | None:
        office = self.router.office
        return office.overview.measures if isinstance(office, Office) else None

    def readings(self) -> SeatReadings:
        voter, in_office = self.seat.voter, self.router.office is not None
        if voter is None:
            return SeatReadings(in_office=False, voter=False, term=None, index=None)
        return SeatReadings(in_office, voter=True, term=voter.keeper.leadership.term, index=voter.keeper.position.index)

    async def call(self, link: object, method: str, params: object) -> object:
        return await self.router.call(link, method, params)

    async def notify(self, link: object, method: str, params: object) -> None:
        await self.router.notify(link, method, params)

    async def stream(self, link: object, method: str, params: object, stream: object) -> None:
        await self.router.stream(link, method, params, stream)


def _server(member: _Member, runner: Runner, discovery: Discovery | None, later: _Later) -> ServerNode:
    return ServerNode(
        folder=member.folder,
        config=member.config,
        keys=member.keys,
        identity=member.identity,
        orders=member.orders,
        queue=member.queue,
        journal=member.journal,
        trust=member.trust,
        runner=runner,
        discovery=discovery,
        clock=member.ports.clock,
        new_id=member.new_id,
        randomness=member.ports.randomness,
        version=__version__,
        in_office=later.in_office,
        authority=later.authority,
        same_thread=member.ports.same_thread,
    )


def _links(member: _Member, server: ServerNode, later: _Later, limits: Limits) -> LinkBook:
    packets = Packets(
        network=member.ports.network, trust=member.trust, handler=later, limits=limits, facts=server.facts,
        server=member.config.server, clock=member.ports.clock, jitter=member.ports.jitter,
    )  # fmt: skip
    return LinkBook(
        own=server.own,
        network=member.ports.network,
        trust=member.trust,
        handler=later,
        clock=member.ports.clock,
        version=__version__,
        greeting=server.greeting,
        wanted=server.wanted,
        partners=server.bearings.partners,
        voters=server.bearings.voters,
        twins=Twins(member.new_id(), member.ports.clock),
        concerns=server.bearings.concerns,
        claim=server.bearings.claim,
        learnt=server.learnt,
        before_hello=server.renew,
        after_hello=partial(ask_whom_to_trust, server),
        removed=later.removed,
        packets=packets.watch,
        jitter=member.ports.jitter,
        limits=limits,
    )


def _router(member: _Member, server: ServerNode, seat: Seat, local: LocalRoom, meter: Meter) -> Router:
    seating = Seating(
        identity=member.identity,
        is_admin=server.bearings.is_admin,
        root=lambda: server.orders.roster.anchors[0].certificate,
        prepare=seat.prepare,
        take=seat.take,
        hear=seat.hear,
        randomness=member.ports.randomness,
    )
    return Router(
        server_name=member.config.server,
        own=member.keys.id,
        local={**server.handlers(), **seating.handlers(), **seat.handlers(), **meter.handlers()},
        roster=lambda: seat.roster() or server.orders.roster,
        admin=server.admin_link,
        facts=server.facts,
        refusals=server.door.refusals,
        clock=member.ports.clock,
        caller=Caller,
        own_work=local.handlers(),
    )


class _Next:
    """The authority of a rotation that is announced lies beside the one in use."""

    def __init__(self, identity: IdentityStore) -> None:
        self.save = identity.save_next_authority
        self.take = identity.take_next_authority


def _seat(member: _Member, server: ServerNode, links: LinkBook, discovery: Discovery | None) -> Seat:
    folder, config, identity, keys, ports = member.folder, member.config, member.identity, member.keys, member.ports

    def root_key() -> bytes | None:
        return identity.load_authority().root_key_bytes() if identity.has_root_key else None

    async def open_log(stack: AsyncExitStack, joining: t.VoterBecome | None) -> Replicated:
        opening = open_replicated(
            folder.consensus,
            keys.id,
            lineage=joining.lineage if joining else 1,
            preset=joining.preset if joining else config.preset,
            joins=joining.founders if joining else (),
            anew=joining is not None,
            transport=partial(tell_member, links),
            jitter=ports.jitter,
            same_thread=ports.same_thread,
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
            custody=Custody(
                keys=keys,
                authority=voter.authority,
                id_key=identity.load_id_key(),
                root_key=root_key,
                drop_root_key=identity.remove_root_key,
                next_authority=_Next(identity),
            ),
            server_name=config.server,
            version=__version__,
            network=ports.network,
            discovery=discovery,
            static=lambda: (*config.peers, *server.bearings.static),
            addresses=lambda: server.addresses,
            followers=voter.followers,
            incoming=folder.catalog / "incoming",
            copies=folder.tables,
            clock=ports.clock,
            calendar=ports.calendar or WallCalendar(ports.clock),
            new_id=member.new_id,
            randomness=ports.randomness,
            credentials=server.kept.logons.credentials,
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
            own=keys.id,
            clock=ports.clock,
            randomness=ports.randomness,
            lost=lambda category, text: alert_of(server.facts, config.server, category, text),
        )

    seat = Seat(
        folder=folder,
        identity=identity,
        node=keys.id,
        same_thread=ports.same_thread,
        clock=ports.clock,
        open_log=open_log,
        make_office=make_office,
        make_standby=make_standby,
        on_lost=partial(tell_lost, server.facts, config.server, keys.id),
        on_damaged=partial(tell_damaged, server.facts, config.server),
        on_anew=links.begin_anew,
        on_office=server.office_changed,
    )
    server.kept.rebuilding.own.append(seat.write_detail)
    return seat


async def run_daemon(
    *,
    state: Path,
    peers: tuple[str, ...] = (),
    server: str | None = None,
    listen: str | None = None,
    advertise: tuple[str, ...] = (),
    preset: str = "lan",
    never_admin: bool = False,
    say: Callable[[str], None],
    ready: Callable[[], None] = lambda: None,
    ports: Ports | None = None,
) -> None:
    """The daemon, until it is cancelled. ``server`` and ``listen`` on a state folder without a mesh: a new server that
    waits to be found and approved. Raises what ``open_node`` raises, and ``StateLocked``."""
    ports = ports or Ports()
    folder = StateFolder(state)
    newcomer = None if joining.is_member(folder) else newcomer_config(folder, server, listen, advertise, preset)
    if newcomer is not None:
        make_folder(folder)
    with folder.locked():
        if newcomer is not None:
            _keep_port(folder, await wait_for_approval(folder, newcomer, peers, never_admin, say, ready, ports))
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
