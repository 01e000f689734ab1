"""What every server does, put together: its orders, links, attempts, devices, journal, heartbeat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from caso_mesh.config import Config
from caso_mesh.discovery.sighting import Discovery, Gone, Sighting
from caso_mesh.identity.certificates import life as life_of
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer, of_row
from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.runner import Runner
from caso_mesh.journal import Journal, RolledBack
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import CasoError, InvalidValue, NoAdmin, NotFound, Refused, StaleOrders
from caso_mesh.model.ids import IdSource
from caso_mesh.model.jobs import Progress
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.model.states import AlertKind
from caso_mesh.server.allow import AllowList
from caso_mesh.server.attempts import Attempts
from caso_mesh.server.courier import Courier
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.links import AdminLink, LinkBook, Target
from caso_mesh.server.queue import Queue
from caso_mesh.server.storage import Storage
from caso_mesh.server.tasks import TaskMaker
from caso_mesh.server.trust import Trust
from caso_mesh.wire.network import split_address
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

#: How old the devices' figures in a heartbeat may be.
_DEVICES_EACH_S = 10.0
#: How often the life of the own certificate is looked at.
_RENEW_EACH_S = 3600.0

Handler = Callable[[Peer, Any, Any], Awaitable[Any]]


class ServerNode:
    """One managed server. The daemon makes it, gives it the link book, and runs ``run`` in its task group."""

    def __init__(
        self,
        *,
        folder: StateFolder,
        config: Config,
        keys: NodeKeys,
        identity: IdentityStore,
        orders: Orders,
        queue: Queue,
        journal: Journal,
        trust: Trust,
        runner: Runner,
        discovery: Discovery | None,
        clock: Clock,
        new_id: IdSource,
        randomness: Randomness,
        version: str,
        in_office: Callable[[], bool],
        authority: Callable[[], Authority | None],
    ) -> None:
        self.folder = folder
        self.config = config
        self.keys = keys
        self.orders = orders
        self.trust = trust
        self._identity = identity
        self.facts = FactWriter(journal, new_id)
        self._queue = queue
        self._clock = clock
        self._version = version
        self._discovery = discovery
        self._in_office = in_office
        self._authority = authority
        self._new_id = new_id
        self._hints: dict[str, tuple[str, ...]] = {}
        self._static: list[str] = []
        self._learnt_admin: tuple[Authority | None, str, tuple[str, ...]] | None = None
        self.addresses: tuple[str, ...] = ()
        self.links: LinkBook
        trust.use(orders.roster)
        self.storage = Storage(
            node=keys.id,
            name=config.server,
            unwrap=keys.unwrap,
            id_key=identity.load_id_key,
            new_id=new_id,
            randomness=randomness,
            cache=folder.cache,
        )
        self._tasks = TaskMaker(
            folder=folder,
            node=keys.id,
            name=config.server,
            identity=identity,
            trust=trust,
            queue=queue,
            storage=self.storage,
            orders=lambda: self.orders,
            allow=self.allow,
            clock=clock,
            new_id=new_id,
        )
        self.attempts = Attempts(
            queue=queue,
            facts=self.facts,
            runner=runner,
            tasks=self._tasks,
            clock=clock,
            new_id=new_id,
            report=self._report,
        )
        self._courier = Courier(journal, self._admin_callee, self.wait_admin, self._rolled_back)

    # --- who and where ---

    def own(self) -> Peer:
        """This server as a peer, by its roster row."""
        row = self.trust.row(self.keys.id)
        return of_row(row) if row else Peer(id=self.keys.id, name=self.config.server, kind="node")

    def admin(self) -> str | None:
        """The node id of the administrator in office as far as this server knows; a hint until there is a link."""
        if self._in_office():
            return self.keys.id
        if self._learnt_admin is not None:
            return self._learnt_admin[1]
        return self.orders.admin if self.orders.admin != self.keys.id else None

    def linked_admin(self) -> str | None:
        """The administrator in office if it is this server or linked with it now; never a remembered one."""
        admin = self.admin()
        return admin if admin is not None and self.links.linked(admin) else None

    def use_links(self, links: LinkBook) -> None:
        self.links = links
        self.admin_link = AdminLink(links, self.admin, self.config.server)

    def _admin_callee(self) -> Callee:
        return self.admin_link.get()

    def greeting(self) -> tuple[tuple[str, ...], Authority | None, str | None, tuple[str, ...]]:
        """What this server says in a hello: its addresses, what its orders stand on, the administrator and where."""
        admin = self.admin()
        authority = self._authority() if self._in_office() else self.orders.authority
        return self.addresses, authority, admin, self._addresses_of(admin) if admin else ()

    def learnt(self, admin: str, addresses: tuple[str, ...], authority: Authority | None) -> None:
        """A peer says who is in office: believed when what it stands on is not older than what is known here."""
        if addresses:
            self._hints[admin] = tuple(dict.fromkeys((*addresses, *self._hints.get(admin, ()))))[:8]
        known = self._learnt_admin[0] if self._learnt_admin else self.orders.authority
        if authority is not None and (known is None or authority >= known) and self.trust.row(admin) is not None:
            changed = self.admin() != admin
            self._learnt_admin = (authority, admin, addresses)
            if changed:
                self.links.wake()

    def _addresses_of(self, node: str) -> tuple[str, ...]:
        ordered = next((each.addresses for each in self.orders.nodes if each.node == node), ())
        own = self.addresses if node == self.keys.id else ()
        return tuple(dict.fromkeys((*own, *self._hints.get(node, ()), *ordered)))

    def wanted(self) -> Iterable[Target]:
        """With whom this server wants a link: in office with all, else with the administrator, or with anybody who
        knows who that is."""
        if self._in_office():
            for row in self.trust.roster.rows if self.trust.roster else ():
                if row.kind == "node" and row.id != self.keys.id:
                    yield Target(row.id, self._addresses_of(row.id))
            return
        admin = self.admin()
        if admin is not None and self.links.linked(admin):
            return
        if admin is not None:
            yield Target(admin, self._addresses_of(admin))
        for address in (*self.config.peers, *self._static):
            yield Target(None, (address,))
        for node, addresses in sorted(self._hints.items()):
            if node not in {admin, self.keys.id}:
                yield Target(node, addresses)

    async def wait_admin(self) -> None:
        """Returns when there is a link with the administrator in office."""
        while True:
            admin = self.admin()
            if admin is not None and self.links.linked(admin):
                return
            await asyncio.sleep(0.1)

    def allow(self) -> AllowList:
        return AllowList(self.config.server, self.config.allow.read, self.config.allow.write, self._tasks.closed())

    # --- running ---

    async def prepare(self) -> None:
        """What must be done before anybody is served: old attempts are closed. Needs the runner to be up."""
        self._static = await self._queue.peers()
        await self.attempts.recover()
        self.attempts.use(self.orders)
        await self.facts.append(facts.ServerStarted(self._version))

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.attempts.run())
            group.create_task(self._courier.run())
            group.create_task(self._beat())
            group.create_task(self._keep_certificate())
            if self._discovery is not None:
                group.create_task(self._look_around(self._discovery))

    async def renew(self, link: Callee) -> None:
        """Asks for new certificates when two thirds of the present one's life are over, or all of it. A peer that is
        not in office answers ``no-admin``, which is no matter: the next one is asked."""
        chain = self._identity.load_chain()
        life = life_of(chain[0])
        due_ns = life.not_before_ns + 2 * (life.not_after_ns - life.not_before_ns) // 3
        if self._clock.now_ns() < due_ns:
            return
        try:
            reply = await ask(link, "identity.renew", q.Nothing(), q.RenewReply)
        except NoAdmin:
            return

        def store() -> None:
            self._identity.save_chain(reply.certificate)
            if reply.operator_certificate:
                self._identity.write_operator(self._identity.load_operator().key, reply.operator_certificate)

        await asyncio.to_thread(store)
        self.trust.renewed()
        log.info("the certificate of %s was renewed", self.config.server)

    async def _keep_certificate(self) -> None:
        while True:
            await self.wait_admin()
            try:
                await self.renew(self.admin_link.get())
            except CasoError as error:
                log.warning("the certificate could not be renewed: %s", error)
            await asyncio.sleep(_RENEW_EACH_S)

    async def _beat(self) -> None:
        devices: tuple[q.DeviceReport, ...] = ()
        devices_at = -_DEVICES_EACH_S
        while True:
            await self.wait_admin()
            now = self._clock.monotonic_s()
            fresh = now - devices_at >= _DEVICES_EACH_S or {d.device for d in devices} != {
                d.id for d in self.orders.devices if d.path_on(self.keys.id)
            }
            if fresh:
                mine = [d for d in self.orders.devices if d.path_on(self.keys.id)]
                devices, devices_at = await self.storage.reports(mine), now
            beat = q.Heartbeat(
                now_ns=self._clock.now_ns(),
                authority=self.orders.authority,
                running=self.attempts.running(),
                holding=self.attempts.holding(),
                devices=devices,
            )
            try:
                await ask(self.admin_link.get(), "server.heartbeat", beat, q.HeartbeatReply)
            except CasoError as error:
                log.debug("heartbeat: %s", error)
            await asyncio.sleep(self.orders.settings["heartbeat-interval-s"])

    async def _look_around(self, discovery: Discovery) -> None:
        mesh = self.orders.roster.mesh.id
        async for sighting in discovery.sightings():
            match sighting:
                case Sighting(node=node, addresses=addresses) if node and mesh.startswith(sighting.mesh or "\0"):
                    if node != self.keys.id and self.trust.row(node) is not None:
                        self._hints[node] = tuple(dict.fromkeys((*addresses, *self._hints.get(node, ()))))[:8]
                        self.links.wake()
                case Gone():
                    continue

    async def _report(self, progress: tuple[Progress, ...]) -> None:
        await self.admin_link.notify("attempt.progress", q.ProgressReport(progress))

    async def _rolled_back(self, found: RolledBack) -> None:
        # a rolled-back disk may not go on under writer ids that have written more than it knows
        for device in self.orders.devices:
            await self._queue.new_writer(device.vault, self._new_id())
        await self.facts.append(facts.JournalBegun(previous=found.head.incarnation))
        await self.facts.alert(
            AlertKind.WARNING,
            "state-rolled-back",
            f"The state folder of {self.config.server} was put back to an older copy; it has begun a new journal",
            object=self.config.server,
        )

    # --- calls ---

    def handlers(self) -> dict[str, Handler]:
        """The calls every server answers for itself, by name."""
        return {
            "link.hello": self._hello,
            "orders.put": self._orders_put,
            "catalog.read": self._catalog_read,
            "device.prepare": self._device_prepare,
            "device.proof": self._device_proof,
            "path.check": self._path_check,
            "attempt.watch": self._attempt_watch,
            "enrol.anchors": self._anchors,
            "status": self._status,
            "peer.add": self._peer_add,
            "peer.list": self._peer_list,
        }

    async def _hello(self, peer: Peer, request: q.HelloRequest, link: Any) -> q.HelloReply:
        return await self.links.greeted(link, request)

    async def _orders_put(self, peer: Peer, orders: Orders, link: Any) -> v.Done:
        if orders.admin != peer.id:
            raise Refused(detail=f"{peer.name} handed on orders of another administrator")
        voters = {anchor.voter for anchor in self.orders.roster.anchors}
        if orders.server.id != self.keys.id or orders.admin not in voters:
            raise Refused(detail=f"orders of {peer.name} are not for this server, or not from a voter")
        if orders.authority < self.orders.authority:
            raise StaleOrders(given=orders.authority, current=self.orders.authority)
        await self._queue.save_orders(orders)
        self.orders = orders
        self._learnt_admin = None
        self.trust.use(orders.roster)
        self.attempts.use(orders)
        return v.Done()

    async def _catalog_read(self, peer: Peer, request: q.CatalogRead, link: Any) -> q.CatalogPiece:
        if peer.id != self.admin():
            raise Refused(detail=f"{peer.name} is not the administrator")
        path = self._tasks.segment_path(request.set)
        if path.parent != self.folder.segments:
            raise NotFound(kind="set", name=request.set)
        return await asyncio.to_thread(_piece, path, request)

    async def _device_prepare(self, peer: Peer, request: q.DevicePrepare, link: Any) -> q.DevicePrepareReply:
        self._only_admin(peer)
        self.allow_device(request.path)
        return await self.storage.prepare(request, self.folder.path)

    async def _device_proof(self, peer: Peer, request: q.DeviceProof, link: Any) -> q.DeviceProofReply:
        self._only_admin(peer)
        self.allow_device(request.path)
        return await self.storage.proof(request)

    def allow_device(self, path: str) -> None:
        """A device lies where this server's own file lets things be written."""
        AllowList(self.config.server, (), self.config.allow.write, [str(self.folder.path)]).check_write(path.encode())

    async def _path_check(self, peer: Peer, request: q.PathCheck, link: Any) -> q.PathCheckReply:
        self._only_admin(peer)
        return await asyncio.to_thread(self._check_paths, request)

    def _check_paths(self, request: q.PathCheck) -> q.PathCheckReply:
        allow, warnings = self.allow(), []
        for path in request.paths:
            if request.action == "read":
                warnings += allow.check_read(path)
            else:
                allow.check_write(path)
        return q.PathCheckReply(tuple(warnings))

    def _only_admin(self, peer: Peer) -> None:
        if peer.id != self.admin():
            raise Refused(detail=f"{peer.name} is not the administrator")

    async def _attempt_watch(self, peer: Peer, request: q.WatchAttempts, link: Any) -> v.Done:
        await self.attempts.watch(request.attempts, request.for_s)
        return v.Done()

    async def _anchors(self, peer: Peer, request: q.Nothing, link: Any) -> q.AnchorsReply:
        roster = self.orders.roster
        return q.AnchorsReply(
            mesh=roster.mesh.id,
            mesh_name=roster.mesh.name,
            node=self.keys.id,
            root=roster.anchors[0].certificate,
            anchors=roster.anchors,
        )

    async def _status(self, peer: Peer, request: q.Nothing, link: Any) -> v.StatusView:
        admin = self.linked_admin()
        summary: q.MeshSummary | None = None
        if admin is not None:
            try:
                summary = await ask(self.links.get(admin), "mesh.summary", q.Nothing(), q.MeshSummary, timeout_s=3.0)
            except (NoAdmin, CasoError):
                admin = None
        nodes = sum(row.kind == "node" for row in self.orders.roster.rows)
        voters = tuple(self.trust.name_of(a.voter) for a in self.orders.roster.anchors if a.voter)
        return v.StatusView(
            mesh=self.orders.roster.mesh.name,
            server=self.config.server,
            admin=self.trust.name_of(admin) if admin else None,
            term=summary.term if summary else self.orders.authority.term,
            voters=summary.voters if summary else voters,
            servers=summary.servers if summary else nodes,
            running=summary.running if summary else len(self.attempts.running()),
            alerts=summary.alerts if summary else 0,
            version=self._version,
        )

    async def _peer_add(self, peer: Peer, request: q.PeerAdd, link: Any) -> v.PeerList:
        try:
            split_address(request.address)
        except ValueError as error:
            raise InvalidValue(value=request.address, what="address", expected=str(error).capitalize()) from None
        await self._queue.add_peer(request.address)
        self._static = await self._queue.peers()
        self.links.wake()
        return await self._peer_list(peer, q.Nothing(), link)

    async def _peer_list(self, peer: Peer, request: q.Nothing, link: Any) -> v.PeerList:
        seen: dict[str, str] = dict.fromkeys(self.config.peers, "configuration")
        seen |= dict.fromkeys(self._static, "static")
        for node, addresses in sorted(self._hints.items()):
            for address in addresses:
                seen.setdefault(address, f"discovery of {self.trust.name_of(node)}")
        return v.PeerList(tuple(v.PeerView(address, source) for address, source in seen.items()))


def _piece(path: Path, request: q.CatalogRead) -> q.CatalogPiece:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(request.offset)
            return q.CatalogPiece(file.read(min(request.length, 4 << 20)), size)
    except FileNotFoundError:
        raise NotFound(kind="set", name=request.set) from None
