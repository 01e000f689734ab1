"""Trees: what comes back, what a change costs, what is refused."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.model.entries import Entry, EntryType, path_key
from caso_mesh.model.errors import CasoError, DataDamaged, Misuse, ObjectMissing
from caso_mesh.vault import tree as tree_module
from caso_mesh.vault.known import KnownRows
from caso_mesh.vault.tree import TreeReader, TreeWriter, changes
from caso_mesh.vault.tree_codec import Ref, encode_leaf, encode_node, encode_row

part = st.binary(min_size=1, max_size=3).filter(lambda name: name not in (b".", b"..") and not {0, 0x2F} & set(name))
paths = st.lists(part, min_size=1, max_size=4).map(b"/".join)
stamps = st.tuples(st.integers(-(1 << 62), 1 << 62), st.integers(0, 999_999_999))
refs = st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, 1 << 24))


@st.composite
def entry_lists(draw: st.DrawFn) -> list[Entry]:
    found = sorted(draw(st.sets(paths, max_size=60)), key=path_key)
    entries: list[Entry] = []
    for path in found:
        holds_others = any(other.startswith(path + b"/") for other in found)
        kind = EntryType.DIRECTORY if holds_others else draw(st.sampled_from(EntryType))
        entry = Entry(path, kind, draw(st.integers(0, 0o177777)), modified=draw(stamps))
        if draw(st.integers(0, 3)) == 0:
            entry = Entry(
                path,
                kind,
                0,
                uid=draw(st.integers(0, (1 << 32) - 1)),
                gid=7,
                user=draw(st.text(max_size=3)),
                group="g",
                size=draw(st.integers(0, 1 << 62)),
                accessed=draw(st.none() | stamps),
                changed=draw(stamps),
                device=draw(st.integers(0, (1 << 64) - 1)),
                inode=draw(st.integers(0, (1 << 64) - 1)),
                link_target=draw(st.none() | st.binary(max_size=9)),
                hardlink=entries[0].path if entries and draw(st.booleans()) else None,
                rdev=draw(st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255))),
                xattrs=tuple(draw(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=2))),
                flags=draw(st.integers(0, 255)),
                chunks=tuple(draw(st.lists(refs, max_size=3))),
                holes=tuple(draw(st.lists(st.tuples(st.integers(0, 1 << 62), st.integers(1, 9)), max_size=2))),
            )
        entries.append(entry)
    return entries


class Store(dict[bytes, bytes]):
    """Metadata chunks by their hash; counts what is fetched."""

    def __init__(self) -> None:
        self.fetched: list[bytes] = []

    def store(self, data: bytes) -> bytes:
        id = blake3(data).digest()
        self[id] = data
        return id

    def fetch(self, id: bytes) -> bytes:
        self.fetched.append(id)
        if id not in self:
            raise ObjectMissing(name=id.hex())
        return self[id]

    def write(self, entries: Iterable[Entry]) -> bytes:
        writer = TreeWriter(self.store)
        for entry in entries:
            writer.add(entry)
        return writer.finish()

    def reader(self, entries: Iterable[Entry]) -> TreeReader:
        return TreeReader(self.write(entries), self.fetch)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several levels out of a few entries."""
    monkeypatch.setattr(tree_module, "LEAF_MINIMUM", 60)
    monkeypatch.setattr(tree_module, "LEAF_MAXIMUM", 200)
    monkeypatch.setattr(tree_module, "NODE_MINIMUM", 2)
    monkeypatch.setattr(tree_module, "NODE_MAXIMUM", 3)


