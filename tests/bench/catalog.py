"""The catalog at size: taking in, bytes on disk, listing, finding, versions, and what a set without changes costs."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
from bench.catalog_material import Made, Material, make, set_of, write
from msgspec import Struct

from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.model.entries import EntryType

#: Goals: versions taken in per CPU second, bytes per version, milliseconds.
INGEST_PER_S, BYTES, FOLDER_MS, FIND_MS, NO_CHANGE_BYTES = 150_000, 120.0, 5.0, 100.0, 1_000_000
#: Bacula 9.6.7 with PostgreSQL on a like machine; the rate counts statements over 20 ms only and is an upper bound.
_BACULA_PER_S, _BACULA_BYTES = 110_417, 236.8
_QUESTIONS = 200
_TESTS = pathlib.Path(__file__).resolve().parents[1]


class _Row(Struct, frozen=True):
    """One line of the table; ``missed``: it has a goal and is beyond it."""

    what: str
    value: str
    goal: str = ""
    missed: bool = False


def main(words: Sequence[str]) -> int:
    """Makes the sets, takes them in in a process of its own, asks; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="scripts/bench catalog", description=__doc__)
    parser.add_argument("--versions", type=int, default=5_000_000, help="of files and folders (default: 5 million)")
    parser.add_argument("--sets", type=int, default=200, help="of up to ten servers (default: 200)")
    parser.add_argument("--folder", help="where sets and catalog go, and stay; sets that lie there are used again")
    parser.add_argument(
        "--only", choices=("ingest", "questions"), help="with --folder: that alone, and what must come before"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.measure:
        return asyncio.run(_measure(pathlib.Path(chosen.folder), chosen.only))
    folder = pathlib.Path(chosen.folder or tempfile.mkdtemp(prefix="caso-mesh-catalog-"))
    try:
        _prepare(folder, chosen.versions, chosen.sets)
        # in a process of its own, so that its memory is that of the catalog alone
        only = ("--only", chosen.only) if chosen.only else ()
        command = (sys.executable, "-m", "bench", "catalog", "--measure", "--folder", str(folder), *only)
        found = os.pathsep.join([str(_TESTS.parent), str(_TESTS)])
        return subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": found}).returncode
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)


def _prepare(folder: pathlib.Path, versions: int, sets: int) -> None:
    described, name = folder / "material.json", f"{versions} {sets}"
    if described.exists() and (folder / "asked").read_text() == name:
        return
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    material = make(folder, versions, sets)
    described.write_bytes(msgspec.json.encode(material))
    (folder / "asked").write_text(name)
    size = sum(each.segment_bytes for each in material.sets)
    print(
        f"{len(material.sets)} segments made in {time.monotonic() - began_s:.0f} s: {material.versions} versions,"
        f" {size / material.versions:.1f} bytes each",
        flush=True,
    )


async def _measure(folder: pathlib.Path, only: str | None) -> int:
    material = msgspec.json.decode((folder / "material.json").read_bytes(), type=Material)
    # the description is large; it must neither be counted as the catalog's memory nor searched for rubbish
    gc.freeze()
    rows: list[_Row] = []
    database = folder / "catalog.db"
    before_load = os.getloadavg()[0]
    if only != "questions" or not database.exists():
        for left in folder.glob("catalog.db*"):
            left.unlink()
        rows += await _ingest(folder, database, material)
    if only != "ingest":
        rows += await _questions(database, material)
        rows += await _no_change(folder, database, material)
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"{row.what:{width}}  {row.value:38}  {row.goal:14} {'MISSED' if row.missed else ''}".rstrip())
    print(f"load {before_load:.1f} before, {os.getloadavg()[0]:.1f} after; SQLite {sqlite3.sqlite_version}")
    return 1 if any(row.missed for row in rows) else 0


# --- taking in ---


async def _ingest(folder: pathlib.Path, database: pathlib.Path, material: Material) -> list[_Row]:
    idle = _peak_bytes()
    spent: dict[str, list[tuple[Made, float, float]]] = {"full": [], "incremental": []}
    async with Catalog.open(database) as catalog:
        for each in material.sets:
            await catalog.add_set(set_of(each.number, each.source, each.kind))
            wall_s, cpu_s = time.monotonic(), time.process_time()
            await catalog.ingest(folder / f"{each.number:04d}.segment")
            spent[each.kind].append((each, time.monotonic() - wall_s, time.process_time() - cpu_s))
    rows = []
    for kind, of_kind in (*spent.items(), ("all", [*spent["full"], *spent["incremental"]])):
        versions = sum(each.versions for each, _, _ in of_kind)
        wall_s, cpu_s = sum(wall for _, wall, _ in of_kind), sum(cpu for _, _, cpu in of_kind)
        value = f"{versions / wall_s / 1e3:.0f} k/s, {versions / cpu_s / 1e3:.0f} k per CPU second"
        goal, missed = (
            (f"{INGEST_PER_S / 1e3:.0f} k/s", versions / cpu_s < INGEST_PER_S) if kind == "all" else ("", False)
        )
        rows.append(_Row(f"taken in, {kind}: {versions} versions of {len(of_kind)} sets", value, goal, missed))
    rows.append(_Row("Bacula's rate, an upper bound", f"{_BACULA_PER_S / 1e3:.0f} k/s"))
    size = database.stat().st_size / material.versions
    rows.append(_Row("on disk", f"{size:.1f} bytes per version", f"{BYTES:.0f}", size > BYTES))
    rows.append(_Row("Bacula", f"{_BACULA_BYTES:.1f} bytes per file"))
    for table, part in _sizes(database):
        rows.append(_Row(f"  {table}", f"{part / material.versions:.1f}"))
    rows.append(_Row("memory", f"{_peak_bytes() / 1e6:.0f} MB at most, {idle / 1e6:.0f} before"))
    return rows


