"""The machine loses power: what was acknowledged is there, what is there is whole, and the next session goes on from it.

The disk keeps no more than it must: of a file what it held when it was synced last, of a folder the names it had when *it*
was synced last. (Real file systems keep more, and in another order; nothing may rest on that.)
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from vault_world import MemoryBackend, World

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.vault import packs as packs_module
from caso_mesh.vault.names import FORMAT

FILES = {b"srv/f%02d" % number: blake3(b"%d" % number).digest(3000) for number in range(30)}


#: Names in a folder, each with its inode and whether it is a folder.
Names = dict[str, tuple[int, bool]]


class Disk:
    """What would be left of the folder ``root`` if the power failed now."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root.stat().st_ino
        self._names: dict[int, Names] = {}
        self._data: dict[int, bytes] = {}
        self._lock = threading.Lock()
        #: What would be left after each sync, and which objects had been acknowledged before it began.
        self.moments: list[tuple[dict[str, bytes], set[str]]] = []
        self.acknowledged: set[str] = set()
        for folder, _, _ in os.walk(root):
            self._names[os.stat(folder).st_ino] = _names(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        for path in root.rglob("*"):
            if path.is_file():
                self._data[path.stat().st_ino] = path.read_bytes()
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._synced(getattr(os, name)))

    def _synced(self, real):
        def sync(fd: int) -> None:
            with self._lock:  # one at a time: each is a moment
                status = os.fstat(fd)
                acknowledged = set(self.acknowledged)
                if stat.S_ISDIR(status.st_mode):
                    names = _names(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY))
                    real(fd)
                    self._names[status.st_ino] = names
                elif stat.S_ISREG(status.st_mode):
                    content = Path(f"/proc/self/fd/{fd}").read_bytes()
                    real(fd)
                    self._data[status.st_ino] = content
                self.moments.append((dict(self._left(self._root, "")), acknowledged))

        return sync

    def _left(self, inode: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, (child, is_folder) in self._names.get(inode, {}).items():
            if name.startswith("."):
                continue
            if is_folder:
                yield from self._left(child, f"{prefix}{name}/")
            else:
                yield f"{prefix}{name}", self._data.get(child, b"")


def _names(folder: int) -> Names:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries}
    finally:
        os.close(folder)


class Acknowledging(FolderBackend):
    """Notes what it has promised to be durable."""

    disk: Disk | None = None

    def put(self, name, parts) -> None:
        super().put(name, parts)
        if self.disk is not None:
            self.disk.acknowledged.add(name)


@pytest.fixture
def place(tmp_path: Path) -> tuple[World, Path]:
    """A world whose vault lies in a folder as well."""
    world = World()
    root = tmp_path / "device"
    root.mkdir()
    backend = FolderBackend(str(root), "disk", marker=None)
    for name, content in world.backend.objects.items():
        backend.put(name, [content])
    backend.close()
    return world, root


def test_after_a_power_cut_at_any_sync_what_was_acknowledged_is_there_and_all_that_is_there_is_whole(
    place: tuple[World, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs_module, "DATA_PACK_SIZE", 20_000)
    world, root = place
    backend = Acknowledging(str(root), "disk", marker=FORMAT)
    disk = backend.disk = Disk(root, monkeypatch)
    written: dict[str, bytes] = {}
    try:
        vault = world.vault(backend=backend)
        with world.session(vault, "one") as session:
            backup_set = world.backup(vault, session, "set-one", FILES)
        written = {name: backend.get(name) for name, _ in backend.list("")}
    finally:
        backend.close()
        monkeypatch.undo()
    assert len(disk.moments) > 30
    published = 0
    for left, acknowledged in disk.moments:
        assert acknowledged <= left.keys(), "what was acknowledged is there"
        for name, content in left.items():
            assert content == written.get(name, content), f"{name} is there, and not whole"
        published += _goes_on(world, left, backup_set.id)
    assert 0 < published < len(disk.moments)


def _goes_on(world: World, left: dict[str, bytes], set_id: str) -> int:
    """A set that is there is whole, and the next session completes; how many sets there were."""
    backend = MemoryBackend(dict(left))
    vault = world.vault(backend=backend)
    found = list(vault.sets())
    assert {each.id for each in found} <= {set_id}
    for each in found:
        assert vault.verify_set(each) == []
    dead = [record.session for record in vault.open_sessions("walpha")]
    with world.session(vault, "two") as session:
        session.adopt(dead)
        again = world.backup(vault, session, "set-two", FILES)
        for each in dead:
            vault.end_session("walpha", each, world.alpha.signer)
    fresh = world.vault(backend=backend)
    assert world.restore(fresh, again) == FILES
    assert fresh.verify_set(again) == []
    assert fresh.problems() == []
    return len(found)


@pytest.mark.parametrize("broken", ["data after the name", "no folder"])
def test_the_simulated_disk_catches_what_is_made_durable_in_the_wrong_order(
    place: tuple[World, Path], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    _, root = place
    backend = Acknowledging(str(root), "disk", marker=FORMAT)
    disk = backend.disk = Disk(root, monkeypatch)
    if broken == "data after the name":
        monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    else:
        synced = os.fsync
        monkeypatch.setattr(os, "fsync", lambda fd: None if stat.S_ISDIR(os.fstat(fd).st_mode) else synced(fd))
    try:
        for number in range(3):
            backend.put(f"packs/d/aa/{number}", [b"content"])
    finally:
        backend.close()
        monkeypatch.undo()
    whole = all(
        acknowledged <= left.keys() and all(left[name] == b"content" for name in acknowledged)
        for left, acknowledged in disk.moments[1:]
    )
    assert not whole
