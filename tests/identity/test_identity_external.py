"""``init --ca DIR``: what fits is used, and each way of not fitting is named."""

from __future__ import annotations

import datetime
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from caso_mesh.identity import certificates, tls
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.external import load_external
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.roster import authorise
from caso_mesh.model.errors import CaUnusable
from caso_mesh.model.mesh import MeshInfo, Roster, RosterRow

NOW = 1_800_000_000_000_000_000
VOTER = "v" * 52
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
MAKE_CERTS = Path(__file__).parents[2] / "scripts" / "make-certs"


def made(
    name: str,
    key: Key,
    signer: tuple[str, Key] | None = None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    starts_at: int = NOW - 10**15,
    ends_at: int = NOW + 10**17,
    extra: x509.ExtensionType | None = None,
) -> bytes:
    """A certificate as other tools make them: no key usage, no key identifiers."""

    def moment(at_ns: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(at_ns // 10**9, datetime.UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    issuer, issuer_key = signer or (name, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(starts_at))
        .not_valid_after(moment(ends_at))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
    )
    if extra is not None:
        builder = builder.add_extension(extra, critical=False)
    return builder.sign(issuer_key, SHA256()).public_bytes(Encoding.PEM)


def pem(key: Key, passphrase: bytes | None = None) -> bytes:
    return key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    )


ROOT, ISSUING, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(made("root", ROOT))
    (tmp_path / "issuing.pem").write_bytes(made("issuing", ISSUING, ("root", ROOT)))
    (tmp_path / "issuing.key").write_bytes(pem(ISSUING))
    return tmp_path


def load(folder: Path) -> Authority:
    return load_external(folder, voter=VOTER, mesh_name="lab", now_ns=NOW)


def admits(authority: Authority) -> bool:
    key = SigningKey.create()
    roster = Roster(
        MeshInfo("m", "lab", NOW), authority.anchors(VOTER), (RosterRow(key.id, "a", "node", key.public_key),)
    )
    return not authorise(roster, authority.issue_node(key.public_key, now_ns=NOW), now_ns=NOW).expired


def test_an_own_intermediate_becomes_the_issuing_certificate_and_the_root_key_stays_where_it_is(folder: Path) -> None:
    authority = load(folder)
    assert authority.issuing == certificates.from_pem((folder / "issuing.pem").read_bytes())[0]
    assert not authority.has_root_key
    assert admits(authority)


def test_with_the_root_key_alone_an_issuing_certificate_is_made(folder: Path) -> None:
    (folder / "issuing.pem").unlink()
    (folder / "issuing.key").unlink()
    (folder / "ca.key").write_bytes(pem(ROOT))
    authority = load(folder)
    assert authority.has_root_key
    assert certificates.signed_by(authority.issuing, authority.root)
    assert admits(authority)


def test_an_rsa_authority_works(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "ca.pem").write_bytes(made("root", key))
    (tmp_path / "ca.key").write_bytes(pem(key))
    authority = load(tmp_path)
    authority.save(tmp_path / "again")
    assert admits(Authority.load(tmp_path / "again"))


