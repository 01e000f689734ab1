"""The tables of a catalog, step by step."""

from __future__ import annotations

import sqlite3
from itertools import groupby
from typing import cast

from caso_mesh.catalog import blocks
from caso_mesh.catalog.schema import Row
from caso_mesh.database import Migration

_VERSIONS = """
    CREATE TABLE source (id INTEGER PRIMARY KEY, node TEXT NOT NULL UNIQUE, root INTEGER NOT NULL);
    CREATE TABLE chain (
        id INTEGER PRIMARY KEY, chain TEXT NOT NULL UNIQUE, source INTEGER NOT NULL, next_seq INTEGER NOT NULL);
    CREATE INDEX chain_by_source ON chain (source);
    CREATE TABLE backup_set (
        id INTEGER PRIMARY KEY, set_id TEXT NOT NULL UNIQUE, source INTEGER NOT NULL, chain INTEGER NOT NULL,
        seq INTEGER, ended_at_ns INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE INDEX backup_set_by_time ON backup_set (source, ended_at_ns);
    CREATE UNIQUE INDEX backup_set_by_place ON backup_set (chain, seq);
    CREATE TABLE folder (
        id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER NOT NULL, name BLOB NOT NULL);
    CREATE UNIQUE INDEX folder_by_name ON folder (parent, name);
    CREATE TABLE version (
        chain INTEGER NOT NULL, folder INTEGER NOT NULL, name BLOB NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, type INTEGER NOT NULL, size INTEGER NOT NULL, seconds INTEGER NOT NULL,
        nanoseconds INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
        fingerprint BLOB NOT NULL, PRIMARY KEY (chain, folder, name, first)) WITHOUT ROWID;
    CREATE TABLE touched (
        chain INTEGER NOT NULL, seq INTEGER NOT NULL, folder INTEGER NOT NULL,
        PRIMARY KEY (chain, seq, folder)) WITHOUT ROWID;
    CREATE TABLE pending (chain INTEGER PRIMARY KEY, seq INTEGER NOT NULL, slice INTEGER NOT NULL);
    CREATE TABLE name_block (
        id INTEGER PRIMARY KEY AUTOINCREMENT, folder INTEGER NOT NULL, lowest BLOB NOT NULL, highest BLOB NOT NULL);
    CREATE VIRTUAL TABLE name_text USING fts5 (
        names, content='', detail=none, columnsize=0, tokenize='trigram');
    CREATE VIRTUAL TABLE folder_text USING fts5 (
        name, content='', detail=none, columnsize=0, tokenize='trigram');
    CREATE TABLE name_count (id INTEGER PRIMARY KEY CHECK (id = 1), indexed INTEGER NOT NULL, gone INTEGER NOT NULL);
    INSERT INTO name_count VALUES (1, 0, 0);
    """
#: So many parts of the index of names may lie beside each other before they become one: with four (the default) a small
#: set pays for its names twice. https://www.sqlite.org/fts5.html#the_automerge_configuration_option
_PARTS = 8

#: Versions one row each became blocks (``blocks.py``), which take a third of the time to write.
_BLOCKS = (
    """
    CREATE TABLE block (
        id INTEGER PRIMARY KEY, chain INTEGER NOT NULL, folder INTEGER NOT NULL, first INTEGER NOT NULL,
        lowest BLOB, highest BLOB, names BLOB NOT NULL, entries BLOB NOT NULL)
    """,
    "CREATE INDEX block_by_folder ON block (chain, folder, first, lowest, highest)",
)


def _into_blocks(conn: sqlite3.Connection) -> None:
    """Folder by folder. Where a version ended and no other one followed, the name is gone."""
    for statement in _BLOCKS:
        conn.execute(statement)
    rows = conn.execute(
        "SELECT chain, folder, name, first, last, type, size, seconds, nanoseconds, mode, uid, gid, fingerprint"
        " FROM version ORDER BY chain, folder, name, first"
    )
    for (chain, folder), of_folder in groupby(rows, key=lambda row: (row[0], row[1])):
        # By the place where it begins, what is not yet written.
        said: dict[int, list[tuple[bytes, Row | None]]] = {}
        for name, of_name in groupby(of_folder, key=lambda row: row[2]):
            states: dict[int, Row | None] = {}
            for _chain, _folder, _name, first, last, *row in of_name:
                states[first] = cast("Row", tuple(row))
                if last:
                    states.setdefault(last + 1, None)
            for first, state in states.items():
                waiting = said.setdefault(first, [])
                waiting.append((name, state))
                if len(waiting) >= blocks.FULL:
                    _write(conn, chain, folder, first, waiting)
        for first, waiting in said.items():
            if waiting:
                _write(conn, chain, folder, first, waiting)
    conn.execute("DROP TABLE version")
    conn.execute("INSERT INTO name_text (name_text, rank) VALUES ('automerge', ?)", (_PARTS,))


def _write(
    conn: sqlite3.Connection, chain: int, folder: int, first: int, waiting: list[tuple[bytes, Row | None]]
) -> None:
    names, rows = zip(*waiting, strict=True)
    blocks.insert(conn, [blocks.pack(chain, folder, first, names, rows)])
    waiting.clear()


MIGRATIONS: list[Migration] = [_VERSIONS, _into_blocks]
