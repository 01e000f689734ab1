"""A catalog can be made again: one that is damaged is set aside, and everything else goes on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from random import Random

import pytest
from catalog_material import file, full, make_set, tree

from caso_mesh.catalog import soundness
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.model.errors import CasoError, StateTooNew, Unavailable

TREE = tree(*(file(b"srv/d%02d/%s%d" % (n % 50, b"x" * 40, n), fingerprint=b"12345678") for n in range(900)))
FEW = tree(*(file(b"srv/d%02d/%d" % (n % 5, n)) for n in range(20)))
SEGMENT, FEW_SEGMENT = full(make_set("s1"), TREE), full(make_set("s2", source="node-b"), FEW)


async def fill(path) -> None:
    async with Catalog.open(path) as catalog:
        await catalog.add_set(make_set("s1"))
        await catalog.ingest(SEGMENT)
        assert (catalog.mended, catalog.damage) == (0, None)


def foreign(path) -> None:
    conn = sqlite3.connect(path)
    conn.executescript("CREATE TABLE version (what TEXT); PRAGMA user_version = 1")
    conn.close()


def cut_short(path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def overwritten(path) -> None:
    with open(path, "r+b") as out:
        out.seek(4096)
        out.write(b"\xa5" * (path.stat().st_size - 4096))


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"this is no database, whatever its name says" * 100),
        foreign,
        cut_short,
        overwritten,
        lambda path: path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000),
    ],
    ids=["text", "foreign", "cut-short", "overwritten", "head-only"],
)
async def test_what_is_found_damaged_at_the_start_is_set_aside_and_an_empty_catalog_takes_its_place(tmp_path, harm):
    path = tmp_path / "catalog.db"
    if harm is not foreign:
        await fill(path)
    harm(path)
    harmed = path.read_bytes()
    async with Catalog.open(path) as catalog:
        assert catalog.mended == 1 and "catalog.db.damaged" in str(catalog.damage)
        assert await catalog.sets() == []
        await catalog.add_set(make_set("s1"))
        await catalog.ingest(SEGMENT)
        assert await catalog.lookup("s1", b"srv/d01") is not None
    assert len((tmp_path / "catalog.db.damaged").read_bytes()) >= len(harmed) // 2
    async with Catalog.open(path) as catalog:
        assert catalog.mended == 0 and await catalog.has_detail("s1")


async def test_damage_that_shows_later_is_noticed_by_whoever_meets_it_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(soundness, "_CHECKED_PAGES", 0)
    path = tmp_path / "catalog.db"
    await fill(path)
    async with Catalog.open(path) as catalog:
        overwritten(path)
        told: list[str | None] = []
        catalog.on_mended.append(lambda: told.append(catalog.damage))
        folders = (b"srv/d%02d" % number for number in range(20))
        answers = await asyncio.gather(*(catalog.list_folder("s1", at) for at in folders), return_exceptions=True)
        assert any(isinstance(answer, Unavailable) for answer in answers)
        assert all(isinstance(answer, CasoError | list) for answer in answers)
        assert len(told) == 1 and told[0]
        assert not await catalog.has_detail("s1")
        await catalog.add_set(make_set("s1"))
        await catalog.ingest(SEGMENT)
        assert len(await catalog.list_folder("s1", b"srv/d07")) == 18


async def test_a_catalog_of_a_later_version_is_not_taken_for_a_damaged_one(tmp_path):
    path = tmp_path / "catalog.db"
    await fill(path)
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA user_version = 999")
    conn.close()
    with pytest.raises(StateTooNew):
        async with Catalog.open(path):
            pass
    assert not (tmp_path / "catalog.db.damaged").exists()


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "catalog.db"
    asyncio.run(fill(path))
    return path.read_bytes()


@pytest.mark.parametrize("seed", [*range(10), 15, 64])
def test_bits_that_flip_never_end_anything_but_the_catalog_they_are_in(sound, tmp_path, monkeypatch, seed):
    """Whatever they do, every question is answered or refused in words, and a new detail can be taken in."""
    rng = Random(seed)
    harmed = bytearray(sound)
    for _ in range(rng.randint(1, 30)):
        harmed[rng.randrange(100, len(sound))] ^= rng.randint(1, 255)
    monkeypatch.setattr(soundness, "_CHECKED_PAGES", rng.choice([0, 0, 8192]))
    path = tmp_path / "catalog.db"
    path.write_bytes(harmed)

    async def look() -> None:
        async with Catalog.open(path, same_thread=True) as catalog:
            for ask in (
                catalog.sets,
                lambda: catalog.list_folder("s1", b"srv/d01"),
                lambda: catalog.usage("s1", b"", depth=2),
                lambda: catalog.find("*xx7*"),
                lambda: catalog.find("?"),
                lambda: catalog.versions("node-a", b"srv/d01/" + b"x" * 40 + b"1"),
                lambda: catalog.remove_set("s1"),
            ):
                try:
                    await ask()
                except CasoError:
                    pass
            await catalog.add_set(make_set("s2", source="node-b"))
            try:
                await catalog.ingest(FEW_SEGMENT)
            except CasoError:
                await catalog.add_set(make_set("s2", source="node-b"))
                await catalog.ingest(FEW_SEGMENT)
            assert len(await catalog.list_folder("s2", b"srv/d02")) == 4

    asyncio.run(look())
