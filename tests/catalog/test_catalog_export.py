"""A set that is in one catalog is written out of it as a segment, and is the same in another."""

from __future__ import annotations

import asyncio
import threading
from random import Random

import pytest
from catalog_material import changes, connect, file, folder, full, listing, make_set, raw_segment, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_catalog_model import Reference, one_step

from caso_mesh.catalog import export, index
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import Removal, SegmentReader, chain_of
from caso_mesh.model.errors import CatalogNotHere, NotFound


def exported(conn, set_id: str, base: str | None) -> tuple[list, str | None]:
    work = export.Export(conn, set_id, base)
    found = []
    while (records := work.step(conn)) is not None:
        found += records
    return found, work.base


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(2, 20), st.integers(0, 2**32))
def test_what_is_written_out_gives_the_same_listing_in_another_catalog(steps, seed):
    rng = Random(seed)
    conn, other, reference = connect(), connect(), Reference()
    for step in range(steps):
        one_step(rng, conn, reference, f"set{step:02d}")
    detailed = rng.sample(sorted(reference.trees), len(reference.trees))
    for set_id in detailed:
        record = reference.records[set_id]
        base = rng.choice([None, *detailed])
        if base is not None and not index.has_detail(other, base):
            base = None
        records, against = exported(conn, set_id, base)
        assert against in {None, base}
        gone = [each.path for each in records if isinstance(each, Removal)]
        entries = [each for each in records if not isinstance(each, Removal)]
        index.add_set(other, record)
        index.ingest(other, SegmentReader(raw_segment(record, entries, gone, against)))
    for set_id in detailed:
        assert listing(other, set_id) == listing(conn, set_id)
    conn.close()
    other.close()


def test_between_two_sets_only_what_changed_is_written_and_of_a_folder_that_is_gone_only_the_top():
    before = tree(file(b"srv/a/1"), file(b"srv/a/2"), file(b"srv/b"))
    after = tree(file(b"srv/b", size=9), file(b"srv/c"))
    conn, first, second = connect(), make_set("first", ended=1), make_set("second", ended=2)
    for each, segment in ((first, full(first, before)), (second, changes(second, "first", before, after))):
        index.add_set(conn, each)
        index.ingest(conn, segment)
    records, base = exported(conn, "second", "first")
    assert base == "first"
    assert records == [Removal(b"srv/a"), after[b"srv/b"], after[b"srv/c"]]
    # what comes later, or is of another chain, is no base
    assert exported(conn, "first", "second") == ([before[path] for path in sorted(before)], None)
    assert exported(conn, "second", "nobody")[1] is None
    conn.close()


def test_more_changes_than_are_sorted_in_memory_give_the_whole_listing(monkeypatch):
    monkeypatch.setattr(export, "_MOST_CHANGES", 2)
    after = tree(*(file(b"srv/%d" % number) for number in range(4)))
    conn, first, second = connect(), make_set("first", ended=1), make_set("second", ended=2)
    for each, segment in ((first, full(first, {})), (second, changes(second, "first", {}, after))):
        index.add_set(conn, each)
        index.ingest(conn, segment)
    records, base = exported(conn, "second", "first")
    assert base is None and {each.path for each in records} == {*after}
    conn.close()


async def test_a_catalog_writes_a_segment_whose_digest_is_told_and_none_of_a_set_without_detail(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_SLICE", 3)
    monkeypatch.setattr(export, "_PAGE", 2)
    there = tree(*(file(b"srv/%02d/%02d" % (at, number)) for at in range(4) for number in range(5)), folder(b"srv"))
    backup, bare = make_set("set"), make_set("bare")
    async with Catalog.open(tmp_path / "one.db") as one, Catalog.open(tmp_path / "other.db") as other:
        await one.add_set(bare)
        await one.add_set(backup)
        await one.ingest(full(backup, there))
        digest, size = await one.export(tmp_path / "segment", "set")
        assert (len(digest), size) == (32, (tmp_path / "segment").stat().st_size)
        header = SegmentReader(tmp_path / "segment").header
        assert (header.set, header.chain, header.base, header.entries) == ("set", chain_of(backup), None, len(there))
        await other.add_set(backup)
        await other.ingest(tmp_path / "segment")
        assert [(each.files, each.size) for each in await other.usage("set", b"srv")] == [(20, 20)]
        for name, error in (("bare", CatalogNotHere), ("nobody", NotFound)):
            with pytest.raises(error):
                await one.export(tmp_path / name, name)
            assert not (tmp_path / name).exists()


async def test_a_set_that_goes_while_it_is_written_out_leaves_no_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_SLICE", 1)
    backup, removing, removed = make_set("set"), None, threading.Event()
    async with Catalog.open(tmp_path / "one.db") as one:
        await one.add_set(backup)
        await one.ingest(full(backup, tree(*(file(b"srv/%d" % number) for number in range(50)))))
        step = export.Export.step

        def stepped(self, conn):
            nonlocal removing
            if removing is None:
                removing = loop.call_soon_threadsafe(started.set)
            else:
                assert removed.wait(30.0)
            return step(self, conn)

        loop, started = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(export.Export, "step", stepped)
        writing = asyncio.create_task(one.export(tmp_path / "segment", "set"))
        await started.wait()
        await one.remove_set("set")
        removed.set()
        with pytest.raises(NotFound):
            await writing
        assert not (tmp_path / "segment").exists()
