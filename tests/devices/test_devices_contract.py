"""The contract of devices, for the folder and for the one in memory, and what is special to each."""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
import pickle
import random
import tempfile

import pytest
from device_conformance import check_backend

from caso_mesh.devices.folder import TEMPORARY, FolderBackend
from caso_mesh.devices.memory import MemoryBackend
from caso_mesh.model.errors import DeviceError, DeviceFull, DeviceVanished, ObjectExists, ObjectMissing


def open_folder(path: pathlib.Path, marker: str | None = None) -> FolderBackend:
    return FolderBackend(str(path), "disk1", marker=marker)


def test_a_folder_keeps_the_contract_of_devices(tmp_path):
    check_backend(lambda: open_folder(tmp_path))
    assert os.listdir(tmp_path / TEMPORARY) == []


def test_memory_keeps_the_contract_of_devices():
    shared: dict[str, bytes] = {}
    check_backend(lambda: MemoryBackend(shared))


def test_foreign_files_are_not_listed_and_not_objects(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".snapshot").mkdir()
    (tmp_path / ".snapshot" / "x").write_bytes(b"x")
    (tmp_path / "my photo.jpg").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "out").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    device = open_folder(tmp_path)
    device.put("a", [b"1"])
    assert list(device.list("")) == [("a", 1)]
    with pytest.raises(ObjectMissing):
        device.get("pipe")
    for name in ("link", "out/passwd"):
        with pytest.raises(DeviceError):
            device.get(name)
    with pytest.raises(DeviceError):
        device.put("out/new", [b"x"])
    with pytest.raises(ObjectMissing):
        device.delete("link")
    device.close()
    assert (tmp_path / "link").is_symlink()


