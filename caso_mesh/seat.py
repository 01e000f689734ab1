"""The seat of a voter: the replicated log, the control state made of it, the replica of all journals and catalogs, and the
office while this node is in it. A server may take its seat while it runs, and give it up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from caso_mesh.admin.following import Followed
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.keeping_catalogs import keeps, write_detail
from caso_mesh.admin.office import Office
from caso_mesh.admin.schema import MIGRATIONS as TABLE_MIGRATIONS
from caso_mesh.admin.standby import Standby
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.consensus import Replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.database import Database, put_aside
from caso_mesh.identity.authority import Authority as IssuingAuthority
from caso_mesh.identity.roster import Peer
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import catalogs as c
from caso_mesh.model import nodes as n
from caso_mesh.model import telling as t
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import (
    CasoError,
    LogContradicted,
    LogUnavailable,
    Misuse,
    NotFound,
    Refused,
    SeatMissing,
    StateDamaged,
    StateRolledBack,
    TakenOver,
    Unavailable,
)
from caso_mesh.model.mesh import Claim, Roster
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.server.folder import StateFolder

log = logging.getLogger(__name__)
T = TypeVar("T")

#: A seat that is given comes with its list, or soon after it.
_SEAT_COMES_S = 30.0
#: Calls of voters that follow the tables of this one.
_FOLLOWED = ("replica.begin", "replica.pull", "replica.floors", "replica.copy", "replica.audit")


class Voter:
    """What lies open while this node has its seat."""

    def __init__(
        self,
        consensus: Replicated,
        keeper: ControlKeeper,
        database: Database,
        tables: Tables,
        catalog: Catalog,
        authority: IssuingAuthority,
        followers: Followers,
        followed: Followed,
    ) -> None:
        #: Why this seat is over, as soon as it is.
        self.fenced: asyncio.Future[TakenOver] = asyncio.get_running_loop().create_future()
        self.followers = followers
        self.followed = followed
        self.consensus = consensus
        self.keeper = keeper
        #: That of the tables.
        self.database = database
        self.tables = tables
        self.catalog = catalog
        self.authority = authority


class OfficeHolder(Protocol):
    """The router: ``office`` is there while this server is in office."""

    office: Any


class Seat:
    """``open_log`` opens the replicated log (of a seat that was just given: empty); ``make_office`` and ``make_standby`` make
    the two things that a voter does; ``on_lost`` is told when its disk turns out to be an old copy, ``on_damaged`` when a
    database was damaged and lies somewhere else now, ``on_anew`` when tables began anew while it was up, ``on_office`` when
    this node is in office, or not any more."""

    def __init__(
        self,
        *,
        folder: StateFolder,
        identity: IdentityStore,
        node: str,
        same_thread: bool,
        clock: Clock,
        open_log: Callable[[AsyncExitStack, t.VoterBecome | None], Awaitable[Replicated]],
        make_office: Callable[[Voter], Office],
        make_standby: Callable[[Voter], Standby],
        on_lost: Callable[[BaseException], Awaitable[None]],
        on_damaged: Callable[[StateDamaged, Path], Awaitable[None]],
        on_anew: Callable[[], Awaitable[None]],
        on_office: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._node = node
        self._same_thread = same_thread
        self._clock = clock
        self._open_log = open_log
        self._make_office = make_office
        self._make_standby = make_standby
        self._on_lost = on_lost
        self._on_damaged = on_damaged
        self._on_anew = on_anew
        self._on_office = on_office
        self._stack = AsyncExitStack()
        self._changed = asyncio.Event()
        self._changing = asyncio.Lock()
        #: Where in the log this seat was given: before that, nobody has it on a list.
        self._since: Authority | None = None
        self._working = 0
        self._standby: Standby | None = None
        #: There is a seat, but nobody sits on it: its disk turned out to be an old copy.
        self._lost = False
        #: By its orders this server votes.
        self._listed = False
        self.voter: Voter | None = None

    # --- what others ask ---

    def in_office(self) -> bool:
        return self.voter is not None and self.voter.consensus.leadership().in_office

    def roster(self) -> Roster | None:
        """In office the roster as it is now: its own orders follow a moment later. ``None`` for all others."""
        return self.voter.keeper.state.roster() if self.voter is not None and self.in_office() else None

    def authority(self) -> Authority | None:
        return self.voter.keeper.authority if self.voter is not None else None

    def fence(self, claim: Claim, name: str) -> None:
        """The mesh was taken over by ``claim.node``, whose name that is: what is decided here does not count any more."""
        voter = self.voter
        if voter is None or voter.fenced.done():
            return
        own = voter.keeper.leadership.lineage
        if claim.lineage > own:
            voter.fenced.set_result(TakenOver(server=name, lineage=claim.lineage, own=own))

    def hear(self, sender: str, lineage: int, data: bytes) -> None:
        """A message of another member of the log."""
        if self.voter is not None:
            self.voter.consensus.receive(sender, lineage, data)

    def handlers(self) -> dict[str, Callable[[Peer, Any, Any], Awaitable[Any]]]:
        """Calls of other voters."""

        def answering(call: str) -> Callable[[Peer, Any, Any], Awaitable[Any]]:
            async def answer(peer: Peer, request: Any, link: Any) -> Any:
                voter = self.voter
                if voter is None:
                    raise Unavailable(what="The seat of this voter")
                try:
                    return await voter.followed.handlers()[call](peer, request, link)
                except Misuse:
                    if self.voter is voter:
                        raise
                    raise Unavailable(what="The seat of this voter") from None  # its tables were closed meanwhile

            return answer

        async def catalogs_kept(peer: Peer, request: c.CatalogKeeps, link: Any) -> c.CatalogSets:
            voter = self.voter
            if voter is None:
                raise Unavailable(what="The seat of this voter")
            if not self._is_member(peer):
                raise Refused(detail=f"{peer.name} is no voter: what is here is not for it")
            return await keeps(voter.tables, voter.catalog, request)

        async def sets_found(peer: Peer, request: c.CatalogSets, link: Any) -> v.Done:
            if self._standby is not None and self._is_member(peer):
                await self._standby.found(request.sets)
            return v.Done()

        followed = {call: answering(call) for call in _FOLLOWED}
        return {**followed, "catalog.keeps": catalogs_kept, "catalog.found": sets_found}

    async def write_detail(self, request: n.CatalogMake, path: Path) -> n.CatalogMade:
        """As the function of that name, also of a server that has no seat."""
        voter = self.voter
        try:
            if voter is not None:
                return await write_detail(voter.catalog, request, path)
        except Misuse:
            if self.voter is voter:
                raise  # or else its catalog was closed meanwhile
        raise NotFound(kind="catalog", name=request.set)

    def _is_member(self, peer: Peer) -> bool:
        if self.voter is None:
            return False
        server = self.voter.keeper.state.servers.get(peer.id)
        return server is not None and server.voter

    # --- taking and giving up ---

    async def open(self) -> None:
        """At the start of the daemon: the seat that it has. Raises what the databases raise."""
        try:
            if self._folder.consensus.exists():
                await self._open(None)
        except NotFound:  # killed while it took its seat; a log that it began by itself would be that of a mesh of one
            log.warning("this server was given a seat, and no log yet: it waits to be given it again")
            await asyncio.to_thread(self._folder.drop_log)

    async def close(self) -> None:
        """At the end of the daemon."""
        self.voter = None
        await self._stack.aclose()

    async def prepare(self, make: Callable[[], bytes]) -> bytes:
        """What ``make`` gives: the public key of the issuing key for a seat. Not while an earlier seat is given up, with which
        its key goes."""
        async with self._changing:
            if self._lost:
                await self._give_up()
            return await asyncio.to_thread(make)

    async def take(self, given: t.VoterBecome, accept: Callable[[], None]) -> None:
        """The administrator has given this server a seat; ``accept`` keeps its issuing certificate. Repeated, nothing
        happens. Raises what ``accept`` raises."""
        async with self._changing:
            if self._lost:
                await self._give_up()
            await asyncio.to_thread(accept)
            self._since = given.authority
            if self.voter is None:
                log.info("this server takes a seat among the voters")
                await self._open(given)
            elif self.voter.authority.issuing != given.issuing:
                self.voter.authority.become(await asyncio.to_thread(self._identity.load_authority))

    async def ordered(self, orders: Orders) -> None:
        """New orders: a server that is not among the voters any more gives its seat up."""
        listed = any(anchor.voter == self._node for anchor in orders.roster.anchors)
        if listed is not self._listed:
            self._listed = listed
            self._wake()
        if (self.voter is None and not self._lost) or orders.admin == self._node or listed:
            return
        async with self._changing:
            if self._since is not None and orders.authority < self._since:
                return  # a seat was given since
            log.warning("this server is no voter any more; its copy of the log and of the tables goes")
            await self._give_up()

    async def _give_up(self) -> None:
        """Interrupted, as when the link that brought the orders ends, it is done by whatever comes next: nothing of the
        old seat may be taken for a part of a new one."""
        self.voter, self._lost = None, True
        self._wake()
        while self._working:
            await self._changed.wait()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()
        await asyncio.to_thread(self._remove)
        self._lost = False

    def _remove(self) -> None:
        self._folder.drop_log()
        self._folder.drop_tables()
        # last: a daemon that is killed in between has a seat without a log, which is none, and not a log without a key
        self._identity.drop_authority()

    async def _open(self, joining: t.VoterBecome | None) -> None:
        try:
            consensus = await self._open_log(self._stack, joining)
            same = self._same_thread
            tables_path, catalog_path = self._folder.tables / "tables.db", self._folder.catalog / "catalog.db"
            database = await self._open_or_anew(
                tables_path, lambda: Database.open(tables_path, TABLE_MIGRATIONS, durable=False, same_thread=same)
            )
            tables = Tables(database)
            catalog = await self._stack.enter_async_context(Catalog.open(catalog_path, same_thread=same))
            # while the root key lies here it is read when a recovery kit is made, and not kept in memory
            authority = (await asyncio.to_thread(self._identity.load_authority)).without_root_key()
        except BaseException:
            stack, self._stack = self._stack, AsyncExitStack()
            await stack.aclose()
            raise
        followers = Followers(self._clock)
        keeper = ControlKeeper(consensus)

        def applied() -> int:
            return keeper.position.index if consensus.leadership().in_office else 0

        followed = Followed(tables, self._is_member, followers, self._folder.tables, applied)
        self.voter = Voter(consensus, keeper, database, tables, catalog, authority, followers, followed)
        self._wake()

    async def _open_or_anew(self, path: Path, opening: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What can be made again, out of another voter's or out of the journals, is begun anew if it is damaged."""
        try:
            return await self._stack.enter_async_context(opening())
        except StateDamaged as error:
            await self._put_aside(path, error)
            return await self._stack.enter_async_context(opening())

    async def _put_aside(self, path: Path, error: StateDamaged) -> None:
        aside = await asyncio.to_thread(put_aside, path)
        log.error("%s; it is %s now, and made again", error, aside)
        try:
            await self._on_damaged(error, aside)
        except CasoError as failed:  # a disk that is full as well: the log of the daemon has it
            log.error("nobody could be told of it: %s", failed)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- working ---

    async def run_log(self) -> None:
        """The replicated log and what is made of it. Never returns; raises what ends them."""
        await self._while_seated(self._run_log)

    async def work(self, router: OfficeHolder) -> None:
        """In office or standing by, whatever this voter is. Never returns. It stands on the log, and ends before it."""
        await self._while_seated(lambda voter: self._until_the_log_ends(voter, router))

    async def miss(self) -> None:
        """Never returns. A state folder that was put back to before it had a seat knows nothing of it: this server is
        listed among the voters and sits on nothing, and the others count on it."""
        while True:
            changed = self._changed
            if self.voter is not None or self._lost or not self._listed:
                await changed.wait()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_SEAT_COMES_S):
                    await changed.wait()
                continue
            await self._lose(SeatMissing(path=self._folder.consensus))

    async def mend(self) -> None:
        """Never returns. Tables that turn out to be damaged are put aside, and those of another voter taken over, or made again
        out of the journals; meanwhile another voter is in office."""
        while True:
            voter, changed = self.voter, self._changed
            if voter is None:
                await changed.wait()
                continue
            error = await self._damage_of(voter)
            if error is None:
                continue
            async with self._changing:
                if self.voter is not voter:
                    continue
                self.voter = None
                self._wake()
                while self._working:
                    await self._changed.wait()
                stack, self._stack = self._stack, AsyncExitStack()
                await stack.aclose()
                await self._put_aside(self._folder.tables / "tables.db", error)
                await self._open(None)
            # whoever is linked believes that its facts are here
            await self._on_anew()

    async def _damage_of(self, voter: Voter) -> StateDamaged | None:
        """How the tables of a voter are damaged, as soon as that shows; ``None`` when it sits there no more. Once it is looked at
        all of them: what lies in a corner would show when it is needed."""
        watching = asyncio.create_task(voter.database.wait_for_damage())
        try:
            with suppress(CasoError):
                await voter.database.check()
            while self.voter is voter and not watching.done():
                changed = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait([watching, changed], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
            return watching.result() if watching.done() and self.voter is voter else None
        except Misuse:
            return None  # it was closed
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _while_seated(self, do: Callable[[Voter], Awaitable[None]]) -> None:
        while True:
            voter, changed = self.voter, self._changed
            if voter is None:
                await changed.wait()
                continue
            self._working += 1
            try:
                async with asyncio.TaskGroup() as group:
                    doing = group.create_task(_call(do, voter))
                    while self.voter is voter:
                        await self._changed.wait()
                    doing.cancel()
            finally:
                self._working -= 1
                self._wake()

    async def _run_log(self, voter: Voter) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(voter.consensus.run())
                group.create_task(voter.keeper.run())
                group.create_task(self._until_fenced(voter))
        except* (StateRolledBack, LogContradicted) as lost:
            # the server goes on as a member: only its copy of the log is not to be believed
            error: BaseException = lost
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            await self._lose(error)

    async def _until_fenced(self, voter: Voter) -> None:
        """The log goes on until the office has ended: what is under way there ends, and does not fail."""
        await self._lose(await asyncio.shield(voter.fenced))
        await asyncio.Event().wait()

    async def _lose(self, error: BaseException) -> None:
        log.critical("this server takes part in no decision any more: %s", error)
        try:
            await self._on_lost(error)  # first: what is done for a seat is cancelled when nobody sits on it
        finally:
            self.voter, self._lost = None, True
            self._wake()

    async def _until_the_log_ends(self, voter: Voter, router: OfficeHolder) -> None:
        try:
            await self._work(voter, router)
        except* LogUnavailable:
            # whoever runs the log knows why it has ended, and says so: the server may go on without it
            if not voter.keeper.ended:
                raise
        except* StateDamaged:
            # whatever stumbled over it: the tables are about to be made again
            if voter.database.damage is None:
                raise

    async def _work(self, voter: Voter, router: OfficeHolder) -> None:
        """One thing at a time: the office begins when the standby has ended, and the other way round."""
        running: asyncio.Task[None] | None = None
        in_office: bool | None = None
        try:
            async with asyncio.TaskGroup() as group:
                async for leadership in voter.consensus.leadership_changes():
                    if leadership.in_office is in_office:
                        continue
                    if running is not None:
                        running.cancel()
                        await asyncio.wait([running])
                    in_office = leadership.in_office
                    running = group.create_task(self._term(voter, router) if in_office else self._stand_by(voter))
        finally:
            router.office = None

    async def _stand_by(self, voter: Voter) -> None:
        self._on_office()
        self._standby = self._make_standby(voter)
        try:
            await self._standby.run()
        finally:
            self._standby = None

    async def _term(self, voter: Voter, router: OfficeHolder) -> None:
        pause_s = 0.2
        while True:
            try:
                await voter.keeper.barrier()
                break
            except Unavailable as error:
                # it may be elected and lose its quorum at once; the leadership tells when it is over
                log.warning("the office cannot begin yet: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(5.0, 2 * pause_s)
        office = self._make_office(voter)
        router.office = office
        self._on_office()
        try:
            await office.run()
        finally:
            router.office = None


async def _call(do: Callable[[Voter], Awaitable[None]], voter: Voter) -> None:
    await do(voter)
