"""AES-256-GCM (NIST SP 800-38D) into buffers that the caller keeps, so that a hot loop allocates nothing."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from caso_mesh.model.errors import Misuse, SealBroken

KEY_SIZE = 32
NONCE_SIZE = 12
#: Bytes by which a sealed text is longer than its plain text.
TAG_SIZE = 16


class Sealer:
    """Seals and opens with one key. A nonce must never be used twice for sealing with the same key.

    ``object`` names what is sealed, for the message of ``SealBroken``. An instance may be used from several threads;
    the work is done without the interpreter's lock for texts of more than a few hundred bytes.
    """

    __slots__ = ("_cipher", "_object")

    def __init__(self, key: bytes, *, object: str = "sealed data") -> None:
        if len(key) != KEY_SIZE:
            raise Misuse(f"a key has {KEY_SIZE} bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        self._object = object

    def seal_into(
        self,
        nonce: bytes,
        plaintext: bytes | bytearray | memoryview,
        aad: bytes,
        out: bytearray | memoryview,
    ) -> int:
        """Seals ``plaintext`` to the beginning of ``out``; returns the bytes written, ``len(plaintext) + TAG_SIZE``.

        ``plaintext`` and ``out`` must not overlap. Raises ``Misuse`` if ``out`` is too small or the nonce has not 12
        bytes.
        """
        size = len(plaintext) + TAG_SIZE
        _check(nonce, out, size)
        with memoryview(out)[:size] as target:
            self._cipher.encrypt_into(nonce, plaintext, aad, target)
        return size

    def open_into(
        self,
        nonce: bytes,
        sealed: bytes | bytearray | memoryview,
        aad: bytes,
        out: bytearray | memoryview,
    ) -> int:
        """Opens ``sealed`` to the beginning of ``out``; returns the bytes written, ``len(sealed) - TAG_SIZE``.

        Raises ``SealBroken`` (then that part of ``out`` is zeros: nobody can use what was not authenticated).
        """
        size = len(sealed) - TAG_SIZE
        if size < 0:
            raise SealBroken(object=self._object)
        _check(nonce, out, size)
        with memoryview(out)[:size] as target:
            try:
                self._cipher.decrypt_into(nonce, sealed, aad, target)
            except InvalidTag:
                target[:] = bytes(size)
                raise SealBroken(object=self._object) from None
        return size

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
        """``plaintext`` sealed, with its tag at the end."""
        _check_nonce(nonce)
        return self._cipher.encrypt(nonce, plaintext, aad)

    def open(self, nonce: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
        """The plain text. Raises ``SealBroken``."""
        _check_nonce(nonce)
        try:
            return self._cipher.decrypt(nonce, sealed, aad)
        except InvalidTag:
            raise SealBroken(object=self._object) from None


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_SIZE:
        raise Misuse(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")


def _check(nonce: bytes, out: bytearray | memoryview, size: int) -> None:
    _check_nonce(nonce)
    if len(out) < size:
        raise Misuse(f"the buffer has {len(out)} bytes, {size} are needed")
