"""Devices as a whole: what lies in them."""

from __future__ import annotations

from caso_mesh.admin.desks.catalogs import CatalogsDesk
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.ports import Answer, NodeAnswer
from caso_mesh.admin.stocktaking import Stocktaking


class StorageDesk:
    """Work that attempts do with a device, and ask about while they do it."""

    def __init__(self, means: Means, catalogs: CatalogsDesk, runs: RunsDesk) -> None:
        self.stocktaking = Stocktaking(
            keeper=means.keeper,
            tables=means.tables,
            live=means.live,
            work=runs.work,
            rebuilding=catalogs.rebuilding,
            alarms=means.alarms,
            journal=means.facts,
        )

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return self.stocktaking.handlers()

    def node_answers(self) -> dict[str, NodeAnswer]:
        """Calls of nodes, by name."""
        return self.stocktaking.node_handlers()
