"""Catalogs that are made anew out of devices, as that is asked for and shown."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.inventories import ScheduleWords
from caso_mesh.model.states import Priority


class DeviceCatalog(Struct, frozen=True):
    """Make records of sets and their catalog anew out of ``devices`` (names; none: of every one that takes work when it is
    due)."""

    devices: tuple[str, ...] = ()
    priority: Priority = Priority.MEDIUM
    name: str | None = None
    when: ScheduleWords | None = None


class CatalogView(Struct, frozen=True):
    """What making the catalog of a device anew came to. Of ``sets`` there nobody knew ``added``; ``deleted`` were known, and are
    deleted there. ``lacked`` had no catalog where it is to be; of those ``made`` have one now, of ``files`` files, which
    took ``seconds``."""

    device: str
    sets: int
    deleted: int
    added: int
    lacked: int
    made: int
    files: int
    seconds: float
