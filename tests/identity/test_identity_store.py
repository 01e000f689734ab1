"""Keys and certificates on disk: private, whole, and named when they are damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from caso_mesh.identity import certificates, private_files
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.store import IdentityStore, load_context, write_context
from caso_mesh.model.errors import CaUnusable, Misuse, SealBroken, StateDamaged, StateFull, StateMissing
from caso_mesh.model.ids import node_id
from caso_mesh.sealing import signing
from caso_mesh.sealing.wrapping import wrap

NOW = 1_800_000_000_000_000_000
DAY = 86400 * 10**9


@pytest.fixture
def filled(tmp_path: Path) -> IdentityStore:
    store = IdentityStore(tmp_path / "identity")
    keys = NodeKeys.create()
    store.save_keys(keys)
    authority = Authority.create(mesh_id="m" * 26, mesh_name="lab", voter=keys.id, now_ns=NOW)
    store.save_authority(authority)
    store.save_chain(authority.chain(authority.issue_node(keys.public_key, now_ns=NOW)))
    store.save_anchors((authority.root, authority.issuing))
    store.save_mesh_id("m" * 26)
    store.save_id_key(bytes(range(32)))
    operator = SigningKey.create()
    store.write_operator(operator, authority.chain(authority.issue_operator(operator.public_key, now_ns=NOW)))
    return store


def test_what_was_saved_is_loaded_again(filled: IdentityStore) -> None:
    keys = filled.load_keys()
    again = IdentityStore(filled.folder)
    assert keys.id == node_id(keys.public_key) == again.load_keys().id
    assert certificates.public_key_of(again.load_chain()[0]) == keys.public_key
    authority = again.load_authority()
    assert again.load_anchors() == (authority.root, authority.issuing)
    assert again.load_chain()[1] == authority.issuing
    assert (again.load_mesh_id(), again.load_id_key()) == ("m" * 26, bytes(range(32)))
    operator = again.load_operator()
    assert certificates.public_key_of(operator.chain[0]) == operator.key.public_key
    signature = keys.sign("test", b"message")
    assert signing.verify(again.load_keys().public_key, "test", b"message", signature)
    wrapped = wrap(b"secret", keys.encryption_key, aad=b"a", randomness=os.urandom)
    assert again.load_keys().unwrap(wrapped, b"a") == b"secret"
    with pytest.raises(SealBroken):
        keys.unwrap(wrapped, b"b")


def test_every_file_is_private_whatever_the_umask(filled: IdentityStore, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        NodeKeys.create().save(tmp_path / "open" / "identity")
    finally:
        os.umask(before)
    for top in (filled.folder, tmp_path / "open" / "identity"):
        for folder, _, names in os.walk(top):
            assert os.stat(folder).st_mode & 0o777 == 0o700
            assert names
            for name in names:
                assert os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o600, name


def test_private_keys_do_not_print(filled: IdentityStore) -> None:
    keys = filled.load_keys()
    assert repr(keys) == f"<NodeKeys {keys.id[:13]}>"
    assert repr(keys.signing) == f"<SigningKey {keys.id[:13]}>"
    assert "PRIVATE" not in repr(filled.load_operator())


def test_an_empty_folder_is_missing_not_damaged(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path / "identity")
    for load in (
        store.load_keys,
        store.load_anchors,
        store.load_mesh_id,
        store.load_id_key,
        store.load_operator,
        store.load_authority,
    ):
        with pytest.raises(StateMissing):
            load()


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("node.key", "load_keys"),
        ("encryption.key", "load_keys"),
        ("node.pem", "load_chain"),
        ("anchors.pem", "load_anchors"),
        ("mesh.id", "load_mesh_id"),
        ("id.key", "load_id_key"),
        ("operator.key", "load_operator"),
        ("operator.pem", "load_operator"),
        ("authority/ca.pem", "load_authority"),
        ("authority/ca.key", "load_authority"),
        ("authority/issuing.pem", "load_authority"),
        ("authority/issuing.key", "load_authority"),
    ],
)
@pytest.mark.parametrize("damage", [b"", b"Garbage!\n", b"\xff" * 40, b"x" * (private_files.LONGEST + 1)])
def test_each_damaged_file_is_named(filled: IdentityStore, name: str, load: str, damage: bytes) -> None:
    path = filled.folder / name
    path.write_bytes(damage)
    with pytest.raises(StateDamaged) as damaged:
        getattr(filled, load)()
    assert damaged.value.fields["path"] == str(path)


def test_files_that_do_not_belong_together_are_damage(filled: IdentityStore) -> None:
    (filled.folder / "encryption.key").unlink()
    with pytest.raises(StateDamaged, match="missing"):
        filled.load_keys()
    NodeKeys.create().save(filled.folder)
    with pytest.raises(StateDamaged, match="not for the key of this node"):
        filled.load_chain()
    filled.operator_key_path.write_bytes(SigningKey.create().to_pem())
    with pytest.raises(StateDamaged, match=r"not for operator\.key"):
        filled.load_operator()
    (filled.authority_folder / "ca.key").write_bytes(SigningKey.create().to_pem())
    with pytest.raises(StateDamaged, match=r"does not belong to ca\.pem"):
        filled.load_authority()
    with pytest.raises(Misuse):
        filled.save_chain((filled.load_anchors()[0],))
    with pytest.raises(Misuse):
        filled.write_operator(SigningKey.create(), filled.load_anchors())


def test_a_p256_node_key_is_taken_and_another_curve_is_not(filled: IdentityStore) -> None:
    def put(curve: ec.EllipticCurve) -> None:
        pem = ec.generate_private_key(curve).private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        (filled.folder / "node.key").write_bytes(pem)

    put(ec.SECP256R1())
    keys = filled.load_keys()
    assert signing.verify(keys.public_key, "test", b"m", keys.sign("test", b"m"))
    put(ec.SECP384R1())
    with pytest.raises(StateDamaged, match="secp384r1"):
        filled.load_keys()


def test_the_root_key_leaves_when_a_kit_is_confirmed(filled: IdentityStore) -> None:
    authority = filled.load_authority()
    assert authority.has_root_key
    assert filled.has_root_key
    kept = authority.root_key_bytes()
    filled.remove_root_key()
    assert not filled.has_root_key
    bare = filled.load_authority()
    assert not bare.has_root_key
    with pytest.raises(Misuse):
        bare.root_key_bytes()
    # saving the form without it removes it as well
    filled.save_authority(authority)
    filled.save_authority(authority.without_root_key())
    assert not filled.has_root_key
    recovered = Authority.from_root(bare.root, kept, voter="v" * 52, mesh_name="lab", now_ns=NOW)
    assert certificates.signed_by(recovered.issuing, bare.root)
    assert recovered.issuing != bare.issuing


def test_a_server_that_is_no_voter_any_more_keeps_no_issuing_key(filled: IdentityStore) -> None:
    filled.drop_authority()
    assert not list(filled.authority_folder.iterdir())
    with pytest.raises(StateMissing):
        filled.load_authority()
    filled.drop_authority()


def test_a_full_disk_leaves_the_old_file(filled: IdentityStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(os.listdir(filled.folder))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StateFull):
            filled.save_id_key(bytes(32))
    assert filled.load_id_key() == bytes(range(32))
    assert sorted(os.listdir(filled.folder)) == before


def test_an_operator_folder_works_on_any_machine(filled: IdentityStore, tmp_path: Path) -> None:
    operator = filled.load_operator()
    folder = tmp_path / "contexts" / "lab"
    write_context(
        folder,
        endpoints=("10.0.0.1:9330", "10.0.0.2:9330"),
        mesh="m" * 26,
        anchors=filled.load_anchors(),
        key=operator.key,
        chain=operator.chain,
    )
    context = load_context(folder)
    assert (context.mesh, context.anchors) == ("m" * 26, filled.load_anchors())
    assert context.endpoints == ("10.0.0.1:9330", "10.0.0.2:9330")
    assert context.operator.key.id == operator.key.id
    assert context.operator.key_path.stat().st_mode & 0o777 == 0o600
    (folder / "endpoint").write_text("\n")
    with pytest.raises(StateDamaged):
        load_context(folder)


def test_certificates_live_as_long_as_promised_and_never_longer_than_their_signer() -> None:
    key = SigningKey.create()
    authority = Authority.create(mesh_id="m" * 26, mesh_name="n" * 63, voter="v" * 52, now_ns=NOW)
    node = certificates.life(authority.issue_node(key.public_key, now_ns=NOW))
    assert (node.not_before_ns, node.not_after_ns) == (NOW - 3600 * 10**9, NOW + 7 * DAY)
    late = certificates.life(authority.issuing).not_after_ns - DAY
    assert certificates.life(authority.issue_node(key.public_key, now_ns=late)).not_after_ns == late + DAY
    with pytest.raises(CaUnusable, match="expired"):
        authority.issue_node(key.public_key, now_ns=late + 2 * DAY)
    serials = {certificates.parse(authority.issue_node(key.public_key, now_ns=NOW)).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert min(serials) > 1 << 64
    assert max(serials) < 1 << 159
    with pytest.raises(Misuse):
        authority.issue_node(b"no key", now_ns=NOW)
