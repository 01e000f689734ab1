"""The office of a server over its own work: the duties and answers of an administrator, with one server to administer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.desks.means import Means, submitting
from caso_mesh.admin.desks.reach import Reach
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.duties import Duty, keep_all
from caso_mesh.admin.live import Heard, Live
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.admin.present import reason_text
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.orders import orders_for
from caso_mesh.identity.store import IdentityStore
from caso_mesh.journal import Journal
from caso_mesh.local.feed import Feed
from caso_mesh.local.links import OwnLinks, Unheard
from caso_mesh.local.mirror import Mirror
from caso_mesh.local.standing import Standing
from caso_mesh.local.telling import TellingRuns
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.calls import LOCAL
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.errors import NotOfThisServer
from caso_mesh.model.ids import IdSource, local_id
from caso_mesh.model.job_edits import JobEdit
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
        self._name = name = node.config.server
        own = node.keys.id

        def local() -> str:
            return local_id(new_id(), own)

        self._means = means = Means(
            keeper=keeper,
            tables=tables,
            live=Live(),
            links=OwnLinks(node),
            facts=node.facts,
            alarms=Alarms(tables=tables, facts=node.facts, own=own, offices=lambda: (), alone=True),
            submit=submitting(keeper, clock, local),
            own=own,
            name=name,
            clock=clock,
            calendar=calendar,
            new_id=local,
            randomness=randomness,
        )
        self.standing = Standing(identity, name, clock, node.links.turned_away)
        self._runs = RunsDesk(means, Reach(means), barred=self.standing.barred, whose=name)
        self._intake = self._runs.intake(facts=Unheard(), held=lambda server: (), asked_enough=lambda: True)
        self._feed = Feed(
            journal=journal,
            tables=tables,
            own=node.own(),
            take=self._intake.handlers()["journal.push"],
            clock=clock,
            kept_s=lambda: number(keeper.state.settings_of_mesh(), "joblog-keep-s"),
        )
        self.mirror = Mirror(
            keeper=keeper, submit=means.submit, facts=node.facts, orders=lambda: node.orders, new_id=local
        )
        self._runs_told = TellingRuns(keeper=keeper, tables=tables, facts=node.facts, own=own)
        self._asked = asked = self._runs.answers()
        answers: dict[str, Answer] = {**asked, "backup": self._of_own_files, "job.edit": self._of_own_files}
        #: Calls of people, by name.
        self.handlers: Mapping[str, Answer] = {f"local.{call}": answers[call] for call in LOCAL}

    async def _of_own_files(self, caller: Caller, request: q.BackupRequest | JobEdit) -> Any:
        """As at the administrator, of this server's own files. Raises ``NotOfThisServer``."""
        for server, _ in request.sources or ():
            if server != self._name:
                raise NotOfThisServer(what=f"the files of {server}", server=self._name)
        return await self._asked["job.edit" if isinstance(request, JobEdit) else "backup"](caller, request)

    async def begin(self) -> None:
        """What all that follows stands on. Raises ``StateRolledBack`` as ``Feed.catch_up``."""
        await self.mirror.found()
        await self.standing.look()
        await self._feed.catch_up()
        await self._intake.load_redundant()
        await self._means.alarms.load()
        await self._means.alarms.ends(FAILED, self._name)
        self._look()

    async def run(self) -> None:
        """The duties, until cancelled. Raises ``StateRolledBack`` as ``Feed.run``."""
        duties: dict[str, Duty] = {
            "orders and copies": self.mirror.run,
            **self._runs.duties(),
            "telling of runs": self._runs_told.run,
            "pruning records": self._feed.prune,
            "certificate": self._certificate,
            "own attempts": self._attempts,
            "own devices": self._devices,
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run())
            group.create_task(keep_all(duties, whose=self._name, alarms=self._means.alarms, clock=self._means.clock))

    async def _attempts(self) -> None:
        """What is delegated is worked on, beside the attempts of the orders. Never returns."""
        keeper, live, own = self._means.keeper, self._means.live, self._means.own
        async for _ in keeper.changes():
            orders = orders_for(
                keeper.state, own, keeper.authority, own,
                lambda source: live.redundant.get(source, ()), lambda attempt, run: b"",
            )  # fmt: skip
            self._node.own_work.put(orders.attempts)

    async def _devices(self) -> None:
        """Never returns."""
        while True:
            self._look()
            self._runs.delegation.wake()
            await asyncio.sleep(_LOOK_EACH_S)

    def _look(self) -> None:
        """As a heartbeat of this server would tell: its devices, and the slots that delegated jobs hold."""
        beat = self._node.beat()
        delegated = self._node.own_work.delegated_loads(beat.holding)
        beat = n.Heartbeat(beat.now_ns, beat.authority, beat.running, beat.holding, beat.devices, delegated)
        self._means.live.heard[self._means.own] = Heard(self._means.clock.monotonic_s(), beat)

    async def _certificate(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.standing.run())
            while True:
                bar = self.standing.barred()
                if bar is not None:
                    text = f"{self._name} runs no job by itself: {reason_text(bar)}"
                    await self._means.alarms.begins(AlertKind.ERROR, "membership-unconfirmed", text, object=self._name)
                else:
                    await self._means.alarms.ends("membership-unconfirmed", self._name)
                await asyncio.sleep(_LOOK_EACH_S)
