"""The office: everything that only the administrator does. It begins when its no-op is applied and ends on stepping
down, in one task group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.approving import Approving
from caso_mesh.admin.desks.alerts import AlertsDesk
from caso_mesh.admin.desks.catalogs import CatalogsDesk
from caso_mesh.admin.desks.devices import DevicesDesk
from caso_mesh.admin.desks.keys import KeysDesk
from caso_mesh.admin.desks.means import Custody, Means, submitting
from caso_mesh.admin.desks.members import MembersDesk
from caso_mesh.admin.desks.overview import OverviewDesk
from caso_mesh.admin.desks.plans import PlansDesk
from caso_mesh.admin.desks.reach import Reach
from caso_mesh.admin.desks.records import RecordsDesk
from caso_mesh.admin.desks.reports import ReportsDesk
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.desks.servers import ServersDesk
from caso_mesh.admin.desks.sets import SetsDesk
from caso_mesh.admin.desks.storage import StorageDesk
from caso_mesh.admin.duties import Duty, keep_all
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.live import Live
from caso_mesh.admin.local_history import LocalHistory
from caso_mesh.admin.ports import Answer, Facts, Links, NodeAnswer
from caso_mesh.admin.scoping import Scoping
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.consensus.port import Replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.discovery.sighting import Discovery
from caso_mesh.identity.roster import Peer
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.audit import Change
from caso_mesh.model.calls import Call
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import IdSource
from caso_mesh.model.logons import Credentials
from caso_mesh.wire.network import Network

log = logging.getLogger(__name__)

#: What the office begins with is tried again after a pause, which grows.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


class Office:
    """One term of one administrator. ``tables`` and ``catalog`` outlive it: they are this voter's replica."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        consensus: Replicated,
        tables: Tables,
        catalog: Catalog,
        links: Links,
        facts: Facts,
        custody: Custody,
        server_name: str,
        version: str,
        network: Network,
        discovery: Discovery | None,
        static: Callable[[], Sequence[str]] = tuple,
        addresses: Callable[[], tuple[str, ...]],
        followers: Followers,
        incoming: Path,
        copies: Path,
        clock: Clock,
        calendar: Calendar,
        new_id: IdSource,
        randomness: Randomness,
        credentials: Callable[[str], Credentials],
    ) -> None:
        own = custody.keys.id
        self._consensus = consensus
        self.means = means = Means(
            keeper=keeper,
            tables=tables,
            live=Live(),
            links=links,
            facts=facts,
            alarms=Alarms(
                tables=tables,
                facts=facts,
                own=own,
                offices=lambda: [server.id for server in keeper.state.server_list() if server.voter or server.voted],
            ),
            submit=submitting(keeper, clock, new_id),
            own=own,
            name=server_name,
            clock=clock,
            calendar=calendar,
            new_id=new_id,
            randomness=randomness,
        )
        reach, local = Reach(means), LocalHistory(keeper=keeper, tables=tables)
        self.servers = ServersDesk(means, custody, addresses=addresses, version=version)
        self.keys = KeysDesk(
            means,
            custody,
            holds=self.servers.ordering.holds,
            steady=lambda: self.runs.has_steady_clock(),  # noqa: PLW0108 - that desk is made below
        )
        self.members = MembersDesk(
            means,
            custody,
            self.servers,
            self.keys,
            consensus=consensus,
            network=network,
            discovery=discovery,
            static=static,
            addresses=addresses,
        )
        clocks_differ = self.servers.watch.clocks_differ
        self.catalogs = CatalogsDesk(
            means, reach, catalog=catalog, incoming=incoming, voters=lambda: consensus.leadership().voters
        )
        self.runs = RunsDesk(
            means,
            reach,
            catalogs=self.catalogs,
            local=local,
            clocks_differ=clocks_differ,
            without=self.servers.ordering.without,
        )
        self.sets = SetsDesk(means, reach, self.catalogs, self.runs, clocks_differ=clocks_differ)
        self.storage = StorageDesk(means, self.catalogs, self.runs, self.sets)
        self.records = RecordsDesk(means, self.runs, consensus=consensus, followers=followers, copies=copies)
        self.alerts = AlertsDesk(means, self.runs)
        self.reports = ReportsDesk(
            means, self.runs, self.sets, consensus=consensus, followers=followers, credentials=credentials
        )
        self.devices = DevicesDesk(means, self.catalogs)
        self.plans = PlansDesk(means, self.runs)
        self.overview = OverviewDesk(means, self.runs, local, voters=lambda: consensus.leadership().voters)

        work = self.runs.work
        self._scoping = Scoping(keeper=keeper, tables=tables, work=work, on_device=reach.on_device)
        self.approving = Approving(
            keeper=keeper,
            tables=tables,
            alarms=means.alarms,
            facts=facts,
            submit=means.submit,
            check_set=work.find_set,
            own=own,
            clock=clock,
            doubtful=self.runs.is_clock_doubtful,
        )
        #: Calls of nodes and newcomers, by name.
        self.node_handlers: Mapping[str, NodeAnswer] = {
            **self.members.node_answers(),
            **self.catalogs.node_answers(),
            **self.storage.node_answers(),
            **self.records.node_answers(),
            "mesh.summary": self._summary,
        }
        #: Calls of people, by name.
        self.people_handlers: Mapping[str, Answer] = self.approving.guarded(
            self.keys.answers()
            | self.members.answers()
            | self.catalogs.answers()
            | self.runs.answers()
            | self.sets.answers()
            | self.storage.answers()
            | self.alerts.answers()
            | self.reports.answers()
            | self.devices.answers()
            | self.plans.answers()
            | self.overview.answers()
        )
        self._duties: Mapping[str, Duty] = {
            **self.servers.duties(),
            **self.keys.duties(),
            **self.members.duties(),
            **self.catalogs.duties(),
            **self.runs.duties(),
            **self.sets.duties(),
            **self.storage.duties(),
            **self.records.duties(),
            **self.alerts.duties(),
            **self.reports.duties(),
            **self.devices.duties(),
            "what awaits approval": self.approving.run,
        }

    def noting(self, request_id: str) -> AbstractContextManager[list[Change]]:
        """See ``ControlKeeper.noting``."""
        return self.means.keeper.noting(request_id)

    async def concerned(self, call: Call, request: Any) -> frozenset[str]:
        """See ``Scoping.concerned``."""
        return await self._scoping.concerned(call, request)

    async def _summary(self, peer: Peer, request: q.Nothing, link: Any) -> n.MeshSummary:
        keeper = self.means.keeper
        state = keeper.state
        return n.MeshSummary(
            servers=len(state.servers),
            running=self.runs.runs.running(),
            alerts=await self.alerts.calls.open(),
            term=keeper.authority.term,
            voters=tuple(sorted(state.name_of(node) for node in self._consensus.leadership().voters)),
        )

    async def run(self) -> None:
        """In office until cancelled."""
        log.info("in office, %s", self.means.keeper.authority)
        await self._begin()
        await keep_all(self._duties, whose="The administrator", alarms=self.means.alarms, clock=self.means.clock)

    async def _begin(self) -> None:
        """What later decisions stand on. Nothing begins without it."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self.records.intake.load_redundant()
                await self.storage.stocktaking.load()
                await self.means.alarms.load()
                return
            except CasoError as error:
                log.error("the office cannot begin yet: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
