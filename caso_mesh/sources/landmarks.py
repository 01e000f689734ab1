"""Knows by sight what is left out for what it is: vaults, caches, this machine's own state, swap in use."""

from __future__ import annotations

import os
import stat

from caso_mesh.sources.filters import CACHE_SIGNATURE, VAULT_MARKER, Filters, normal_path
from caso_mesh.sources.places import Places

#: How names of snapshots begin that lie beside what they are of.
SNAPSHOT_NAME = b".caso-mesh-snap."
PEEK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_vault(fd: int, names: list[bytes]) -> bool:
    """Whether the open folder with these names is a vault."""
    return b"format" in names and _begins_with(fd, b"format", VAULT_MARKER)


def is_cache(fd: int, names: list[bytes]) -> bool:
    """Whether the open folder with these names says that it is a cache."""
    return b"CACHEDIR.TAG" in names and _begins_with(fd, b"CACHEDIR.TAG", CACHE_SIGNATURE)


def without_snapshots(names: list[bytes]) -> list[bytes]:
    """The names in the top folder of a btrfs subvolume, less those under which snapshots for backups lie there."""
    return [name for name in names if not name.startswith(SNAPSHOT_NAME)]


def identities(filters: Filters, places: Places | None) -> dict[tuple[int, int], bool]:
    """(device, inode) of own paths (True) and, with default excludes, of active swap files (False), and what they are in
    snapshots."""
    found: dict[tuple[int, int], bool] = {}
    for path in _active_swap() if filters.default_excludes else ():
        _identify(found, path, own=False)
    if filters.own_identities is None:
        for path in filters.own_paths:
            _identify(found, normal_path(path), own=True)
    else:
        found |= dict.fromkeys(filters.own_identities, True)
    for taken, device in places.devices.items() if places is not None else ():
        found |= {(taken, inode): own for (number, inode), own in found.items() if number == device}
    return found


def _begins_with(folder: int, name: bytes, marker: bytes) -> bool:
    try:
        fd = os.open(name, PEEK, dir_fd=folder)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(marker), 0) == marker
    except OSError:
        return False
    finally:
        os.close(fd)


def _identify(found: dict[tuple[int, int], bool], path: bytes, *, own: bool) -> None:
    try:
        status = os.stat(path)
    except OSError:
        return  # what is not there cannot be met under another name
    found[status.st_dev, status.st_ino] = own


def _active_swap() -> list[bytes]:
    """Paths of swap files in use (``/proc/swaps``; blanks are written as octal escapes)."""
    try:
        with open("/proc/swaps", "rb") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return []
    paths = [line.split()[0] for line in lines if b" file " in line.replace(b"\t", b" ")]
    return [path.replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n") for path in paths]
