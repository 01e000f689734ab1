"""A lost catalog made anew from the device alone: how long it takes, and whether it answers as the lost one did."""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from mesh.process import ProcessMesh, running_mesh

from caso_mesh.cli.client import connect
from caso_mesh.cli.options import Common
from caso_mesh.model import browsing as b
from caso_mesh.model import requests as q
from caso_mesh.model.listing import CatalogFind

_IN_FOLDER = 200
#: Sets: a full one, then incrementals, each after so many of the files have changed.
_CHANGED = 0.02
_VERSIONS_ASKED = 300
_GLOBS = (b"*7.txt", b"file-1*", b"*/folder-3/*", b"*added*")


def main(chosen: argparse.Namespace) -> int:
    """Runs it; 0 if the catalog is what it was."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="caso-mesh-rebuild-", dir=chosen.folder))
    try:
        with running_mesh(folder / "mesh") as mesh:
            return _rebuild(mesh, folder, chosen.files, chosen.sets)
    finally:
        shutil.rmtree(folder)


def _rebuild(mesh: ProcessMesh, folder: pathlib.Path, files: int, sets: int) -> int:
    disk, tree = folder / "disk", folder / "data"
    _make(tree, files)
    os.sync()  # what is left to write must not be paid for by those who wait for their own
    mesh.start(1)
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    rng = random.Random(3)
    began_s = time.monotonic()
    for number in range(sets):
        if number:
            _change(tree, rng, files, number)
        kind = "incremental" if number else "full"
        words = ("backup", f"alpha:{tree}", "--to", "device:disk", "--type", kind, "--wait")
        mesh.ok("alpha", *words, timeout_s=3600)
    made_s = time.monotonic() - began_s
    before = _answers(mesh, tree, files)
    listed = sum(len(reply["entries"]) for reply in before["ls"].values())
    print(
        f"{sets} sets of {files} files in {made_s:.1f} s; {len(before['ls'])} listings with {listed} entries",
        flush=True,
    )

    assert mesh.terminate("alpha") == 0
    lost = mesh.state("alpha") / "catalog"
    size = sum(path.stat().st_size for path in lost.rglob("*") if path.is_file())
    shutil.rmtree(lost)
    mesh.run("alpha")
    began_s = time.monotonic()
    answer = mesh.cli("alpha", "catalog", "rebuild", "disk", "--wait", "--timeout", "120s", timeout_s=3600)
    rebuilt_s = time.monotonic() - began_s
    assert answer.status == 0, str(answer)
    (made,) = answer.document["catalogs"]
    assert (made["lacked"], made["made"]) == (sets, sets), answer.document
    after = _answers(mesh, tree, files)
    same = all(after[kind] == before[kind] for kind in before)
    counted = sum(row["files"] for row in before["sets"])
    print(
        f"catalog of {size / 1e6:.1f} MB lost and made anew in {rebuilt_s:.2f} s: {counted / rebuilt_s:.0f} files/s "
        f"({counted} files in {sets} sets, {(listed / rebuilt_s):.0f} entries/s with folders); the job made them in "
        f"{made['seconds']:.2f} s"
    )
    answers = len(before["ls"]) + len(before["find"]) + len(before["versions"])
    print(f"{answers} answers of ls, find and versions are {'equal' if same else 'NOT EQUAL'} to those before")
    return 0 if same else 1


def _name(number: int) -> str:
    return f"folder-{number // _IN_FOLDER}/file-{number}.txt"


def _make(tree: pathlib.Path, files: int) -> None:
    for number in range(files):
        path = tree / _name(number)
        if number % _IN_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % number)


def _change(tree: pathlib.Path, rng: random.Random, files: int, round_: int) -> None:
    """Some files change, some go, some come."""
    for number in rng.sample(range(files), max(3, int(files * _CHANGED))):
        path = tree / _name(number)
        what = rng.randrange(3)
        if what == 0:
            path.write_bytes(b"%d in round %d" % (number, round_))
        elif what == 1:
            path.unlink(missing_ok=True)
        else:
            path.with_name(f"added-{round_}-{number}.txt").write_bytes(b"new")


def _answers(mesh: ProcessMesh, tree: pathlib.Path, files: int) -> dict[str, Any]:
    """Everything a person can ask the catalog: each folder as of each set, files by name, versions of some paths."""
    common = Common(mesh.state("alpha"), None, "120s", False)
    found: dict[str, Any] = {"ls": {}, "find": {}, "versions": {}}
    with connect(common) as client:
        sets = sorted((client.call("set.list", q.SetListRequest(), b.SetList)).sets, key=lambda row: row.id)
        found["sets"] = [msgspec.to_builtins(row) for row in sets]
        for row in sets:
            for path in _folders(tree, files):
                request = b.CatalogList(row.id, path)
                found["ls"][row.id, path] = msgspec.to_builtins(client.call("catalog.ls", request, b.EntryList))
        for glob in _GLOBS:
            request_ = CatalogFind(glob, limit=1_000_000)
            found["find"][glob] = msgspec.to_builtins(client.call("catalog.find", request_, b.MatchList))
        rng = random.Random(4)
        for _ in range(_VERSIONS_ASKED):
            path = f"{tree}/{_name(rng.randrange(files))}".encode()
            versions = client.call("catalog.versions", b.CatalogVersions("alpha", path), b.VersionList)
            found["versions"][path] = msgspec.to_builtins(versions)
    return found


def _folders(tree: pathlib.Path, files: int) -> Iterator[bytes]:
    top = str(tree).lstrip("/").encode()
    yield top
    for number in range(0, files, _IN_FOLDER):
        yield b"%b/folder-%d" % (top, number // _IN_FOLDER)
