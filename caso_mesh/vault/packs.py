"""Packs: records sealed one after the other, a sealed table of what they hold, a footer.

A pack's key is derived from the content key, the vault, the pack's name (a random 128-bit id) and the session, so that
no key is ever used for two packs and the number of a record can be its nonce. A pack whose footer is missing is no pack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from mmap import mmap

import numpy as np
from blake3 import blake3
from msgspec import Struct

from caso_mesh.model.errors import DataDamaged, Misuse, SealBroken
from caso_mesh.sealing.aead import NONCE_SIZE, TAG_SIZE, Sealer
from caso_mesh.sealing.derive import derive
from caso_mesh.vault.chunking import ID_SIZE, MIB
from caso_mesh.vault.names import Kind, pack_name
from caso_mesh.vault.objects import NO_NONCE, ObjectStore, framed, object_key, parse_preamble, preamble
from caso_mesh.vault.packing import ZSTD, unpack
from caso_mesh.vault.table import PackContents, Table, decode_table

DATA_PACK_SIZE = 32 * MIB
METADATA_PACK_SIZE = 8 * MIB
#: Largest raw length of one record, in bytes; nothing is decompressed beyond it.
MAX_RECORD = 16 * MIB
MAX_METADATA_RECORD = 4 * MIB
#: Flag of a record with several members, or one that is not all of it.
BUNDLE = 2

#: A member of a record: id, offset and length in the raw bytes.
Member = tuple[bytes, int, int]

_RECORD_HEAD = struct.Struct("<IB16s")
RECORD_HEAD_SIZE = _RECORD_HEAD.size
_RECORD_AAD = struct.Struct("<12sIIB16s")
_FOOTER = struct.Struct("<QII16s8s")
_FOOTER_MAGIC = b"CASOPEND"
_MEMBER = struct.Struct("<32sII")
#: Longest clear beginning: preamble, key id, session id.
_LONGEST_HEAD = 512


class Record(Struct, frozen=True):
    """Where a record lies: ``pack`` is the pack's id, ``length`` counts its payload without tag, ``raw`` what it
    unpacks to, all in bytes."""

    pack: bytes
    kind: Kind
    session: str
    key_id: str
    number: int
    offset: int
    length: int
    raw: int
    flags: int

    @property
    def end(self) -> int:
        return self.offset + RECORD_HEAD_SIZE + self.length + TAG_SIZE


def record_of(table: Table, number: int) -> Record:
    row = table.records[number]
    pack = int(row["pack"])
    place = table.packs[pack]
    return Record(
        table.pack_id(pack),
        table.pack_kind(pack),
        table.text.sessions[int(place["session"])],
        table.text.keys[int(place["key"])],
        int(row["number"]),
        int(row["offset"]),
        int(row["length"]),
        int(row["raw"]),
        int(row["flags"]),
    )


def member_digest(members: Iterable[Member]) -> bytes:
    """16 bytes that stand for the ids in a record, bound to it when it is sealed."""
    return blake3(b"".join([_MEMBER.pack(*member) for member in members])).digest(16)


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_SIZE, "big")


def _aad(number: int, raw: int, flags: int, digest: bytes) -> bytes:
    return _RECORD_AAD.pack(b"vault/record", number, raw, flags, digest)


def capacity_of(kind: Kind) -> int:
    """Size of the buffer in which a pack of this kind grows, in bytes."""
    return METADATA_PACK_SIZE if kind is Kind.METADATA_PACK else DATA_PACK_SIZE


class PackBuilder:
    """A pack that is being filled, in a buffer that the caller lends. For one thread at a time."""

    def __init__(self, store: ObjectStore, session: str, kind: Kind, buffer: bytearray | mmap) -> None:
        self.buffer = buffer
        self._view = memoryview(buffer)
        pack = store.randomness(16)
        key_id = store.keys.write_key
        self.contents = PackContents(pack, kind, session, key_id)
        self.name = pack_name(pack, kind)
        self._head = pack_head(kind, pack, key_id, session)
        self._records, self._table = pack_sealers(store, kind, pack, key_id, session)
        self._position = len(self._head)
        self._view[: self._position] = self._head

    def fits(self, length: int) -> bool:
        """Whether a payload of ``length`` bytes still has room; an empty pack takes any record."""
        return self._position + RECORD_HEAD_SIZE + length + TAG_SIZE <= len(self.buffer)

    def add(
        self, flags: int, payload: bytes | bytearray | memoryview, raw_length: int, members: Sequence[Member]
    ) -> None:
        """Seals one record into the buffer."""
        contents = self.contents
        if len(members) != 1 or members[0][1] != 0 or members[0][2] != raw_length:
            flags |= BUNDLE
        number = len(contents.records)
        digest = member_digest(members)
        length, offset = len(payload), self._position
        _RECORD_HEAD.pack_into(self.buffer, offset, length, flags, digest)
        start = offset + RECORD_HEAD_SIZE
        end = start + length + TAG_SIZE
        self._records.seal_into(_nonce(number), payload, _aad(number, raw_length, flags, digest), self._view[start:end])
        self._position = end
        contents.records.append((0, number, offset, length, raw_length, flags))
        for chunk, inner, size in members:
            contents.ids.append(chunk)
            contents.entries.append((number, inner, size))

    def finish(self) -> tuple[list[bytes | bytearray | memoryview], Table]:
        """The parts of the finished object, the first one inside the buffer, and its table with the whole size."""
        contents = self.contents
        table = contents.table(0)
        # The size of the object is part of its table; all else in a table has a fixed width, so it is known before.
        plain_size = len(table.encode())
        sealed_size = plain_size + TAG_SIZE
        table.packs["size"] = self._position + sealed_size + _FOOTER.size
        footer = _FOOTER.pack(self._position, sealed_size, len(contents.records), contents.pack, _FOOTER_MAGIC)
        sealed = bytearray(sealed_size)
        self._table.seal_into(NO_NONCE, table.encode(), self._head + footer, sealed)
        return [self._view[: self._position], sealed, footer], table


def pack_head(kind: Kind, pack: bytes, key_id: str, session: str) -> bytes:
    text = session.encode("ascii")
    return preamble(kind, pack, key_id) + bytes([len(text)]) + text


def pack_sealers(store: ObjectStore, kind: Kind, pack: bytes, key_id: str, session: str) -> tuple[Sealer, Sealer]:
    """What seals a pack's records and its table."""
    name = pack_name(pack, kind)
    context = (name.encode(), session.encode())
    content_key = store.content_key(key_id)
    vault = store.header.vault
    table_key = derive(content_key, domain="vault/pack-table", context=framed(vault.encode(), *context))
    return (
        Sealer(object_key(content_key, kind, vault, *context), object=name),
        Sealer(table_key, object=name),
    )


