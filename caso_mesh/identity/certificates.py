"""X.509 certificates (RFC 5280): the root, issuing certificates, nodes, operators. All are DER outside this folder.

The names inside are for people who look at them with other tools; what counts is the key, and its row on the roster.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CaUnusable, Misuse
from caso_mesh.model.ids import node_id
from caso_mesh.sealing import signing

#: Keys that may sign certificates: ours are Ed25519, an own CA may bring the others.
CaKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY_S = 86400.0
#: Life of the certificate of a node or an operator: "removed" holds everywhere after this time at the latest.
NODE_LIFE_S = 7 * DAY_S
#: Life of the root and of issuing certificates.
CA_LIFE_S = 20 * 365 * DAY_S
#: A certificate is valid from this long before it was made, for clocks that are behind.
BACKDATE_S = 3600.0

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Life(Struct, frozen=True):
    """From when to when a certificate is valid, both included."""

    not_before_ns: int
    not_after_ns: int


def create_root(
    mesh_id: str,
    mesh_name: str,
    key: CaKey,
    now_ns: int,
    *,
    life_s: float = CA_LIFE_S,
    randomness: Randomness = os.urandom,
) -> bytes:
    """The self-signed root of a mesh."""
    subject = _name(f"caso-mesh root {mesh_id[:26]}", mesh_name)
    public_key = _spki(key.public_key())
    return _build(subject, public_key, None, key, now_ns, life_s, randomness, path_length=1, names=())


def create_issuing(
    public_key: bytes,
    *,
    voter: str,
    mesh_name: str,
    signer: bytes,
    signer_key: CaKey,
    now_ns: int,
    life_s: float = CA_LIFE_S,
    randomness: Randomness = os.urandom,
) -> bytes:
    """The issuing certificate of one voter (node id): it signs nodes and operators, path length 0.

    ``public_key`` (DER SubjectPublicKeyInfo) is of the voter's issuing key, which is not its node key. Raises
    ``CaUnusable`` if the signer has expired.
    """
    subject = _name(f"issuing {voter}"[:64], mesh_name)
    return _build(subject, public_key, signer, signer_key, now_ns, life_s, randomness, path_length=0, names=())


def issue_node(
    public_key: bytes,
    *,
    signer: bytes,
    signer_key: CaKey,
    now_ns: int,
    life_s: float = NODE_LIFE_S,
    randomness: Randomness = os.urandom,
) -> bytes:
    """The certificate of the node that holds ``public_key`` (DER SubjectPublicKeyInfo, Ed25519 or P-256).

    It never outlives its signer. Raises ``CaUnusable`` if the signer has expired.
    """
    return _issue("node", public_key, signer, signer_key, now_ns, life_s, randomness)


def issue_operator(
    public_key: bytes,
    *,
    signer: bytes,
    signer_key: CaKey,
    now_ns: int,
    life_s: float = NODE_LIFE_S,
    randomness: Randomness = os.urandom,
) -> bytes:
    """The certificate of an operator; else as ``issue_node``."""
    return _issue("operator", public_key, signer, signer_key, now_ns, life_s, randomness)


def self_signed(
    key: signing.PrivateKey, now_ns: int, *, life_s: float = CA_LIFE_S, randomness: Randomness = os.urandom
) -> bytes:
    """A certificate that says nothing but "I hold this key": what a server shows before it belongs to a mesh."""
    public_key = _spki(key.public_key())
    identity = node_id(public_key)
    names = (f"{identity}.new.caso-mesh",)
    return _build(
        _name(identity, None), public_key, None, key, now_ns, life_s, randomness, path_length=None, names=names
    )


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of the DER certificate."""
    return hashlib.sha256(certificate).digest()


def life(certificate: bytes) -> Life:
    """When it is valid. Raises ``ValueError`` if it is no certificate."""
    parsed = parse(certificate)
    return Life(_to_ns(parsed.not_valid_before_utc), _to_ns(parsed.not_valid_after_utc))


def issued_at_ns(certificate: bytes) -> int:
    """When a certificate of ours was made, by the clock of who made it. Raises ``ValueError`` if it is no certificate."""
    return life(certificate).not_before_ns + int(BACKDATE_S * 1e9)


