"""Small sealed objects: writers, sessions, sets, index segments.

Each is sealed with a key of its own, derived from a content key, the vault, its name and a random salt; inside lies
what it says, and who signed that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgspec
from blake3 import blake3
from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import DataDamaged, Misuse, NoKey, SealBroken
from caso_mesh.sealing.aead import NONCE_SIZE, TAG_SIZE, Sealer
from caso_mesh.sealing.derive import derive
from caso_mesh.vault.backend import Backend
from caso_mesh.vault.chunking import ID_KEY_SIZE
from caso_mesh.vault.header import VaultHeader
from caso_mesh.vault.names import FORMAT_VERSION, MAGIC, Kind

#: (server id, domain, message, signature): whether that server signed it, as the roster says.
Verify = Callable[[str, str, bytes, bytes], bool]

SALT_SIZE = 16
#: Each object has a key of its own, so one nonce is enough.
NO_NONCE = bytes(NONCE_SIZE)
_FIXED = struct.Struct("<8sBB16sB")
_TRAILER = struct.Struct("<I")


class Signer(Struct, frozen=True):
    """Who signs: ``server`` is the node id, ``sign(domain, message)`` its signature."""

    server: str
    sign: Callable[[str, bytes], bytes]


class VaultKeys(Struct, frozen=True):
    """``id_key`` names chunks; ``content_keys`` (key id to 32 bytes) open what lies here; ``write_key`` is the id of
    the one that seals what is new."""

    id_key: bytes
    content_keys: dict[str, bytes]
    write_key: str

    def check(self) -> None:
        """Raises ``Misuse``."""
        if len(self.id_key) != ID_KEY_SIZE or self.write_key not in self.content_keys:
            raise Misuse("the id key has 32 bytes, and the write key is one of the content keys")


def framed(*parts: bytes) -> bytes:
    """The parts, each after its length (4 bytes, little-endian), so that no two lists give the same bytes."""
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def preamble(kind: Kind, salt: bytes, key_id: str) -> bytes:
    """The clear beginning of a sealed object. ``salt`` is random, 16 bytes; a pack's is its id."""
    text = key_id.encode("ascii")
    return _FIXED.pack(MAGIC, FORMAT_VERSION, kind, salt, len(text)) + text


def parse_preamble(name: str, kind: Kind, content: bytes) -> tuple[bytes, str, int]:
    """Salt, key id, and where the preamble ends. Raises ``DataDamaged``."""
    if len(content) < _FIXED.size:
        raise DataDamaged(object=name, detail="it is too short")
    magic, version, found, salt, size = _FIXED.unpack_from(content)
    if magic != MAGIC:
        raise DataDamaged(object=name, detail="it does not begin as an object of a vault")
    if version != FORMAT_VERSION or found != kind:
        raise DataDamaged(object=name, detail=f"it is of version {version} and kind {found}")
    end = _FIXED.size + size
    try:
        key_id = content[_FIXED.size : end].decode("ascii")
    except UnicodeDecodeError as error:
        raise DataDamaged(object=name, detail="the id of its key is not one") from error
    return salt, key_id, end


def object_key(content_key: bytes, kind: Kind, vault: str, *context: bytes) -> bytes:
    """The key of one object, out of a content key."""
    return derive(content_key, domain=kind.domain, context=framed(vault.encode(), *context))


class ObjectStore:
    """Writes and reads sealed, signed objects of one vault. Thread-safe."""

    def __init__(
        self, backend: Backend, header: VaultHeader, keys: VaultKeys, *, verify: Verify, randomness: Randomness
    ) -> None:
        self.backend = backend
        self.header = header
        self.keys = keys
        self.randomness = randomness
        self._verify = verify

    def content_key(self, key_id: str) -> bytes:
        """Raises ``NoKey``."""
        key = self.keys.content_keys.get(key_id)
        if key is None:
            raise NoKey(device=self.header.vault)
        return key

    def write(self, kind: Kind, name: str, payload: bytes, signer: Signer) -> int:
        """Adds an object; returns its size in bytes. Raises what ``Backend.put`` raises."""
        salt = self.randomness(SALT_SIZE)
        head = preamble(kind, salt, self.keys.write_key)
        signature = signer.sign(kind.domain, self._message(name, payload))
        trailer = msgspec.msgpack.encode((signer.server, signature))
        body = b"".join((payload, trailer, _TRAILER.pack(len(trailer))))
        sealed = bytearray(len(body) + TAG_SIZE)
        self._sealer(kind, name, salt, self.keys.write_key).seal_into(NO_NONCE, body, head, sealed)
        self.backend.put(name, [head, sealed])
        return len(head) + len(sealed)

    def read(self, kind: Kind, name: str) -> tuple[bytes, str]:
        """What it says, and which server signed it. Raises ``ObjectMissing``, ``DataDamaged``, ``NoKey``."""
        return self.check_body(kind, name, self.read_body(kind, name))

    def read_body(self, kind: Kind, name: str) -> bytes:
        """What was sealed: payload and signature, not yet checked."""
        content = self.backend.get(name)
        salt, key_id, end = parse_preamble(name, kind, content)
        if len(content) < end + TAG_SIZE:
            raise DataDamaged(object=name, detail="it is too short")
        body = bytearray(len(content) - end - TAG_SIZE)
        try:
            self._sealer(kind, name, salt, key_id).open_into(NO_NONCE, memoryview(content)[end:], content[:end], body)
        except SealBroken as error:
            raise DataDamaged(object=name, detail="it was changed, or sealed with another key") from error
        return bytes(body)

    def check_body(self, kind: Kind, name: str, body: bytes | memoryview) -> tuple[bytes, str]:
        """Payload and signing server. Raises ``DataDamaged`` if the signature is not that of a server on the roster."""
        payload, server = self.split_body(kind, name, body)
        return bytes(payload), server

    def split_body(self, kind: Kind, name: str, body: bytes | memoryview) -> tuple[memoryview, str]:
        """As ``check_body``; the payload is a view into ``body``."""
        view = memoryview(body)
        try:
            (size,) = _TRAILER.unpack_from(view, len(view) - _TRAILER.size)
            end = len(view) - _TRAILER.size - size
            if end < 0:
                raise DataDamaged(object=name, detail="it is too short for a signature")
            server, signature = msgspec.msgpack.decode(view[end : end + size], type=tuple[str, bytes])
        except (struct.error, msgspec.MsgspecError) as error:
            raise DataDamaged(object=name, detail="it carries no signature") from error
        payload = view[:end]
        if not self._verify(server, kind.domain, self._message(name, payload), signature):
            raise DataDamaged(object=name, detail=f"it is not signed by {server} as the roster knows it")
        return payload, server

    def _message(self, name: str, payload: bytes | memoryview) -> bytes:
        return framed(self.header.vault.encode(), name.encode(), blake3(payload).digest())

    def _sealer(self, kind: Kind, name: str, salt: bytes, key_id: str) -> Sealer:
        key = object_key(self.content_key(key_id), kind, self.header.vault, name.encode(), salt)
        return Sealer(key, object=name)
