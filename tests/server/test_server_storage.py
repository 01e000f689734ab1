"""The devices of a server: real folders, and one that hangs."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from server_world import ids
from waiting import wait_for_async

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.errors import CasoError, DeviceForeign, DevicePathInvalid, DeviceVanished, NoKey, NotAllowedHere
from caso_mesh.model.nodes import DevicePrepare, DeviceProof
from caso_mesh.model.storage import Device, DeviceKind, DevicePath
from caso_mesh.server.storage import Storage
from caso_mesh.vault.keys import add_missing_recipients, load_keys

MESH = "mesh1"


def storage(keys: NodeKeys, tmp_path: Path) -> Storage:
    return Storage(
        node=keys.id, name="alpha", unwrap=keys.unwrap, id_key=lambda: b"k" * 32, new_id=ids(), randomness=os.urandom,
        cache=tmp_path / "cache",
    )  # fmt: skip


def request(path: Path, keys: NodeKeys, *, vault: str = "vault1", mesh: str = MESH, create: bool = True) -> Any:
    return DevicePrepare("disk", str(path), vault, mesh, 7, {keys.id: keys.encryption_key}, create)


def device(path: Path, keys: NodeKeys, vault: str = "vault1", id_: str = "dev") -> Device:
    return Device("disk", id_, DeviceKind.DISK, vault, (DevicePath(keys.id, str(path)),))


def anything(path: str) -> None:
    return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "d").mkdir()
    return tmp_path / "d"


async def test_a_device_is_made_once_and_recognised_afterwards(folder: Path, tmp_path: Path) -> None:
    keys = NodeKeys.create()
    own = storage(keys, tmp_path)
    first = await own.prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    again = await own.prepare(request(folder, keys, vault="other"), tmp_path / "state", MESH, anything)
    assert first.created and not again.created and again.vault == "vault1"
    access = await own.access(device(folder, keys), "w", MESH)
    assert access.content_keys and access.write_key in access.content_keys


async def test_a_vault_whose_making_was_cut_off_before_it_had_a_key_is_finished(folder: Path, tmp_path: Path) -> None:
    """Its folder could never become a device again before."""
    keys = NodeKeys.create()
    own = storage(keys, tmp_path)
    await own.prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    for path in (folder / "keys").rglob("*"):
        path.unlink()
    await own.prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    assert (await own.access(device(folder, keys), "w", MESH)).content_keys


async def test_a_vault_of_this_mesh_whose_key_is_not_ours_says_so_by_name(folder: Path, tmp_path: Path) -> None:
    keys, stranger = NodeKeys.create(), NodeKeys.create()
    await storage(keys, tmp_path).prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    with pytest.raises(NoKey, match="disk"):
        await storage(stranger, tmp_path).prepare(request(folder, stranger), tmp_path / "state", MESH, anything)


async def test_a_folder_with_another_device_of_this_mesh_says_that_it_is_taken(folder: Path, tmp_path: Path) -> None:
    """It said that there was no key for the new device, and proposed to add the server to it."""
    keys, stranger = NodeKeys.create(), NodeKeys.create()
    await storage(keys, tmp_path).prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    taken = request(folder, stranger, vault="other")
    with pytest.raises(DevicePathInvalid, match=r"device of this mesh already.*caso-mesh device move"):
        await storage(stranger, tmp_path).prepare(taken, tmp_path / "state", MESH, anything)


async def test_a_device_whose_key_a_server_lacks_is_reported_until_it_is_handed_one(
    folder: Path, tmp_path: Path
) -> None:
    keys, stranger = NodeKeys.create(), NodeKeys.create()
    await storage(keys, tmp_path).prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    own = storage(stranger, tmp_path)
    assert [each.problem for each in await own.reports([device(folder, stranger)])] == ["no-key"]
    backend = FolderBackend(str(folder), "disk", marker="format")
    try:
        mine = load_keys(backend, keys.id, keys.unwrap, b"k" * 32)
        add_missing_recipients(backend, mine, {stranger.id: stranger.encryption_key})
    finally:
        backend.close()
    assert [each.problem for each in await own.reports([device(folder, stranger)])] == [None]


async def test_folders_that_cannot_be_devices_are_refused(folder: Path, tmp_path: Path) -> None:
    keys = NodeKeys.create()
    own = storage(keys, tmp_path)

    def forbidden(path: str) -> None:
        raise NotAllowedHere(server="alpha", action="write", path=path)

    cases: list[tuple[Any, Any, type[CasoError]]] = [
        (request(folder / "missing", keys), anything, DevicePathInvalid),
        (request(tmp_path / "state", keys), anything, DevicePathInvalid),
        (request(folder, keys, mesh="mesh2"), anything, DeviceForeign),
        (request(folder, keys, create=False), anything, DeviceVanished),
        (request(folder, keys), forbidden, NotAllowedHere),
    ]
    for asked, check, error in cases:
        with pytest.raises(error):
            await own.prepare(asked, tmp_path / "state", MESH, check)
    assert list(folder.iterdir()) == []


async def test_another_vault_at_the_path_or_none_is_a_device_that_vanished(folder: Path, tmp_path: Path) -> None:
    keys = NodeKeys.create()
    own = storage(keys, tmp_path)
    (empty := tmp_path / "empty").mkdir()
    await own.prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    for wrong in (device(folder, keys, vault="vault2"), device(empty, keys), device(tmp_path / "none", keys)):
        with pytest.raises(DeviceVanished):
            await own.access(wrong, "w", MESH)
        (report,) = await own.reports([wrong])
        assert report.problem == "device-vanished"
    (good,) = await own.reports([device(folder, keys)])
    assert good.problem is None and 0 < good.free_bytes <= good.total_bytes


async def test_a_mount_that_hangs_keeps_neither_the_reports_of_others_nor_the_loop_waiting(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All reports waited in one thread before: the heartbeat stopped, and the server counted as silent."""
    keys = NodeKeys.create()
    own = storage(keys, tmp_path)
    await own.prepare(request(folder, keys), tmp_path / "state", MESH, anything)
    release, threads = threading.Event(), []
    real = Storage._report

    def report(self: Storage, each: Device) -> Any:
        if each.id == "hung":
            threads.append(threading.current_thread())
            release.wait(100)
        return real(self, each)

    monkeypatch.setattr(Storage, "_report", report)
    monkeypatch.setattr("caso_mesh.server.storage.REPORTS_S", 0.2)
    both = [device(folder, keys, id_="hung"), device(folder, keys, id_="good")]

    async def answers() -> Any:
        """What is told of the one that hangs beside a good one, but in a moment that is too slow for the good one as well."""
        hung, good = await own.reports(both)
        return hung if good.problem is None else None

    try:
        for _ in range(3):
            hung = await wait_for_async(answers)
            assert hung.problem == "device-vanished" and "does not answer" in hung.detail
        assert len(threads) == 1, "a device that hangs costs one thread, not one for each look"
    finally:
        release.set()
    await asyncio.gather(*own._asked.values())
    assert [r.problem for r in await own.reports(both)] == [None, None]


async def test_a_shared_folder_is_proved_in_three_steps(folder: Path, tmp_path: Path) -> None:
    keys = NodeKeys.create()
    own = storage(keys, tmp_path)
    await own.proof(DeviceProof(str(folder), "write", b"nonce"), anything)
    assert (await own.proof(DeviceProof(str(folder), "read"), anything)).nonces == {keys.id: b"nonce"}
    await own.proof(DeviceProof(str(folder), "remove"), anything)
    assert (await own.proof(DeviceProof(str(folder), "read"), anything)).nonces == {}
    with pytest.raises(CasoError):
        await own.proof(DeviceProof(str(folder), "write", b""), anything)
