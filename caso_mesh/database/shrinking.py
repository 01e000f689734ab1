"""Giving the file system back what a database holds and needs no more.

A new file can give pages back one by one (``auto_vacuum=INCREMENTAL``, https://www.sqlite.org/pragma.html#pragma_auto_vacuum).
One of earlier programs cannot: it is copied once, when it is opened, if that is worth it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3

from msgspec import Struct

log = logging.getLogger(__name__)

_INCREMENTAL = 2
#: What is kept for what comes next: a share of the file, and so many bytes at least.
_KEPT_SHARE, _KEPT_BYTES = 8, 1 << 20
#: Pages that are given back in one transaction.
_STEP = 256
#: A file is copied to get rid of so many bytes, and half of it, at least.
_WORTH_BYTES = 32 << 20
#: What takes longer to copy than a daemon may take to start is left as it is.
_MOST_COPIED_BYTES = 512 << 20
#: What is to be free beside the copy.
_LEFT_FREE_BYTES = 64 << 20


class Room(Struct, frozen=True):
    """How large a database is, in pages of ``page_bytes``; ``free`` of them hold nothing."""

    pages: int
    free: int
    page_bytes: int
    incremental: bool

    @property
    def surplus(self) -> int:
        """Pages that hold nothing, beyond those that are kept."""
        return max(0, self.free - max(self.pages // _KEPT_SHARE, _KEPT_BYTES // self.page_bytes))

    @property
    def is_worth_a_copy(self) -> bool:
        used = (self.pages - self.free) * self.page_bytes
        free = self.free * self.page_bytes
        return not self.incremental and free >= max(_WORTH_BYTES, used) and used <= _MOST_COPIED_BYTES


def room_of(connection: sqlite3.Connection) -> Room:
    names = ("page_count", "freelist_count", "page_size", "auto_vacuum")
    pages, free, size, mode = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return Room(pages, free, size, mode == _INCREMENTAL)


def give_back(connection: sqlite3.Connection) -> int:
    """One small step inside a transaction; how many pages. The file is shorter after the next checkpoint."""
    room = room_of(connection)
    for _ in range(min(room.surplus, _STEP) if room.incremental else 0):
        # more than one at once would want to be stepped through, which a statement without columns is not by this module
        connection.execute("PRAGMA incremental_vacuum(1)")
    return room.free - room_of(connection).free


def copied(connection: sqlite3.Connection, path: str) -> bool:
    """Puts a copy without what is empty in the place of a file that cannot give anything back, if nobody else has it open;
    ``True``: the connection was closed for that. Interrupted anywhere, one of the two is there, whole."""
    room = room_of(connection)
    if not room.is_worth_a_copy:
        return False
    folder = os.path.dirname(path) or "."
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < (room.pages - room.free) * room.page_bytes + _LEFT_FREE_BYTES:
        return False
    draft = f"{path}.shrunk"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("VACUUM INTO ?", (draft,))
        _sync(draft)
        # which only the last connection can do; it leaves no log behind that would be taken for one of the copy
        if connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "delete":
            return False
        connection.close()
        try:
            os.replace(draft, path)
            _sync(folder)
        except OSError as error:
            log.warning("%s keeps what it does not need: %s", path, error)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _sync(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
