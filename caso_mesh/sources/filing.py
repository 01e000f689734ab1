"""Files of a restore whose content comes at once: each is made under its own name, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from caso_mesh.model.entries import Entry, SourceException
from caso_mesh.sources import reasons
from caso_mesh.sources.apply import Applier
from caso_mesh.sources.handles import Folder
from caso_mesh.sources.leftovers import UNFINISHED, hold
from caso_mesh.sources.parts import CREATE, is_same, status_of, write_all

#: The reason of what could not be removed again.
LEFT = "temporary-file-left"


class Filer:
    """Makes files. Thread-safe; others, also in other processes, may make files in the same folders meanwhile."""

    def __init__(self, apply: Applier, on_exception: Callable[[SourceException], None]) -> None:
        self._apply = apply
        self._on_exception = on_exception
        #: File systems that keep no modes: half files cannot be told there.
        self._modeless: set[int] = set()

    def make(
        self, entry: Entry, folder: Folder, name: bytes, data: bytes | bytearray | memoryview
    ) -> os.stat_result | None:
        """All of a file but a hole at its end, and all its metadata but the flags that come last: its status. None: not
        under its own name, since this file system keeps no modes.

        Raises one of ``reasons.IMPOSSIBLE``, ``FileExistsError`` if something has that name; nothing of it stays.
        """
        if folder.device in self._modeless:
            return None
        fd, status = self._create(folder, name)
        try:
            if stat.S_IMODE(status.st_mode) == UNFINISHED:
                self.prepare(entry, fd, folder)
                write_all(fd, data, 0)
                if len(data) != entry.size:
                    os.ftruncate(fd, entry.size)
                if self._apply.file(entry, fd, status=status, clean=folder.clean is True):
                    closing, fd = fd, -1
                    os.close(closing)  # some file systems say only here that they are full
                    return status
            self._modeless.add(folder.device)  # it would look as if it were not finished
        except reasons.IMPOSSIBLE:
            self._remove(entry, folder, name, fd, status)
            raise
        self._remove(entry, folder, name, fd, status)
        return None

    def prepare(self, entry: Entry, fd: int, folder: Folder) -> None:
        """Gives a new file the flags that only an empty one takes."""
        if folder.clean is None:
            folder.clean = self._apply.is_clean(fd)
        if entry.flags or not folder.clean:
            self._apply.early_flags(entry, fd)

    def _create(self, folder: Folder, name: bytes) -> tuple[int, os.stat_result]:
        while True:
            fd = os.open(name, CREATE, UNFINISHED, dir_fd=folder.fd)
            status = hold(fd)
            if status is not None:
                return fd, status
            os.close(fd)

    def _remove(self, entry: Entry, folder: Folder, name: bytes, fd: int, status: os.stat_result) -> None:
        try:
            if is_same(status, status_of(folder.fd, name)):
                os.unlink(name, dir_fd=folder.fd)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._on_exception(SourceException(entry.path, LEFT, reasons.text(error)))
        finally:
            if fd >= 0:
                with contextlib.suppress(OSError):  # it is given up anyway
                    os.close(fd)
