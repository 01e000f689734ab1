"""Trees: entries in path order, cut into segments at places that the paths decide.

A segment is stored as a chunk, named by its content: what did not change keeps its id, and costs the next set nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from blake3 import blake3

from caso_mesh.model.entries import TYPE_NUMBERS, Entry, EntryType, path_key
from caso_mesh.model.errors import CasoError, DataDamaged, DeviceVanished, Misuse
from caso_mesh.vault.tree_codec import (
    Leaf,
    Node,
    Ref,
    Row,
    RowLeaf,
    check_hardlink,
    check_path,
    decode_segment,
    encode_known,
    encode_leaf,
    encode_node,
    encode_row,
    entry_of,
    lists_of,
    resolve_row,
)

#: Raw bytes of a leaf. Between the two it is cut after a path whose BLAKE3 begins with a zero byte.
LEAF_MINIMUM = 64 * 1024
LEAF_MAXIMUM = 256 * 1024
#: Segments below a node. Between the two it is cut after one whose first path has a BLAKE3 that begins below 4.
NODE_MINIMUM = 32
NODE_MAXIMUM = 1024
_NODE_CUT = 4
#: Decoded segments that a reader keeps, and folders of which it knows that nothing above them is a link.
_CACHED = 8
_FOLDERS = 4096
_FOLDER = TYPE_NUMBERS[EntryType.DIRECTORY]


class TreeWriter:
    """Takes entries in path order and stores a tree of them. ``store`` stores a metadata chunk and returns its id;
    ``keep`` tells whether chunks of an earlier tree may be named again as they are."""

    def __init__(
        self, store: Callable[[bytes], bytes], keep: Callable[[Sequence[bytes]], bool] = lambda ids: False
    ) -> None:
        self._store = store
        self._keep = keep
        #: A leaf of an earlier tree of which so many rows came, all from its beginning on, with nothing in between.
        self._run: RowLeaf | None = None
        self._run_count = 0
        self._rows: list[bytes] = []
        self._lists: list[bytes] = []
        self._size = 0
        self._first = b""
        self._last_key: bytes | None = None
        self._beneath: bytes | None = None
        self._levels: list[list[Ref]] = []
        self._finished = False
        self.entries = 0

    def add(self, entry: Entry) -> None:
        """Raises ``Misuse`` unless the path is a proper one behind the last, and not below what is no folder."""
        path = entry.path
        try:
            check_path(path, "the tree")
            if entry.hardlink is not None:
                check_hardlink(path, path_key(path), entry.hardlink, "the tree")
        except DataDamaged as error:
            raise Misuse(error.message) from error
        row, lists = encode_row(entry, self._store)
        if self._run is not None:
            self._end_run(len(row))
        self._follow(path, is_folder=entry.type is EntryType.DIRECTORY)
        self._append(path, row, lists)
        self.entries += 1

    def add_known(self, leaf: RowLeaf, number: int) -> None:
        """As ``add`` of a row of an earlier tree, which is taken as it is."""
        if leaf is self._run and number == self._run_count:
            self._run_count += 1
        else:
            row = leaf.rows[number]
            encoded, lists = encode_known(row)
            if self._run is not None:
                self._end_run(len(encoded))
            if number or self._rows:
                self._follow(row.path, is_folder=row.type == _FOLDER)
                self._append(row.path, encoded, lists)
            else:
                self._check_behind(row.path, path_key(row.path))
                self._run, self._run_count = leaf, 1
        self.entries += 1
        if self._run is not None and self._run_count == len(leaf.rows) and _is_cut(leaf.size, leaf.rows[-1].path):
            self._end_run(0)

    def _end_run(self, following: int) -> None:
        """What was taken out of a leaf goes into the tree: the leaf itself, if all of it came and a new one would end
        there as well, in front of a row of so many bytes."""
        leaf, count = self._run, self._run_count
        assert leaf is not None
        self._run, self._run_count = None, 0
        rows = leaf.rows[:count]
        whole = count == len(leaf.rows) and (
            not following or leaf.size + following > LEAF_MAXIMUM or _is_cut(leaf.size, rows[-1].path)
        )
        lists = [id for row in rows if row.extra is not None for id in row.extra.lists()]
        if whole and self._keep([leaf.id, *lists]):
            self._push(0, Ref(rows[0].path, leaf.id, count))
        else:
            for row in rows:
                self._append(row.path, *encode_known(row))
        self._follow(rows[-1].path, is_folder=rows[-1].type == _FOLDER)

    def _check_behind(self, path: bytes, key: bytes) -> None:
        if self._finished or (self._last_key is not None and key <= self._last_key):
            raise Misuse(f"{path!r} is not behind the entry before it, or the tree is finished")
        if self._beneath is not None and key.startswith(self._beneath):
            raise Misuse(f"{path!r} lies below something that is no folder")

    def _follow(self, path: bytes, *, is_folder: bool) -> None:
        key = path.replace(b"/", b"\x00")
        self._check_behind(path, key)
        self._last_key = key
        self._beneath = None if is_folder else key + b"\x00"

    def _append(self, path: bytes, row: bytes, lists: Sequence[bytes]) -> None:
        if self._rows and self._size + len(row) > LEAF_MAXIMUM:
            self._cut_leaf()
        if not self._rows:
            self._first = path
        self._rows.append(row)
        self._lists.extend(lists)
        self._size += len(row)
        if self._size >= LEAF_MINIMUM and _is_cut(self._size, path):
            self._cut_leaf()

    def finish(self) -> bytes:
        """Stores what is left and returns the id of the root."""
        if self._finished:
            raise Misuse("the tree is finished")
        if self._run is not None:
            self._end_run(0)
        if self._rows:
            self._cut_leaf()
        self._finished = True
        if not self._levels:
            return self._store(encode_leaf([], []))
        level = 0
        while level + 1 < len(self._levels) or len(self._levels[level]) > 1:
            if self._levels[level]:
                self._cut_node(level)
            level += 1
        return self._levels[level][0].id

    def _cut_leaf(self) -> None:
        ref = Ref(self._first, self._store(encode_leaf(self._rows, self._lists)), len(self._rows))
        self._rows, self._lists, self._size = [], [], 0
        self._push(0, ref)

    def _cut_node(self, level: int) -> None:
        refs, self._levels[level] = self._levels[level], []
        stored = self._store(encode_node(level + 1, refs))
        self._push(level + 1, Ref(refs[0].first, stored, sum(ref.entries for ref in refs)))

    def _push(self, level: int, ref: Ref) -> None:
        if level == len(self._levels):
            self._levels.append([])
        refs = self._levels[level]
        refs.append(ref)
        long_enough = len(refs) >= NODE_MINIMUM and blake3(ref.first).digest(1)[0] < _NODE_CUT
        if long_enough or len(refs) >= NODE_MAXIMUM:
            self._cut_node(level)


def _is_cut(size: int, path: bytes) -> bool:
    """Whether a leaf of so many bytes ends after a path."""
    return size >= LEAF_MINIMUM and not blake3(path).digest(1)[0]


class TreeReader:
    """Reads a tree. ``fetch`` gives a metadata chunk by its id, checked against it. Thread-safe.

    Every method raises ``DataDamaged`` for a tree that no ``TreeWriter`` made, and what ``fetch`` raises.
    """

    def __init__(self, root: bytes, fetch: Callable[[bytes], bytes]) -> None:
        self.root = root
        #: A metadata chunk by its id, checked against it.
        self.fetch = fetch
        #: Folders that were looked at: they, and all above them, are no links.
        self._folders: set[bytes] = set()
        self.load = lru_cache(maxsize=_CACHED)(self._load)

    def entries(
        self, under: bytes = b"", *, on_damage: Callable[[bytes, CasoError], None] | None = None
    ) -> Iterator[Entry]:
        """The entry of ``under`` itself, if it has one, and all below it, in path order; everything for ``b""``.

        With ``on_damage(path, error)`` what cannot be read is told and passed over: the path is that of one entry, or
        of the first of all that lie in a lost segment (``b""`` for the root).
        """
        if under:
            self._check_ancestors(under)
        key = path_key(under)
        below = key + b"\x00"
        last = b""
        for leaf, begin in self._leaves(key, on_damage):
            if leaf.keys[begin] <= last:
                raise DataDamaged(object=self.name(self.root), detail="its segments are not in path order")
            last = leaf.keys[-1]
            if not under and leaf.plain:
                yield from map(entry_of, leaf.rows[begin:])
                continue
            for number in range(begin, leaf.count):
                if under and leaf.keys[number] != key and not leaf.keys[number].startswith(below):
                    return
                try:
                    entry = self._entry(leaf, number)
                except DeviceVanished:
                    raise
                except CasoError as error:
                    if on_damage is None:
                        raise
                    on_damage(leaf.rows[number].path, error)
                    continue
                yield entry

    def lookup(self, path: bytes) -> Entry | None:
        """The entry of one path."""
        if not path:
            return None
        self._check_ancestors(path)
        return self._lookup(path)

    def children(self, path: bytes) -> Iterator[Entry]:
        """The entries right below a folder (``b""``: the top), in path order. Where a folder in between has no entry
        of its own, the first ones below it stand for it. Subtrees are passed over without reading them."""
        if path:
            self._check_ancestors(path)
            parent = self._lookup(path)
            if parent is not None and parent.type is not EntryType.DIRECTORY:
                return
        below = path_key(path) + b"\x00" if path else b""
        lower = below
        while True:
            leaf, number = next(self._leaves(lower, None), (None, 0))
            if leaf is None:
                return
            while number < leaf.count:
                key = leaf.keys[number]
                if not key.startswith(below):
                    return
                yield self._entry(leaf, number)
                # behind all that lies below this one: its key, then the byte after the separator
                lower = key + b"\x01"
                number = bisect_left(leaf.keys, lower, number + 1)

    def segment_ids(self) -> Iterator[bytes]:
        """Ids of all metadata chunks of the tree, the root first; each as often as the tree names it."""
        yield self.root
        pending = [self.fetch(self.root)]
        while pending:
            data = pending.pop()
            lists = lists_of(data, self.name(self.root))
            if lists is not None:
                yield from lists
                continue
            segment = decode_segment(data, self.name(self.root))
            assert isinstance(segment, Node)
            for ref in segment.refs:
                yield ref.id
            if segment.level == 1:
                for ref in segment.refs:
                    yield from lists_of(self.fetch(ref.id), self.name(ref.id)) or ()
            else:
                pending.extend(self.fetch(ref.id) for ref in reversed(segment.refs))

    def child(self, node: Node, number: int) -> Leaf | Node:
        """The segment below a node, which must be what the node says of it."""
        ref = node.refs[number]
        segment = self.load(ref.id)
        if segment.level != node.level - 1 or segment.count != ref.entries or segment.keys[0] != node.keys[number]:
            raise DataDamaged(object=self.name(ref.id), detail="it is not what the segment above says")
        if number + 1 < len(node.keys) and segment.keys[-1] >= node.keys[number + 1]:
            raise DataDamaged(object=self.name(ref.id), detail="it reaches into the segment behind it")
        return segment

    def entry(self, leaf: Leaf, number: int) -> Entry:
        """An entry of a leaf, its lists fetched."""
        return self._entry(leaf, number)

    def _load(self, id: bytes) -> Leaf | Node:
        return decode_segment(self.fetch(id), self.name(id))

    def _entry(self, leaf: Leaf, number: int) -> Entry:
        row = leaf.rows[number]
        return entry_of(row) if leaf.plain or row.extra is None or not row.extra.lists() else self.resolve(row)

    def _lookup(self, path: bytes) -> Entry | None:
        key = path_key(path)
        for leaf, number in self._leaves(key, None):
            return self._entry(leaf, number) if leaf.keys[number] == key else None
        return None

    def _check_ancestors(self, path: bytes) -> None:
        """A hostile tree may hold something below a symbolic link."""
        check_path(path, "the path asked for")
        parent = path.rpartition(b"/")[0]
        if not parent or parent in self._folders:
            return
        parts = path.split(b"/")
        for count in range(1, len(parts)):
            ancestor = self._lookup(b"/".join(parts[:count]))
            if ancestor is not None and ancestor.type is not EntryType.DIRECTORY:
                if self._lookup(path) is None:
                    return
                raise DataDamaged(
                    object=self.name(self.root), detail=f"{path!r} lies below something that is no folder"
                )
        if len(self._folders) >= _FOLDERS:
            self._folders.clear()
        self._folders.add(parent)

    def _leaves(self, lower: bytes, on_damage: Callable[[bytes, CasoError], None] | None) -> Iterator[tuple[Leaf, int]]:
        """Leaves that hold keys from ``lower`` on, each with the number of the first one."""
        # one place per level: a walk asks for each of its folders, and must not pay for all segments behind it
        pending: list[tuple[Node | None, int]] = [(None, 0)]
        while pending:
            node, number = pending.pop()
            if node is not None and number + 1 < len(node.refs):
                pending.append((node, number + 1))
            try:
                segment = self.load(self.root) if node is None else self.child(node, number)
            except DeviceVanished:
                raise
            except CasoError as error:
                if on_damage is None:
                    raise
                on_damage(b"" if node is None else node.refs[number].first, error)
                continue
            if isinstance(segment, Leaf):
                begin = bisect_left(segment.keys, lower)
                if begin < segment.count:
                    yield segment, begin
                continue
            pending.append((segment, max(0, bisect_right(segment.keys, lower) - 1)))

    def resolve(self, row: Row) -> Entry:
        """The entry of a row whose lists lie in segments of their own."""
        return resolve_row(row, self.fetch)

    def damaged(self, id: bytes, detail: str) -> DataDamaged:
        """The error for a segment in which something is wrong."""
        return DataDamaged(object=self.name(id), detail=detail)

    @staticmethod
    def name(id: bytes) -> str:
        """What errors call a segment."""
        return f"tree segment {id.hex()}"


class _Cursor:
    """A place in a tree: before a segment that is not opened yet, or at an entry."""

    def __init__(self, reader: TreeReader | None) -> None:
        self._reader = reader
        self._pending: list[tuple[Node, int]] = []
        self._root: bytes | None = None if reader is None else reader.root
        self._leaf: Leaf | None = None
        self._number = 0

    @property
    def done(self) -> bool:
        return self._leaf is None and not self._pending and self._root is None

    @property
    def at_segment(self) -> bool:
        return self._leaf is None and not self.done

    @property
    def segment(self) -> tuple[int, bytes, bytes]:
        """Level, key of the first entry, id. The root's level is above all, its key before all."""
        if self._root is not None:
            return 1 << 8, b"", self._root
        node, number = self._pending[-1]
        return node.level - 1, node.keys[number], node.refs[number].id

    @property
    def key(self) -> bytes:
        assert self._leaf is not None
        return self._leaf.keys[self._number]

    def skip(self) -> None:
        if self._root is not None:
            self._root = None
        else:
            self._pending.pop()

    def open(self) -> None:
        assert self._reader is not None
        if self._root is not None:
            segment = self._reader.load(self._root)
            self._root = None
        else:
            segment = self._reader.child(*self._pending.pop())
        if isinstance(segment, Leaf):
            self._leaf, self._number = (segment, 0) if segment.count else (None, 0)
        else:
            self._pending.extend((segment, number) for number in reversed(range(len(segment.refs))))

    def take(self) -> Entry:
        assert self._leaf is not None
        assert self._reader is not None
        entry = self._reader.entry(self._leaf, self._number)
        self.step()
        return entry

    @property
    def row(self) -> Row:
        assert self._leaf is not None
        return self._leaf.rows[self._number]

    def step(self) -> None:
        """Passes over an entry."""
        assert self._leaf is not None
        self._number += 1
        if self._number == self._leaf.count:
            self._leaf = None


