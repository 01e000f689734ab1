"""Private keys of nodes and operators. Identity is the key: a node id is the hash of its public signing key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from caso_mesh.identity import der
from caso_mesh.identity.private_files import make_private_folder, read_private, write_private
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import Misuse, StateDamaged, StateMissing
from caso_mesh.model.ids import node_id
from caso_mesh.sealing import signing

if TYPE_CHECKING:
    # Imported where they are used: the command line, which signs with Ed25519, would wait for them.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SIGNING_FILE = "node.key"
ENCRYPTION_FILE = "encryption.key"


class SigningKey:
    """A key that signs and that is somebody: Ed25519, or P-256 when it was brought along."""

    __slots__ = ("id", "private", "public_key")

    def __init__(self, private: signing.PrivateKey) -> None:
        #: The key object; it never leaves ``identity``.
        self.private = private
        #: DER SubjectPublicKeyInfo.
        self.public_key: bytes = _public_key(private)
        #: The id of its holder.
        self.id: str = node_id(self.public_key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:13]}>"

    @classmethod
    def create(cls, randomness: Randomness = os.urandom) -> SigningKey:
        """A new Ed25519 key."""
        return cls(Ed25519PrivateKey.from_private_bytes(randomness(32)))

    @classmethod
    def from_pem(cls, pem: bytes, path: Path) -> SigningKey:
        """The key of an unencrypted PEM file (PKCS #8 or SEC 1). Raises ``StateDamaged``, which names ``path``."""
        plain = der.private_key_in(pem)
        if plain is not None:
            return cls(Ed25519PrivateKey.from_private_bytes(plain))
        from cryptography.hazmat.primitives.asymmetric import ec

        key = _load_pem(pem, path)
        if not isinstance(key, (Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
            raise StateDamaged(path=path, detail="the key is neither Ed25519 nor P-256")
        if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
            raise StateDamaged(path=path, detail=f"the key is on the curve {key.curve.name}, not P-256")
        return cls(key)

    def to_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, domain: str, message: bytes) -> bytes:
        """See ``sealing.signing.sign``."""
        return signing.sign(self.private, domain, message)


class NodeKeys:
    """The two keys of a node: one signs (and is its identity), one opens what was wrapped to the node."""

    __slots__ = ("_encryption", "encryption_key", "id", "public_key", "signing")

    def __init__(self, signing_key: SigningKey, encryption: bytes) -> None:
        self.signing = signing_key
        self._encryption = encryption
        self.id: str = signing_key.id
        #: DER SubjectPublicKeyInfo of the signing key.
        self.public_key: bytes = signing_key.public_key
        #: Raw X25519 public key, 32 bytes.
        self.encryption_key: bytes = _x25519(encryption).public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"<NodeKeys {self.id[:13]}>"

    @classmethod
    def create(cls, randomness: Randomness = os.urandom) -> NodeKeys:
        """New keys: Ed25519 and X25519."""
        return cls(SigningKey.create(randomness), randomness(32))

    @classmethod
    def load(cls, folder: Path) -> NodeKeys:
        """The keys in ``folder``. Raises ``StateMissing`` if there are none, ``StateDamaged``."""
        signing_path, encryption_path = folder / SIGNING_FILE, folder / ENCRYPTION_FILE
        signing_pem, encryption_pem = read_private(signing_path), read_private(encryption_path)
        if signing_pem is None and encryption_pem is None:
            raise StateMissing(state=folder)
        if signing_pem is None or encryption_pem is None:
            raise StateDamaged(path=signing_path if signing_pem is None else encryption_path, detail="it is missing")
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        encryption = _load_pem(encryption_pem, encryption_path)
        if not isinstance(encryption, X25519PrivateKey):
            raise StateDamaged(path=encryption_path, detail="it is not an X25519 key")
        return cls(SigningKey.from_pem(signing_pem, signing_path), encryption.private_bytes_raw())

    def save(self, folder: Path) -> None:
        """Writes both keys, 0600, into ``folder``, 0700. Raises ``StateFull``."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        make_private_folder(folder)
        encryption = _x25519(self._encryption)
        # the signing key last: it is what makes the folder an identity
        write_private(
            folder / ENCRYPTION_FILE, encryption.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        write_private(folder / SIGNING_FILE, self.signing.to_pem())

    def to_bytes(self) -> tuple[bytes, bytes]:
        """The private keys, for the sealed copy of the mesh: PEM of the one that signs, 32 bytes of the other."""
        return self.signing.to_pem(), self._encryption

    @classmethod
    def from_bytes(cls, signing_pem: bytes, encryption: bytes, *, origin: Path) -> NodeKeys:
        """What ``to_bytes`` gave. Raises ``StateDamaged``, which names ``origin``."""
        if len(encryption) != 32:
            raise StateDamaged(path=origin, detail="it holds no X25519 key")
        return cls(SigningKey.from_pem(signing_pem, origin), encryption)

    def sign(self, domain: str, message: bytes) -> bytes:
        """The signature of ``message`` for one purpose, by the node's signing key."""
        return self.signing.sign(domain, message)

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """What ``sealing.wrapping.wrap`` sealed to ``encryption_key``. Raises ``SealBroken``."""
        from caso_mesh.sealing import wrapping

        return wrapping.unwrap(wrapped, self._encryption, aad=aad)


def _public_key(private: signing.PrivateKey) -> bytes:
    if isinstance(private, Ed25519PrivateKey):
        return der.SPKI_PREFIX + private.public_key().public_bytes_raw()
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if not isinstance(private.curve, ec.SECP256R1):
        raise Misuse(f"keys on the curve {private.curve.name} are not used")
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _x25519(private: bytes) -> X25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private)


def _load_pem(pem: bytes, path: Path) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise StateDamaged(path=path, detail="the key is locked with a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StateDamaged(path=path, detail="it holds no private key") from None
