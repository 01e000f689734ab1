"""The tree of an earlier set as what a new one is measured against: rows as they are stored, in path order.

What has not changed goes from one tree into the next without becoming an entry, and a whole leaf without being made again.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from caso_mesh.model.entries import TYPE_NUMBERS, Entry, EntryType
from caso_mesh.model.errors import CasoError, DeviceVanished
from caso_mesh.vault.tree import TreeReader
from caso_mesh.vault.tree_codec import Node, Row, RowLeaf, decode_rows, decode_segment, make_entry, unpack_chunks

#: Behind all paths, whose first part has 255 bytes at most.
_END = b"\xff" * 256
_EMPTY = RowLeaf(b"", [], 0)
_FILE = TYPE_NUMBERS[EntryType.FILE]


class KnownRows:
    """Finds names of a tree; cheap if they are asked for in path order. For one thread.

    ``on_damage`` is told of what cannot be read: names that lie there are not found.
    """

    def __init__(self, tree: TreeReader, on_damage: Callable[[CasoError], None]) -> None:
        self._tree = tree
        self._on_damage = on_damage
        self._leaf = _EMPTY
        self._keys: list[bytes] = []
        self._next = 0
        # keys from the one to before the other would lie in this leaf; none yet
        self._lower, self._upper = _END, b""
        #: The way from the root to the leaf: nodes, each with the keys that begin and end its range.
        self._way: list[tuple[Node, bytes, bytes]] = []

    def find(self, path: bytes) -> tuple[Row, RowLeaf, int] | None:
        """The row of a path, the leaf that holds it and its number there. Raises what is no damage, and
        ``DeviceVanished``."""
        key = path.replace(b"/", b"\x00")
        number = self._next
        keys = self._keys
        if number >= len(keys) or keys[number] != key:
            if not self._lower <= key < self._upper:
                self._seek(key)
                keys = self._keys
            number = bisect_left(keys, key)
            if number == len(keys) or keys[number] != key:
                self._next = number
                return None
        self._next = number + 1
        leaf = self._leaf
        return leaf.rows[number], leaf, number

    def entry(self, leaf: RowLeaf, number: int) -> Entry | None:
        """The entry of a row; None if it cannot be had."""
        row = leaf.rows[number]
        try:
            if row.extra is not None and row.extra.lists():
                return self._tree.resolve(row)
            return make_entry(row, unpack_chunks(row.chunks), None, None)
        except DeviceVanished:
            raise
        except CasoError as error:
            self._damaged(error)
        except (struct.error, ValueError) as error:
            self._damaged(self._tree.damaged(leaf.id, str(error)))
        return None

    def _seek(self, key: bytes) -> None:
        """Makes the leaf the one in whose range a key lies."""
        while self._way and not self._way[-1][1] <= key < self._way[-1][2]:
            self._way.pop()
        id, lower, upper = _below(*self._way[-1], key) if self._way else (self._tree.root, b"", _END)
        while True:
            self._leaf, self._keys, self._next = _EMPTY, [], 0
            self._lower, self._upper = lower, upper
            try:
                data = self._tree.fetch(id)
                rows = decode_rows(data, id, self._tree.name(id))
                if rows is not None:
                    self._leaf = rows
                    self._keys = [row.path.replace(b"/", b"\x00") for row in rows.rows]
                    return
                segment = decode_segment(data, self._tree.name(id))
            except DeviceVanished:
                raise
            except CasoError as error:
                self._damaged(error)
                return
            assert isinstance(segment, Node)
            if self._way and segment.level >= self._way[-1][0].level:
                self._damaged(self._tree.damaged(id, "it lies below one of its own level"))
                return
            self._way.append((segment, lower, upper))
            id, lower, upper = _below(segment, lower, upper, key)

    def _damaged(self, error: CasoError) -> None:
        if error.category != "data":
            raise error
        self._on_damage(error)


def _below(node: Node, lower: bytes, upper: bytes, key: bytes) -> tuple[bytes, bytes, bytes]:
    """The segment below a node in whose range a key lies: its id, the key it begins with and the one that ends it."""
    number = max(0, bisect_right(node.keys, key) - 1)
    if number:
        lower = node.keys[number]
    if number + 1 < len(node.keys):
        upper = node.keys[number + 1]
    return node.refs[number].id, lower, upper


def is_whole(row: Row) -> bool:
    """Whether the chunks and holes of a file make up its size: else something of it was not read last time; True for
    all else. False as well where only the entry can tell: a hard link, or lists that lie in segments of their own."""
    chunks, extra = row.chunks, row.extra
    if extra is not None and (extra.holes or extra.hardlink is not None or extra.lists()):
        return False
    if row.type != _FILE:
        return True
    if len(chunks) == 36:
        return int.from_bytes(chunks[32:], "little") == row.size
    total = 0
    for at in range(32, len(chunks), 36):
        total += int.from_bytes(chunks[at : at + 4], "little")
    return total == row.size
