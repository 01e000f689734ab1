"""Segments: what is written is read, and nothing hostile is believed."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import msgspec
import pytest
from catalog_material import file, folder, make_set, raw_segment
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.catalog import segment as segment_module
from caso_mesh.catalog.segment import (
    CatalogEntry,
    Removal,
    SegmentHeader,
    SegmentReader,
    SegmentWriter,
    chain_of,
    from_entry,
)
from caso_mesh.model.entries import Entry, EntryType, path_key
from caso_mesh.model.errors import DataDamaged, Misuse, StateTooNew

SET = make_set("set")
HEAD = {"set": "set", "chain": "chain", "base": None}


def forged(
    blocks: list[bytes],
    *,
    entries: int,
    removed: int = 0,
    head: object = HEAD,
    end: bytes = b"\0\0\0\0",
    extra: bytes = b"",
) -> bytes:
    """A segment with whatever is asked for in its frame."""
    raw_head = msgspec.msgpack.encode(head)
    frame = segment_module.zstd.compress(b"".join(len(b).to_bytes(4, "big") + b for b in blocks) + end)
    tail = entries.to_bytes(8, "big") + removed.to_bytes(8, "big") + b"CMCTLG1\n"
    return b"CMCTLG1\n" + len(raw_head).to_bytes(4, "big") + raw_head + frame + extra + tail


def block(*entries: object, removed: tuple[bytes, ...] = ()) -> bytes:
    return msgspec.msgpack.encode([list(entries), list(removed)])


def refused(data: bytes, words: str) -> None:
    with pytest.raises(DataDamaged, match=words):
        list(SegmentReader(data))


def test_a_segment_of_a_later_format_is_not_damaged_but_for_a_later_program():
    """A voter would have marked it as damaged, and not have looked at it again when it was upgraded."""
    with pytest.raises(StateTooNew) as refused_:
        SegmentReader(forged([], entries=0).replace(b"CMCTLG1", b"CMCTLG2"))
    assert (refused_.value.fields["found"], refused_.value.fields["known"]) == (2, 1)
    refused(forged([], entries=0).replace(b"CMCTLG1", b"CMCTLGX"), "does not begin")


names = st.binary(min_size=1, max_size=6).filter(lambda n: n not in {b".", b".."} and b"/" not in n and b"\0" not in n)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)


@settings(max_examples=100, deadline=None)
@given(st.sets(paths, max_size=30), st.sets(paths, max_size=10))
def test_records_come_back_in_path_order(added, removed):
    removed = removed - added
    entries = [file(path, size=len(path)) for path in added]
    reader = SegmentReader(raw_segment(SET, entries, removed, base="base"))
    assert reader.header == SegmentHeader("set", chain_of(SET), "base", len(added), len(removed))
    records = list(reader)
    assert sorted(records, key=lambda record: path_key(record.path)) == records
    assert {record for record in records if isinstance(record, Removal)} == {Removal(path) for path in removed}
    assert {record for record in records if isinstance(record, CatalogEntry)} == set(entries)
    assert list(reader) == records


def test_all_fields_of_an_entry_survive_at_their_bounds():
    entries = [
        CatalogEntry(b"", EntryType.DIRECTORY, 0, (-(2**63), 0), 0, 0, 0, b""),
        CatalogEntry(b"z", EntryType.BLOCK_DEVICE, 2**63 - 1, (2**63 - 1, 999_999_999), 2**32 - 1, 2**32 - 1, 2**32 - 1, b"8" * 8),
    ]  # fmt: skip
    assert list(SegmentReader(raw_segment(SET, entries))) == entries


def test_a_segment_file_has_the_digest_and_size_that_its_writer_says(tmp_path):
    path = tmp_path / "segment"
    with SegmentWriter(path, set_id="set", chain="chain") as writer:
        writer.add(folder(b"srv"))
        digest, size = writer.finish()
    data = path.read_bytes()
    assert (hashlib.sha256(data).digest(), len(data)) == (digest, size)
    assert list(SegmentReader(path)) == list(SegmentReader(data)) == [folder(b"srv")]


def test_a_segment_that_was_not_finished_leaves_no_file(tmp_path):
    path = tmp_path / "segment"
    with pytest.raises(KeyError), SegmentWriter(path, set_id="set", chain="chain") as writer:
        writer.add(folder(b"srv"))
        raise KeyError
    assert not path.exists()


def test_the_writer_refuses_wrong_order_and_paths_that_no_catalog_takes():
    writer = SegmentWriter(io.BytesIO(), set_id="set", chain="chain", base="base")
    writer.add(folder(b"a"))
    writer.remove(b"a/b")
    for path in (
        b"a",
        b"a/b",
        b"a/a",
        b"/b",
        b"b/",
        b"b//c",
        b"b/../c",
        b"b/.",
        b"b\0c",
        b"c" * 5000,
        b"d/" * 140_000 + b"d",
    ):
        with pytest.raises(Misuse):
            writer.add(file(path))
    with pytest.raises(Misuse):
        SegmentWriter(io.BytesIO(), set_id="set", chain="chain").remove(b"a")
    writer.finish()
    with pytest.raises(Misuse):
        writer.finish()
    with pytest.raises(Misuse):
        writer.add(file(b"z"))


def test_writing_and_reading_takes_memory_for_a_block_and_not_for_the_segment(tmp_path):
    def cost(count: int) -> int:
        tracemalloc.start()
        try:
            with SegmentWriter(tmp_path / f"segment{count}", set_id="set", chain="chain") as writer:
                for number in range(count):
                    writer.add(file(b"srv/%07d" % number, fingerprint=hashlib.sha256(b"%d" % number).digest()[:8]))
                writer.finish()
            assert sum(1 for _ in SegmentReader(tmp_path / f"segment{count}")) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    cost(10)
    assert cost(40_000) < cost(8_000) + 2_000_000


def test_any_cut_and_any_flipped_byte_is_noticed_or_harmless():
    entries = [file(b"srv/%d" % number) for number in range(10, 40)]
    good = raw_segment(SET, entries)
    assert list(SegmentReader(good)) == entries
    for at in range(len(good)):
        with pytest.raises(DataDamaged):
            list(SegmentReader(good[:at]))
        flipped = good[:at] + bytes([good[at] ^ 0x20]) + good[at + 1 :]
        try:
            list(SegmentReader(flipped))
        except DataDamaged:
            continue


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 5))
def test_noise_in_a_block_is_never_anything_but_damage(noise, entries):
    for data in (noise, forged([noise], entries=entries), forged([], entries=entries, head={"set": noise})):
        try:
            list(SegmentReader(data))
        except DataDamaged:
            continue


def test_hostile_segments_are_refused_with_a_reason():
    entry = ["a", "file"]
    good = [b"a", "file", 1, [0, 0], 0, 0, 0, b""]
    assert list(SegmentReader(forged([block(good)], entries=1))) == [CatalogEntry(b"a", EntryType.FILE, 1)]
    refused(forged([block(entry)], entries=1), "block cannot be read")
    refused(forged([block([b"a", "file", -1])], entries=1), "block cannot be read")
    refused(forged([block([b"a", "file", 2**63])], entries=1), "block cannot be read")
    refused(forged([block([b"a", "file", 1, [0, 10**9]])], entries=1), "block cannot be read")
    refused(forged([block([b"a", "door"])], entries=1), "block cannot be read")
    refused(forged([block([*good[:7], b"f" * 9])], entries=1), "block cannot be read")
    refused(forged([block([*good, "more"])], entries=1), "block cannot be read")
    refused(forged([b"\x91" * 100_000], entries=1), "block cannot be read")
    for path, words in {
        b"/etc": "empty name",
        b"a/": "empty name",
        b"a//b": "empty name",
        b"a\0b": "NUL",
        b"../etc": r'"\.\."',
        b"a/./b": r'"\."',
        b"a/..": r'"\.\."',
        b"n" * 5000: "name that is too long",
        b"n/" * 140_000 + b"n": "path is too long",
    }.items():
        refused(forged([block([path, "file"])], entries=1), words)
        refused(forged([block(removed=(path,))], entries=0, removed=1, head=HEAD | {"base": "b"}), words)
    refused(forged([block([b"b", "file"], [b"a", "file"])], entries=2), "path order")
    refused(forged([block([b"b", "file"]), block([b"b", "file"])], entries=2), "path order")
    refused(
        forged([block([b"b", "file"], removed=(b"b",))], entries=1, removed=1, head=HEAD | {"base": "b"}), "path order"
    )
    refused(forged([block(good)], entries=0), "more records")
    refused(forged([block(good)], entries=2), "fewer records")
    refused(forged([block(removed=(b"a",))], entries=0, removed=1), "full listing removes")
    refused(forged([block(good)], entries=1, end=b""), "ends too early")
    refused(forged([block(good)], entries=1, end=b"\0\0\0\0more"), "after its end")
    refused(forged([block(good)], entries=1, extra=b"more"), "after its end")
    refused(forged([block(good)], entries=1, head=HEAD | {"more": 1}), "head cannot be read")
    refused(forged([block(good)], entries=1, head=HEAD | {"set": "s" * 1000}), "head cannot be read")
    refused(forged([], entries=0, end=(2**31).to_bytes(4, "big")), "too large")
    with pytest.raises(DataDamaged, match="are allowed"):
        SegmentReader(forged([], entries=2**60))
    with pytest.raises(DataDamaged, match="are allowed"):
        SegmentReader(forged([block(good)], entries=1), max_entries=0)


def test_a_bomb_costs_no_memory():
    bomb = forged([b"\0" * 50_000_000], entries=1)
    window = segment_module.zstd.compress(
        b"\0" * 50_000_000, options={segment_module.zstd.CompressionParameter.window_log: 27}
    )
    head = msgspec.msgpack.encode(HEAD)
    wide = b"CMCTLG1\n" + len(head).to_bytes(4, "big") + head + window + b"\0" * 16 + b"CMCTLG1\n"
    tracemalloc.start()
    try:
        refused(bomb, "too large")
        refused(wide, "frame cannot be read")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_very_long_path_travels():
    path = b"/".join([b"d" * 250] * 1000)
    assert list(SegmentReader(raw_segment(SET, [file(path)]))) == [file(path)]


def test_the_fingerprint_sees_content_and_what_has_no_field_of_its_own_and_nothing_else():
    plain = Entry(b"a", EntryType.FILE, 0o644, size=1, chunks=((b"c" * 32, 1),))
    changed = [
        msgspec.structs.replace(plain, **change)
        for change in (
            {"chunks": ((b"d" * 32, 1),)},
            {"holes": ((0, 1),)},
            {"link_target": b"x"},
            {"hardlink": b"x"},
            {"rdev": (1, 2)},
            {"xattrs": ((b"user.x", b"1"),)},
            {"user": "u"},
            {"group": "u"},
            {"flags": 1},
        )
    ]
    assert len({from_entry(entry).fingerprint for entry in [plain, *changed]}) == len(changed) + 1
    touched = msgspec.structs.replace(plain, accessed=(9, 9), changed=(9, 9), device=9, inode=9)
    assert from_entry(touched) == from_entry(plain)
    assert from_entry(Entry(b"d", EntryType.DIRECTORY, 0o755)) == CatalogEntry(b"d", EntryType.DIRECTORY, mode=0o755)
    full = from_entry(Entry(b"a", EntryType.FILE, 1, 2, 3, size=4, modified=(5, 6)))
    assert full == CatalogEntry(b"a", EntryType.FILE, 4, (5, 6), 1, 2, 3, b"")


def test_a_chain_is_the_source_the_roots_the_filters_and_the_vault():
    other = [
        make_set("x", source="node-b"),
        make_set("x", roots=(b"s", b"rv")),
        make_set("x", filters=b"others"),
        msgspec.structs.replace(SET, vault="vault2"),
    ]
    assert chain_of(SET) == chain_of(make_set("y", ended=99))
    assert len({chain_of(backup_set) for backup_set in [SET, *other]}) == 5
