"""Key derivation: HKDF with SHA-256 (RFC 5869)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from caso_mesh.model.errors import Misuse

_PREFIX = b"caso-mesh/derive/1"


def derive(key: bytes, *, domain: str, context: bytes, length: int = 32) -> bytes:
    """``length`` bytes derived from ``key`` for one purpose.

    ``domain`` names the purpose (1 to 255 ASCII bytes) and ``context`` the object; different pairs give independent
    keys, since both are framed by their lengths. ``key`` must itself be uniformly random or the result of a key
    exchange.
    """
    name = domain.encode("ascii")
    if not 1 <= len(name) <= 255:
        raise Misuse("a domain has 1 to 255 bytes")
    info = _PREFIX + bytes([len(name)]) + name + len(context).to_bytes(8, "big") + context
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key)