def test_a_missing_folder_is_vanished_and_not_made(tmp_path):
    with pytest.raises(DeviceVanished):
        open_folder(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_a_folder_without_its_marker_is_vanished_not_empty(tmp_path):
    with pytest.raises(DeviceVanished):
        open_folder(tmp_path, "format")
    maker = open_folder(tmp_path)
    maker.put("format", [b"header"])
    maker.close()
    device = open_folder(tmp_path, "format")
    device.put("sets/a", [b"1"])
    os.unlink(tmp_path / "format")
    with pytest.raises(DeviceVanished):
        device.put("sets/b", [b"2"])
    with pytest.raises(DeviceVanished):
        list(device.list("sets/"))
    with pytest.raises(DeviceVanished):
        device.get("sets/b")
    device.close()


def test_a_deleted_folder_is_vanished(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    device = open_folder(folder)
    os.rmdir(folder)
    for call in (lambda: device.put("a", [b"x"]), lambda: list(device.list("")), lambda: device.get("a"), device.space):
        with pytest.raises(DeviceVanished):
            call()
    device.close()


def test_a_folder_replaced_by_another_is_vanished_and_the_new_one_stays_empty(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    device = open_folder(folder)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    with pytest.raises(DeviceVanished):
        device.put("a", [b"x"])
    device.close()
    assert list(folder.iterdir()) == []


def test_a_listing_cut_short_by_a_vanished_folder_does_not_end_normally(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    device = open_folder(folder)
    for name in ("a/1", "b/1", "c/1"):
        device.put(name, [b"x"])
    listing = device.list("")
    assert next(listing) == ("a/1", 1)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(DeviceVanished):
        list(listing)
    device.close()


def test_only_old_temporary_files_of_others_are_swept(tmp_path):
    device = open_folder(tmp_path)
    assert device.sweep_temporary(10**18) == []
    device.put("a", [b"x"])
    folder = tmp_path / TEMPORARY
    (folder / "dead-1-1").write_bytes(b"12345")
    (folder / "alive-1-1").write_bytes(b"1")
    (folder / f"{device._token}-1-77").write_bytes(b"1")
    day = 86_400_000_000_000
    now = 3 * day
    os.utime(folder / "dead-1-1", ns=(now - day - 1, now - day - 1))
    os.utime(folder / "alive-1-1", ns=(now - day + 1, now - day + 1))
    os.utime(folder / f"{device._token}-1-77", ns=(0, 0))
    assert device.sweep_temporary(now, remove=False) == [("dead-1-1", 5)]
    assert (folder / "dead-1-1").exists()
    assert device.sweep_temporary(now) == [("dead-1-1", 5)]
    assert sorted(os.listdir(folder)) == sorted(["alive-1-1", f"{device._token}-1-77"])
    assert list(device.list("")) == [("a", 1)]
    device.close()


def test_folders_removed_by_somebody_are_made_again(tmp_path):
    device = open_folder(tmp_path)
    device.put("sets/w/a", [b"x"])
    device.delete("sets/w/a")
    os.rmdir(tmp_path / "sets" / "w")
    os.rmdir(tmp_path / "sets")
    os.rmdir(tmp_path / TEMPORARY)
    device.put("sets/w/b", [b"y"])
    assert device.get("sets/w/b") == b"y"
    device.close()


def test_memory_fails_on_demand_after_a_number_of_calls_and_heals():
    device = MemoryBackend()
    device.fail("packs/*", DeviceError(device="m", detail="broken"), after=2, operation="put")
    device.put("packs/1", [b"1"])
    device.put("packs/2", [b"2"])
    device.put("sets/1", [b"1"])
    for _ in range(2):
        with pytest.raises(DeviceError):
            device.put("packs/3", [b"3"])
    assert device.get("packs/1") == b"1"
    device.heal()
    device.put("packs/3", [b"3"])
    device.fail("*", DeviceVanished(device="m", detail="gone"), times=1)
    with pytest.raises(DeviceVanished):
        list(device.list(""))
    assert len(list(device.list(""))) == 4


def test_memory_keeps_a_reserve_for_holds_marks_sweeps_and_sessions():
    device = MemoryBackend(capacity=10_000)
    with pytest.raises(DeviceFull):
        device.put("packs/1", [bytes(9_801)])
    device.put("packs/1", [bytes(9_800)])
    with pytest.raises(DeviceFull):
        device.put("packs/2", [b"1"])
    for name in ("holds/1", "marks/1", "sweeps/1", "sessions/1"):
        device.put(name, [bytes(50)])
    with pytest.raises(DeviceFull):
        device.put("holds/2", [b"1"])
    assert device.space() == (0, 10_000)


def test_errors_of_devices_cross_process_borders():
    error = pickle.loads(pickle.dumps(ObjectExists(name="a")))
    assert isinstance(error, ObjectExists)
    assert error.fields == {"name": "a"}


def pages(size: int, content: bytes) -> mmap.mmap:
    """Memory that begins at a page, as packs are made in."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[: len(content)] = content
    return memory


def is_cached(path: pathlib.Path) -> int:
    """How many pages of a file the page cache holds."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        found = (ctypes.c_ubyte * (len(memory) // mmap.PAGESIZE + 1))()
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(memory))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), found) == 0
        return sum(page & 1 for page in found)


@pytest.mark.parametrize("place", ["disk", "/dev/shm"])
@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, (20 << 20) + 4097])
def test_large_objects_come_back_wherever_they_lie_in_memory(tmp_path, place, size):
    """They pass by the page cache where that can be: whole pages only, and not on every file system."""
    content = random.Random(size).randbytes(size)
    with tempfile.TemporaryDirectory(dir=tmp_path if place == "disk" else place) as folder:
        device = open_folder(pathlib.Path(folder))
        aligned = pages(size + mmap.PAGESIZE, content)
        device.put("aligned", [memoryview(aligned)[:size], b"the", memoryview(b" end")])
        device.put("shifted", [memoryview(bytearray(b"x" + content))[1:], b"the end"])
        device.put("bytes", [content, bytearray(b"the end")])
        whole = content + b"the end"
        for name in ("aligned", "shifted", "bytes"):
            assert device.size(name) == len(whole)
            assert device.get(name) == whole
            for offset in (0, 1, 4095, 4096, 65_537, size - 5, size + 100):
                assert device.get(name, offset) == whole[offset:]
            for offset, length in ((3, 1 << 20), (4096, 1 << 20), (9, (1 << 20) + 4090), (0, 100 << 20)):
                assert device.get(name, offset, length) == whole[offset : offset + length]
        device.close()


def test_a_large_object_leaves_the_page_cache_alone(tmp_path):
    probe = tmp_path / "probe"
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip("this file system always uses the page cache")
    device = open_folder(tmp_path)
    size = 8 << 20
    device.put("packs/large", [memoryview(pages(size, b"begin")), b"tail"])
    assert is_cached(tmp_path / "packs" / "large") <= 64
    assert device.get("packs/large", 0, size)[:5] == b"begin"
    assert is_cached(tmp_path / "packs" / "large") <= 64
    device.close()