def files(count: int, *, start: int = 0) -> list[Entry]:
    return [
        Entry(
            b"srv/d%03d/f%06d" % (n // 100, n),
            EntryType.FILE,
            0o644,
            size=n,
            modified=(n, 0),
            chunks=((b"%032d" % n, 5),),
        )
        for n in range(start, start + count)
    ]


def taken_over(store: Store, root: bytes, entries: Iterable[Entry], keep: bool = True) -> bytes:
    """Writes a tree of which what the tree ``root`` has as well comes out of that one; the new root."""
    known = KnownRows(TreeReader(root, store.fetch), lambda error: None)
    writer = TreeWriter(store.store, lambda ids: keep)
    for entry in entries:
        found = known.find(entry.path)
        if found is not None and known.entry(*found[1:]) == entry:
            writer.add_known(*found[1:])
        else:
            writer.add(entry)
    return writer.finish()


@pytest.mark.usefixtures("small_segments")
class TestRoundTrips:
    @given(entry_lists())
    @settings(max_examples=150)
    def test_a_tree_gives_back_every_entry_in_order(self, entries: list[Entry]) -> None:
        store = Store()
        reader = store.reader(entries)
        assert list(reader.entries()) == entries
        assert set(reader.segment_ids()) == set(store)

    @given(entry_lists(), st.data())
    @settings(max_examples=150)
    def test_lookup_children_and_subtrees_agree_with_the_list(self, entries: list[Entry], data: st.DataObject) -> None:
        reader = Store().reader(entries)
        known = {entry.path: entry for entry in entries}
        path = data.draw(st.sampled_from(sorted(known)) if known and data.draw(st.booleans()) else paths)
        assert reader.lookup(path) == known.get(path)
        below = [entry for entry in entries if entry.path == path or entry.path.startswith(path + b"/")]
        assert list(reader.entries(path)) == below
        assert list(reader.children(path)) == topmost(entries, path + b"/")
        assert list(reader.children(b"")) == topmost(entries, b"")

    @given(entry_lists(), entry_lists(), st.data())
    @settings(max_examples=200)
    def test_what_is_taken_over_row_by_row_makes_the_tree_that_its_entries_make(
        self, base: list[Entry], more: list[Entry], data: st.DataObject
    ) -> None:
        kept = data.draw(st.sets(st.sampled_from(range(len(base))))) if base else set()
        merged = {base[number].path: base[number] for number in kept}
        for entry in more:
            if not any(path.startswith(entry.path + b"/") or entry.path.startswith(path + b"/") for path in merged):
                merged[entry.path] = entry
        entries = sorted(merged.values(), key=lambda entry: path_key(entry.path))
        store = Store()
        root = store.write(base)
        assert taken_over(store, root, entries) == store.write(entries)

    @given(entry_lists(), entry_lists(), st.data())
    @settings(max_examples=200)
    def test_changes_are_those_that_a_full_comparison_finds(
        self, base: list[Entry], more: list[Entry], data: st.DataObject
    ) -> None:
        """Both trees share what they can, so that passing over equal segments is put to use."""
        keep = data.draw(st.integers(0, len(base)))
        merged = {entry.path: entry for entry in base[:keep]}
        merged.update({entry.path: entry for entry in more if fits(entry, merged)})
        new = sorted(merged.values(), key=lambda entry: path_key(entry.path))
        store = Store()
        old_reader, new_reader = store.reader(base), store.reader(new)
        before = {entry.path: entry for entry in base}
        expected = [
            (before.get(path), merged.get(path))
            for path in sorted({*before, *merged}, key=path_key)
            if before.get(path) != merged.get(path)
        ]
        assert list(changes(old_reader, new_reader)) == expected
        assert list(changes(None, new_reader)) == [(None, entry) for entry in new]


def topmost(entries: list[Entry], prefix: bytes) -> list[Entry]:
    found: list[Entry] = []
    for entry in entries:
        if entry.path.startswith(prefix) and not (found and entry.path.startswith(found[-1].path + b"/")):
            found.append(entry)
    return found


def fits(entry: Entry, others: dict[bytes, Entry]) -> bool:
    """Whether it neither lies below a file nor has something below it while it is one."""
    if entry.hardlink is not None:
        return False
    parts = entry.path.split(b"/")
    above = [others.get(b"/".join(parts[:count])) for count in range(1, len(parts))]
    if any(parent is not None and parent.type is not EntryType.DIRECTORY for parent in above):
        return False
    return entry.type is EntryType.DIRECTORY or not any(path.startswith(entry.path + b"/") for path in others)


def test_segments_of_a_large_tree_have_the_sizes_that_the_format_says() -> None:
    store = Store()
    reader = store.reader(files(20_000))
    leaves = [data for data in store.values() if data[:1] == b"L"]
    assert max(map(len, leaves)) <= 256 * 1024 + 100
    assert all(len(data) >= 64 * 1024 for data in leaves[:-1])
    assert sum(1 for _ in reader.entries()) == 20_000


@pytest.mark.parametrize("edit", ["insert", "remove", "change"])
def test_one_change_in_a_large_tree_costs_a_few_segments_and_few_reads(edit: str) -> None:
    entries = files(20_000)
    edited = list(entries)
    if edit == "insert":
        edited.insert(10_001, Entry(entries[10_000].path + b"a", EntryType.FILE, 0o600))
    elif edit == "remove":
        del edited[10_000]
    else:
        edited[10_000] = Entry(entries[10_000].path, EntryType.FILE, 0o600)
    store = Store()
    old = store.reader(entries)
    before = len(store)
    new = store.reader(edited)
    assert len(store) - before <= 4
    assert len(list(changes(old, new))) == 1
    assert len(store.fetched) <= 10


def test_a_walk_that_asks_for_each_name_in_turn_reads_each_segment_about_once() -> None:
    store = Store()
    known = KnownRows(store.reader(files(20_000)), lambda error: None)
    store.fetched.clear()
    found = [known.find(entry.path) for entry in files(20_000)]
    assert [known.entry(*row[1:]) for row in found if row is not None] == files(20_000)
    assert len(store.fetched) <= len(store)


def test_the_changes_from_nothing_are_all_entries() -> None:
    store = Store()
    entries = files(3000)
    assert list(changes(None, store.reader(entries))) == [(None, entry) for entry in entries]
    assert list(changes(None, store.reader([]))) == []


def test_equal_trees_are_compared_without_reading() -> None:
    store = Store()
    first, second = store.reader(files(3000)), store.reader(files(3000))
    assert list(changes(first, second)) == []
    assert store.fetched == []


def test_long_lists_lie_in_segments_of_their_own_and_share_what_did_not_change() -> None:
    chunks = tuple((blake3(b"%d" % n).digest(), n + 1) for n in range(30_000))
    holes = tuple((n * 10, 5) for n in range(20_000))
    xattrs = ((b"user.big", bytes(3_000_000)), (b"user.small", b"x"))
    entry = Entry(b"disk.img", EntryType.FILE, 0o600, chunks=chunks, holes=holes, xattrs=xattrs)
    store = Store()
    reader = store.reader([entry])
    assert list(reader.entries()) == [entry]
    assert reader.lookup(b"disk.img") == entry
    assert set(reader.segment_ids()) == set(store)
    before = len(store)
    inserted = Entry(b"disk.img", EntryType.FILE, 0o600, chunks=(*chunks[:9000], (bytes(32), 7), *chunks[9000:]))
    assert next(store.reader([inserted]).entries()).chunks == inserted.chunks
    assert len(store) - before <= 4


def test_an_empty_tree_has_nothing_in_it() -> None:
    reader = Store().reader([])
    assert list(reader.entries()) == []
    assert reader.lookup(b"x") is None
    assert list(reader.segment_ids()) == [reader.root]


@pytest.mark.parametrize(
    "path", [b"", b"/etc", b"a/", b"a//b", b"..", b"a/../b", b".", b"a/.", b"./a", b"a\x00b", b"../a", b"a/.."]
)
def test_paths_that_lead_elsewhere_are_refused_by_writer_and_reader(path: bytes) -> None:
    entry = Entry(path, EntryType.FILE, 0o644)
    with pytest.raises(Misuse):
        TreeWriter(Store().store).add(entry)
    with pytest.raises(DataDamaged, match="is no path of a tree"):
        list(forged([entry]).entries())
    link = Entry(b"z", EntryType.FILE, 0o644, hardlink=path)
    with pytest.raises(DataDamaged, match="is no path of a tree"):
        list(forged([link]).entries())


def forged(entries: list[Entry]) -> TreeReader:
    """A tree that our writer would refuse to write."""
    store = Store()
    rows = [encode_row(entry, store.store)[0] for entry in entries]
    return TreeReader(store.store(encode_leaf(rows, [])), store.fetch)


def test_duplicates_wrong_order_and_entries_below_a_link_are_refused() -> None:
    plain = [Entry(path, EntryType.FILE, 0) for path in (b"b", b"a", b"a")]
    link, below = Entry(b"a", EntryType.SYMLINK, 0, link_target=b"/etc"), Entry(b"a/passwd", EntryType.FILE, 0)
    late = Entry(b"a", EntryType.FILE, 0, hardlink=b"b")
    for entries in (plain[:2], plain[1:], [link, below], [late]):
        with pytest.raises(DataDamaged):
            list(forged(entries).entries())
        writer = TreeWriter(Store().store)
        with pytest.raises(Misuse):
            for entry in entries:
                writer.add(entry)


def test_a_name_that_sorts_between_a_folder_and_its_content_stays_behind_both() -> None:
    """``a.txt`` sorts before ``a/b`` as bytes, but behind it in path order."""
    entries = [
        Entry(b"a", EntryType.DIRECTORY, 0),
        Entry(b"a/b", EntryType.FILE, 0),
        Entry(b"a.txt", EntryType.FILE, 0),
    ]
    reader = Store().reader(entries)
    assert list(reader.entries(b"a")) == entries[:2]
    assert list(reader.entries()) == entries


def leaf_of(store: Store, *entries: Entry) -> bytes:
    return store.store(encode_leaf([encode_row(entry, store.store)[0] for entry in entries], []))


def test_nodes_that_do_not_fit_what_lies_below_them_are_refused() -> None:
    store = Store()
    a, b, c = (Entry(name, EntryType.FILE, 0) for name in (b"a", b"b", b"c"))
    first, second, both = leaf_of(store, a), leaf_of(store, b), leaf_of(store, a, c)
    wrong = [
        encode_node(1, [Ref(b"a", first, 2), Ref(b"b", second, 1)]),
        encode_node(1, [Ref(b"0", first, 1), Ref(b"b", second, 1)]),
        encode_node(1, [Ref(b"b", second, 1), Ref(b"a", first, 1)]),
        encode_node(2, [Ref(b"a", first, 1), Ref(b"b", second, 1)]),
        encode_node(1, [Ref(b"a", both, 2), Ref(b"b", second, 1)]),
        encode_node(1, [Ref(b"../a", first, 1)]),
        encode_node(0, [Ref(b"a", first, 1)]),
        encode_node(1, [Ref(b"a", b"short", 1)]),
        encode_node(1, []),
        b"L\x02",
        b"",
        b"N\x01",
        b"L\x01\x93\x01\x02\x03",
    ]
    for data in wrong:
        with pytest.raises(DataDamaged):
            list(TreeReader(store.store(data), store.fetch).entries())


@given(st.binary(max_size=300), st.sampled_from([b"L\x01", b"N\x01", b"N\x01\x01", b""]))
def test_garbage_is_damage_and_nothing_else(data: bytes, tag: bytes) -> None:
    store = Store()
    root = store.store(tag + data)
    try:
        entries = list(TreeReader(root, store.fetch).entries())
    except (DataDamaged, ObjectMissing):
        return
    assert all(entry.path for entry in entries)


def test_a_lost_segment_is_told_and_the_others_are_still_read() -> None:
    store = Store()
    entries = files(3000)
    reader = store.reader(entries)
    leaves = [id for id in reader.segment_ids() if id != reader.root]
    lost = {entry.path for entry in TreeReader(leaves[1], store.fetch).entries()}
    del store[leaves[1]]
    told: list[tuple[bytes, CasoError]] = []
    fresh = TreeReader(reader.root, store.fetch)
    rest = list(fresh.entries(on_damage=lambda path, error: told.append((path, error))))
    assert [entry for entry in entries if entry.path not in lost] == rest
    assert [path for path, _ in told] == [min(lost, key=path_key)]
    with pytest.raises(ObjectMissing):
        list(fresh.entries())


def test_a_lost_list_costs_its_own_file_only() -> None:
    store = Store()
    big = Entry(b"b", EntryType.FILE, 0, chunks=tuple((b"%032d" % n, 1) for n in range(2000)))
    others = [Entry(b"a", EntryType.FILE, 0), Entry(b"c", EntryType.FILE, 0)]
    reader = store.reader([others[0], big, others[1]])
    for id in [id for id, data in store.items() if data[:1] == b"C"]:
        del store[id]
    told: list[bytes] = []
    assert list(reader.entries(on_damage=lambda path, _: told.append(path))) == others
    assert told == [b"b"]


def test_a_list_of_another_kind_is_damage() -> None:
    store = Store()
    entry = Entry(b"a", EntryType.FILE, 0, chunks=tuple((b"%032d" % n, 1) for n in range(2000)))
    row, lists = encode_row(entry, store.store)
    for id in lists:
        store[id] = b"H\x01" + store[id][2:]
    with pytest.raises(DataDamaged, match="another kind"):
        list(TreeReader(store.store(encode_leaf([row], lists)), store.fetch).entries())
    with pytest.raises(DataDamaged, match="not those of its entries"):
        list(TreeReader(store.store(encode_leaf([row], [])), store.fetch).entries())


def test_a_finished_tree_takes_nothing_more() -> None:
    writer = TreeWriter(Store().store)
    writer.finish()
    with pytest.raises(Misuse):
        writer.add(Entry(b"a", EntryType.FILE, 0))
    with pytest.raises(Misuse):
        writer.finish()


@pytest.mark.parametrize("keep", [True, False])
def test_a_tree_in_which_little_changed_is_the_one_its_entries_make_and_only_that_is_stored(keep):
    """Cuts by content and by size, the end of the tree, additions and removals in and between leaves."""
    store = Store()
    entries = files(6000)
    root = store.write(entries)
    for changed in (
        entries,
        entries[1:],
        entries[:-1],
        files(6100),
        [entry for number, entry in enumerate(entries) if number % 1500 != 700],
        [*entries[:3000], *files(40, start=10_000)],
        files(100),
    ):
        store.fetched.clear()
        before = set(store)
        made = taken_over(store, root, changed, keep)
        new = len(set(store) - before)
        assert len(store.fetched) == len(set(store.fetched))
        assert made == store.write(changed)
        assert new <= 12
        assert len(set(store) - before) == new
    assert taken_over(store, root, entries, keep) == root


def test_a_lost_piece_of_the_earlier_tree_hides_only_what_lies_in_it():
    store = Store()
    entries = files(6000)
    root = store.write(entries)
    lost = TreeReader(root, store.fetch).load(root).refs[3]
    told: list[CasoError] = []
    del store[lost.id]
    known = KnownRows(TreeReader(root, store.fetch), told.append)
    found = [entry for entry in entries if known.find(entry.path) is not None]
    assert len(found) == len(entries) - lost.entries
    assert len(told) == 1
    assert known.find(entries[0].path) is not None
    assert known.find(b"srv") is None
    assert known.find(b"zzz") is None
