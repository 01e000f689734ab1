"""What a server does for recovery kits at its own devices, and for whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec import structs
from server_world import orders

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.kit import new_keys
from caso_mesh.identity.roster import Peer
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import DataDamaged, DeviceVanished, InvalidValue, NoKey, NotFound, Refused
from caso_mesh.model.storage import Device, DeviceKind, DevicePath
from caso_mesh.sealing.wrapping import unwrap
from caso_mesh.server.kits import KitCalls
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import create_vault
from caso_mesh.vault.keys import create_content_key, load_keys
from caso_mesh.vault.mesh_copies import copy_names, seal_copy

ID_KEY = b"k" * 32
ADMIN, OTHER = Peer("admin", "alpha", "node"), Peer("other", "beta", "node")


class Place:
    """A server with one device."""

    def __init__(self, folder: Path, *, key_for: NodeKeys | None = None) -> None:
        self.keys, self.folder = NodeKeys.create(), folder
        folder.mkdir()
        backend = FolderBackend(str(folder), "disk", marker=None)
        create_vault(backend, vault="vault1", mesh="mesh1", chunker=ChunkerParameters(seed=7))
        owner = key_for or self.keys
        create_content_key(backend, {owner.id: owner.encryption_key}, key_id="k1", randomness=os.urandom, id_key=ID_KEY)
        backend.close()
        self.device = Device("disk", "dev", DeviceKind.DISK, "vault1", (DevicePath(self.keys.id, str(folder)),))
        self.calls = KitCalls(
            node=self.keys.id,
            name="beta",
            orders=lambda: structs.replace(orders(), devices=(self.device,)),
            is_admin=lambda id_: id_ == "admin",
            unwrap=self.keys.unwrap,
            id_key=lambda: ID_KEY,
            randomness=os.urandom,
        )

    def opened(self) -> FolderBackend:
        return FolderBackend(str(self.folder), "disk", marker="format")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "disk")


async def test_content_keys_are_wrapped_to_a_kit_once(place: Place) -> None:
    kit = new_keys()
    request = n.DeviceGrant("dev", {"kit1": kit.public_key})
    assert (await place.calls.grant(ADMIN, request, None)).added == 1
    assert (await place.calls.grant(ADMIN, request, None)).added == 0
    backend = place.opened()
    try:
        mine = load_keys(backend, place.keys.id, place.keys.unwrap, ID_KEY)
        theirs = load_keys(backend, "kit1", lambda wrapped, aad: unwrap(wrapped, kit.private_key, aad=aad), ID_KEY)
    finally:
        backend.close()
    assert theirs.content_keys == mine.content_keys


async def test_a_copy_of_the_mesh_is_laid_down_and_noise_is_not(place: Place) -> None:
    sealed = seal_copy(b"content", {"kit1": new_keys().public_key}, mesh="mesh1", randomness=os.urandom)
    await place.calls.keep(ADMIN, n.MeshKeep("dev", sealed), None)
    with pytest.raises(DataDamaged):
        await place.calls.keep(ADMIN, n.MeshKeep("dev", b"noise"), None)
    backend = place.opened()
    try:
        (name,) = copy_names(backend)
        assert backend.get(name) == sealed
    finally:
        backend.close()


async def test_only_the_administrator_is_served_and_only_at_devices_of_this_server(place: Place) -> None:
    before = sorted(place.folder.rglob("*"))
    grant, keep = n.DeviceGrant("dev", {"kit1": new_keys().public_key}), n.MeshKeep("dev", b"")
    with pytest.raises(Refused):
        await place.calls.grant(OTHER, grant, None)
    with pytest.raises(Refused):
        await place.calls.keep(OTHER, keep, None)
    with pytest.raises(NotFound):
        await place.calls.grant(ADMIN, structs.replace(grant, device="else"), None)
    with pytest.raises(InvalidValue):
        await place.calls.grant(ADMIN, structs.replace(grant, recipients={}), None)
    assert sorted(place.folder.rglob("*")) == before


async def test_another_vault_in_the_folder_is_not_taken_for_the_device(place: Place, tmp_path: Path) -> None:
    place.device = structs.replace(place.device, vault="vault2")
    with pytest.raises(DeviceVanished):
        await place.calls.grant(ADMIN, n.DeviceGrant("dev", {"kit1": new_keys().public_key}), None)
    place.device = structs.replace(place.device, paths=())
    with pytest.raises(DeviceVanished):
        await place.calls.keep(ADMIN, n.MeshKeep("dev", b""), None)


async def test_a_server_without_a_key_cannot_give_one(tmp_path: Path) -> None:
    place = Place(tmp_path / "disk", key_for=NodeKeys.create())
    with pytest.raises(NoKey):
        await place.calls.grant(ADMIN, n.DeviceGrant("dev", {"kit1": new_keys().public_key}), None)
