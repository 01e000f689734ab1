"""What a walk finds: a name with its metadata, which can be read while the walk goes on."""

from __future__ import annotations

import os

from msgspec import Struct

from caso_mesh.model.entries import Entry
from caso_mesh.sources.places import Places
from caso_mesh.sources.reading import FileState, OpenFile
from caso_mesh.sources.unchanged import Same


class Walked(Struct):
    """One name that was found.

    ``entry`` has all metadata and no chunks, or is ``previous`` itself. ``unchanged``: the previous set holds the same
    file, ``previous`` is its entry, with chunks. ``state`` is what the file was like, for noticing a change while it is read;
    ``places``: where it is, unless it is at its path. ``fd``: a handle of a regular file that the walker may have, and
    closes when it goes on; -1 if there is none.
    """

    entry: Entry
    state: FileState
    unchanged: bool = False
    previous: Entry | None = None
    places: Places | None = None
    fd: int = -1

    def read_into(self, view: memoryview) -> bool:
        """Fill ``view``, which has the file's size, by the handle that the walker has open.

        False if there is none, or if anything is not as the walk met it: ``open`` tells more. Only before the walk goes on.
        """
        if self.fd < 0:
            return False
        state = self.state
        try:
            count = os.preadv(self.fd, (view,), 0)
            now = os.fstat(self.fd)
        except OSError:
            return False
        return (
            count == state.size == now.st_size
            and now.st_ctime_ns == state.changed_ns
            and now.st_mtime_ns == state.modified_ns
            and now.st_ino == state.inode
            and now.st_dev == state.device
        )

    def open(self) -> OpenFile:
        """Open a regular file for reading, at any time and from any thread.

        Raises ``Unreadable``, also when something else has that name now.
        """
        if self.places is None:
            return OpenFile(self.entry.path, self.state)
        return OpenFile(self.entry.path, self.state, self.places.real(b"/" + self.entry.path))


def release(found: Walked | Same) -> None:
    """Close the handle that came with a name."""
    if isinstance(found, Walked) and found.fd >= 0:
        os.close(found.fd)
        found.fd = -1
