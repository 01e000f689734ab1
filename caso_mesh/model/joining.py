"""What newcomers and those who take them in say to each other."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.mesh import Anchor
from caso_mesh.model.orders import Orders


class AnchorsReply(Struct, frozen=True):
    """Who is asked: its mesh, and the certificates that its peers trust (DER)."""

    mesh: str
    mesh_name: str
    node: str
    root: bytes
    anchors: tuple[Anchor, ...]


class JoinRequest(Struct, frozen=True):
    """A newcomer shows the secret of a join link. ``addresses`` are where it may be reached. ``replaces``: the name of the
    server whose place it takes."""

    secret: bytes
    name: str
    public_key: bytes
    encryption_key: bytes
    operator_public_key: bytes
    addresses: tuple[str, ...]
    version: str
    signature: bytes
    preset: str = "lan"
    never_admin: bool = False
    replaces: str = ""


class OperatorRequest(Struct, frozen=True):
    """Somebody who was invited shows the secret of the link, and the key (DER) that he made. ``signature`` is by that key,
    over the mesh and the digest of the secret."""

    secret: bytes
    public_key: bytes
    signature: bytes


class OperatorReply(Struct, frozen=True):
    """An operator's certificate, then what is above it; the anchors of the mesh, the root first (DER). ``addresses``: where
    the mesh is asked, those first that may be in office. ``proof``: that the mesh of the link vouches for the anchors."""

    name: str
    certificate: tuple[bytes, ...]
    anchors: tuple[bytes, ...]
    addresses: tuple[str, ...]
    proof: bytes


class JoinReply(Struct, frozen=True):
    """All that a newcomer needs to be a member. Certificates are DER, the leaf's issuer follows it. ``proof`` shows that
    the mesh of the join link vouches for the anchors in ``orders`` (empty when a person approved). ``warnings``: what the
    newcomer has not got, for a person."""

    certificate: tuple[bytes, ...]
    operator_certificate: tuple[bytes, ...]
    wrapped_id_key: bytes
    orders: Orders
    proof: bytes = b""
    warnings: tuple[str, ...] = ()


class AdoptCommit(Struct, frozen=True):
    """The administrator dials a discovered server: H(nonce, key) of its own, with its mesh and name."""

    commitment: bytes
    mesh_name: str
    admin_name: str


class AdoptCommitReply(Struct, frozen=True):
    commitment: bytes


class AdoptReveal(Struct, frozen=True):
    nonce: bytes
    key: bytes


class AdoptRevealReply(Struct, frozen=True):
    """The newcomer's nonce and key, and what it wants to be."""

    nonce: bytes
    key: bytes
    name: str
    encryption_key: bytes
    operator_public_key: bytes
    addresses: tuple[str, ...]
    version: str
    signature: bytes
    preset: str
    never_admin: bool


class AdoptAccept(Struct, frozen=True):
    """A person compared the codes. ``signature`` is by the key that was revealed, over the root."""

    root: bytes
    signature: bytes
    reply: JoinReply
