"""How an entry lies in the tables of a catalog (``migrations.py`` has them).

A *version* is an interval of sets: ``first`` and ``last`` are places in the chain's order of arrival (``seq``), ``last``
is 0 while the version is still current. The current versions of a chain are exactly the listing of its latest set.
Paths are split: folders have ids (one tree for each source). Versions lie in blocks, by folder and by the place where
they begin: see ``blocks.py``.

``touched`` says in which folders versions begin at, or ended just before, a place; with it a set is removed, or an older
set taken as a base, without looking at all versions.

``backup_set.seq`` is NULL as long as there is no detail. While one is being taken in, its chain is in ``pending``, and
versions that begin there are in no set that anybody can see.

Ids of folders are never given again: ``touched`` may still name one that is gone.

``name_block`` and ``name_text`` find names: see ``names.py``.
"""

from __future__ import annotations

from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.model.entries import EntryType

#: What an entry is beside its name: type, size, seconds, nanoseconds, mode, user, group, fingerprint.
Row = tuple[int, int, int, int, int, int, int, bytes]

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
#: By the bare value: the hash of a member of an enumeration is a call of Python.
_NUMBERS_BY_VALUE = {str(type_.value): number for type_, number in _NUMBERS.items()}


class Nonsense(Exception):
    """What lies in the tables was never put there."""


def number_of(type_: EntryType) -> int:
    """How a type is stored."""
    return _NUMBERS[type_]


def to_row(entry: CatalogEntry) -> Row:
    seconds, nanoseconds = entry.modified
    number = _NUMBERS_BY_VALUE[entry.type._value_]
    return number, entry.size, seconds, nanoseconds, entry.mode, entry.uid, entry.gid, entry.fingerprint


def from_row(path: bytes, row: Row) -> CatalogEntry:
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
