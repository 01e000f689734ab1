"""What is read of certificates without the library agrees with what the library reads."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.identity import certificates, der
from caso_mesh.identity.keys import SigningKey
from caso_mesh.model.errors import StateDamaged

NOW = time.time_ns()
ROOT_KEY, ISSUING_KEY, OTHER_KEY = (Ed25519PrivateKey.generate() for _ in range(3))
RSA_KEY = rsa.generate_private_key(65537, 2048)
NODE, P256_NODE = SigningKey.create(), SigningKey(ec.generate_private_key(ec.SECP256R1()))


def spki(key: certificates.CaKey) -> bytes:
    return certificates._spki(key.public_key())


ROOT = certificates.create_root("m" * 26, "meadow", ROOT_KEY, NOW)
RSA_ROOT = certificates.create_root("m" * 26, "meadow", RSA_KEY, NOW)
ISSUING = certificates.create_issuing(
    spki(ISSUING_KEY), voter="v", mesh_name="meadow", signer=ROOT, signer_key=ROOT_KEY, now_ns=NOW
)
#: The same name, another key.
FALSE_ISSUING = certificates.create_issuing(
    spki(OTHER_KEY), voter="v", mesh_name="meadow", signer=ROOT, signer_key=ROOT_KEY, now_ns=NOW
)
LEAF = certificates.issue_node(NODE.public_key, signer=ISSUING, signer_key=ISSUING_KEY, now_ns=NOW)
P256_LEAF = certificates.issue_node(P256_NODE.public_key, signer=ISSUING, signer_key=ISSUING_KEY, now_ns=NOW)
RSA_LEAF = certificates.issue_operator(NODE.public_key, signer=RSA_ROOT, signer_key=RSA_KEY, now_ns=NOW)
ALL = (ROOT, RSA_ROOT, ISSUING, FALSE_ISSUING, LEAF, P256_LEAF, RSA_LEAF)


def test_every_pair_of_certificates_is_judged_alike() -> None:
    for child in ALL:
        assert der.public_key_of(child) == certificates.public_key_of(child)
        assert der.is_self_signed(child) == certificates.is_self_signed(child)
        for parent in ALL:
            assert der.signed_by(child, parent) == certificates.signed_by(child, parent)
    assert der.signed_by(LEAF, ISSUING)
    assert not der.signed_by(LEAF, FALSE_ISSUING)
    assert not der.signed_by(LEAF, ROOT)
    assert der.signed_by(RSA_LEAF, RSA_ROOT)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([LEAF, ISSUING]), st.integers(0, 400), st.integers(1, 255), st.booleans())
def test_a_certificate_with_a_wrong_byte_is_signed_by_nobody(
    certificate: bytes, at: int, change: int, cut: bool
) -> None:
    at %= len(certificate)
    broken = certificate[:at] if cut else certificate[:at] + bytes([certificate[at] ^ change]) + certificate[at + 1 :]
    for signer in (ROOT, ISSUING):
        try:
            assert not der.signed_by(broken, signer)
        except ValueError:
            continue


def test_a_signature_of_a_part_of_a_byte_is_none() -> None:
    """What is not signed is how the signature is written down: the library takes one with a bit less for the same."""
    leaves = (
        certificates.issue_node(NODE.public_key, signer=ISSUING, signer_key=ISSUING_KEY, now_ns=NOW) for _ in range(200)
    )
    leaf = next(leaf for leaf in leaves if leaf[-1] % 2 == 0)
    assert leaf[-65] == 0
    other = leaf[:-65] + b"\1" + leaf[-64:]
    assert der.signed_by(leaf, ISSUING)
    assert not der.signed_by(other, ISSUING)
    assert not certificates.signed_by(other, ISSUING)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_told(data: bytes) -> None:
    with pytest.raises(ValueError):
        der.public_key_of(data)
    with pytest.raises(ValueError):
        der.from_pem(data)


def test_pem_files_are_read_alike() -> None:
    for chain in ((LEAF,), (LEAF, ISSUING), (P256_LEAF, ISSUING, RSA_ROOT)):
        pem = certificates.to_pem(chain)
        assert der.from_pem(pem) == chain
        assert der.from_pem(b"a remark\n" + pem.replace(b"\n", b"\r\n")) == chain
    broken = certificates.to_pem((LEAF,)).replace(b"M", b"N", 1)
    with pytest.raises(ValueError):
        der.from_pem(broken)


def test_a_private_key_is_read_alike_whatever_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for key in (NODE, P256_NODE):
        again = SigningKey.from_pem(key.to_pem(), path)
        assert (again.id, again.public_key) == (key.id, key.public_key)
        assert again.public_key == certificates._spki(key.private.public_key())
    assert der.private_key_in(NODE.to_pem()) is not None
    assert der.private_key_in(P256_NODE.to_pem()) is None
    assert der.private_key_in(NODE.to_pem() + NODE.to_pem()) is None
    sec1 = P256_NODE.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert SigningKey.from_pem(sec1, path).id == P256_NODE.id
    locked = NODE.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for pem in (locked, b"", os.urandom(100), NODE.to_pem()[:60], RSA_KEY.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )):  # fmt: skip
        with pytest.raises(StateDamaged):
            SigningKey.from_pem(pem, path)
