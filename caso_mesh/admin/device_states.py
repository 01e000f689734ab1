"""The state of a device as people are shown it."""

from __future__ import annotations

from collections.abc import Collection

from caso_mesh.model.nodes import DeviceReport
from caso_mesh.model.states import DeviceState
from caso_mesh.model.storage import Device


def shown_device_state(device: Device, reports: Collection[DeviceReport]) -> str:
    """The state of a device for people: what was set, but offline if no server that has told of it can use it, and imported
    while one of another mesh can be read."""
    if device.state is DeviceState.ONLINE and reports and all(report.problem is not None for report in reports):
        return DeviceState.OFFLINE.value
    if device.imported is not None and device.state in {DeviceState.ONLINE, DeviceState.READ_ONLY}:
        return DeviceState.IMPORTED.value
    return device.state.value
