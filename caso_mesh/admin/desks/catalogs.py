"""What was backed up, as catalogs say: taken in here, kept by the servers that made the sets, and browsed in either."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from caso_mesh.admin.browsing import Browsing
from caso_mesh.admin.catalogs import CatalogIntake, alert_of
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.reach import Reach
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.keeping_catalogs import KeepingCatalogs
from caso_mesh.admin.modes import Modes
from caso_mesh.admin.ports import Answer, NodeAnswer
from caso_mesh.admin.rebuilding import Rebuilding
from caso_mesh.admin.whereabouts import Whereabouts
from caso_mesh.catalog.catalog import Catalog


class CatalogsDesk:
    """``incoming``: the folder for catalogs on their way."""

    def __init__(
        self, means: Means, reach: Reach, *, catalog: Catalog, incoming: Path, voters: Callable[[], Iterable[str]]
    ) -> None:
        keeper, tables, live, links = means.keeper, means.tables, means.live, means.links
        self.where = Whereabouts(keeper, tables)
        self.browsing = Browsing(
            keeper=keeper, tables=tables, catalog=catalog, links=links, where=self.where, away=reach.away
        )
        self.intake = CatalogIntake(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            links=links,
            own=means.own,
            facts=means.facts,
            alarms=means.alarms,
            incoming=incoming,
            arrived=live.tell,
            clock=means.clock,
            randomness=means.randomness,
            readers=reach.readers,
            lost=lambda category, text: alert_of(means.facts, means.name, category, text),
        )
        self._keeping = KeepingCatalogs(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            links=links,
            folder=incoming / "exported",
            readers=reach.readers,
            voters=voters,
            own=means.own,
        )
        self.rebuilding = Rebuilding(
            keeper=keeper,
            tables=tables,
            catalog=catalog,
            where=self.where,
            live=live,
            links=links,
            unreached=reach.away.device,
            journal=means.facts,
            own=means.own,
            wake=self.intake.wake,
        )
        self._modes = Modes(keeper=keeper, tables=tables, away=reach.away)

    def duties(self) -> dict[str, Duty]:
        return {"catalogs": self.intake.run}

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {**self.rebuilding.handlers(), **self._modes.handlers()}

    def node_answers(self) -> dict[str, NodeAnswer]:
        """Calls of nodes, by name."""
        return self._keeping.handlers()
