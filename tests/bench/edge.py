"""The ugly tree of another harness through our product, as root or with a daemon of a plain user, and whether all that a
restore lacks was told.

``scripts/bench edge --harness FOLDER``: FOLDER holds ``compare.py`` and ``datasets.py``. The harness makes the tree and
compares; what it finds to be lost must be among the exceptions that backup and restore list.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pathlib
import pwd
import shutil
import sys
import tempfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

#: What the harness writes to while it is read; it is looked at apart.
_HOT = b"hot/growing"


def main(chosen: argparse.Namespace) -> int:
    """Runs it; 0 if nothing was lost that was not told, and as root nothing at all."""
    if os.geteuid() != 0:
        print("scripts/bench edge starts as root: it compares what others must not read")
        return 2
    compare = _harness(pathlib.Path(chosen.harness))
    person = pwd.getpwnam(chosen.user) if chosen.user else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="caso-mesh-edge-", dir=chosen.folder))
    folder.chmod(0o755)
    try:
        source = folder / "source"
        source.mkdir()
        maker = person if chosen.tree == "own" else None
        if maker is not None:
            os.chown(source, maker.pw_uid, maker.pw_gid)
        _as(maker, lambda: _make(compare, source))
        return _round(compare, folder, source, person)
    finally:
        shutil.rmtree(folder)


def _harness(folder: pathlib.Path) -> ModuleType:
    """The harness as a module, and our adapter for it."""
    sys.path.insert(0, str(folder))
    return importlib.import_module("compare")


def _as(person: pwd.struct_passwd | None, work: Callable[[], None]) -> None:
    """Does ``work`` in a process of that user."""
    if person is None:
        work()
        return
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(person.pw_gid, person.pw_gid, person.pw_gid)
            os.setresuid(person.pw_uid, person.pw_uid, person.pw_uid)
            work()
            status = 0
        except BaseException as error:
            print(f"the tree cannot be made: {error!r}", flush=True)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _make(compare: ModuleType, source: pathlib.Path) -> None:
    datasets = compare.datasets
    if os.geteuid() != 0:
        datasets._dirs = _own_folders  # its own one ends at a folder that may not be opened
    skipped = datasets.gen_edge(str(source))
    if os.geteuid() == 0:
        assert not skipped, skipped
    for line in skipped:
        print(f"the tree lacks: {line}", flush=True)


def _own_folders(root: bytes) -> Any:
    """Open descriptors of the folders below ``root`` that can be opened, deepest first."""

    def below(fd: int) -> Any:
        for name in sorted(os.fsencode(each) for each in os.listdir(fd)):
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:
                continue
            yield from below(inner)
        yield fd

    yield from below(os.open(root, os.O_RDONLY))


def _round(compare: ModuleType, folder: pathlib.Path, source: pathlib.Path, person: pwd.struct_passwd | None) -> int:
    adapter = _adapter(compare)(str(folder / "work"), user=person.pw_name if person else None)
    adapter.src_dir, adapter.lenient = str(source), True
    target = folder / "restored"
    target.mkdir()
    adapter.init()
    try:
        hot = compare.Hot(str(source / os.fsdecode(_HOT)))
        hot.start()
        try:
            adapter.backup(str(source), 1)
        finally:
            hot.on = False
            hot.join()
        backed_up = adapter.exceptions
        before = compare.manifest(str(source))
        adapter.restore(str(source), str(target))
        restored = adapter.exceptions
        adapter.verify()
    finally:
        adapter.stop()
    found = compare.differences(before, compare.manifest(str(target)), (b"hot",))
    size = target.joinpath(os.fsdecode(_HOT)).stat().st_size
    return _verdict(str(source), found, backed_up, restored, size, who=person.pw_name if person else "root")


def _adapter(compare: ModuleType) -> Any:
    path = pathlib.Path(__file__).with_name("compare_adapter.py")
    spec = importlib.util.spec_from_file_location("compare_adapter", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CasoMesh


def _verdict(
    source: str,
    found: dict[str, list[bytes]],
    backed_up: list[dict[str, Any]],
    restored: list[dict[str, Any]],
    hot_size: int,
    *,
    who: str,
) -> int:
    told = {each["path"] for each in (*backed_up, *restored)}
    silent = 0
    print(f"as {who}:")
    for kind, paths in sorted(found.items()):
        quiet = [path for path in paths if not _is_told(f"{source}/{shown(path)}", told)]
        silent += len(quiet)
        print(f"  lost: {kind} ({len(paths)}), not told: {len(quiet)}{_some(quiet)}")
    if not found:
        print("  lost: nothing")
    for what, each in (("backup", backed_up), ("restore", restored)):
        reasons: dict[str, list[str]] = {}
        for one in each:
            reasons.setdefault(one["reason"].partition(":")[0], []).append(one["path"].removeprefix(source + "/"))
        for reason, names in sorted(reasons.items()):
            print(f"  {what} told: {reason} ({len(names)}), as {names[0]}")
    print(f"  the file rewritten while it was read: {hot_size} bytes came back")
    print(f"  lost without a word: {silent}")
    return 1 if silent or (who == "root" and found) else 0


def shown(path: bytes) -> str:
    """A path as the product writes it for people."""
    return path.decode("utf-8", "backslashreplace")


def _is_told(path: str, told: set[str]) -> bool:
    """What lies in a folder that could not be read is told with it."""
    while path:
        if path in told:
            return True
        path = path.rpartition("/")[0]
    return False


def _some(paths: list[bytes]) -> str:
    return "" if not paths else ", as " + ", ".join(shown(path)[:60] for path in paths[:5])
