"""Bulk channels as the engines see them: calls that block, and that survive the loss of a connection."""

from __future__ import annotations

import hashlib

from caso_mesh.model.ids import base32

#: A label of a server name has at most 63 characters, eight of which are taken.
_TOKEN_CHARACTERS = 32


def bulk_token(secret: bytes) -> str:
    """What names an attempt's bulk channel in the clear: it shows nothing of the secret."""
    return base32(hashlib.sha256(secret).digest())[:_TOKEN_CHARACTERS]
