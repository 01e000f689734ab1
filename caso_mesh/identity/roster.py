"""Who a peer is and what it may do: its certificate proves the key, the roster row gives the role."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from caso_mesh.identity import certificates
from caso_mesh.model.errors import CertificateRefused, NotOnRoster, RemovedFromMesh
from caso_mesh.model.ids import SHORT_NODE_ID, node_id
from caso_mesh.model.mesh import Roster, RosterRow
from caso_mesh.model.states import ROLE_RANK, Role


class Peer(Struct, frozen=True):
    """The other end of a link, as the roster knows it.

    An ``anonymous`` peer (no certificate) may only enrol; one whose certificate has ``expired`` may only renew it.
    ``server_roles`` are (server, role): they hold on single servers, on top of ``role``, which holds everywhere.
    """

    id: str
    name: str
    kind: Literal["node", "operator", "anonymous"]
    role: Role | None = None
    server_roles: tuple[tuple[str, Role], ...] = ()
    public_key: bytes = b""
    encryption_key: bytes = b""
    expired: bool = False


ANONYMOUS = Peer(id="", name="anonymous", kind="anonymous")


def authorise(roster: Roster, certificate: bytes | None, *, now_ns: int) -> Peer:
    """Who shows ``certificate`` (DER), by this roster, at this time. ``None`` is ``ANONYMOUS``.

    That the peer holds the private key is TLS's business; all else is checked here again, so that in-memory links obey
    the same rules: the key is on the roster, and a listed anchor signed the certificate *directly* (a chain over an
    issuing certificate that was dropped is no use). Expired certificates give a peer with ``expired=True``; how long
    ago does not matter, the roster row is what ends the right to renew. When a certificate *begins* does not matter at all: it
    protects from nothing, and a clock that was ahead for an hour while one was renewed would shut its server out for days.

    Raises ``RemovedFromMesh``, ``NotOnRoster``, ``CertificateRefused``.
    """
    if certificate is None:
        return ANONYMOUS
    mesh = f"the mesh {roster.mesh.name}"
    try:
        public_key = certificates.public_key_of(certificate)
        valid = certificates.life(certificate)
    except ValueError:
        raise CertificateRefused(peer=mesh, detail="it is not a certificate") from None
    row = find(roster, node_id(public_key))
    signers = [
        anchor.certificate
        for anchor in roster.anchors
        if certificates.is_ca(anchor.certificate) and certificates.signed_by(certificate, anchor.certificate)
    ]
    if not signers:
        raise CertificateRefused(peer=mesh, detail="nobody who may issue certificates of this mesh signed it")
    # a certificate is worth no more than the one that signed it
    ends_ns = min(valid.not_after_ns, max(certificates.life(signer).not_after_ns for signer in signers))
    return of_row(row, expired=now_ns > ends_ns)


def find(roster: Roster, id: str) -> RosterRow:
    """The row of a node or operator. Raises ``RemovedFromMesh``, ``NotOnRoster``."""
    if id in roster.removed:
        raise RemovedFromMesh(peer=id[:SHORT_NODE_ID])
    for row in roster.rows:
        if row.id == id and node_id(row.public_key) == id:
            return row
    raise NotOnRoster(peer=id[:SHORT_NODE_ID])


def of_row(row: RosterRow, *, expired: bool = False) -> Peer:
    """The peer that a row describes."""
    return Peer(
        id=row.id,
        name=row.name,
        kind=row.kind,
        role=row.role,
        server_roles=row.server_roles,
        public_key=row.public_key,
        encryption_key=row.encryption_key,
        expired=expired,
    )


def may(peer: Peer, role: Role, server: str | None) -> bool:
    """Whether an operator holds ``role`` (or a higher one) in the whole mesh, or on ``server`` if one is named.

    ``False`` for nodes (what a node may call is a matter of its kind), for anonymous and for expired peers.
    """
    held = servers_of(peer, role)
    return held is None or server in held


def servers_of(peer: Peer, role: Role) -> frozenset[str] | None:
    """The servers on which an operator holds ``role`` (or a higher one); ``None`` = in the whole mesh. None at all for
    nodes (what a node may call is a matter of its kind), for anonymous and for expired peers."""
    if peer.kind != "operator" or peer.expired:
        return frozenset()
    if peer.role is not None and ROLE_RANK[peer.role] >= ROLE_RANK[role]:
        return None
    return frozenset(server for server, held in peer.server_roles if ROLE_RANK[held] >= ROLE_RANK[role])
