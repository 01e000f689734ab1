"""Devices under real faults: full, read-only, unmounted, failing disks, killed writers, races between processes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from caso_mesh.devices import folder
from caso_mesh.devices.checks import check_folder, mount_of
from caso_mesh.devices.folder import TEMPORARY, FolderBackend
from caso_mesh.model.errors import (
    CasoError,
    DeviceError,
    DeviceFull,
    DevicePathInvalid,
    DeviceReadOnly,
    DeviceVanished,
    ObjectExists,
)

SIZE = 20 * 1024 * 1024
Mounter = Callable[..., pathlib.Path]


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"


def can_mount() -> str | None:
    """Why mounting is not possible here; None if it is."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which("mount") is None or shutil.which("mkfs.ext4") is None:
        return "mounting needs util-linux and e2fsprogs"
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return f"mounting is not allowed here: {done.stderr.strip()}" if done.returncode else None


@pytest.fixture
def mount(tmp_path: pathlib.Path) -> Iterator[Mounter]:
    """Mounts a small file system: mount(kind, name), kind "ext4" (a loop device) or "tmpfs"."""
    reason = can_mount()
    if reason:
        pytest.skip(reason)
    points: list[pathlib.Path] = []

    def make(kind: str, name: str, *, size: int = SIZE, image_in: pathlib.Path = tmp_path) -> pathlib.Path:
        point = tmp_path / name
        point.mkdir(exist_ok=True)
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(point))
        else:
            image = image_in / f"{name}.img"
            with open(image, "wb") as file:
                file.truncate(size)
            run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image))
            run("mount", "-o", "loop", str(image), str(point))
        points.append(point)
        return point

    yield make
    for point in reversed(points):
        # A test may have unmounted it already.
        subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False)


def fill(device: FolderBackend, prefix: str, size: int, known: dict[str, bytes]) -> None:
    """Puts objects of ``size`` until the device is full."""
    seed = random.Random(size)
    while True:
        name, content = f"{prefix}/{len(known)}", seed.randbytes(size)
        try:
            device.put(name, [content])
        except DeviceFull:
            return
        known[name] = content


def assert_holds_exactly(device: FolderBackend, known: dict[str, bytes]) -> None:
    assert {name: device.get(name) for name, _ in device.list("")} == known


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_full_device_refuses_keeps_all_it_had_and_still_deletes_and_reclaims(mount, kind):
    device = FolderBackend(str(mount(kind, "d")), "d", marker=None)
    known: dict[str, bytes] = {}
    for size in (64 * 1024, 1024, 1):
        fill(device, "packs", size, known)
    free, total = device.space()
    assert total * 0.02 <= free < total * 0.02 + 2 * 64 * 1024
    device.put("marks/o/1", [bytes(1000)])
    device.put("sweeps/o/1", [bytes(1000)])
    known |= {"marks/o/1": bytes(1000), "sweeps/o/1": bytes(1000)}
    assert_holds_exactly(device, known)
    for size in (64 * 1024, 1024, 1):
        fill(device, "holds", size, known)
    assert_holds_exactly(device, known)
    assert os.listdir(pathlib.Path(device.path) / TEMPORARY) == []
    for name in [name for name in known if name.startswith("packs/")][:40]:
        device.delete(name)
        del known[name]
    device.put("packs/new", [b"room again"])
    known["packs/new"] = b"room again"
    assert_holds_exactly(device, known)
    device.close()


def test_a_device_filled_by_somebody_else_is_full_not_broken(mount):
    point = mount("tmpfs", "d")
    device = FolderBackend(str(point), "d", marker=None)
    device.put("packs/1", [bytes(100_000)])
    with contextlib.suppress(OSError), open(point / "some film", "wb", buffering=0) as film:
        while True:
            film.write(bytes(4096))
    for name in ("packs/2", "holds/2"):
        with pytest.raises(DeviceFull):
            device.put(name, [bytes(100_000)])
    assert list(device.list("")) == [("packs/1", 100_000)]
    device.delete("packs/1")
    device.close()


def test_a_read_only_device_says_so_and_can_be_read(mount):
    point = mount("ext4", "d")
    device = FolderBackend(str(point), "d", marker=None)
    device.put("format", [b"header"])
    run("mount", "-o", "remount,ro", str(point))
    for call in (
        lambda: device.put("sets/a", [b"x"]),
        lambda: device.put("b", [b"x"]),
        lambda: device.delete("format"),
    ):
        with pytest.raises(DeviceReadOnly):
            call()
    assert device.get("format") == b"header"
    with pytest.raises(DevicePathInvalid):
        check_folder(str(point))
    run("mount", "-o", "remount,rw", str(point))
    device.put("sets/a", [b"x"])
    device.close()


