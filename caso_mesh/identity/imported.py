"""What opens a device of another mesh: sealed to servers of this one, each copy bound to the vault and the server.

It is sealed where the recovery kit of that mesh is; neither the administrator nor a server that forwards the call sees it open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import InvalidValue, SealBroken
from caso_mesh.sealing import wrapping

Unwrap = Callable[[bytes, bytes], bytes]

#: Content keys that one vault of another mesh may have.
MOST_KEYS = 60


class ForeignKeys(Struct, frozen=True):
    """The id key of the other mesh, and the content keys of the vault by their ids. Shows nothing of them."""

    id_key: bytes
    content_keys: dict[str, bytes]

    def __repr__(self) -> str:
        return "<ForeignKeys>"


def seal_foreign(
    found: ForeignKeys, recipients: Mapping[str, bytes], *, vault: str, randomness: Randomness
) -> dict[str, bytes]:
    """A copy for each recipient: node id -> raw X25519 public key. Raises
    ``SealBroken`` for a key that nothing can be sealed to, ``InvalidValue`` for too many content keys."""
    if len(found.content_keys) > MOST_KEYS:
        raise InvalidValue(
            value=len(found.content_keys), what="number of content keys", expected=f"Use at most {MOST_KEYS}"
        )
    data = msgspec.msgpack.encode(found)
    return {
        node: wrapping.wrap(data, key, aad=_aad(vault, node), randomness=randomness)
        for node, key in sorted(recipients.items())
    }


def open_foreign(unwrap: Unwrap, sealed: bytes, *, vault: str, node: str) -> ForeignKeys:
    """A server's own copy. Raises ``SealBroken``."""
    try:
        return msgspec.msgpack.decode(unwrap(sealed, _aad(vault, node)), type=ForeignKeys)
    except msgspec.MsgspecError as error:
        raise SealBroken(object="what opens a device of another mesh") from error


def _aad(vault: str, node: str) -> bytes:
    parts = (b"imported", vault.encode(), node.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
