"""A new machine opens the device of a lost one, by what is left of that."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cli_world import MESH, Shell, material

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.store import IdentityStore
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import create_vault
from caso_mesh.vault.keys import create_content_key, load_keys

ID_KEY = b"i" * 32


def former(folder: Path, *, mesh: str = MESH) -> NodeKeys:
    """The state folder of a machine that is lost."""
    folder.mkdir()
    store, keys = IdentityStore(folder / "identity"), NodeKeys.create()
    store.save_keys(keys)
    store.save_mesh_id(mesh)
    store.save_id_key(ID_KEY)
    return keys


def device(folder: Path, keys: NodeKeys, *, mesh: str = MESH) -> Path:
    folder.mkdir()
    backend = FolderBackend(str(folder), "disk", marker=None)
    create_vault(backend, vault="vault1", mesh=mesh, chunker=ChunkerParameters(seed=7))
    recipients = {keys.id: keys.encryption_key}
    create_content_key(backend, recipients, key_id="k1", randomness=os.urandom, id_key=ID_KEY)
    backend.close()
    return folder


def opened(folder: Path, keys: NodeKeys) -> dict[str, bytes]:
    backend = FolderBackend(str(folder), "disk", marker="format")
    try:
        return dict(load_keys(backend, keys.id, keys.unwrap, ID_KEY).content_keys)
    finally:
        backend.close()


async def test_the_state_folder_of_a_lost_machine_opens_its_device_for_the_new_one(
    shell: Shell, tmp_path: Path
) -> None:
    old = former(tmp_path / "old")
    disk = device(tmp_path / "disk", old)
    for added in (1, 0):
        made = await shell("vault", "grant", str(disk), "--from-state", str(tmp_path / "old"), "--json")
        assert (made.status, json.loads(made.out)) == (0, {"node": material().keys.id, "added": added}), made
    assert opened(disk, material().keys) == opened(disk, old)


async def test_what_opens_nothing_there_is_refused_with_its_reason(shell: Shell, tmp_path: Path) -> None:
    old, elsewhere = former(tmp_path / "old"), former(tmp_path / "elsewhere", mesh="another")
    former(tmp_path / "other")
    disk, foreign = device(tmp_path / "disk", old), device(tmp_path / "foreign", elsewhere, mesh="another")

    async def refused(at: Path, *argv: str) -> str:
        made = await shell("vault", "grant", str(at), *argv, "--json")
        assert made.status != 0
        return str(json.loads(made.out)["error"]["code"])

    by_old = ("--from-state", str(tmp_path / "old"))
    assert await refused(disk, "--from-state", str(tmp_path / "other")) == "state-keyless"
    assert await refused(disk, "--from-state", str(tmp_path / "elsewhere")) == "usage"
    assert await refused(disk, "--from-state", str(tmp_path / "none")) == "state-missing"
    assert await refused(foreign, *by_old) == "device-foreign"
    assert await refused(tmp_path, *by_old) == "device-vanished"
    assert await refused(disk) == "usage"
    assert await refused(disk, *by_old, "--kit", str(tmp_path / "kit")) == "usage"
