"""The file systems of this machine's own disks: what somebody may want to have backed up."""

from __future__ import annotations

import os
from collections.abc import Iterable

from caso_mesh.model.resources import MOST_FILE_SYSTEMS, FileSystem
from caso_mesh.sources.mounts import Mount, mounted

#: Kinds without a block device of their own that keep files all the same; an overlay only as the root of a container.
_OWN = frozenset({b"zfs", b"bcachefs", b"btrfs"})
#: Images: nothing can be written there.
_IMAGES = frozenset({"squashfs", "erofs", "iso9660", "udf", "cramfs"})


def local_file_systems() -> tuple[FileSystem, ...]:
    """By path, as far as they can be looked at. Blocks as long as a disk does; raises ``OSError`` if nothing can be said."""
    with open("/proc/filesystems", "rb") as file:
        kinds = on_disks(file.read())
    found = []
    for mount in chosen(mounted(), kinds):
        try:
            if not os.path.isdir(mount.point):
                continue
            size = os.statvfs(mount.point)
        except OSError:
            continue  # it went while it was looked at, or nobody may
        total = size.f_blocks * size.f_frsize
        if total:
            used = total - size.f_bfree * size.f_frsize
            found.append(FileSystem(mount.point.lstrip(b"/"), mount.kind, total, used))
    return tuple(sorted(found, key=lambda each: each.path))[:MOST_FILE_SYSTEMS]


def on_disks(table: bytes) -> frozenset[str]:
    """Kinds of file systems that lie on disks, of ``/proc/filesystems`` (proc(5))."""
    rows = [line.split(b"\t") for line in table.splitlines()]
    kinds = {row[-1] for row in rows if row[0] != b"nodev"} | {row[-1] for row in rows if row[-1] in _OWN}
    return frozenset(kind.decode("ascii", "replace") for kind in kinds) - _IMAGES


def chosen(table: Iterable[Mount], kinds: frozenset[str]) -> list[Mount]:
    """Of all mounts those of file systems of these kinds, and the root whatever it is; each file system once, where it
    was mounted first: another place that shows it, or a part of it, holds nothing more."""
    found: list[Mount] = []
    points: dict[bytes, Mount] = {}
    for mount in table:
        points[mount.point] = mount  # what is mounted over it hides it
    for mount in points.values():
        if mount.point != b"/" and mount.kind not in kinds:
            continue
        if any(other.device == mount.device and _holds(other.root, mount.root) for other in found):
            continue
        found.append(mount)
    return found


def _holds(root: bytes, other: bytes) -> bool:
    return root in {b"/", other} or other.startswith(root + b"/")