def _sizes(database: pathlib.Path) -> list[tuple[str, int]]:
    conn = sqlite3.connect(database)
    try:
        query = "SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 8"
        return [(name, size) for name, size in conn.execute(query)]
    finally:
        conn.close()


def _peak_bytes() -> int:
    # not ru_maxrss, which counts what the process was before it became this program
    status = pathlib.Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


# --- questions ---


async def _questions(database: pathlib.Path, material: Material) -> list[_Row]:
    rng = random.Random(5)
    latest = {each.source: f"set{each.number:04d}" for each in material.sets}
    middle = {each.source: f"set{each.number:04d}" for each in material.sets[: len(material.sets) // 2]}
    folders, files = (
        rng.sample(material.folders, len(material.folders)),
        rng.sample(material.files, len(material.files)),
    )
    names = [path.rpartition(b"/")[2] for _source, path in files]
    rows = []
    async with Catalog.open(database) as catalog:

        async def ask(
            what: str, goal_ms: float | None, call: Callable[[int], Awaitable[Sequence[Any]]], times: int = _QUESTIONS
        ) -> None:
            taken, found = [], []
            for number in range(times):
                began_s = time.perf_counter()
                found.append(len(await call(number)))
                taken.append((time.perf_counter() - began_s) * 1e3)
            taken.sort()
            p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
            value = f"{p50:.2f} ms, p99 {p99:.2f} ms; {sum(found) / len(found):.0f} each"
            goal = "" if goal_ms is None else f"{goal_ms:g} ms"
            rows.append(_Row(what, value, goal, goal_ms is not None and p99 > goal_ms))

        async def find(glob: str | bytes) -> Sequence[Any]:
            return (await catalog.find(glob)).matches

        def folder(sets: dict[int, str], number: int) -> tuple[str, bytes]:
            source, path = folders[number % len(folders)]
            return sets[source], path

        await ask("list a folder, last set", FOLDER_MS, lambda n: catalog.list_folder(*folder(latest, n), limit=1000))
        await ask(
            "list a folder, a set in the middle", FOLDER_MS, lambda n: _none_if_absent(catalog, *folder(middle, n))
        )

        async def one(number: int) -> Sequence[Any]:
            source, path = files[number % len(files)]
            return await catalog.versions(f"node-{source}", path)

        await ask("versions of a path", FOLDER_MS, one)
        words = [name.rpartition(b".")[0] for name in names]
        await ask("find a name", FIND_MS, lambda n: find(names[n]))
        await ask("find part of a name", FIND_MS, lambda n: find(b"*" + words[n][2:-1] + b"*"))
        await ask("find six characters anywhere", FIND_MS, lambda n: find(b"*" + names[n][-10:-4] + b"*"))
        await ask("find in a path", FIND_MS, lambda n: find(_in_path(*files[n])))
        await ask("find a common ending, 1000", FIND_MS, lambda n: find("*." + ("pdf", "py", "gz", "txt")[n % 4]))
        await ask("find a common word, 1000", FIND_MS, lambda n: find(f"*{('report', 'ink', 'IMG', 'mail')[n % 4]}*"))
        await ask(
            "sizes of folders, two levels, all files", None, lambda n: catalog.usage(latest[0], b"srv", depth=2), 5
        )
        await ask("find what is not there", FIND_MS, lambda n: find(f"*zzqqzz{n}*"))
    return rows


async def _none_if_absent(catalog: Catalog, set_id: str, path: bytes) -> Sequence[CatalogEntry]:
    if await catalog.lookup(set_id, path) is None:
        return []
    return await catalog.list_folder(set_id, path, limit=1000)


def _in_path(source: int, path: bytes) -> bytes:
    parts = path.split(b"/")
    return b"*/" + parts[-2] + b"/*" + parts[-1][-8:]


# --- a set without changes ---


async def _no_change(folder: pathlib.Path, database: pathlib.Path, material: Material) -> list[_Row]:
    """As an incremental backup tells it, and as a full listing does, which is compared."""
    rows = []
    base = next(each for each in reversed(material.sets) if each.source == 0)
    latest = f"set{base.number:04d}"
    for number, kind in ((9000, "incremental"), (9001, "full")):
        record = set_of(number, 0, kind)
        path = folder / f"{number}.segment"
        path.unlink(missing_ok=True)
        async with Catalog.open(database) as catalog:
            await catalog.remove_set(record.id)
            entries = [] if kind == "incremental" else [entry async for entry in _walk(catalog, latest)]
            write(path, record, entries, (), latest if kind == "incremental" else None)
        size = database.stat().st_size
        async with Catalog.open(database) as catalog:
            wall_s = time.monotonic()
            await catalog.add_set(record)
            await catalog.ingest(path)
            wall_s = time.monotonic() - wall_s
        grown = database.stat().st_size - size
        what = f"no change, {kind}: {material.alive if not entries else len(entries)} entries"
        goal, missed = f"{NO_CHANGE_BYTES / 1e6:g} MB", grown > NO_CHANGE_BYTES
        rows.append(_Row(what, f"{wall_s:.2f} s, {grown / 1e3:.0f} kB", goal, missed))
        path.unlink()
    return rows


async def _walk(catalog: Catalog, set_id: str) -> AsyncIterator[CatalogEntry]:
    waiting = [b""]
    while waiting:
        at, after = waiting.pop(), None
        while True:
            page = await catalog.list_folder(set_id, at, after=after, limit=5000)
            for entry in page:
                yield entry
                if entry.type is EntryType.DIRECTORY:
                    waiting.append(entry.path)
            if len(page) < 5000:
                break
            after = page[-1].path
