"""Sealing a short secret to a public key: ephemeral X25519 (RFC 7748), HKDF-SHA256, AES-256-GCM.

The shape is that of ECIES / HPKE base mode (RFC 9180): the derived key depends on the shared secret, the ephemeral key,
the recipient's key and the caller's additional data, so that a wrapped secret opens only for whom and for what it was
made. Layout: version 1 (one byte), ephemeral public key (32 bytes), sealed secret with its tag.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import Misuse, SealBroken
from caso_mesh.sealing.aead import NONCE_SIZE, TAG_SIZE, Sealer
from caso_mesh.sealing.derive import derive

_VERSION = b"\x01"
_DOMAIN = "wrap/x25519"
#: The longest secret, in bytes: keys and small records, never content.
LONGEST_SECRET = 4096
#: Bytes by which a wrapped secret is longer than the secret.
OVERHEAD = 1 + 32 + TAG_SIZE
#: The key is used for one text only, so its nonce can be fixed.
_NONCE = bytes(NONCE_SIZE)


def wrap(secret: bytes, public_key: bytes, *, aad: bytes, randomness: Randomness) -> bytes:
    """``secret`` sealed to the holder of the raw X25519 ``public_key`` (32 bytes) and bound to ``aad``.

    Raises ``Misuse`` if the secret is longer than ``LONGEST_SECRET``, and ``SealBroken`` if the key is not one that
    anything can be sealed to.
    """
    if len(secret) > LONGEST_SECRET:
        raise Misuse(f"a secret of {len(secret)} bytes is too long to be wrapped")
    ephemeral = X25519PrivateKey.from_private_bytes(randomness(32))
    ephemeral_public = ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        # not 32 bytes, or of small order: the shared secret would be known to everybody
        raise SealBroken(object="a secret for an invalid encryption key") from None
    return _VERSION + ephemeral_public + _sealer(shared, ephemeral_public, public_key, aad).seal(_NONCE, secret, aad)


def unwrap(wrapped: bytes, private_key: bytes, *, aad: bytes) -> bytes:
    """The secret. ``private_key`` is raw, 32 bytes. Raises ``SealBroken``."""
    broken = SealBroken(object="a wrapped secret")
    if not OVERHEAD <= len(wrapped) <= OVERHEAD + LONGEST_SECRET or wrapped[:1] != _VERSION:
        raise broken
    key = X25519PrivateKey.from_private_bytes(private_key)
    ephemeral_public = wrapped[1:33]
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(ephemeral_public))
    except ValueError:
        raise broken from None
    return _sealer(shared, ephemeral_public, key.public_key().public_bytes_raw(), aad).open(_NONCE, wrapped[33:], aad)


def _sealer(shared: bytes, ephemeral_public: bytes, public_key: bytes, aad: bytes) -> Sealer:
    context = ephemeral_public + public_key + hashlib.sha256(aad).digest()
    return Sealer(derive(shared, domain=_DOMAIN, context=context), object="a wrapped secret")
