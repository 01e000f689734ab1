"""The office: everything that only the administrator does. It begins when its no-op is applied and ends on stepping
down, in one task group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from caso_mesh.admin.catalogs import CatalogIntake
from caso_mesh.admin.devices import Devices
from caso_mesh.admin.duties import Duties
from caso_mesh.admin.enrolment import Enrolment
from caso_mesh.admin.intake import Intake
from caso_mesh.admin.live import Live
from caso_mesh.admin.ordering import Ordering
from caso_mesh.admin.people import People
from caso_mesh.admin.ports import Facts, Links
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.discovery.sighting import Discovery
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import Command
from caso_mesh.model.ids import IdSource
from caso_mesh.wire.network import Network

log = logging.getLogger(__name__)

NodeHandler = Callable[[Peer, Any, Any], Awaitable[Any]]
PeopleHandler = Callable[[Any, Any], Awaitable[Any]]


class Office:
    """One term of one administrator. ``tables`` and ``catalog`` outlive it: they are this voter's replica."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        catalog: Catalog,
        links: Links,
        facts: Facts,
        keys: NodeKeys,
        server_name: str,
        version: str,
        authority: Authority,
        id_key: bytes,
        network: Network,
        discovery: Discovery | None,
        addresses: Callable[[], tuple[str, ...]],
        incoming: Path,
        clock: Clock,
        new_id: IdSource,
        randomness: Randomness,
    ) -> None:
        self._keeper = keeper
        self._clock = clock
        self._new_id = new_id
        live = Live()
        self._catalogs = CatalogIntake(
            keeper=keeper, tables=tables, catalog=catalog, links=links, facts=facts, incoming=incoming
        )
        self._intake = Intake(
            keeper=keeper, tables=tables, live=live, submit=self._submit, clock=clock, changed=self._catalogs.wake
        )
        self._ordering = Ordering(keeper=keeper, links=links, keys=keys, live=live, clock=clock, randomness=randomness)
        self._duties = Duties(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            facts=facts,
            submit=self._submit,
            own=keys.id,
            addresses=addresses,
            version=version,
            clock=clock,
            randomness=randomness,
        )
        self._enrolment = Enrolment(
            keeper=keeper,
            submit=self._submit,
            network=network,
            discovery=discovery,
            keys=keys,
            authority=authority,
            id_key=id_key,
            orders_of=self._ordering.orders_of,
            addresses=addresses,
            server_name=server_name,
            clock=clock,
            randomness=randomness,
        )
        work = Work(keeper=keeper, tables=tables, links=links, submit=self._submit, clock=clock, new_id=new_id)
        devices = Devices(keeper=keeper, submit=self._submit, links=links, new_id=new_id, randomness=randomness)
        self._people = People(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            live=live,
            links=links,
            submit=self._submit,
            duties=self._duties,
            enrolment=self._enrolment,
            devices=devices,
            work=work,
            own=keys.id,
            clock=clock,
        )
        enrolment = self._enrolment.handlers()
        #: Calls of nodes and newcomers, by name.
        self.node_handlers: Mapping[str, NodeHandler] = {
            **self._intake.handlers(),
            "enrol.join": enrolment.pop("enrol.join"),
            "identity.renew": enrolment.pop("identity.renew"),
            "mesh.summary": self._summary,
        }
        #: Calls of people, by name.
        self.people_handlers: Mapping[str, PeopleHandler] = {**self._people.handlers(), **enrolment}

    async def _submit(self, command: Command, *, who: str = "admin", request_id: str | None = None) -> Any:
        return await self._keeper.submit(
            command, who=who, request_id=request_id or self._new_id(), at_ns=self._clock.now_ns()
        )

    async def _summary(self, peer: Peer, request: q.Nothing, link: Any) -> q.MeshSummary:
        state = self._keeper.state
        return q.MeshSummary(
            servers=len(state.servers),
            running=self._people.running_runs(),
            alerts=await self._people.open_alerts(),
            term=self._keeper.authority.term,
            voters=tuple(server.name for server in state.voters()),
        )

    async def run(self) -> None:
        """In office until cancelled."""
        log.info("in office, %s", self._keeper.authority)
        await self._intake.load_redundant()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ordering.run())
            group.create_task(self._catalogs.run())
            group.create_task(self._enrolment.run())
            group.create_task(self._duties.open_due_runs())
            group.create_task(self._duties.delegate())
            group.create_task(self._duties.close_missed())
            group.create_task(self._duties.watch_servers())
            group.create_task(self._duties.tell_ends())
