"""Handing the key of a device from server to server, and for whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import DeviceVanished, InvalidValue, NoKey, NotAllowedHere, Refused, SealBroken
from caso_mesh.server.handing import HandingCalls
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import create_vault
from caso_mesh.vault.keys import create_content_key, load_keys

ID_KEY = b"k" * 32
ADMIN, OTHER = Peer("admin", "alpha", "node"), Peer("other", "beta", "node")


def calls(keys: NodeKeys, forbidden: str = "") -> HandingCalls:
    def check(path: str, vault: str) -> None:
        if path == forbidden:
            raise NotAllowedHere(server="gamma", action="write", path=path)

    return HandingCalls(
        node=keys.id,
        name="gamma",
        is_admin=lambda id_: id_ == "admin",
        check=check,
        unwrap=keys.unwrap,
        id_key=lambda: ID_KEY,
        randomness=os.urandom,
    )


class Carried:
    """A disk that ``old`` could open, at ``new``."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new, self.path = NodeKeys.create(), NodeKeys.create(), folder
        folder.mkdir()
        backend = FolderBackend(str(folder), "disk", marker=None)
        create_vault(backend, vault="vault1", mesh="mesh1", chunker=ChunkerParameters(seed=7))
        for key_id in ("k1", "k2"):
            recipients = {self.old.id: self.old.encryption_key}
            create_content_key(backend, recipients, key_id=key_id, randomness=os.urandom, id_key=ID_KEY)
        backend.close()
        self.where = n.DeviceKeys("disk", str(folder), "vault1")

    def loaded(self, keys: NodeKeys) -> dict[str, bytes]:
        backend = FolderBackend(str(self.path), "disk", marker="format")
        try:
            return dict(load_keys(backend, keys.id, keys.unwrap, ID_KEY).content_keys)
        finally:
            backend.close()

    def take(self, keys: dict[str, bytes], name: str = "vault1") -> n.DeviceTakeKeys:
        return n.DeviceTakeKeys("disk", str(self.path), name, keys, {self.new.id: self.new.encryption_key})


@pytest.fixture
def carried(tmp_path: Path) -> Carried:
    return Carried(tmp_path / "disk")


async def test_keys_are_read_where_the_disk_is_wrapped_anew_where_they_open_and_laid_down(carried: Carried) -> None:
    old, new = calls(carried.old), calls(carried.new)
    sealed = (await new.sealed(ADMIN, carried.where, None)).keys
    assert {key_id: set(to) for key_id, to in sealed.items()} == {"k1": {carried.old.id}, "k2": {carried.old.id}}
    wrapped = {key_id: to[carried.old.id] for key_id, to in sealed.items()}
    asked = n.DeviceRewrap("vault1", wrapped, carried.new.id, carried.new.encryption_key)
    again = {key_id: to[carried.new.id] for key_id, to in (await old.rewrap(ADMIN, asked, None)).keys.items()}
    for _ in range(2):  # repeated, nothing happens
        await new.take(ADMIN, carried.take(again), None)
    assert carried.loaded(carried.new) == carried.loaded(carried.old)


async def test_nobody_but_the_administrator_is_handed_anything(carried: Carried) -> None:
    own = calls(carried.old)
    for call, request in (
        (own.sealed, carried.where),
        (own.rewrap, n.DeviceRewrap("vault1", {"k1": b"x"}, "other", b"x" * 32)),
        (own.take, carried.take({"k1": b"x"})),
    ):
        with pytest.raises(Refused):
            await call(OTHER, request, None)


async def test_what_is_for_another_vault_or_server_is_neither_opened_nor_laid_down(carried: Carried) -> None:
    old, new = calls(carried.old), calls(carried.new)
    sealed = (await new.sealed(ADMIN, carried.where, None)).keys
    wrapped = {key_id: to[carried.old.id] for key_id, to in sealed.items()}
    public = carried.new.encryption_key
    with pytest.raises(SealBroken):  # bound to its vault
        await old.rewrap(ADMIN, n.DeviceRewrap("vault2", wrapped, carried.new.id, public), None)
    with pytest.raises(SealBroken):  # and to its key
        await old.rewrap(ADMIN, n.DeviceRewrap("vault1", {"k1": wrapped["k2"]}, carried.new.id, public), None)
    with pytest.raises(SealBroken):
        await new.rewrap(ADMIN, n.DeviceRewrap("vault1", wrapped, carried.new.id, public), None)
    with pytest.raises(InvalidValue):
        await old.rewrap(ADMIN, n.DeviceRewrap("vault1", {}, carried.new.id, public), None)
    with pytest.raises(SealBroken):
        await new.take(ADMIN, carried.take(wrapped), None)
    with pytest.raises(NoKey):  # a key that the vault does not know is none of its keys
        await new.take(ADMIN, carried.take({"k9": wrapped["k1"]}), None)
    with pytest.raises(NoKey):
        carried.loaded(carried.new)
    for elsewhere in (n.DeviceKeys("disk", str(carried.path), "vault2"),):
        with pytest.raises(DeviceVanished):
            await new.sealed(ADMIN, elsewhere, None)
    with pytest.raises(NotAllowedHere):
        await calls(carried.new, str(carried.path)).sealed(ADMIN, carried.where, None)
