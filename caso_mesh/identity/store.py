"""What lies in a state folder's ``identity/``, and what an operator keeps on a machine that is no server.

::

    identity/                      0700, all files 0600
        node.key encryption.key    the node's two keys
        node.pem                   its certificate, then the issuing one
        anchors.pem                trust anchors: the root first
        mesh.id                    the mesh it belongs to
        id.key                     the mesh's chunk-id key, 32 bytes
        operator.key operator.pem  the local operator
        authority/                 voters: ca.pem issuing.pem issuing.key (ca.key until a recovery kit is confirmed)
        authority-next/            the same of a rotation of the CA that is announced
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from caso_mesh.identity import der
from caso_mesh.identity.keys import SIGNING_FILE, NodeKeys, SigningKey
from caso_mesh.identity.private_files import make_private_folder, read_private, remove_private, write_private
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import Misuse, StateDamaged, StateMissing
from caso_mesh.model.ids import NAME

if TYPE_CHECKING:
    # Imported where they are used: they take long to load, and the command line only reads keys and certificates.
    from caso_mesh.identity.authority import Authority
    from caso_mesh.identity.certificates import CaKey

_ID_KEY_SIZE = 32


def _to_pem(chain: tuple[bytes, ...]) -> bytes:
    from caso_mesh.identity import certificates

    return certificates.to_pem(chain)


class OperatorIdentity(Struct, frozen=True):
    """An operator's key with its certificate chain (DER), and where both lie for ``ssl``."""

    key: SigningKey
    chain: tuple[bytes, ...]
    chain_path: Path
    key_path: Path