def changes(old: TreeReader | None, new: TreeReader) -> Iterator[tuple[Entry | None, Entry | None]]:
    """What differs between two trees, in path order: (before, after), None where there is none.

    Segments that both have are passed over without reading them.
    """
    if old is None:
        for entry in new.entries():
            yield None, entry
        return
    left, right = _Cursor(old), _Cursor(new)
    while not (left.done and right.done):
        if left.at_segment and right.at_segment:
            _approach(left, right)
        elif left.at_segment:
            if not right.done and right.key < left.segment[1]:
                yield None, right.take()
            else:
                left.open()
        elif right.at_segment:
            if not left.done and left.key < right.segment[1]:
                yield left.take(), None
            else:
                right.open()
        elif right.done or (not left.done and left.key < right.key):
            yield left.take(), None
        elif left.done or right.key < left.key:
            yield None, right.take()
        else:
            if left.row == right.row:
                left.step()
                right.step()
                continue
            before, after = left.take(), right.take()
            if before != after:
                yield before, after


def _approach(left: _Cursor, right: _Cursor) -> None:
    """Passes over an equal segment, or opens what lies higher, else what begins first, else both."""
    (left_level, left_key, left_id), (right_level, right_key, right_id) = left.segment, right.segment
    if left_id == right_id:
        left.skip()
        right.skip()
    elif left_level != right_level:
        (left if left_level > right_level else right).open()
    elif left_key != right_key:
        (left if left_key < right_key else right).open()
    else:
        left.open()
        right.open()
