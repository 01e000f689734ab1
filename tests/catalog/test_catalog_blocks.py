"""How versions lie in blocks: what sets that come and go cost."""

from __future__ import annotations

import sqlite3

import pytest
from catalog_material import changes, connect, file, find, full, listing, make_set, tree

from caso_mesh.catalog import blocks, index
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.model.errors import StateDamaged, Unavailable


@pytest.fixture
def conn():
    connection = connect()
    yield connection
    connection.close()


def take(conn, name, wanted, base=None, before=None):
    index.add_set(conn, make_set(name))
    segment = full(make_set(name), wanted) if base is None else changes(make_set(name), base, before, wanted)
    return index.ingest(conn, segment)


def rows(conn):
    """All blocks by their id."""
    return {row[0]: row[1:] for row in conn.execute("SELECT * FROM block")}


def entries(conn):
    return sum(len(blocks.load_names(conn, number)) for number in rows(conn))


def test_what_begins_in_a_folder_with_one_set_is_one_row_and_an_end_costs_its_name(conn):
    before = tree(*(file(b"srv/%02d" % n) for n in range(40)))
    take(conn, "s1", before)
    assert len(rows(conn)) == 2 and entries(conn) == 41
    old = rows(conn)
    after = {path: entry for path, entry in before.items() if path != b"srv/07"} | {b"srv/09": file(b"srv/09", size=5)}
    assert take(conn, "s2", after, base="s1", before=before).ended == 2
    assert len(rows(conn)) == 3 and entries(conn) == 43
    assert rows(conn).items() >= old.items()  # nothing was written anew
    assert listing(conn, "s1") == before and listing(conn, "s2") == after


def test_a_folder_into_which_something_new_comes_every_day_stays_in_few_blocks_when_old_sets_go(conn):
    wanted = tree(file(b"srv/mail/0000"))
    take(conn, "s000", wanted)
    for day in range(1, 130):
        before, wanted = wanted, wanted | tree(file(b"srv/mail/%04d" % day))
        take(conn, f"s{day:03d}", wanted, base=f"s{day - 1:03d}", before=before)
        if day >= 5:
            index.remove_set(conn, f"s{day - 5:03d}")
        assert len(rows(conn)) <= 12
    assert listing(conn, "s129") == wanted
    assert len(find(conn, "*mail/*")) == 130


def test_a_little_that_changed_in_a_large_folder_rewrites_little_of_it_when_the_older_set_goes(conn):
    before = tree(*(file(b"srv/flat/%05d" % n) for n in range(6400)))
    take(conn, "s1", before)
    changed = [b"srv/flat/%05d" % n for n in (10, 11, 3000)]
    after = before | {path: file(path, size=9) for path in changed} | tree(file(b"srv/flat/00010x"))
    del after[b"srv/flat/05555"]
    take(conn, "s2", after, base="s1", before=before)
    old = rows(conn)
    index.remove_set(conn, "s1")
    assert len(old.keys() & rows(conn).keys()) >= len(old) - 6
    assert entries(conn) == len(after)  # what only the older set had is gone, and so is the word that it ended
    assert listing(conn, "s2") == after
    assert index.versions(conn, "node-a", b"srv/flat/05555") == []


def test_names_that_were_only_there_between_leave_nothing(conn):
    kept = tree(file(b"srv/stays"))
    for name in ("s1", "s3"):
        wanted = kept | tree(*(file(b"srv/%s-%d" % (name.encode(), n)) for n in range(100)))
        take(conn, name, wanted)
        take(conn, name + "-after", kept, base=name, before=wanted)
    for name in ("s1", "s3", "s1-after"):
        index.remove_set(conn, name)
    assert entries(conn) == len(kept)
    assert listing(conn, "s3-after") == kept
    assert find(conn, "*s1-*") == find(conn, "*s3-*") == []


@pytest.mark.parametrize("harm", ["names = x''", "names = 7", "entries = x'c1'", "entries = x'90'", "entries = 'text'"])
async def test_a_block_that_cannot_be_read_is_damage(tmp_path, harm):
    path = tmp_path / "catalog.db"
    wanted = tree(*(file(b"srv/%02d" % n) for n in range(9)))
    async with Catalog.open(path) as catalog:
        await catalog.add_set(make_set("s1"))
        await catalog.ingest(full(make_set("s1"), wanted))
    conn = sqlite3.connect(path)
    conn.execute(f"UPDATE block SET {harm} WHERE id = (SELECT id FROM block WHERE instr(names, '07'))")
    conn.commit()
    conn.close()
    async with Catalog.open(path) as catalog:
        with pytest.raises((StateDamaged, Unavailable)):
            await catalog.list_folder("s1", b"srv")
        assert catalog.mended == 1
