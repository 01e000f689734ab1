"""Where the files of a path are read: in a snapshot, while their path stays what it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from caso_mesh.sources.filters import is_below

#: What btrfs shows in a snapshot in the place of another subvolume: an empty folder with this inode
#: (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID), in a folder whose own root has the other (BTRFS_FIRST_FREE_OBJECTID).
STAND_IN, SUBVOLUME = 2, 256


class Places:
    """``redirects``: absolute paths, and where they are read. ``seams``: paths below them that lie on other file systems,
    and so in no snapshot: they are read as they are. ``devices``: the device number of each snapshot and that of what it
    is of. ``stand_ins``: those of the redirected paths below which other subvolumes show as empty folders. ``on_live`` is
    told of each path that is read as it is."""

    def __init__(
        self,
        redirects: Mapping[bytes, bytes],
        *,
        seams: Iterable[bytes] = (),
        devices: Mapping[int, int] | None = None,
        stand_ins: Iterable[bytes] = (),
        on_live: Callable[[bytes], None] = lambda path: None,
    ) -> None:
        self._places: dict[bytes, bytes] = dict(redirects)
        self._seams = frozenset(seams) - self._places.keys()
        self._stand_ins = frozenset(stand_ins)
        self._on_live = on_live
        self.devices: Mapping[int, int] = devices or {}

    def real(self, path: bytes) -> bytes:
        """Where the absolute ``path`` is read."""
        above = self._above(path)
        if above is None or above == path:
            return path if above is None else self._places[path]
        return os.path.join(self._places[above], path[len(above) :].lstrip(b"/"))

    def _above(self, path: bytes) -> bytes | None:
        # a walk adds seams while other threads ask: those never ask for what is below one that is not known yet
        return max((place for place in list(self._places) if is_below(path, place)), key=len, default=None)

    def device(self, number: int) -> int:
        """The device number of what a snapshot is of: it stays the same from backup to backup."""
        return self.devices.get(number, number)

    def is_seam(self, path: bytes, status: os.stat_result) -> bool:
        """Whether the snapshot has nothing of ``path``, which was found there as ``status``."""
        return path in self._seams or (
            status.st_ino == STAND_IN and self._above(os.path.dirname(path)) in self._stand_ins
        )

    def read_live(self, path: bytes, *, told: bool = True) -> None:
        """From now on ``path`` and all below it is read as it is, unless a longer path says otherwise."""
        self._places.setdefault(path, path)
        if told:
            self._on_live(path)
