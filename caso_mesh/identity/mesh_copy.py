"""The copy of the mesh that lies sealed in every device: the control state, and the keys of the administrator.

It is sealed to recovery kits (``vault.mesh_copies``), and attested by an issuing key: whoever can write to a device
knows what to seal it to, but cannot make one that a kit believes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from caso_mesh.identity import certificates
from caso_mesh.identity.authority import Authority, attested
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.errors import DataDamaged, Misuse, StateDamaged
from caso_mesh.model.orders import Authority as Place

_DOMAIN = "mesh-copy/1"
#: Issuing certificates between the one that attests and the root.
_LONGEST_CHAIN = 16


class MeshCopy(Struct, frozen=True):
    """``control`` is a snapshot of the control state as of ``place``; ``admin`` the node id of the server in office,
    with its private keys. Certificates and keys are DER, ``signing_key`` is PEM, ``encryption_key`` raw X25519."""

    mesh: str
    mesh_name: str
    made_at_ns: int
    place: Place
    control: bytes
    admin: str
    admin_name: str
    signing_key: bytes
    encryption_key: bytes
    root: bytes
    issuing: bytes
    issuing_key: bytes

    def __repr__(self) -> str:
        return f"<MeshCopy {self.mesh_name} {self.place}>"

    def node_keys(self) -> NodeKeys:
        """Raises ``DataDamaged``."""
        try:
            keys = NodeKeys.from_bytes(self.signing_key, self.encryption_key, origin=Path("copy of the mesh"))
        except StateDamaged as error:
            raise DataDamaged(object="the copy of the mesh", detail=error.fields["detail"]) from None
        if keys.id != self.admin:
            raise DataDamaged(object="the copy of the mesh", detail="its keys are not those of its administrator")
        return keys

    def authority(self) -> Authority:
        """The administrator's right to issue certificates. Raises ``DataDamaged``."""
        try:
            return Authority.from_bytes(root=self.root, issuing=self.issuing, issuing_key=self.issuing_key)
        except (ValueError, Misuse) as error:
            raise DataDamaged(object="the copy of the mesh", detail=f"its issuing key: {error}") from None


class _Signed(Struct, frozen=True):
    """``chain``: the issuing certificate that attests, then the ones above it up to the root, which is left out."""

    copy: bytes
    chain: tuple[bytes, ...]
    signature: bytes


def attest(copy: MeshCopy, authority: Authority, anchors: tuple[bytes, ...]) -> bytes:
    """The copy with its proof. ``anchors`` are those of the roster: the chain to the root is made of them."""
    encoded = msgspec.msgpack.encode(copy)
    chain = [authority.issuing]
    while not certificates.signed_by(chain[-1], authority.root) and len(chain) < _LONGEST_CHAIN:
        above = [each for each in anchors if each not in chain and certificates.signed_by(chain[-1], each)]
        if not above:
            break
        chain.append(above[0])
    return msgspec.msgpack.encode(_Signed(encoded, tuple(chain), authority.attest(_DOMAIN, encoded)))


class Attested(Struct, frozen=True):
    """A copy with the certificates by which it hangs on the root: of who attests it, then of who signed that one, and so on
    (DER). That none of them had been dropped when it was made is not said by this: see ``jobs.copies_believed``."""

    copy: MeshCopy
    chain: tuple[bytes, ...]


def check(data: bytes, *, mesh: str, root: bytes, name: str) -> Attested:
    """The copy, if an issuing key below ``root`` (DER) attests it, for the mesh ``mesh``. Raises ``DataDamaged``, which
    names it ``name``. Life is not looked at: a copy may be old."""
    try:
        signed = msgspec.msgpack.decode(data, type=_Signed)
        copy = msgspec.msgpack.decode(signed.copy, type=MeshCopy)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataDamaged(object=name, detail=str(error)) from None
    if not _reaches(signed.chain, root) or not attested(signed.chain[0], _DOMAIN, signed.copy, signed.signature):
        raise DataDamaged(object=name, detail="no administrator of this mesh made it")
    if copy.mesh != mesh or copy.root != root:
        raise DataDamaged(object=name, detail="it is of another mesh")
    if signed.chain[0] != copy.issuing:
        raise DataDamaged(object=name, detail="another key attests it than that of its administrator")
    return Attested(copy, signed.chain)


def _reaches(chain: tuple[bytes, ...], root: bytes) -> bool:
    if not 1 <= len(chain) <= _LONGEST_CHAIN:
        return False
    try:
        return all(
            certificates.is_ca(one) and certificates.signed_by(one, above)
            for one, above in zip(chain, (*chain[1:], root), strict=True)
        )
    except ValueError:
        return False
