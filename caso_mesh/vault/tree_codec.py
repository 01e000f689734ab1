"""Bytes of tree segments: leaves of entries, nodes of references, and lists that were too long for an entry."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from caso_mesh.model.entries import TYPE_NUMBERS, ChunkRef, Entry, EntryType, path_key
from caso_mesh.model.errors import DataDamaged
from caso_mesh.vault.chunking import ID_SIZE

_LEAF, _NODE = b"L\x01", b"N\x01"
_CHUNKS, _HOLES, _XATTRS = b"C\x01", b"H\x01", b"X\x01"
_REF = struct.Struct("<32sI")
_HOLE = struct.Struct("<QQ")
#: A list of more chunks, or of more holes, lies in segments of its own.
LONGEST_LIST = 1000
#: Attributes of more bytes than this do as well.
LONGEST_XATTRS = 64 * 1024
#: Cuts in a list of chunks: after one whose id ends with a byte below 1/256 of all, between these numbers.
_LIST_MINIMUM, _LIST_MAXIMUM = 512, 8192
_XATTRS_PIECE = 1024 * 1024
MAX_LEVEL = 16

_TYPES = TYPE_NUMBERS
_TYPE_OF = {number: kind for kind, number in _TYPES.items()}
_FOLDER = TYPE_NUMBERS[EntryType.DIRECTORY]


class _Extra(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What few entries have. ``*_lists`` are ids of list segments that stand for the field."""

    accessed: tuple[int, int] | None = None
    link_target: bytes | None = None
    hardlink: bytes | None = None
    rdev: tuple[int, int] | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    flags: int = 0
    holes: bytes = b""
    chunk_lists: tuple[bytes, ...] = ()
    hole_lists: tuple[bytes, ...] = ()
    xattr_lists: tuple[bytes, ...] = ()

    def lists(self) -> tuple[bytes, ...]:
        return self.chunk_lists + self.hole_lists + self.xattr_lists


class Row(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """An entry as it is stored."""

    path: bytes
    type: int
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    size: int
    modified_s: int
    modified_ns: int
    changed_s: int
    changed_ns: int
    device: int
    inode: int
    chunks: bytes
    extra: _Extra | None


class _Leaf(Struct, array_like=True, forbid_unknown_fields=True):
    lists: bytes
    rows: list[Row]


class _LeafHead(Struct, array_like=True):
    lists: bytes
    rows: msgspec.Raw


class Ref(Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """A segment below a node: path of its first entry, its id, how many entries it and all below it hold."""

    first: bytes
    id: bytes
    entries: int


class RowLeaf:
    """A leaf as it is stored: its id, its rows, and their bytes together."""

    __slots__ = ("id", "rows", "size")

    def __init__(self, id: bytes, rows: list[Row], size: int) -> None:
        self.id = id
        self.rows = rows
        self.size = size


class Leaf:
    """A decoded leaf, all of its rows checked: ``entry_of`` makes an entry of each when somebody asks for it, but for
    those with lists. ``plain``: none of them has any."""

    __slots__ = ("keys", "plain", "rows")
    level = 0

    def __init__(self, rows: list[Row], keys: list[bytes], *, plain: bool) -> None:
        self.rows = rows
        self.keys = keys
        self.plain = plain

    @property
    def count(self) -> int:
        return len(self.rows)


class Node:
    """A decoded node."""

    __slots__ = ("count", "keys", "level", "refs")

    def __init__(self, level: int, refs: list[Ref]) -> None:
        self.level = level
        self.refs = refs
        self.keys = [path_key(ref.first) for ref in refs]
        self.count = sum(ref.entries for ref in refs)


_encode = msgspec.msgpack.Encoder().encode
_decode_leaf = msgspec.msgpack.Decoder(_Leaf).decode
_decode_leaf_head = msgspec.msgpack.Decoder(_LeafHead).decode
_decode_refs = msgspec.msgpack.Decoder(list[Ref]).decode
_decode_xattrs = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes], ...]).decode


