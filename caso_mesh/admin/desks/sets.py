"""Backup sets and what is in them: lists, files to restore, retention, holds, and their end."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.brake import Brake
from caso_mesh.admin.desks.catalogs import CatalogsDesk
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.reach import Reach
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.expiry import Expiry
from caso_mesh.admin.files import Files
from caso_mesh.admin.history import History
from caso_mesh.admin.holding import Holding
from caso_mesh.admin.ports import Answer
from caso_mesh.admin.retaining import Retaining
from caso_mesh.admin.set_lists import SetLists


class SetsDesk:
    """``clocks_differ``: nothing expires while those of servers do."""

    def __init__(
        self,
        means: Means,
        reach: Reach,
        catalogs: CatalogsDesk,
        runs: RunsDesk,
        *,
        clocks_differ: Callable[[], bool],
    ) -> None:
        keeper, tables, live, links = means.keeper, means.tables, means.live, means.links
        alarms, facts, own, clock = means.alarms, means.facts, means.own, means.clock
        on_device, unreached = reach.on_device, reach.away.device
        self.retaining = Retaining(
            keeper=keeper, tables=tables, live=live, clock=clock, away=lambda device: not reach.readers(device)
        )
        self._history = History(
            keeper=keeper,
            tables=tables,
            browsing=catalogs.browsing,
            submit=means.submit,
            work=runs.work,
            clock=clock,
            on_device=on_device,
            sets=SetLists(keeper=keeper, tables=tables, clock=clock, on_device=on_device, retaining=self.retaining),
        )
        self._files = Files(
            keeper=keeper,
            tables=tables,
            browsing=catalogs.browsing,
            live=live,
            links=links,
            unreached=unreached,
            work=runs.work,
            clock=clock,
            new_id=means.new_id,
        )
        self._holding = Holding(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            unreached=unreached,
            work=runs.work,
            name=means.name,
            clock=clock,
        )
        self._brake = Brake(
            keeper=keeper,
            tables=tables,
            retaining=self.retaining,
            holding=self._holding,
            alarms=alarms,
            facts=facts,
            own=own,
            clock=clock,
        )
        self._expiry = Expiry(
            keeper=keeper,
            tables=tables,
            retaining=self.retaining,
            holding=self._holding,
            on_device=on_device,
            alarms=alarms,
            facts=facts,
            calendar=means.calendar,
            brake=self._brake,
            due=runs.due,
            clocks_differ=clocks_differ,
        )

    def duties(self) -> dict[str, Duty]:
        return {"ransomware brake": self._brake.run, "expiry of sets": self._expiry.run}

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {
            **self._history.handlers(),
            **self._files.handlers(),
            **self._holding.handlers(),
            **self._expiry.handlers(),
        }
