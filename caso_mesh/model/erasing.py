"""Erasing a device, as it is asked for."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.states import Priority


class DeviceErase(Struct, frozen=True):
    """Empty a device (name) and begin a new vault in it. ``last_good``: also if it holds the last good set of a list."""

    name: str
    last_good: bool = False
    priority: Priority = Priority.MEDIUM
