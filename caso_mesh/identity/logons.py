"""Secrets of logons: sealed to the servers that may use them, each copy bound to its mesh, its logon and its server.

They are sealed where they are typed; neither the administrator nor a server that forwards the call sees one open.
"""

from __future__ import annotations

from collections.abc import Mapping

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.clock import Randomness
from caso_mesh.sealing import wrapping


def seal_logon(
    secret: str, recipients: Mapping[str, bytes], *, mesh: str, name: str, version: str, randomness: Randomness
) -> dict[str, bytes]:
    """A copy for each recipient: node id -> raw X25519 public key. Raises ``SealBroken`` for a key that nothing can be
    sealed to."""
    data = secret.encode()
    return {
        node: wrapping.wrap(data, key, aad=_aad(mesh, name, version, node), randomness=randomness)
        for node, key in sorted(recipients.items())
    }


def open_logon(keys: NodeKeys, sealed: bytes, *, mesh: str, name: str, version: str) -> str:
    """The secret out of this server's own copy. Raises ``SealBroken``."""
    return keys.unwrap(sealed, _aad(mesh, name, version, keys.id)).decode()


def _aad(mesh: str, name: str, version: str, node: str) -> bytes:
    parts = (b"logon", mesh.encode(), name.encode(), version.encode(), node.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
