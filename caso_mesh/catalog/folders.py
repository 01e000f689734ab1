"""Folders have ids: one tree for each source, kept as long as any set of that source has something in it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence

#: The parent of each source's top folder.
NOWHERE = 0
#: Folders one in the other that are looked for at once, and how.
_LEVELS = 8
_DESCEND = [
    f"SELECT {', '.join(f'f{at}.id' for at in range(levels))} FROM folder f0"
    + "".join(
        f" JOIN folder f{at} ON f{at}.parent = f{at - 1}.id AND f{at}.name = ?{at + 2}" for at in range(1, levels)
    )
    + " WHERE f0.parent = ?1 AND f0.name = ?2"
    for levels in range(1, _LEVELS + 1)
]


def child(conn: sqlite3.Connection, parent: int, name: bytes) -> int | None:
    row = conn.execute("SELECT id FROM folder WHERE parent = ? AND name = ?", (parent, name)).fetchone()
    return None if row is None else int(row[0])


def descend(conn: sqlite3.Connection, parent: int, names: Sequence[bytes]) -> Sequence[int] | None:
    """The ids of folders one in the other, ``None`` if any is missing. In one question, as far as that goes."""
    found: list[int] = []
    for at in range(0, len(names), _LEVELS):
        some = names[at : at + _LEVELS]
        row = conn.execute(_DESCEND[len(some) - 1], (found[-1] if found else parent, *some)).fetchone()
        if row is None:
            return None
        found += row
    return found


def make_top(conn: sqlite3.Connection, node: str) -> int:
    """The top folder of a new source; its id."""
    number = conn.execute("INSERT INTO folder (parent, name) VALUES (?, ?)", (NOWHERE, node.encode())).lastrowid
    assert number is not None
    return number


class FolderWriter:
    """Collects new folders of one transaction, and writes them at once."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._rows: list[tuple[int, int, bytes]] = []

    def make(self, conn: sqlite3.Connection, parent: int, name: bytes) -> int:
        """A folder that is not there yet; its id. It is there after ``flush``."""
        if self._next is None:
            # AUTOINCREMENT: the number after the highest that ever was, so that no id is given again.
            self._next = next_id(conn, "folder")
        number = self._next
        self._next += 1
        self._rows.append((number, parent, name))
        return number

    def flush(self, conn: sqlite3.Connection) -> None:
        conn.executemany("INSERT INTO folder (id, parent, name) VALUES (?, ?, ?)", self._rows)
        conn.executemany(
            "INSERT INTO folder_text (rowid, name) VALUES (?, ?)",
            [(number, framed(name)) for number, _parent, name in self._rows],
        )
        self._rows.clear()
        # Another transaction may give the next one.
        self._next = None


def next_id(conn: sqlite3.Connection, table: str) -> int:
    """The id after the highest that the AUTOINCREMENT table ever had."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 1 if row is None else int(row[0]) + 1


def find(conn: sqlite3.Connection, top: int, path: bytes) -> int | None:
    """The id of the folder ``path`` below the folder ``top``, or ``None``."""
    if not path:
        return top
    ids = descend(conn, top, path.split(b"/"))
    return None if ids is None else ids[-1]


def below(conn: sqlite3.Connection, folder: int) -> Iterator[int]:
    """``folder`` itself and all folders below it."""
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        yield at
        waiting.extend(row[0] for row in conn.execute("SELECT id FROM folder WHERE parent = ?", (at,)))


def upwards(conn: sqlite3.Connection, ids: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
    """Id, parent and name of these folders, as far as they are there, and of all above them."""
    seen = {*ids}
    wanted = sorted(seen)
    while wanted:  # in one question that goes up by itself each takes twice as long
        rows = conn.execute(
            "SELECT f.id, f.parent, f.name FROM json_each(?) wanted CROSS JOIN folder f ON f.id = wanted.value",
            (json.dumps(wanted),),
        ).fetchall()
        yield from rows
        wanted = sorted({row[1] for row in rows} - seen)
        seen.update(wanted)


def remove_if_empty(conn: sqlite3.Connection, folder: int, chains: list[int]) -> None:
    """Forget ``folder``, then its parents, as far as they hold nothing in any of the ``chains`` of their source."""
    while True:
        row = conn.execute("SELECT parent, name FROM folder WHERE id = ?", (folder,)).fetchone()
        if row is None or row[0] == NOWHERE:
            return
        if conn.execute("SELECT 1 FROM folder WHERE parent = ? LIMIT 1", (folder,)).fetchone():
            return
        for chain in chains:
            if conn.execute("SELECT 1 FROM block WHERE chain = ? AND folder = ? LIMIT 1", (chain, folder)).fetchone():
                return
        conn.execute("DELETE FROM folder WHERE id = ?", (folder,))
        conn.execute(
            "INSERT INTO folder_text (folder_text, rowid, name) VALUES ('delete', ?, ?)", (folder, framed(row[1]))
        )
        folder = row[0]


def framed(name: bytes) -> str:
    """A name as it is indexed: byte for byte as Latin-1, so that every name has a text, between slashes, so that a
    pattern's beginning and end give trigrams as well."""
    return f"/{name.decode('latin-1')}/"


class Paths:
    """Source (node id) and path of folders by their ids, remembered for one question."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._known: dict[int, tuple[str, bytes] | None] = {}

    def get(self, folder: int) -> tuple[str, bytes] | None:
        """``None`` if there is no such folder any more."""
        trail: list[tuple[int, bytes]] = []
        at = folder
        while at not in self._known:
            row = self._conn.execute("SELECT parent, name FROM folder WHERE id = ?", (at,)).fetchone()
            if row is None:
                self._known[at] = None
            elif row[0] == NOWHERE:
                self._known[at] = (row[1].decode(), b"")
            else:
                trail.append((at, row[1]))
                at = row[0]
        found = self._known[at]
        for number, name in reversed(trail):
            if found is not None:
                found = (found[0], found[1] + b"/" + name if found[1] else name)
            self._known[number] = found
        return found
