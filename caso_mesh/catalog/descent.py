"""Going through the folders of a source in path order: each before those below it, these in order of names.

A step takes a microsecond or two, whatever there is beside it: SQLite goes on from a folder to the first one below it and to
the next one beside it, so that no more folders wait than one on each level."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Generator, Sequence

from caso_mesh.catalog import folders
from caso_mesh.catalog.leads import Leads, Place
from caso_mesh.catalog.schema import join
from caso_mesh.catalog.sets import is_within
from caso_mesh.model.entries import path_key

#: A folder: path and id, whether any name in it and below may match, and beyond which name it is to be looked into
#: (``None``: all of it; otherwise it lies on the way to where the walk begins).
Step = tuple[bytes, int, bool, bytes | None]

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
    SELECT depth, name, id FROM walk
    """


def steps(conn: sqlite3.Connection, top: int, leads: Leads | None, after: bytes | None) -> Generator[Step, None, None]:
    """From the top, or from the path ``after`` on; through all folders, or those to which ``leads`` lead."""
    if leads is None:
        yield from _all(conn, top, b"", after, None)
    elif leads.places is None:
        yield from _all(conn, top, b"", after, leads.whole)
    else:
        yield from _led(conn, leads.places.get(top, ()), after, leads.whole)


def _all(
    conn: sqlite3.Connection, folder: int, path: bytes, behind: bytes | None, whole: frozenset[int] | None
) -> Generator[Step, None, None]:
    """``folder`` with this path and all below it, from what comes after ``behind`` on, which is a path within it. ``whole``:
    below which any name may match; ``None``: below all."""
    is_whole = whole is None or folder in whole
    way: list[tuple[int, bytes, bool, bytes]] = []
    for name in [] if behind is None else behind.split(b"/"):
        way.append((folder, path, is_whole, name))
        yield path, folder, is_whole, name
        below = folders.child(conn, folder, name)
        if below is None:
            break
        folder, path, is_whole = below, join(path, name), is_whole or whole is None or below in whole
    else:
        way.append((folder, path, is_whole, b""))
        yield path, folder, is_whole, None
    for folder, path, is_whole, low in reversed(way):
        # What paths begin with, by depth.
        above = [path + b"/" if path else b""]
        # From which depth on it is whole.
        begin = 0 if is_whole else None
        for depth, name, number in conn.execute(_BELOW, (folder, low)):
            del above[depth:]
            at = above[-1] + name
            above.append(at + b"/")
            if not is_whole:
                if begin is not None and depth <= begin:
                    begin = None
                if begin is None and whole is not None and number in whole:
                    begin = depth
            yield at, number, begin is not None, None


def _led(
    conn: sqlite3.Connection, places: Sequence[Place], after: bytes | None, whole: frozenset[int]
) -> Generator[Step, None, None]:
    begin = 0
    # Of what is whole, the path before all below it; that was gone through.
    passed: bytes | None = None
    if after is not None:
        begin = bisect_right(places, path_key(after), key=lambda place: place.key)
        for place in places[:begin]:
            if is_within(after, place.path) and passed is None:
                behind = after[len(place.path) :].lstrip(b"/")
                if place.folder in whole:
                    yield from _all(conn, place.folder, place.path, behind or None, None)
                    passed = place.path
                else:
                    yield place.path, place.folder, False, behind.partition(b"/")[0] or None
    for at in range(begin, len(places)):
        place = places[at]
        if passed is not None and is_within(place.path, passed):
            continue
        passed = None
        if place.folder in whole:
            yield from _all(conn, place.folder, place.path, None, None)
            passed = place.path
        else:
            yield place.path, place.folder, False, None