def encode_row(entry: Entry, store: Callable[[bytes], bytes]) -> tuple[bytes, tuple[bytes, ...]]:
    """The row of an entry, and the ids of the list segments that were stored for it."""
    extra: _Extra | dict[str, tuple[int, int]] | None = None
    lists: tuple[bytes, ...] = ()
    chunks = b""
    if len(entry.chunks) <= LONGEST_LIST:
        chunks = b"".join([_REF.pack(*ref) for ref in entry.chunks])
    chunk_lists = _store_chunks(entry.chunks, store) if len(entry.chunks) > LONGEST_LIST else ()
    if (
        chunk_lists
        or entry.xattrs
        or entry.holes
        or entry.flags
        or entry.link_target is not None
        or entry.hardlink is not None
        or entry.rdev is not None
    ):
        xattrs_packed = _encode(entry.xattrs) if entry.xattrs else b""
        spill_xattrs = len(xattrs_packed) > LONGEST_XATTRS
        spill_holes = len(entry.holes) > LONGEST_LIST
        extra = _Extra(
            accessed=entry.accessed,
            link_target=entry.link_target,
            hardlink=entry.hardlink,
            rdev=entry.rdev,
            xattrs=() if spill_xattrs else entry.xattrs,
            flags=entry.flags,
            holes=b"" if spill_holes else _pack_holes(entry.holes),
            chunk_lists=chunk_lists,
            hole_lists=_store_holes(entry.holes, store) if spill_holes else (),
            xattr_lists=_store_xattrs(xattrs_packed, store) if spill_xattrs else (),
        )
        lists = extra.lists()
    elif entry.accessed is not None:
        extra = {"accessed": entry.accessed}  # as of nearly all: the same bytes, in half the time
    row = (
        entry.path,
        _TYPES[entry.type],
        entry.mode,
        entry.uid,
        entry.gid,
        entry.user,
        entry.group,
        entry.size,
        *entry.modified,
        *entry.changed,
        entry.device,
        entry.inode,
        chunks,
        extra,
    )
    return _encode(row), lists


def encode_known(row: Row) -> tuple[bytes, tuple[bytes, ...]]:
    """As ``encode_row``, of a row whose lists are stored already."""
    return _encode(row), row.extra.lists() if row.extra is not None else ()


