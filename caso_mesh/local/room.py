"""Opening what a server's own work needs, when there is some: its log, its tables, its office."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from caso_mesh.admin.duties import end_if_cancelled, in_own_task, leaves
from caso_mesh.admin.ports import Caller
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.consensus import elected, open_replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.database import Database
from caso_mesh.identity.store import IdentityStore
from caso_mesh.journal import Journal
from caso_mesh.local.alerts import own_alerts
from caso_mesh.local.office import FAILED, LocalOffice
from caso_mesh.model.calls import LOCAL
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.errors import CasoError, StateRolledBack, Unavailable
from caso_mesh.model.ids import IdSource
from caso_mesh.model.orders import Orders
from caso_mesh.model.states import AlertKind
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.node import ServerNode

log = logging.getLogger(__name__)

#: After trouble it is opened again after a pause, which grows while it fails within ``_WELL_S`` of its start.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _WELL_S = 0.5, 60.0, 60.0


class LocalRoom:
    """Closed until something is copied to this server, or somebody asks for its own work; then it stays open, and is open
    again after each start."""

    def __init__(
        self,
        *,
        node: ServerNode,
        folder: StateFolder,
        journal: Journal,
        identity: IdentityStore,
        clock: Clock,
        calendar: Calendar,
        new_id: IdSource,
        randomness: Randomness,
        same_thread: bool,
    ) -> None:
        self._node = node
        self._folder = folder
        self._journal = journal
        self._identity = identity
        self._clock = clock
        self._calendar = calendar
        self._new_id = new_id
        self._randomness = randomness
        self._same_thread = same_thread
        self._wanted = asyncio.Event()
        self._opened = asyncio.Event()
        self.office: LocalOffice | None = None
        self._removed = False
        #: Why it stands still, if it does.
        self._trouble = ""

    def ordered(self, orders: Orders) -> None:
        """There are other orders."""
        if orders.copies:
            self._wanted.set()
        if self.office is not None:
            self.office.mirror.look()

    def removed(self, by: str) -> None:
        """The peer ``by`` (node id) says that this server was removed. A voter is believed: it is final."""
        if by in self._node.bearings.voters() and not self._removed:
            log.warning("%s says that this server was removed from the mesh", self._node.trust.name_of(by))
            self._removed = True
            if self.office is not None:
                self.office.standing.removed = True

    def handlers(self) -> dict[str, Callable[[Caller, Any], Awaitable[Any]]]:
        """Calls of people about the own work of this server, by name. The first one opens it."""

        def answering(call: str) -> Callable[[Caller, Any], Awaitable[Any]]:
            async def answer(caller: Caller, request: Any) -> Any:
                self._wanted.set()
                while self.office is None:
                    if self._trouble:
                        raise Unavailable(what=f"What this server does by itself ({self._trouble})")
                    await self._opened.wait()
                return await self.office.handlers[call](caller, request)

            return answer

        return {f"local.{call}": answering(f"local.{call}") for call in LOCAL} | own_alerts(self._node)

    async def run(self) -> None:
        """Never returns."""
        if self._folder.local_log.exists() or self._node.orders.copies:
            self._wanted.set()
        await self._wanted.wait()
        pause_s = _FIRST_PAUSE_S
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await in_own_task(self._work)
            except* StateRolledBack as error:
                # made of the journal, they can be made of it again
                log.warning("the tables of this server's own work are made anew: %s", error.exceptions[0])
                await asyncio.to_thread(self._drop_tables)
            except* Exception as failed:
                # whatever it is, what is delegated goes on
                reason = "; ".join(_said(error) for error in leaves(failed))
                log.error("this server's own work stands still: %s", reason, exc_info=not _foreseen(failed))
                if reason != self._trouble:
                    await self._alert(reason)
                self._trouble = reason
            end_if_cancelled()  # a task group whose child fails then forgets that it was to end
            if self._clock.monotonic_s() - began_s > _WELL_S:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _alert(self, reason: str) -> None:
        name = self._node.config.server
        try:
            text = f"What {name} does by itself stands still: {reason}"
            await self._node.facts.alert(AlertKind.ERROR, FAILED, text, object=name)
        except CasoError as error:
            log.error("no alert could be raised: %s", error)

    @property
    def _tables(self) -> Path:
        return self._folder.local / "tables.db"

    def _drop_tables(self) -> None:
        for path in self._tables.parent.glob(f"{self._tables.name}*"):
            path.unlink(missing_ok=True)

    async def _work(self) -> None:
        self._folder.local.mkdir(mode=0o700, exist_ok=True)
        async with AsyncExitStack() as stack:
            consensus = await stack.enter_async_context(
                open_replicated(self._folder.local_log, self._node.keys.id, same_thread=self._same_thread)
            )
            database = await stack.enter_async_context(
                Database.open(self._tables, MIGRATIONS, durable=False, same_thread=self._same_thread)
            )
            keeper = ControlKeeper(consensus, own=True)
            office = LocalOffice(
                node=self._node,
                keeper=keeper,
                tables=Tables(database),
                journal=self._journal,
                identity=self._identity,
                clock=self._clock,
                calendar=self._calendar,
                new_id=self._new_id,
                randomness=self._randomness,
            )
            office.standing.removed = self._removed
            try:
                async with asyncio.TaskGroup() as below:
                    below.create_task(consensus.run())
                    below.create_task(keeper.run())
                    await elected(consensus)
                    await keeper.barrier()
                    await office.begin()
                    self.office, self._trouble = office, ""
                    self._opened.set()
                    await office.run()
            finally:
                self.office = None
                self._opened.clear()


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, CasoError) else f"{type(error).__name__}: {error}"


def _foreseen(failed: BaseExceptionGroup[Any]) -> bool:
    return all(isinstance(error, CasoError | OSError) for error in leaves(failed))
