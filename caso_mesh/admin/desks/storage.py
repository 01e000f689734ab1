"""Devices as a whole: what lies in them, and emptying them."""

from __future__ import annotations

from caso_mesh.admin.desks.catalogs import CatalogsDesk
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.desks.sets import SetsDesk
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.erasing import Erasing
from caso_mesh.admin.ports import Answer, NodeAnswer
from caso_mesh.admin.stocktaking import Stocktaking


class StorageDesk:
    """Work that attempts do with a device, and ask about while they do it."""

    def __init__(self, means: Means, catalogs: CatalogsDesk, runs: RunsDesk, sets: SetsDesk) -> None:
        self.stocktaking = Stocktaking(
            keeper=means.keeper,
            tables=means.tables,
            live=means.live,
            work=runs.work,
            rebuilding=catalogs.rebuilding,
            alarms=means.alarms,
            journal=means.facts,
        )
        self._erasing = Erasing(
            keeper=means.keeper,
            tables=means.tables,
            live=means.live,
            links=means.links,
            submit=means.submit,
            work=runs.work,
            retaining=sets.retaining,
            alarms=means.alarms,
            journal=means.facts,
            name=means.name,
            clock=means.clock,
            new_id=means.new_id,
        )

    def duties(self) -> dict[str, Duty]:
        return {"unfinished erases": self._erasing.run}

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {**self.stocktaking.handlers(), **self._erasing.handlers()}

    def node_answers(self) -> dict[str, NodeAnswer]:
        """Calls of nodes, by name."""
        return {**self.stocktaking.node_handlers(), **self._erasing.node_handlers()}
