"""Which servers reach a device now, and what is said where none does."""

from __future__ import annotations

from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.on_device import OnDevice, readers_of
from caso_mesh.admin.whereabouts import Away


class Reach:
    """For desks: it has no duty and answers nobody."""

    def __init__(self, means: Means) -> None:
        keeper, live, links = means.keeper, means.live, means.links
        self._means = means
        self.away = Away(keeper=keeper, live=live, links=links, clock=means.clock)
        self.on_device = OnDevice(keeper=keeper, live=live, links=links, unreached=self.away.device)

    def readers(self, device: str) -> list[str]:
        """See ``readers_of``."""
        return readers_of(self._means.keeper.state, self._means.live, self._means.links, device)
