"""Storage devices and media: added, set, carried elsewhere, taken over from other meshes, removed."""

from __future__ import annotations

from collections.abc import Awaitable

from caso_mesh.admin.desks.catalogs import CatalogsDesk
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.devices import Devices
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.importing import Importing
from caso_mesh.admin.moving import Moving
from caso_mesh.admin.ports import Answer
from caso_mesh.admin.stores import Stores
from caso_mesh.model import views as v
from caso_mesh.model.storage import Device


class DevicesDesk:
    def __init__(self, means: Means, catalogs: CatalogsDesk) -> None:
        keeper, tables, submit, links = means.keeper, means.tables, means.submit, means.links
        devices = Devices(keeper=keeper, submit=submit, links=links, new_id=means.new_id, randomness=means.randomness)

        def view(device: Device, warnings: tuple[str, ...]) -> Awaitable[v.DeviceView]:
            return self._stores.device_view(device, warnings)

        self._importing = Importing(
            keeper=keeper,
            tables=tables,
            submit=submit,
            links=links,
            journal=means.facts,
            devices=devices,
            new_id=means.new_id,
            list_sets=catalogs.rebuilding.rebuild,
            view=view,
        )
        self._stores = Stores(
            keeper=keeper,
            tables=tables,
            live=means.live,
            devices=devices,
            moving=Moving(keeper=keeper, submit=submit, links=links, devices=devices),
            importing=self._importing,
            submit=submit,
            clock=means.clock,
        )

    def duties(self) -> dict[str, Duty]:
        return {"sets of imported devices": self._importing.run}

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {**self._stores.handlers(), **self._importing.handlers()}
