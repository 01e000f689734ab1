"""What of a server's file systems selection lists, and jobs without a list that have a schedule, name."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from caso_mesh.control.state import ControlState
from caso_mesh.model.host_commands import is_reserved
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.model.resources import FileSystem


class Named(Struct, frozen=True):
    """A place on a server that is backed up, by a list or job of the name ``by``. ``whole``: all files below it, also in
    other file systems unless ``one_file_system``."""

    root: bytes
    by: str
    whole: bool = True
    one_file_system: bool = False


def named_places(state: ControlState) -> dict[str, list[Named]]:
    """By server (id)."""
    found: dict[str, list[Named]] = {}
    for row in state.selection_lists():
        for entry in row.entries:
            if not is_reserved(entry.root):
                whole = not entry.includes and not row.includes
                found.setdefault(entry.server, []).append(Named(entry.root, row.name, whole, row.one_file_system))
    for job in state.job_list():
        if job.origin is None and job.schedule is not None and isinstance(job.spec, BackupSpec):
            for source in job.spec.sources:
                only = {root for root, _ in source.only}
                found.setdefault(source.server, []).extend(
                    Named(root, f"job {job.name}", root not in only, job.spec.one_file_system)
                    for root in source.roots
                    if not is_reserved(root)
                )
    return found


def cover(system: FileSystem, places: Iterable[Named]) -> tuple[frozenset[str], frozenset[str]]:
    """The names of who backs up all of a file system, and of who backs up some of it."""
    wholly, partly = set[str](), set[str]()
    for place in places:
        if holds(place.root, system.path) and (place.root == system.path or not place.one_file_system):
            (wholly if place.whole else partly).add(place.by)
        elif holds(system.path, place.root):
            partly.add(place.by)
    return frozenset(wholly), frozenset(partly - wholly)


def is_backup_disk(system: FileSystem, devices: Iterable[bytes]) -> bool:
    """Whether it is there to hold a device: one of ``devices`` (absolute paths) lies at its top, or one folder below."""
    if not system.path:
        return False
    return any(path.lstrip(b"/") == system.path or _parent(path.lstrip(b"/")) == system.path for path in devices)


def holds(folder: bytes, path: bytes) -> bool:
    """Whether ``path`` is ``folder`` or lies below it; the root is empty."""
    return not folder or path == folder or path.startswith(folder + b"/")


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]
