"""What the small objects say: sessions and sets, as MessagePack maps."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from caso_mesh.model.errors import DataDamaged
from caso_mesh.model.storage import BackupSet

_T = TypeVar("_T")


class WriterRecord(Struct, frozen=True):
    """Which server (node id) a writer is."""

    writer: str
    server: str


class SessionRecord(Struct, frozen=True):
    """What a session object says. ``parents`` are ids of sets that are live as long as the session is open; ``marks``
    names all marks that its writer has seen (none yet in this version)."""

    writer: str
    session: str
    server: str
    attempt: str
    parents: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


class ClosedRecord(Struct, frozen=True):
    """How a session ended: the number of its last set, 0 if it published none."""

    writer: str
    session: str
    last: int
    retired: bool = False


class _SetRecord(Struct, frozen=True):
    writer: str
    session: str
    number: int
    attempt: str
    set: BackupSet


def encode_set(writer: str, session: str, number: int, attempt: str, backup_set: BackupSet) -> bytes:
    """A set as it lies in the vault. ``number`` counts from 1 without gaps inside a session."""
    return msgspec.msgpack.encode(
        {"writer": writer, "session": session, "number": number, "attempt": attempt, "set": backup_set}
    )


def decode_set(name: str, payload: bytes) -> tuple[str, str, int, BackupSet]:
    """Writer, session, number and the set. Raises ``DataDamaged``."""
    record = decode_record(name, payload, _SetRecord)
    return record.writer, record.session, record.number, record.set


def decode_record(name: str, payload: bytes, kind: type[_T]) -> _T:
    """Raises ``DataDamaged`` if the payload of the object ``name`` is no such record."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise DataDamaged(object=name, detail=str(error)) from error