def test_an_unmounted_device_is_vanished_and_nothing_is_written_below_the_mount_point(mount):
    point = mount("ext4", "d")
    assert (mount_of(str(point)).point, mount_of(str(point)).fs_type) == (str(point), "ext4")
    maker = FolderBackend(str(point), "d", marker=None)
    maker.put("format", [b"header"])
    maker.close()
    device = FolderBackend(str(point), "d", marker="format")
    run("umount", "-l", str(point))
    for call in (
        lambda: device.put("a", [b"x"]),
        lambda: list(device.list("")),
        lambda: device.get("a"),
        lambda: device.delete("format"),
        device.space,
    ):
        with pytest.raises(DeviceVanished):
            call()
    device.close()
    with pytest.raises(DeviceVanished):
        FolderBackend(str(point), "d", marker="format")
    assert list(point.iterdir()) == []


@pytest.mark.parametrize("step", ["write_large", "move_into_place"])
def test_a_device_that_goes_between_the_look_and_the_write_has_acknowledged_nothing(mount, monkeypatch, step):
    """The folder is a handle: what is written goes to the disk that was there, never below the mount point."""
    point = mount("ext4", "d")
    device = FolderBackend(str(point), "d", marker=None)
    device.put("format", [b"header"])
    device.close()
    device, real = FolderBackend(str(point), "d", marker="format"), getattr(folder, step)

    def unmounting(*given):
        run("umount", "-l", str(point))
        return real(*given)

    monkeypatch.setattr(folder, step, unmounting)
    with pytest.raises(DeviceVanished):
        device.put("packs/a", [b"x" * 10_000])
    device.close()
    assert list(point.iterdir()) == []


def test_a_device_that_is_emptied_between_the_look_and_the_write_has_acknowledged_nothing(tmp_path, monkeypatch):
    device = FolderBackend(str(tmp_path), "d", marker=None)
    device.put("format", [b"header"])
    device.close()
    device, real = FolderBackend(str(tmp_path), "d", marker="format"), folder.move_into_place

    def emptying(*given):
        (tmp_path / "format").unlink()
        return real(*given)

    monkeypatch.setattr(folder, "move_into_place", emptying)
    with pytest.raises(DeviceVanished):
        device.put("sets/a", [b"x"])
    device.close()


def test_a_file_system_mounted_over_a_device_is_not_taken_for_it(mount):
    point = mount("tmpfs", "d")
    device = FolderBackend(str(point), "d", marker=None)
    device.put("format", [b"header"])
    mount("tmpfs", "d")
    with pytest.raises(DeviceVanished):
        device.put("a", [b"x"])
    assert list(point.iterdir()) == []
    device.close()


def test_a_disk_that_fails_to_write_leaves_no_object_that_is_not_durable(mount):
    """The file system believes in 64 MB, its disk (an image on a tmpfs of 8 MB) takes no more: writing back fails."""
    small = mount("tmpfs", "small", size=8 * 1024 * 1024)
    device = FolderBackend(str(mount("ext4", "d", size=64 * 1024 * 1024, image_in=small)), "d", marker=None)
    written: dict[str, bytes] = {}
    with pytest.raises(DeviceError) as caught:
        for number in range(64):
            content = random.Random(number).randbytes(1024 * 1024)
            device.put(f"packs/{number}", [content])
            written[f"packs/{number}"] = content
    assert not isinstance(caught.value, DeviceVanished)
    assert f"packs/{len(written)}" not in dict(device.list("packs/"))
    for name, content in written.items():
        assert device.get(name) == content
    device.close()


def test_a_disk_that_fails_to_read_is_an_error_not_a_missing_or_short_object(mount, tmp_path):
    point = mount("ext4", "d")
    writer = FolderBackend(str(point), "d", marker=None)
    writer.put("packs/1", [random.Random(1).randbytes(8 * 1024 * 1024)])
    writer.close()
    run("umount", str(point))
    run("mount", "-o", "loop", str(tmp_path / "d.img"), str(point))
    device = FolderBackend(str(point), "d", marker=None)
    assert device.size("packs/1") == 8 * 1024 * 1024
    os.truncate(tmp_path / "d.img", 1024 * 1024)
    with pytest.raises(DeviceError) as caught:
        device.get("packs/1")
    assert caught.value.code == "device-error"
    device.close()


@pytest.mark.parametrize("call", ["writev", "fdatasync", "fsync"])
def test_a_failing_system_call_is_an_error_and_cleans_up(tmp_path, monkeypatch, call):
    device = FolderBackend(str(tmp_path), "d", marker=None)
    device.put("sets/0", [b"x"])

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        with pytest.raises(DeviceError):
            device.put("sets/1", [b"x"])
    assert os.listdir(tmp_path / TEMPORARY) == []
    if call != "fsync":
        assert list(device.list("sets/")) == [("sets/0", 1)]
        device.put("sets/1", [b"x"])
    device.close()


