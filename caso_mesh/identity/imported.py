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
from caso_mesh.sealing.aead import KEY_SIZE, NONCE_SIZE, Sealer

Unwrap = Callable[[bytes, bytes], bytes]

#: Content keys that one vault of another mesh may have: each copy of them (some 60 bytes a key) lies in the control state, and
#: a vault gets a new one when somebody is not to read any more what will be written to it.
MOST_KEYS = 1000
#: What a copy begins with that is too long to be wrapped: a wrapped key follows, then what is sealed with that. One that is
#: short is wrapped itself.
_LONG = b"\x02"
_WRAPPED = wrapping.OVERHEAD + KEY_SIZE
#: A key seals one copy only, so its nonce can be fixed.
_NONCE = bytes(NONCE_SIZE)
_OBJECT = "what opens a device of another mesh"


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

    def seal(public_key: bytes, aad: bytes) -> bytes:
        if len(data) <= wrapping.LONGEST_SECRET:
            return wrapping.wrap(data, public_key, aad=aad, randomness=randomness)
        key = randomness(KEY_SIZE)
        wrapped = wrapping.wrap(key, public_key, aad=aad, randomness=randomness)
        return _LONG + wrapped + Sealer(key, object=_OBJECT).seal(_NONCE, data, aad)

    return {node: seal(key, _aad(vault, node)) for node, key in sorted(recipients.items())}


def open_foreign(unwrap: Unwrap, sealed: bytes, *, vault: str, node: str) -> ForeignKeys:
    """A server's own copy. Raises ``SealBroken``."""
    aad = _aad(vault, node)
    if sealed[:1] == _LONG:
        begin = len(_LONG) + _WRAPPED
        key = unwrap(sealed[len(_LONG) : begin], aad)
        if len(key) != KEY_SIZE:
            raise SealBroken(object=_OBJECT)
        data = Sealer(key, object=_OBJECT).open(_NONCE, sealed[begin:], aad)
    else:
        data = unwrap(sealed, aad)
    try:
        return msgspec.msgpack.decode(data, type=ForeignKeys)
    except msgspec.MsgspecError as error:
        raise SealBroken(object=_OBJECT) from error


def _aad(vault: str, node: str) -> bytes:
    parts = (b"imported", vault.encode(), node.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
