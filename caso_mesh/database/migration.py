"""Schema by numbered steps, forward only: step N brings ``user_version`` from N-1 to N."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from caso_mesh.database.failure import explained
from caso_mesh.model.errors import StateDamaged, StateTooNew

#: SQL statements, or a function that is given the connection inside the transaction.
Migration = str | Callable[[sqlite3.Connection], None]


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration]) -> None:
    """Bring the database to the newest schema, all missing steps in one transaction.

    An existing database is copied to ``<path>.v<N>`` first, N being its version. Raises ``StateTooNew``,
    ``StateDamaged`` (also for another program's database), ``StateFull``.
    """
    with explained(path):
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if found > len(migrations):
            raise StateTooNew(state=path, found=found, known=len(migrations))
        if found == 0 and tables:
            raise StateDamaged(path=path, detail="it is a database of another program")
        if found == len(migrations):
            return
        if found > 0:
            _copy(connection, path, found)
        # Rebuilding a table (drop, rename) would cascade through its foreign keys; they are checked at the end
        # instead. The pragma has no effect inside a transaction. https://www.sqlite.org/lang_altertable.html#otheralter
        connection.execute("PRAGMA foreign_keys=OFF")
        try:
            _run(connection, path, migrations, found)
        finally:
            connection.execute("PRAGMA foreign_keys=ON")


def _run(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration], found: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in migrations[found:]:
            if callable(step):
                step(connection)
            else:
                for statement in _statements(step):
                    connection.execute(statement)
        broken = connection.execute("PRAGMA foreign_key_check").fetchone()
        if broken:
            raise StateDamaged(path=path, detail=f"a row of {broken[0]} refers to nothing in {broken[2]}")
        connection.execute(f"PRAGMA user_version={len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit first, and so end the transaction that all steps share.
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip("; \n\t"):
        yield statement


def _copy(connection: sqlite3.Connection, path: str, version: int) -> None:
    """A complete copy as ``<path>.v<version>``, on the disk before the name appears."""
    partial, target = f"{path}.v{version}.partial", f"{path}.v{version}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            connection.backup(copy)
        _sync(partial)
        os.replace(partial, target)
        _sync(os.path.dirname(path) or ".")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _sync(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