def put(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def drop(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
CONSTRAINED = x509.NameConstraints([x509.DNSName("example.com")], None)
SIGNS_NOTHING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("ca.pem"), "ca.pem is missing"),
        (put("ca.pem", b"nothing"), "ca.pem holds no certificate"),
        (put("ca.pem", made("root", ROOT, ca=False)), "ca.pem is not the certificate of a CA"),
        (put("ca.pem", made("root", ROOT, extra=SIGNS_NOTHING)), "ca.pem is not the certificate of a CA"),
        (put("ca.pem", made("root", ROOT, ends_at=NOW - 10**9)), "ca.pem has expired on 2027-01-15"),
        (put("ca.pem", made("root", ROOT, starts_at=NOW + 10**9)), "ca.pem is not valid before 2027-01-15"),
        (put("ca.pem", made("root", ROOT, ("above", OTHER))), "ca.pem is not a root"),
        (put("ca.key", pem(OTHER)), "ca.key does not belong to ca.pem"),
        (put("ca.key", b"nothing"), "ca.key: no private key"),
        (put("ca.key", pem(ROOT, b"secret")), "ca.key: the key is locked with a passphrase"),
        (put("ca.key", pem(rsa.generate_private_key(65537, 1024))), "ca.key: the key is none of"),
        (drop("issuing.pem"), "it has issuing.key but not issuing.pem"),
        (drop("issuing.key"), "it has issuing.pem but not issuing.key"),
        (drop("issuing.pem", "issuing.key"), "it has neither ca.key nor issuing.pem with issuing.key"),
        (put("issuing.pem", b""), "issuing.pem holds no certificate"),
        (put("issuing.pem", made("issuing", ISSUING, ("root", ROOT), ca=False)), "issuing.pem is not the certificate"),
        (put("issuing.pem", made("issuing", ISSUING, ("root", ROOT), ends_at=NOW - 1)), "issuing.pem has expired"),
        (put("issuing.pem", made("issuing", ISSUING, ("root", OTHER))), "issuing.pem is not signed by ca.pem"),
        (put("issuing.pem", made("issuing", ISSUING, ("other", ROOT))), "issuing.pem is not signed by ca.pem"),
        (put("issuing.pem", made("i", ISSUING, ("root", ROOT), extra=SERVER_ONLY)), "issuing.pem is not for TLS"),
        (put("issuing.pem", made("i", ISSUING, ("root", ROOT), extra=CONSTRAINED)), "issuing.pem has name constraints"),
        (put("issuing.key", pem(OTHER)), "issuing.key does not belong to issuing.pem"),
        (put("issuing.key", pem(ISSUING, b"secret")), "issuing.key: the key is locked"),
    ],
)
def test_each_way_of_not_fitting_is_named(folder: Path, change: Callable[[Path], object], said: str) -> None:
    change(folder)
    with pytest.raises(CaUnusable) as unusable:
        load(folder)
    assert unusable.value.fields["detail"].startswith(said)
    assert unusable.value.fields["path"] == str(folder)


def test_a_root_that_is_given_as_the_intermediate_too_is_named(folder: Path) -> None:
    (folder / "issuing.pem").write_bytes((folder / "ca.pem").read_bytes())
    (folder / "issuing.key").write_bytes(pem(ROOT))
    with pytest.raises(CaUnusable, match=r"issuing\.pem is a root itself"):
        load(folder)


def test_a_root_that_forbids_authorities_below_it_is_not_made_to_sign_one(folder: Path) -> None:
    (folder / "issuing.pem").unlink()
    (folder / "issuing.key").unlink()
    (folder / "ca.pem").write_bytes(made("root", ROOT, path_length=0))
    (folder / "ca.key").write_bytes(pem(ROOT))
    with pytest.raises(CaUnusable, match="path length 0"):
        load(folder)


@pytest.mark.skipif(
    not (MAKE_CERTS.parents[1] / ".venv/bin/python").exists(), reason="scripts/make-certs runs in the project's .venv"
)
def test_make_certs_writes_what_init_takes_and_overwrites_only_when_told(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir(mode=0o755)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([MAKE_CERTS, *options, folder], capture_output=True, text=True, check=False)

    first = run()
    assert first.returncode == 0, first.stderr
    stems = ("ca", "issuing", "alpha", "beta", "gamma", "operator")
    assert sorted(os.listdir(folder)) == sorted(f"{stem}.{end}" for stem in stems for end in ("pem", "key"))
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}
    authority = load_external(folder, voter=VOTER, mesh_name="lab", now_ns=time.time_ns())
    for stem in ("alpha", "beta", "gamma", "operator"):
        (certificate, above) = certificates.from_pem((folder / f"{stem}.pem").read_bytes())
        assert above == authority.issuing
        assert certificates.signed_by(certificate, authority.issuing)
        tls.server_context(folder / f"{stem}.pem", folder / f"{stem}.key", [authority.issuing])
    before = (folder / "ca.key").read_bytes()
    again = run()
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert (folder / "ca.key").read_bytes() == before
    assert run("--force").returncode == 0
    assert (folder / "ca.key").read_bytes() != before
    assert load_external(folder, voter=NodeKeys.create().id, mesh_name="lab", now_ns=time.time_ns()).has_root_key


def test_make_certs_without_a_virtual_environment_says_how_to_make_one(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "make-certs"
    script.parent.mkdir()
    script.write_bytes(MAKE_CERTS.read_bytes())
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "python3 -m venv .venv" in done.stderr
