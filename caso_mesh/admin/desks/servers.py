"""The servers as they are: each is watched, and has its orders."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.desks.means import Custody, Means
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.ordering import Ordering
from caso_mesh.admin.watching import ServerWatch


class ServersDesk:
    """It answers nobody. ``addresses``: of the server in office; ``version``: of its program."""

    def __init__(
        self, means: Means, custody: Custody, *, addresses: Callable[[], tuple[str, ...]], version: str
    ) -> None:
        keeper, tables, live, links = means.keeper, means.tables, means.live, means.links
        submit, alarms, own, clock, randomness = means.submit, means.alarms, means.own, means.clock, means.randomness
        self.watch = ServerWatch(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            submit=submit,
            alarms=alarms,
            own=own,
            addresses=addresses,
            version=version,
            clock=clock,
        )
        self.ordering = Ordering(
            keeper=keeper, links=links, keys=custody.keys, live=live, clock=clock, randomness=randomness
        )

    def duties(self) -> dict[str, Duty]:
        return {"ordering": self.ordering.run, "watching servers": self.watch.run}
