"""Devices that break under running backups: full ones are in ``tests/long``. The backup fails and says why, nothing written
before is lost, nothing is written elsewhere, and with the device back all goes on."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import subprocess

from mesh.mounts import MEBIBYTE, run
from mesh.process import Frozen, ProcessMesh
from mesh.trees import assert_equal, make_large_tree, make_tree
from waiting import wait_for

SIZE = 400 * MEBIBYTE


def with_device(mesh: ProcessMesh, disk: pathlib.Path, *, server: str = "alpha", name: str = "disk") -> None:
    mesh.ok("alpha", "device", "add", name, "--server", server, "--path", str(disk))


def backup(mesh: ProcessMesh, tree: pathlib.Path, *more: str) -> dict:
    return dict(mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", *more, "--wait"))


def fails(mesh: ProcessMesh, tree: pathlib.Path, code: str, begun=None) -> dict:
    """The backup fails for that reason, makes no set and raises an alert."""
    begun = begun or mesh.begin("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")
    answer = begun.end()
    assert answer.status, str(answer)
    assert answer.document["state"] == "failed", str(answer)
    assert answer.document["error"]["code"] == code, str(answer)
    assert answer.document["set"] is None
    assert mesh.told("job-failed", code)
    return dict(answer.document)


def comes_back(mesh: ProcessMesh, made: dict, tree: pathlib.Path) -> None:
    back = mesh.folder / f"back-{made['set']}"
    assert mesh.ok("alpha", "verify", made["set"], "--wait")["state"] == "succeeded"
    done = mesh.ok("alpha", "restore", made["set"], "--to", f"alpha:{back}", "--strip", "--wait")
    assert (done["state"], done["exceptions"]) == ("succeeded", [])
    assert_equal(tree, back)


def test_a_device_that_is_unmounted_in_the_middle_of_a_backup_fails_it_and_nothing_is_written_below(
    mount, process_mesh, tmp_path
):
    disk = mount("ext4", tmp_path / "disk", size=SIZE)
    small, large = make_tree(tmp_path / "small", files=30), make_large_tree(tmp_path / "large")
    mesh = process_mesh(1)
    with_device(mesh, disk)
    first = backup(mesh, small)
    begun = mesh.begin("alpha", "backup", f"alpha:{large}", "--to", "device:disk", "--wait")
    with mesh.freeze("alpha", disk):
        run("umount", "-l", str(disk))
    fails(mesh, large, "device-vanished", begun)
    assert list(disk.iterdir()) == []
    mount("ext4", disk)
    wait_for(lambda: backup(mesh, large)["state"] == "succeeded", 60.0, what="it goes on", every_s=1.0)
    comes_back(mesh, first, small)


def turned_read_only(mesh: ProcessMesh, disk: pathlib.Path, frozen: Frozen) -> bool:
    """Whether that was possible before the backup was over."""
    while subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, check=False).returncode:
        if not mesh.workers("alpha"):
            return False
        frozen.thaw()  # a file is just being written: the kernel refuses
        for pid in frozen.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    return True


def test_a_device_that_turns_read_only_in_the_middle_of_a_backup_fails_it_and_can_still_be_read(
    mount, process_mesh, tmp_path
):
    disk = mount("ext4", tmp_path / "disk", size=SIZE)
    small = make_tree(tmp_path / "small", files=30)
    mesh = process_mesh(1)
    with_device(mesh, disk)
    first = backup(mesh, small)
    for number in range(3):
        large = make_large_tree(tmp_path / f"large-{number}", megabytes=100, seed=number)
        begun = mesh.begin("alpha", "backup", f"alpha:{large}", "--to", "device:disk", "--wait")
        with mesh.freeze("alpha", disk) as frozen:
            if turned_read_only(mesh, disk, frozen):
                break
        assert begun.end().status == 0
    else:
        raise AssertionError("each backup has ended before there was a moment without an open file")
    fails(mesh, large, "device-read-only", begun)
    comes_back(mesh, first, small)
    run("mount", "-o", "remount,rw", str(disk))
    second = backup(mesh, large)
    assert second["state"] == "succeeded", second
    comes_back(mesh, second, large)


def flip(path: pathlib.Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content) // 4, len(content) // 2)] ^= 0x10
    path.chmod(0o600)
    path.write_bytes(content)


def test_garbage_in_a_vault_costs_the_files_it_hits_and_nothing_else(process_mesh, tmp_path):
    rng = random.Random(3)
    one, two = make_large_tree(tmp_path / "one", megabytes=60, seed=7), make_tree(tmp_path / "two", files=100)
    mesh = process_mesh(1)
    disk = tmp_path / "disk"
    disk.mkdir()
    with_device(mesh, disk)
    first = backup(mesh, one)
    packs = sorted(disk.glob("packs/d/*/*"), key=lambda path: path.stat().st_size)
    second = backup(mesh, two)
    flip(packs[-1], rng)
    os.truncate(packs[-2], packs[-2].stat().st_size // 2)

    found = mesh.cli("alpha", "verify", first["set"], "--wait").document
    assert found["state"] == "failed", found
    back = mesh.folder / "back"
    done = mesh.cli("alpha", "restore", first["set"], "--to", f"alpha:{back}", "--strip", "--wait").document
    assert done["state"] == "succeeded-with-exceptions", done
    lost = {pathlib.Path(row["path"]).name for row in done["exceptions"]}
    # an empty path stands for what no file can be named for, as the pack itself
    assert {pathlib.Path(row["path"]).name for row in found["exceptions"]} - {""} == lost
    for path in one.iterdir():
        there = back / path.name
        assert (path.name in lost) != (there.exists() and there.read_bytes() == path.read_bytes()), path.name
    assert 0 < len(lost) < len(list(one.iterdir()))
    comes_back(mesh, second, two)

    # it was found, so it is not reused: the next backup makes the old set whole as well
    third = backup(mesh, one)
    assert third["bytes_stored"] > MEBIBYTE, third
    comes_back(mesh, third, one)
    comes_back(mesh, first, one)


def test_a_damaged_set_object_costs_its_own_set_at_most(process_mesh, tmp_path):
    rng = random.Random(4)
    one, two = make_tree(tmp_path / "one", files=100), make_tree(tmp_path / "two", files=100, seed=2)
    mesh = process_mesh(1)
    disk = tmp_path / "disk"
    disk.mkdir()
    with_device(mesh, disk)
    first = backup(mesh, one)
    of_first = set(disk.glob("sets/*/*"))
    second = backup(mesh, two)
    flip(of_first.pop(), rng)
    gone = mesh.cli("alpha", "restore", first["set"], "--to", f"alpha:{mesh.folder / 'none'}", "--wait").document
    assert gone["state"] == "failed", gone
    assert gone["error"]["code"] == "data-damaged", gone
    comes_back(mesh, second, two)
    third = backup(mesh, one)
    comes_back(mesh, third, one)


def test_foreign_files_in_the_folder_of_a_vault_are_in_nobodys_way(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=100)
    mesh = process_mesh(1)
    disk = tmp_path / "disk"
    disk.mkdir()
    with_device(mesh, disk)
    first = backup(mesh, tree)
    writer = next(disk.glob("sets/*"))
    for folder in (disk, disk / "packs", disk / "index", disk / "sets", writer, disk / "sessions"):
        (folder / "lost+found").mkdir()
        (folder / "desktop.ini").write_bytes(b"somebody else's")
        (folder / ".DS_Store").write_bytes(b"somebody else's")
        (folder / "a link").symlink_to("/etc")
        os.mkfifo(folder / "fifo")
    comes_back(mesh, first, tree)
    (tree / "new").write_bytes(b"new")
    second = backup(mesh, tree, "--type", "incremental")
    assert (second["state"], second["type"]) == ("succeeded", "incremental"), second
    comes_back(mesh, second, tree)
