"""What a voter does while it is not in office: its tables and its catalog follow those of the administrator, so that its own
office could begin at any moment with all that was known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.catalogs import CatalogIntake
from caso_mesh.admin.following import Following
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.telling import kept_since, prune_tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import facts
from caso_mesh.model import telling as t
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import Misuse
from caso_mesh.model.states import AlertKind
from caso_mesh.wire.codec import pack, unpack
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

_PRUNE_EACH_S = 3600.0
#: A piece of a catalog detail, and what is around it.
_LARGEST_ANSWER = 4 << 20


class Standby:
    """``admin`` gives the link with the administrator in office (raises ``NoAdmin``), ``wait_admin`` waits for one. ``own``, ``lost``: as in
    ``CatalogIntake``."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        catalog: Catalog,
        incoming: Path,
        copies: Path,
        admin: Callable[[], Callee],
        wait_admin: Callable[[], Awaitable[None]],
        own: str,
        clock: Clock,
        randomness: Randomness,
        lost: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._clock = clock
        self._admin = admin
        self._wait_admin = wait_admin
        self._catalogs = CatalogIntake(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            links=RelayLinks(admin),
            own=own,
            facts=_Silent(),
            alarms=Alarms(tables=tables, facts=_Silent(), own="", offices=tuple),
            incoming=incoming,
            arrived=lambda: None,
            clock=clock,
            randomness=randomness,
            readers=self._readers,
            lost=lost,
        )
        self._following = Following(tables, self._catalogs.wake, copies, self._trace_since_ns)

    async def found(self, set_ids: Collection[str]) -> None:
        """See ``CatalogIntake``."""
        await self._catalogs.found(set_ids)

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._following.run(self._admin, self._wait_admin))
            group.create_task(self._catalogs.run())
            group.create_task(self._prune())

    def _trace_since_ns(self) -> int:
        return kept_since(self._keeper.state, self._clock.now_ns())

    def _readers(self, device: str) -> list[str]:
        row = self._keeper.state.devices.get(device)
        return sorted(place.server for place in row.paths) if row is not None else []

    async def _prune(self) -> None:
        while True:
            told = await self._tables.runs_told()
            # what was told of may come before the log says that there is such a run: that one is not forgotten
            await self._keeper.wait_applied(await self._following.applied())
            await prune_tables(self._keeper.state, self._tables, told, self._clock.now_ns())
            await asyncio.sleep(_PRUNE_EACH_S)


class RelayLinks:
    """The links of a catalog intake where there is but one, with the administrator, who asks for this voter."""

    def __init__(self, admin: Callable[[], Callee]) -> None:
        self._admin = admin

    def get(self, node: str) -> Callee:
        return _Relayed(self._admin, node)

    def linked(self, node: str) -> bool:
        return True  # the administrator knows; what it cannot reach now is asked for again

    def nodes(self) -> list[str]:
        return []

    def observe(self, observer: Callable[[str, bool], None]) -> Callable[[], None]:
        return lambda: None

    def greeting_of(self, node: str) -> Any:
        return None

    async def clock_offset_s(self, node: str) -> float:
        raise Misuse("only the administrator in office lets anything be deleted")

    async def wait_for(self, node: str, timeout_s: float) -> Callee:
        return self.get(node)


class _Relayed:
    def __init__(self, admin: Callable[[], Callee], server: str) -> None:
        self._admin = admin
        self._server = server
        self.peer: Any = None

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        request = t.VoterRelay(self._server, method, pack(params))
        answer = await ask(self._admin(), "voter.relay", request, t.VoterRelayed, timeout_s=timeout_s)
        return unpack(answer.answer, max_bytes=_LARGEST_ANSWER)

    async def notify(self, method: str, params: Any = None) -> None:
        raise Misuse(f"{method} is not relayed")


class _Silent:
    """Where a standby's findings go: the one in office makes the same ones, and tells of them."""

    async def append(self, *new: facts.Fact) -> None:
        log.debug("as the administrator will have told: %s", new)

    async def alert(
        self, alert: AlertKind, category: str, text: str, *, object: str = "", fields: dict[str, Any] | None = None
    ) -> str:
        log.info("%s: %s", category, text)
        return ""
