"""What every server does, put together: its orders, links, attempts, devices, journal, heartbeat."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping

from caso_mesh.config import Config
from caso_mesh.discovery.sighting import Discovery, Gone, Sighting
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer, of_row
from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.runner import Runner
from caso_mesh.journal import Journal, RolledBack
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import Refused, StaleOrders
from caso_mesh.model.ids import IdSource
from caso_mesh.model.mesh import Roster
from caso_mesh.model.orders import AttemptOrder, Authority, Orders
from caso_mesh.model.settings import BY_NAME, Setting, number
from caso_mesh.server.admin_link import AdminLink
from caso_mesh.server.allow import AllowList
from caso_mesh.server.attempts import Attempts
from caso_mesh.server.bearings import Bearings
from caso_mesh.server.beating import Heart
from caso_mesh.server.calls import Calls, Handler
from caso_mesh.server.consulting import Consulting
from caso_mesh.server.courier import Courier, prune_journal
from caso_mesh.server.damage import tell_of_damage, tell_of_old_copy
from caso_mesh.server.facts import FactWriter, Forwarding
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.greetings import bounded_addresses
from caso_mesh.server.kept import Kept
from caso_mesh.server.links import LinkBook
from caso_mesh.server.own_work import OwnWork
from caso_mesh.server.patience import Places
from caso_mesh.server.queue import LocalAttempt, Queue
from caso_mesh.server.refusals import Door, Refusals
from caso_mesh.server.renewal import Renewal
from caso_mesh.server.room import Room
from caso_mesh.server.running import any_ended
from caso_mesh.server.scratch import Scratch
from caso_mesh.server.snapshots import SnapshotKeeper
from caso_mesh.server.survey import Survey
from caso_mesh.server.takeovers import Takeovers
from caso_mesh.server.targets import Target
from caso_mesh.server.tasks import TaskMaker
from caso_mesh.server.trust import Trust
from caso_mesh.wire.typed import Callee

log = logging.getLogger(__name__)

#: How often the life of the own certificate, and what lies about in the state folder, is looked at.
_SWEEP_EACH_S = 3600.0


async def _nothing(orders: Orders) -> None:
    return


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
        same_thread: bool = False,
    ) -> None:
        self.folder = folder
        self.config = config
        self.keys = keys
        self._identity = identity
        self.orders = orders
        self.trust = trust
        self.clock = clock
        self.version = version
        told = lambda: Forwarding.of(self.orders.settings, in_office=in_office())
        self.facts = FactWriter(journal, new_id, clock, told, node=keys.id)
        self.door = Door(Refusals(self.facts, clock), lambda: self.orders.roster)
        self._queue = queue
        self._discovery = discovery
        #: Called with orders that were taken.
        self.on_orders: Callable[[Orders], Awaitable[None]] = _nothing
        self.links: LinkBook
        self.admin_link: AdminLink
        trust.use(orders.roster)
        self.bearings = Bearings(
            own=keys.id,
            trust=trust,
            orders=lambda: self.orders,
            in_office=in_office,
            authority=authority,
            peers=config.peers,
        )
        self.kept = kept = Kept(
            folder=folder,
            config=config,
            keys=keys,
            id_key=identity.load_id_key,
            queue=queue,
            facts=self.facts,
            orders=lambda: self.orders,
            is_admin=self.bearings.is_admin,
            admin=self._admin_callee,
            clock=clock,
            new_id=new_id,
            randomness=randomness,
            same_thread=same_thread,
        )
        self._commands = config.host_commands()
        self.places = Places()
        self._snapshots = SnapshotKeeper(
            folder=folder.snapshots,
            mesh=lambda: self.orders.roster.mesh.id,
            node=keys.id,
            allowed=config.allow.snapshots,
        )
        self._scratch = Scratch(folder.scratch)
        self._tasks = TaskMaker(
            folder=folder,
            node=keys.id,
            name=config.server,
            identity=identity,
            trust=trust,
            queue=queue,
            storage=kept.storage,
            orders=lambda: self.orders,
            allow=self.allow,
            may_read=config.allow.read,
            may_write=config.allow.write,
            places=self.places,
            snapshots=self._snapshots.place,
            segments=kept.segments,
            credentials=kept.logons.credentials,
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
            consulting=Consulting(lambda: self.admin_link, clock),
            may_begin=self._may_begin,
            over=self._over,
            ended_writing=self._ended_writing,
            wrote=kept.catalogs.made,
            refused=self.door.at_attempt,
        )
        self.room = Room(
            folder, self.facts, config.server, self.attempts.look_again, self._waiting_bytes, self._setting
        )
        self._renewal: Renewal
        self.journal = journal
        self._compared = False
        self._note_waits = True
        self._orders_are_old = False
        self.ordering = asyncio.Lock()
        self._heart = Heart(
            admin=self._admin_callee,
            wait_admin=self.wait_admin,
            beat=self.beat,
            heard=self.facts.alerts_heard,
            interval_s=lambda: self._setting("heartbeat-interval-s"),
            servers=lambda: sum(row.kind == "node" for row in self.orders.roster.rows) - 1,
            refused=self._ask_who_is_in_office,
            jitter=random.Random(randomness(8)),
        )
        self.courier = Courier(
            journal, self._admin_callee, self.wait_admin, rolled_back=self._rolled_back, compared=self._journal_compared,
            held=self._prune_journal, told=self._heart.soon,
        )  # fmt: skip
        self.own_work = OwnWork(orders, self.attempts.use, self._heart.soon)
        self._survey = Survey(storage=kept.storage, orders=lambda: self.orders, node=keys.id, news=self._heart.soon)
        self.takeovers = Takeovers(self.bearings, trust)

    # --- who and where ---

    def own(self) -> Peer:
        """This server as a peer, by its roster row."""
        row = self.trust.row(self.keys.id)
        return of_row(row) if row else Peer(id=self.keys.id, name=self.config.server, kind="node")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others reach this server."""
        return self.bearings.addresses

    @addresses.setter
    def addresses(self, addresses: tuple[str, ...]) -> None:
        self.bearings.addresses = addresses

    def admin(self) -> str | None:
        """The node id of the administrator in office as far as this server knows; a hint until there is a link."""
        return self.bearings.admin()

    def linked_admin(self) -> str | None:
        """The administrator in office if it is this server or linked with it now; never a remembered one."""
        admin = self.bearings.admin()
        return admin if admin is not None and self.links.linked(admin) else None

    def use_links(self, links: LinkBook) -> None:
        self.links = links
        self.admin_link = AdminLink(links, self.admin, self.config.server, self.bearings.unknown)
        self._renewal = Renewal(
            keys=self.keys, identity=self._identity, trust=self.trust, clock=self.clock, revived=links.begin_anew
        )
        links.observe(self._link_changed)
        links.twins.on_news = self._heart.soon

    def _admin_callee(self) -> Callee:
        return self.admin_link.get()

    def greeting(self) -> tuple[tuple[str, ...], Authority | None, str | None, tuple[str, ...]]:
        """See ``Bearings.greeting``."""
        return self.bearings.greeting()

    def learnt(self, peer: str, hello: n.HelloRequest | n.HelloReply) -> None:
        """A peer has greeted."""
        self.takeovers.heard(hello.claim)
        admin = self.admin()
        if self.bearings.heard(peer, hello):
            self.links.wake()
            self._another_admin(admin)

    def _another_admin(self, before: str | None) -> None:
        self.links.doubt(before)
        self._heart.soon()

    def office_changed(self) -> None:
        """This server is in office from now on, or not any more. Where only packets get lost no link has ended that tells."""
        self.links.wake()
        self.links.doubt(*self.bearings.partners())

    async def pass_on(self, peer: Peer, hello: n.HelloRequest) -> None:
        """A peer that works with this server in nothing has greeted: it looks for the administrator. Where that one is
        it was answered; the other way round, the administrator is told where the peer is, and may reach it."""
        admin = self.linked_admin()
        if admin is None or admin in {peer.id, self.keys.id} or peer.id in self.bearings.partners():
            return
        await self.admin_link.notify("server.seen", n.ServerSeen(peer.id, hello.addresses))

    def seen(self, node: str, addresses: tuple[str, ...]) -> None:
        """Another server says where a third one is: a hint."""
        if not self.links.linked(node):
            self.bearings.hint(node, bounded_addresses(addresses))
            self.links.wake(node)

    def wanted(self) -> Iterable[Target]:
        """See ``Bearings.wanted``."""
        return self.bearings.wanted(self.links.linked)

    async def wait_admin(self) -> None:
        """Returns when there is a link with the administrator in office."""
        while self.linked_admin() is None:  # noqa: ASYNC110 - looks at many places, see below
            # who is in office is no event of one place: links, greetings, orders and the log decide it
            await asyncio.sleep(0.1)

    async def add_peer(self, address: str) -> None:
        """A static address from now on."""
        await self._queue.add_peer(address)
        self.bearings.static = await self._queue.peers()
        self.links.wake()

    def allow(self) -> AllowList:
        """What may be read and written now. Looks at the file system: for threads only."""
        allow = self.config.allow
        return AllowList(
            self.config.server, allow.read, allow.write, self._tasks.closed(), self._commands, self.places.real
        )

    def handlers(self) -> dict[str, Handler]:
        """The calls every server answers for itself, by name."""
        return Calls(self).handlers()

    # --- orders ---

    async def take_orders(self, peer: Peer, orders: Orders) -> None:
        """Persists orders, then acts on them. Raises ``Refused``, ``StaleOrders``."""
        if orders.admin != peer.id:
            raise Refused(detail=f"{peer.name} handed on orders of another administrator")
        if peer.id not in self.bearings.voters():
            raise Refused(detail=f"{peer.name} is no voter: it cannot be in office")
        roster = orders.roster
        if orders.server.id != self.keys.id or roster.mesh.id != self.orders.roster.mesh.id:
            raise Refused(detail=f"the orders of {peer.name} are not for this server")
        own = [row for row in roster.rows if row.id == self.keys.id]
        if not roster.anchors or not own or own[0].public_key != self.keys.public_key:
            raise Refused(detail=f"by the orders of {peer.name} this server could not work with anybody")
        partners = self.bearings.partners()
        async with self.ordering:
            self.bearings.check_current(orders.authority)
            if orders.authority < self.orders.authority:
                raise StaleOrders(given=orders.authority, current=self.orders.authority)
            await self._queue.save_orders(orders)
            admin = self.admin()
            before, self.orders = self.orders, orders
            self._orders_are_old = False
            self.bearings.ordered(orders.admin)
            if self.admin() != admin:
                self._another_admin(admin)
            if roster.anchors != before.roster.anchors:
                await self._save_anchors(roster)
            self.trust.use(roster)
            self.takeovers.look()
            self.own_work.ordered(orders)
            self.kept.catalogs.ordered()
            if orders.devices != before.devices or any_ended(before, orders):
                # a job that is over has changed how much is free
                self._survey.look()
                await self.kept.storage.forget(before.devices, orders.devices)
        await self.links.roster_changed()
        if self.bearings.partners() != partners:
            self.links.wake()
        await self.on_orders(orders)

    async def _save_anchors(self, roster: Roster) -> None:
        """What commands of this machine trust: the next certificate of this server may hang on a new one."""
        anchors = tuple(anchor.certificate for anchor in roster.anchors)
        await asyncio.to_thread(self._identity.save_anchors, anchors)

    def _over(self, local: LocalAttempt) -> None:
        self._snapshots.over(local)
        self._scratch.over(local)

    def _ended_writing(self) -> None:
        # the administrator waits for that before it has others write there
        self._heart.soon()

    def _may_begin(self, order: AttemptOrder) -> bool:
        # A disk that was put back to an older copy still names attempts that ran long ago: nothing is begun until the
        # journals were compared, and if it was put back, until there are new orders. The own work waits for nobody.
        return self.room.enough and (self.own_work.has(order.attempt) or (self._compared and not self._orders_are_old))

    async def _waiting_bytes(self) -> int:
        return await self.journal.waiting_bytes(self.courier.taken)

    async def _prune_journal(self, upto: Mapping[str, int]) -> None:
        kept_s, traced_s = self._setting("journal-keep-s"), self._setting("joblog-keep-s")
        kept_s *= not self.facts.crowded
        await prune_journal(self.journal, self._queue, upto, self.clock.now_ns(), kept_s=kept_s, traced_s=traced_s)

    def _setting(self, name: str) -> float:
        setting = BY_NAME[name]
        assert isinstance(setting, Setting)
        value = number(self.orders.settings, name, self.config.preset)
        # a peer of another version may know other bounds; zero would spin
        return setting.default if math.isnan(value) else min(max(value, setting.minimum), setting.maximum)

    # --- running ---

    async def prepare(self) -> None:
        """What must be done before anybody is served: old attempts are closed. Needs the runner to be up."""
        self.bearings.static = await self._queue.peers()
        await self._save_anchors(self.orders.roster)
        await self.facts.load()
        await self.room.look()
        await self._scratch.prepare()
        await self.attempts.recover()
        self.own_work.ordered(self.orders)
        await self.facts.append(facts.ServerStarted(self.version))

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.attempts.run())
            group.create_task(self.door.refusals.run())
            group.create_task(self.courier.run())
            group.create_task(self._survey.run())
            group.create_task(tell_of_damage(self.journal, self.facts, self.config.server))
            group.create_task(self.takeovers.spread(self.links))
            group.create_task(self._heart.run())
            group.create_task(self._keep_certificate())
            group.create_task(self._sweep())
            group.create_task(self.facts.run(self.attempts.holding))
            for part in (
                self.room,
                self._snapshots,
                self._scratch,
                self.kept.files,
                self.kept.catalogs,
                self.kept.deletions,
            ):
                group.create_task(part.run())
            if self._discovery is not None:
                group.create_task(self._look_around(self._discovery))

    async def renew(self, link: Callee) -> None:
        """See ``Renewal.renew``."""
        await self._renewal.renew(link)

    async def _keep_certificate(self) -> None:
        async def admin() -> Callee:
            await self.wait_admin()
            return self._admin_callee()

        await self._renewal.keep(admin)

    async def _sweep(self) -> None:
        while True:
            await asyncio.to_thread(self.kept.segments.sweep, self.clock.now_ns(), self.attempts.sets())
            await self.facts.forget_held(self.clock.now_ns() - round(self._setting("joblog-keep-s") * 1e9))
            await asyncio.sleep(_SWEEP_EACH_S)

    def beat(self) -> n.Heartbeat:
        """What the administrator is told of this server."""
        return n.Heartbeat(
            now_ns=self.clock.now_ns(),
            authority=self.orders.authority,
            running=self.attempts.running(),
            holding=self.attempts.holding(),
            devices=self.room.told(self._survey.reports),
            own_work=self.own_work.loads(),
            alerts=self.facts.unsettled_alerts(),
            telling=self.courier.telling,
            twins=self.links.twins.seen(),
        )

    async def _ask_who_is_in_office(self) -> None:
        # the one that was in office is not any more: it may know who is
        await self.links.greet_again(self.admin())

    def _link_changed(self, node: str, linked: bool) -> None:
        if linked and node == self.admin():
            self._heart.soon()
            self.kept.catalogs.look()

    async def _look_around(self, discovery: Discovery) -> None:
        async for sighting in discovery.sightings():
            match sighting:
                case Sighting(node=node, addresses=addresses):
                    mesh = self.orders.roster.mesh.id
                    if sighting.mesh and mesh.startswith(sighting.mesh) and self.bearings.hint(node, addresses):
                        self.links.wake()
                case Gone():
                    continue

    # --- the journal ---

    async def _rolled_back(self, found: RolledBack) -> None:
        self._orders_are_old = self._note_waits = True
        await self._queue.note_rolled_back(found.head.incarnation)

    async def _journal_compared(self) -> None:
        previous = await self._queue.rolled_back_note() if self._note_waits else None
        if previous is not None:
            await tell_of_old_copy(self.facts, previous, self.config.server)
            await self._queue.forget_note()
        self._note_waits = False
        if not self._compared:
            self._compared = True
            self.attempts.look_again()
