"""Inventories, as they are asked for and shown."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.states import Priority


class ScheduleWords(Struct, frozen=True):
    """When a job is due, as a person says it; as the fields of ``BackupRequest``."""

    schedule: str
    zone: str | None = None
    exclude_days: tuple[str, ...] = ()
    start_window_s: float | None = None
    cancel_after_s: float | None = None
    catch_up: bool = False


class DeviceInventory(Struct, frozen=True):
    """Look what lies in ``devices`` (names; none: in every one that takes work when it is due)."""

    devices: tuple[str, ...] = ()
    priority: Priority = Priority.MEDIUM
    name: str | None = None
    when: ScheduleWords | None = None


class InventoryView(Struct, frozen=True):
    """What an inventory found in a device. ``missing``: sets that should be there and are not; ``added``: that nobody knew
    of; ``unreadable``: objects; ``abandoned`` of ``sessions`` that are open: nobody is at work for them."""

    device: str
    sets: int
    deleted: int
    missing: int
    added: int
    unreadable: int
    media: tuple[str, ...]
    writers: int
    sessions: int
    abandoned: int
    packs: int
    pack_bytes: int
    free_bytes: int
    total_bytes: int