class IdentityStore:
    """The files of one ``identity/`` folder. Every ``save_*`` is atomic and durable, and blocks for some fsyncs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: For ``tls.server_context`` and ``tls.client_context``.
        self.chain_path = folder / "node.pem"
        self.key_path = folder / SIGNING_FILE
        self.operator_chain_path = folder / "operator.pem"
        self.operator_key_path = folder / "operator.key"
        self.authority_folder = folder / "authority"

    # --- the node -----------------------------------------------------------------------------------------------------

    def save_keys(self, keys: NodeKeys) -> None:
        keys.save(self.folder)

    def load_keys(self) -> NodeKeys:
        """Raises ``StateMissing``, ``StateDamaged``."""
        return NodeKeys.load(self.folder)

    def load_id(self) -> str:
        """The id of the node, by its signing key alone. Raises ``StateMissing``, ``StateDamaged``."""
        return SigningKey.from_pem(self._read(self.key_path), self.key_path).id

    def save_chain(self, chain: tuple[bytes, ...]) -> None:
        """The node's certificate first, then what is above it, DER. Raises ``Misuse`` if it is not for the node's
        key."""
        if not chain or der.public_key_of(chain[0]) != self.load_keys().public_key:
            raise Misuse("the certificate is not for the key of this node")
        self._write(self.chain_path, _to_pem(chain))

    def load_chain(self) -> tuple[bytes, ...]:
        """Raises ``StateMissing`` if there is none yet, ``StateDamaged``."""
        chain = self._certificates(self.chain_path)
        if der.public_key_of(chain[0]) != self.load_keys().public_key:
            raise StateDamaged(path=self.chain_path, detail="it is not for the key of this node")
        return chain

    # --- the mesh -----------------------------------------------------------------------------------------------------

    def save_anchors(self, anchors: tuple[bytes, ...]) -> None:
        """Trust anchors, DER, the root first."""
        if not anchors:
            raise Misuse("a mesh has at least one trust anchor")
        self._write(self.folder / "anchors.pem", _to_pem(anchors))

    def load_anchors(self) -> tuple[bytes, ...]:
        """Raises ``StateMissing``, ``StateDamaged``."""
        return self._certificates(self.folder / "anchors.pem")

    def save_mesh_id(self, mesh_id: str) -> None:
        self._write(self.folder / "mesh.id", mesh_id.encode("ascii") + b"\n")

    def load_mesh_id(self) -> str:
        """Raises ``StateMissing``, ``StateDamaged``."""
        path = self.folder / "mesh.id"
        text = self._read(path).decode("ascii", "replace").strip()
        if not NAME.match(text):
            raise StateDamaged(path=path, detail="it holds no id")
        return text

    def save_id_key(self, id_key: bytes) -> None:
        """The mesh's chunk-id key, 32 bytes."""
        if len(id_key) != _ID_KEY_SIZE:
            raise Misuse("the id key has 32 bytes")
        self._write(self.folder / "id.key", id_key)

    def load_id_key(self) -> bytes:
        """Raises ``StateMissing``, ``StateDamaged``."""
        path = self.folder / "id.key"
        key = self._read(path)
        if len(key) != _ID_KEY_SIZE:
            raise StateDamaged(path=path, detail=f"it has {len(key)} bytes instead of {_ID_KEY_SIZE}")
        return key

    # --- the local operator -------------------------------------------------------------------------------------------

    def write_operator(self, key: SigningKey, chain: tuple[bytes, ...]) -> None:
        """Keeps an operator: the key, and the certificate for it with what is above (DER). Raises ``Misuse`` if they
        do not belong together."""
        if not chain or der.public_key_of(chain[0]) != key.public_key:
            raise Misuse("the certificate is not for the key of this operator")
        self._write(self.operator_key_path, key.to_pem())
        self._write(self.operator_chain_path, _to_pem(chain))

    def load_operator(self) -> OperatorIdentity:
        """Raises ``StateMissing`` if there is none, ``StateDamaged``."""
        key = SigningKey.from_pem(self._read(self.operator_key_path), self.operator_key_path)
        chain = self._certificates(self.operator_chain_path)
        if der.public_key_of(chain[0]) != key.public_key:
            raise StateDamaged(path=self.operator_chain_path, detail="it is not for operator.key")
        return OperatorIdentity(key, chain, self.operator_chain_path, self.operator_key_path)

    # --- the authority ------------------------------------------------------------------------------------------------

    def save_authority(self, authority: Authority) -> None:
        make_private_folder(self.folder)
        authority.save(self.authority_folder)

    def load_authority(self) -> Authority:
        """Raises ``StateMissing`` if this node is no voter, ``StateDamaged``."""
        from caso_mesh.identity.authority import Authority

        return Authority.load(self.authority_folder)

    def drop_authority(self) -> None:
        """Removes the issuing key, and the root key if it lies here: the node is no voter any more."""
        for path in sorted(self.authority_folder.glob("*.key")) + sorted(self.authority_folder.glob("*.pem")):
            remove_private(path)

    @property
    def _next_authority(self) -> Path:
        return self.folder / "authority-next"

    def save_next_authority(self, authority: Authority) -> None:
        """Keeps an authority that is not in use yet; it takes the place of an earlier one."""
        make_private_folder(self.folder)
        authority.save(self._next_authority)

    def take_next_authority(self, issuing: bytes) -> Authority | None:
        """Makes the next authority the one in use if it has the certificate ``issuing`` (DER); ``None`` if it is not here.
        After a break in between it is done again."""
        from caso_mesh.identity.authority import Authority

        try:
            found = Authority.load(self._next_authority)
        except StateMissing:
            return None
        if found.issuing != issuing:
            return None
        self.save_authority(found)
        for path in sorted(self._next_authority.glob("*.key")) + sorted(self._next_authority.glob("*.pem")):
            remove_private(path)
        return found

    @property
    def has_root_key(self) -> bool:
        """Whether the root key still lies here, since no recovery kit was confirmed."""
        from caso_mesh.identity.authority import ROOT_KEY_FILE

        return (self.authority_folder / ROOT_KEY_FILE).exists()

    def remove_root_key(self) -> None:
        """A recovery kit that holds it was confirmed: it is not needed here any more."""
        from caso_mesh.identity.authority import ROOT_KEY_FILE

        remove_private(self.authority_folder / ROOT_KEY_FILE)

    def prepare_issuing(self, randomness: Randomness = os.urandom) -> bytes:
        """The public key (DER) of the issuing key that this node makes to become a voter; the same after a restart."""
        from caso_mesh.identity.authority import ca_key_to_pem, create_ca_key, public_key_of_key

        key = self._next_key()
        if key is None:
            key = create_ca_key(randomness)
            make_private_folder(self.folder)
            make_private_folder(self.authority_folder)
            write_private(self._next_path, ca_key_to_pem(key))
        return public_key_of_key(key)

    def accept_issuing(self, root: bytes, issuing: bytes) -> Authority:
        """Keeps the issuing certificate (DER) that the administrator made for ``prepare_issuing``, or a new one for the
        key that is here.

        Raises ``Misuse`` if it is for another key.
        """
        from caso_mesh.identity.authority import ISSUING_KEY_FILE, ROOT_KEY_FILE, Authority, belongs, load_ca_key

        held = (self._next_key(), load_ca_key(self.authority_folder / ISSUING_KEY_FILE))
        key = next((each for each in held if each is not None and belongs(each, issuing)), None)
        if key is None:
            raise Misuse("the certificate is for no issuing key that is here")
        root_key = load_ca_key(self.authority_folder / ROOT_KEY_FILE)
        authority = Authority(root=root, issuing=issuing, issuing_key=key, root_key=root_key)
        self.save_authority(authority)
        remove_private(self._next_path)
        return authority

    @property
    def _next_path(self) -> Path:
        return self.authority_folder / "next.key"

    def _next_key(self) -> CaKey | None:
        from caso_mesh.identity.authority import load_ca_key

        return load_ca_key(self._next_path)

    # --- files --------------------------------------------------------------------------------------------------------

    def _write(self, path: Path, data: bytes) -> None:
        make_private_folder(self.folder)
        write_private(path, data)

    def _read(self, path: Path) -> bytes:
        data = read_private(path)
        if data is None:
            raise StateMissing(state=path.parent)
        return data

    def _certificates(self, path: Path) -> tuple[bytes, ...]:
        try:
            found = der.from_pem(self._read(path))
            der.public_key_of(found[0])
        except ValueError:
            raise StateDamaged(path=path, detail="it holds no certificate") from None
        return found


class Context(Struct, frozen=True):
    """An operator folder: how to reach a mesh, and as whom. ``endpoints`` are HOST:PORT, to be tried in their order;
    ``anchors`` are DER."""

    endpoints: tuple[str, ...]
    mesh: str
    anchors: tuple[bytes, ...]
    operator: OperatorIdentity


def write_context(
    folder: Path,
    *,
    endpoints: tuple[str, ...],
    mesh: str,
    anchors: tuple[bytes, ...],
    key: SigningKey,
    chain: tuple[bytes, ...],
) -> None:
    """Writes an operator folder for a machine that is no server. The key is written before all else."""
    store = IdentityStore(folder)
    store.write_operator(key, chain)
    store.save_anchors(anchors)
    store.save_mesh_id(mesh)
    write_private(folder / "endpoint", "".join(f"{endpoint}\n" for endpoint in endpoints).encode())


def load_context(folder: Path) -> Context:
    """What ``write_context`` wrote. Raises ``StateMissing``, ``StateDamaged``."""
    store = IdentityStore(folder)
    endpoints = tuple(store._read(folder / "endpoint").decode("utf-8", "replace").split())
    if not endpoints:
        raise StateDamaged(path=folder / "endpoint", detail="it is empty")
    return Context(endpoints, store.load_mesh_id(), store.load_anchors(), store.load_operator())
