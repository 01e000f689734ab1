"""A catalog that an older version of the program left is opened by this one and answers as one that was made today."""

from __future__ import annotations

import gzip
import pathlib
import sqlite3

import pytest
from catalog_material import changes, connect, file, find, full, listing, make_set, tree
from old_catalog import REMOVED, SETS, fill

from caso_mesh.catalog import index
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.database.migration import migrate

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
#: 1: each version a row. 2: blocks.
LAYOUTS = [1, 2]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def put(path: pathlib.Path, layout: int) -> None:
    path.write_bytes(gzip.decompress((GOLDEN / f"catalog-{layout}.db.gz").read_bytes()))


def opened(path: pathlib.Path, layout: int) -> sqlite3.Connection:
    put(path, layout)
    conn = sqlite3.connect(path, isolation_level=None)
    migrate(conn, str(path), index.MIGRATIONS)
    return conn


def answers(conn: sqlite3.Connection) -> list[object]:
    found: list[object] = [index.sets(conn)]
    for name in SETS:
        if name not in REMOVED:
            found += [listing(conn, name), index.usage(conn, name, b"", depth=3)]
    for source in ("node-a", "node-b"):
        paths = {path for _record, _base, wanted in SETS.values() for path in wanted}
        found += [index.versions(conn, source, path) for path in sorted(paths)]
    return [*found, *(find(conn, glob) for glob in ("*", "*flat*", "?", "*00*", b"*\xff*", "*größe", "srv/d"))]


def test_a_catalog_of_any_layout_gives_the_same_answers(tmp_path, layout):
    old, new = opened(tmp_path / "catalog.db", layout), connect()
    fill(new)
    for name, (_record, _base, wanted) in SETS.items():
        if name not in REMOVED:
            assert listing(old, name) == wanted
    assert answers(old) == answers(new)
    assert (tmp_path / f"catalog.db.v{layout}").exists() == (layout < len(index.MIGRATIONS))
    old.close()
    new.close()


def test_a_catalog_of_any_layout_takes_sets_in_and_lets_them_go_as_one_of_today(tmp_path, layout):
    old, new = opened(tmp_path / "catalog.db", layout), connect()
    fill(new)
    record, after = make_set("sixth", ended=10), tree(file(b"srv/flat/007"), file(b"srv/d/e/g"), file(b"srv/z"))
    for segment in (changes(record, "third", SETS["third"][2], after), full(make_set("seventh", ended=11), {})):
        for conn in (old, new):
            index.add_set(conn, make_set(segment.header.set, ended=10))
        assert index.ingest(old, segment) == index.ingest(new, segment)
        assert answers(old) == answers(new)
    assert listing(old, "sixth") == after
    for name in ("third", "sixth", "second", "other", "fifth", "share", "fourth", "seventh", "without"):
        index.remove_set(old, name)
        assert not index.has_detail(old, name)
    for table in ("source", "chain", "backup_set", "folder", "block", "touched", "pending"):
        assert old.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    old.close()
    new.close()


async def test_a_daemon_opens_the_catalog_of_an_older_one(tmp_path, layout):
    path = tmp_path / "catalog.db"
    put(path, layout)
    async with Catalog.open(path) as catalog:
        assert catalog.mended == 0
        assert await catalog.has_detail("fifth") and not await catalog.has_detail("without")
        assert await catalog.lookup("third", b"srv/late") == SETS["third"][2][b"srv/late"]
