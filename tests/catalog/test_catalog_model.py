"""The catalog against the simplest thing that could be right: a dictionary of listings."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from random import Random

import pytest
from catalog_material import Tree, changes, connect, file, find, folder, full, listing, make_set, matches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caso_mesh.catalog import blocks, index
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.catalog.sets import is_within
from caso_mesh.model.entries import EntryType, path_key
from caso_mesh.model.storage import BackupSet

NAMES = [b"a", b"b", b"a.b", b"ab", b"\xff\xfe", b"n\nl", b"[x]*?", b"report-2024.txt", "größe".encode(), b"abcdef"]
GLOBS = [
    "*", "a", "*a*", "?", "a*/b", "*report*", "*.txt", "/r/*", "r/a", "*2024*", "*gr??e*", "[ab]", "*[[]x]*", "?b*",
    "*abc*def*", "*/abcdef/*", "*abcdef", "abcdef*", b"*\xff*", "*\n*", "*/a/b*", "r", "/u/v/*", "*abcdef*report*", "zzz*",
]  # fmt: skip
CHAINS = [
    ("node-a", (b"r",)),
    ("node-a", (b"r/a", b"u/v")),
    ("node-b", (b"",)),
]
HIGHEST = 10**9


@dataclass
class Reference:
    records: dict[str, BackupSet] = field(default_factory=dict)
    chain: dict[str, int] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)

    def forget(self, set_id: str) -> None:
        del self.records[set_id], self.chain[set_id]
        self.trees.pop(set_id, None)

    def above(self, set_id: str) -> set[bytes]:
        found = set()
        for path in self.trees[set_id]:
            at = path.rpartition(b"/")[0]
            while at:
                if at not in self.trees[set_id]:
                    found.add(at)
                at = at.rpartition(b"/")[0]
        return found


def changed(rng: Random, before: Tree, roots: tuple[bytes, ...]) -> Tree:
    """Some steps away from ``before``; every entry keeps its folder."""
    after = dict(before)
    for root in roots:
        if root not in after and rng.random() < 0.8:
            after[root] = folder(root)
    for _ in range(rng.choice([0, 1, 4, 15, 60])):
        tops = [path for path, entry in after.items() if entry.type is EntryType.DIRECTORY]
        if not tops:
            break
        at = rng.choice(tops)
        name = rng.choice(NAMES)
        path = at + b"/" + name if at else name
        what = rng.choices(["file", "folder", "remove", "touch"], [6, 6, 1, 2])[0]
        if what == "remove":
            victim = rng.choice(sorted(after)) if after else path
            after = {p: e for p, e in after.items() if not is_within(p, victim)}
        elif what == "folder":
            if path not in after or after[path].type is not EntryType.DIRECTORY:
                after[path] = folder(path)
        elif what == "file":
            after = {p: e for p, e in after.items() if not p.startswith(path + b"/")}
            after[path] = file(path, size=rng.randrange(4), modified=(rng.randrange(-2, 3), 7))
        elif path in after:
            old = after[path]
            after[path] = CatalogEntry(path, old.type, old.size, old.modified, rng.randrange(3), 1, 2, b"f")
    return after


def deepness(path: bytes) -> int:
    return len(path.split(b"/")) if path else 0


def check(rng: Random, conn: sqlite3.Connection, reference: Reference) -> None:
    for set_id in reference.records:
        assert index.has_detail(conn, set_id) == (set_id in reference.trees)
    for set_id, wanted in reference.trees.items():
        implied = {path: index.implied(path) for path in reference.above(set_id)}
        # The top has an entry, but lies in no folder.
        assert listing(conn, set_id) == {path: e for path, e in wanted.items() if path} | implied
        for path, entry in wanted.items():
            assert index.lookup(conn, set_id, path) == entry
            depth = rng.randint(0, 3)
            tops = {path} | {
                p
                for p, e in wanted.items()
                if e.type is EntryType.DIRECTORY and is_within(p, path) and deepness(p) <= deepness(path) + depth
            }
            usages = []
            for top in sorted(tops, key=path_key):
                files = [e.size for p, e in wanted.items() if e.type is EntryType.FILE and is_within(p, top)]
                usages.append(index.FolderUsage(top, len(files), sum(files)))
            assert index.usage(conn, set_id, path, depth=depth) == usages
        assert index.lookup(conn, set_id, b"not/there") is None
        top = index.list_folder(conn, set_id, b"")
        paged: list[CatalogEntry] = []
        while page := index.list_folder(conn, set_id, b"", after=paged[-1].path if paged else None, limit=1):
            paged += page
        assert paged == top == sorted(top, key=lambda entry: entry.path)
    for source in ("node-a", "node-b"):
        mine = [set_id for set_id, record in reference.records.items() if record.source == source]
        assert sorted(record.id for record in index.sets(conn, source=source)) == sorted(mine)
        for path in {path for set_id in mine for path in reference.trees.get(set_id, {})} | {b"x/y"}:
            having: dict[CatalogEntry, list[tuple[int, str]]] = {}
            for set_id in mine:
                if (entry := reference.trees.get(set_id, {}).get(path)) is not None:
                    having.setdefault(entry, []).append((reference.records[set_id].ended_at_ns, set_id))
            wanted_versions = sorted(
                ((max(ends), min(ends), len(ends), entry) for entry, ends in having.items()),
                key=lambda item: item[0],
                reverse=True,
            )
            assert index.versions(conn, source, path) == [
                index.Version(entry, first[1], last[1], count) for last, first, count, entry in wanted_versions
            ]
    for glob in GLOBS:
        check_find(conn, reference, glob, None, 0, HIGHEST, 0, HIGHEST)
    check_find(
        conn,
        reference,
        rng.choice(GLOBS),
        rng.choice([None, "node-a", "node-b", "node-x"]),
        rng.randint(0, 20),
        rng.randint(0, 30),
        rng.randint(0, 2),
        rng.randint(0, 3),
    )


def place_of(found: list[index.Match]) -> tuple[str, bytes] | None:
    return (found[-1].source, found[-1].path) if found else None


def check_find(conn, reference, glob, source, since, until, low, high) -> None:
    best: dict[tuple[str, bytes], tuple[int, str, CatalogEntry]] = {}
    for set_id, wanted in reference.trees.items():
        record = reference.records[set_id]
        if source not in {None, record.source} or not since <= record.ended_at_ns <= until:
            continue
        for path, entry in wanted.items():
            if matches(glob, path) and low <= entry.size <= high:
                candidate = (record.ended_at_ns, set_id, entry)
                key = (record.source, path)
                if key not in best or best[key][:2] < candidate[:2]:
                    best[key] = candidate
    expected = [
        index.Match(set_id, node, path, entry)
        for (node, path), (_, set_id, entry) in sorted(best.items(), key=lambda i: (i[0][0], path_key(i[0][1])))
    ]
    bounds = {
        "sources": None if source is None else frozenset([source]),
        "since_ns": since,
        "until_ns": until,
        "size_min": low,
        "size_max": high,
    }
    assert find(conn, glob, **bounds) == expected, glob
    assert find(conn, glob, **bounds, limit=1) == expected[:1], glob
    for limit in (2, 3) if until != HIGHEST else ():
        pages: list[index.Match] = []
        while page := find(conn, glob, **bounds, limit=limit, after=place_of(pages)):
            assert len(page) <= limit
            pages += page
        assert pages == expected, glob


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(4, 24), st.integers(0, 2**32))
def test_every_order_of_arrival_gives_each_set_exactly_its_own_listing(steps, seed):
    rng = Random(seed)
    conn = connect()
    reference = Reference()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "FULL", rng.choice([1, 2, 5, 64]))
        every_order(rng, conn, reference, steps)


def every_order(rng: Random, conn: sqlite3.Connection, reference: Reference, steps: int) -> None:
    for step in range(steps):
        one_step(rng, conn, reference, f"set{step:02d}")
    check(rng, conn, reference)
    for set_id in rng.sample(sorted(reference.records), len(reference.records)):
        index.remove_set(conn, set_id)
        reference.forget(set_id)
        if rng.random() < 0.2:
            check(rng, conn, reference)
    for table in ("source", "chain", "backup_set", "folder", "block", "touched", "pending"):
        assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    conn.close()


def one_step(rng: Random, conn: sqlite3.Connection, reference: Reference, name: str) -> None:
    chain = rng.choices(range(len(CHAINS)), [3, 1, 1])[0]
    source, roots = CHAINS[chain]
    mine = [s for s, c in reference.chain.items() if c == chain]
    detailed = [s for s in mine if s in reference.trees]
    what = rng.choices(["set", "remove", "again", "late", "rebuild"], [12, 3, 1, 2, 1])[0]
    if what == "remove" and mine:
        victim = rng.choice(mine)
        index.remove_set(conn, victim)
        index.remove_set(conn, victim)
        reference.forget(victim)
        return
    if what == "rebuild":
        index.rebuild_names(conn)
        return
    if what == "again" and detailed:
        victim = rng.choice(detailed)
        index.add_set(conn, reference.records[victim])
        assert index.ingest(conn, full(reference.records[victim], {})).repeated
        return
    without = [s for s in mine if s not in reference.trees]
    if what == "late" and without:
        record = reference.records[rng.choice(without)]
    else:
        record = make_set(name, source=source, roots=roots, ended=rng.randrange(30))
        index.add_set(conn, record)
        reference.records[name], reference.chain[name] = record, chain
        if rng.random() < 0.1:
            return
    base = rng.choice([None, *detailed, *detailed[-1:]])
    # What the source looked like before need not be what the segment is measured against.
    after = changed(rng, reference.trees[rng.choice(detailed)] if detailed else {}, roots)
    if base is None:
        segment = full(record, after)
    else:
        segment = changes(record, base, reference.trees[base], after, tops_only=rng.random() < 0.5)
    assert not index.ingest(conn, segment).repeated
    reference.trees[record.id] = after
