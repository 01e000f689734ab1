"""Signatures: Ed25519 (RFC 8032), and ECDSA on P-256 with SHA-256 (FIPS 186-5) for keys that people bring.

What is signed is always framed by a domain, so that a signature made for one purpose is never valid for another.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from caso_mesh.model.errors import Misuse

if TYPE_CHECKING:
    # the command line signs with Ed25519 and needs nothing else
    from cryptography.hazmat.primitives.asymmetric import ec

_PREFIX = b"caso-mesh/sign/1"

PrivateKey: TypeAlias = "Ed25519PrivateKey | ec.EllipticCurvePrivateKey"


def sign(key: bytes | PrivateKey, domain: str, message: bytes) -> bytes:
    """The signature of ``message`` for one purpose.

    ``key`` is a raw Ed25519 private key (32 bytes), or a key object, Ed25519 or P-256. ``domain`` has 1 to 255 ASCII
    bytes. An Ed25519 signature has 64 bytes and is always the same; a P-256 one is DER and differs each time.
    """
    if isinstance(key, bytes):
        key = Ed25519PrivateKey.from_private_bytes(key)
    framed = _framed(domain, message)
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(framed)
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    if not isinstance(key.curve, ec.SECP256R1):
        raise Misuse(f"keys on the curve {key.curve.name} do not sign")
    return key.sign(framed, ec.ECDSA(SHA256()))


def verify(public_key: bytes, domain: str, message: bytes, signature: bytes) -> bool:
    """Whether the holder of ``public_key`` (DER SubjectPublicKeyInfo) signed ``message`` for this purpose.

    ``False`` for anything wrong, a key of another kind included; it never raises for what a peer can choose.
    """
    key = _load(public_key)
    if key is None:
        return False
    framed = _framed(domain, message)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, framed)
        else:
            from cryptography.hazmat.primitives.asymmetric import ec
            from cryptography.hazmat.primitives.hashes import SHA256

            key.verify(signature, framed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def can_verify(public_key: bytes) -> bool:
    """Whether ``public_key`` (DER SubjectPublicKeyInfo) is of a kind that ``verify`` takes."""
    return _load(public_key) is not None


@lru_cache(maxsize=256)
def _load(public_key: bytes) -> Ed25519PublicKey | ec.EllipticCurvePublicKey | None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    return None


def _framed(domain: str, message: bytes) -> bytes:
    name = domain.encode("ascii")
    if not 1 <= len(name) <= 255:
        raise Misuse("a domain has 1 to 255 bytes")
    return _PREFIX + bytes([len(name)]) + name + message
