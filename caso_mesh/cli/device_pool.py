"""``caso-mesh device pool``: named groups of devices."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import DevicePoolDoc
from caso_mesh.model.errors import NotFound

Name = Annotated[str, Parameter(name="NAME", help="Name of the device pool.")]
Devices = Annotated[
    tuple[str, ...],
    Parameter(
        name="--device",
        negative=(),
        help="A device, as NAME or NAME:PRIORITY; may be repeated. The smaller number is taken first (100, without).",
    ),
]


def add_to(devices: Group) -> None:
    """Adds the commands to those of devices."""
    pools = devices.group(name="pool", help="Device pools, the target devices:NAME.")
    pools.command(list_, name="list")
    pools.command(create)
    pools.command(set_, name="set")
    pools.command(copy)
    pools.command(delete)


def list_(*, common: Common = DEFAULTS) -> None:
    """List the device pools."""
    output.show(ask(common, "device-pool.list", q.Nothing(), v.DevicePoolViews), common.json, _list)


def _list(view: v.DevicePoolViews) -> None:
    output.table(
        view.device_pools,
        ("name", lambda row: row.name),
        ("devices", lambda row: row.definition.devices),
        empty="No device pools to show. A new one: caso-mesh device pool create NAME --device DEVICE:1 --device DEVICE:2",
    )


def _one(view: v.DevicePoolView) -> None:
    output.line(f"device pool {view.name}: {output.cell(view.definition.devices)}")


def create(name: Name, /, *, device: Devices = (), common: Common = DEFAULTS) -> None:
    """Make a pool of devices."""
    edit = q.DevicePoolEdit(name, DevicePoolDoc(device))
    output.show(ask(common, "device-pool.create", edit, v.DevicePoolView), common.json, _one)


def set_(name: Name, /, *, device: Devices = (), common: Common = DEFAULTS) -> None:
    """Replace the devices of a pool."""
    edit = q.DevicePoolEdit(name, DevicePoolDoc(device))
    output.show(ask(common, "device-pool.set", edit, v.DevicePoolView), common.json, _one)


def copy(
    name: Name, new: Annotated[str, Parameter(name="NEW", help="The new name.")], /, *, common: Common = DEFAULTS
) -> None:
    """Copy a device pool."""
    with connect(common) as client:
        rows = client.call("device-pool.list", q.Nothing(), v.DevicePoolViews).device_pools
        found = next((row.definition for row in rows if row.name == name), None)
        if found is None:
            raise NotFound(kind="device-pool", name=name)
        view = client.call("device-pool.create", q.DevicePoolEdit(new, found), v.DevicePoolView)
    output.show(view, common.json, _one)


def delete(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Delete a device pool; its devices stay."""
    view = ask(common, "device-pool.delete", q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"device pool {name} was deleted"))
