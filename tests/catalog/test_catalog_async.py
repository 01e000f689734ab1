"""The catalog of a daemon: many tasks, one database."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from catalog_material import changes, file, full, make_set, raw_segment, tree

from caso_mesh.catalog import changes as changes_module
from caso_mesh.catalog import index, walk
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import SegmentReader
from caso_mesh.model.errors import DataDamaged, PathNotInSet
from caso_mesh.model.listing import CatalogFind

FIRST = tree(*(file(b"srv/d%d/f%03d" % (n % 7, n)) for n in range(400)))
SECOND = tree(*(file(b"srv/d%d/f%03d" % (n % 7, n), size=n % 3) for n in range(100, 500)))


@pytest.fixture(params=[False, True], ids=["threads", "same-thread"])
def same_thread(request):
    return request.param


async def walked(catalog, set_id):
    found, waiting = {}, [b""]
    while waiting:
        for entry in await catalog.list_folder(set_id, waiting.pop()):
            found[entry.path] = entry
            if entry.type == "directory":
                waiting.append(entry.path)
    return found


async def test_every_question_has_its_answer(tmp_path, same_thread):
    async with Catalog.open(tmp_path / "catalog.db", same_thread=same_thread) as catalog:
        record = make_set("s1", ended=5)
        await catalog.add_set(record)
        assert not await catalog.has_detail("s1")
        result = await catalog.ingest(full(record, FIRST))
        assert (result.appeared, result.repeated) == (len(FIRST), False)
        assert (await catalog.ingest(full(record, FIRST))).repeated
        assert await catalog.has_detail("s1")
        assert await walked(catalog, "s1") == FIRST
        assert await catalog.lookup("s1", b"srv/d0/f000") == FIRST[b"srv/d0/f000"]
        assert await catalog.usage("s1", b"srv") == [index.FolderUsage(b"srv", 400, 400)]
        assert [m.path for m in (await catalog.find("f00[01]")).matches] == [b"srv/d0/f000", b"srv/d1/f001"]
        assert [v.sets for v in await catalog.versions("node-a", b"srv/d0/f000")] == [1]
        assert await catalog.sets(source="node-a") == [record]
        assert await catalog.set_as_of("node-a", b"srv", 5) == record
        with pytest.raises(PathNotInSet):
            await catalog.list_folder("s1", b"none")
        await catalog.remove_set("s1")
        assert await catalog.sets() == []


@pytest.mark.parametrize(
    "bound", ["since_ns", "until_ns", "size_min", "size_max", "modified_since_ns", "modified_until_ns"]
)
async def test_a_bound_that_is_beyond_everything_is_no_damage(tmp_path, caplog, bound):
    """SQLite has no such numbers: all of the catalog was read to see what was wrong with it, and the question refused."""
    async with Catalog.open(tmp_path / "catalog.db") as catalog:
        record = make_set("s1", ended=5)
        await catalog.add_set(record)
        await catalog.ingest(full(record, tree(file(b"srv/one", size=1))))

        async def found(number: int) -> int:
            return len((await catalog.matches(CatalogFind(b"one", **{bound: number}), None, 10)).matches)

        upper = bound in {"until_ns", "size_max", "modified_until_ns"}
        assert (await found(2**64 - 1), await found(-(2**63))) == ((1, 0) if upper else (0, 1))
    assert not caplog.records


async def test_what_was_taken_in_is_there_when_the_catalog_is_opened_again(tmp_path):
    async with Catalog.open(tmp_path / "catalog.db") as catalog:
        await catalog.add_set(make_set("s1"))
        path = tmp_path / "segment"
        path.write_bytes(raw_segment(make_set("s1"), FIRST.values()))
        await catalog.ingest(path)
        with pytest.raises(FileNotFoundError):
            await catalog.ingest(tmp_path / "nowhere")
    async with Catalog.open(tmp_path / "catalog.db") as catalog:
        assert await walked(catalog, "s1") == FIRST


async def test_a_set_is_seen_whole_or_not_at_all_while_others_are_served(tmp_path, monkeypatch):
    monkeypatch.setattr(changes_module, "SLICE", 1)
    monkeypatch.setattr(walk, "RUN", 1)
    async with Catalog.open(tmp_path / "catalog.db") as catalog:
        for name in ("s1", "s2"):
            await catalog.add_set(make_set(name))
        await catalog.ingest(full(make_set("s1"), FIRST))
        seen = {False: 0, True: 0}
        async with asyncio.TaskGroup() as group:
            work = group.create_task(catalog.ingest(full(make_set("s2"), SECOND)))
            while not work.done():
                detail = await catalog.has_detail("s2")
                seen[detail] += 1
                await catalog.add_set(make_set(f"more{seen[False]}", roots=(b"etc",)))
                assert await walked(catalog, "s1") == FIRST
        assert seen[False] > 3
        assert await walked(catalog, "s2") == SECOND


async def test_segments_that_come_at_once_are_taken_in_one_after_the_other(tmp_path, same_thread, monkeypatch):
    monkeypatch.setattr(changes_module, "SLICE", 50)
    async with Catalog.open(tmp_path / "catalog.db", same_thread=same_thread) as catalog:
        for name in ("s1", "s2", "s3"):
            await catalog.add_set(make_set(name))
        async with asyncio.TaskGroup() as group:
            group.create_task(catalog.ingest(full(make_set("s1"), FIRST)))
            group.create_task(catalog.ingest(changes(make_set("s2"), "s1", FIRST, SECOND)))
            group.create_task(catalog.ingest(changes(make_set("s3"), "s1", FIRST, FIRST)))
            group.create_task(catalog.remove_set("s1"))
        assert await walked(catalog, "s2") == SECOND
        assert await walked(catalog, "s3") == FIRST


async def test_a_segment_that_turns_out_damaged_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(changes_module, "SLICE", 20)
    monkeypatch.setattr(walk, "RUN", 7)
    async with Catalog.open(tmp_path / "catalog.db") as catalog:
        for name in ("s1", "s2"):
            await catalog.add_set(make_set(name))
        await catalog.ingest(full(make_set("s1"), FIRST))
        bad = SegmentReader(raw_segment(make_set("s2"), [*SECOND.values(), file(b"zzz")]))
        with pytest.raises(DataDamaged):
            await catalog.ingest(bad)
        assert not await catalog.has_detail("s2")
        assert await walked(catalog, "s1") == FIRST
        assert (await catalog.ingest(full(make_set("s2"), FIRST))).appeared == 0


@pytest.mark.parametrize("slices", [1, 3, 8])
async def test_a_cancelled_taking_in_is_taken_back_by_the_next_or_by_opening_again(tmp_path, monkeypatch, slices):
    monkeypatch.setattr(changes_module, "SLICE", 20)
    monkeypatch.setattr(walk, "RUN", 7)
    async with Catalog.open(tmp_path / "catalog.db") as catalog:
        for name in ("s1", "s2", "s3"):
            await catalog.add_set(make_set(name))
        await catalog.ingest(full(make_set("s1"), FIRST))
        for _ in range(2):
            work = asyncio.ensure_future(catalog.ingest(full(make_set("s2"), SECOND)))
            generation = catalog._database.generation
            for _ in range(slices):
                generation += 1
                await catalog._database.wait_for_commit(generation - 1)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert await walked(catalog, "s1") == FIRST
        await catalog.ingest(changes(make_set("s3"), "s1", FIRST, SECOND))
        assert await walked(catalog, "s3") == SECOND
        work = asyncio.ensure_future(catalog.ingest(full(make_set("s2"), FIRST)))
        await catalog._database.wait_for_commit(catalog._database.generation)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    async with Catalog.open(tmp_path / "catalog.db") as catalog:
        assert await walked(catalog, "s1") == FIRST
        assert await walked(catalog, "s3") == SECOND
        assert not await catalog.has_detail("s2")
    with sqlite3.connect(tmp_path / "catalog.db") as conn:
        assert conn.execute("SELECT count(*) FROM pending").fetchone() == (0,)
    conn.close()


async def test_a_slice_that_the_database_lost_begins_the_segment_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(changes_module, "SLICE", 20)
    monkeypatch.setattr(walk, "RUN", 7)
    async with Catalog.open(tmp_path / "catalog.db", same_thread=True) as catalog:
        await catalog.add_set(make_set("s1"))
        step, lost = index.Ingest.step, []

        def losing(self, conn):
            result = step(self, conn)
            if not lost and result is None:
                lost.append(1)
                # What a neighbour's failure does: the transaction is undone, the function called again.
                conn.execute("ROLLBACK TO work")
                return step(self, conn)
            return result

        monkeypatch.setattr(index.Ingest, "step", losing)
        result = await catalog.ingest(full(make_set("s1"), FIRST))
        assert lost == [1]
        assert result.appeared == len(FIRST)
        assert await walked(catalog, "s1") == FIRST
