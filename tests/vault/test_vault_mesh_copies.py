"""Copies of the mesh in a vault: only for kits, only from an administrator, the newest ones stay."""

from __future__ import annotations

import os

import pytest
from msgspec import structs
from vault_world import MemoryBackend, World

from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.kit import Kit
from caso_mesh.identity.mesh_copy import MeshCopy, attest, check
from caso_mesh.model.errors import CasoError, DataDamaged, NoKey
from caso_mesh.model.orders import Authority as Place
from caso_mesh.vault.keys import add_missing_recipients, load_keys
from caso_mesh.vault.mesh_copies import KEPT, copy_names, open_copy, put_copy, seal_copy

NOW = 1_800_000_000_000_000_000
MESH = "m" * 26


class Mesh:
    def __init__(self, mesh: str = MESH) -> None:
        self.keys = NodeKeys.create()
        self.authority = Authority.create(mesh_id=mesh, mesh_name="lab", voter=self.keys.id, now_ns=NOW)
        signing, encryption = self.keys.to_bytes()
        self.copy = MeshCopy(
            mesh=mesh, mesh_name="lab", made_at_ns=NOW, place=Place(1, 2, 3), control=b"state", admin=self.keys.id,
            admin_name="alpha", signing_key=signing, encryption_key=encryption, root=self.authority.root,
            issuing=self.authority.issuing, issuing_key=self.authority.issuing_key_bytes(),
        )  # fmt: skip
        self.kit = Kit(
            id="k" * 26, mesh=mesh, mesh_name="lab", root=self.authority.root,
            root_key=self.authority.root_key_bytes(), id_key=bytes(32), private_key=os.urandom(32),
        )  # fmt: skip

    def sealed(self, content: bytes = b"content " * 100) -> bytes:
        return seal_copy(content, {self.kit.id: self.kit.public_key}, mesh=MESH, randomness=os.urandom)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


def test_a_kit_opens_what_was_sealed_to_it(mesh: Mesh) -> None:
    for content in (b"", b"x", b"compressible " * 1000, os.urandom(100_000)):
        assert open_copy("mesh/1", mesh.sealed(content), mesh.kit.id, mesh.kit.unwrap, mesh=MESH) == content


def test_another_kit_and_another_mesh_do_not(mesh: Mesh) -> None:
    with pytest.raises(NoKey):
        open_copy("mesh/1", mesh.sealed(), "other", mesh.kit.unwrap, mesh=MESH)
    with pytest.raises(DataDamaged):
        open_copy("mesh/1", mesh.sealed(), mesh.kit.id, Mesh().kit.unwrap, mesh=MESH)
    with pytest.raises(DataDamaged):
        open_copy("mesh/1", mesh.sealed(), mesh.kit.id, mesh.kit.unwrap, mesh="n" * 26)


def test_every_changed_byte_and_every_cut_is_noticed(mesh: Mesh) -> None:
    stored = mesh.sealed()
    for at in range(len(stored)):
        changed = bytearray(stored)
        changed[at] ^= 1
        with pytest.raises(CasoError):
            open_copy("mesh/1", bytes(changed), mesh.kit.id, mesh.kit.unwrap, mesh=MESH)
        with pytest.raises(CasoError):
            open_copy("mesh/1", stored[:at], mesh.kit.id, mesh.kit.unwrap, mesh=MESH)


def test_the_newest_copies_stay_and_their_numbers_rise(mesh: Mesh) -> None:
    backend = MemoryBackend()
    backend.objects["mesh/unknown"] = b"foreign"
    names = [put_copy(backend, mesh.sealed(b"%d" % n)) for n in range(KEPT + 3)]
    assert names == sorted(names)
    assert copy_names(backend) == names[::-1][:KEPT]
    assert "mesh/unknown" in backend.objects
    newest = open_copy(names[-1], backend.get(names[-1]), mesh.kit.id, mesh.kit.unwrap, mesh=MESH)
    assert newest == b"%d" % (KEPT + 2)


def test_noise_is_not_taken_for_a_copy(mesh: Mesh) -> None:
    with pytest.raises(DataDamaged):
        put_copy(MemoryBackend(), b"noise" * 100)


