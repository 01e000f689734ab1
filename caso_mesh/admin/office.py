"""The office: everything that only the administrator does. It begins when its no-op is applied and ends on stepping
down, in one task group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from caso_mesh.admin.ageing import Ageing
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.alert_calls import AlertCalls
from caso_mesh.admin.answering import Answering
from caso_mesh.admin.applying import Applying
from caso_mesh.admin.approving import Approving
from caso_mesh.admin.asking import Asking
from caso_mesh.admin.attempt_history import AttemptHistory
from caso_mesh.admin.auditing import Auditing
from caso_mesh.admin.brake import Brake
from caso_mesh.admin.browsing import Browsing
from caso_mesh.admin.catalogs import CatalogIntake, alert_of
from caso_mesh.admin.copies import Copies
from caso_mesh.admin.delegation import Delegation
from caso_mesh.admin.devices import Devices
from caso_mesh.admin.due import DueRuns
from caso_mesh.admin.duties import keep_all
from caso_mesh.admin.enrolment import Enrolment
from caso_mesh.admin.error_rules import ErrorRules
from caso_mesh.admin.expiry import Expiry
from caso_mesh.admin.files import Files
from caso_mesh.admin.gathering import Gathering
from caso_mesh.admin.granting import Granting
from caso_mesh.admin.held import Held
from caso_mesh.admin.history import History
from caso_mesh.admin.holding import Holding
from caso_mesh.admin.intake import Intake
from caso_mesh.admin.join_secrets import JoinSecrets
from caso_mesh.admin.keeping import Followers, Keeping
from caso_mesh.admin.keeping_catalogs import KeepingCatalogs
from caso_mesh.admin.kits import Kits
from caso_mesh.admin.live import Live
from caso_mesh.admin.local_history import LocalHistory
from caso_mesh.admin.logons import Logons
from caso_mesh.admin.measures import Measures
from caso_mesh.admin.modes import Modes
from caso_mesh.admin.moving import Moving
from caso_mesh.admin.notices import Notices
from caso_mesh.admin.notifying import Notifying
from caso_mesh.admin.on_device import OnDevice, readers_of
from caso_mesh.admin.operators import Operators
from caso_mesh.admin.ordering import Ordering
from caso_mesh.admin.outbox import Outbox
from caso_mesh.admin.overnight import overnight
from caso_mesh.admin.overviews import Overviews
from caso_mesh.admin.policies import Policies
from caso_mesh.admin.ports import Facts, Links
from caso_mesh.admin.preview import Preview
from caso_mesh.admin.reasons import Reasons
from caso_mesh.admin.rebuilding import Rebuilding
from caso_mesh.admin.relaying import Relaying
from caso_mesh.admin.reporting import Reporting
from caso_mesh.admin.retaining import Retaining
from caso_mesh.admin.rotation import NextAuthority, Rotation
from caso_mesh.admin.runs import Runs
from caso_mesh.admin.scoping import Scoping
from caso_mesh.admin.sending_reports import SendingReports
from caso_mesh.admin.servers import Servers
from caso_mesh.admin.set_lists import SetLists
from caso_mesh.admin.stores import Stores
from caso_mesh.admin.story import Stories
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.telling import Pruning, Telling
from caso_mesh.admin.voting import Voting
from caso_mesh.admin.watching import ServerWatch
from caso_mesh.admin.what_if import WhatIf
from caso_mesh.admin.whereabouts import Away, Whereabouts
from caso_mesh.admin.work import Work
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.consensus.port import Replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.discovery.sighting import Discovery
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer
from caso_mesh.model import requests as q
from caso_mesh.model.audit import Change
from caso_mesh.model.calls import Call
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.commands import Command
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import IdSource
from caso_mesh.model.logons import Credentials
from caso_mesh.wire.network import Network

log = logging.getLogger(__name__)

#: What the office begins with is tried again after a pause, which grows.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

NodeHandler = Callable[[Peer, Any, Any], Awaitable[Any]]
PeopleHandler = Callable[[Any, Any], Awaitable[Any]]


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
        keys: NodeKeys,
        server_name: str,
        version: str,
        authority: Authority,
        id_key: bytes,
        root_key: Callable[[], bytes | None],
        drop_root_key: Callable[[], None],
        next_authority: NextAuthority,
        network: Network,
        discovery: Discovery | None,
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
        self._keeper = keeper
        self._consensus = consensus
        self._tables = tables
        self._clock = clock
        self._new_id = new_id
        self._alarms = Alarms(
            tables=tables,
            facts=facts,
            own=keys.id,
            offices=lambda: [server.id for server in keeper.state.server_list() if server.voter or server.voted],
        )
        #: What leaves for people; also for what others in the office tell them.
        self.outbox = Outbox(
            keeper=keeper,
            tables=tables,
            facts=facts,
            alarms=self._alarms,
            credentials=credentials,
            server=server_name,
            clock=clock,
            randomness=randomness,
        )
        self._notifying = Notifying(
            keeper=keeper,
            consensus=consensus,
            tables=tables,
            followers=followers,
            outbox=self.outbox,
            alarms=self._alarms,
            summary=lambda since_ns, until_ns: overnight(self.reporting, since_ns),
            own=keys.id,
            clock=clock,
            calendar=calendar,
        )
        self._live = live = Live()

        def readers(device: str) -> list[str]:
            return readers_of(keeper.state, live, links, device)

        self._delegation = Delegation(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            submit=self._submit,
            own=keys.id,
            clock=clock,
            calendar=calendar,
            randomness=randomness,
        )
        where = Whereabouts(keeper, tables)
        away = Away(keeper=keeper, live=live, links=links, clock=clock)
        browsing = Browsing(keeper=keeper, tables=tables, catalog=catalog, links=links, where=where, away=away)
        self._catalogs = CatalogIntake(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            links=links,
            facts=facts,
            alarms=self._alarms,
            incoming=incoming,
            arrived=live.tell,
            readers=readers,
            lost=lambda category, text: alert_of(facts, server_name, category, text),
        )
        keeping_catalogs = KeepingCatalogs(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            links=links,
            folder=incoming / "exported",
            readers=readers,
            voters=lambda: consensus.leadership().voters,
            own=keys.id,
        )
        #: The figures of the mesh.
        self.measures = Measures(keeper=keeper, tables=tables, live=live, links=links, own=keys.id, clock=clock)
        self._keeping = Keeping(
            keeper=keeper,
            consensus=consensus,
            tables=tables,
            followers=followers,
            own=keys.id,
            clock=clock,
            doubtful=self._is_clock_doubtful,
        )
        self._intake = Intake(
            keeper=keeper,
            tables=tables,
            live=live,
            facts=facts,
            submit=self._submit,
            clock=clock,
            changed=self._facts_came,
            no_data_path=self._delegation.no_data_path,
            linked=links.linked,
            held=self._keeping.held,
            asked_enough=lambda: self._asking.enough(consensus.leadership().voters),
        )
        self._ordering = Ordering(keeper=keeper, links=links, keys=keys, live=live, clock=clock, randomness=randomness)
        self._due = DueRuns(
            keeper=keeper,
            tables=tables,
            live=live,
            submit=self._submit,
            alarms=self._alarms,
            clock=clock,
            calendar=calendar,
            opened=self._delegation.wake,
        )
        self._reasons = Reasons(keeper=keeper, tables=tables, live=live, facts=facts, clock=clock)
        self._watch = ServerWatch(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            submit=self._submit,
            alarms=self._alarms,
            own=keys.id,
            addresses=addresses,
            version=version,
            clock=clock,
        )
        self._alert_calls = AlertCalls(keeper=keeper, tables=tables, submit=self._submit, clock=clock)
        self._answering = Answering(
            keeper=keeper,
            tables=tables,
            facts=facts,
            submit=self._submit,
            clock=clock,
            doubtful=self._is_clock_doubtful,
        )
        self._telling = Telling(keeper=keeper, live=live, alarms=self._alarms, clock=clock)
        self._ageing = Ageing(
            keeper=keeper,
            tables=tables,
            live=live,
            alarms=self._alarms,
            clock=clock,
            doubtful=lambda: self._due.doubtful,
        )
        self._pruning = Pruning(
            keeper=keeper,
            tables=tables,
            submit=self._submit,
            clock=clock,
            doubtful=self._is_clock_doubtful,
        )
        self._rotation = Rotation(
            keeper=keeper,
            submit=self._submit,
            own=keys.id,
            authority=authority,
            next_authority=next_authority,
            holds=self._ordering.holds,
            clock=clock,
            randomness=randomness,
        )
        secrets = JoinSecrets(keeper=keeper, clock=clock, randomness=randomness)
        self._enrolment = Enrolment(
            keeper=keeper,
            submit=self._submit,
            facts=facts,
            secrets=secrets,
            links=links,
            network=network,
            discovery=discovery,
            keys=keys,
            authority=authority,
            id_key=id_key,
            orders_of=self._ordering.orders_of,
            addresses=addresses,
            server_name=server_name,
            noted=self._rotation.note,
            clock=clock,
            randomness=randomness,
        )
        operators = Operators(
            keeper=keeper,
            submit=self._submit,
            facts=facts,
            secrets=secrets,
            authority=authority,
            addresses=addresses,
            noted=self._rotation.note,
            clock=clock,
            randomness=randomness,
        )
        self._kits = Kits(
            keeper=keeper,
            submit=self._submit,
            links=links,
            alarms=self._alarms,
            keys=keys,
            server_name=server_name,
            authority=authority,
            id_key=id_key,
            root_key=root_key,
            drop_root_key=drop_root_key,
            clock=clock,
            randomness=randomness,
        )
        on_device = OnDevice(keeper=keeper, live=live, links=links, unreached=away.device)
        work = Work(
            keeper=keeper,
            tables=tables,
            links=links,
            submit=self._submit,
            clock=clock,
            new_id=new_id,
            on_device=on_device,
        )
        self._scoping = Scoping(keeper=keeper, tables=tables, work=work, on_device=on_device)
        devices = Devices(keeper=keeper, submit=self._submit, links=links, new_id=new_id, randomness=randomness)
        local = LocalHistory(keeper=keeper, tables=tables)
        held = Held(keeper=keeper, links=links)
        self._runs = Runs(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            held=held,
            work=work,
            due=self._due,
            catalogs=self._catalogs,
            where=where,
            local=local,
        )
        retaining = Retaining(
            keeper=keeper,
            tables=tables,
            live=live,
            clock=clock,
            away=lambda device: not readers(device),
        )
        self._history = History(
            keeper=keeper,
            tables=tables,
            browsing=browsing,
            submit=self._submit,
            work=work,
            clock=clock,
            on_device=on_device,
            sets=SetLists(keeper=keeper, tables=tables, clock=clock, on_device=on_device, retaining=retaining),
        )
        files = Files(
            keeper=keeper,
            tables=tables,
            browsing=browsing,
            live=live,
            links=links,
            unreached=away.device,
            work=work,
            clock=clock,
            new_id=new_id,
        )
        rebuilding = Rebuilding(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            where=where,
            live=live,
            links=links,
            unreached=away.device,
            journal=facts,
            wake=self._catalogs.wake,
        )
        holding = Holding(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            unreached=away.device,
            work=work,
            own=keys.id,
            name=server_name,
            clock=clock,
        )
        self._brake = Brake(
            keeper=keeper,
            tables=tables,
            retaining=retaining,
            holding=holding,
            alarms=self._alarms,
            facts=facts,
            own=keys.id,
            clock=clock,
        )
        self._expiry = Expiry(
            keeper=keeper,
            tables=tables,
            retaining=retaining,
            holding=holding,
            on_device=on_device,
            alarms=self._alarms,
            facts=facts,
            calendar=calendar,
            brake=self._brake,
            due=self._due,
            clocks_differ=self._watch.clocks_differ,
        )
        servers = Servers(
            keeper=keeper,
            links=links,
            submit=self._submit,
            enrolment=self._enrolment,
            own=keys.id,
            votes=lambda node: node in consensus.leadership().voters,
            silent_s=self._watch.silent_s,
        )
        self._voting = Voting(
            keeper=keeper,
            consensus=consensus,
            links=links,
            submit=self._submit,
            authority=authority,
            own=keys.id,
            preset=consensus.preset,
            founders=consensus.founders,
            view=servers.view,
            clock=clock,
            randomness=randomness,
        )
        self._granting = Granting(keeper=keeper, live=live, links=links)
        self._logons = Logons(keeper=keeper, links=links, submit=self._submit, alarms=self._alarms)
        self._asking = Asking(
            tables=tables,
            links=links,
            voters=lambda: [voter.id for voter in keeper.state.voters()],
            own=keys.id,
            changed=lambda: self._facts_came(True),
            copies=copies,
        )
        gathering = Gathering(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            retaining=retaining,
            known=self._delegation.known,
            own=keys.id,
        )
        self.reporting = Reporting(keeper=keeper, gathering=gathering, calendar=calendar)
        self._sending = SendingReports(
            keeper=keeper,
            reporting=self.reporting,
            outbox=self.outbox,
            submit=self._submit,
            alarms=self._alarms,
            calendar=calendar,
            doubtful=lambda: self._due.doubtful,
        )
        policies = Policies(keeper=keeper, tables=tables, work=work, submit=self._submit, clock=clock, new_id=new_id)
        moving = Moving(keeper=keeper, submit=self._submit, links=links, devices=devices)
        stores = Stores(
            keeper=keeper, tables=tables, live=live, devices=devices, moving=moving, submit=self._submit, clock=clock
        )
        enrolment = self._enrolment.handlers()
        #: Calls of nodes and newcomers, by name.
        self.node_handlers: Mapping[str, NodeHandler] = {
            **self._intake.handlers(),
            **Relaying(keeper, links).handlers(),
            **keeping_catalogs.handlers(),
            "enrol.operator": operators.admit,
            "enrol.join": enrolment.pop("enrol.join"),
            "identity.renew": enrolment.pop("identity.renew"),
            "mesh.summary": self._summary,
        }
        approving = Approving(keeper, tables, self._alarms, work.find_set, keys.id, clock)
        #: Calls of people, by name.
        self.people_handlers: Mapping[str, PeopleHandler] = approving.guarded({
            **enrolment,
            **operators.handlers(),
            **self._rotation.handlers(),
            **servers.handlers(),
            **self._voting.handlers(),
            **stores.handlers(),
            **self._kits.handlers(),
            **self._runs.handlers(),
            **self._history.handlers(),
            **Overviews(
                keeper=keeper, tables=tables, live=live, links=links, due=self._due, own=keys.id, clock=clock
            ).handlers(),
            **self._alert_calls.handlers(),
            **AttemptHistory(
                keeper=keeper, tables=tables, live=live, held=held, work=work, local=local
            ).handlers(),
            **Auditing(keeper=keeper, tables=tables, facts=facts, clock=clock).handlers(),
            **files.handlers(),
            **holding.handlers(),
            **ErrorRules(keeper, self._submit).handlers(),
            **self._logons.handlers(),
            **Notices(
                keeper=keeper,
                submit=self._submit,
                outbox=self.outbox,
                server=server_name,
                clock=clock,
            ).handlers(),
            **Copies(keeper=keeper, submit=self._submit, clock=clock, new_id=new_id).handlers(),
            **self._expiry.handlers(),
            **policies.handlers(),
            **Applying(keeper=keeper, policies=policies, submit=self._submit, clock=clock, new_id=new_id).handlers(),
            **Preview(keeper=keeper, calendar=calendar).handlers(),
            **Stories(keeper=keeper, tables=tables, work=work, due=self._due, clock=clock, local=local).handlers(),
            **WhatIf(keeper=keeper, known=self._delegation.known, calendar=calendar).handlers(),
            **rebuilding.handlers(),
            **self.reporting.handlers(),
            **self._sending.handlers(),
            **Modes(keeper=keeper, tables=tables, away=away).handlers(),
        })  # fmt: skip

    def noting(self, request_id: str) -> AbstractContextManager[list[Change]]:
        """See ``ControlKeeper.noting``."""
        return self._keeper.noting(request_id)

    async def concerned(self, call: Call, request: Any) -> frozenset[str]:
        """See ``Scoping.concerned``."""
        return await self._scoping.concerned(call, request)

    def _is_clock_doubtful(self) -> bool:
        return self._due.doubtful or self._watch.clocks_differ()

    def _facts_came(self, sets: bool) -> None:
        self._live.tell()
        if sets:
            self._catalogs.wake()
            self._delegation.facts_came()

    async def _submit(self, command: Command, *, who: str = "admin", request_id: str | None = None) -> Any:
        return await self._keeper.submit(
            command, who=who, request_id=request_id or self._new_id(), at_ns=self._clock.now_ns()
        )

    async def _summary(self, peer: Peer, request: q.Nothing, link: Any) -> q.MeshSummary:
        state = self._keeper.state
        return q.MeshSummary(
            servers=len(state.servers),
            running=self._runs.running(),
            alerts=await self._alert_calls.open(),
            term=self._keeper.authority.term,
            voters=tuple(sorted(state.name_of(node) for node in self._consensus.leadership().voters)),
        )

    async def run(self) -> None:
        """In office until cancelled."""
        log.info("in office, %s", self._keeper.authority)
        duties: dict[str, Callable[[], Awaitable[None]]] = {
            "ordering": self._ordering.run,
            "catalogs": self._catalogs.run,
            "enrolment": self._enrolment.run,
            "due runs": self._due.open,
            "late runs": self._due.close_late,
            "delegation": self._delegation.run,
            "reasons of waiting": self._reasons.run,
            "watching servers": self._watch.run,
            "telling": self._telling.run,
            "pruning": self._pruning.run,
            "ages of backups": self._ageing.run,
            "recovery kits": self._kits.run,
            "voters": self._voting.run,
            "keys of replaced servers": self._granting.run,
            "secrets of logons": self._logons.run,
            "rotation of the CA": self._rotation.run,
            "what other voters hold": self._asking.run,
            "keeping records": self._keeping.run,
            "ransomware brake": self._brake.run,
            "expiry of sets": self._expiry.run,
            "answers that nobody gives": self._answering.run,
            "notification": self._notifying.run,
            "sending of messages": self.outbox.run,
            "reports": self._sending.run,
        }
        await self._begin()
        await keep_all(duties, whose="The administrator", alarms=self._alarms, clock=self._clock)

    async def _begin(self) -> None:
        """What later decisions stand on. Nothing begins without it."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._intake.load_redundant()
                await self._alarms.load()
                return
            except CasoError as error:
                log.error("the office cannot begin yet: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
