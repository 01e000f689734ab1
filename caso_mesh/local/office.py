"""The office of a server over its own work: the duties and answers of an administrator, with one server to administer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.delegation import Delegation
from caso_mesh.admin.due import DueRuns
from caso_mesh.admin.duties import Duty, keep_all
from caso_mesh.admin.error_rules import ErrorRules
from caso_mesh.admin.held import Held
from caso_mesh.admin.intake import Intake
from caso_mesh.admin.live import Heard, Live
from caso_mesh.admin.on_device import OnDevice
from caso_mesh.admin.policies import Policies
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.admin.present import reason_text
from caso_mesh.admin.preview import Preview
from caso_mesh.admin.reasons import Reasons
from caso_mesh.admin.runs import Runs
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.telling import Pruning, Telling
from caso_mesh.admin.whereabouts import Away
from caso_mesh.admin.work import Work
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.orders import orders_for
from caso_mesh.identity.store import IdentityStore
from caso_mesh.journal import Journal
from caso_mesh.local.feed import Feed
from caso_mesh.local.links import OwnLinks, Unheard
from caso_mesh.local.mirror import Mirror
from caso_mesh.local.standing import Standing
from caso_mesh.local.telling import TellingRuns
from caso_mesh.model import requests as q
from caso_mesh.model.calls import LOCAL
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.commands import Command
from caso_mesh.model.errors import NotOfThisServer
from caso_mesh.model.ids import IdSource, local_id
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind
from caso_mesh.server.node import ServerNode

#: The category of the alert that stands while the own work of a server stands still.
FAILED = "own-work-failed"
#: How often the state of the own devices is looked at, when nothing else happens.
_LOOK_EACH_S = 1.0


class LocalOffice:
    """Made anew each time the room is opened. ``keeper`` is of a log of one member, which somebody else runs."""

    def __init__(
        self,
        *,
        node: ServerNode,
        keeper: ControlKeeper,
        tables: Tables,
        journal: Journal,
        identity: IdentityStore,
        clock: Clock,
        calendar: Calendar,
        new_id: IdSource,
        randomness: Randomness,
    ) -> None:
        self._node = node
        self._own = own = node.keys.id
        self._keeper = keeper
        self._tables = tables
        self._clock = clock
        self._name = name = node.config.server
        self._live = live = Live()
        self._links = links = OwnLinks(node)

        def local() -> str:
            return local_id(new_id(), own)

        self._new_id = local
        self._alarms = Alarms(tables=tables, facts=node.facts, own=own, offices=lambda: (), alone=True)
        self.standing = Standing(identity, name, clock)
        self._delegation = Delegation(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            submit=self._submit,
            own=own,
            clock=clock,
            calendar=calendar,
            randomness=randomness,
            barred=self.standing.barred,
        )
        self._due = DueRuns(
            keeper=keeper,
            tables=tables,
            live=live,
            submit=self._submit,
            alarms=self._alarms,
            clock=clock,
            calendar=calendar,
            opened=self._delegation.wake,
            whose=name,
        )
        self._intake = Intake(
            keeper=keeper,
            tables=tables,
            live=live,
            facts=Unheard(),
            submit=self._submit,
            clock=clock,
            changed=self._facts_came,
            no_data_path=self._delegation.no_data_path,
            linked=links.linked,
            held=lambda server: (),
            asked_enough=lambda: True,
        )
        self._feed = Feed(
            journal=journal,
            tables=tables,
            own=node.own(),
            take=self._intake.handlers()["journal.push"],
            clock=clock,
            kept_s=lambda: number(keeper.state.settings_of_mesh(), "joblog-keep-s"),
        )
        self.mirror = Mirror(
            keeper=keeper,
            submit=self._submit,
            facts=node.facts,
            orders=lambda: node.orders,
            new_id=local,
        )
        self._runs_told = TellingRuns(keeper=keeper, tables=tables, facts=node.facts, own=own)
        self._telling = Telling(keeper=keeper, live=live, alarms=self._alarms, clock=clock)
        self._pruning = Pruning(
            keeper=keeper, tables=tables, submit=self._submit, clock=clock, doubtful=lambda: self._due.doubtful
        )
        away = Away(keeper=keeper, live=live, links=links, clock=clock)
        self._work = Work(
            keeper=keeper,
            tables=tables,
            links=links,
            submit=self._submit,
            clock=clock,
            new_id=local,
            on_device=OnDevice(keeper=keeper, live=live, links=links, unreached=away.device),
        )
        runs = Runs(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            held=Held(keeper=keeper, links=links),
            work=self._work,
            due=self._due,
            catalogs=None,
            where=None,
            local=None,
        )
        policies = Policies(
            keeper=keeper, tables=tables, work=self._work, submit=self._submit, clock=clock, new_id=local
        )
        answers: dict[str, Answer] = {
            **policies.handlers(),
            **ErrorRules(keeper, self._submit).handlers(),
            **Preview(keeper=keeper, calendar=calendar).handlers(),
            **runs.handlers(),
            "backup": self._backup,
        }
        #: Calls of people, by name.
        self.handlers: Mapping[str, Answer] = {f"local.{call}": answers[call] for call in LOCAL}

    async def _submit(self, command: Command, *, who: str = "admin", request_id: str | None = None) -> Any:
        return await self._keeper.submit(
            command, who=who, request_id=request_id or self._new_id(), at_ns=self._clock.now_ns()
        )

    def _facts_came(self, sets: bool) -> None:
        self._live.tell()
        if sets:
            self._delegation.facts_came()

    async def _backup(self, caller: Caller, request: q.BackupRequest) -> Any:
        """As at the administrator, of this server's own files. Raises ``NotOfThisServer``."""
        for server, _ in request.sources:
            if server != self._name:
                raise NotOfThisServer(what=f"the files of {server}", server=self._name)
        return await self._work.backup(caller, request)

    async def begin(self) -> None:
        """What all that follows stands on. Raises ``StateRolledBack`` as ``Feed.catch_up``."""
        await self.mirror.found()
        await self.standing.look()
        await self._feed.catch_up()
        await self._intake.load_redundant()
        await self._alarms.load()
        await self._alarms.ends(FAILED, self._name)
        self._look()

    async def run(self) -> None:
        """The duties, until cancelled. Raises ``StateRolledBack`` as ``Feed.run``."""
        duties: dict[str, Duty] = {
            "orders and copies": self.mirror.run,
            "due runs": self._due.open,
            "late runs": self._due.close_late,
            "delegation": self._delegation.run,
            "reasons of waiting": Reasons(
                keeper=self._keeper, tables=self._tables, live=self._live, facts=self._node.facts, clock=self._clock
            ).run,
            "telling": self._telling.run,
            "telling of runs": self._runs_told.run,
            "pruning": self._pruning.run,
            "pruning records": self._feed.prune,
            "certificate": self._certificate,
            "own attempts": self._attempts,
            "own devices": self._devices,
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run())
            group.create_task(keep_all(duties, whose=self._name, alarms=self._alarms, clock=self._clock))

    async def _attempts(self) -> None:
        """What is delegated is worked on, beside the attempts of the orders. Never returns."""
        state = self._keeper.state
        async for _ in self._keeper.changes():
            orders = orders_for(
                state, self._own, self._keeper.authority, self._own,
                lambda source: self._live.redundant.get(source, ()), lambda attempt, run: b"",
            )  # fmt: skip
            self._node.own_work.put(orders.attempts)

    async def _devices(self) -> None:
        """Never returns."""
        while True:
            self._look()
            self._delegation.wake()
            await asyncio.sleep(_LOOK_EACH_S)

    def _look(self) -> None:
        """As a heartbeat of this server would tell: its devices, and the slots that delegated jobs hold."""
        beat = self._node.beat()
        delegated = self._node.own_work.delegated_loads(beat.holding)
        beat = q.Heartbeat(beat.now_ns, beat.authority, beat.running, beat.holding, beat.devices, delegated)
        self._live.heard[self._own] = Heard(self._clock.monotonic_s(), beat)

    async def _certificate(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.standing.run())
            while True:
                bar = self.standing.barred()
                if bar is not None:
                    text = f"{self._name} runs no job by itself: {reason_text(bar)}"
                    await self._alarms.begins(AlertKind.ERROR, "membership-unconfirmed", text, object=self._name)
                else:
                    await self._alarms.ends("membership-unconfirmed", self._name)
                await asyncio.sleep(_LOOK_EACH_S)
