"""Blocks that began between two sets which follow each other become one row of blocks: only what holds last is in a set."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator

from caso_mesh.catalog import blocks
from caso_mesh.catalog.blocks import Key
from caso_mesh.catalog.schema import Row


def join(conn: sqlite3.Connection, chain: int, folder: int, previous: int, following: int) -> list[bytes]:
    """Forget what was said of names of ``folder`` after the place ``previous`` (0: the beginning) and otherwise by
    ``following``, where no set lies between the two. Names that, as it turns out, were only there in between.

    Blocks of which nothing is superseded stay as they are, so that a little that changed in a large folder costs little.
    """
    keys = [key for key in blocks.keys(conn, chain, folder) if previous < key.first <= following]
    chosen = _meeting(conn, keys)
    if len(chosen) < 2:
        return []
    vain: list[bytes] = []
    joined: list[blocks.Block] = []
    for names, rows in _parts(blocks.last_said(conn, chosen)):
        gone = [name for name, row in zip(names, rows, strict=True) if row is None]
        before = blocks.states(conn, chain, folder, gone, upto=previous) if gone and previous else {}
        useless = {name for name in gone if before.get(name, (0, None))[1] is None}
        if useless:
            vain += [name for name in names if name in useless]
            kept = [(name, row) for name, row in zip(names, rows, strict=True) if name not in useless]
            names, rows = [name for name, _row in kept], [row for _name, row in kept]
        if names:
            joined.append(blocks.pack(chain, folder, following, names, rows))
    conn.executemany("DELETE FROM block WHERE id = ?", [(key.id,) for key in chosen])
    blocks.insert(conn, joined)
    return vain


def _meeting(conn: sqlite3.Connection, keys: list[Key]) -> list[Key]:
    """The blocks that may say something of the same names as another one, and all small ones."""
    full = sorted((key for key in keys if key.lowest is not None), key=lambda key: (key.lowest, key.highest))
    chosen = {key for key in keys if key.lowest is None}
    highest: Key | None = None
    for key in full:
        if highest is not None and (key.lowest or b"") <= (highest.highest or b""):
            chosen |= {highest, key}
        if highest is None or (key.highest or b"") > (highest.highest or b""):
            highest = key
    apart = [key for key in full if key not in chosen]
    begins = [key.lowest or b"" for key in apart]
    met: set[Key] = set()
    for key in chosen:
        for name in blocks.load_names(conn, key.id):
            at = bisect_right(begins, name) - 1
            if at >= 0 and name <= (apart[at].highest or b""):
                met.add(apart[at])
    return sorted(chosen | met)


def _parts(said: Iterator[tuple[bytes, Row | None]]) -> Iterator[tuple[list[bytes], list[Row | None]]]:
    names: list[bytes] = []
    rows: list[Row | None] = []
    for name, row in said:
        names.append(name)
        rows.append(row)
        if len(names) == blocks.FULL:
            yield names, rows
            names, rows = [], []
    if names:
        yield names, rows
