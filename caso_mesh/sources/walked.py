"""What a walk finds: a name with its metadata, which can be read while the walk goes on."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.entries import Entry
from caso_mesh.sources.places import Places
from caso_mesh.sources.reading import FileState, OpenFile


class Walked(Struct):
    """One name that was found.

    ``entry`` has all metadata and no chunks, or is ``previous`` itself. ``unchanged``: the previous set holds the same
    file, ``previous`` is its entry, with chunks. ``state`` is what the file was like, for noticing a change while it is read;
    ``places``: where it is, unless it is at its path.
    """

    entry: Entry
    state: FileState
    unchanged: bool = False
    previous: Entry | None = None
    places: Places | None = None

    def open(self) -> OpenFile:
        """Open a regular file for reading, at any time and from any thread.

        Raises ``Unreadable``, also when something else has that name now.
        """
        if self.places is None:
            return OpenFile(self.entry.path, self.state)
        return OpenFile(self.entry.path, self.state, self.places.real(b"/" + self.entry.path))
