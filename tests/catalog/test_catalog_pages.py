"""Pages of a search against all that was ever there, compared and put in order one by one."""

from __future__ import annotations

import sqlite3
from random import Random
from typing import Any

import pytest
from catalog_material import Tree, changes, connect, file, find, folder, full, make_set, matches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caso_mesh.catalog import blocks, in_order, index, names, search
from caso_mesh.model.entries import EntryType, path_key

#: What sorts before and after a slash, one in the other, alike but for their case, and not UTF-8.
PARTS = [
    b"a", b"a b", b"a-b", b"a.b", b"a0", b"ab", b"report", b"report-2", b"Report", b"reports", b"x.report.d", b"\xff",
    "größe".encode(), b"long-name-with-many-trigrams-2024-report.txt", b"zz",
]  # fmt: skip
GLOBS = [
    "*", "?*", "*report*", "report*", "*report", "*/report/*", "*/reports/*-*", "*a*/*b*", "*.d/*", "a?b", "*gr??e*",
    "*many-trigrams-2024*", "long-name-with-many-trigrams-2024-report.txt", "*/a b/*report*", "*zz*", "zz/*", "/top/*",
    b"*\xff*", "*nothing-like-it*",
]  # fmt: skip
#: Some places behind which a search may go on, whether anything is there or not.
PLACES = [b"a", b"top", b"top/a", b"top/a b/a", b"top/a/a-b/report", b"top/report\x01", b"top/a/not-there/a", b"zz"]


def grown(rng: Random, entries: int, before: Tree | None = None) -> Tree:
    """``before`` (the top alone, if not given) and so many more."""
    found = {b"top": folder(b"top")} if before is None else dict(before)
    above = [path for path, each in found.items() if each.type is EntryType.DIRECTORY]
    for _ in range(entries):
        path = rng.choice(above[-6:] if rng.random() < 0.5 else above) + b"/" + rng.choice(PARTS)
        if rng.random() < 0.3:
            path += b"%d" % rng.randrange(30)
        if path in found:
            continue
        if rng.random() < 0.45:
            found[path] = folder(path)
            above.append(path)
        else:
            found[path] = file(path, size=rng.randrange(3))
    return found


def changed(rng: Random, before: Tree) -> Tree:
    gone = rng.sample(sorted(before), min(3, len(before) - 1))
    kept = {path: each for path, each in before.items() if path == b"top" or not any(_within(path, g) for g in gone)}
    for path in rng.sample(sorted(kept), len(kept) // 4):
        if kept[path].size:
            kept[path] = file(path, size=rng.randrange(4))
    return grown(rng, 12, kept)


def _within(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder + b"/")


def filled(rng: Random, conn: sqlite3.Connection, entries: int) -> list[tuple[int, str, str, Tree]]:
    """Sets of two sources, one of which has two chains: end, source, id and tree of each."""
    sets: list[tuple[int, str, str, Tree]] = []
    for source, filters in (("node-a", b"one"), ("node-a", b"other"), ("node-b", b"one")):
        tree = grown(rng, rng.randint(1, entries))
        base: str | None = None
        for _ in range(rng.randint(1, 3)):
            ended = rng.randrange(20)
            record = make_set(f"set-{len(sets)}", source=source, filters=filters, ended=ended, roots=(b"top",))
            after = tree if base is None else changed(rng, tree)
            index.add_set(conn, record)
            index.ingest(conn, full(record, after) if base is None else changes(record, base, tree, after))
            sets.append((ended, source, record.id, after))
            tree, base = after, record.id
    return sets


def expected(
    sets: list[tuple[int, str, str, Tree]], glob: str | bytes, *, size_min: int, ignore_case: bool
) -> list[index.Match]:
    best: dict[tuple[str, bytes], tuple[int, str]] = {}
    found: dict[tuple[str, bytes], index.Match] = {}
    for ended, source, set_id, tree in sets:
        for path, entry in tree.items():
            if entry.size < size_min or not matches(glob, path, ignore_case=ignore_case):
                continue
            if best.get((source, path), (-1, "")) < (ended, set_id):
                best[source, path] = ended, set_id
                found[source, path] = index.Match(set_id, source, path, entry)
    return sorted(found.values(), key=_order)


def _order(match: index.Match) -> tuple[str, bytes]:
    return match.source, path_key(match.path)


def pages(conn: sqlite3.Connection, glob: str | bytes, limit: int, **wanted: Any) -> list[index.Match]:
    found: list[index.Match] = []
    after = None
    while page := find(conn, glob, limit=limit, after=after, **wanted):
        assert len(page) <= limit and (after is None or _order(page[0]) > _order(found[-1]))
        found += page
        after = page[-1].source, page[-1].path
    return found


def assert_in_order(
    conn: sqlite3.Connection, glob: str | bytes, all_of_it: list[index.Match], rng: Random, **wanted: Any
) -> None:
    """Sources may be asked for in another order than that of their ids, and from any place in it on."""
    order = ("node-b", "node-a")
    turned = sorted(all_of_it, key=lambda each: (order.index(each.source), path_key(each.path)))
    assert find(conn, glob, order=order, **wanted) == turned
    if turned:
        at = rng.randrange(len(turned))
        source, path = turned[at].source, turned[at].path
        left = order[order.index(source) :]
        rest = find(conn, glob, after=(source, path), order=left, sources=frozenset(left), limit=3, **wanted)
        assert rest == turned[at + 1 : at + 4]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(1, 150))
def test_pages_of_any_size_put_together_are_all_that_matches_in_order_of_source_and_path(seed, entries):
    """Whichever way a search takes, which depends on sizes: these are drawn as well."""
    rng = Random(seed)
    conn = connect()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "FULL", rng.choice([1, 3, 64]))
            patch.setattr(names, "BLOCK", rng.choice([1, 4, 32]))
            sets = filled(rng, conn, entries)
            patch.setattr(blocks, "_MANY", rng.choice([1, 3, 500]))
            patch.setattr(in_order, "_ALONE", rng.choice([0, 2, 50]))
            patch.setattr(in_order, "_AHEAD", rng.choice([1, 2, 25]))
            patch.setattr(search, "_COUNT", rng.choice([1, 3, 2000]))
            patch.setattr(search, "_FEW", rng.choice([0, 50]))
            patch.setattr(search, "_FIRST_FOLDERS", rng.choice([1, 5, 2000]))
            patch.setattr(search, "_MORE_FOLDERS", rng.choice([1, 20]))
            patch.setattr(search, "_MOST_PLACES", rng.choice([0, 5, 50_000]))
            patch.setattr(search, "_WAY_UP", rng.choice([0, 1, 3, 1000]))
            for glob in rng.sample(GLOBS, 6):
                wanted = {"size_min": rng.randrange(3), "ignore_case": rng.random() < 0.3}
                all_of_it = expected(sets, glob, **wanted)
                for limit in (1000, rng.randint(1, 4), rng.randint(5, 40)):
                    assert pages(conn, glob, limit, **wanted) == all_of_it, (glob, limit, wanted)
                source, path = rng.choice(["node-a", "node-b"]), rng.choice(PLACES)
                behind = [each for each in all_of_it if _order(each) > (source, path_key(path))]
                assert find(conn, glob, after=(source, path), **wanted) == behind, (glob, source, path, wanted)
                assert_in_order(conn, glob, all_of_it, rng, **wanted)
    finally:
        conn.close()
