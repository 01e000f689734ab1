"""The composition root: builds a running node from its state folder. The only place that knows all rooms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from msgspec import structs

from caso_mesh import __version__
from caso_mesh.admin.catalogs import alert_of
from caso_mesh.admin.desks.means import Custody
from caso_mesh.admin.office import Office
from caso_mesh.admin.ports import Caller
from caso_mesh.admin.standby import Standby
from caso_mesh.api.router import Router
from caso_mesh.config import load_config, write_config
from caso_mesh.consensus import Replicated, open_replicated
from caso_mesh.database import Database
from caso_mesh.discovery.sighting import Discovery, Sighting
from caso_mesh.founding import make_folder, newcomer_config, wait_for_approval
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.store import IdentityStore
from caso_mesh.journal import Journal
from caso_mesh.local.room import LocalRoom
from caso_mesh.machine import Ports, addresses_of, checked_listen
from caso_mesh.metrics.exposition import Seat as SeatReadings
from caso_mesh.metrics.listener import MetricsListener
from caso_mesh.metrics.meter import Meter
from caso_mesh.metrics.readiness import Readiness
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.clock import WallCalendar
from caso_mesh.model.errors import StateDamaged, StateMissing, TakenOver
from caso_mesh.model.ids import IdSource, local_id
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.model.presets import LINK_SILENCE_S
from caso_mesh.model.states import AlertKind
from caso_mesh.seat import Seat, Voter
from caso_mesh.server import joining
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.links import LinkBook, OwnLink
from caso_mesh.server.node import ServerNode
from caso_mesh.server.queue import MIGRATIONS as QUEUE_MIGRATIONS
from caso_mesh.server.queue import Queue
from caso_mesh.server.resources import Resources
from caso_mesh.server.seating import Seating, tell_member
from caso_mesh.server.trust import Trust
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
        local: LocalRoom

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
            same_thread=same,
        )

        def removed(by: str) -> None:
            local.removed(by)

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
            concerns=server.bearings.concerns,
            claim=server.bearings.claim,
            learnt=server.learnt,
            before_hello=server.renew,
            after_hello=partial(ask_whom_to_trust, server),
            removed=removed,
            jitter=ports.jitter,
            limits=limits,
        )
        server.use_links(links)
        seat = _seat(folder, identity, keys, server, links, discovery, ports, new_id)
        local = LocalRoom(
            node=server,
            folder=folder,
            journal=journal,
            identity=identity,
            clock=ports.clock,
            calendar=ports.calendar or WallCalendar(ports.clock),
            new_id=new_id,
            randomness=ports.randomness,
            same_thread=same,
        )

        async def ordered(orders: Orders) -> None:
            await seat.ordered(orders)
            local.ordered(orders)

        server.on_orders, server.takeovers.on_claim = ordered, seat.fence
        stack.push_async_callback(seat.close)
        await seat.open()
        seating = Seating(
            identity=identity,
            is_admin=server.bearings.is_admin,
            root=lambda: server.orders.roster.anchors[0].certificate,
            prepare=seat.prepare,
            take=seat.take,
            hear=seat.hear,
            randomness=ports.randomness,
        )
        meter = Meter(
            server,
            office=lambda: (
                handler.router.office.overview.measures if isinstance(handler.router.office, Office) else None
            ),
            seat=lambda: _seat_readings(seat, handler.router.office is not None),
        )
        handler.router = router = Router(
            server_name=config.server,
            own=keys.id,
            local={**server.handlers(), **seating.handlers(), **seat.handlers(), **meter.handlers()},
            roster=lambda: seat.roster() or server.orders.roster,
            admin=server.admin_link,
            facts=server.facts,
            refusals=server.door.refusals,
            clock=ports.clock,
            caller=Caller,
            own_work=local.handlers(),
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
            local=local,
            metrics=MetricsListener(config.metrics, meter, Readiness(server), server.facts, config.server),
            resources=None if same else Resources(server.facts, ports.file_systems),
            discovery=discovery,
            instance=new_id(),
            addresses_now=lambda: addresses_of(config, listener.address),
        )


def _seat_readings(seat: Seat, in_office: bool) -> SeatReadings:
    voter = seat.voter
    if voter is None:
        return SeatReadings(in_office=False, voter=False, term=None, index=None)
    return SeatReadings(in_office, voter=True, term=voter.keeper.leadership.term, index=voter.keeper.position.index)


class _Handler:
    """Stands in for the router while it is being made: a listener needs its handler first."""

    router: Router

    async def call(self, link: object, method: str, params: object) -> object:
        return await self.router.call(link, method, params)

    async def notify(self, link: object, method: str, params: object) -> None:
        await self.router.notify(link, method, params)

    async def stream(self, link: object, method: str, params: object, stream: object) -> None:
        await self.router.stream(link, method, params, stream)


class _Next:
    """The authority of a rotation that is announced lies beside the one in use."""

    def __init__(self, identity: IdentityStore) -> None:
        self.save = identity.save_next_authority
        self.take = identity.take_next_authority


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
            transport=partial(tell_member, links),
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
            custody=Custody(
                keys=keys,
                authority=voter.authority,
                id_key=identity.load_id_key(),
                root_key=root_key,
                drop_root_key=identity.remove_root_key,
                next_authority=_Next(identity),
            ),
            server_name=server.config.server,
            version=__version__,
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
            credentials=server.logons.credentials,
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
            lost=lambda category, text: alert_of(server.facts, server.config.server, category, text),
        )

    async def lost(error: BaseException) -> None:
        name = server.config.server
        text = f"{name} takes part in no decision of the mesh any more: {error}"
        if isinstance(error, TakenOver):
            # told once, however often it is started before the one that took over reaches it
            id_ = local_id(f"voter-lost-{error.fields['lineage']}", server.keys.id)
            await server.facts.append(facts.AlertRaised(id_, AlertKind.WARNING, "voter-lost", text, object=name))
        else:
            await server.facts.alert(AlertKind.ERROR, "voter-lost", text, object=name)

    async def damaged(error: StateDamaged, aside: Path) -> None:
        text = (
            f"{error.fields['path']} of {server.config.server} was damaged, {error.fields['detail']}: it is {aside} now. What it "
            "held comes from another voter, or from the journals of the servers; what only it held is lost"
        )
        await server.facts.alert(AlertKind.ERROR, "tables-damaged", text, object=server.config.server)

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
        on_damaged=damaged,
        on_anew=links.begin_anew,
        on_office=server.office_changed,
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
    newcomer = None if joining.is_member(folder) else newcomer_config(folder, server, listen)
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
