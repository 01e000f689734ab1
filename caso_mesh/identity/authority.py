"""The right to issue certificates: an issuing certificate with its key, the root above it, the root's key if present.

A folder of it looks as ``certs/`` does: ``ca.pem``, ``issuing.pem``, ``issuing.key``, and ``ca.key`` while the root key
has not gone into a recovery kit.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from caso_mesh.identity import certificates
from caso_mesh.identity.certificates import NODE_LIFE_S, CaKey
from caso_mesh.identity.private_files import make_private_folder, read_private, remove_private, write_private
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import Misuse, StateDamaged, StateMissing
from caso_mesh.model.mesh import Anchor

ROOT_FILE, ROOT_KEY_FILE = "ca.pem", "ca.key"
ISSUING_FILE, ISSUING_KEY_FILE = "issuing.pem", "issuing.key"


class Authority:
    """Issues certificates. Held by the voters; the administrator in office uses its own."""

    __slots__ = ("_issuing_key", "_root_key", "issuing", "root")

    def __init__(self, *, root: bytes, issuing: bytes, issuing_key: CaKey, root_key: CaKey | None = None) -> None:
        if not belongs(issuing_key, issuing) or (root_key is not None and not belongs(root_key, root)):
            raise Misuse("a key does not belong to its certificate")
        #: DER.
        self.root = root
        #: DER; it is a trust anchor of the mesh while its voter is one.
        self.issuing = issuing
        self._issuing_key = issuing_key
        self._root_key = root_key

    def __repr__(self) -> str:
        return f"<Authority {certificates.fingerprint(self.issuing).hex()[:12]}>"

    @classmethod
    def create(
        cls, *, mesh_id: str, mesh_name: str, voter: str, now_ns: int, randomness: Randomness = os.urandom
    ) -> Authority:
        """A new root, and the issuing certificate of the first server (``voter``, its node id)."""
        root_key = create_ca_key(randomness)
        root = certificates.create_root(mesh_id, mesh_name, root_key, now_ns, randomness=randomness)
        return cls.from_root(root, root_key, voter=voter, mesh_name=mesh_name, now_ns=now_ns, randomness=randomness)

    @classmethod
    def from_root(
        cls,
        root: bytes,
        root_key: CaKey | bytes,
        *,
        voter: str,
        mesh_name: str,
        now_ns: int,
        randomness: Randomness = os.urandom,
    ) -> Authority:
        """A new issuing certificate, signed by the root: for ``init`` and ``recover``.

        ``root_key`` may be the bytes of ``root_key_bytes``. Raises ``Misuse`` if it does not belong to ``root``,
        ``CaUnusable`` if the root has expired.
        """
        if isinstance(root_key, bytes):
            root_key = _ca_key(load_der_private_key(root_key, password=None))
        issuing_key = create_ca_key(randomness)
        issuing = certificates.create_issuing(
            public_key_of_key(issuing_key),
            voter=voter,
            mesh_name=mesh_name,
            signer=root,
            signer_key=root_key,
            now_ns=now_ns,
            randomness=randomness,
        )
        return cls(root=root, issuing=issuing, issuing_key=issuing_key, root_key=root_key)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """What ``save`` wrote. Raises ``StateMissing`` if there is nothing, ``StateDamaged``."""
        if not (folder / ISSUING_FILE).exists():
            raise StateMissing(state=folder)
        root, issuing = _one_certificate(folder / ROOT_FILE), _one_certificate(folder / ISSUING_FILE)
        issuing_key = load_ca_key(folder / ISSUING_KEY_FILE)
        if issuing_key is None:
            raise StateDamaged(path=folder / ISSUING_KEY_FILE, detail="it is missing")
        root_key = load_ca_key(folder / ROOT_KEY_FILE)
        if not belongs(issuing_key, issuing):
            raise StateDamaged(path=folder / ISSUING_KEY_FILE, detail="it does not belong to issuing.pem")
        if root_key is not None and not belongs(root_key, root):
            raise StateDamaged(path=folder / ROOT_KEY_FILE, detail="it does not belong to ca.pem")
        return cls(root=root, issuing=issuing, issuing_key=issuing_key, root_key=root_key)

    def save(self, folder: Path) -> None:
        """Writes it into ``folder``, 0700, files 0600. A root key that lies there and is not held here is removed."""
        make_private_folder(folder)
        write_private(folder / ROOT_FILE, certificates.to_pem([self.root]))
        if self._root_key is None:
            remove_private(folder / ROOT_KEY_FILE)
        else:
            write_private(folder / ROOT_KEY_FILE, ca_key_to_pem(self._root_key))
        write_private(folder / ISSUING_KEY_FILE, ca_key_to_pem(self._issuing_key))
        write_private(folder / ISSUING_FILE, certificates.to_pem([self.issuing]))

    def become(self, other: Authority) -> None:
        """This one is the other one from now on, wherever it is held: without its root key."""
        self.root, self.issuing, self._issuing_key = other.root, other.issuing, other._issuing_key
        self._root_key = None

    @property
    def has_root_key(self) -> bool:
        return self._root_key is not None

    def root_key_bytes(self) -> bytes:
        """The root key as PKCS #8 DER, for a recovery kit. Raises ``Misuse`` if it is not here any more."""
        if self._root_key is None:
            raise Misuse("the root key is not here")
        return self._root_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def issuing_key_bytes(self) -> bytes:
        """The issuing key as PKCS #8 DER, for the sealed copy of the mesh."""
        return self._issuing_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @classmethod
    def from_bytes(cls, *, root: bytes, issuing: bytes, issuing_key: bytes) -> Authority:
        """What ``issuing_key_bytes`` gave, with its certificates. Raises ``ValueError``, ``Misuse``."""
        return cls(root=root, issuing=issuing, issuing_key=_ca_key(load_der_private_key(issuing_key, password=None)))

    def attest(self, domain: str, message: bytes) -> bytes:
        """A signature by the issuing key: only a voter can make it. See ``attested``."""
        key, framed = self._issuing_key, _framed(domain, message)
        if isinstance(key, Ed25519PrivateKey):
            return key.sign(framed)
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(framed, padding.PKCS1v15(), SHA256())
        return key.sign(framed, ec.ECDSA(SHA256()))

    def without_root_key(self) -> Authority:
        """The same without the root key: ``save`` it once a recovery kit is confirmed."""
        return Authority(root=self.root, issuing=self.issuing, issuing_key=self._issuing_key)

    def anchors(self, voter: str) -> tuple[Anchor, ...]:
        """The trust anchors of a mesh that has just this authority, held by ``voter`` (node id)."""
        return (Anchor(self.root), Anchor(self.issuing, voter))

    def chain(self, certificate: bytes) -> tuple[bytes, ...]:
        """A certificate that was issued here with what a peer may want to see above it."""
        return (certificate, self.issuing)

    def issue_node(
        self,
        public_key: bytes,
        *,
        now_ns: int,
        life_s: float = NODE_LIFE_S,
        randomness: Randomness = os.urandom,
    ) -> bytes:
        """See ``certificates.issue_node``."""
        return certificates.issue_node(
            public_key,
            signer=self.issuing,
            signer_key=self._issuing_key,
            now_ns=now_ns,
            life_s=life_s,
            randomness=randomness,
        )

    def issue_operator(
        self,
        public_key: bytes,
        *,
        now_ns: int,
        life_s: float = NODE_LIFE_S,
        randomness: Randomness = os.urandom,
    ) -> bytes:
        """See ``certificates.issue_operator``."""
        return certificates.issue_operator(
            public_key,
            signer=self.issuing,
            signer_key=self._issuing_key,
            now_ns=now_ns,
            life_s=life_s,
            randomness=randomness,
        )

    def issue_issuing(
        self, public_key: bytes, *, voter: str, mesh_name: str, now_ns: int, randomness: Randomness = os.urandom
    ) -> bytes:
        """The issuing certificate of a new voter (node id), for the issuing key that it made itself."""
        return certificates.create_issuing(
            public_key,
            voter=voter,
            mesh_name=mesh_name,
            signer=self.issuing,
            signer_key=self._issuing_key,
            now_ns=now_ns,
            randomness=randomness,
        )


