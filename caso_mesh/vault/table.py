"""Tables of contents: which ids lie where. One layout serves the end of a pack and an index segment.

Columns of fixed width, sorted by id, so that a segment is searched where it lies (memory-mapped), without decoding.
``docs/format.md`` gives the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from caso_mesh.model.errors import DataDamaged
from caso_mesh.vault.chunking import ID_SIZE
from caso_mesh.vault.names import Kind

_VERSION = 1
_HEAD = struct.Struct("<IIIIQQ")
_ENTRY = 8 + 24 + 3 * 4

RECORD = np.dtype(
    [("pack", "<u4"), ("number", "<u4"), ("offset", "<u4"), ("length", "<u4"), ("raw", "<u4"), ("flags", "<u4")]
)
PACK = np.dtype(
    [("id", "V16"), ("size", "<u8"), ("kind", "<u4"), ("session", "<u4"), ("key", "<u4"), ("records", "<u4")]
)

Array = NDArray[Any]


class TableText(Struct, frozen=True):
    """The words of a table: sessions and keys that its packs name by number; segments that it replaces."""

    sessions: list[str]
    keys: list[str]
    replaces: list[str] = []


class Table:
    """Arrays: for entry ``i`` the id is ``prefix[i]`` (its first 8 bytes as a number) and ``rest[i]`` (the others, as
    three numbers of the machine); it lies in record ``record[i]`` at ``offset[i]`` and has ``length[i]`` bytes raw."""

    __slots__ = ("length", "offset", "packs", "prefix", "record", "records", "rest", "text")

    def __init__(
        self,
        prefix: Array,
        rest: Array,
        record: Array,
        offset: Array,
        length: Array,
        records: Array,
        packs: Array,
        text: TableText,
    ) -> None:
        self.prefix = prefix
        self.rest = rest
        self.record = record
        self.offset = offset
        self.length = length
        self.records = records
        self.packs = packs
        self.text = text

    def __len__(self) -> int:
        return len(self.prefix)

    def ids(self) -> bytes:
        """All ids, one after the other, 32 bytes each."""
        return self.ids_of(slice(None))

    def ids_of(self, rows: NDArray[np.int64] | slice) -> bytes:
        """The ids of some rows, one after the other."""
        prefix = self.prefix[rows]
        whole = np.empty((len(prefix), 4), np.uint64)
        whole[:, 0] = prefix.astype(">u8").view(np.uint64)
        whole[:, 1:] = self.rest[rows]
        return whole.tobytes()

    def pack_id(self, number: int) -> bytes:
        return bytes(self.packs["id"][number])

    def pack_kind(self, number: int) -> Kind:
        return Kind(int(self.packs["kind"][number]))

    def encode(self) -> bytes:
        """The bytes of the table, as in ``docs/format.md``."""
        text = msgspec.msgpack.encode(self.text)
        head = _HEAD.pack(_VERSION, len(self.packs), len(self.records), len(text), len(self), 0)
        columns = (
            self.prefix.astype("<u8").tobytes(),
            self.rest.tobytes(),
            self.record.astype("<u4").tobytes(),
            self.offset.astype("<u4").tobytes(),
            self.length.astype("<u4").tobytes(),
            bytes(len(self) % 2 * 4),
            self.records.astype(RECORD).tobytes(),
            self.packs.astype(PACK).tobytes(),
        )
        return b"".join((head, *columns, text))


def decode_table(data: bytes | memoryview, name: str) -> Table:
    """The table in ``data``, which it keeps referring to. Raises ``DataDamaged`` unless all numbers fit together."""
    view = memoryview(data)
    try:
        version, packs, records, text_size, entries, zero = _HEAD.unpack_from(view)
    except struct.error as error:
        raise DataDamaged(object=name, detail="its table is too short") from error
    pad = entries % 2 * 4
    size = _HEAD.size + entries * _ENTRY + pad + records * RECORD.itemsize + packs * PACK.itemsize + text_size
    if version != _VERSION or zero or len(view) != size:
        raise DataDamaged(object=name, detail="its table does not have the size that it names")
    position = _HEAD.size

    def column(dtype: Any, count: int, width: int) -> Array:
        nonlocal position
        array: Array = np.frombuffer(view, dtype, count, position)
        position += count * width
        return array

    prefix = column(np.dtype("<u8"), entries, 8)
    rest = column(np.uint64, entries * 3, 8).reshape(-1, 3)
    numbers = [column(np.dtype("<u4"), entries, 4) for _ in range(3)]
    position += pad
    record_rows = column(RECORD, records, RECORD.itemsize)
    pack_rows = column(PACK, packs, PACK.itemsize)
    try:
        text = msgspec.msgpack.decode(view[position:], type=TableText)
    except msgspec.MsgspecError as error:
        raise DataDamaged(object=name, detail=f"the words of its table: {error}") from error
    table = Table(prefix, rest, numbers[0], numbers[1], numbers[2], record_rows, pack_rows, text)
    _check(table, name)
    return table


def _check(table: Table, name: str) -> None:
    packs, records = table.packs, table.records
    sound = (
        bool(np.all(table.prefix[1:] >= table.prefix[:-1]))
        and _below(table.record, len(records))
        and _below(records["pack"], len(packs))
        and _below(packs["session"], len(table.text.sessions))
        and _below(packs["key"], len(table.text.keys))
        and bool(np.all((packs["kind"] == Kind.DATA_PACK) | (packs["kind"] == Kind.METADATA_PACK)))
        and bool(np.all(records["number"] < packs["records"][records["pack"]]))
        and bool(
            np.all(
                records["offset"].astype(np.uint64) + records["length"].astype(np.uint64)
                <= packs["size"][records["pack"]]
            )
        )
        and bool(
            np.all(
                table.offset.astype(np.uint64) + table.length.astype(np.uint64) <= table.records["raw"][table.record]
            )
        )
    )
    if not sound:
        raise DataDamaged(object=name, detail="its table contradicts itself")


def _below(numbers: Array, bound: int) -> bool:
    return not len(numbers) or int(numbers.max()) < bound


class PackContents:
    """What a pack holds, gathered while it is filled."""

    __slots__ = ("entries", "ids", "key_id", "kind", "pack", "records", "session")

    def __init__(self, pack: bytes, kind: Kind, session: str, key_id: str) -> None:
        self.pack = pack
        self.kind = kind
        self.session = session
        self.key_id = key_id
        self.ids: list[bytes] = []
        #: (record, offset, length) of each id
        self.entries: list[tuple[int, int, int]] = []
        #: (0, number, offset, length, raw, flags)
        self.records: list[tuple[int, int, int, int, int, int]] = []

    def table(self, size: int) -> Table:
        """``size``: bytes of the whole pack, 0 where it is not known yet."""
        ids = np.frombuffer(b"".join(self.ids), np.uint8).reshape(-1, ID_SIZE)
        entries = np.array(self.entries, np.uint32).reshape(-1, 3)
        records = np.array(self.records, RECORD)
        packs = np.array([(self.pack, size, self.kind, 0, 0, len(records))], PACK)
        prefix, rest = split_ids(ids)
        order = np.argsort(prefix, kind="stable")
        return Table(
            prefix[order],
            rest[order],
            entries[order, 0],
            entries[order, 1],
            entries[order, 2],
            records,
            packs,
            TableText([self.session], [self.key_id]),
        )


def split_ids(ids: Array) -> tuple[Array, Array]:
    """Prefix and rest columns of ids given as an array of 32 bytes each."""
    prefix: Array = np.ascontiguousarray(ids[:, :8]).view(">u8").ravel().astype(np.uint64)
    rest: Array = np.ascontiguousarray(ids[:, 8:]).view(np.uint64).reshape(-1, 3)
    return prefix, rest


def merge_tables(tables: Sequence[Table], replaces: Sequence[str] = ()) -> Table:
    """One table that says all that ``tables`` say."""
    sessions: dict[str, int] = {}
    keys: dict[str, int] = {}
    packs, records, record_columns = [], [], []
    pack_base = record_base = 0
    for table in tables:
        own = np.array(table.packs, PACK)
        session_numbers = [sessions.setdefault(session, len(sessions)) for session in table.text.sessions]
        key_numbers = [keys.setdefault(key, len(keys)) for key in table.text.keys]
        own["session"] = np.array(session_numbers, np.uint32)[table.packs["session"]]
        own["key"] = np.array(key_numbers, np.uint32)[table.packs["key"]]
        packs.append(own)
        rows = np.array(table.records, RECORD)
        rows["pack"] += pack_base
        records.append(rows)
        record_columns.append(table.record.astype(np.uint32) + np.uint32(record_base))
        pack_base += len(own)
        record_base += len(rows)
    prefix = np.concatenate([table.prefix for table in tables])
    order = np.argsort(prefix, kind="stable")
    return Table(
        prefix[order],
        np.concatenate([table.rest for table in tables])[order],
        np.concatenate(record_columns)[order],
        np.concatenate([table.offset for table in tables])[order],
        np.concatenate([table.length for table in tables])[order],
        np.concatenate(records),
        np.concatenate(packs),
        TableText(list(sessions), list(keys), list(replaces)),
    )