def test_short_writes_are_continued_and_a_write_that_takes_nothing_is_an_error(tmp_path, monkeypatch):
    device = FolderBackend(str(tmp_path), "d", marker=None)
    parts = [b"abc", b"", b"defghij", b"k" * 1000]
    real = os.writev
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", lambda fd, views: real(fd, [bytes(memoryview(views[0])[:2])]))
        device.put("a", parts)
        patch.setattr(os, "writev", lambda fd, views: 0)
        with pytest.raises(DeviceError):
            device.put("b", parts)
    assert device.get("a") == b"".join(parts)
    assert [name for name, _ in device.list("")] == ["a"]
    device.close()


def test_short_reads_are_continued_past_the_page_cache_as_well(tmp_path, monkeypatch):
    """A direct read that came back short before the place where the object's bytes begin was taken for its end."""
    content = random.Random(1).randbytes(3 << 20)
    device = FolderBackend(str(tmp_path), "disk", marker=None)
    device.put("packs/d/aa/large", [content])
    preadv, pread = os.preadv, os.pread
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: preadv(fd, [parts[0][: max(1, len(parts[0]) // 2)]], at))
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, max(1, size // 2), at))
    for offset, length in ((0, None), (3000, 1 << 20), (5000, (1 << 20) + 7), (4095, 700_001), (3 << 20, 10)):
        end = len(content) if length is None else offset + length
        assert device.get("packs/d/aa/large", offset, length) == content[offset:end]
    device.close()


def test_a_file_system_without_rename_noreplace_still_adds_once(tmp_path, monkeypatch):
    monkeypatch.setattr("caso_mesh.devices.durable._RENAMEAT2", None)
    device = FolderBackend(str(tmp_path), "d", marker=None)
    race_threads(device, 8)
    assert os.stat(tmp_path / "races" / "one").st_nlink == 1
    assert os.listdir(tmp_path / TEMPORARY) == []
    device.close()


def race_threads(device: FolderBackend, count: int) -> None:
    start, won = threading.Barrier(count), []

    def race(number: int) -> None:
        start.wait()
        with contextlib.suppress(ObjectExists):
            device.put("races/one", [b"%04d" % number * 10_000])
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert device.get("races/one") == b"%04d" % won[0] * 10_000


RACER = """
import sys, threading
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.model.errors import ObjectExists
path, who = sys.argv[1:]
device = FolderBackend(path, "d", marker=None)
won, names = [], [f"races/{number}" for number in range(20)]
print("ready", flush=True)
sys.stdin.readline()
def race(thread):
    for name in names:
        try:
            device.put(name, [f"{who}{thread}".encode() * 5000])
            won.append(name)
        except ObjectExists:
            pass
threads = [threading.Thread(target=race, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(" ".join(won), flush=True)
device.close()
"""


def test_of_eight_threads_in_two_processes_exactly_one_adds_each_name(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), who],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in "ab"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    won: list[str] = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        out, _ = racer.communicate(timeout=60)
        assert racer.returncode == 0
        won += out.split()
    names = [f"races/{number}" for number in range(20)]
    assert sorted(won) == sorted(names)
    device = FolderBackend(str(tmp_path), "d", marker=None)
    for name in names:
        content = device.get(name)
        assert content == content[:2] * 5000
    assert os.listdir(tmp_path / TEMPORARY) == []
    device.close()


WRITER = """
import sys, threading
from caso_mesh.devices.folder import FolderBackend
device = FolderBackend(sys.argv[1], "d", marker=None)
lock = threading.Lock()
def work(thread):
    number = 0
    while True:
        name = f"packs/d/{sys.argv[2]}{thread}/{number}"
        device.put(name, [name.encode().ljust(64) * 2000] * 3)
        with lock:
            print(name, flush=True)
        number += 1
for n in range(3): threading.Thread(target=work, args=(n,)).start()
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_objects_and_all_it_acknowledged(tmp_path):
    seed = random.Random(7)
    acknowledged: set[str] = set()
    for kill in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), chr(ord("a") + kill)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            # Killed after a random number of acknowledged objects, then a random moment later.
            for _ in range(seed.randrange(1, 12)):
                acknowledged.add(writer.stdout.readline().strip())
            with contextlib.suppress(subprocess.TimeoutExpired):
                writer.wait(timeout=seed.random() * 0.01)
            writer.send_signal(signal.SIGKILL)
            acknowledged |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    device = FolderBackend(str(tmp_path), "d", marker=None)
    found = dict(device.list(""))
    assert acknowledged <= found.keys()
    assert len(found) >= 20
    for name in found:
        assert device.get(name) == name.encode().ljust(64) * 6000
    left = device.sweep_temporary(1 << 62)
    assert os.listdir(tmp_path / TEMPORARY) == []
    assert {name for name, _ in left}.isdisjoint(found)
    device.close()


def test_errors_name_the_device(tmp_path):
    with pytest.raises(CasoError) as caught:
        FolderBackend(str(tmp_path / "none"), "cellar", marker=None)
    assert caught.value.fields["device"] == "cellar"
