"""Pure helpers for both ends of joining; the messages themselves travel in ``server/`` and ``admin/``."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from msgspec import Struct

from caso_mesh.identity import certificates
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.tokens import JoinLink, digest
from caso_mesh.model.clock import Randomness
from caso_mesh.model.ids import node_id
from caso_mesh.model.mesh import Anchor, Server
from caso_mesh.sealing import signing, wrapping

_APPLICATION_DOMAIN = "application/1"
_OPERATOR_DOMAIN = "operator-application/1"
_ANCHORS_DOMAIN = b"caso-mesh/anchors/1"


class Newcomer(Struct, frozen=True):
    """What a server that joins says of itself. The keys are as in ``RosterRow``."""

    name: str
    public_key: bytes
    encryption_key: bytes
    addresses: tuple[str, ...] = ()
    never_admin: bool = False
    preset: str = "lan"
    version: str = ""
    replaces: str = ""


# --- the newcomer's end ----------------------------------------------------------------------------------------------


def believed_anchors(link: JoinLink, root_der: bytes, anchors: Iterable[Anchor]) -> tuple[bytes, ...]:
    """Those issuing certificates among fetched anchors that hang on the root of ``link``, directly or by way of others, also of
    such as were dropped since. None if that is another root.

    Of a mesh whose CA is being rotated not all do. Somebody who kept the key of a dropped one can make more that do: what comes
    by them is believed when it is proven (``anchors_proven``), and not before.
    """
    listed = {anchor.certificate: anchor for anchor in anchors if anchor.certificate != root_der}
    pending = list(dict.fromkeys((*listed, *(each for anchor in listed.values() for each in anchor.above))))
    reached, found = [root_der], list[bytes]()
    try:
        if not hmac.compare_digest(certificates.fingerprint(root_der), link.root) or not certificates.is_ca(root_der):
            return ()
        while reached and pending:
            signer = reached.pop()
            below = [each for each in pending if certificates.is_ca(each) and certificates.signed_by(each, signer)]
            pending = [each for each in pending if each not in below]
            reached += below
            found += below
    except ValueError:
        return ()
    return tuple(each for each in found if each in listed)


def prove_anchors(token_digest: bytes, root_der: bytes, issuing_ders: Iterable[bytes], newcomer_key: bytes) -> bytes:
    """The mesh's proof (32 bytes) that it knows the join token and that these are its anchors, for one newcomer.

    ``token_digest`` is what the control state keeps (``tokens.digest``); ``newcomer_key`` is its DER public key.
    """
    listed = sorted(issuing_ders)
    parts = [root_der, newcomer_key, *listed]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(token_digest, _ANCHORS_DOMAIN + framed, "sha256")


def anchors_proven(
    link: JoinLink, root_der: bytes, issuing_ders: Iterable[bytes], newcomer_key: bytes, proof: bytes
) -> bool:
    """Whether the root has the fingerprint of ``link`` and ``proof`` is that of ``prove_anchors``."""
    if not hmac.compare_digest(certificates.fingerprint(root_der), link.root):
        return False
    return hmac.compare_digest(proof, prove_anchors(digest(link.secret), root_der, issuing_ders, newcomer_key))


def sign_application(keys: NodeKeys, newcomer: Newcomer, *, mesh: str, binding: bytes) -> bytes:
    """Proof that the newcomer holds the key it applies with, and wants this encryption key with it.

    ``binding`` ties it to the occasion: the digest of the join token, or the approval's commitment.
    """
    return keys.sign(_APPLICATION_DOMAIN, _application(newcomer, mesh, binding))


def sign_operator(key: SigningKey, *, mesh: str, binding: bytes) -> bytes:
    """Proof that somebody who was invited holds the key that he shows. ``binding`` is the digest of the link's secret."""
    return key.sign(_OPERATOR_DOMAIN, mesh.encode() + b"/" + binding)


# --- the administrator's end -----------------------------------------------------------------------------------------


def check_application(newcomer: Newcomer, signature: bytes, *, mesh: str, binding: bytes) -> bool:
    """Whether ``sign_application`` made ``signature`` with the key of the newcomer, of a kind that is admitted."""
    if len(newcomer.encryption_key) != 32:
        return False
    framed = _application(newcomer, mesh, binding)
    return signing.verify(newcomer.public_key, _APPLICATION_DOMAIN, framed, signature)


def check_operator(public_key: bytes, signature: bytes, *, mesh: str, binding: bytes) -> bool:
    """Whether ``sign_operator`` made ``signature`` with the key."""
    return signing.verify(public_key, _OPERATOR_DOMAIN, mesh.encode() + b"/" + binding, signature)


def server_row(newcomer: Newcomer, *, id_key: bytes, mesh: str, now_ns: int, randomness: Randomness) -> Server:
    """The row of a newcomer, with the mesh's id key wrapped to it. Raises ``SealBroken`` if its encryption key is
    not one."""
    identity = node_id(newcomer.public_key)
    return Server(
        name=newcomer.name,
        id=identity,
        public_key=newcomer.public_key,
        encryption_key=newcomer.encryption_key,
        wrapped_id_key=wrap_id_key(id_key, newcomer.encryption_key, mesh=mesh, node=identity, randomness=randomness),
        joined_at_ns=now_ns,
        never_admin=newcomer.never_admin,
        preset=newcomer.preset,
        addresses=newcomer.addresses,
        version=newcomer.version,
    )


def newcomer_chain(
    authority: Authority, public_key: bytes, *, now_ns: int, randomness: Randomness
) -> tuple[bytes, ...]:
    """The certificate for a newcomer and the one above it, DER."""
    return authority.chain(authority.issue_node(public_key, now_ns=now_ns, randomness=randomness))


def wrap_id_key(id_key: bytes, encryption_key: bytes, *, mesh: str, node: str, randomness: Randomness) -> bytes:
    """The mesh's chunk-id key, sealed to one node."""
    return wrapping.wrap(id_key, encryption_key, aad=_id_key_aad(mesh, node), randomness=randomness)


def unwrap_id_key(keys: NodeKeys, wrapped: bytes, *, mesh: str) -> bytes:
    """The mesh's chunk-id key out of ``Server.wrapped_id_key``. Raises ``SealBroken``."""
    return keys.unwrap(wrapped, _id_key_aad(mesh, keys.id))


def _id_key_aad(mesh: str, node: str) -> bytes:
    return f"id-key/{mesh}/{node}".encode()


def _application(newcomer: Newcomer, mesh: str, binding: bytes) -> bytes:
    parts = (
        mesh.encode(),
        binding,
        newcomer.name.encode(),
        newcomer.public_key,
        newcomer.encryption_key,
        newcomer.preset.encode(),
        bytes([newcomer.never_admin]),
        newcomer.version.encode(),
        *(address.encode() for address in newcomer.addresses),
        # no address looks like this
        *((b"replaces " + newcomer.replaces.encode(),) if newcomer.replaces else ()),
    )
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return sha256(framed).digest()
