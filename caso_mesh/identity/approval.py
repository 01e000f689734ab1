"""The code by which a person approves a discovered server: commit, reveal, compare (as in ZRTP, RFC 6189, 4.4.1).

Both ends first send a commitment to (nonce, public key), then reveal both. Whoever sits in between would have to choose
keys before it sees the nonces, and has one chance in 2^40 that both ends show the same code.
"""

from __future__ import annotations

import hashlib
import hmac

from caso_mesh.model.errors import Misuse
from caso_mesh.model.ids import base32

#: Bytes of a nonce.
NONCE_SIZE = 32
_COMMIT, _CODE = b"caso-mesh/approval/commit/1", b"caso-mesh/approval/code/1"


def commitment(nonce: bytes, key: bytes) -> bytes:
    """What an end sends first, 32 bytes. ``key`` is its public key, DER SubjectPublicKeyInfo."""
    if len(nonce) != NONCE_SIZE:
        raise Misuse(f"a nonce has {NONCE_SIZE} bytes")
    return _hash(_COMMIT, nonce, key)


def check_reveal(committed: bytes, nonce: bytes, key: bytes) -> bool:
    """Whether what the other end revealed is what it had committed to. ``False`` for anything malformed."""
    return len(nonce) == NONCE_SIZE and hmac.compare_digest(committed, _hash(_COMMIT, nonce, key))


def code(nonce_a: bytes, key_a: bytes, nonce_b: bytes, key_b: bytes) -> str:
    """The 8 characters that both ends show. ``a`` is the one that dialled (the administrator), ``b`` the new server."""
    return base32(_hash(_CODE, nonce_a, key_a, nonce_b, key_b))[:8]


def codes_equal(shown: str, typed: str) -> bool:
    """Whether a person typed the code that is shown; case, spaces and hyphens do not count."""
    plain = "".join(typed.replace("-", "").split()).lower()
    return hmac.compare_digest(shown.encode(), plain.encode())


def _hash(domain: bytes, *parts: bytes) -> bytes:
    state = hashlib.sha256(domain)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()
