"""What a failure of SQLite means to a person: its result codes as errors of the tree."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from caso_mesh.model.errors import CasoError, InvalidValue, StateDamaged, StateDiskFailed, StateFull, StateLocked

#: With less than this many free bytes "I/O error" or "unable to open" means a full disk: SQLite says so when it cannot
#: make or extend the files beside the database, or sync the log.
_NEARLY_NOTHING = 64 * 1024


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Raises what went wrong with the database at ``path`` as ``CasoError``; other errors pass unchanged."""
    try:
        yield
    except sqlite3.Error as error:
        found = explain(error, path)
        if found is None:
            raise
        raise found from error


def explain(error: BaseException, path: str) -> CasoError | None:
    """The error to show, or ``None`` if it is the statement's own fault (a constraint, wrong SQL). A number that is too large
    for SQLite is the fault of who named it.

    The extended codes are at https://www.sqlite.org/rescode.html; the low byte is the primary one.
    """
    if isinstance(error, OverflowError) and "SQLite" in str(error):
        return InvalidValue(value="a number", what="number", expected="It lies between -2^63 and 2^63 - 1")
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    folder = os.path.dirname(path) or "."
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return StateFull(state=folder)
    if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StateDamaged(path=path, detail=str(error))
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StateLocked(state=folder)
    if primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        if primary != sqlite3.SQLITE_READONLY and _is_full(folder):
            return StateFull(state=folder)
        return StateDiskFailed(path=path, detail=str(error))
    return None


def _is_full(folder: str) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    no_more_files = disk.f_files > 0 and disk.f_favail == 0  # some file systems count none
    return no_more_files or disk.f_bavail * disk.f_frsize < _NEARLY_NOTHING