def _store_chunks(refs: Iterable[ChunkRef], store: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    ids: list[bytes] = []
    part: list[bytes] = []
    for ref in refs:
        part.append(_REF.pack(*ref))
        if (len(part) >= _LIST_MINIMUM and not ref[0][-1]) or len(part) >= _LIST_MAXIMUM:
            ids.append(store(_CHUNKS + b"".join(part)))
            part = []
    if part:
        ids.append(store(_CHUNKS + b"".join(part)))
    return tuple(ids)


def _pack_holes(holes: Iterable[tuple[int, int]]) -> bytes:
    return b"".join([_HOLE.pack(*hole) for hole in holes])


def _store_holes(holes: tuple[tuple[int, int], ...], store: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    step = _LIST_MAXIMUM
    return tuple(store(_HOLES + _pack_holes(holes[at : at + step])) for at in range(0, len(holes), step))


def _store_xattrs(packed: bytes, store: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    step = _XATTRS_PIECE
    return tuple(store(_XATTRS + packed[at : at + step]) for at in range(0, len(packed), step))


def encode_leaf(rows: list[bytes], lists: Iterable[bytes]) -> bytes:
    """A leaf out of encoded rows. ``lists``: ids of all list segments that the rows name, in order."""
    # array of two: the ids, the rows (MessagePack: fixarray 2, then bin, then array 32)
    return b"".join((_LEAF, b"\x92", _encode(b"".join(lists)), b"\xdd", len(rows).to_bytes(4, "big"), *rows))


def encode_node(level: int, refs: list[Ref]) -> bytes:
    return _NODE + bytes([level]) + _encode(refs)


def decode_segment(data: bytes | memoryview, name: str) -> Leaf | Node:
    """A leaf or node, with every path in it checked. Raises ``DataDamaged``: it may come from a hostile writer."""
    view = memoryview(data)
    try:
        if view[:2] == _LEAF:
            return _make_leaf(_decode_leaf(view[2:]), name)
        if view[:2] == _NODE:
            return _make_node(view[2], _decode_refs(view[3:]), name)
    except (msgspec.MsgspecError, struct.error, IndexError, ValueError, RecursionError) as error:
        raise DataDamaged(object=name, detail=f"it does not decode ({error})") from error
    raise DataDamaged(object=name, detail="it is neither a leaf nor a node")


def decode_rows(data: bytes | memoryview, id: bytes, name: str) -> RowLeaf | None:
    """A leaf with its rows, in whatever order and with whatever paths they are; None for a node. Raises
    ``DataDamaged``."""
    view = memoryview(data)
    if view[:2] != _LEAF:
        return None
    try:
        leaf = _decode_leaf(view[2:])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataDamaged(object=name, detail=f"it does not decode ({error})") from error
    return RowLeaf(id, leaf.rows, len(view) - len(encode_leaf([], [leaf.lists])))


def lists_of(data: bytes | memoryview, name: str) -> list[bytes] | None:
    """Ids of the list segments of a leaf, without decoding its entries; None for a node."""
    view = memoryview(data)
    if view[:2] != _LEAF:
        return None
    try:
        joined = _decode_leaf_head(view[2:]).lists
    except msgspec.MsgspecError as error:
        raise DataDamaged(object=name, detail=f"it does not decode ({error})") from error
    return _split_ids(joined, name)


def _split_ids(joined: bytes, name: str) -> list[bytes]:
    if len(joined) % ID_SIZE:
        raise DataDamaged(object=name, detail="its lists are not ids")
    return [joined[at : at + ID_SIZE] for at in range(0, len(joined), ID_SIZE)]


def _make_leaf(leaf: _Leaf, name: str) -> Leaf:
    keys: list[bytes] = []
    named: list[bytes] = []
    last_key = b""
    beneath: bytes | None = None  # nothing may lie below the last entry if it is no folder
    for row in leaf.rows:
        path = row.path
        check_path(path, name)
        key = path.replace(b"/", b"\x00")
        if key <= last_key:
            raise DataDamaged(object=name, detail=f"{path!r} is not in path order")
        if beneath is not None and key.startswith(beneath):
            raise DataDamaged(object=name, detail=f"{path!r} lies below something that is no folder")
        last_key = key
        beneath = None if row.type == _FOLDER else key + b"\x00"
        keys.append(key)
        extra = row.extra
        if extra is not None:
            if extra.hardlink is not None:
                check_hardlink(path, key, extra.hardlink, name)
            if extra.chunk_lists or extra.hole_lists or extra.xattr_lists:
                named.extend(extra.lists())
                continue
        if row.type not in _TYPE_OF:
            raise ValueError(f"an entry of type {row.type}")
        if len(row.chunks) % _REF.size or (extra is not None and len(extra.holes) % _HOLE.size):
            raise ValueError("chunks or holes that are cut off")
    if b"".join(named) != leaf.lists:
        raise DataDamaged(object=name, detail="the lists that it names are not those of its entries")
    return Leaf(leaf.rows, keys, plain=not named)


def _make_node(level: int, refs: list[Ref], name: str) -> Node:
    if not 1 <= level <= MAX_LEVEL or not refs:
        raise DataDamaged(object=name, detail="a node has a level from 1 on, and something below it")
    node = Node(level, refs)
    for ref in refs:
        check_path(ref.first, name)
        if len(ref.id) != ID_SIZE or ref.entries < 1:
            raise DataDamaged(object=name, detail="a node names segments by ids of 32 bytes, none of them empty")
    if any(left >= right for left, right in itertools.pairwise(node.keys)):
        raise DataDamaged(object=name, detail="what lies below it is not in path order")
    return node


def make_entry(
    row: Row,
    chunks: tuple[ChunkRef, ...],
    holes: tuple[tuple[int, int], ...] | None,
    xattrs: tuple[tuple[bytes, bytes], ...] | None,
) -> Entry:
    """The entry of a row. ``holes`` and ``xattrs``: None unless they came out of lists."""
    extra = row.extra
    try:
        kind = _TYPE_OF[row.type]
    except KeyError:
        raise ValueError(f"an entry of type {row.type}") from None
    if extra is None:
        return Entry(
            row.path,
            kind,
            row.mode,
            row.uid,
            row.gid,
            row.user,
            row.group,
            row.size,
            (row.modified_s, row.modified_ns),
            None,
            (row.changed_s, row.changed_ns),
            row.device,
            row.inode,
            chunks=chunks,
        )
    return Entry(
        row.path,
        kind,
        row.mode,
        row.uid,
        row.gid,
        row.user,
        row.group,
        row.size,
        (row.modified_s, row.modified_ns),
        extra.accessed,
        (row.changed_s, row.changed_ns),
        row.device,
        row.inode,
        extra.link_target,
        extra.hardlink,
        extra.rdev,
        extra.xattrs if xattrs is None else xattrs,
        extra.flags,
        chunks,
        tuple(_HOLE.iter_unpack(extra.holes)) if holes is None else holes,
    )


def entry_of(row: Row) -> Entry:
    """The entry of a checked row without lists."""
    return make_entry(row, unpack_chunks(row.chunks), None, None)


def unpack_chunks(packed: bytes) -> tuple[ChunkRef, ...]:
    return tuple(_REF.iter_unpack(packed)) if packed else ()


def chunks_of(data: bytes | memoryview, id: bytes) -> list[ChunkRef]:
    """The chunks that a piece of a tree names itself: a leaf, or a list of them. Raises ``DataDamaged``."""
    view = memoryview(data)
    name = f"tree segment {id.hex()}"
    try:
        if view[:2] == _CHUNKS:
            return list(unpack_chunks(bytes(view[2:])))
        leaf = decode_rows(view, id, name)
        return [ref for row in leaf.rows for ref in unpack_chunks(row.chunks)] if leaf is not None else []
    except struct.error as error:
        raise DataDamaged(object=name, detail=f"its chunks do not decode ({error})") from error


def resolve_row(row: Row, fetch: Callable[[bytes], bytes]) -> Entry:
    """The entry of a row whose lists lie in segments of their own. Raises what ``fetch`` raises, ``DataDamaged``."""
    extra = row.extra
    assert extra is not None
    chunks = b"".join([_list(fetch(id), _CHUNKS, id) for id in extra.chunk_lists]) or row.chunks
    holes = b"".join([_list(fetch(id), _HOLES, id) for id in extra.hole_lists]) or extra.holes
    packed = b"".join([_list(fetch(id), _XATTRS, id) for id in extra.xattr_lists])
    try:
        xattrs = _decode_xattrs(packed) if packed else None
        return make_entry(row, unpack_chunks(chunks), tuple(_HOLE.iter_unpack(holes)), xattrs)
    except (msgspec.MsgspecError, struct.error, ValueError) as error:
        raise DataDamaged(object=f"the entry of {row.path!r}", detail=f"its lists do not decode ({error})") from error


def _list(data: bytes, tag: bytes, id: bytes) -> bytes:
    if data[:2] != tag:
        raise DataDamaged(object=f"tree segment {id.hex()}", detail="it is a list of another kind")
    return data[2:]


def check_path(path: bytes, name: str) -> None:
    """Raises ``DataDamaged`` for a path that is absolute, empty, or has empty, ``.`` or ``..`` parts or NUL."""
    framed = b"/" + path + b"/"
    if b"//" in framed or b"/../" in framed or b"/./" in framed or b"\x00" in path:
        raise DataDamaged(object=name, detail=f"{path!r} is no path of a tree")


def check_hardlink(path: bytes, key: bytes, target: bytes | None, name: str) -> None:
    """Raises ``DataDamaged`` unless ``target`` is None or a path in front of this one."""
    if target is None:
        return
    check_path(target, name)
    if path_key(target) >= key:
        raise DataDamaged(object=name, detail=f"{path!r} is a hard link to what comes behind it")
