"""Going through the folders of a source in path order: each before those below it, these in order of names.

A step takes a microsecond or two, whatever there is beside it: SQLite goes on from a folder to the first one below it and to
the next one beside it, so that no more folders wait than one on each level."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator

from caso_mesh.catalog import folders
from caso_mesh.catalog.leads import Child, Leads

#: A folder: its level (0: the top), name and id, whether any name in it and below may match, and beyond which name it is to
#: be looked into (``None``: all of it; otherwise it lies on the way to where the walk begins).
Step = tuple[int, bytes, int, bool, bytes | None]

_BELOW = """
    WITH RECURSIVE walk(id, depth, parent, name) AS (
        SELECT id, 1, parent, name FROM folder
            WHERE id = (SELECT id FROM folder WHERE parent = ?1 AND name > ?2 ORDER BY name LIMIT 1)
        UNION ALL
        SELECT f.id, walk.depth + 1, walk.id, f.name FROM walk JOIN folder f
            ON f.id = (SELECT id FROM folder WHERE parent = walk.id ORDER BY name LIMIT 1)
        UNION ALL
        SELECT f.id, walk.depth, walk.parent, f.name FROM walk JOIN folder f
            ON f.id = (SELECT id FROM folder WHERE parent = walk.parent AND name > walk.name ORDER BY name LIMIT 1)
        ORDER BY 2 DESC)
    SELECT depth + ?3, name, id FROM walk
    """


def steps(conn: sqlite3.Connection, top: int, leads: Leads | None, after: bytes | None) -> Generator[Step, None, None]:
    """From the top, or from the path ``after`` on; through all folders, or those to which ``leads`` lead."""
    way: list[tuple[int, bool, bytes | None]] = []
    folder, is_whole = top, leads is None or top in leads.whole
    last = b""
    for level, name in enumerate([] if after is None else after.split(b"/")):
        way.append((folder, is_whole, name))
        yield level, last, folder, is_whole, name
        below = folders.child(conn, folder, name)
        if below is None:
            break
        folder, last, is_whole = below, name, is_whole or (leads is not None and below in leads.whole)
    else:
        way.append((folder, is_whole, None))
        yield len(way) - 1, last, folder, is_whole, None
    for level in reversed(range(len(way))):
        folder, is_whole, low = way[level]
        if is_whole:
            for at, name, number in conn.execute(_BELOW, (folder, low or b"", level)):
                yield at, name, number, True, None
        elif leads is not None and leads.children is not None:
            yield from _led(conn, folder, level, low or b"", leads, leads.children)
        elif leads is not None:
            yield from _all(conn, folder, level, low or b"", leads)


def _all(conn: sqlite3.Connection, folder: int, level: int, low: bytes, leads: Leads) -> Generator[Step, None, None]:
    """All below ``folder``; what lies below something whole is told."""
    whole_from: int | None = None
    for at, name, number in conn.execute(_BELOW, (folder, low, level)):
        if whole_from is not None and at <= whole_from:
            whole_from = None
        if whole_from is None and number in leads.whole:
            whole_from = at
        yield at, name, number, whole_from is not None, None


def _led(
    conn: sqlite3.Connection, folder: int, level: int, low: bytes, leads: Leads, children: dict[int, list[Child]]
) -> Generator[Step, None, None]:
    waiting = [(level + 1, name, number) for name, number in reversed(children.get(folder, ())) if name > low]
    while waiting:
        at, name, number = waiting.pop()
        if number in leads.whole:
            yield at, name, number, True, None
            for deeper, below, its_number in conn.execute(_BELOW, (number, b"", at)):
                yield deeper, below, its_number, True, None
        else:
            yield at, name, number, False, None
            waiting += [(at + 1, below, its_number) for below, its_number in reversed(children.get(number, ()))]
