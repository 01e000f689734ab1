"""That a server has taken a mesh over by hand: said by its key, so that others need not believe whoever passes it on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caso_mesh.model.mesh import Claim
from caso_mesh.sealing import signing

if TYPE_CHECKING:
    from caso_mesh.identity.keys import SigningKey

_DOMAIN = "lineage/1"


def sign_claim(key: SigningKey, *, mesh: str, lineage: int) -> Claim:
    """``mesh`` is the mesh's id, ``key`` that of the server."""
    return Claim(key.id, lineage, key.sign(_DOMAIN, _said(mesh, key.id, lineage)))


def is_genuine(claim: Claim, *, mesh: str, public_key: bytes) -> bool:
    """Whether the server with that key (DER) said so of this mesh."""
    return signing.verify(public_key, _DOMAIN, _said(mesh, claim.node, claim.lineage), claim.signature)


def _said(mesh: str, node: str, lineage: int) -> bytes:
    return "\0".join((mesh, node, str(lineage))).encode("utf-8", "surrogatepass")
