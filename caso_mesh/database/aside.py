"""A database that is damaged is put aside, whole, for whoever wants to look; what of it can still be read is read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from caso_mesh.database.failure import explained

T = TypeVar("T")


def put_aside(path: str | os.PathLike[str]) -> Path:
    """Renames a database, which nobody has open, and what belongs to it, to ``NAME.damaged``, in place of the one before: a disk
    that goes bad must not fill itself with them. Its new name. Raises what the disk raises."""
    original = Path(path)
    aside = original.with_name(f"{original.name}.damaged")
    for suffix in ("-wal", "-shm", ""):
        source, target = original.with_name(original.name + suffix), aside.with_name(aside.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            source.replace(target)
    return aside


def read_damaged(path: str | os.PathLike[str], fn: Callable[[sqlite3.Connection], T]) -> T | None:
    """What ``fn`` reads of a database that may be damaged, without changing it; ``None`` where it cannot be opened. ``fn`` has
    to expect ``sqlite3.DatabaseError`` at each step."""
    try:
        with closing(_open(path)) as connection:
            connection.execute("PRAGMA query_only=ON")
            return fn(connection)
    except sqlite3.DatabaseError:
        return None


def _open(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """As it is there; none is made."""
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def readable(rows: Iterator[T]) -> Iterator[T]:
    """Rows until they end, or cannot be read any more."""
    while True:
        try:
            yield next(rows)
        except (StopIteration, sqlite3.DatabaseError):
            return


def is_whole(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with the pages of a database, ``None`` if nothing is. Takes as long as reading all of it."""
    with explained(os.fspath(path)), closing(_open(path)) as connection:
        connection.execute("PRAGMA query_only=ON")
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        return None if found == "ok" else str(found)