class PackReader:
    """Opens packs of one vault. Thread-safe."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._sealers = lru_cache(maxsize=256)(self._make_sealers)

    def _make_sealers(self, kind: Kind, pack: bytes, key_id: str, session: str) -> tuple[Sealer, Sealer]:
        return pack_sealers(self._store, kind, pack, key_id, session)

    def read_table(self, pack: bytes, kind: Kind, size: int | None = None) -> Table:
        """The table at the end of a pack, with its header checked. ``size`` is asked for if not given.

        Raises ``DataDamaged`` (a pack without its end, too), ``ObjectMissing``, ``NoKey``.
        """
        name = pack_name(pack, kind)
        backend = self._store.backend
        if size is None:
            size = backend.size(name)
        start = backend.get(name, 0, _LONGEST_HEAD)
        salt, key_id, end = parse_preamble(name, kind, start)
        session_size = start[end] if end < len(start) else 0
        head = start[: end + 1 + session_size]
        if salt != pack or len(head) != end + 1 + session_size or size < len(head) + TAG_SIZE + _FOOTER.size:
            raise DataDamaged(object=name, detail="its beginning is not that of this pack")
        footer = backend.get(name, size - _FOOTER.size, _FOOTER.size)
        if len(footer) != _FOOTER.size:
            raise DataDamaged(object=name, detail="it is truncated")
        offset, length, records, footer_pack, magic = _FOOTER.unpack(footer)
        if magic != _FOOTER_MAGIC or footer_pack != pack or offset + length + _FOOTER.size != size:
            raise DataDamaged(object=name, detail="its end is missing")
        try:
            session = head[end + 1 :].decode("ascii")
        except UnicodeDecodeError as error:
            raise DataDamaged(object=name, detail="the id of its session is not one") from error
        if length < TAG_SIZE:
            raise DataDamaged(object=name, detail="it has no table")
        sealed = backend.get(name, offset, length)
        plain = bytearray(max(0, len(sealed) - TAG_SIZE))
        try:
            self._sealers(kind, pack, key_id, session)[1].open_into(NO_NONCE, sealed, head + footer, plain)
        except SealBroken as error:
            raise DataDamaged(object=name, detail="its table was changed, or sealed with another key") from error
        table = decode_table(memoryview(plain), name)
        own = table.packs
        if len(own) != 1 or int(own["size"][0]) != size or len(table.records) != records:
            raise DataDamaged(object=name, detail="its table does not describe it")
        if table.pack_id(0) != pack or table.text.sessions != [session] or table.text.keys != [key_id]:
            raise DataDamaged(object=name, detail="its table is that of another pack")
        return table

    def open_record(self, record: Record, stored: memoryview, chunk: bytes | None) -> bytes | bytearray | memoryview:
        """The raw bytes of a record. ``stored`` is what lies from its offset to its end; ``chunk`` the id of its only
        member if the index says that it is no bundle. Raises ``DataDamaged``, ``NoKey``."""
        flags, payload = self.open_packed(record, stored, chunk)
        limit = MAX_METADATA_RECORD if record.kind is Kind.METADATA_PACK else MAX_RECORD
        return unpack(flags, payload, record.raw, limit, name=_label(record))

    def open_packed(self, record: Record, stored: memoryview, chunk: bytes | None) -> tuple[int, bytearray]:
        """As ``open_record``, but still packed: flags and payload as ``packing`` made them. That they unpack to what
        the index says is for whoever unpacks them to find out."""
        label = _label(record)
        if len(stored) != record.end - record.offset:
            raise DataDamaged(object=label, detail="the pack ends inside it")
        length, flags, digest = _RECORD_HEAD.unpack_from(stored)
        if length != record.length or flags != record.flags:
            raise DataDamaged(object=label, detail="it is not the one that the index names")
        if not flags & BUNDLE and chunk is not None and digest != member_digest([(chunk, 0, record.raw)]):
            raise DataDamaged(object=label, detail="it holds another id than the index says")
        payload = bytearray(length)
        try:
            self._sealers(record.kind, record.pack, record.key_id, record.session)[0].open_into(
                _nonce(record.number),
                stored[RECORD_HEAD_SIZE:],
                _aad(record.number, record.raw, flags, digest),
                payload,
            )
        except SealBroken as error:
            raise DataDamaged(object=label, detail="it was changed, or sealed with another key") from error
        return flags & ~BUNDLE, payload


def _label(record: Record) -> str:
    return f"{pack_name(record.pack, record.kind)}, record {record.number}"


def check_members(members: Sequence[Member], raw_length: int, limit: int, flags: int = 0) -> None:
    """Raises ``Misuse`` unless the members lie one after the other inside the raw bytes, none of them empty."""
    if not 0 < raw_length <= limit:
        raise Misuse(f"a record of {raw_length} bytes; 1 to {limit} are allowed")
    if flags & ~ZSTD:
        raise Misuse(f"flags {flags:#x}")
    position = 0
    for chunk, offset, length in members:
        if len(chunk) != ID_SIZE or offset < position or length <= 0:
            raise Misuse("members have an id of 32 bytes, follow each other and are not empty")
        position = offset + length
    if not members or position > raw_length:
        raise Misuse("a record has members, all inside it")


def same_claims(claimed: Table, pack_number: int, own: Table) -> bool:
    """Whether what an index segment says of a pack is what the pack's own table says."""
    if int(claimed.packs["size"][pack_number]) != int(own.packs["size"][0]):
        return False
    if claimed.text.sessions[int(claimed.packs["session"][pack_number])] != own.text.sessions[0]:
        return False
    if claimed.text.keys[int(claimed.packs["key"][pack_number])] != own.text.keys[0]:
        return False
    mine = np.nonzero(claimed.records["pack"] == pack_number)[0]
    fields = ["number", "offset", "length", "raw", "flags"]
    claimed_records = claimed.records[mine][fields]
    order = np.argsort(claimed_records["number"], kind="stable")
    if not np.array_equal(claimed_records[order], own.records[fields]):
        return False
    rows = np.nonzero(np.isin(claimed.record, mine))[0]
    return _claims(claimed, rows) == _claims(own, np.arange(len(own)))


def _claims(table: Table, rows: np.ndarray) -> list[tuple[int, ...]]:
    rest = table.rest[rows]
    columns = (
        table.prefix[rows],
        rest[:, 0],
        rest[:, 1],
        rest[:, 2],
        table.records["number"][table.record[rows]],
        table.offset[rows],
        table.length[rows],
    )
    return sorted(zip(*(column.tolist() for column in columns), strict=True))