def attested(issuing: bytes, domain: str, message: bytes, signature: bytes) -> bool:
    """Whether the holder of the certificate ``issuing`` (DER) made ``signature`` by ``Authority.attest``. ``False`` for
    anything wrong; whether the certificate is to be trusted is another question."""
    try:
        key = load_der_public_key(certificates.public_key_of(issuing))
        framed = _framed(domain, message)
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, framed)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, framed, padding.PKCS1v15(), SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, framed, ec.ECDSA(SHA256()))
        else:
            return False
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _framed(domain: str, message: bytes) -> bytes:
    name = domain.encode("ascii")
    return b"caso-mesh/attest/1" + bytes([len(name)]) + name + message


def create_ca_key(randomness: Randomness = os.urandom) -> Ed25519PrivateKey:
    """A new key for a root or an issuing certificate."""
    return Ed25519PrivateKey.from_private_bytes(randomness(32))


def public_key_of_key(key: CaKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def belongs(key: CaKey, certificate: bytes) -> bool:
    """Whether ``certificate`` is for ``key``. Raises ``ValueError`` if it is no certificate."""
    return public_key_of_key(key) == certificates.public_key_of(certificate)


def ca_key_to_pem(key: CaKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_ca_key(path: Path) -> CaKey | None:
    """The key of a PEM file, ``None`` if there is none. Raises ``StateDamaged``, which says why."""
    pem = read_private(path)
    if pem is None:
        return None
    try:
        return _ca_key(load_pem_private_key(pem, password=None))
    except TypeError:
        raise StateDamaged(path=path, detail="the key is locked with a passphrase; give it unlocked") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StateDamaged(
            path=path, detail=str(error) if isinstance(error, _WrongKind) else "no private key"
        ) from None


class _WrongKind(ValueError):
    pass


def _ca_key(key: object) -> CaKey:
    if isinstance(key, (Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    raise _WrongKind("the key is none of Ed25519, elliptic curve, RSA with 2048 bits or more")


def _one_certificate(path: Path) -> bytes:
    pem = read_private(path)
    if pem is None:
        raise StateDamaged(path=path, detail="it is missing")
    try:
        return certificates.from_pem(pem)[0]
    except ValueError:
        raise StateDamaged(path=path, detail="it holds no certificate") from None
