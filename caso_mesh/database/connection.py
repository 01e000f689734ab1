"""Opening one SQLite connection with the pragmas every database of the program has."""

from __future__ import annotations

import os
import sqlite3

from caso_mesh.database.failure import explained
from caso_mesh.model.errors import StateDamaged

#: How long to wait for a lock of another process, in milliseconds. Inside one daemon nobody else writes.
_BUSY_TIMEOUT_MS = 5000
#: The write-ahead log is cut back to this many bytes when it starts anew.
_WAL_LIMIT = 64 << 20


def open_writer(path: str, *, durable: bool) -> sqlite3.Connection:
    """The connection that writes. A new file is for its owner only, and so are the files SQLite makes beside it.

    ``durable`` syncs the log at each commit (``synchronous=FULL``); otherwise the last commits may be lost when the
    machine loses power, never when only the process dies. https://www.sqlite.org/pragma.html#pragma_synchronous
    """
    with explained(path):
        _create_private(path)
        connection = _connect(path)
        try:
            if not connection.execute("PRAGMA page_count").fetchone()[0]:  # before anything is in it
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise StateDamaged(path=path, detail=f"its journal mode is {mode}, the file system lacks shared memory")
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
        except BaseException:
            connection.close()
            raise
        return connection


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that cannot change anything."""
    with explained(path):
        connection = _connect(path)
        connection.execute("PRAGMA query_only=ON")
        return connection


def open_plain(path: str) -> sqlite3.Connection:
    """A connection to a file that is to be filled with a copy, private as all of them."""
    _create_private(path)
    return _connect(path)


def _create_private(path: str) -> None:
    # A missing folder or right shows in the open of SQLite just after, which names its own reason.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError:
        return


def _connect(path: str) -> sqlite3.Connection:
    # Transactions are begun and ended by this room, never by the sqlite3 module behind its back.
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    try:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection
