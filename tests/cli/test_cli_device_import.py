"""Taking over a device of another mesh: what is read of it, what of the kit leaves this machine, and what is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cli_world import FakeDaemon, Shell, material

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity import kit as kits
from caso_mesh.identity.imported import open_foreign
from caso_mesh.model import importing as i
from caso_mesh.model import views as v
from caso_mesh.model.errors import ObjectMissing
from caso_mesh.sealing import wrapping
from caso_mesh.sealing.passphrase import Cost
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import create_vault
from caso_mesh.vault.keys import create_content_key

ID_KEY, MESH, VAULT, KIT = b"i" * 32, "m" * 26, "v" * 26, "k" * 26
COPY = "mesh/0000000001"


class Mesh:
    """An administrator whose server has the folder; it hands out objects in small pieces."""

    def __init__(self, daemon: FakeDaemon, folder: Path) -> None:
        self.keys = kits.new_keys()
        self.folder = folder
        self.asked: list[i.DeviceImport] = []
        self.mesh = MESH
        daemon.answers |= {"device.look": self.look, "device.read": self.read, "device.import": self.take}

    def _objects(self, prefix: str) -> tuple[tuple[str, int], ...]:
        backend = FolderBackend(str(self.folder), "x", marker=None)
        try:
            return tuple(backend.list(prefix))
        finally:
            backend.close()

    def look(self, request: i.DeviceLook) -> i.ForeignVault:
        keys, copies = self._objects("keys/"), self._objects("mesh/")
        return i.ForeignVault(VAULT, self.mesh, keys, copies, "node-beta", self.keys.public_key)

    def read(self, request: i.DeviceRead) -> i.ForeignObjects:
        first, *others = request.names
        if not (self.folder / first).exists():
            raise ObjectMissing(name=first)
        found = {first: (self.folder / first).read_bytes()[request.offset :][:400]}
        return i.ForeignObjects(found | {name: (self.folder / name).read_bytes() for name in others[:1]})

    def take(self, request: i.DeviceImport) -> v.DeviceView:
        self.asked.append(request)
        return v.DeviceView(
            request.name, "d1", "disk", (request.server,), {request.server: request.path}, "imported", None, None, 7, 0, 1, 0,
            mesh=request.mesh_name,
        )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.mkdir()
    return path


@pytest.fixture
def kit(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> kits.Kit:
    """The kit of the mesh that wrote the vault in ``folder``, in the file ``kit``."""
    seal = kits.seal_with_passphrase

    def quick(*args: Any, **options: Any) -> bytes:
        return seal(*args, **{**options, "cost": Cost(memory_kib=64, iterations=1, lanes=1)})

    monkeypatch.setattr(kits, "seal_with_passphrase", quick)
    keys = kits.new_keys()
    made = kits.Kit(KIT, MESH, "meadow", material().authority.root, b"", ID_KEY, keys.private_key, 1)
    kits.write(tmp_path / "kit", kits.encode(made, "correct horse battery"))
    (tmp_path / "p").write_text("correct horse battery\n")
    backend = FolderBackend(str(folder), "x", marker=None)
    create_vault(backend, vault=VAULT, mesh=MESH, chunker=ChunkerParameters(seed=1))
    for number in range(3):
        create_content_key(backend, {KIT: keys.public_key}, key_id=f"key{number}", randomness=os.urandom, id_key=ID_KEY)
    backend.put(COPY, [os.urandom(3000)])
    backend.close()
    return made


async def test_what_opens_the_device_is_sealed_to_its_server_and_nothing_else_of_the_kit_leaves(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path, folder: Path, kit: kits.Kit
) -> None:
    mesh = Mesh(daemon, folder)
    words = ("device", "import", "old", "--server", "beta", "--path", "/mnt/old", "--kit", str(tmp_path / "kit"))
    result = await shell(*words, "--passphrase-file", str(tmp_path / "p"))
    assert result.status == 0
    assert "device old is imported from the mesh meadow, at beta:/mnt/old, with 7 sets" in result.out
    assert "NAME@meadow" in result.out + result.err
    assert f"{COPY}: " in result.err, "a copy of the mesh that is damaged is told"
    (asked,) = mesh.asked
    assert (asked.name, asked.vault, asked.mesh, asked.mesh_name, asked.signers) == ("old", VAULT, MESH, "meadow", {})

    def unwrap(wrapped: bytes, aad: bytes) -> bytes:
        return wrapping.unwrap(wrapped, mesh.keys.private_key, aad=aad)

    opened = open_foreign(unwrap, asked.copies["node-beta"], vault=VAULT, node="node-beta")
    assert opened.id_key == ID_KEY and sorted(opened.content_keys) == ["key0", "key1", "key2"]
    assert "key0" not in repr(opened)
    for each in daemon.received:
        for secret in (kit.private_key, ID_KEY, *opened.content_keys.values()):
            assert repr(secret)[2:-1] not in repr(each.request)


async def test_the_kit_of_another_mesh_or_one_without_a_key_for_the_device_is_refused_before_anything_is_handed_over(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path, folder: Path, kit: kits.Kit
) -> None:
    mesh = Mesh(daemon, folder)
    words = ("device", "import", "old", "--server", "beta", "--path", "/mnt/old", "--kit", str(tmp_path / "kit"))
    words = (*words, "--passphrase-file", str(tmp_path / "p"), "--json")
    mesh.mesh = "another"
    refused = await shell(*words)
    assert (refused.status, refused.document["error"]["code"]) == (4, "kit-foreign")
    mesh.mesh = MESH
    for path in (folder / "keys").iterdir():
        path.unlink()
    refused = await shell(*words)
    assert (refused.status, refused.document["error"]["code"]) == (4, "kit-incomplete")
    assert mesh.asked == []
