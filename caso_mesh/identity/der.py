"""What programs need of certificates that start for one question: read here if they are of the usual kind, Ed25519.

All else is left to ``certificates``, whose library of X.509 takes longer to load than most questions to answer. Where
both answer they agree. Certificates are DER (RFC 5280), Ed25519 in them RFC 8410.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

from msgspec import Struct

#: SubjectPublicKeyInfo before the 32 bytes of a key, AlgorithmIdentifier, and PKCS #8 before the 32 bytes of a private key.
SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
PKCS8_PREFIX = bytes.fromhex("302e020100300506032b657004220420")
_ALGORITHM = bytes.fromhex("300506032b6570")
_SEQUENCE, _BIT_STRING, _VERSION = 0x30, 0x03, 0xA0
_BEGIN, _END = b"-----BEGIN %s-----\n", b"-----END %s-----"


class _Parts(Struct, frozen=True):
    """A certificate for an Ed25519 key; each part is its whole encoding. ``signature`` is empty if it is by another
    kind of key."""

    signed: bytes
    issuer: bytes
    subject: bytes
    public_key: bytes
    signature: bytes


def public_key_of(certificate: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of the holder. Raises ``ValueError`` if it is no certificate."""
    parts = _take_apart(certificate)
    if parts is not None:
        return parts.public_key
    from caso_mesh.identity import certificates

    return certificates.public_key_of(certificate)


def signed_by(certificate: bytes, signer: bytes) -> bool:
    """As ``certificates.signed_by``: names agree and the signature is good."""
    child, parent = _take_apart(certificate), _take_apart(signer)
    if child is None or parent is None or not child.signature:
        from caso_mesh.identity import certificates

        return certificates.signed_by(certificate, signer)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if child.issuer != parent.subject:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(parent.public_key[len(SPKI_PREFIX) :]).verify(child.signature, child.signed)
    except InvalidSignature:
        return False
    return True


def is_self_signed(certificate: bytes) -> bool:
    """Whether it is a root. Raises ``ValueError`` if it is no certificate."""
    return signed_by(certificate, certificate)


def from_pem(pem: bytes) -> tuple[bytes, ...]:
    """All certificates of a PEM text as DER. Raises ``ValueError`` if there is none or one is broken."""
    found = _blocks(pem, b"CERTIFICATE")
    if found and all(_take_apart(each) is not None for each in found):
        return found
    from caso_mesh.identity import certificates

    return certificates.from_pem(pem)


def private_key_in(pem: bytes) -> bytes | None:
    """The 32 bytes of an unencrypted Ed25519 private key, alone in a PEM file; ``None`` if it holds anything else."""
    found = _blocks(pem, b"PRIVATE KEY")
    if len(found) != 1 or len(found[0]) != len(PKCS8_PREFIX) + 32 or not found[0].startswith(PKCS8_PREFIX):
        return None
    return found[0][len(PKCS8_PREFIX) :]


def _blocks(pem: bytes, label: bytes) -> tuple[bytes, ...]:
    """The contents of a PEM text (RFC 7468) that has blocks of this kind and nothing else; none if it has."""
    blocks: list[bytes] = []
    begin, end = _BEGIN % label, _END % label
    rest = pem.strip()
    while rest:
        body, found, after = rest.removeprefix(begin).partition(end)
        if not rest.startswith(begin) or not found:
            return ()
        try:
            blocks.append(base64.b64decode(body.replace(b"\n", b""), validate=True))
        except binascii.Error:
            return ()
        rest = after.strip()
    return tuple(blocks)


@lru_cache(maxsize=64)
def _take_apart(certificate: bytes) -> _Parts | None:
    """``None`` for whatever is not exactly a certificate for an Ed25519 key."""
    try:
        outer, end = _value(certificate, 0, _SEQUENCE)
        if end != len(certificate):
            return None
        signed, at = _encoding(certificate, outer, _SEQUENCE)
        algorithm, at = _encoding(certificate, at, _SEQUENCE)
        bits, stop = _value(certificate, at, _BIT_STRING)
        if stop != end:
            return None
        # version, serial number, algorithm, issuer, validity, subject, key
        at, _ = _value(signed, 0, _SEQUENCE)
        if signed[at] == _VERSION:
            _, at = _encoding(signed, at, _VERSION)
        _, at = _encoding(signed, at, 0x02)
        inner_algorithm, at = _encoding(signed, at, _SEQUENCE)
        issuer, at = _encoding(signed, at, _SEQUENCE)
        _, at = _encoding(signed, at, _SEQUENCE)
        subject, at = _encoding(signed, at, _SEQUENCE)
        public_key, _ = _encoding(signed, at, _SEQUENCE)
    except (IndexError, ValueError):
        return None
    if len(public_key) != len(SPKI_PREFIX) + 32 or not public_key.startswith(SPKI_PREFIX):
        return None
    signature = b""
    if algorithm == inner_algorithm == _ALGORITHM and certificate[bits] == 0:
        signature = certificate[bits + 1 : stop]
    return _Parts(signed, issuer, subject, public_key, signature)


def _encoding(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """The whole encoding of the value at ``at``, and where the next begins."""
    _, end = _value(data, at, tag)
    return data[at:end], end


def _value(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the value at ``at`` begins behind its length, and where it ends. Raises ``ValueError``, ``IndexError``."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 3:
            raise ValueError
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
        if length < 0x80 or length < 1 << 8 * (count - 1):
            raise ValueError  # longer than it has to be: no DER
    if data[at] != tag or start + length > len(data):
        raise ValueError
    return start, start + length