def test_an_attested_copy_is_believed(mesh: Mesh) -> None:
    data = attest(mesh.copy, mesh.authority, ())
    copy = check(data, mesh=MESH, root=mesh.kit.root, name="mesh/1").copy
    assert copy == mesh.copy
    assert copy.node_keys().id == mesh.keys.id
    assert copy.authority().issuing == mesh.authority.issuing
    assert "PRIVATE" not in repr(copy)


def test_a_copy_of_another_voter_is_believed_by_its_chain(mesh: Mesh) -> None:
    second = Authority.create(mesh_id=MESH, mesh_name="lab", voter="w" * 52, now_ns=NOW)
    issuing = mesh.authority.issue_issuing(second_key := _public(second), voter="w" * 52, mesh_name="lab", now_ns=NOW)
    assert second_key
    voter = Authority.from_bytes(root=mesh.authority.root, issuing=issuing, issuing_key=second.issuing_key_bytes())
    anchors = (mesh.authority.root, mesh.authority.issuing, issuing)
    copy = structs.replace(mesh.copy, issuing=issuing, issuing_key=second.issuing_key_bytes())
    believed = check(attest(copy, voter, anchors), mesh=MESH, root=mesh.kit.root, name="c")
    assert (believed.copy, believed.chain) == (copy, (issuing, mesh.authority.issuing))
    with pytest.raises(DataDamaged):  # without the one between nobody can tell
        check(attest(copy, voter, ()), mesh=MESH, root=mesh.kit.root, name="c")
    with pytest.raises(DataDamaged):  # the copy says that it is of another one
        check(attest(mesh.copy, voter, anchors), mesh=MESH, root=mesh.kit.root, name="c")


def _public(authority: Authority) -> bytes:
    from caso_mesh.identity.certificates import public_key_of

    return public_key_of(authority.issuing)


def test_a_copy_that_no_administrator_made_is_refused(mesh: Mesh) -> None:
    forger = Mesh()
    for data in (
        attest(mesh.copy, forger.authority, ()),
        attest(structs.replace(mesh.copy, mesh="n" * 26), mesh.authority, ()),
        b"",
        b"noise",
        attest(mesh.copy, mesh.authority, ()).replace(b"state", b"stole"),
    ):
        with pytest.raises(DataDamaged):
            check(data, mesh=MESH, root=mesh.kit.root, name="mesh/1")


def test_a_copy_with_keys_of_somebody_else_is_refused(mesh: Mesh) -> None:
    signing, encryption = NodeKeys.create().to_bytes()
    with pytest.raises(DataDamaged):
        structs.replace(mesh.copy, signing_key=signing, encryption_key=encryption).node_keys()
    with pytest.raises(DataDamaged):
        structs.replace(mesh.copy, signing_key=b"none").node_keys()
    with pytest.raises(DataDamaged):
        structs.replace(mesh.copy, issuing_key=b"none").authority()


def test_content_keys_are_wrapped_to_a_kit_once(world: World, mesh: Mesh) -> None:
    keys, kit = world.keys(), structs.replace(mesh.kit, id_key=world.id_key)
    with pytest.raises(NoKey):
        load_keys(world.backend, kit.id, kit.unwrap, kit.id_key)
    before = len(world.backend.objects)
    assert add_missing_recipients(world.backend, keys, {kit.id: kit.public_key}) == 1
    assert add_missing_recipients(world.backend, keys, {kit.id: kit.public_key}) == 0
    assert len(world.backend.objects) == before + 1
    assert load_keys(world.backend, kit.id, kit.unwrap, kit.id_key).content_keys == keys.content_keys


def test_a_damaged_key_object_is_wrapped_again(world: World, mesh: Mesh) -> None:
    keys, kit = world.keys(), structs.replace(mesh.kit, id_key=world.id_key)
    add_missing_recipients(world.backend, keys, {kit.id: kit.public_key})
    name = next(name for name in world.backend.objects if name.startswith("keys/k1."))
    world.backend.objects[name] = world.backend.objects[name][:-1] + b"\0"
    assert add_missing_recipients(world.backend, keys, {kit.id: kit.public_key}) == 1
    assert load_keys(world.backend, kit.id, kit.unwrap, kit.id_key).content_keys == keys.content_keys
