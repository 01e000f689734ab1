"""The tables of a catalog, and how an entry lies in them.

A *version* is an interval of sets: ``first`` and ``last`` are places in the chain's order of arrival (``seq``), ``last``
is 0 while the version is still current. The current versions of a chain are exactly the listing of its latest set.
Paths are split: folders have ids (one tree for each source), a version names its folder's id and its own name.

``touched`` says in which folders versions begin at, or ended just before, a place; with it a set is removed, or an older
set taken as a base, without looking at all versions.

``backup_set.seq`` is NULL as long as there is no detail. While one is being taken in, its chain is in ``pending``, and
versions that begin there are in no set that anybody can see.

Ids of folders are never given again: ``touched`` may still name one that is gone.

``name_block`` and ``name_text`` find names: see ``names.py``.
"""

from __future__ import annotations

from typing import Any

from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.model.entries import EntryType

MIGRATIONS: list[str] = [
    """
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
]

#: The columns that make up an entry beside its name, in the order of ``to_row`` and ``from_row``.
ATTRIBUTES = "type, size, seconds, nanoseconds, mode, uid, gid, fingerprint"
#: A version that the set at place ``?`` (given twice) has.
IN_SET = "first <= ? AND (last = 0 OR last >= ?)"

#: As it is bound. The sqlite3 module asks for an adapter of every ``bytes``, and of no ``bytearray``: with millions of them
#: that is an eighth of the time.
Bytes = bytes | bytearray
Row = tuple[int, int, int, int, int, int, int, Bytes]

#: How each type is stored; never renumber.
_NUMBERS = {
    EntryType.FILE: 0,
    EntryType.DIRECTORY: 1,
    EntryType.SYMLINK: 2,
    EntryType.FIFO: 3,
    EntryType.SOCKET: 4,
    EntryType.CHARACTER_DEVICE: 5,
    EntryType.BLOCK_DEVICE: 6,
}
_TYPE_OF = {number: type_ for type_, number in _NUMBERS.items()}
FILE, DIRECTORY = _NUMBERS[EntryType.FILE], _NUMBERS[EntryType.DIRECTORY]


class Nonsense(Exception):
    """What lies in the tables was never put there."""


def number_of(type_: EntryType) -> int:
    """How a type is stored."""
    return _NUMBERS[type_]


def to_row(entry: CatalogEntry) -> Row:
    seconds, nanoseconds = entry.modified
    return (
        _NUMBERS[entry.type],
        entry.size,
        seconds,
        nanoseconds,
        entry.mode,
        entry.uid,
        entry.gid,
        bytearray(entry.fingerprint),
    )


def from_row(path: bytes, row: Any) -> CatalogEntry:
    """Raises ``Nonsense``."""
    type_, size, seconds, nanoseconds, mode, uid, gid, fingerprint = row
    known = _TYPE_OF.get(type_)
    if known is None:
        raise Nonsense(f"no entry has the type {type_!r}")
    return CatalogEntry(path, known, size, (seconds, nanoseconds), mode, uid, gid, fingerprint)


def split(path: bytes) -> tuple[bytes, bytes]:
    """Folder and name. The top itself (an empty path) is the name "" in the top folder."""
    folder, _, name = path.rpartition(b"/")
    return folder, name


def join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
