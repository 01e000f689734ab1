"""Sealing with a passphrase: Argon2id (RFC 9106), then AES-256-GCM.

Layout: magic (8 bytes), memory in KiB, iterations, lanes (4 bytes each, big-endian), salt (16), nonce (12), sealed text.
Everything before the sealed text is authenticated with it. The parameters are bounded when read, so that a forged file
cannot spend all memory or time.
"""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import DataDamaged, Misuse, PassphraseWrong, SealBroken
from caso_mesh.sealing.aead import NONCE_SIZE, TAG_SIZE, Sealer
from caso_mesh.sealing.derive import derive

_MAGIC = b"CMpass\x00\x01"
_HEADER = struct.Struct(">8sIII16s12s")
_SALT_SIZE = 16


class Cost(Struct, frozen=True):
    """What one try of a passphrase costs. The default is the second recommendation of RFC 9106, section 4, with twice
    its memory: 128 MiB, about a third of a second."""

    memory_kib: int = 128 * 1024
    iterations: int = 3
    lanes: int = 4

    def allowed(self) -> bool:
        """Whether a file with these parameters is opened at all: at most 1 GiB, 16 passes, 16 lanes."""
        return 1 <= self.lanes <= 16 and 1 <= self.iterations <= 16 and 8 * self.lanes <= self.memory_kib <= 1024 * 1024


def seal_with_passphrase(
    data: bytes, passphrase: str, *, purpose: str, randomness: Randomness, cost: Cost | None = None
) -> bytes:
    """``data`` sealed so that only the passphrase opens it, and only for the same ``purpose`` (ASCII).

    Takes a third of a second of CPU and the memory of ``cost``: call it in a thread. Raises ``Misuse`` if the cost is
    beyond what ``open_with_passphrase`` accepts.
    """
    cost = cost or Cost()
    if not cost.allowed():
        raise Misuse("the cost is outside the bounds of what can be opened")
    salt, nonce = randomness(_SALT_SIZE), randomness(NONCE_SIZE)
    header = _HEADER.pack(_MAGIC, cost.memory_kib, cost.iterations, cost.lanes, salt, nonce)
    return header + _sealer(passphrase, purpose, salt, cost).seal(nonce, data, header)


def open_with_passphrase(sealed: bytes, passphrase: str, *, purpose: str, object: str = "the file") -> bytes:
    """What ``seal_with_passphrase`` sealed. ``object`` names it in messages.

    Raises ``DataDamaged`` if it is no such file or its parameters are out of bounds, ``PassphraseWrong`` if the
    passphrase does not open it (or its content was changed: the two cannot be told apart).
    """
    if len(sealed) < _HEADER.size + TAG_SIZE:
        raise DataDamaged(object=object, detail="it is too short")
    header = sealed[: _HEADER.size]
    magic, memory_kib, iterations, lanes, salt, nonce = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise DataDamaged(object=object, detail="it is not sealed with a passphrase")
    cost = Cost(memory_kib, iterations, lanes)
    if not cost.allowed():
        raise DataDamaged(object=object, detail="its parameters are out of bounds")
    try:
        return _sealer(passphrase, purpose, salt, cost).open(nonce, sealed[_HEADER.size :], header)
    except SealBroken:
        raise PassphraseWrong(object=object) from None


def _sealer(passphrase: str, purpose: str, salt: bytes, cost: Cost) -> Sealer:
    stretched = Argon2id(
        salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    ).derive(passphrase.encode("utf-8", "surrogateescape"))
    return Sealer(derive(stretched, domain="passphrase", context=purpose.encode("ascii")))
