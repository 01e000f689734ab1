"""Measures the catalog. Usage: python tests/catalog/measure_catalog.py [VERSIONS [SETS]]

One source of VERSIONS * 3/4 files, then SETS - 1 sets that each change, add and remove some, all random but repeatable;
then one set that changes nothing, as a full listing and as changes. Times are of one thread.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(__file__))

from catalog_material import file, folder, make_set

from caso_mesh.catalog import index
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import CatalogEntry, SegmentWriter, chain_of
from caso_mesh.model.entries import path_key

WORDS = [
    a + b for a in ("re", "in", "bu", "con", "da", "pro", "ser", "li", "mo", "ta", "qua", "ze")
    for b in ("port", "voice", "dget", "fig", "ta", "ject", "ver", "brary", "dule", "ble", "rter", "nith", "log", "x")
]  # fmt: skip
ENDS = ["txt", "py", "jpg", "docx", "pdf"]


def make_tree(rng: random.Random, files: int) -> dict[bytes, CatalogEntry]:
    found = {b"srv": folder(b"srv")}
    while files > 0:
        path = b"srv"
        for _ in range(rng.randint(2, 6)):
            path += b"/" + rng.choice(WORDS).encode()
            found.setdefault(path, folder(path))
        for _ in range(min(20, files)):
            files -= 1
            entry = some_file(rng, path + b"/" + name(rng))
            found[entry.path] = entry
    return found


def name(rng: random.Random) -> bytes:
    return f"{rng.choice(WORDS)}-{rng.randrange(10**7)}.{rng.choice(ENDS)}".encode()


def some_file(rng: random.Random, path: bytes) -> CatalogEntry:
    modified = (1_600_000_000 + rng.randrange(10**8), rng.randrange(10**9))
    return file(path, rng.randrange(10**6), modified, uid=1000, gid=1000, fingerprint=rng.randbytes(8))


def write(path: str, backup_set, entries, removed=(), base: str | None = None) -> int:
    records = [(path_key(entry.path), entry) for entry in entries] + [(path_key(gone), gone) for gone in removed]
    records.sort(key=lambda record: record[0])
    with SegmentWriter(path, set_id=backup_set.id, chain=chain_of(backup_set), base=base) as writer:
        for _key, record in records:
            writer.remove(record) if isinstance(record, bytes) else writer.add(record)
        return writer.finish()[1]


def timed(times: int, call: Callable[[int], object]) -> str:
    taken = []
    for number in range(times):
        begin = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - begin) * 1e3)
    taken.sort()
    return f"median {statistics.median(taken):7.2f} ms, p99 {taken[int(len(taken) * 0.99)]:7.2f} ms, worst {taken[-1]:7.2f} ms"


async def main(versions: int, sets: int, where: str) -> None:
    rng = random.Random(1)
    begin = time.perf_counter()
    tree = make_tree(rng, versions * 3 // 4)
    step = (versions - versions * 3 // 4) // (sets - 1)
    jobs = []
    first = make_set("set000", ended=0)
    jobs.append((first, len(tree), write(f"{where}/000", first, tree.values())))
    for number in range(1, sets):
        paths = rng.sample(sorted(tree), step)
        changed, removed = [], []
        for path in paths:
            old = tree[path]
            if old.type != "file":
                continue
            kind = rng.random()
            if kind < 0.1:
                removed.append(path)
                del tree[path]
            elif kind < 0.3:
                new = path.rpartition(b"/")[0] + b"/" + name(rng)
                tree[new] = some_file(rng, new)
                changed.append(tree[new])
            else:
                tree[path] = some_file(rng, path)
                changed.append(tree[path])
        record = make_set(f"set{number:03d}", ended=number)
        size = write(f"{where}/{number:03d}", record, changed, removed, f"set{number - 1:03d}")
        jobs.append((record, len(changed), size))
    print(
        f"made in {time.perf_counter() - begin:.1f} s; segments {sum(j[2] for j in jobs) / sum(j[1] for j in jobs):.1f} B/record"
    )
    database = f"{where}/catalog.db"
    async with Catalog.open(database, same_thread=True) as catalog:
        slowest = 0.0
        spent = []
        for record, count, _size in jobs:
            await catalog.add_set(record)
            begin = time.perf_counter()
            await catalog.ingest(f"{where}/{record.id[3:]}")
            spent.append((count, time.perf_counter() - begin))
            slowest = max(slowest, spent[-1][1])
        total = sum(count for count, _ in spent)
        print(f"full listing: {spent[0][0] / spent[0][1] / 1e3:.0f} k versions/s")
        changed = sum(c for c, _ in spent[1:])
        print(
            f"changes: {changed / sum(t for _, t in spent[1:]) / 1e3:.0f} k versions/s ({changed} in {sets - 1} sets)"
        )
        print(
            f"all: {total} versions in {sum(t for _, t in spent):.1f} s = {total / sum(t for _, t in spent) / 1e3:.0f} k/s"
        )
    used = os.path.getsize(database)
    conn = sqlite3.connect(database, isolation_level=None)
    print(f"size: {used / total:.0f} B/version")
    for table, size in conn.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 8"):
        print(f"   {table:24s} {size / total:6.1f} B/version")
    conn.execute("VACUUM INTO ?", (f"{where}/packed.db",))
    print(f"size packed: {os.path.getsize(f'{where}/packed.db') / total:.0f} B/version")
    folders = [p for p, e in tree.items() if e.type == "directory"]
    files = [p for p, e in tree.items() if e.type == "file"]
    last = f"set{sets - 1:03d}"
    print("list a folder        ", timed(500, lambda _: index.list_folder(conn, last, rng.choice(folders))))
    print("look up a file       ", timed(500, lambda _: index.lookup(conn, last, rng.choice(files))))
    print("versions of a file   ", timed(500, lambda _: index.versions(conn, "node-a", rng.choice(files))))
    print("size of all          ", timed(3, lambda _: index.folder_size(conn, last, b"srv")))
    parts = [rng.choice(files).rpartition(b"/")[2].decode() for _ in range(300)]
    finds: dict[str, Callable[[int], str]] = {
        "whole name": lambda n: parts[n],
        "part of a number": lambda n: f"*{parts[n].partition('-')[2][:5]}*",
        "word and number": lambda n: f"*{parts[n].partition('.')[0][:-2]}*",
        "path and name": lambda n: f"/srv/*/{parts[n][:10]}*",
        "common word, 1000": lambda n: f"*{WORDS[n % len(WORDS)]}*",
        "no hit": lambda n: f"*zzqqzz{n}*",
        "ending, 1000": lambda n: f"*.{ENDS[n % 5]}",
        "two letters, 1000": lambda n: f"*{parts[n][:2]}*",
    }
    for title, pattern in finds.items():
        found = [len(index.find(conn, pattern(n))) for n in range(5)]
        print(f"find {title:18s}", timed(200, lambda n, pattern=pattern: index.find(conn, pattern(n))), found)
    print("fallback, no hit     ", timed(1, lambda _: index.find(conn, "??")))
    conn.close()
    size = os.path.getsize(database)
    async with Catalog.open(database, same_thread=True) as catalog:
        for number, base in enumerate([None, last]):
            record = make_set(f"same{number}", ended=1000 + number)
            await catalog.add_set(record)
            write(f"{where}/same{number}", record, tree.values() if base is None else (), (), base and "same0")
            begin = time.perf_counter()
            await catalog.ingest(f"{where}/same{number}")
            print(
                f"unchanged {'changes' if base else 'full listing'} of {len(tree)}: {time.perf_counter() - begin:.3f} s"
            )
    print(f"grown by {(os.path.getsize(database) - size) / 1e3:.0f} kB")
    async with Catalog.open(database, same_thread=True) as catalog:
        begin = time.perf_counter()
        await catalog.remove_set(f"set{sets // 2:03d}")
        print(f"remove a set: {(time.perf_counter() - begin) * 1e3:.0f} ms")
        begin = time.perf_counter()
        await catalog.remove_set("set000")
        print(f"remove the first set: {(time.perf_counter() - begin) * 1e3:.0f} ms")


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]] + [500_000, 20][len(sys.argv) - 1 :]
    with tempfile.TemporaryDirectory() as where:
        asyncio.run(main(*arguments, where))