def voter_of(certificate: bytes) -> str | None:
    """The node id of the voter that an issuing certificate of ours is for. Raises ``ValueError`` if it is no certificate."""
    name = parse(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    kind, _, voter = str(name[0].value).partition(" ") if name else ("", "", "")
    return voter if kind == "issuing" else None


def public_key_of(certificate: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of the holder. Raises ``ValueError`` if it is no certificate."""
    try:
        return _spki(parse(certificate).public_key())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


@lru_cache(maxsize=256)
def parse(certificate: bytes) -> x509.Certificate:
    """The parsed certificate. Raises ``ValueError``."""
    try:
        return x509.load_der_x509_certificate(certificate)
    except (UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(str(error)) from error


def is_ca(certificate: bytes) -> bool:
    """Whether it may sign others: basic constraints and key usage say so (RFC 5280, 4.2.1.3 and 4.2.1.9)."""
    parsed = parse(certificate)
    try:
        if not parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except (x509.ExtensionNotFound, ValueError):
        return False
    try:
        return parsed.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False


def signed_by(certificate: bytes, signer: bytes) -> bool:
    """Whether ``signer`` issued ``certificate`` directly: names agree and the signature is good. Life is not looked at.

    Raises ``ValueError`` if one of them is no certificate.
    """
    child, parent = parse(certificate), parse(signer)
    if not certificate.endswith(b"\0" + child.signature):
        return False  # a signature is whole bytes; its encoding is no part of what was signed
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def is_self_signed(certificate: bytes) -> bool:
    """Whether it is a root. Raises ``ValueError`` if it is no certificate."""
    return signed_by(certificate, certificate)


def to_pem(certificates: tuple[bytes, ...] | list[bytes]) -> bytes:
    """All of them as one PEM text, in that order."""
    return b"".join(parse(certificate).public_bytes(Encoding.PEM) for certificate in certificates)


def from_pem(pem: bytes) -> tuple[bytes, ...]:
    """All certificates of a PEM text as DER. Raises ``ValueError`` if there is none or one is broken."""
    try:
        return tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def _issue(
    kind: str,
    public_key: bytes,
    signer: bytes,
    signer_key: CaKey,
    now_ns: int,
    life_s: float,
    randomness: Randomness,
) -> bytes:
    if not signing.can_verify(public_key):
        raise Misuse(f"the public key of a {kind} is Ed25519 or P-256")
    identity = node_id(public_key)
    names = (f"{identity}.{kind}.caso-mesh",)
    subject = _name(identity, None)
    return _build(subject, public_key, signer, signer_key, now_ns, life_s, randomness, path_length=None, names=names)


def _build(
    subject: x509.Name,
    public_key: bytes,
    signer: bytes | None,
    signer_key: CaKey,
    now_ns: int,
    life_s: float,
    randomness: Randomness,
    *,
    path_length: int | None,
    names: tuple[str, ...],
) -> bytes:
    """One certificate; ``path_length`` ``None`` means that it signs nobody, ``signer`` ``None`` that it signs itself."""
    not_after = _to_time(now_ns + int(life_s * 1e9))
    issuer = subject
    if signer is not None:
        parent = parse(signer)
        issuer = parent.subject
        not_after = min(not_after, parent.not_valid_after_utc)
        if not_after <= _to_time(now_ns):
            raise CaUnusable(path=issuer.rfc4514_string(), detail="its certificate has expired")
    holder = load_der_public_key(public_key)
    if not isinstance(holder, (Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise Misuse("certificates are made for Ed25519, elliptic curve and RSA keys")
    signs = path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(holder)
        # 159 random bits, positive and at most 20 bytes long (RFC 5280, 4.1.2.2)
        .serial_number((int.from_bytes(randomness(20), "big") >> 1) | 1)
        .not_valid_before(_to_time(now_ns - int(BACKDATE_S * 1e9)))
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=signs, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs=signs), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(holder), critical=False)
        .add_extension(_authority_key(signer, signer_key), critical=False)
    )
    if not signs:
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(both, critical=False)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    algorithm = None if isinstance(signer_key, Ed25519PrivateKey) else SHA256()
    return builder.sign(signer_key, algorithm).public_bytes(Encoding.DER)


def _authority_key(signer: bytes | None, signer_key: CaKey) -> x509.AuthorityKeyIdentifier:
    # an own CA may have chosen its key identifier by another rule than ours
    if signer is not None:
        try:
            known = parse(signer).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except (x509.ExtensionNotFound, ValueError):
            pass
        else:
            return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key())


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str, organisation: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organisation:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation[:64]))
    return x509.Name(parts)


def _spki(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _to_time(at_ns: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=at_ns // 1_000_000_000)


def _to_ns(moment: datetime.datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000_000
